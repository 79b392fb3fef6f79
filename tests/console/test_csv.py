"""Quotas as CSV: there and back without a change, and an error for each line at fault."""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from shargain.console import csv_io
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaService
from tests.console.reading import LIST, NewQuota, has, hidden, plain, row

HEAD = "target_id,target_name,max_offers_per_period,period_start,period_end,reason"
START, END = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"
JANUARY, FEBRUARY = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def upload(client: Client, content: str | bytes, **values: str) -> Any:
    data = content.encode() if isinstance(content, str) else content
    file = SimpleUploadedFile("quotas.csv", data, content_type="text/csv")
    return client.post(f"{LIST}import/", {"file": file, **values})


def apply(client: Client, shown: Any) -> Any:
    return client.post(f"{LIST}import/", {"shown": hidden(shown, "shown")})


def exported(client: Client, query: str = "") -> str:
    response = client.get(f"{LIST}export/{query}")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    return b"".join(response.streaming_content).decode("utf-8-sig")  # type: ignore[attr-defined]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


class TestExport:
    def test_has_the_filtered_list(
        self, admin_client: Client, new_quota: NewQuota, admin_user: Any
    ) -> None:
        quota = new_quota(10, start=JANUARY, end=FEBRUARY)
        other = ScrapingTarget.objects.create(name="gold", owner=admin_user)
        new_quota(None, of=other)

        rows = table(exported(admin_client, f"?target={quota.target_id}"))

        assert rows == [
            {
                "target_id": str(quota.target_id),
                "target_name": "diamonds",
                "max_offers_per_period": "10",
                "period_start": START,
                "period_end": END,
                "reason": "",
            }
        ]
        unlimited = table(exported(admin_client, "?state=active"))
        assert [r["target_name"] for r in unlimited] == ["gold"]
        assert (unlimited[0]["max_offers_per_period"], unlimited[0]["period_end"]) == ("", "")

    @pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "'=1", "'quoted", 'a,b\n"c'])
    def test_runs_no_formula_and_comes_back_as_it_was(
        self, admin_client: Client, new_quota: NewQuota, name: str
    ) -> None:
        ScrapingTarget.objects.update(name=name)
        new_quota(10)

        text = exported(admin_client)

        assert not table(text)[0]["target_name"].startswith(("=", "+", "-", "@"))
        assert "No changes" in plain(upload(admin_client, text))

    def test_the_list_links_to_its_export_with_its_filters(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        new_quota(10)
        html = admin_client.get(f"{LIST}?state=active&q=dia").content.decode()
        assert f'href="{LIST}export/?state=active&amp;q=dia"' in html

    def test_takes_the_permission_to_view(self, staff: Callable[[Sequence[str]], Client]) -> None:
        assert staff(["add_offerquota"]).get(f"{LIST}export/").status_code == 403


class TestImport:
    def test_shows_each_change_then_makes_them_with_one_confirmation(
        self, admin_client: Client, new_quota: NewQuota, target: ScrapingTarget
    ) -> None:
        changed = new_quota(10, start=JANUARY, end=FEBRUARY)
        same = new_quota(5, start=FEBRUARY)
        content = "\r\n".join(
            (
                HEAD,
                f"{target.pk},diamonds,20,{START},{END},paid more",
                f"{target.pk},,5,{END},,",
                f"{target.pk},,,2027-01-01T00:00:00+01:00,,",
            )
        )

        shown = upload(admin_client, content, why="the contract")
        text = plain(shown)
        assert "created 1 changed 1 unchanged 1 errors 0" in text
        assert "10 → 20" in text
        assert row(changed).max_offers_per_period == 10
        assert "2 done" in plain(apply(admin_client, shown))

        assert row(changed).max_offers_per_period == 20
        edit = QuotaService().edits(changed.id)[0]
        assert (edit.who, edit.why) == ("admin admin", "paid more")
        new = OfferQuota.objects.exclude(pk__in=(changed.id, same.id)).get()
        assert new.max_offers_per_period is None
        assert new.period_start == datetime(2026, 12, 31, 23, tzinfo=UTC)
        assert QuotaService().edits(new.pk)[0].why == "the contract"
        assert len(QuotaService().edits(same.id)) == 1

    def test_the_same_file_again_changes_nothing(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        content = f"{HEAD}\n{target.pk},,20,{START},{END},\n"
        apply(admin_client, upload(admin_client, content))

        again = upload(admin_client, content)

        assert "No changes" in plain(again)
        assert not has(again, "shown")
        assert OfferQuota.objects.count() == 1

    def test_an_export_comes_back_without_a_change(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        QuotaService().set_new_quota(
            target,
            max_offers_per_period=3,
            period_start=datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC),
        )
        assert "No changes" in plain(upload(admin_client, exported(admin_client)))

    def test_warns_where_the_new_limit_stops_creation(
        self, admin_client: Client, new_quota: NewQuota, target: ScrapingTarget
    ) -> None:
        new_quota(100, start=JANUARY)
        OfferQuota.objects.update(used_offers_count=812)

        text = plain(upload(admin_client, f"{HEAD}\n{target.pk},,80,{START},,"))

        assert "100 → 80 Stops creation at once: 812 are used." in text

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_reads_utf8_with_or_without_a_mark(
        self, admin_client: Client, target: ScrapingTarget, encoding: str
    ) -> None:
        ScrapingTarget.objects.update(name="pierścionki")
        content = f"{HEAD}\n{target.pk},pierścionki,20,{START},{END},\n".encode(encoding)

        assert "created 1" in plain(upload(admin_client, content))

    def test_columns_may_stand_in_any_order_and_two_be_missing(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        head = "period_end,period_start,max_offers_per_period,target_id"
        shown = upload(admin_client, f"{head}\n{END},{START},7,{target.pk}\n\n")
        assert "created 1 changed 0 unchanged 0 errors 0" in plain(shown)


class TestWhatWasShown:
    def test_an_edit_in_between_shows_the_dry_run_anew(
        self, admin_client: Client, new_quota: NewQuota, target: ScrapingTarget
    ) -> None:
        quota = new_quota(10, start=JANUARY)
        shown = upload(admin_client, f"{HEAD}\n{target.pk},,20,{START},,")
        OfferQuota.objects.update(max_offers_per_period=15)

        again = apply(admin_client, shown)

        assert "edited since this was shown, so nothing was done" in plain(again)
        assert "15 → 20" in plain(again)
        assert row(quota).max_offers_per_period == 15
        apply(admin_client, again)
        assert row(quota).max_offers_per_period == 20

    def test_a_target_that_went_in_between_is_an_error(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        shown = upload(admin_client, f"{HEAD}\n{target.pk},,20,{START},,")
        target.delete()

        assert f"There is no target {target.pk}" not in plain(shown)
        again = plain(apply(admin_client, shown))

        assert "This file cannot be imported" in again
        assert not OfferQuota.objects.exists()

    @pytest.mark.parametrize("forge", [lambda s: "", lambda s: "x", lambda s: f"e{s[1:]}"])
    def test_what_was_not_sealed_begins_again(
        self, admin_client: Client, target: ScrapingTarget, forge: Callable[[str], str]
    ) -> None:
        shown = upload(admin_client, f"{HEAD}\n{target.pk},,20,{START},,")
        sealed = hidden(shown, "shown")
        assert forge(sealed) != sealed

        response = admin_client.post(f"{LIST}import/", {"shown": forge(sealed)})

        assert response.status_code == 302
        assert not OfferQuota.objects.exists()

    def test_a_choice_of_a_bulk_action_is_no_import(
        self, admin_client: Client, new_quota: NewQuota
    ) -> None:
        from tests.console.reading import choose

        chosen = hidden(choose(admin_client, "bulk_close", new_quota(1)), "chosen")
        assert admin_client.post(f"{LIST}import/", {"shown": chosen}).status_code == 302

    def test_it_grows_stale(
        self, admin_client: Client, target: ScrapingTarget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown = upload(admin_client, f"{HEAD}\n{target.pk},,20,{START},,")
        monkeypatch.setattr("shargain.console.bulk.VALID_SECONDS", -1)
        assert apply(admin_client, shown).status_code == 302


class TestErrors:
    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ("x,,1,{start},,", "target_id is 'x': give 1 to"),
            ("99999999,,1,{start},,", "There is no target 99999999: look its number up"),
            ("{id},gold,1,{start},,", "is 'diamonds', not 'gold': correct target_id"),
            ("{id},,-1,{start},,", "max_offers_per_period is '-1': give 0 to 1,000,000,000,000"),
            ("{id},,1.5,{start},,", "max_offers_per_period is '1.5'"),
            ("{id},,1000000000001,{start},,", "max_offers_per_period is '1000000000001'"),
            ("{id},,1,2026-01-01T00:00:00,,", "without a time zone: give it as 2026-"),
            ("{id},,1,2026-01-01,,", "without a time zone"),
            ("{id},,1,01/02/2026,,", "period_start is '01/02/2026': give it as"),
            ("{id},,1,,,", "period_start is ''"),
            ("{id},,1,{start},{start},", "is not after period_start"),
            ("{id},,1,{start}", "There are 4 cells: give 6"),
            ("{id},,1,{start},,,", "There are 7 cells: give 6"),
            ("{id},,1,{start},," + "x" * 1001, "reason has 1,001 characters: give at most 1,000"),
            ("{id},,1,0001-01-01T00:00:00+00:00,,", "give a year from 2 to 9998"),
        ],
    )
    def test_names_the_line_the_value_and_the_cure(
        self, admin_client: Client, target: ScrapingTarget, line: str, error: str
    ) -> None:
        good = f"{target.pk},,1,{END},,"
        content = "\n".join((HEAD, good, "", line.format(id=target.pk, start=START)))

        shown = upload(admin_client, content)

        text = plain(shown)
        assert f"4 {error}" in text or ("4 " in text and error in text)
        assert "Nothing is imported while a line is wrong." in text
        assert not has(shown, "shown")
        assert csv_io.dry_run(*csv_io.read(content.encode())).errors[0].line == 4

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            ("", "The file is empty"),
            (HEAD.replace(",", ";"), "separated by semicolons: save the file with commas"),
            (HEAD.replace(",", "\t"), "separated by tabs"),
            (HEAD.replace("period_end", "period_ende"), "The column period_end is missing"),
            (f"{HEAD},colour", "The column 'colour' is none of ours"),
            (f"{HEAD},reason", "The column reason is there twice"),
            (HEAD.encode("utf-16"), "This is not UTF-8: save the file as 'CSV UTF-8'"),
            (f"{HEAD}\n1,caf\u00e9,,,,".encode("latin-1"), "This is not UTF-8"),
            (f'{HEAD}\n1,"open,1,,,', "This is no CSV from here on"),
            (f"{HEAD}\n1,{'x' * 200_000},1,,,", "This is no CSV from here on"),
            (f"{HEAD}\n1,\0,1,,,", "period_start is ''"),
        ],
    )
    def test_a_file_that_is_none_is_explained(
        self, admin_client: Client, quota_db: None, content: str | bytes, error: str
    ) -> None:
        shown = upload(admin_client, content) if content else None
        if shown is None:
            data = b""
            assert error in csv_io.read(data)[1][0].message
            return
        assert error in plain(shown)
        assert not has(shown, "shown")

    def test_a_quota_that_is_there_twice_is_refused(
        self, admin_client: Client, target: ScrapingTarget
    ) -> None:
        line = f"{target.pk},,1,{START},,"
        same = f"{target.pk},,2,2026-01-01T01:00:00+01:00,,"

        text = plain(upload(admin_client, f"{HEAD}\n{line}\n{same}"))

        assert "3 This is the same target and period_start as line 2: remove one." in text

    def test_a_line_is_counted_where_it_begins(self, target: ScrapingTarget) -> None:
        content = f'{HEAD}\n{target.pk},,1,{START},,"two\nlines"\nx,,1,{START},,\n'
        assert [error.line for error in csv_io.read(content.encode())[1]] == [4]

    def test_lines_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_io, "MAX_LINES", 2)
        lines = "".join(f"{number},,1,{START},,\n" for number in (1, 2, 3))

        rows, errors = csv_io.read(f"{HEAD}\n{lines}".encode())

        assert len(rows) == 2
        assert errors == [
            csv_io.LineError(4, "The file has more than 2 lines: cut it into several.")
        ]
        assert csv_io.read(f"{HEAD}\n{lines[: len(lines) * 2 // 3]}".encode())[1] == []

    def test_errors_are_bounded(self) -> None:
        rows, errors = csv_io.read(f"{HEAD}\n{'x,,,,,' * 1}\n".encode() + b"x,,,,,\n" * 500)
        assert not rows
        assert len(errors) == csv_io.MAX_ERRORS + 1

    @pytest.mark.parametrize("size", [csv_io.MAX_BYTES + 1, 3_000_000])
    def test_a_file_that_is_too_large_is_refused(
        self, admin_client: Client, quota_db: None, size: int
    ) -> None:
        text = plain(upload(admin_client, b"x" * size))
        assert "1 MB" in text
        assert "1 MB is the most" in text or "Choose a file of at most 1 MB." in text

    def test_takes_the_permission_to_add_and_to_change(
        self, staff: Callable[[Sequence[str]], Client]
    ) -> None:
        client = staff(["view_offerquota", "change_offerquota"])
        assert client.get(f"{LIST}import/").status_code == 403
        assert upload(client, HEAD).status_code == 403
        assert "Import CSV" not in client.get(LIST).content.decode()
