"""System checks: one number for each way in which quotas would not hold.

E001 the setting; E002 the cache alias; E003 the quota Redis is shared with another cache; E004 it is the broker;
E005 the database engine; E006 the isolation level; E010, E011 the Binding of a model; E012 two models that share
the namespace. With --database, servers are asked too: E020 Redis evicts; W021 Redis is out of reach; E022 Redis is
too old; E030 btree_gist; E031 functions; E032 the exclusion constraint; E033 a trigger; E034 void tails; E035 the
server's isolation level; W036 migrations are pending.
"""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from quota_redis.django.conf import QuotaSettings, errors_in, quota_settings

_HINTS = {
    "btree_gist": ("E030", "CREATE EXTENSION btree_gist, or run migrate as a user who may."),
    "function": ("E031", "Run migrate."),
    "constraint": ("E032", "Run migrate; never drop quota_redis_ledger_slot_once."),
    "trigger": (
        "E033",
        "Bind the table in a migration with quota_redis.django.operations.BindQuota.",
    ),
    "void_tail": ("E034", "Stop creating, then bind the table again and run quota_audit."),
    "isolation": ("E035", "Set default_transaction_isolation to 'read committed'."),
}
MIN_REDIS = (7, 0)


def register() -> None:
    for check in OFFLINE:
        checks.register(check, "quota_redis")
    for check in (check_redis, check_ledger):
        checks.register(check, checks.Tags.database)


def startup_errors() -> list[CheckMessage]:
    """Every error that would let limits fail; for processes that serve without running `check` before."""
    found = [message for check in OFFLINE for message in check()]
    if not found:
        options = quota_settings()
        found = [*_redis_messages(), *_ledger_messages(options)]
    return [message for message in found if message.level >= checks.ERROR]


def refuse_to_start() -> None:
    """Raise ImproperlyConfigured where a limit would not hold. An unreachable server is no reason."""
    if found := startup_errors():
        raise ImproperlyConfigured("\n".join(f"{m.id}: {m.msg} {m.hint or ''}" for m in found))


def check_setting(**_: Any) -> list[CheckMessage]:
    return [
        Error(sentence, hint="See quota_redis.django.conf.", id="quota_redis.E001")
        for sentence in errors_in(getattr(settings, "QUOTA_REDIS", None))
    ]


def _with_settings(
    check: Callable[[QuotaSettings], list[CheckMessage]],
) -> Callable[..., list[CheckMessage]]:
    """Leave it to E001 where the setting itself cannot be read."""

    def run(**_: Any) -> list[CheckMessage]:
        try:
            return check(quota_settings())
        except ImproperlyConfigured:
            return []

    run.__name__ = check.__name__
    return run


@_with_settings
def check_alias(options: QuotaSettings) -> list[CheckMessage]:
    caches: dict[str, Any] = settings.CACHES
    cache = caches.get(options.alias)
    if cache is None or "django_redis" not in str(cache.get("BACKEND")):
        return [
            Error(
                f"CACHES has no django-redis cache {options.alias!r}.",
                hint="Give quotas an alias of their own, with BACKEND django_redis.cache.RedisCache.",
                id="quota_redis.E002",
            )
        ]
    places = _places(cache)
    shared = [
        name
        for name, other in caches.items()
        if name != options.alias
        and "redis" in str(other.get("BACKEND")).lower()
        and places & _places(other)
    ]
    found: list[CheckMessage] = [
        Error(
            f"The cache {name!r} is on the same Redis database as the quotas: clearing it loses them.",
            hint="Give quotas a server, or at least a database number, of their own.",
            id="quota_redis.E003",
        )
        for name in shared
    ]
    if options.broker_url and {p[:2] for p in places} & {_place(options.broker_url)[:2]}:
        found.append(
            Error(
                "The message broker is the Redis server that holds the quotas: a fault of one is a fault of both.",
                hint="Give the broker a server of its own.",
                id="quota_redis.E004",
            )
        )
    return found


@_with_settings
def check_database(options: QuotaSettings) -> list[CheckMessage]:
    if options.database not in connections:
        return [
            Error(
                f"DATABASES has no {options.database!r}, which QUOTA_REDIS names.",
                hint="Name an alias of DATABASES.",
                id="quota_redis.E005",
            )
        ]
    connection = connections[options.database]
    if connection.vendor != "postgresql":
        return [
            Error(
                f"The database {options.database!r} is {connection.vendor}: the ledger needs PostgreSQL.",
                hint="Use django.db.backends.postgresql with psycopg 3.",
                id="quota_redis.E005",
            )
        ]
    level = connection.settings_dict.get("OPTIONS", {}).get("isolation_level")
    if level is not None and int(level) != 2:
        return [
            Error(
                f"The database {options.database!r} has isolation_level {level!r}.",
                hint="The ledger is exact under READ COMMITTED alone: remove the option.",
                id="quota_redis.E006",
            )
        ]
    return []


def check_models(**_: Any) -> list[CheckMessage]:
    from quota_redis.django.engine import definition_models

    names = [model.__name__ for model in definition_models()]
    if len(names) < 2:
        return []
    return [
        Error(
            f"{', '.join(names)} define quotas in one namespace: equal ids would use each other's slots.",
            hint="Define all quotas in one model, whose subjects may be of several kinds.",
            id="quota_redis.E012",
        )
    ]


OFFLINE = (check_setting, check_alias, check_database, check_models)


def check_redis(*, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    return _redis_messages() if _asked(databases) else []


def check_ledger(*, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Says little while migrations are pending, for `migrate` runs the checks before it mends things."""
    options = _asked(databases)
    if options is None:
        return []
    try:
        if not _is_migration_pending(options.database):
            return _ledger_messages(options)
    except DatabaseError:
        return []
    return [
        Warning(
            "Migrations are pending: whether limits hold is not known before they have run.",
            hint="Run migrate, then check again.",
            id="quota_redis.W036",
        )
    ]


def _redis_messages() -> list[CheckMessage]:
    from quota_redis.django.engine import counters

    try:
        info = counters().connection.client.info()
    except Exception as error:  # noqa: BLE001  whatever the driver raises, the direct road works
        return [
            Warning(
                f"The quota Redis is out of reach: {error}.",
                hint="Quotas stay exact without it, but slower.",
                id="quota_redis.W021",
            )
        ]
    found: list[CheckMessage] = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            Error(
                f"The quota Redis evicts keys when memory is short (maxmemory-policy {policy}).",
                hint="Set maxmemory-policy noeviction.",
                id="quota_redis.E020",
            )
        )
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_REDIS:
        found.append(
            Error(
                f"The quota Redis is version {version}.",
                hint="Use Redis 7.0 or later, or Valkey.",
                id="quota_redis.E022",
            )
        )
    return found


def _ledger_messages(options: QuotaSettings) -> list[CheckMessage]:
    from quota_redis.django.engine import definition_models, engine_for
    from quota_redis.postgres.schema import problems

    found: list[CheckMessage] = []
    try:
        connections[options.database].ensure_connection()
        for model in definition_models():
            gaps = problems(
                connections[options.database].connection, engine_for(model).ledger.table
            )
            found += [
                Error(
                    f"{sentence}.",
                    hint=_HINTS[code][1],
                    obj=model,
                    id=f"quota_redis.{_HINTS[code][0]}",
                )
                for code, sentence in gaps.items()
            ]
    except DatabaseError:
        # Out of reach: Django says so itself, and every call will.
        return []
    return found


def _is_migration_pending(database: str) -> bool:
    executor = MigrationExecutor(connections[database])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _asked(databases: Sequence[str] | None) -> QuotaSettings | None:
    try:
        options = quota_settings()
    except ImproperlyConfigured:
        return None
    return options if databases and options.database in databases else None


def _places(cache: dict[str, Any]) -> set[tuple[str, int, str]]:
    location = cache.get("LOCATION") or ""
    urls = location if isinstance(location, (list, tuple)) else str(location).split(",")
    return {_place(str(url)) for url in urls}


def _place(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    host = (parts.hostname or parts.path).replace("localhost", "127.0.0.1")
    return (host, parts.port or 6379, parts.path.strip("/") or "0")
