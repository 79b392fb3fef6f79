"""One process that spends exactly, from stock, until it is killed: URL DSN LEASE SEED."""

import random
import sys
from datetime import timedelta

import psycopg

from quota_redis import Counters
from quota_redis.postgres import ExactQuota, Ledger
from quota_redis.stocks import Stocks
from tests.ledger.bench import NAMESPACE, SUBJECT, TABLE, Bench


def main(url: str, dsn: str, lease: str, seed: str) -> None:
    dice = random.Random(seed)
    span = timedelta(seconds=float(lease))
    counters = Counters.from_url(url, namespace=NAMESPACE, timeout=5.0, lease=span)
    stocks = Stocks(counters, lease=span)
    with psycopg.connect(dsn, autocommit=True) as connection:
        bench = Bench(connection, counters)
        exact = ExactQuota(counters, Ledger(TABLE), slots=stocks)
        while True:
            wanted = dice.randint(1, 12)
            # What remains to be done may turn out to be less than what is allowed.
            exact.spend(connection, SUBJECT, wanted, lambda n: bench.work(dice.randint(0, n)))


main(*sys.argv[1:])
