"""Scripts that take many subjects at once: in one call those of a shard, which a cluster keeps on one node."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from quota_redis import scripts
from quota_redis.calls import read_snapshot
from quota_redis.connection import raise_first
from quota_redis.counters import Counters
from quota_redis.scripts import NONSENSE, Call, Reply, Value
from quota_redis.types import Snapshot

CHUNK = 100
"""Subjects in one call. Everybody else waits for Redis while it runs: a millisecond, where they are as usual."""


def snapshots(counters: Counters, subjects: Sequence[str]) -> list[Snapshot]:
    """Everything Redis has of many subjects, in one round trip; what is garbled is said in its snapshot.

    Raises Unavailable where Redis does not answer.
    """
    script = scripts.load("snapshots")
    calls = [
        Call(script, keys, (), partial(_read_snapshots, names), names[0])
        for names, keys in _chunks(counters, subjects)
    ]
    outcomes = counters.connection.send_many(calls)
    raise_first(outcomes)
    found = {s.subject: s for some in outcomes if isinstance(some, list) for s in some}
    return [found[subject] for subject in subjects]


def run(
    counters: Counters, script: str, values: Mapping[str, Sequence[Value]], *head: Value
) -> dict[str, int]:
    """Run a script that marks or unmarks subjects, each given with its values; returns the answer for each.

    `head` goes before the values of all. Raises Unavailable where Redis does not answer.
    """
    loaded = scripts.load(script)
    calls = []
    for names, keys in _chunks(counters, values):
        args = [*head]
        for name in names:
            args += values[name]
        changed = counters.keys.changed(names[0])
        calls.append(Call(loaded, [changed, *keys], args, partial(_read_answers, names), names[0]))
    answers: dict[str, int] = {}
    for outcome in counters.connection.send_many(calls):
        if isinstance(outcome, Exception):
            raise outcome
        answers.update(outcome)
    return answers


def forget(counters: Counters, subjects: Sequence[str]) -> None:
    """Drop the hashes of these subjects."""
    for _, keys in _chunks(counters, subjects):
        counters.connection.command("UNLINK", *keys)


def _chunks(counters: Counters, subjects: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The subjects of each shard, at most CHUNK together, with their keys."""
    by_shard: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for subject in subjects:
        key = counters.keys.subject(subject)
        names, keys = by_shard[key[: -len(subject)]]
        names.append(subject)
        keys.append(key)
    for names, keys in by_shard.values():
        for at in range(0, len(names), CHUNK):
            yield names[at : at + CHUNK], keys[at : at + CHUNK]


def _read_snapshots(names: Sequence[str], reply: Reply) -> list[Snapshot]:
    now, *hashes = reply
    return [_read(name, now, fields) for name, fields in zip(names, hashes, strict=True)]


def _read(name: str, now: int, fields: Reply) -> Snapshot:
    try:
        return read_snapshot(name, [now, *fields])
    except NONSENSE:
        return Snapshot(name, now, None, 0, "", {}, (), is_garbled=True)


def _read_answers(names: Sequence[str], reply: Reply) -> dict[str, int]:
    return dict(zip(names, map(int, reply), strict=True))
