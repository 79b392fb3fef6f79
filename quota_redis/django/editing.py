"""Who edits quotas, and why: told to PostgreSQL, where a project's own trigger can write it down."""

import contextlib
from collections.abc import Iterator

from django.db import connections, transaction

from quota_redis.django.conf import quota_settings
from quota_redis.errors import InvalidArgument

MAX_WHO = 200
MAX_WHY = 1000
_SETTINGS = ("quota_redis.who", "quota_redis.why")


@contextlib.contextmanager
def editing(who: str, why: str = "") -> Iterator[None]:
    """One transaction, in which PostgreSQL's settings `quota_redis.who` and `quota_redis.why` have these values.

    They are the transaction's alone, so a pooled connection carries them to nobody else. Raises InvalidArgument
    for an empty `who`, one above 200 characters, a `why` above 1,000, and NUL characters.
    """
    _check("who", who, 1, MAX_WHO)
    _check("why", why, 0, MAX_WHY)
    database = quota_settings().database
    with transaction.atomic(using=database):
        before = _tell(database, who, why)
        yield
        # In a transaction of the caller's that goes on. After an error the rollback does it.
        _tell(database, *before)


def _tell(database: str, who: str, why: str) -> tuple[str, str]:
    """Set both; returns what they were."""
    with connections[database].cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(current_setting(%s, true), ''), coalesce(current_setting(%s, true), '')",
            _SETTINGS,
        )
        before: tuple[str, str] = cursor.fetchone()
        cursor.execute(
            "SELECT set_config(%s, %s, true), set_config(%s, %s, true)",
            (_SETTINGS[0], who, _SETTINGS[1], why),
        )
    return before


def _check(name: str, value: str, shortest: int, longest: int) -> None:
    if "\0" in value:
        raise InvalidArgument(f"{name} has a NUL character: PostgreSQL cannot keep it.")
    if not shortest <= len(value.strip()) <= longest:
        raise InvalidArgument(
            f"{name} has {len(value.strip())} characters: give {shortest} to {longest}."
        )
