"""The figures are what the tables say, and limits that change are followed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from shargain.demo.figures import LimitWatch, take
from shargain.demo.folders import ServerError
from shargain.demo.judge import Account, Rule, judge, judge_counts
from shargain.demo.listings import listings
from shargain.demo.tally import Tally
from shargain.offers.models import Offer, ScrapingTarget
from shargain.offers.services.offer_creation import Outcome, create_offers
from shargain.offers.services.quota import QuotaService

START = datetime(2024, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("quota_db")


@pytest.fixture
def target() -> ScrapingTarget:
    owner = get_user_model().objects.create(username="owner")
    return ScrapingTarget.objects.create(owner=owner, name="Rings")


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[LimitWatch]:
    return LimitWatch(tmp_path / "limits.json")


def limit(target: ScrapingTarget, most: int | None) -> int:
    return QuotaService().set_new_quota(target, max_offers_per_period=most, period_start=START).id


def create(target: ScrapingTarget, first: int, count: int) -> int:
    return create_offers(target.pk, listings(first, count), batch_id=uuid4()).created


def account(watch: LimitWatch) -> Account:
    QuotaService().flush()
    (found,) = take(watch).accounts
    return found


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_the_accounts_of_a_quota_in_use(target: ScrapingTarget, watch: LimitWatch) -> None:
    quota_id = limit(target, 10)
    assert create(target, 0, 6) == 6
    watch.look()
    assert account(watch) == Account(
        quota_id=quota_id, target="Rings", limit=10, permitted=10, offers=6, ledger=6, repeated=0,
        free=4, used_offers_count=0, redis_used=6, redis_held=0, is_over=False,
    )  # fmt: skip
    figures = take(watch)
    assert judge(figures) == []
    assert [each.rule for each in judge_counts(figures)] == [Rule.COUNT]
    QuotaService().sync()
    assert judge_counts(take(watch)) == []


def test_offers_beside_the_ledger_are_found(target: ScrapingTarget, watch: LimitWatch) -> None:
    quota_id = limit(target, 10)
    create(target, 0, 2)
    for url, owner_quota in (("https://a.example/", quota_id), ("https://b.example/", 999_999)):
        Offer.objects.create(
            target=target, url=url, title="smuggled", quota_id=owner_quota, batch_id=uuid4()
        )
    found = {each.rule: each.found for each in judge(take(watch))}
    assert found == {Rule.OFFERS: 3, Rule.STRAY: 1}


def test_a_slot_used_twice_and_a_missing_limit_are_found(
    target: ScrapingTarget, watch: LimitWatch
) -> None:
    limit(target, 10)
    create(target, 0, 2)
    execute("ALTER TABLE quota_redis_ledger DROP CONSTRAINT quota_redis_ledger_slot_once")
    try:
        execute("UPDATE quota_redis_ledger SET slots = int8range(12, NULL) WHERE void")
        execute(
            "INSERT INTO quota_redis_ledger (namespace, quota_id, slots) SELECT namespace, quota_id,"
            " slots FROM quota_redis_ledger WHERE NOT void"
        )
        found = {each.rule: each.found for each in judge(take(watch))}
        assert found == {Rule.REPEATED: 2, Rule.FREE: 9, Rule.OFFERS: 2}
    finally:
        execute("DELETE FROM quota_redis_ledger")
        execute(
            "ALTER TABLE quota_redis_ledger ADD CONSTRAINT quota_redis_ledger_slot_once"
            " EXCLUDE USING gist (quota_id WITH =, slots WITH &&, namespace WITH =)"
        )


def test_what_was_used_before_a_limit_was_lowered_is_permitted(
    target: ScrapingTarget, watch: LimitWatch, tmp_path: Path
) -> None:
    limit(target, 10)
    watch.look()
    create(target, 0, 8)
    limit(target, 5)
    watch.look()
    assert account(watch).permitted == 8
    assert judge(take(watch)) == []
    assert account(LimitWatch(tmp_path / "limits.json")).permitted == 8


def test_a_limit_that_was_never_seen_is_believed_at_the_start_alone(
    target: ScrapingTarget, watch: LimitWatch
) -> None:
    limit(target, 10)
    create(target, 0, 8)
    limit(target, 5)
    watch.look()
    assert account(watch).permitted == 5
    watch.look(is_start=True)
    assert account(watch).permitted == 8


def test_a_limit_that_was_taken_away_permits_everything(
    target: ScrapingTarget, watch: LimitWatch
) -> None:
    limit(target, 1)
    watch.look()
    limit(target, None)
    assert account(watch).permitted is None
    watch.look()
    create(target, 0, 5)
    limit(target, 2)
    watch.look()
    limit(target, 2)
    assert account(watch).permitted == 5


def test_a_spoilt_file_of_limits_is_named(tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text("[1]")
    with pytest.raises(ServerError, match=r"limits\.json cannot be read"):
        LimitWatch(tmp_path / "limits.json")


def test_a_period_that_is_over(target: ScrapingTarget, watch: LimitWatch) -> None:
    QuotaService().set_new_quota(
        target,
        max_offers_per_period=3,
        period_start=START,
        period_end=START + timedelta(days=1),
    )
    assert account(watch).is_over


def test_the_tally_follows_a_log_that_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    tally = Tally(log)
    tally.read()
    line = "INFO batch 1-2 of target 7: {} created, 2 duplicates, 3 discarded\n"
    text = line.format(1) + "noise\n" + line.format(10)
    log.write_text(text[:-5])
    tally.read()
    assert tally.record(7).outcomes[Outcome.CREATED] == 1
    with log.open("a") as more:
        more.write(text[-5:])
    tally.read()
    assert tally.record(7).outcomes[Outcome.CREATED] == 11
    log.rename(tmp_path / "worker.old")
    log.write_text(line.format(100))
    tally.read()
    record = tally.record(7)
    assert (record.batches, record.outcomes) == (
        3,
        {Outcome.CREATED: 111, Outcome.DUPLICATE: 6, Outcome.DISCARDED: 9},
    )
    assert record.rate() > 0
    tally.close()
