"""The history of edits: whatever road they come, who, when, why, before and after; and nobody can change it."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.test import Client
from offer_batches import HOUR, LONG_AGO

from shargain.offers.models import OfferQuota, QuotaEdit, ScrapingTarget
from shargain.offers.services.edits import Edit, edits, edits_of_target, recorded
from shargain.offers.services.errors import InvalidQuota, UnknownQuota, UnknownTarget
from shargain.offers.services.quota import QuotaInfo, QuotaService, Span

LATER = datetime(2199, 1, 1, tzinfo=UTC)


@pytest.fixture
def quota(target: ScrapingTarget) -> QuotaInfo:
    return QuotaService().set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)


def raw(query: str, *values: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(query, values)


def last(quota: QuotaInfo) -> Edit:
    return edits(quota.id)[0]


class TestEveryRoad:
    def test_the_facade(self, quota: QuotaInfo, target: ScrapingTarget, now: datetime) -> None:
        with recorded("billing", "contract 7"):
            QuotaService().update_quota(
                quota.id, max_offers_per_period=5, period_start=LONG_AGO, period_end=LATER
            )
        assert [edit.kind for edit in QuotaService().edits(quota.id)] == ["changed", "created"]
        edit = last(quota)
        assert (edit.who, edit.why) == ("billing", "contract 7")
        assert set(edit.changed) == {"period_end", "max_offers_per_period"}
        assert edit.at > now
        assert edit.before["max_offers_per_period"] == 9
        assert edit.after == {
            "target_id": target.pk,
            "max_offers_per_period": 5,
            "period_start": LONG_AGO,
            "period_end": LATER,
        }

    def test_a_creation_and_a_deletion(self, quota: QuotaInfo, target: ScrapingTarget) -> None:
        created = last(quota)
        assert (created.kind, created.before) == ("created", {})
        QuotaService().delete_quota(quota.id)
        deleted = last(quota)
        assert (deleted.kind, deleted.before, deleted.after) == ("deleted", created.after, {})
        assert [edit.kind for edit in edits_of_target(target.pk)] == ["deleted", "created"]

    def test_update_and_raw_sql(self, quota: QuotaInfo) -> None:
        OfferQuota.objects.filter(pk=quota.id).update(max_offers_per_period=4)
        assert last(quota).after["max_offers_per_period"] == 4
        raw("UPDATE offers_offerquota SET max_offers_per_period = 3")
        edit = last(quota)
        assert (edit.before["max_offers_per_period"], edit.after["max_offers_per_period"]) == (4, 3)
        assert edit.who == f"sql {connection.settings_dict['USER']}"
        assert edit.why == ""

    def test_what_is_refused_is_not_recorded(self, quota: QuotaInfo) -> None:
        with suppress(RuntimeError), recorded("alice"):
            OfferQuota.objects.update(max_offers_per_period=4)
            raise RuntimeError
        assert len(edits(quota.id)) == 1

    def test_an_edit_that_changes_nothing(self, quota: QuotaInfo) -> None:
        OfferQuota.objects.get().save()
        QuotaService().set_new_quota(
            quota.target_id, max_offers_per_period=9, period_start=LONG_AGO
        )
        assert len(edits(quota.id)) == 1

    def test_every_column_of_a_definition_is_watched(self, quota: QuotaInfo) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                """SELECT array_agg(a.attname::text) FROM pg_trigger t, unnest(t.tgattr) AS n
                JOIN pg_attribute a ON a.attnum = n AND a.attrelid = 'offers_offerquota'::regclass
                WHERE t.tgname = 'offers_offerquota_edit_v1'"""
            )
            [watched] = cursor.fetchone()
        columns = {field.column for field in OfferQuota._meta.concrete_fields}
        assert set(watched) == columns - {"id", "used_offers_count"}


class TestCounts:
    def test_neither_batches_nor_sync_are_edits(self, quota: QuotaInfo, create: Any) -> None:
        create(1, 2, 3)
        QuotaService().flush()
        QuotaService().sync()
        assert OfferQuota.objects.get().used_offers_count == 3
        QuotaService().audit()
        assert len(edits(quota.id)) == 1


class TestWho:
    def test_it_is_the_transactions_alone(self, quota: QuotaInfo) -> None:
        with recorded("alice", "because"):
            OfferQuota.objects.update(max_offers_per_period=4)
        OfferQuota.objects.update(max_offers_per_period=3)
        assert [edit.who[:5] for edit in edits(quota.id)[:2]] == ["sql s", "alice"]

    def test_the_inner_one_counts_and_the_outer_one_comes_back(self, quota: QuotaInfo) -> None:
        with recorded("outer", "one"):
            with recorded("inner"):
                OfferQuota.objects.update(max_offers_per_period=4)
            OfferQuota.objects.update(max_offers_per_period=3)
            with pytest.raises(RuntimeError), recorded("lost"):
                raise RuntimeError
            OfferQuota.objects.update(max_offers_per_period=2)
        told = [(edit.who, edit.why) for edit in edits(quota.id)[:3]]
        assert told == [("outer", "one"), ("outer", "one"), ("inner", "")]

    def test_inside_a_callers_transaction(self, quota: QuotaInfo) -> None:
        with transaction.atomic():
            with recorded("alice"):
                OfferQuota.objects.update(max_offers_per_period=4)
            OfferQuota.objects.update(max_offers_per_period=3)
        assert [edit.who[:5] for edit in edits(quota.id)[:2]] == ["sql s", "alice"]

    @pytest.mark.parametrize(
        ("who", "why"), [("", ""), ("  ", ""), ("x" * 201, ""), ("a", "x" * 1001), ("a\0", "")]
    )
    def test_values_that_cannot_be_kept(self, quota_db: None, who: str, why: str) -> None:
        with pytest.raises(ValueError, match=r"who|why"), recorded(who, why):
            raise AssertionError

    def test_edits_are_bounded(self, quota: QuotaInfo) -> None:
        for limit in range(3):
            OfferQuota.objects.update(max_offers_per_period=limit)
        assert len(edits(quota.id, limit=2)) == 2
        with pytest.raises(ValueError, match="give 1 to"):
            edits(quota.id, limit=0)


class TestAdmin:
    def post(self, client: Client, quota: QuotaInfo, **values: str) -> int:
        form = {
            "target": str(quota.target_id),
            "max_offers_per_period": "5",
            "period_start_0": "2020-01-01",
            "period_start_1": "00:00:00",
            "period_end_0": "",
            "period_end_1": "",
            **values,
        }
        path = f"/admin/offers/offerquota/{quota.id}/change/"
        return client.post(path, form).status_code

    def test_a_form(self, quota: QuotaInfo, admin_client: Client) -> None:
        assert self.post(admin_client, quota, why="asked for by phone") == 302
        edit = last(quota)
        assert (edit.who, edit.why) == ("admin admin", "asked for by phone")
        assert edit.after["max_offers_per_period"] == 5

    def test_a_form_that_is_refused(self, quota: QuotaInfo, admin_client: Client) -> None:
        assert self.post(admin_client, quota, max_offers_per_period="-1") == 200
        assert len(edits(quota.id)) == 1

    def test_an_action(self, quota: QuotaInfo, admin_client: Client) -> None:
        data = {"action": "bulk_close", "_selected_action": str(quota.id)}
        page = admin_client.post("/admin/offers/offerquota/", data).content.decode()
        sealed = {
            name: re.search(rf'name="{name}"\s+value="([^"]*)"', page)[1]
            for name in ("chosen", "confirmed")
        }
        done = admin_client.post(
            "/admin/offers/offerquota/bulk/close/", {**sealed, "why": "unpaid"}
        )
        assert done.status_code == 200
        edit = last(quota)
        assert (edit.who, edit.why, edit.changed) == ("admin admin", "unpaid", ("period_end",))

    def test_a_deletion(self, quota: QuotaInfo, admin_client: Client) -> None:
        path = f"/admin/offers/offerquota/{quota.id}/delete/"
        assert admin_client.post(path, {"post": "yes"}).status_code == 302
        assert (last(quota).kind, last(quota).who) == ("deleted", "admin admin")


class TestNobodyChangesIt:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE offers_quotaedit SET who = 'nobody'",
            "DELETE FROM offers_quotaedit",
        ],
    )
    def test_by_sql(self, quota: QuotaInfo, statement: str) -> None:
        with pytest.raises(DatabaseError, match="history of edits cannot be changed"):
            raw(statement)
        assert len(edits(quota.id)) == 1

    def test_by_the_orm(self, quota: QuotaInfo) -> None:
        edit = QuotaEdit.objects.get()
        edit.who = "nobody"
        for change in (edit.save, edit.delete, QuotaEdit.objects.all().delete):
            with pytest.raises(DatabaseError, match="cannot be changed"):
                change()
        assert last(quota).who != "nobody"

    def test_a_table_of_the_same_name_does_not_hide_an_edit(self, quota: QuotaInfo) -> None:
        raw("CREATE TEMP TABLE offers_quotaedit (LIKE offers_quotaedit INCLUDING ALL)")
        try:
            raw("UPDATE offers_offerquota SET max_offers_per_period = 3")
        finally:
            raw("DROP TABLE pg_temp.offers_quotaedit")
        assert last(quota).after["max_offers_per_period"] == 3


class TestFacade:
    def test_explain(self, quota: QuotaInfo, target: ScrapingTarget, create: Any) -> None:
        create(1, 2)
        told = QuotaService().explain(target, amount=20)
        assert told.ruling is not None
        assert (told.ruling.id, told.ruling.used, told.granted) == (quota.id, 2, 7)
        assert "A batch of 20 would get 7" in told.sentence
        assert create(*range(10, 30)).created == 7

    def test_timeline(self, quota: QuotaInfo, target: ScrapingTarget) -> None:
        service = QuotaService()
        other = service.set_new_quota(
            target, max_offers_per_period=1, period_start=LATER, period_end=LATER + HOUR
        )
        assert service.timeline(target) == (
            Span(LONG_AGO, LATER, quota.id),
            Span(LATER, LATER + HOUR, other.id),
            Span(LATER + HOUR, None, quota.id),
        )

    def test_preview(self, quota: QuotaInfo, target: ScrapingTarget, create: Any) -> None:
        create(1, 2)
        with transaction.atomic():
            told = QuotaService().preview_edit(
                quota.id,
                target.pk,
                max_offers_per_period=2,
                period_start=LONG_AGO,
                period_end=None,
            )
        assert told.is_dangerous
        assert told.sentences == ("used 2, held 0: the new limit 2 stops creation at once.",)

    def test_what_is_not_there(self, quota: QuotaInfo, target: ScrapingTarget) -> None:
        service = QuotaService()
        for asked in (service.explain, service.timeline):
            with pytest.raises(UnknownTarget):
                asked(4711)
        values: dict[str, Any] = {
            "max_offers_per_period": 1,
            "period_start": LONG_AGO,
            "period_end": None,
        }
        with pytest.raises(UnknownTarget):
            service.preview_edit(None, 4711, **values)
        with pytest.raises(UnknownQuota):
            service.preview_edit(4711, target.pk, **values)
        with pytest.raises(InvalidQuota, match="max_offers_per_period"):
            service.preview_edit(None, target.pk, **{**values, "max_offers_per_period": -1})
        assert service.edits(4711) == []


def test_another_connection_is_not_told(quota: QuotaInfo) -> None:
    """A pooled connection carries nobody's name to the next one who uses it."""
    with recorded("alice"):
        pass
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT current_setting('quota_redis.who', true)")
        assert not cursor.fetchone()[0]
