"""Fills a database with targets, quotas and offers, and asks for the pages of the admin."""

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from shargain.demo.marketplace import sample
from shargain.offers.models import Offer, OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaService

OWNERS = 50
LIST_PAGE = 100
# A quota of last month and one of this month for each target, used from a quarter to the full.
_FILL = (
    """
    INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active,
        first_name, last_name, email, date_joined)
    SELECT 'owner ' || n, '!', false, false, true, '', '', '', now() FROM generate_series(1, %(owners)s) n
    """,
    """
    INSERT INTO offers_scrapingtarget (name, owner_id, is_active)
    SELECT 'Search ' || n, (SELECT min(id) FROM auth_user) + n %% %(owners)s, true
    FROM generate_series(1, %(targets)s) n
    """,
    """
    INSERT INTO offers_offerquota
        (target_id, max_offers_per_period, used_offers_count, period_start, period_end)
    SELECT id, each + (id * 37) %% (each * 3), 0, month, month + interval '1 month'
    FROM offers_scrapingtarget,
        greatest(1, %(offers)s / %(targets)s) each,
        (VALUES (date_trunc('month', now()) - interval '1 month'), (date_trunc('month', now()))) m (month)
    """,
    # Without statistics the planner takes the new tables for empty, and loops.
    "ANALYZE",
    """
    INSERT INTO offers_offer (target_id, url, title, price, main_image_url, list_url, metadata, quota_id, batch_id)
    SELECT t.id, 'https://market.example/listings/' || t.id || '-' || n,
        (%(titles)s::text[])[1 + (t.id + n) %% %(kinds)s], 100 + n, '',
        'https://market.example/', '{"currency": "USD"}', q.id, gen_random_uuid()
    FROM offers_scrapingtarget t
    JOIN offers_offerquota q ON q.target_id = t.id AND q.period_end > now()
    CROSS JOIN generate_series(1, %(offers)s / %(targets)s) n
    """,
    """
    INSERT INTO quota_redis_ledger (namespace, quota_id, slots)
    SELECT %(namespace)s, quota_id, int8range(1, count(*) + 1) FROM offers_offer GROUP BY quota_id
    """,
    "ANALYZE",
    """
    UPDATE offers_offerquota SET used_offers_count = upper(slots) - 1
    FROM quota_redis_ledger l
    WHERE namespace = %(namespace)s AND NOT void AND l.quota_id = offers_offerquota.id
    """,
    """
    INSERT INTO usage_offercount (quota_id, resolution, at, target_id, created, duplicates, discarded)
    SELECT q.id, 1, date_trunc('minute', now()) - n * interval '1 minute', q.target_id, n, n, q.id %% 3
    FROM offers_offerquota q, generate_series(1, 30) n WHERE q.period_end > now() AND q.id %% 5 = 0
    """,
    """
    INSERT INTO usage_usedcount (quota_id, at, used, resolution)
    SELECT q.id, date_trunc('minute', now()) - n * interval '1 minute', used_offers_count * (30 - n) / 30, 1
    FROM offers_offerquota q, generate_series(1, 30) n WHERE q.period_end > now() AND q.id %% 5 = 0
    """,
    "ANALYZE",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The best run of a page: milliseconds in all and of the processor, and what it took."""

    page: str
    milliseconds: float
    cpu: float
    queries: int
    bytes: int


def measure(targets: int, offers: int, runs: int) -> dict[str, Any]:
    """Fill the database, and measure every page."""
    fill(targets, offers)
    client = _client()
    rows = {
        "targets": ScrapingTarget.objects.count(),
        "quotas": OfferQuota.objects.count(),
        "offers": Offer.objects.count(),
    }
    pages = [asdict(_best(client, name, path, runs)) for name, path in _pages().items()]
    return {"rows": rows, "pages": pages}


def fill(targets: int, offers: int) -> None:
    """Targets with two quotas each, and offers spread over them evenly; ledger, counts and Redis agree."""
    titles = [listing.title for listing in sample()]
    values: dict[str, Any] = {
        "owners": OWNERS,
        "targets": targets,
        "offers": offers,
        "titles": titles,
        "kinds": len(titles),
        "namespace": settings.QUOTA_REDIS["NAMESPACE"],
    }
    _say("Filling the database ...")
    with connection.cursor() as cursor:
        for statement in _FILL:
            cursor.execute(statement, values)
    _say("Loading Redis ...")
    QuotaService().rebuild()
    QuotaService().sync()
    drifts = QuotaService().audit().drifts
    assert not drifts, drifts[:3]


def _client() -> Client:
    admin = get_user_model().objects.create(username="pages", is_staff=True, is_superuser=True)
    client = Client(SERVER_NAME="localhost")
    client.force_login(admin)
    return client


def _pages() -> dict[str, str]:
    fullest = cast("OfferQuota", OfferQuota.objects.order_by("-used_offers_count")[0])
    last = max(1, Offer.objects.count() // LIST_PAGE)
    quotas, targets = "/admin/offers/offerquota/", "/admin/offers/scrapingtarget/"
    return {
        "overview": "/admin/",
        "overview, all quotas": "/admin/?share=any&state=any&p=100",
        "overview, searched": "/admin/?share=any&q=search+49&owner=owner+1",
        "quota list": quotas,
        "quota list, active": f"{quotas}?state=active",
        "quota list, searched": f"{quotas}?q=search+49",
        "quota page": f"{quotas}{fullest.pk}/change/",
        "quota export, all": f"{quotas}export/",
        "quota export, active": f"{quotas}export/?state=active",
        "target list": targets,
        "target list, searched": f"{targets}?q=search+49",
        "target page": f"{targets}{fullest.target_id}/change/",
        "offer list": "/admin/offers/offer/",
        "offer list, last page": f"/admin/offers/offer/?p={last}",
        "offer list, of a target": f"/admin/offers/offer/?target={fullest.target_id}",
        "offer list, searched": "/admin/offers/offer/?q=ct+Premium",
    }


def _best(client: Client, name: str, path: str, runs: int) -> Measured:
    found = [_once(client, name, path) for _ in range(runs + 1)]
    # The first run compiles templates.
    return min(found[1:], key=lambda run: run.milliseconds)


def _once(client: Client, name: str, path: str) -> Measured:
    with CaptureQueriesContext(connection) as queries:
        began, cpu = time.perf_counter(), time.process_time()
        response = client.get(path)
        body = response.getvalue()
        wall, busy = time.perf_counter() - began, time.process_time() - cpu
    assert response.status_code == 200, f"{path}: {response.status_code}"
    return Measured(name, round(wall * 1000, 1), round(busy * 1000, 1), len(queries), len(body))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
