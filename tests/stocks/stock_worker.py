"""One process that consumes from a stock until it is told to end: URL NAMESPACE SUBJECT LEASE PAUSE COUNTS."""

import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from stock_workers import Tally

from quota_redis import Counters, Denied, Reason
from quota_redis.stocks import Stocks

REFUSED_PAUSE = 0.002


def main(url: str, namespace: str, subject: str, lease: str, pause: str, counts: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    tally = Tally(Path(counts))
    counters = Counters.from_url(url, namespace=namespace, timeout=5.0)
    stocks = Stocks(counters, lease=timedelta(seconds=float(lease)))
    while True:
        answer = stocks.consume(subject)
        if not isinstance(answer, Denied):
            tally.add(0)
            time.sleep(float(pause))
            continue
        if answer.reason is Reason.FULL:
            tally.add(1)
        time.sleep(REFUSED_PAUSE)


main(*sys.argv[1:])
