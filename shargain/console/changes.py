"""Many edits of quotas at once: what would change is shown, and then just that is made, a transaction each."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.models import QuerySet

from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.edits import recorded
from shargain.offers.services.errors import ServiceError, ServiceUnavailable
from shargain.offers.services.quota import QuotaService

MAX_SECONDS = 20.0
"""What is not made by then is reported as not made: a web server ends a request that lasts much longer."""
MOVED = "it was edited meanwhile, so it stays as it is: look again"
NOT_REACHED = "not made: the time for one request was over. Do the same again for the rest"
AFTER_OUTAGE = "not made: PostgreSQL did not answer before it was its turn"


@dataclass(frozen=True, slots=True)
class Values:
    """What an edit sets: the limit in offers (None = unlimited), and the period (end None = no end)."""

    limit: int | None
    start: datetime
    end: datetime | None

    @classmethod
    def of(cls, quota: OfferQuota) -> "Values":
        return cls(quota.max_offers_per_period, quota.period_start, quota.period_end)


@dataclass(frozen=True, slots=True)
class Change:
    """One edit. Without `before` it creates a quota, without `after` it closes one. `used` is the synced count."""

    target_id: int
    target_name: str
    quota_id: int | None
    before: Values | None
    after: Values | None
    used: int = 0
    line: int | None = None
    why: str = ""

    @property
    def kind(self) -> str:
        if self.before is None:
            return "created"
        return "closed" if self.after is None else "changed"

    @property
    def warning(self) -> str:
        """What an operator may not expect of this edit, in a sentence; mostly nothing."""
        before, after = self.before, self.after
        if before is None or after is None or before.limit == after.limit:
            return ""
        if after.limit is not None and after.limit <= self.used:
            return f"Stops creation at once: {self.used:,} are used."
        return ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A quota that stays as it is, and why."""

    target_name: str
    quota_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A change that was not made, and why."""

    change: Change
    why: str


@dataclass(slots=True)
class Outcome:
    """What came of changes: `made` with the quotas' ids, and the others."""

    made: list[tuple[Change, int]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


class _Moved(Exception):  # noqa: N818
    """The quota is not what it was when the change was shown."""


def all_quotas() -> "QuerySet[OfferQuota]":
    """All quotas. The manager's own type knows only what is common to all models of definitions."""
    return cast("QuerySet[OfferQuota]", OfferQuota.objects.all())


def digest(changes: Iterable[Change]) -> str:
    """Says whether changes are those that were shown."""
    shown = ((c.target_id, c.quota_id, c.before, c.after, c.why) for c in changes)
    return hashlib.sha256(repr(list(shown)).encode()).hexdigest()


def make(changes: Sequence[Change], who: str, why: str) -> Outcome:
    """Make each change whose quota is still what it was, in a transaction of its own, recorded with who and why.

    One that fails stops no other; an outage stops those after it. In one transaction for all, batches would wait
    for the first edit until the last one is made.
    """
    outcome, deadline = Outcome(), time.monotonic() + MAX_SECONDS
    for place, change in enumerate(changes):
        if time.monotonic() > deadline:
            outcome.failed += [Failed(c, NOT_REACHED) for c in changes[place:]]
            break
        try:
            with recorded(who, change.why or why):
                quota_id = _make(change)
        except (ServiceUnavailable, OperationalError, InterfaceError) as error:
            outcome.failed.append(Failed(change, f"look whether it was made: {error}"))
            outcome.failed += [Failed(c, AFTER_OUTAGE) for c in changes[place + 1 :]]
            break
        except (_Moved, ServiceError, DatabaseError) as error:
            outcome.failed.append(Failed(change, str(error)))
        else:
            outcome.made.append((change, quota_id))
    return outcome


def _make(change: Change) -> int:
    quota = _standing(change)
    if (None if quota is None else Values.of(quota)) != change.before:
        raise _Moved(MOVED)
    service, after = QuotaService(), change.after
    if after is None:
        assert quota is not None
        return service.close_quota(quota.pk).id
    if quota is None:
        return service.set_new_quota(
            change.target_id,
            max_offers_per_period=after.limit,
            period_start=after.start,
            period_end=after.end,
        ).id
    return service.update_quota(
        quota.pk,
        max_offers_per_period=after.limit,
        period_start=after.start,
        period_end=after.end,
    ).id


def _standing(change: Change) -> OfferQuota | None:
    """The quota that the change is about, locked until it is made."""
    quotas = all_quotas().select_for_update(no_key=True)
    if change.quota_id is not None:
        return quotas.filter(pk=change.quota_id).first()
    assert change.after is not None
    # Who creates the same quota at the same time waits here, and then finds it.
    ScrapingTarget.objects.select_for_update(no_key=True).filter(pk=change.target_id).first()
    return quotas.filter(target_id=change.target_id, period_start=change.after.start).first()
