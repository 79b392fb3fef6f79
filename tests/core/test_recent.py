"""What is remembered of an answer, and for how long."""

import time
from datetime import timedelta

import pytest

from quota_redis import NoQuota
from quota_redis.calls import Calls
from quota_redis.recent import MAX_SUBJECTS, Recent


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
