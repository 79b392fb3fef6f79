"""The management commands and the periodic tasks, with what they say and their exit status."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from celery import current_app
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.dispatch import Signal

from quota_redis.celery import beat_schedule, quota_audit, quota_compact, quota_sync
from quota_redis.django.engine import Engine
from quota_redis.django.events import audit_ended, counts_written, sync_ended
from quota_redis.django.management.printing import Progress
from quota_redis.postgres.sync import writing_counts
from shargain.offers.models import OfferQuota

NewQuota = Callable[..., OfferQuota]
Use = Callable[[OfferQuota, int], int]


def run(name: str, *arguments: str) -> str:
    """What it prints; progress goes to stderr."""
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


@contextmanager
def listening(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []

    def hear(signal: Signal, **values: Any) -> None:
        heard.append(values)

    signal.connect(hear)
    try:
        yield heard
    finally:
        signal.disconnect(hear)


def count_of(quota: OfferQuota) -> int:
    quota.refresh_from_db()
    return quota.used_offers_count


@pytest.fixture
def wrong(new_quota: NewQuota, use: Use) -> OfferQuota:
    """A quota with 4 used whose count says 9."""
    quota = new_quota(10)
    use(quota, 4)
    OfferQuota.objects.update(used_offers_count=9)
    return quota


class TestSync:
    def test_counts_are_written(self, new_quota: NewQuota, use: Use) -> None:
        quota = new_quota(10)
        use(quota, 4)
        assert "1 counts of 1 subjects" in run("quota_sync")
        assert count_of(quota) == 4
        assert "0 counts of 0 subjects" in run("quota_sync")

    def test_it_tells_how_far_it_is(
        self, new_quota: NewQuota, use: Use, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(new_quota(10), 4)
        monkeypatch.setattr(Progress, "__call__", lambda self, done: self._stream.write(f"{done}"))
        err = StringIO()
        call_command("quota_sync", stdout=StringIO(), stderr=err)
        # The subject that was marked by its new quota, then the same as one that changed.
        assert err.getvalue().split() == ["1", "2"]

    @pytest.mark.usefixtures("redis_is_down")
    def test_it_fails_where_redis_is_out_of_reach(self, new_quota: NewQuota) -> None:
        new_quota(10)
        with pytest.raises(CommandError, match="not everything was written"):
            run("quota_sync")

    def test_it_fails_where_another_one_runs(self, new_quota: NewQuota, engine: Engine) -> None:
        other = connection.copy()
        other.ensure_connection()
        with (
            writing_counts(other.connection, engine.ledger.namespace, wait=False),
            pytest.raises(CommandError, match="not everything"),
        ):
            run("quota_sync")
        other.close()

    def test_it_refuses_a_transaction(self, new_quota: NewQuota) -> None:
        with transaction.atomic(), pytest.raises(CommandError, match="inside transaction"):
            run("quota_sync")


class TestEvents:
    """What upkeep tells those who listen."""

    def test_a_sync_tells_the_counts_that_it_wrote(self, new_quota: NewQuota, use: Use) -> None:
        quota = new_quota(10)
        use(quota, 4)
        with listening(counts_written) as told:
            run("quota_sync")
        assert told[-1] == {"sender": OfferQuota, "counts": {quota.pk: 4}}

    @pytest.mark.usefixtures("redis_is_down")
    def test_without_redis_it_tells_those_of_the_ledger(
        self, new_quota: NewQuota, use: Use
    ) -> None:
        quota = new_quota(10)
        use(quota, 4)
        with listening(counts_written) as told, pytest.raises(CommandError):
            run("quota_sync")
        assert told == [{"sender": OfferQuota, "counts": {quota.pk: 4}}]

    def test_an_audit_tells_what_it_found(self, wrong: OfferQuota) -> None:
        with listening(audit_ended) as told:
            quota_audit()
        [heard] = told
        assert [drift.reason for drift in heard["report"].drifts] == ["count"]

    def test_a_listener_that_fails_holds_nothing_up(
        self, wrong: OfferQuota, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(**_: object) -> None:
            raise RuntimeError("listener")

        for signal in (counts_written, sync_ended, audit_ended):
            signal.connect(fail)
        try:
            quota_sync()
            quota_audit()
        finally:
            for signal in (counts_written, sync_ended, audit_ended):
                signal.disconnect(fail)
        assert count_of(wrong) == 4
        assert "listener" in caplog.text


class TestAudit:
    def test_nothing_differs(self, new_quota: NewQuota) -> None:
        new_quota(10)
        assert run("quota_audit") == "1 subjects, 0 differences\n"

    def test_what_differs_is_repaired_with_exit_status_1(
        self, wrong: OfferQuota, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = StringIO()
        with pytest.raises(SystemExit) as raised:
            call_command("quota_audit", stdout=out)
        assert raised.value.code == 1
        assert (
            f"{wrong.subject} quota {wrong.pk}: count (ledger 4, count 9, Redis 4)"
            in out.getvalue()
        )
        assert "repaired" in out.getvalue()
        assert count_of(wrong) == 4
        assert "0 differences" in run("quota_audit")

    def test_more_than_a_report_lists_are_told_in_number(
        self, wrong: OfferQuota, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules["quota_redis.postgres.audit"], "MAX_DRIFTS", 0)
        out = StringIO()
        with pytest.raises(SystemExit) as raised:
            call_command("quota_audit", stdout=out)
        assert raised.value.code == 1
        assert "1 subjects, 1 differences\nand 1 more" in out.getvalue()
        assert count_of(wrong) == 4

    def test_only_looking_repairs_nothing(self, wrong: OfferQuota) -> None:
        for _ in range(2):
            with pytest.raises(SystemExit):
                run("quota_audit", "--check")
        assert count_of(wrong) == 9

    def test_as_json(self, wrong: OfferQuota) -> None:
        out = StringIO()
        with pytest.raises(SystemExit):
            call_command("quota_audit", "--json", stdout=out)
        report = json.loads(out.getvalue())
        assert report["drifts"] == [
            {
                "subject": wrong.subject,
                "quota_id": wrong.pk,
                "reason": "count",
                "ledger": 4,
                "column": 9,
                "redis": 4,
            }
        ]
        assert report["repaired"] is True

    @pytest.mark.usefixtures("redis_is_down")
    def test_half_an_audit_is_no_success(self, new_quota: NewQuota) -> None:
        new_quota(10)
        out = StringIO()
        with pytest.raises(SystemExit):
            call_command("quota_audit", stdout=out)
        assert "out of reach" in out.getvalue()


class TestRebuild:
    def test_all_subjects(self, new_quota: NewQuota, use: Use, engine: Engine) -> None:
        quota = new_quota(10)
        use(quota, 4)
        engine.counters.connection.client.flushdb()
        assert "rebuilt 1 subjects" in run("quota_rebuild")
        assert engine.counters.usage(quota.subject)[quota.pk].used == 4

    def test_one_subject(self, new_quota: NewQuota, engine: Engine) -> None:
        quota = new_quota(10)
        engine.counters.connection.client.flushdb()
        assert "rebuilt 1 subjects" in run("quota_rebuild", quota.subject)
        assert engine.counters.usage(quota.subject)[quota.pk].limit == 10

    @pytest.mark.parametrize("subject", ["nonsense", "target:", "target:x"])
    def test_a_subject_that_is_none(self, quota_db: None, subject: str) -> None:
        with pytest.raises(CommandError, match="subject"):
            run("quota_rebuild", subject)

    @pytest.mark.usefixtures("redis_is_down")
    def test_without_redis_it_fails(self, new_quota: NewQuota) -> None:
        with pytest.raises(CommandError, match="Redis"):
            run("quota_rebuild", new_quota(10).subject)


def test_adopting_old_counts(new_quota: NewQuota, use: Use) -> None:
    quota = new_quota(10, used_offers_count=7)
    assert "adopted 1 quotas" in run("quota_adopt")
    assert "adopted 0 quotas" in run("quota_adopt")
    assert use(quota, 9) == 3


class TestTasks:
    def test_sync(self, new_quota: NewQuota, use: Use) -> None:
        quota = new_quota(10)
        use(quota, 4)
        quota_sync()
        assert count_of(quota) == 4

    def test_compaction(self, new_quota: NewQuota) -> None:
        from quota_redis.django.models import LedgerEntry

        quota = new_quota(None)
        LedgerEntry.objects.bulk_create(
            LedgerEntry(namespace="shargain", quota_id=quota.pk, slots=(slot, slot + 1))
            for slot in range(1, 502)
        )
        quota_compact()
        assert [entry.slots.upper for entry in LedgerEntry.objects.all()] == [502]

    def test_an_audit_says_loudly_what_was_wrong(
        self, wrong: OfferQuota, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "quota_redis"):
            quota_audit()
        assert "drift" in caplog.text
        assert count_of(wrong) == 4

    def test_the_schedule_names_tasks_that_exist(self) -> None:
        for entry in beat_schedule().values():
            task = current_app.tasks[entry["task"]]
            assert task.ignore_result
            assert entry["schedule"] > timedelta(0)
        assert len(beat_schedule()) == 3

    def test_the_schedule_can_be_changed(self) -> None:
        spans = {"sync_every": 1, "compact_every": 2, "audit_every": 3}
        schedule = beat_schedule(**{k: timedelta(seconds=v) for k, v in spans.items()})
        assert [entry["schedule"].total_seconds() for entry in schedule.values()] == [1, 2, 3]
