"""What a subject with one quota takes in Redis while nothing happens."""

import time
from collections.abc import Sequence
from typing import Any

import psycopg
import redis

from quota_redis import Counters
from shargain.demo.bench import Bar, Bench, Case, Figure, Result, Table, paragraphs
from shargain.demo.bench.redis_tools import counters, quota
from shargain.demo.bench.subjects import absorb_all, define_all, insert_quotas, ledger, names

SUBJECTS = 100_000
# As full a table of keys as the other leaves, which has room for 7 keys in each of 2^n buckets.
QUICK_SUBJECTS = 25_000
SETTLED_SECONDS = 10.0
PAUSE_SECONDS = 0.5
# Such as people set.
LIMIT = 10_000
PLAIN, USED, EXACT = "plain counter", "plain counter, used", "with a ledger"

NOTES = paragraphs(
    f"""
The growth of `used_memory` over {SUBJECTS:,} subjects ({QUICK_SUBJECTS:,} in the quick mode), `target:0` and
on, each with one quota of {LIMIT:,} units and a period with an end: the keys, the server's own table of them
and the allocator's rounding included. *Used* is after a consume from each of them, when all of them wait for
sync to write their counts.
"""
)


def cases() -> tuple[Case, ...]:
    return (Case("memory", "Memory of Redis per subject", run, BARS),)


BARS = (
    Bar("Redis memory per subject with one quota, idle", PLAIN, at_most=150),
    Bar("Redis memory per subject with one quota and a ledger, idle", EXACT, at_most=150),
)


def run(bench: Bench) -> Result:
    subjects = names(SUBJECTS if bench.is_full else QUICK_SUBJECTS)
    valkey = bench.valkey()
    client = redis.Redis.from_url(valkey.url)
    grown = _plain(counters(valkey.url), client, subjects)
    client.flushall()
    grown[EXACT] = _with_ledger(bench, counters(valkey.url), client, subjects)
    each = {name: round(size / len(subjects), 1) for name, size in grown.items()}
    figures = {
        name: Figure(size, size, size, unit="bytes", better="lower", slack=0.05)
        for name, size in each.items()
    }
    return Result(figures, [Table("", ["", "bytes per subject"], list(each.items()))], notes=NOTES)


def _plain(mine: Counters, client: "redis.Redis", subjects: Sequence[str]) -> dict[str, int]:
    empty = _used(client)
    define_all(mine, subjects, [quota(LIMIT)])
    _write_back(mine, client)
    idle = _used(client)
    mine.consume_many([(subject, 1) for subject in subjects])
    return {PLAIN: idle - empty, USED: _used(client) - empty}


def _with_ledger(
    bench: Bench, mine: Counters, client: "redis.Redis", subjects: Sequence[str]
) -> int:
    empty = _used(client)
    with psycopg.connect(bench.postgres().url, autocommit=True) as connection:
        exact = ledger(connection)
        insert_quotas(connection, len(subjects), LIMIT)
        connection.execute("ANALYZE")
        bench.say("absorbing ...")
        absorb_all(mine, exact, connection, subjects)
    _write_back(mine, client)
    return _used(client) - empty


def _write_back(counters: Counters, client: "redis.Redis") -> None:
    """Leave no subject marked as changed, as sync leaves them."""
    client.delete(*(counters.keys.changed_of(shard) for shard in range(counters.keys.shards)))


def _used(client: "redis.Redis") -> int:
    """Bytes in use, once the server has freed what it frees in the background."""
    before, deadline = -1, time.monotonic() + SETTLED_SECONDS
    while time.monotonic() < deadline:
        info: Any = client.info("memory")
        if info["lazyfree_pending_objects"] == 0 and info["used_memory"] == before:
            break
        before = info["used_memory"]
        time.sleep(PAUSE_SECONDS)
    return before
