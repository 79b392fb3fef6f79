"""The QUOTA_REDIS setting, typed and read when it is first needed.

QUOTA_REDIS = {
    "ALIAS": "quotas",             # the django-redis cache that holds the counters, and nothing else
    "NAMESPACE": "api",            # of the counters and of the ledger
    "DATABASE": "default",         # where the definitions and the ledger are
    "LEASE_SECONDS": 15,           # how long a worker may hold slots without settling them
    "BOUNDARY_SKEW_SECONDS": 1,    # how far apart the clocks of Redis and PostgreSQL may be
    "STOCK_SIZE": 0,               # most slots of a subject that a process hands out by itself, 2 to 1,000
    "REFUSE_WITHOUT_REDIS": False, # raise Unavailable, instead of going on with the ledger alone
    "BROKER_URL": None,            # the message broker, to check that it is another server
}
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from quota_redis.errors import InvalidArgument
from quota_redis.keys import Keys

_TYPES: dict[str, tuple[type, ...]] = {
    "ALIAS": (str,),
    "NAMESPACE": (str,),
    "DATABASE": (str,),
    "LEASE_SECONDS": (int, float),
    "BOUNDARY_SKEW_SECONDS": (int, float),
    "STOCK_SIZE": (int,),
    "REFUSE_WITHOUT_REDIS": (bool,),
    "BROKER_URL": (str, type(None)),
}
_REQUIRED = ("ALIAS", "NAMESPACE")
_SPANS: dict[str, tuple[float, float]] = {
    "LEASE_SECONDS": (0.1, 86_400.0),
    "BOUNDARY_SKEW_SECONDS": (0.0, 3_600.0),
}
MAX_STOCK_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """What QUOTA_REDIS says."""

    alias: str
    namespace: str
    database: str = "default"
    lease: timedelta = timedelta(seconds=15)
    boundary_skew: timedelta = timedelta(seconds=1)
    stock_size: int = 0
    refuse_without_redis: bool = False
    broker_url: str | None = None


def errors_in(raw: Any) -> list[str]:
    """A sentence for each way in which a QUOTA_REDIS is wrong."""
    if not isinstance(raw, dict):
        return [f"QUOTA_REDIS is {raw!r}: give a dict with ALIAS and NAMESPACE."]
    found = [f"QUOTA_REDIS has no {name}." for name in _REQUIRED if name not in raw]
    given: dict[str, Any] = raw
    for name, value in given.items():
        if name not in _TYPES:
            found.append(f"QUOTA_REDIS has an unknown key {name!r}: use {', '.join(_TYPES)}.")
        elif not isinstance(value, _TYPES[name]) or (
            isinstance(value, bool) and bool not in _TYPES[name]
        ):
            found.append(
                f"QUOTA_REDIS[{name!r}] is {value!r}, which is no {_TYPES[name][0].__name__}."
            )
        elif name in _SPANS and not _SPANS[name][0] <= float(str(value)) <= _SPANS[name][1]:
            lowest, highest = _SPANS[name]
            found.append(
                f"QUOTA_REDIS[{name!r}] is {value}: give seconds from {lowest:g} to {highest:g}."
            )
    size = raw.get("STOCK_SIZE", 0)
    if type(size) is int and (size == 1 or not 0 <= size <= MAX_STOCK_SIZE):
        found.append(
            f"QUOTA_REDIS['STOCK_SIZE'] is {size}: give 2 to {MAX_STOCK_SIZE:,} slots, or 0 for no stocks."
        )
    if isinstance(raw.get("NAMESPACE"), str):
        try:
            Keys(raw["NAMESPACE"])
        except InvalidArgument as error:
            found.append(f"QUOTA_REDIS: {error}")
    return found


def quota_settings() -> QuotaSettings:
    """Read the setting. Raises ImproperlyConfigured where it is wrong."""
    raw = getattr(settings, "QUOTA_REDIS", None)
    if found := errors_in(raw):
        raise ImproperlyConfigured(" ".join(found))
    assert isinstance(raw, dict)
    return QuotaSettings(
        alias=raw["ALIAS"],
        namespace=raw["NAMESPACE"],
        database=raw.get("DATABASE", "default"),
        lease=timedelta(seconds=raw.get("LEASE_SECONDS", 15)),
        boundary_skew=timedelta(seconds=raw.get("BOUNDARY_SKEW_SECONDS", 1)),
        stock_size=raw.get("STOCK_SIZE", 0),
        refuse_without_redis=raw.get("REFUSE_WITHOUT_REDIS", False),
        broker_url=raw.get("BROKER_URL"),
    )
