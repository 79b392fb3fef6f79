"""quota_status, quota_explain, quota_set, and what all commands share: exit status, progress, clear errors."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError, OutputWrapper

from quota_redis.django.engine import Engine, counters
from quota_redis.django.management import printing
from quota_redis.django.management.commands import quota_status
from quota_redis.django.management.printing import Progress, escaped
from shargain.offers.models import OfferQuota, QuotaEdit, ScrapingTarget

NewQuota = Callable[..., OfferQuota]
Use = Callable[[OfferQuota, int], int]
START = datetime(2020, 1, 1, tzinfo=UTC)
LATER = datetime(2199, 1, 1, tzinfo=UTC)


def run(name: str, *arguments: str) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def fails(name: str, *arguments: str) -> CommandError:
    with pytest.raises(CommandError) as raised:
        run(name, *arguments)
    return raised.value


def objects(name: str, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(name, *arguments, "--json").splitlines()]


class TestStatus:
    def test_the_table(self, new_quota: NewQuota, use: Use, engine: Engine) -> None:
        quota = new_quota(2000)
        use(quota, 400)
        held = engine.counters.reserve(quota.subject, 30)
        assert held
        header, line, totals = run("quota_status").splitlines()
        assert header.split() == list(quota_status.HEADER)
        assert line.split() == [
            quota.subject,
            str(quota.pk),
            *("400", "30", "2,000", "1,570"),
            *("2020-01-01T00:00:00Z", "no", "end", "rules"),
        ]
        assert totals == "1 quotas, 1 rule: 400 used, 30 held"

    def test_one_subject_with_what_has_ended(self, new_quota: NewQuota) -> None:
        ended = new_quota(5, period_end=START + timedelta(days=1))
        ruling = new_quota(None, period_start=START + timedelta(days=2))
        assert [o["id"] for o in objects("quota_status")[:-1]] == [ruling.pk]
        *quotas, _ = objects("quota_status", ruling.subject)
        assert [(o["id"], o["state"]) for o in quotas] == [
            (ruling.pk, "rules"),
            (ended.pk, "ended"),
        ]
        assert "unlimited" in run("quota_status")

    def test_json(self, new_quota: NewQuota, use: Use) -> None:
        quota = new_quota(10)
        use(quota, 4)
        line, totals = objects("quota_status")
        assert line == {
            "subject": quota.subject,
            "id": quota.pk,
            "used": 4,
            "held": 0,
            "limit": 10,
            "remaining": 6,
            "start": "2020-01-01T00:00:00+00:00",
            "end": None,
            "state": "rules",
            "is_live": True,
        }
        assert totals["totals"]["used"] == 4

    def test_only_those_near_their_limit(
        self, new_quota: NewQuota, use: Use, target: ScrapingTarget
    ) -> None:
        other = ScrapingTarget.objects.create(name="rings", owner=target.owner)
        near, far = new_quota(10), new_quota(10, target=other)
        use(near, 8)
        use(far, 7)
        assert [o["id"] for o in objects("quota_status", "--near", "80")[:-1]] == [near.pk]
        assert "1 quotas, and there are more" in run("quota_status", "--limit", "1")

    def test_many_are_read_in_batches(
        self,
        target: ScrapingTarget,
        django_assert_max_num_queries: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sys.modules["quota_redis.postgres.audit"], "BATCH", 200)
        ScrapingTarget.objects.bulk_create(
            ScrapingTarget(name=f"t{n}", owner=target.owner) for n in range(450)
        )
        OfferQuota.objects.bulk_create(
            OfferQuota(target=row, max_offers_per_period=5, period_start=START)
            for row in ScrapingTarget.objects.all()
        )
        asked: list[int] = []
        real = counters().snapshots
        counters().snapshots = lambda names: asked.append(len(names)) or real(names)  # type: ignore[method-assign,func-returns-value]
        try:
            assert "451 quotas, 451 rule" in run("quota_status")
        finally:
            del counters().snapshots
        assert asked == [200, 200, 51]

    @pytest.mark.usefixtures("redis_is_down")
    def test_without_redis(self, new_quota: NewQuota) -> None:
        new_quota(10)
        text = run("quota_status")
        assert " ? " in text
        assert "the ledger's numbers stand" in text

    def test_watching_ends_with_ctrl_c(
        self, new_quota: NewQuota, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        new_quota(10)
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(quota_status.time, "sleep", sleep)
        assert run("quota_status", "--watch", "0.5").count("SUBJECT") == 3
        assert pauses == [0.5] * 3

    @pytest.mark.parametrize(
        "options",
        [["--watch", "0"], ["--near", "x"], ["--limit", "0"], ["--watch", "nan"]],
    )
    def test_bad_options(self, quota_db: None, options: list[str]) -> None:
        assert "give" in str(fails("quota_status", *options))


@pytest.mark.parametrize(
    "command", ["quota_status", "quota_explain", "quota_audit", "quota_rebuild"]
)
class TestSubjects:
    def test_one_that_is_none(self, quota_db: None, command: str) -> None:
        error = fails(command, "bucket:1")
        assert error.returncode == 2
        assert "'target:'" in str(error)

    def test_an_unknown_one(self, quota_db: None, command: str) -> None:
        error = fails(command, "target:4711")
        assert error.returncode == 1
        assert str(error) == "There is no target:4711."

    def test_one_without_a_quota_is_known(self, target: ScrapingTarget, command: str) -> None:
        assert run(command, f"target:{target.pk}")


@pytest.mark.parametrize(
    "command",
    [
        ["quota_status"],
        ["quota_explain", "target:1"],
        ["quota_audit"],
        ["quota_rebuild"],
        ["quota_sync"],
        ["quota_adopt"],
        ["quota_set", "target:1", "--limit", "5", "--start", "2026-01-01T00:00:00Z"],
    ],
    ids=lambda command: command[0],
)
def test_an_outage_of_postgresql(
    quota_db: None, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connection

    connection.close()
    with monkeypatch.context() as gone:
        gone.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        gone.setitem(connection.settings_dict, "PORT", "1")
        assert fails(*command).returncode == 3


class TestExplain:
    def test_the_sentence_comes_first(self, new_quota: NewQuota, use: Use, engine: Engine) -> None:
        quota = new_quota(10, period_end=LATER)
        use(quota, 4)
        engine.counters.reserve(quota.subject, 3, hold_id="h\x1b[31mx")
        lines = run("quota_explain", quota.subject, "--amount", "5").splitlines()
        assert lines[0].startswith(f"Quota {quota.pk} rules {quota.subject}")
        assert "A batch of 5 would get 3 at once" in lines[0]
        text = "\n".join(lines)
        assert "2020-01-01T00:00:00Z  2199-01-01T00:00:00Z  quota" in text
        assert "2199-01-01T00:00:00Z  no end                no quota" in text
        assert "h\\x1b[31mx" in text
        assert "\x1b" not in text

    def test_json(self, new_quota: NewQuota) -> None:
        quota = new_quota(10)
        [told] = objects("quota_explain", quota.subject, "--at", "2021-01-01T00:00:00+01:00")
        assert told["explanation"]["at"] == "2021-01-01T00:00:00+01:00"
        assert told["explanation"]["ruling"]["id"] == quota.pk
        assert told["timeline"] == [
            {"start": "2020-01-01T00:00:00+00:00", "end": None, "quota_id": quota.pk}
        ]

    @pytest.mark.parametrize(
        ("time", "cure"),
        [("2026-01-01T00:00:00", "add Z or an offset"), ("soon", "write it as")],
    )
    def test_times_that_are_none(self, quota_db: None, time: str, cure: str) -> None:
        assert cure in str(fails("quota_explain", "target:1", "--at", time))

    def test_an_amount_that_no_batch_has(self, new_quota: NewQuota) -> None:
        assert fails("quota_explain", new_quota(1).subject, "--amount", "0").returncode == 2


class TestSet:
    def set(self, target: ScrapingTarget, limit: str, *options: str) -> str:
        start = ["--start", "2020-01-01T00:00:00Z"]
        return run("quota_set", f"target:{target.pk}", "--limit", limit, *start, *options)

    def test_create_and_change(self, target: ScrapingTarget, use: Use) -> None:
        text = self.set(target, "10", "--end", "2199-01-01T00:00:00Z")
        quota = OfferQuota.objects.get()
        assert text.splitlines() == [
            "At once, until 2199-01-01 00:00 UTC, the new quota (limit 10) rules where none did.",
            f"Quota {quota.pk} was created.",
        ]
        assert (quota.max_offers_per_period, quota.period_end) == (10, LATER)
        assert use(quota, 4) == 4
        assert "leaves 16" in self.set(target, "20")
        quota.refresh_from_db()
        assert (quota.max_offers_per_period, quota.period_end) == (20, LATER)
        assert use(quota, 30) == 16

    def test_again_it_changes_nothing(self, target: ScrapingTarget) -> None:
        self.set(target, "10")
        assert "It changes nothing." in self.set(target, "10")
        assert QuotaEdit.objects.count() == 1

    def test_the_end_goes_with_none(self, target: ScrapingTarget) -> None:
        self.set(target, "10", "--end", "2199-01-01T00:00:00Z")
        self.set(target, "10", "--end", "none")
        assert OfferQuota.objects.get().period_end is None

    def test_what_is_not_given_is_not_written(
        self, target: ScrapingTarget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.set(target, "10")
        terminal = StringIO()
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)

        def meanwhile(_: str) -> str:
            OfferQuota.objects.update(period_end=LATER)
            return "yes"

        monkeypatch.setattr("builtins.input", meanwhile)
        self.set(target, "0")
        quota = OfferQuota.objects.get()
        assert (quota.max_offers_per_period, quota.period_end) == (0, LATER)

    def test_it_tells_who_and_why(self, target: ScrapingTarget) -> None:
        self.set(target, "10", "--reason", "contract 7")
        edit = QuotaEdit.objects.get()
        assert edit.who.startswith("command quota_set (")
        assert edit.why == "contract 7"

    def test_a_dry_run_does_nothing(self, target: ScrapingTarget) -> None:
        assert self.set(target, "0", "--dry-run").endswith("Nothing was changed.\n")
        assert not OfferQuota.objects.exists()

    def test_danger_needs_a_yes(
        self, target: ScrapingTarget, use: Use, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.set(target, "10")
        quota = OfferQuota.objects.get()
        use(quota, 6)
        monkeypatch.setattr(sys, "stdin", StringIO())
        with pytest.raises(CommandError, match="repeat it with --yes") as raised:
            self.set(target, "6")
        assert raised.value.returncode == 2
        assert OfferQuota.objects.get().max_offers_per_period == 10
        text = self.set(target, "6", "--yes")
        assert "used 6, held 0: the new limit 6 stops creation at once." in text
        assert use(quota, 1) == 0

    @pytest.mark.parametrize(("answer", "limit"), [("y", 0), ("", 10)])
    def test_on_a_terminal_it_asks(
        self,
        target: ScrapingTarget,
        monkeypatch: pytest.MonkeyPatch,
        answer: str,
        limit: int,
    ) -> None:
        self.set(target, "10")
        terminal = StringIO()
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr("builtins.input", lambda _: answer)
        if answer:
            self.set(target, "0")
        else:
            with pytest.raises(CommandError, match=r"Nothing was changed\."):
                self.set(target, "0")
        assert OfferQuota.objects.get().max_offers_per_period == limit

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--limit", "-1"], "is no limit: give an integer from 0"),
            (["--limit", "many"], "is no limit"),
            (["--start", "2026-01-01"], "has no time zone"),
            (["--end", "2019-01-01T00:00:00Z"], "end_after_start"),
            (["--model", "offers.Nothing"], "give --model one of .* offers.OfferQuota"),
            (["--reason", "x" * 1001], "why has 1001 characters"),
        ],
    )
    def test_bad_values(self, target: ScrapingTarget, options: list[str], words: str) -> None:
        with pytest.raises(CommandError, match=words):
            self.set(target, "10", *options)
        assert not OfferQuota.objects.exists()

    def test_an_unknown_target(self, quota_db: None) -> None:
        start = ["--start", "2020-01-01T00:00:00Z"]
        error = fails("quota_set", "target:4711", "--limit", "5", *start)
        assert "4711" in str(error)
        assert not OfferQuota.objects.exists()


class TestAuditAndRebuildOfOne:
    def test_only_that_one_is_looked_at_and_nobody_is_told(
        self, new_quota: NewQuota, use: Use, target: ScrapingTarget
    ) -> None:
        from quota_redis.django.events import audit_ended

        other = ScrapingTarget.objects.create(name="rings", owner=target.owner)
        quota, second = new_quota(10), new_quota(10, target=other)
        OfferQuota.objects.update(used_offers_count=9)
        heard: list[object] = []

        def hear(**values: object) -> None:
            heard.append(values)

        audit_ended.connect(hear)
        try:
            out = StringIO()
            with pytest.raises(SystemExit) as raised:
                call_command("quota_audit", quota.subject, "--json", stdout=out)
        finally:
            audit_ended.disconnect(hear)
        assert raised.value.code == 1
        assert [d["subject"] for d in json.loads(out.getvalue())["drifts"]] == [quota.subject]
        quota.refresh_from_db()
        second.refresh_from_db()
        assert (quota.used_offers_count, second.used_offers_count) == (0, 9)
        assert heard == []

    def test_json(self, new_quota: NewQuota) -> None:
        quota = new_quota(10)
        assert objects("quota_rebuild", quota.subject) == [
            {"table": "offers_offerquota", "subjects": 1}
        ]
        [told] = objects("quota_sync")
        assert told["report"]["is_complete"] is True


class TestPrinting:
    def test_progress_is_a_line_a_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([0.0, 0.5, 1.2, 1.3, 2.5])
        monkeypatch.setattr(printing.time, "monotonic", lambda: next(clock))
        out = StringIO()
        progress = Progress(OutputWrapper(out), "subjects")
        for done in (200, 400, 600, 800):
            progress(done)
        progress.close()
        assert out.getvalue() == "400 subjects\n800 subjects\n"

    def test_on_a_terminal_it_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([0.0, 0.5, 1.2])
        monkeypatch.setattr(printing.time, "monotonic", lambda: next(clock))
        out = StringIO()
        out.isatty = lambda: True  # type: ignore[method-assign]
        progress = Progress(OutputWrapper(out), "subjects")
        progress(200)
        progress(1400)
        progress.close()
        assert out.getvalue() == "\r200 subjects\r1,400 subjects\n"

    def test_what_steers_a_terminal_is_escaped(self) -> None:
        assert escaped("a\x1b[2J\u202e\n\u00e9") == "a\\x1b[2J\\u202e\n\u00e9"
