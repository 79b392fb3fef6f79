"""Bulk actions: what they show, that they do just that, and what they leave."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import OperationalError
from django.test import Client

from shargain.console import changes
from shargain.console.bulk_plans import next_end
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.errors import InvalidQuota
from shargain.offers.services.quota import QuotaService
from tests.console.reading import (
    LIST,
    NewQuota,
    choose,
    confirm,
    has,
    hidden,
    plain,
    preview,
    row,
)


class TestExtend:
    def test_shows_what_changes_and_does_it_once_confirmed(
        self, admin_client: Client, new_quota: NewQuota, now: datetime
    ) -> None:
        quota = new_quota(10, ends=5)
        asked = choose(admin_client, "bulk_extend", quota)
        assert not has(asked, "confirmed")

        shown = preview(admin_client, "extend", asked, days="3", why="sales asked")
        end, later = now + timedelta(hours=5), now + timedelta(hours=5, days=3)
        assert f"{end:%Y-%m-%d %H:%M} → {later:%Y-%m-%d %H:%M}" in plain(shown)
        assert row(quota).period_end == end

        done = confirm(admin_client, "extend", shown, days="3", why="sales asked")
        assert "1 done" in plain(done)
        assert row(quota).period_end == later
        edit = QuotaService().edits(quota.id)[0]
        assert (edit.who, edit.why, edit.kind) == ("admin admin", "sales asked", "changed")
        assert LogEntry.objects.get().change_message == "Extend the period (bulk action)."

    def test_to_a_moment_leaves_those_that_end_later_or_never_or_have_ended(
        self, admin_client: Client, new_quota: NewQuota, now: datetime
    ) -> None:
        until = (now + timedelta(days=2)).replace(second=0)
        quotas = [
            new_quota(1, ends=5),
            new_quota(1, start=now - timedelta(hours=2), ends=90),
            new_quota(1, start=now - timedelta(hours=3)),
            new_quota(1, start=now - timedelta(hours=4), end=now - timedelta(hours=1)),
        ]
        asked = choose(admin_client, "bulk_extend", *quotas)

        shown = preview(admin_client, "extend", asked, until=f"{until:%Y-%m-%dT%H:%M}")
        text = plain(shown)
        assert "1 change." in text
        assert "3 left as they are" in text
        for reason in ("ends at that moment or later", "it has no end", "its period has ended"):
            assert f"1 : {reason}" in text or reason in text

        confirm(admin_client, "extend", shown, until=f"{until:%Y-%m-%dT%H:%M}")
        assert row(quotas[0]).period_end == until
        assert row(quotas[1]).period_end == now + timedelta(hours=90)

    @pytest.mark.parametrize(
        ("values", "error"),
        [
            ({}, "Give either days or a moment."),
            ({"days": "3", "until": "2999-01-01T00:00"}, "Give either days or a moment."),
            ({"days": "0"}, "greater than or equal to 1"),
            ({"days": "x"}, "Enter a whole number"),
            ({"until": "tomorrow"}, "Enter a valid date/time."),
            ({"until": "9999-01-01T00:00"}, "up to the year 2999"),
        ],
    )
    def test_wrong_values_are_named_and_change_nothing(
        self, admin_client: Client, new_quota: NewQuota, values: dict[str, str], error: str
    ) -> None:
        asked = choose(admin_client, "bulk_extend", new_quota(ends=5))

        shown = preview(admin_client, "extend", asked, **values)

        assert error in plain(shown)
        assert not has(shown, "confirmed")


class TestRaise:
    @pytest.mark.parametrize(
        ("limit", "percent", "raised"), [(10, 10, 11), (10, 11, 12), (3, 1, 4), (400, 50, 600)]
    )
    def test_rounds_up_to_whole_offers(
        self, admin_client: Client, new_quota: NewQuota, limit: int, percent: int, raised: int
    ) -> None:
        quota = new_quota(limit)
        asked = choose(admin_client, "bulk_raise", quota)
        assert "rounded up to the next whole offer" in plain(asked)

        shown = preview(admin_client, "raise", asked, percent=percent)
        assert f"{limit} → {raised}" in plain(shown)
        confirm(admin_client, "raise", shown, percent=percent)

        assert row(quota).max_offers_per_period == raised

    def test_leaves_what_has_no_limit_a_limit_of_nothing_or_the_highest(
        self, admin_client: Client, new_quota: NewQuota, now: datetime
    ) -> None:
        quotas = [
            new_quota(limit, start=now - timedelta(hours=place + 1))
            for place, limit in enumerate((None, 0, 10**12))
        ]
        asked = choose(admin_client, "bulk_raise", *quotas)

        text = plain(preview(admin_client, "raise", asked, percent=10))

        assert "Nothing: every selected quota stays as it is." in text
        assert "it has no limit" in text
        assert "a percentage of a limit of 0 is nothing" in text
        assert "the limit would be above 1,000,000,000,000" in text

    def test_confirmed_twice_raises_once(self, admin_client: Client, new_quota: NewQuota) -> None:
        quota = new_quota(100)
        asked = choose(admin_client, "bulk_raise", quota)
        shown = preview(admin_client, "raise", asked, percent=10)

        confirm(admin_client, "raise", shown, percent=10)
        again = confirm(admin_client, "raise", shown, percent=10)

        assert "edited since this was shown, so nothing was done" in plain(again)
        assert row(quota).max_offers_per_period == 110


class TestClose:
    def test_ends_now_what_has_begun_and_keeps_its_count(
        self, admin_client: Client, new_quota: NewQuota, now: datetime
    ) -> None:
        quota, scheduled = new_quota(10, ends=5), new_quota(10, start=now + timedelta(hours=1))

        shown = choose(admin_client, "bulk_close", quota, scheduled)
        assert "1 change." in plain(shown)
        assert "it has not begun" in plain(shown)
        assert row(quota).period_end == now + timedelta(hours=5)

        assert "1 done" in plain(confirm(admin_client, "close", shown))
        assert QuotaService().get_active_quota(quota.target_id) is None
        assert row(scheduled).period_end is None


class TestCopy:
    def test_follows_at_the_end_with_the_same_length_and_limit(
        self, admin_client: Client, new_quota: NewQuota, now: datetime
    ) -> None:
        quota = new_quota(7, ends=2)

        shown = choose(admin_client, "bulk_copy", quota)
        confirm(admin_client, "copy", shown)

        copy = OfferQuota.objects.exclude(pk=quota.id).get()
        assert (copy.max_offers_per_period, copy.period_start) == (7, row(quota).period_end)
        assert copy.period_end == now + timedelta(hours=5)
        assert QuotaService().edits(copy.pk)[0].kind == "created"

    def test_twice_makes_no_second_one(self, admin_client: Client, new_quota: NewQuota) -> None:
        quota = new_quota(7, ends=2)
        shown = choose(admin_client, "bulk_copy", quota)
        confirm(admin_client, "copy", shown)

        again = plain(choose(admin_client, "bulk_copy", quota))

        assert "a quota that starts where this one ends" in again
        assert OfferQuota.objects.count() == 2

    def test_two_that_end_together_get_one_follower(
        self, admin_client: Client, new_quota: NewQuota, now: datetime
    ) -> None:
        quotas = [new_quota(7, ends=2), new_quota(8, start=now - timedelta(hours=3), ends=2)]

        text = plain(choose(admin_client, "bulk_copy", *quotas))

        assert "1 change." in text
        assert "1 left as it is" in text

    @pytest.mark.parametrize(
        ("start", "end", "following"),
        [
            ("2026-01-01", "2026-02-01", "2026-03-01"),
            ("2026-01-31", "2026-02-28", "2026-03-31"),
            ("2026-02-15", "2026-03-15", "2026-04-15"),
            ("2026-01-01", "2026-04-01", "2026-07-01"),
            ("2026-01-01", "2027-01-01", "2028-01-01"),
            ("2026-01-05", "2026-01-12", "2026-01-19"),
            ("2026-01-10", "2026-02-11", "2026-03-15"),
            ("2990-01-01", "2995-01-01", None),
            ("0002-01-01", "9998-01-01", None),
        ],
    )
    def test_months_are_followed_by_months(
        self, start: str, end: str, following: str | None
    ) -> None:
        def moment(text: str) -> datetime:
            return datetime.fromisoformat(text).replace(tzinfo=UTC)

        expected = moment(following) if following else None
        assert next_end(moment(start), moment(end)) == expected


class TestWhatWasShown:
    def test_an_edit_in_between_shows_the_page_anew_and_changes_nothing(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        quota = new_quota(100)
        asked = choose(admin_client, "bulk_raise", quota)
        shown = preview(admin_client, "raise", asked, percent=10)
        OfferQuota.objects.update(max_offers_per_period=200)

        again = confirm(admin_client, "raise", shown, percent=10)

        assert "edited since this was shown" in plain(again)
        assert "200 → 220" in plain(again)
        assert row(quota).max_offers_per_period == 200

    def test_an_edit_at_the_last_moment_leaves_that_quota(
        self, new_quota: NewQuota, now: datetime
    ) -> None:
        quota, other = new_quota(100), new_quota(100, start=now - timedelta(hours=9))
        wanted = [
            changes.Change(
                q.target_id,
                "diamonds",
                q.id,
                changes.Values.of(row(q)),
                changes.Values(110, q.period_start, None),
            )
            for q in (quota, other)
        ]
        OfferQuota.objects.filter(pk=quota.id).update(max_offers_per_period=50)

        outcome = changes.make(wanted, "test", "")

        assert [failed.why for failed in outcome.failed] == [changes.MOVED]
        assert (row(quota).max_offers_per_period, row(other).max_offers_per_period) == (50, 110)

    def test_other_values_than_the_shown_ones_are_shown_first(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        quota = new_quota(100)
        shown = preview(
            admin_client, "raise", choose(admin_client, "bulk_raise", quota), percent=10
        )

        again = confirm(admin_client, "raise", shown, percent=900)

        assert "100 → 1,000" in plain(again)
        assert row(quota).max_offers_per_period == 100

    @pytest.mark.parametrize("forged", ["", "x", "WzEsWzFdXQ:1abc:xyz"])
    def test_a_choice_that_was_not_sealed_begins_again(
        self, admin_client: Client, new_quota: NewQuota, forged: str
    ) -> None:
        new_quota(100)
        response = admin_client.post(
            f"{LIST}bulk/close/", {"chosen": forged, "confirmed": "1"}, follow=True
        )
        assert "begin again" in response.content.decode()
        assert OfferQuota.objects.get().period_end is None

    def test_nobody_confirms_what_was_shown_to_another(
        self,
        admin_client: Client,
        staff: Callable[[Sequence[str]], Client],
        new_quota: NewQuota,
    ) -> None:
        shown = choose(admin_client, "bulk_close", new_quota(100))
        clerk = staff(["change_offerquota"])
        values = {name: hidden(shown, name) for name in ("chosen", "confirmed")}

        assert clerk.post(f"{LIST}bulk/close/", values).status_code == 302
        assert OfferQuota.objects.get().period_end is None


class TestPartialFailure:
    @pytest.fixture
    def quotas(self, admin_user: Any, new_quota: NewQuota) -> list[Any]:
        made = ScrapingTarget.objects.bulk_create(
            ScrapingTarget(owner=admin_user, name=f"ring {number}") for number in range(3)
        )
        return [new_quota(100, of=target) for target in made]

    def raise_all(self, client: Client, quotas: list[Any]) -> str:
        shown = preview(client, "raise", choose(client, "bulk_raise", *quotas), percent=10)
        return plain(confirm(client, "raise", shown, percent=10))

    @pytest.fixture
    def fail_second(
        self, monkeypatch: pytest.MonkeyPatch, quotas: list[Any]
    ) -> Callable[[Exception], None]:
        """The second quota's edit fails with an error after it was written."""
        update = QuotaService.update_quota

        def prepare(error: Exception) -> None:
            def fail(self: QuotaService, quota_id: int, **values: Any) -> Any:
                info = update(self, quota_id, **values)
                if quota_id == quotas[1].id:
                    raise error
                return info

            monkeypatch.setattr(QuotaService, "update_quota", fail)

        return prepare

    def test_one_that_fails_is_named_and_the_others_are_made(
        self,
        admin_client: Client,
        quotas: list[Any],
        fail_second: Callable[[Exception], None],
    ) -> None:
        fail_second(InvalidQuota("The quota is odd."))

        text = self.raise_all(admin_client, quotas)

        assert "2 done, 1 not" in text
        assert f"ring 1 {quotas[1].id} The quota is odd." in text
        assert [row(q).max_offers_per_period for q in quotas] == [110, 100, 110]

    def test_an_outage_stops_the_rest_and_says_which(
        self,
        admin_client: Client,
        quotas: list[Any],
        fail_second: Callable[[Exception], None],
    ) -> None:
        fail_second(OperationalError("the connection is lost"))

        text = self.raise_all(admin_client, quotas)

        assert "1 done, 2 not" in text
        assert "look whether it was made: the connection is lost" in text
        assert changes.AFTER_OUTAGE in text
        assert [row(q).max_offers_per_period for q in quotas] == [110, 100, 100]

    def test_what_time_does_not_allow_is_reported(
        self, admin_client: Client, quotas: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(changes, "MAX_SECONDS", -1.0)

        text = self.raise_all(admin_client, quotas)

        assert "0 done, 3 not" in text
        assert changes.NOT_REACHED in text


class TestBounds:
    def test_too_many_are_refused(
        self,
        admin_client: Client,
        new_quota: NewQuota,
        now: datetime,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("shargain.console.bulk.MAX_CHOSEN", 1)
        quotas = [new_quota(1), new_quota(2, start=now)]

        page = choose(admin_client, "bulk_close", *quotas)

        assert "take at most 1 at a time" in page.content.decode()
        assert not OfferQuota.objects.exclude(period_end=None).exists()

    @pytest.mark.parametrize("verb", ["close", "raise", "extend", "copy"])
    def test_takes_the_permission_to_change_or_to_add(
        self,
        staff: Callable[[Sequence[str]], Client],
        new_quota: NewQuota,
        verb: str,
    ) -> None:
        quota = new_quota(1, ends=4)
        needed = "add_offerquota" if verb == "copy" else "change_offerquota"
        others = {"add_offerquota", "change_offerquota", "view_offerquota"} - {needed}
        client = staff(sorted(others))

        assert not has(choose(client, f"bulk_{verb}", quota), "chosen")
        assert client.post(f"{LIST}bulk/{verb}/", {}).status_code == 403
        assert OfferQuota.objects.count() == 1

    def test_an_action_that_is_none_is_not_found(
        self, admin_client: Client, quota_db: None
    ) -> None:
        assert admin_client.post(f"{LIST}bulk/delete/", {}).status_code == 404
