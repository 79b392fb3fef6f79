"""What a batch reads of the offers that are there, by the rows that PostgreSQL counts."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.db import connection, transaction

from shargain.offers.models import ScrapingTarget

OFFERS = 2_000
BATCH = 20
READ = """
    SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM (
        SELECT 'offers_offer'::regclass::oid AS oid
        UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'offers_offer'::regclass
    ) AS of_offers"""
KNOWN = "SELECT * FROM shargain_known_offers_v2(%s, %s, %s, %s)"
CREATE = "SELECT * FROM shargain_create_offers_v2(%s, %s, 'none', NULL, NULL, %s, %s::jsonb)"


@pytest.fixture
def never_analyzed(target: ScrapingTarget) -> Iterator[None]:
    """In place of the table one of this session alone, which autovacuum leaves alone: full, without statistics."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE offers_offer (LIKE public.offers_offer INCLUDING ALL)"
        )
        cursor.execute("DISCARD PLANS")
        cursor.execute(
            """INSERT INTO offers_offer (target_id, batch_id, url, title, main_image_url, list_url, metadata)
            SELECT %s, %s, 'https://example.org/' || n, 'ring', '', '', '{}' FROM generate_series(1, %s) n""",
            [target.pk, uuid4(), OFFERS],
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE pg_temp.offers_offer")
        cursor.execute("DISCARD PLANS")


def rows_read(query: str, values: list[object]) -> tuple[int, tuple[object, ...]]:
    """How many rows of offers a query reads, of the table and of its indexes; and its only row."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(READ)
        [before] = cursor.fetchone()
        cursor.execute(query, values)
        row = cursor.fetchone()
        cursor.execute(READ)
        [after] = cursor.fetchone()
        return after - before, row


@pytest.mark.usefixtures("never_analyzed")
class TestTargetWithManyOffers:
    """Of a table that ANALYZE has not seen, a batch reads what it asks for, and not all that its target has."""

    def test_known_addresses_are_looked_up_one_by_one(self, target: ScrapingTarget) -> None:
        known = list(range(1, BATCH + 1))
        urls = [f"https://example.org/{each}" for each in known]
        read, (_, duplicates, *_) = rows_read(KNOWN, [target.pk, uuid4(), known, urls])
        assert duplicates == known
        assert read < 5 * BATCH

    def test_so_are_those_of_a_batch_that_is_created(self, target: ScrapingTarget) -> None:
        addresses = [f"https://example.org/{OFFERS + each}" for each in range(-9, 11)]
        offers = [
            {
                "n": n,
                "url": url,
                "title": "ring",
                "main_image_url": "",
                "list_url": "",
                "metadata": {},
            }
            for n, url in enumerate(addresses)
        ]
        read, (created, duplicates, *_) = rows_read(
            CREATE, [target.pk, uuid4(), BATCH, json.dumps(offers)]
        )
        assert (sorted(created), sorted(duplicates)) == ([*range(10, 20)], [*range(10)])
        assert read < 5 * BATCH
