"""The rights in docs/security.md are enough for the service, and not enough to take its limits away."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import DatabaseError, connection
from django.test import Client

from quota_redis.django.engine import counters
from shargain.offers.models import FailedBatch, Offer
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.offers.services.quota import QuotaService
from shargain.offers.tasks import create_batch
from tests.deploy.compose_file import ROOT

from .conftest import LONG_AGO, Party

PASSWORD = "only-for-this-test"


def documented_rights() -> str:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    [sql] = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    return sql


@pytest.fixture
def as_service(quota_db: None, party: Party, admin_user: Any) -> Iterator[None]:
    """This process's connection, as the role that the document makes."""
    owner = dict(connection.settings_dict)
    with connection.cursor() as cursor:
        cursor.execute(documented_rights().replace("'...'", f"'{PASSWORD}'"))
    connection.close()
    connection.settings_dict.update(USER="shargain_service", PASSWORD=PASSWORD)
    yield
    connection.close()
    connection.settings_dict.update(owner)
    with connection.cursor() as cursor:
        cursor.execute("DROP OWNED BY shargain_service; DROP ROLE shargain_service")


def new(number: int) -> NewOffer:
    return NewOffer(url=f"https://market.test/{number}", title="Ad")


def test_the_service_needs_no_more(as_service: None, party: Party) -> None:
    service = QuotaService()
    batch = {"batch_id": str(uuid4()), "target_id": party.target.pk}
    create_batch({**batch, "offers": [{"url": "https://market.test/a", "title": "Ad"}]})
    counters().connection.client.flushdb()
    create_offers(party.target.pk, [new(n) for n in range(9)], batch_id=uuid4())
    create_batch({**batch, "offers": []})
    quota = service.get_active_quota(party.target.pk)
    assert quota is not None
    assert quota.used == Offer.objects.filter(target=party.target).count() == 11
    later = service.set_new_quota(
        party.target, max_offers_per_period=5, period_start=LONG_AGO.replace(year=2199)
    )
    service.delete_quota(later.id)
    service.update_quota(quota.id, max_offers_per_period=9, period_start=LONG_AGO, period_end=None)
    service.close_quota(quota.id)
    service.sync()
    service.audit()
    service.rebuild()
    assert FailedBatch.objects.count() == 1


def test_the_admin_and_the_api_need_no_more(
    as_service: None, party: Party, admin_user: Any
) -> None:
    client = Client()
    client.force_login(admin_user)
    assert client.get("/admin/offers/offerquota/").status_code == 200
    form = {"name": "t", "owner": party.owner.pk}
    assert client.post("/admin/api/scrapertoken/add/", form).status_code == 302
    path = f"/api/v1/targets/{party.target.pk}/quota"
    assert client.get(path, headers=party.headers).status_code == 200
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "DROP TABLE offers_offer",
        "TRUNCATE quota_redis_ledger",
        "ALTER TABLE offers_offerquota DISABLE TRIGGER ALL",
        "ALTER TABLE quota_redis_ledger DROP CONSTRAINT quota_redis_ledger_slot_once",
        "DROP FUNCTION quota_redis_bump_v1",
        "DELETE FROM django_migrations",
        "INSERT INTO offers_quotaedit (who) VALUES ('nobody')",
        "UPDATE offers_quotaedit SET who = 'nobody'",
        "DELETE FROM offers_quotaedit",
        "SET session_replication_role = replica",
        "COPY offers_offer TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_the_service_cannot_take_a_limit_away(statement: str, as_service: None) -> None:
    with pytest.raises(DatabaseError) as error, connection.cursor() as cursor:
        cursor.execute(statement)
    assert isinstance(error.value.__cause__, psycopg.errors.InsufficientPrivilege)
