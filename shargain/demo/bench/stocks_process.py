"""One of the processes that use up a limit for `stocks`, and may be killed at any moment.

    python -m shargain.demo.bench.stocks_process URL SUBJECT LEASE_SECONDS TALLY

It counts its grants in the file TALLY, which is memory: what was counted before a kill is there. It ends when the
quota is used up.
"""

import mmap
import struct
import sys
import time
from datetime import timedelta
from pathlib import Path

from quota_redis import Counters, Denied, Granted, Reason
from quota_redis.stocks import Stocks

NAMESPACE = "bench"
TIMEOUT_SECONDS = 5.0
PAUSE_SECONDS = 0.002


def main(url: str, subject: str, lease: str, tally: str) -> None:
    counters = Counters.from_url(url, namespace=NAMESPACE, timeout=TIMEOUT_SECONDS)
    granted = 0
    with (
        Path(tally).open("r+b") as file,
        mmap.mmap(file.fileno(), 8) as memory,
        Stocks(counters, lease=timedelta(seconds=float(lease))) as stocks,
    ):
        while not _is_full(answer := stocks.consume(subject)):
            if isinstance(answer, Granted):
                granted += 1
                struct.pack_into("q", memory, 0, granted)
            else:
                time.sleep(PAUSE_SECONDS)


def _is_full(answer: object) -> bool:
    return isinstance(answer, Denied) and answer.reason is Reason.FULL


if __name__ == "__main__":
    main(*sys.argv[1:])
