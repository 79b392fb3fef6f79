import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from offer_batches import HOUR, LONG_AGO, all_of, offers, used

from shargain.offers.models import Offer, OfferQuota, ScrapingTarget
from shargain.offers.services import offer_creation
from shargain.offers.services.errors import InsideTransaction, InvalidBatch, UnknownTarget
from shargain.offers.services.offer_creation import (
    MAX_PRICE,
    BatchResult,
    NewOffer,
    Outcome,
    create_offers,
    offers_created,
)
from shargain.offers.services.quota import QuotaService

Create = Callable[..., BatchResult]
service = QuotaService()


def limit(target: ScrapingTarget, most: int | None) -> int:
    return service.set_new_quota(target, max_offers_per_period=most, period_start=LONG_AGO).id


class TestBatch:
    def test_order_in_the_batch_decides_which_offers_fit(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        limit(target, 2)
        outcomes = create(9, 1, 5).outcomes
        assert outcomes == (Outcome.CREATED, Outcome.CREATED, Outcome.DISCARDED)

    def test_known_offers_take_no_room(self, target: ScrapingTarget, create: Create) -> None:
        quota = limit(target, 4)
        create(1, 2)
        outcomes = create(1, 3, 2, 4, 5).outcomes
        assert [o.value[:2] for o in outcomes] == ["du", "cr", "du", "cr", "di"]
        assert used(quota) == all_of(4)

    def test_prepared_statements_create_the_same(
        self, target: ScrapingTarget, create: Create, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quota = limit(target, 8)
        monkeypatch.setattr(connection.connection, "prepare_threshold", 1)
        created = [create(each, each + 1, 1).created for each in range(10)]
        assert created == [2, 1, 1, 1, 1, 1, 1, 0, 0, 0]
        assert used(quota) == all_of(8)
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement FROM pg_prepared_statements")
            assert any("shargain_create_offers" in text for (text,) in cursor.fetchall())

    @pytest.mark.parametrize(
        "tail",
        ['"quoted"', "back\\slash", 'both\\"', "{a,b}", "NULL", "ü", "a b", "'", "%s", "a\\"],
    )
    def test_an_odd_address_is_known_again_where_the_quota_is_spent(
        self, target: ScrapingTarget, tail: str
    ) -> None:
        limit(target, 2)
        offers = [NewOffer(f"http://a.example/{each}", "Odd") for each in (tail, f"{tail}x", "new")]
        create_offers(target.pk, offers[:2], batch_id=uuid4())
        outcomes = create_offers(target.pk, offers, batch_id=uuid4()).outcomes
        assert outcomes == (Outcome.DUPLICATE, Outcome.DUPLICATE, Outcome.DISCARDED)

    def test_the_same_address_twice_in_a_batch_counts_once(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        quota = limit(target, 5)
        assert create(1, 1, 2, 1).outcomes == (
            Outcome.CREATED,
            Outcome.DUPLICATE,
            Outcome.CREATED,
            Outcome.DUPLICATE,
        )
        assert used(quota) == all_of(2)

    def test_delivered_again_it_answers_created_again_and_counts_once(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        quota, batch_id = limit(target, 2), uuid4()
        first = create(1, 2, 3, batch_id=batch_id)
        assert create(1, 2, 3, batch_id=batch_id).outcomes == first.outcomes
        limit(target, 3)
        assert create(1, 2, 3, batch_id=batch_id).created == 3
        assert used(quota) == all_of(3)

    def test_the_signal_comes_again_for_what_a_batch_made(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        heard: list[tuple[UUID, int]] = []

        def listen(batch_id: UUID, offers: list[NewOffer], **_: Any) -> None:
            heard.append((batch_id, len(offers)))

        offers_created.connect(listen)
        batch_id = uuid4()
        create(1, 2, batch_id=batch_id)
        create(1, 2)
        create(1, 2, batch_id=batch_id)
        assert heard == [(batch_id, 2), (batch_id, 2)]

    def test_targets_do_not_share_addresses_or_quotas(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        other = ScrapingTarget.objects.create(name="rings", owner=target.owner)
        limit(target, 1)
        assert create(1, 2).created == 1
        assert create(1, 2, of=other.pk).created == 2

    def test_everything_about_an_offer_is_kept(self, target: ScrapingTarget) -> None:
        offer = NewOffer(
            url="https://example.org/ä?b=1&c=%00#x",
            title='O\'Neill \\ "quoted" {brace} %s 💎',
            price=Decimal("0.10"),
            main_image_url="https://example.org/1.jpg",
            list_url="https://example.org/list",
            metadata={"carat": 0.23, "nested": [{"a": None}], "text": "\\u0000"},
            published_at=datetime(2024, 2, 29, 12, tzinfo=UTC),
        )
        create_offers(target.pk, [offer], batch_id=uuid4())
        stored = Offer.objects.get()
        for name in NewOffer.__dataclass_fields__:
            assert getattr(stored, name) == getattr(offer, name), name
        assert stored.created_at is not None

    def test_the_largest_batch(self, target: ScrapingTarget, create: Create) -> None:
        quota = limit(target, 999)
        result = create(*range(1000))
        assert (result.created, result.discarded) == (999, 1)
        assert used(quota) == all_of(999)

    def test_the_state_of_the_quota_comes_with_the_answer(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        limit(target, 5)
        for numbers, expected in (((1, 2), 2), ((2, 3), 3), ((4, 5, 6), 5), ((7,), 5)):
            quota = create(*numbers).quota
            assert quota is not None
            assert (quota.used, quota.held, quota.max_offers_per_period) == (expected, 0, 5)
            assert quota.period_start == LONG_AGO


class TestEdits:
    def test_a_raised_limit_is_usable_at_once(self, target: ScrapingTarget, create: Create) -> None:
        limit(target, 1)
        assert create(1, 2).created == 1
        limit(target, 2)
        assert create(2).created == 1

    def test_lowered_below_used_nothing_more_is_created_and_nothing_is_undone(
        self, target: ScrapingTarget, create: Create
    ) -> None:
        quota = limit(target, 10)
        create(1, 2, 3)
        limit(target, 2)
        assert create(4).discarded == 1
        limit(target, 4)
        assert create(4, 5).created == 1
        assert used(quota) == all_of(4)

    @pytest.mark.parametrize("road", ["orm", "sql"])
    def test_an_edit_past_the_facade_holds_at_once(
        self, target: ScrapingTarget, create: Create, road: str
    ) -> None:
        quota = limit(target, 10)
        create(1, 2)
        if road == "orm":
            OfferQuota.objects.filter(pk=quota).update(max_offers_per_period=3)
        else:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE offers_offerquota SET max_offers_per_period = 3")
        result = create(3, 4, 5)
        assert (result.created, result.discarded) == (1, 2)
        assert used(quota) == all_of(3)

    def test_a_deleted_offer_is_not_refunded(self, target: ScrapingTarget, create: Create) -> None:
        quota = limit(target, 2)
        create(1, 2)
        Offer.objects.all().delete()
        assert create(3).discarded == 1
        assert service.describe([quota])[quota].used == 2

    def test_a_new_quota_rules_from_its_commit(
        self, target: ScrapingTarget, create: Create, now: datetime
    ) -> None:
        limit(target, 100)
        create(1)
        service.set_new_quota(target, max_offers_per_period=1, period_start=now - HOUR)
        assert create(2, 3).created == 1


class TestRefusals:
    @pytest.mark.parametrize("count", [0, 1001])
    def test_size(self, target: ScrapingTarget, create: Create, count: int) -> None:
        with pytest.raises(InvalidBatch, match=f"{count} offers"):
            create(*range(count))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("url", "ftp://example.org/1"),
            ("url", "javascript:alert(1)"),
            ("url", "/relative"),
            ("url", "https://"),
            ("url", "https://[broken"),
            ("url", "https://example.org[broken"),
            ("url", ""),
            ("url", None),
            ("url", "https://example.org/" + "ä" * 1020),
            ("url", "https://example.org/\0"),
            ("url", "https://example.org/\ud800"),
            ("title", "x" * 501),
            ("title", "nul \0"),
            ("title", 7),
            ("main_image_url", "data:image/png;base64,AA"),
            ("list_url", "about:blank"),
            ("price", Decimal("-0.01")),
            ("price", MAX_PRICE + Decimal("0.01")),
            ("price", Decimal("NaN")),
            ("price", Decimal("Infinity")),
            ("price", Decimal("1E-999999")),
            ("price", 3.5),
            ("metadata", {"a": float("nan")}),
            ("metadata", {"a": "\0"}),
            ("metadata", {"a": {1, 2}}),
            ("metadata", {"a": "x" * 20_000}),
            ("metadata", []),
            ("published_at", datetime(2024, 1, 1)),  # noqa: DTZ001
            ("published_at", datetime.fromisoformat("9999-12-31T23:59:59-14:00")),
            ("published_at", "2024-01-01"),
        ],
    )
    def test_a_bad_value_is_named_and_nothing_is_created(
        self, target: ScrapingTarget, field: str, value: object
    ) -> None:
        quota = limit(target, 5)
        values: dict[str, Any] = {"url": "https://example.org/2", "title": "ring", field: value}
        with pytest.raises(InvalidBatch, match=f"Offer 1: {field}") as caught:
            create_offers(target.pk, [*offers(1), NewOffer(**values)], batch_id=uuid4())
        assert (caught.value.index, caught.value.field) == (1, field)
        assert used(quota) == all_of(0)

    @settings(deadline=None)
    @given(st.from_regex(offer_creation._PLAIN_ADDRESS, fullmatch=True))
    def test_what_looks_like_an_address_is_one(self, address: str) -> None:
        assert offer_creation._is_address(address)

    def test_an_address_of_2048_bytes_fits(self, target: ScrapingTarget) -> None:
        url = "https://example.org/".ljust(2048, "x")
        result = create_offers(target.pk, [NewOffer(url=url, title="")], batch_id=uuid4())
        assert result.created == 1

    @pytest.mark.parametrize("most", [None, 0, 5])
    def test_an_unknown_or_inactive_target(
        self, target: ScrapingTarget, create: Create, most: int | None
    ) -> None:
        with pytest.raises(UnknownTarget, match="987654"):
            create(1, of=987654)
        limit(target, most)
        ScrapingTarget.objects.update(is_active=False)
        with pytest.raises(UnknownTarget, match=str(target.pk)):
            create(1)
        ScrapingTarget.objects.update(is_active=True)
        assert create(1).created == (0 if most == 0 else 1)

    def test_inside_a_transaction(self, target: ScrapingTarget, create: Create) -> None:
        with transaction.atomic(), pytest.raises(InsideTransaction, match="outside"):
            create(1)
        assert create(1).created == 1


POSTER = """
import json, os, random, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "shargain.settings"
import django
django.setup()
from uuid import uuid4
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaService
targets, seed, batches = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
totals = [0, 0, 0]
for _ in range(batches):
    numbers = [chance.randrange(400) for _ in range(20)]
    offers = [NewOffer(url=f"https://example.org/{n}", title="ring") for n in numbers]
    result = create_offers(chance.choice(targets), offers, batch_id=uuid4())
    for i, count in enumerate((result.created, result.duplicates, result.discarded)):
        totals[i] += count
QuotaService().flush()
print(json.dumps(totals))
"""


@pytest.mark.parametrize(("targets", "most"), [(1, 150), (8, 33)])
def test_many_processes_create_exactly_the_limit(
    target: ScrapingTarget, targets: int, most: int
) -> None:
    """Overlapping batches from eight processes: never one too many, and none lost or counted twice."""
    others = [
        ScrapingTarget.objects.create(name=str(n), owner=target.owner) for n in range(targets - 1)
    ]
    every = [target, *others]
    quotas = [limit(t, most) for t in every]
    url = connection.settings_dict
    environment = {
        **_environment(),
        "DATABASE_URL": f"postgresql://{url['USER']}:{url['PASSWORD']}@{url['HOST']}:{url['PORT']}/{url['NAME']}",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", POSTER, json.dumps([t.pk for t in every]), str(seed), "40"],
            env=environment,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for seed in range(8)
    ]
    totals = [json.loads(process.communicate()[0]) for process in processes]
    created = sum(total[0] for total in totals)
    assert sum(map(sum, totals)) == 8 * 40 * 20
    assert created == Offer.objects.count() == targets * most
    for quota in quotas:
        assert used(quota) == all_of(most)


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)
