"""One number for each way in which quotas would not hold."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections, models, transaction
from django.test.utils import isolate_apps

from quota_redis.django import checks
from quota_redis.django.checks import refuse_to_start, startup_errors
from quota_redis.django.models import Binding, QuotaDefinition
from shargain.demo.servers import Valkey
from shargain.offers.models import OfferQuota

GOOD = {"ALIAS": "quotas", "NAMESPACE": "shargain"}
NewQuota = Callable[..., OfferQuota]


def found(*, databases: list[str] | None = None) -> list[str]:
    """The numbers of our own messages."""
    ids = (message.id or "" for message in run_checks(databases=databases))
    return [
        number.removeprefix("quota_redis.") for number in ids if number.startswith("quota_redis")
    ]


def with_quotas(settings: Any, **changes: Any) -> dict[str, Any]:
    """The caches, with the one of the quotas changed."""
    return {**settings.CACHES, "quotas": {**settings.CACHES["quotas"], **changes}}


@pytest.fixture
def damage(quota_db: None) -> Iterator[Callable[[str], None]]:
    """Change the schema until the test is over."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            yield cursor.execute
        transaction.set_rollback(True)


def test_all_is_well(quota_db: None) -> None:
    assert found() == []
    assert found(databases=["default"]) == []
    assert startup_errors() == []
    refuse_to_start()


class TestSetting:
    @pytest.mark.parametrize(
        ("value", "named"),
        [
            (None, "QUOTA_REDIS is None"),
            ({"ALIAS": "quotas"}, "has no NAMESPACE"),
            ({"NAMESPACE": "x"}, "has no ALIAS"),
            ({**GOOD, "LEASE": 3}, "unknown key 'LEASE'"),
            ({**GOOD, "ALIAS": 3}, r"QUOTA_REDIS\['ALIAS'\] is 3"),
            ({**GOOD, "NAMESPACE": "a b"}, "namespace is 'a b'"),
            ({**GOOD, "LEASE_SECONDS": "15"}, "is '15'"),
            ({**GOOD, "LEASE_SECONDS": True}, "is True"),
            ({**GOOD, "LEASE_SECONDS": 0}, "from 0.1 to 86400"),
            ({**GOOD, "LEASE_SECONDS": float("nan")}, "is nan"),
            ({**GOOD, "BOUNDARY_SKEW_SECONDS": -1}, "from 0 to 3600"),
            ({**GOOD, "REFUSE_WITHOUT_REDIS": "no"}, "is 'no'"),
            ({**GOOD, "STOCK_SIZE": 1}, "give 2 to 1,000 slots, or 0"),
            ({**GOOD, "STOCK_SIZE": 1001}, "give 2 to 1,000 slots, or 0"),
            ({**GOOD, "STOCK_SIZE": True}, "is True"),
        ],
    )
    def test_e001_a_wrong_setting(self, settings: Any, value: Any, named: str) -> None:
        settings.QUOTA_REDIS = value
        assert found() == ["E001"]
        with pytest.raises(ImproperlyConfigured, match=named):
            refuse_to_start()

    def test_e001_every_wrong_value_is_named(self, settings: Any) -> None:
        settings.QUOTA_REDIS = {"ALIAS": 3, "LEASE": 1}
        assert found() == ["E001"] * 3

    @pytest.mark.parametrize("alias", ["nowhere", "default"])
    def test_e002_no_such_redis_cache(self, settings: Any, alias: str) -> None:
        settings.QUOTA_REDIS = {**GOOD, "ALIAS": alias}
        assert found() == ["E002"]

    @pytest.mark.parametrize(
        ("ours", "other"),
        [
            ("redis://127.0.0.1:7000/1", "redis://127.0.0.1:7000/1"),
            ("redis://127.0.0.1:7000/1", "redis://localhost:7000/1"),
            ("redis://127.0.0.1", "redis://:secret@127.0.0.1:6379/0"),
            ("redis://127.0.0.1:7000/1", ["redis://127.0.0.1:7001/1", "redis://127.0.0.1:7000/1"]),
            ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ],
    )
    def test_e003_shared_with_another_cache(
        self, settings: Any, ours: str, other: str | list[str]
    ) -> None:
        backend = settings.CACHES["quotas"]["BACKEND"]
        settings.CACHES = {
            **with_quotas(settings, LOCATION=ours),
            "pages": {"BACKEND": backend, "LOCATION": other},
        }
        assert found() == ["E003"]

    def test_another_database_number_is_another_place(self, settings: Any) -> None:
        backend = settings.CACHES["quotas"]["BACKEND"]
        settings.CACHES = {
            **with_quotas(settings, LOCATION="redis://127.0.0.1:7000/1"),
            "pages": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:7000/2"},
        }
        assert found() == []

    def test_e004_the_broker_is_the_same_server(self, settings: Any) -> None:
        settings.CACHES = with_quotas(settings, LOCATION="redis://127.0.0.1:7000/1")
        settings.QUOTA_REDIS = {**GOOD, "BROKER_URL": "redis://localhost:7000/5"}
        assert found() == ["E004"]


class TestDatabase:
    def test_e005_no_such_database(self, settings: Any) -> None:
        settings.QUOTA_REDIS = {**GOOD, "DATABASE": "elsewhere"}
        assert found() == ["E005"]

    def test_e005_another_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(connections["default"]), "vendor", "sqlite")
        assert [message.id for message in checks.check_database()] == ["quota_redis.E005"]

    def test_e006_another_isolation_level(self, monkeypatch: pytest.MonkeyPatch) -> None:
        options = connection.settings_dict["OPTIONS"]
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", {**options, "isolation_level": 4})
        assert found() == ["E006"]


@pytest.fixture
def isolated() -> Iterator[None]:
    with isolate_apps("shargain.offers"):
        yield


@pytest.mark.usefixtures("isolated")
class TestModel:
    def test_e010_no_binding(self) -> None:
        class Seat(QuotaDefinition):
            class Meta:
                app_label = "offers"

        assert [message.id for message in Seat.check()] == ["quota_redis.E010"]

    def test_e011_names_that_are_no_fields(self) -> None:
        class Seat(QuotaDefinition):
            place = models.BigIntegerField()
            most = models.BigIntegerField(null=True)
            quota = Binding(subject="place", limit="most", used="taken", start="begin", end="most")

            class Meta:
                app_label = "offers"

        messages = Seat.check()
        assert [message.id for message in messages] == ["quota_redis.E011"] * 2
        assert "'taken'" in messages[0].msg
        assert "'begin'" in messages[1].msg

    def test_e012_two_models_cannot_share_a_namespace(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their quotas would have the same ids, and use each other's slots."""

        class Seat(QuotaDefinition):
            class Meta:
                app_label = "offers"

        monkeypatch.setattr(
            "quota_redis.django.engine.definition_models", lambda: [OfferQuota, Seat]
        )
        assert found() == ["E012"]


class TestServers:
    def test_they_are_asked_only_with_their_database(self, damage: Callable[[str], None]) -> None:
        damage("DROP TRIGGER offers_offerquota_quota_v1 ON offers_offerquota")
        assert found() == []
        assert checks.check_ledger(databases=["other"]) == []
        assert found(databases=["default"]) == ["E033"]

    def test_e020_a_redis_that_evicts(self, quota_db: None, settings: Any, tmp_path: Path) -> None:
        forgetful = Valkey(
            tmp_path / "valkey", persistent=False, settings={"maxmemory-policy": "allkeys-lru"}
        )
        with forgetful:
            settings.CACHES = with_quotas(settings, LOCATION=forgetful.url)
            assert found(databases=["default"]) == ["E020"]
            with pytest.raises(ImproperlyConfigured, match="allkeys-lru"):
                refuse_to_start()

    @pytest.mark.usefixtures("redis_is_down")
    def test_w021_redis_out_of_reach_is_no_reason_not_to_start(self) -> None:
        assert found(databases=["default"]) == ["W021"]
        refuse_to_start()

    def test_e022_a_redis_of_the_past(
        self, quota_db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checks, "MIN_REDIS", (99, 0))
        assert found(databases=["default"]) == ["E022"]

    @pytest.mark.parametrize(
        ("change", "numbers"),
        [
            ("DROP EXTENSION btree_gist CASCADE", ["E030", "E032"]),
            ("DROP FUNCTION quota_redis_take_v1", ["E031"]),
            (
                "ALTER TABLE quota_redis_ledger DROP CONSTRAINT quota_redis_ledger_slot_once",
                ["E032"],
            ),
            ("DROP TRIGGER offers_offerquota_quota_v1 ON offers_offerquota", ["E033"]),
            ("ALTER TABLE offers_offerquota DISABLE TRIGGER ALL", ["E033"]),
            ("DELETE FROM quota_redis_ledger", ["E034"]),
            ("SET LOCAL default_transaction_isolation = 'serializable'", ["E035"]),
        ],
    )
    def test_a_ledger_that_does_not_stand(
        self, new_quota: NewQuota, damage: Callable[[str], None], change: str, numbers: list[str]
    ) -> None:
        new_quota(10)
        connection.check_constraints()
        damage(change)
        assert found(databases=["default"]) == numbers
        with pytest.raises(ImproperlyConfigured, match=f"quota_redis.{numbers[0]}"):
            refuse_to_start()

    def test_w036_before_the_migrations_have_run(self, damage: Callable[[str], None]) -> None:
        damage("DELETE FROM django_migrations WHERE app = 'offers' AND name >= '0002'")
        damage("DROP TRIGGER offers_offerquota_quota_v1 ON offers_offerquota")
        assert found(databases=["default"]) == ["W036"]
        with pytest.raises(ImproperlyConfigured, match=r"quota_redis\.E033"):
            refuse_to_start()


def test_every_number_is_documented_and_used_once() -> None:
    assert checks.__doc__ is not None
    source = (
        Path(checks.__file__).read_text() + (Path(checks.__file__).parent / "models.py").read_text()
    )
    documented = checks.__doc__
    for number in {"E001", "E002", "E003", "E004", "E005", "E006", "E010", "E011", "E012"} | {
        "E020",
        "W021",
        "E022",
        "E030",
        "E031",
        "E032",
        "E033",
        "E034",
        "E035",
        "W036",
    }:
        assert number in documented
        assert number in source.replace(documented, "")
