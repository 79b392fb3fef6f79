"""What is remembered of an answer, and for how long."""

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from quota_redis import (
    Counters,
    Denied,
    Granted,
    NoQuota,
    Quota,
    Reason,
    Reservation,
    StateLost,
    Usage,
)
from quota_redis.calls import Calls
from quota_redis.recent import MAX_SUBJECTS, Recent

START = datetime(2020, 1, 1, tzinfo=UTC)


def test_it_is_remembered_for_its_span() -> None:
    recent: Recent[str] = Recent(60)
    now = time.monotonic()
    recent.note("young", "answer", at=now - 59, true_for=None)
    recent.note("old", "answer", at=now - 60, true_for=None)
    assert (recent.recall("young"), recent.recall("old")) == ("answer", None)
    recent.forget("young")
    assert recent.recall("young") is None


def test_nothing_is_remembered_without_a_span() -> None:
    recent: Recent[str] = Recent(0)
    recent.note("team:7", "answer", at=time.monotonic() + 60, true_for=None)
    assert recent.recall("team:7") is None


@pytest.mark.parametrize(("true_for", "seen"), [(60.0, "answer"), (30.0, None), (-1.0, None)])
def test_no_longer_than_it_holds(true_for: float, seen: str | None) -> None:
    recent: Recent[str] = Recent(100)
    recent.note("team:7", "answer", at=time.monotonic() - 30, true_for=true_for)
    assert recent.recall("team:7") == seen


def test_memory_is_bounded() -> None:
    recent: Recent[int] = Recent(60)
    for number in range(MAX_SUBJECTS + 1):
        recent.note(f"team:{number}", number, at=time.monotonic(), true_for=None)
    assert recent.recall("team:0") is None
    assert recent.recall(f"team:{MAX_SUBJECTS}") == MAX_SUBJECTS


@pytest.mark.parametrize(("changes_in_ms", "is_known"), [(None, True), (2000, True), (999, False)])
def test_a_quota_may_begin_earlier_by_another_clock(
    changes_in_ms: int | None, *, is_known: bool
) -> None:
    second = timedelta(seconds=1)
    calls = Calls("api", lease=second, boundary_skew=second, remember_full=second)
    answer = NoQuota(changes_in_ms=changes_in_ms)
    calls.note_without_quota("team:7", answer, at=time.monotonic())
    assert calls.recall_without_quota("team:7") == (answer if is_known else None)
    calls.forget("team:7")
    assert calls.recall_without_quota("team:7") is None


class TestRememberedFull:
    def counters(self, redis_url: str, span: float) -> Counters:
        return Counters.from_url(
            redis_url,
            namespace=f"full-{uuid4().hex[:20]}",
            timeout=5,
            remember_full=timedelta(seconds=span),
        )

    def test_it_is_not_asked_again(self, redis_url: str, memory_without_age: None) -> None:
        counters = self.counters(redis_url, 1)
        counters.define("team:7", Quota(id=1, limit=0, start=START))
        assert isinstance(counters.consume("team:7"), Denied)
        counters.connection.client.delete(counters.keys.subject("team:7"))
        assert isinstance(counters.consume("team:7"), Denied)
        assert isinstance(counters.reserve("team:7", 1), Denied)
        counters.forget("team:7")
        with pytest.raises(StateLost):
            counters.consume("team:7")
        counters.close()

    def test_nothing_but_a_quota_that_is_used_up(self, redis_url: str) -> None:
        counters = self.counters(redis_url, 1)
        counters.define("team:7", Quota(id=1, limit=3, start=START))
        assert isinstance(counters.consume("team:7", 5), Denied)
        assert isinstance(counters.consume("team:7", 3), Granted)
        counters.close()

    def test_what_is_held_is_asked_for_again(self, redis_url: str) -> None:
        counters = self.counters(redis_url, 1)
        counters.define("team:7", Quota(id=1, limit=3, start=START))
        hold = counters.reserve("team:7", 3)
        assert isinstance(hold, Reservation)
        assert counters.consume("team:7") == Denied(Reason.BUSY, Usage(1, 3, 0, 3))
        counters.settle(hold, 2)
        assert isinstance(counters.consume("team:7"), Granted)
        counters.close()

    def test_a_repeated_call_gets_its_answer(self, redis_url: str) -> None:
        counters = self.counters(redis_url, 1)
        counters.define("team:7", Quota(id=1, limit=3, start=START))
        granted = counters.consume("team:7", 2, key="k")
        held = counters.reserve("team:7", 1, hold_id="h")
        assert isinstance(held, Reservation)
        counters.settle(held, 1)
        assert isinstance(counters.consume("team:7"), Denied)
        assert counters.consume("team:7", 2, key="k") == granted
        counters.close()

    def test_an_edit_is_seen(self, redis_url: str) -> None:
        counters = self.counters(redis_url, 1)
        counters.define("team:7", Quota(id=1, limit=0, start=START))
        assert isinstance(counters.consume("team:7"), Denied)
        counters.define("team:7", Quota(id=1, limit=1, start=START))
        assert isinstance(counters.consume("team:7"), Granted)
        counters.close()

    def test_it_ends_with_the_period(self, redis_url: str) -> None:
        counters = self.counters(redis_url, 1)
        end = datetime.now(UTC) + timedelta(milliseconds=300)
        counters.define("team:7", Quota(id=1, limit=0, start=START, end=end))
        answer = counters.consume("team:7")
        assert isinstance(answer, Denied)
        assert answer.changes_in_ms is not None
        assert 0 <= answer.changes_in_ms <= 300
        while datetime.now(UTC) < end + timedelta(milliseconds=20):
            time.sleep(0.01)
        assert isinstance(counters.consume("team:7"), NoQuota)
        counters.close()

    def test_it_can_be_turned_off(self, redis_url: str) -> None:
        counters = self.counters(redis_url, 0)
        counters.define("team:7", Quota(id=1, limit=0, start=START))
        assert isinstance(counters.consume("team:7"), Denied)
        counters.connection.client.delete(counters.keys.subject("team:7"))
        with pytest.raises(StateLost):
            counters.consume("team:7")
        counters.close()
