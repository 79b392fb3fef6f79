"""Many subjects in one call: each is decided on its own."""

import pytest
import redis
from define_quotas import DefineQuota

from quota_redis import (
    Counters,
    Denied,
    Garbled,
    Granted,
    Reservation,
    StateLost,
    Unavailable,
)

NOBODY = "redis://127.0.0.1:1/0"


def test_each_is_decided_on_its_own(
    counters: Counters, define: DefineQuota, client: "redis.Redis"
) -> None:
    subjects = [define(limit, subject=f"team:{limit}") for limit in range(5)]
    client.set(counters.keys.subject("bad"), "no hash")
    wanted = [*((subject, 3) for subject in subjects), ("nobody", 1), ("bad", 1)]
    *answers, nobody, bad = counters.reserve_many(wanted)
    assert [getattr(answer, "amount", 0) for answer in answers] == [0, 1, 2, 3, 3]
    assert isinstance(nobody, StateLost)
    assert isinstance(bad, Garbled)
    counters.settle_many((each, 1) for each in answers if isinstance(each, Reservation))
    assert [counters.usage(subject)[1].used for subject in subjects] == [0, 1, 1, 1, 1]
    assert not any(counters.snapshot(subject).holds for subject in subjects)


def test_consuming(counters: Counters, define: DefineQuota) -> None:
    subjects = [define(limit, subject=f"team:{limit}") for limit in (2, 3)]
    answers = counters.consume_many((subject, 3) for subject in subjects)
    assert [type(answer) for answer in answers] == [Denied, Granted]


def test_more_than_are_sent_at_once(
    counters: Counters, define: DefineQuota, client: "redis.Redis"
) -> None:
    subject = define(1000)
    client.script_flush()
    answers = counters.reserve_many([(subject, 1)] * 450)
    held = [each.ranges[0][0] for each in answers if isinstance(each, Reservation)]
    assert sorted(held) == list(range(1, 451))


def test_of_nobody() -> None:
    assert Counters.from_url(NOBODY, namespace="api").reserve_many([]) == []


def test_an_outage_is_raised() -> None:
    with pytest.raises(Unavailable):
        Counters.from_url(NOBODY, namespace="api").reserve_many([("team:7", 1)])
