"""What the creation of offers is measured against: the same insert without a quota, with a guard row, and others.

Each validates the same offers, sends them in one function call, learns which were created and which are
duplicates, logs, and tells who listens, as creation does; what differs is the quota. Nothing else uses them.
"""

import json
import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from django.db import connections

from quota_redis.django.engine import engine_for
from quota_redis.postgres import ExactQuota
from shargain.demo import naive
from shargain.logs import fields
from shargain.offers.models import OfferQuota
from shargain.offers.services import offer_creation, quota
from shargain.offers.services.offer_creation import BatchResult, NewOffer
from shargain.offers.services.quota import Spent

Create: TypeAlias = Callable[[int, Sequence[NewOffer], UUID], object]

SITE = Path(__file__).parent
CREATION = SITE.parents[1] / "offers" / "sql" / "create_offers_v2.sql"


def sql() -> str:
    """Functions around the statement that creation itself inserts by, whose text is taken from there."""
    text = CREATION.read_text(encoding="utf-8")
    insert = text[text.index("    WITH known AS") : text.index("\nEND $$;")]
    counted = insert[insert.index("           CASE WHEN") : insert.index("    INTO created")]
    insert = insert.replace(counted, "           count(i.url)\n")
    quota = "shargain_create_offers_v2.quota_id"
    plain = insert.replace("ORDER BY n LIMIT v_room", "").replace(quota, "NULL")
    functions = (SITE / "ingestion.sql").read_text(encoding="utf-8")
    functions = functions.replace("    INSERT_WITHOUT_QUOTA", plain)
    return functions.replace("    INSERT_WITH_ROOM", insert.replace(quota, "v_quota"))


class _Batch(offer_creation._Batch):  # noqa: SLF001  it is what is compared with
    """A batch that is decided without the quota system."""

    def call(self, query: str, *more: object) -> None:
        values = (self.target_id, self.batch_id, f"[{','.join(self._pending.values())}]", *more)
        created, duplicates, _ = self._execute(_connection(), query, values)
        self._decide(created, duplicates)


def exact(target_id: int, offers: Sequence[NewOffer], batch_id: UUID) -> object:
    """Creation as it is."""
    return offer_creation.create_offers(target_id, offers, batch_id=batch_id)


def exact_without_stocks(target_id: int, offers: Sequence[NewOffer], batch_id: UUID) -> object:
    """Creation as it is where each batch asks Redis for its slots."""
    spend = partial(quota._spend, _exact_without_stocks())  # noqa: SLF001
    return offer_creation._decided(offer_creation._Batch(target_id, batch_id, offers), spend)  # noqa: SLF001


@cache
def _exact_without_stocks() -> ExactQuota:
    exact = copy(engine_for(OfferQuota).exact)
    exact.slots = exact.counters
    return exact


def plain(target_id: int, offers: Sequence[NewOffer], batch_id: UUID) -> object:
    """The same insert, and no quota."""

    def decide(batch: _Batch) -> None:
        batch.call("SELECT * FROM bench_plain_v1(%s::bigint, %s::uuid, %s::jsonb)")

    return _create(target_id, offers, batch_id, decide)


def guard(target_id: int, offers: Sequence[NewOffer], batch_id: UUID) -> object:
    """The same insert, and a conditional UPDATE of the quota's row after it, in the same transaction.

    After it, for so the row is locked as briefly as it can be. A look at the row before says how much fits; what
    does not after all is rolled back and done again with the row locked first, which happens near the limit alone.
    """
    return _create(target_id, offers, batch_id, partial(_guarded, look=True))


def guard_without_look(target_id: int, offers: Sequence[NewOffer], batch_id: UUID) -> object:
    """The same without the look before."""
    return _create(target_id, offers, batch_id, partial(_guarded, look=False))


def _guarded(batch: _Batch, *, look: bool) -> None:
    query = (
        "SELECT * FROM bench_guard_v1(%s::bigint, %s::uuid, %s::jsonb, %s::boolean, %s::boolean)"
    )
    try:
        batch.call(query, look, False)
    except psycopg.DatabaseError as error:
        if error.sqlstate != "BE001":
            raise
        batch.call(query, True, True)


def check_then_insert(target_id: int, offers: Sequence[NewOffer], batch_id: UUID) -> object:
    """The naive form by Django's models, which lets too many through."""
    return naive.create_offers(target_id, offers, batch_id=batch_id)


def bare(target_id: int, offers: Sequence[NewOffer], batch_id: UUID) -> object:
    """A multi-row INSERT that tells nothing, of offers that nobody looked at."""
    rows = [
        (target_id, batch_id, o.url, o.title, o.price, o.main_image_url, o.list_url,
         json.dumps(o.metadata), o.published_at)
        for o in offers
    ]  # fmt: skip
    values = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s, %s)"] * len(rows))
    query = f"""INSERT INTO offers_offer (target_id, batch_id, url, title, price, main_image_url, list_url,
        metadata, published_at) VALUES {values} ON CONFLICT DO NOTHING"""  # noqa: S608  placeholders alone
    with psycopg.Cursor(_connection()) as cursor:
        cursor.execute(query.encode(), [value for row in rows for value in row])
    return None


def _create(
    target_id: int,
    offers: Sequence[NewOffer],
    batch_id: UUID,
    decide: Callable[[_Batch], None],
) -> BatchResult:
    batch = _Batch(target_id, batch_id, offers)
    began = time.perf_counter()
    with fields(batch_id=str(batch_id), target_id=target_id):
        decide(batch)
        spent = Spent(False, None, 0, 0, is_live=False)
        return offer_creation._tell(batch, spent, began)  # noqa: SLF001


def _connection() -> "psycopg.Connection[Any]":
    wrapper: Any = connections["default"]
    wrapper.ensure_connection()
    connection: psycopg.Connection[Any] = wrapper.connection
    return connection
