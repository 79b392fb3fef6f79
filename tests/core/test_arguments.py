"""Subjects, namespaces, addresses and spans: what makes good ones, and what the bad ones are told."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from quota_redis import Counters, Granted, InvalidArgument, Quota, Reservation
from quota_redis.keys import SHARDS, Keys

START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "subject",
    [
        "team:7",
        "{braces}",
        "a}b{c",
        "with blanks\tand\nlines",
        "größe ✓ 限度",
        "x" * 200,
        "%s %d *?[]",
        "1-2,3-4;5:6|7",
        "0",
    ],
)
def test_a_subject_is_any_text(counters: Counters, subject: str) -> None:
    counters.define(subject, Quota(id=1, limit=2, start=START))
    assert isinstance(counters.consume(subject, key=subject), Granted)
    assert counters.snapshot(subject).subject == subject
    assert counters.usage(subject)[1].used == 1
    assert counters.snapshots([subject, subject])[1].quotas[1].usage.used == 1


@pytest.mark.parametrize("subject", ["", "x" * 201, "é" * 101, "a\0b", "\ud800", 7, None, b"x"])
def test_bad_subjects_are_named(counters: Counters, subject: str) -> None:
    with pytest.raises(InvalidArgument, match="subject is "):
        counters.consume(subject)


@pytest.mark.parametrize("namespace", ["", "a b", "x" * 33, "a{b}", "a:b", "ä", None, 7, "a\n"])
def test_bad_namespaces_are_named(new_counters: Callable[..., Counters], namespace: str) -> None:
    with pytest.raises(InvalidArgument, match="namespace is "):
        new_counters(namespace=namespace)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "127.0.0.1:6379", "redis://:x@h:port/0"])
def test_bad_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="address of Redis"):
        Counters.from_url(url, namespace="api")


def test_the_longest_and_the_shortest_lease_are_taken(
    new_counters: Callable[..., Counters],
) -> None:
    for lease in (timedelta(milliseconds=1), timedelta(days=1)):
        counters = new_counters(lease=lease)
        counters.define("team:7", Quota(id=1, limit=5, start=START))
        assert isinstance(counters.reserve("team:7", 2), Reservation)


@pytest.mark.parametrize("lease", [timedelta(0), timedelta(days=2), timedelta(microseconds=1), 15])
def test_leases_are_bounded(new_counters: Callable[..., Counters], lease: object) -> None:
    with pytest.raises(InvalidArgument, match="lease is "):
        new_counters(lease=lease)


@pytest.mark.parametrize("skew", [timedelta(microseconds=-1), timedelta(hours=2)])
def test_skews_are_bounded(new_counters: Callable[..., Counters], skew: timedelta) -> None:
    with pytest.raises(InvalidArgument, match="boundary_skew is "):
        new_counters(boundary_skew=skew)


def test_what_one_script_touches_is_on_one_node() -> None:
    keys = Keys("api")
    for subject in ("team:7", "{x}", "a}b{c"):
        tags = {
            key[key.index("{") + 1 : key.index("}")]
            for key in (
                keys.subject(subject),
                keys.changed(subject),
                keys.answer(subject, "k{e}y"),
                keys.absorbing(subject),
            )
        }
        assert tags == {f"api:{keys.shard(subject)}"}


def test_subjects_spread_over_all_shards() -> None:
    keys = Keys("api")
    assert {keys.shard(f"team:{n}") for n in range(500)} == set(range(SHARDS))


def test_the_layout_of_keys_is_fixed() -> None:
    """Old and new code run side by side during a deploy: another layout needs another version."""
    keys = Keys("api")
    assert keys.subject("team:7") == "q1:{api:10}s:team:7"
    assert keys.changed("team:7") == "q1:{api:10}c"
    assert keys.answer("team:7", "job") == "q1:{api:10}k:team:7:job"
    assert keys.absorbing("team:7") == "q1:{api:10}a:team:7"
