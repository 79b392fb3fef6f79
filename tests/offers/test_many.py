"""create_many: batches of many targets, with slots from one round trip, each decided on its own."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from offer_batches import LONG_AGO, all_of, offers, used

from quota_redis.connection import Connection
from quota_redis.django.engine import counters
from shargain.offers.models import Offer, ScrapingTarget
from shargain.offers.services import offer_creation
from shargain.offers.services.errors import (
    InsideTransaction,
    InvalidBatch,
    ServiceUnavailable,
    UnknownTarget,
)
from shargain.offers.services.offer_creation import (
    BatchResult,
    NewOffer,
    Outcome,
    TargetBatch,
    create_many,
)
from shargain.offers.services.quota import QuotaService

service = QuotaService()


@pytest.fixture
def targets(target: ScrapingTarget) -> list[ScrapingTarget]:
    more = [ScrapingTarget.objects.create(name=str(n), owner=target.owner) for n in range(5)]
    return [target, *more]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often Redis was asked, by what."""
    seen: Counter[str] = Counter()
    for name in ("send", "send_many"):
        original = getattr(Connection, name)

        def counted(
            self: Connection, sent: Any, name: str = name, original: Any = original
        ) -> object:
            seen[name] += 1
            return original(self, sent)

        monkeypatch.setattr(Connection, name, counted)
    return seen


@pytest.fixture
def postgres_is_down(quota_db: None) -> Iterator[Callable[[], None]]:
    """Let this process find nobody where PostgreSQL was; called, it is there again."""
    settings = dict(connection.settings_dict)

    def come_back() -> None:
        connection.close()
        connection.settings_dict.update(settings)

    connection.close()
    connection.settings_dict.update(HOST="127.0.0.1", PORT="1")
    yield come_back
    come_back()


def limit(target: ScrapingTarget, most: int | None) -> int:
    return service.set_new_quota(target, max_offers_per_period=most, period_start=LONG_AGO).id


def batch(target: ScrapingTarget, *numbers: int, batch_id: UUID | None = None) -> TargetBatch:
    return TargetBatch(target.pk, batch_id or uuid4(), offers(*numbers))


def outcomes(result: object) -> list[Outcome]:
    assert isinstance(result, BatchResult), result
    return list(result.outcomes)


def test_each_batch_is_decided_under_its_own_quota(targets: list[ScrapingTarget]) -> None:
    quotas = [limit(targets[0], 2), limit(targets[1], 0), limit(targets[2], None)]
    results = create_many([batch(target, 1, 2, 3) for target in targets[:4]])
    created, discarded = Outcome.CREATED, Outcome.DISCARDED
    assert [outcomes(result) for result in results] == [
        [created, created, discarded],
        [discarded] * 3,
        [created] * 3,
        [created] * 3,
    ]
    assert [used(quota) for quota in quotas] == [all_of(2), all_of(0), all_of(3)]


def test_slots_for_all_come_in_one_round_trip(
    targets: list[ScrapingTarget], calls: Counter[str]
) -> None:
    quotas = [limit(target, 50) for target in targets]
    calls.clear()
    create_many([batch(target, 1, 2) for target in targets])
    assert calls == {"send_many": 1}
    assert [used(quota) for quota in quotas] == [all_of(2)] * len(targets)


def test_a_target_that_comes_again_is_decided_in_order(
    target: ScrapingTarget, targets: list[ScrapingTarget]
) -> None:
    quota = limit(target, 3)
    first, other, second = create_many(
        [batch(target, 1, 2), batch(targets[1], 1), batch(target, 2, 3, 4)]
    )
    assert outcomes(first) == [Outcome.CREATED] * 2
    assert outcomes(other) == [Outcome.CREATED]
    assert outcomes(second) == [Outcome.DUPLICATE, Outcome.CREATED, Outcome.DISCARDED]
    assert used(quota) == all_of(3)


def test_what_is_wrong_with_one_is_its_own(
    target: ScrapingTarget, targets: list[ScrapingTarget]
) -> None:
    quota, inactive = limit(target, 9), targets[1]
    limit(inactive, 9)
    ScrapingTarget.objects.filter(pk=inactive.pk).update(is_active=False)
    bad = TargetBatch(target.pk, uuid4(), [NewOffer(url="ftp://example.org", title="")])
    empty = TargetBatch(target.pk, uuid4(), [])
    results = create_many([bad, batch(inactive, 1), empty, batch(target, 1, 2)])
    kinds = [type(result) for result in results]
    assert kinds == [InvalidBatch, UnknownTarget, InvalidBatch, BatchResult]
    assert used(quota) == all_of(2)
    assert service.active_quotas([inactive.pk])[inactive.pk].held == 0


def test_sent_again_it_answers_the_same(target: ScrapingTarget) -> None:
    quota = limit(target, 2)
    batches = [batch(target, 1, 2, 3)]
    first, again = create_many(batches), create_many(batches)
    assert outcomes(first[0]) == outcomes(again[0])
    assert used(quota) == all_of(2)


def test_without_redis_each_goes_direct(targets: list[ScrapingTarget], settings: Any) -> None:
    for target in targets:
        limit(target, 1)
    gone = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {**settings.CACHES, "quotas": gone}
    results = create_many([batch(target, 1, 2) for target in targets])
    assert [outcomes(r) for r in results] == [[Outcome.CREATED, Outcome.DISCARDED]] * len(targets)


def test_a_redis_that_knows_nothing_is_loaded(targets: list[ScrapingTarget]) -> None:
    quotas = [limit(target, 1) for target in targets]
    counters().connection.client.flushdb()
    create_many([batch(target, 1, 2) for target in targets])
    assert [used(quota) for quota in quotas] == [all_of(1)] * len(targets)


def test_slots_that_nobody_used_go_back(targets: list[ScrapingTarget]) -> None:
    quotas = [limit(target, 5) for target in targets]
    with transaction.atomic(), pytest.raises(InsideTransaction):
        create_many([batch(target, 1, 2) for target in targets])
    service.flush()
    assert {info.held for info in service.describe(quotas).values()} == {0}


def test_an_outage_of_postgres_is_not_met_for_each(
    targets: list[ScrapingTarget],
    postgres_is_down: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def counted(*args: Any, original: Any = offer_creation._tried) -> object:
        tried.append(args)
        return original(*args)

    monkeypatch.setattr(offer_creation, "_tried", counted)
    batches = [batch(target, 1) for target in targets]
    results = create_many(batches)
    assert [type(result) for result in results] == [ServiceUnavailable] * len(targets)
    assert len(tried) == offer_creation.MAX_FAILURES
    postgres_is_down()
    assert all(outcomes(result) == [Outcome.CREATED] for result in create_many(batches))
    assert Offer.objects.count() == len(targets)


@pytest.mark.parametrize("count", [0, 101])
def test_how_many(target: ScrapingTarget, count: int) -> None:
    with pytest.raises(InvalidBatch, match=f"{count} batches: give 1 to 100"):
        create_many([batch(target, n) for n in range(count)])
    assert Offer.objects.count() == 0
