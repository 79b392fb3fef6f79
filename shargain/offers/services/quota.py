"""QuotaService: the sole face of the quota system inside shargain. No model and no Redis leaves it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeAlias, cast

import psycopg
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from quota_redis import (
    Contention,
    InvalidArgument,
    Quota,
    Reservation,
    Unavailable,
    Usage,
)
from quota_redis import InsideTransaction as QuotaInsideTransaction
from quota_redis import QuotaInUse as LedgerQuotaInUse
from quota_redis.calls import Reserved
from quota_redis.django.checks import refuse_to_start
from quota_redis.django.engine import Engine, engine_for
from quota_redis.postgres import (
    AuditReport,
    Course,
    ExactQuota,
    Explanation,
    HoldView,
    Preview,
    QuotaView,
    Span,
    SyncReport,
    absorb,
    spans,
)
from quota_redis.postgres.ledger import translated
from quota_redis.ranges import render_multirange
from quota_redis.types import Snapshot
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services import edits
from shargain.offers.services.errors import (
    InsideTransaction,
    InvalidQuota,
    QuotaInUse,
    ServiceUnavailable,
    UnknownQuota,
    UnknownTarget,
)

__all__ = [
    "AuditReport",
    "Batch",
    "Explanation",
    "HoldView",
    "Permit",
    "Preview",
    "QuotaInfo",
    "QuotaService",
    "QuotaView",
    "Span",
    "Spend",
    "Spent",
    "Target",
]

Target: TypeAlias = ScrapingTarget | int
Spend: TypeAlias = "Callable[[int, Batch], Spent]"
_FIELDS = {
    "limit": "max_offers_per_period",
    "start": "period_start",
    "end": "period_end",
}


@dataclass(frozen=True, slots=True)
class QuotaInfo:
    """A quota and its numbers, in offers. Without `is_live` Redis could not be asked: used is the ledger's."""

    id: int
    target_id: int
    max_offers_per_period: int | None
    period_start: datetime
    period_end: datetime | None
    used: int
    held: int
    is_live: bool

    @property
    def remaining(self) -> int | None:
        """Offers that may still be created and are held by no worker; None = unlimited."""
        if self.max_offers_per_period is None:
            return None
        return max(0, self.max_offers_per_period - self.used - self.held)


@dataclass(frozen=True, slots=True)
class Permit:
    """What one transaction may create: the slots of a quota, everything (no quota), or what the ledger gives."""

    road: str
    quota_id: int | None = None
    slots: str | None = None
    room: int | None = None
    """How many slots there are."""


class Batch(Protocol):
    """What QuotaService.spend drives; each call is one statement on the connection."""

    @property
    def left(self) -> int:
        """Offers about which nothing is decided yet."""

    def insert(self, connection: "psycopg.Connection[Any]", permit: Permit) -> int | None:
        """Create what the permit allows; returns how many offers counted, None where the ledger is full."""

    def read_known(self, connection: "psycopg.Connection[Any]") -> int:
        """Decide about offers that exist already; returns the version of the target's definitions."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What came of a batch: whether the rest was denied, and the quota's numbers where Redis told them."""

    is_denied: bool
    quota_id: int | None
    used: int
    held: int
    is_live: bool
    road: str = ""
    """Where its slots came from: "reserved" from Redis, "no_quota", or why it took the direct road."""
    conflicts: int = 0


class QuotaService:
    """Everything that shargain asks of quotas."""

    def get_active_quota(self, target: Target) -> QuotaInfo | None:
        """The quota that rules the target now, the latest start among the active ones, or None."""
        with _outages():
            quota = _active().filter(target_id=_id(target)).first()
            return self._info(quota) if quota else None

    def set_new_quota(
        self,
        target: Target,
        *,
        max_offers_per_period: int | None,
        period_start: datetime,
        period_end: datetime | None = None,
    ) -> QuotaInfo:
        """Create or update the target's quota that begins at `period_start`; what is passed is what stands.

        Usage is kept, and periods may overlap those of other quotas. The limit holds from the commit on.
        Raises InvalidQuota, UnknownTarget.
        """
        _validate(max_offers_per_period, period_start, period_end)
        with _outages():
            target_id = _known(target)
            with transaction.atomic():
                values = {
                    "max_offers_per_period": max_offers_per_period,
                    "period_end": period_end,
                }
                quota = _upsert(target_id, period_start, values)
            return self._info(quota)

    def update_quota(
        self,
        quota_id: int,
        *,
        max_offers_per_period: int | None,
        period_start: datetime,
        period_end: datetime | None,
    ) -> QuotaInfo:
        """Give an existing quota these values; usage is kept. Raises InvalidQuota, UnknownQuota."""
        _validate(max_offers_per_period, period_start, period_end)
        with _outages(), transaction.atomic():
            quota = _locked(quota_id)
            quota.max_offers_per_period = max_offers_per_period
            quota.period_start, quota.period_end = period_start, period_end
            try:
                with transaction.atomic():
                    quota.save()
            except IntegrityError as error:
                raise InvalidQuota(
                    f"The target has another quota that starts at {period_start.isoformat()}.",
                    field="period_start",
                ) from error
        return self._info(quota)

    def close_quota(self, quota_id: int) -> QuotaInfo:
        """End a quota now; what was used stays counted. Raises InvalidQuota for one that has not begun."""
        with _outages(), transaction.atomic():
            quota = _locked(quota_id)
            now = OfferQuota.objects.filter(pk=quota_id).values_list(Now(), flat=True).get()
            if now <= quota.period_start:
                raise InvalidQuota(
                    "The quota has not begun: delete it, or give it another start.",
                    field="period_end",
                )
            if quota.period_end is None or quota.period_end > now:
                quota.period_end = now
                quota.save()
        return self._info(quota)

    def delete_quota(self, quota_id: int) -> None:
        """Delete a quota that was never used. Raises QuotaInUse for one that was."""
        with _outages(), transaction.atomic():
            try:
                with transaction.atomic():
                    _locked(quota_id).delete()
            except LedgerQuotaInUse as error:
                raise QuotaInUse(
                    f"Quota {quota_id} was used and cannot be deleted: close it instead."
                ) from error

    def describe(self, quota_ids: Sequence[int]) -> dict[int, QuotaInfo]:
        """Live numbers of many quotas, in one query and one round trip."""
        with _outages():
            quotas = cast("QuerySet[OfferQuota]", OfferQuota.objects.filter(pk__in=quota_ids))
            return {info.id: info for info in self._infos(list(quotas))}

    def active_quotas(self, target_ids: Sequence[int]) -> dict[int, QuotaInfo]:
        """The quota that rules each of the targets; targets without one are left out."""
        with _outages():
            quotas = (
                _active()
                .filter(target_id__in=target_ids)
                .order_by("target_id", "-period_start")
                .distinct("target_id")
            )
            return {info.target_id: info for info in self._infos(list(quotas))}

    def explain(
        self, target: Target, *, amount: int = 1, at: datetime | None = None
    ) -> Explanation:
        """Which quota rules the target at a moment (None = now), why, and what a batch would get.

        amount: offers, 1 to 1,000. Raises UnknownTarget, and InvalidQuota for another amount or a naive moment.
        """
        with _outages():
            return _engine().explain(_subject(_known(target)), amount=amount, at=at)

    def timeline(self, target: Target) -> tuple[Span, ...]:
        """Which quota rules when, gaps included; the last span is open. Raises UnknownTarget."""
        with _outages():
            quotas = _all().filter(target_id=_known(target))
            rows = quotas.values_list("pk", "period_start", "period_end")
            return spans(Quota(pk, None, start, end) for pk, start, end in rows)

    def preview_edit(
        self,
        quota_id: int | None,
        target_id: int,
        *,
        max_offers_per_period: int | None,
        period_start: datetime,
        period_end: datetime | None,
    ) -> Preview:
        """What it would do to give a quota of the target (None = the one with this start, or a new one) these
        values now. Raises InvalidQuota, UnknownTarget, UnknownQuota."""
        _validate(max_offers_per_period, period_start, period_end)
        with _outages():
            subject = _subject(_known(target_id))
            if quota_id is not None and not _has_quota(target_id, quota_id):
                raise UnknownQuota(f"Target {target_id} has no quota {quota_id}.")
            limit, start, end = max_offers_per_period, period_start, period_end
            return _engine().preview_edit(subject, quota_id, limit=limit, start=start, end=end)

    def edits(self, quota_id: int) -> list[edits.Edit]:
        """Who edited the quota, when and why, the latest first."""
        with _outages():
            return edits.edits(quota_id)

    def spend(self, target_id: int, batch: Batch) -> Spent:
        """Drive a batch to its end, exactly. Raises InsideTransaction, ServiceUnavailable."""
        return _spend(_engine().exact, target_id, batch)

    @contextlib.contextmanager
    def ahead(self, wanted: Sequence[tuple[int, int]]) -> Iterator[Spend]:
        """`spend` for the batches of many targets, given with how many offers each has: with slots that were asked
        for in one round trip. What is not used by the end of the block goes back."""
        exact = copy(_engine().exact)
        slots = _Ahead(exact, wanted)
        exact.slots = slots
        try:
            yield partial(_spend, exact)
        finally:
            slots.close()

    def sync(self) -> SyncReport:
        """Write the used counts of quotas that changed."""
        with _outages():
            return _engine().sync()

    def audit(self, *, repair: bool = True) -> AuditReport:
        """Compare Redis, counts and ledger, and repair towards the ledger."""
        with _outages():
            return _engine().audit(repair=repair)

    def audit_target(self, target: Target, *, repair: bool) -> AuditReport:
        """The same for one target. Raises UnknownTarget, InsideTransaction."""
        with _outages():
            return _engine().audit([_subject(_known(target))], repair=repair)

    def absorb(self, target: Target) -> None:
        """Bring what Redis has of a target in line with the ledger."""
        with _outages():
            engine = _engine()
            absorb(engine.counters, engine.ledger, engine.connection(), [_subject(_id(target))])

    def rebuild(self, target: Target | None = None) -> int:
        """Load Redis anew from the ledger, one target or all; returns how many."""
        subjects = None if target is None else [_subject(_id(target))]
        with _outages():
            return _engine().rebuild(subjects)

    def compact(self) -> int:
        """Merge ledger rows; returns how many went."""
        with _outages():
            return _engine().compact()

    def flush(self) -> None:
        """Give back what this process has in stock, and wait until Redis has taken everything it was sent."""
        _engine().flush()

    def is_redis_up(self) -> bool:
        """Whether the quota Redis answers. Without it creation goes on, slower and as exact."""
        try:
            _engine().counters.connection.command("PING")
        except Unavailable:
            return False
        return True

    def refuse_to_start(self) -> None:
        """Raise ImproperlyConfigured where limits would not hold."""
        refuse_to_start()

    def _info(self, quota: OfferQuota) -> QuotaInfo:
        with _outages():
            return self._infos([quota])[0]

    def _infos(self, quotas: Sequence[OfferQuota]) -> list[QuotaInfo]:
        engine = _engine()
        try:
            snapshots = engine.counters.snapshots(sorted({_subject(q.target_id) for q in quotas}))
        except Unavailable:
            snapshots = []
        live = {s.subject: s for s in snapshots}
        unknown = [q.pk for q in quotas if _live_usage(live, q) is None]
        counted = engine.ledger.used(engine.reading(), unknown) if unknown else {}
        return [_info(q, _live_usage(live, q), counted.get(q.pk, 0)) for q in quotas]


def _spend(exact: ExactQuota, target_id: int, batch: Batch) -> Spent:
    with _outages():
        connection = _engine().connection()
        course = exact.run(connection, _subject(target_id), _Work(connection, batch))
        usage = course.usage
        return Spent(
            course.is_denied,
            usage.quota_id if usage else None,
            usage.used if usage else 0,
            usage.held if usage else 0,
            is_live=usage is not None,
            road=_road(course),
            conflicts=course.conflicts,
        )


class _Ahead:
    """Slots of many subjects from one round trip; whatever they do not do comes from where slots came from."""

    def __init__(self, exact: ExactQuota, wanted: Sequence[tuple[int, int]]) -> None:
        self._slots = exact.slots
        self._answers: dict[str, Reserved] = {}
        # One for each: a second batch of a target asks when its turn comes.
        amounts = {_subject(target_id): amount for target_id, amount in wanted}
        # Where Redis does not answer, each batch meets that by itself.
        with contextlib.suppress(Unavailable):
            answers = exact.counters.reserve_many(amounts.items())
            for subject, answer in zip(amounts, answers, strict=True):
                if not isinstance(answer, Exception):
                    self._answers[subject] = answer

    def reserve(self, subject: str, amount: int, *, hold_id: str | None = None) -> Reserved:
        answer = self._answers.pop(subject, None)
        return answer or self._slots.reserve(subject, amount, hold_id=hold_id)

    def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None:
        self._slots.settle(reservation, used, wait=wait)

    def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None:
        self._slots.release(subject, hold_id, wait=wait)

    def close(self) -> None:
        for subject, answer in self._answers.items():
            if isinstance(answer, Reservation):
                self._slots.release(subject, answer.hold_id, wait=False)


class _Work:
    """A Batch as quota_redis drives it."""

    def __init__(self, connection: "psycopg.Connection[Any]", batch: Batch) -> None:
        self._connection = connection
        self._batch = batch

    @property
    def left(self) -> int:
        return self._batch.left

    def with_slots(self, reservation: Reservation) -> int:
        slots = render_multirange(reservation.ranges)
        permit = Permit("slots", reservation.quota_id, slots, reservation.amount)
        used = self._insert(permit)
        assert used is not None
        return used

    def without_quota(self) -> None:
        self._insert(Permit("none"))

    def direct(self) -> bool:
        return self._insert(Permit("direct")) is not None

    def is_refusal(self, version: int) -> bool:
        with translated():
            return self._batch.read_known(self._connection) == version

    def _insert(self, permit: Permit) -> int | None:
        with translated():
            return self._batch.insert(self._connection, permit)


@contextlib.contextmanager
def _outages() -> Iterator[None]:
    """Errors of the quota system and of Django's database layer, in this package's words."""
    try:
        yield
    except QuotaInsideTransaction as error:
        raise InsideTransaction(str(error)) from error
    except InvalidArgument as error:
        raise InvalidQuota(str(error)) from error
    except (Unavailable, Contention) as error:
        raise ServiceUnavailable(str(error)) from error
    except DatabaseError as error:
        if isinstance(error.__cause__, (psycopg.OperationalError, psycopg.InterfaceError)):
            raise ServiceUnavailable(f"PostgreSQL failed: {error}".strip()) from error
        raise


def _road(course: Course) -> str:
    if course.went_direct:
        return f"direct: {course.direct_reason}"
    return "no_quota" if course.has_no_quota else "reserved"


def _engine() -> Engine:
    return engine_for(OfferQuota)


def _all() -> "QuerySet[OfferQuota]":
    return cast("QuerySet[OfferQuota]", OfferQuota.objects.all())


def _active() -> "QuerySet[OfferQuota]":
    return cast("QuerySet[OfferQuota]", OfferQuota.objects.active())


def _id(target: Target) -> int:
    return target.pk if isinstance(target, ScrapingTarget) else target


def _known(target: Target) -> int:
    """The target's id. Raises UnknownTarget where there is no such row."""
    target_id = _id(target)
    if not ScrapingTarget.objects.filter(pk=target_id).exists():
        raise UnknownTarget(f"There is no target {target_id}.")
    return target_id


def _has_quota(target_id: int, quota_id: int) -> bool:
    return OfferQuota.objects.filter(pk=quota_id, target_id=target_id).exists()


def _subject(target_id: int) -> str:
    return f"{OfferQuota.quota.prefix}{target_id}"


def _for_edit() -> "QuerySet[OfferQuota]":
    """Locked against other edits, and no stronger: sync and readers go on."""
    return cast("QuerySet[OfferQuota]", OfferQuota.objects.select_for_update(no_key=True))


def _locked(quota_id: int) -> OfferQuota:
    quota = _for_edit().filter(pk=quota_id).first()
    if quota is None:
        raise UnknownQuota(f"There is no quota {quota_id}.")
    return quota


def _upsert(target_id: int, period_start: datetime, values: dict[str, Any]) -> OfferQuota:
    """The target's quota with this start, with these values; made where nobody has made it meanwhile."""
    same = _for_edit().filter(target_id=target_id, period_start=period_start)
    quota = same.first()
    if quota is None:
        try:
            with transaction.atomic():
                return OfferQuota.objects.create(
                    target_id=target_id, period_start=period_start, **values
                )
        except IntegrityError:
            quota = same.get()
    for name, value in values.items():
        setattr(quota, name, value)
    quota.save()
    return quota


def _validate(limit: int | None, start: datetime, end: datetime | None) -> None:
    for name, probe in (
        ("limit", lambda: Quota(0, limit, _ANY_START)),
        ("start", lambda: Quota(0, None, start)),
        ("end", lambda: Quota(0, None, start, end)),
    ):
        try:
            probe()
        except InvalidArgument as error:
            sentence = str(error).replace(name, _FIELDS[name], 1)
            raise InvalidQuota(sentence, field=_FIELDS[name]) from error


_ANY_START = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def _live_usage(live: dict[str, Snapshot], quota: OfferQuota) -> Usage | None:
    snapshot = live.get(_subject(quota.target_id))
    state = snapshot.quotas.get(quota.pk) if snapshot else None
    return state.usage if state else None


def _info(quota: OfferQuota, usage: Usage | None, counted: int) -> QuotaInfo:
    return QuotaInfo(
        id=quota.pk,
        target_id=quota.target_id,
        max_offers_per_period=quota.max_offers_per_period,
        period_start=quota.period_start,
        period_end=quota.period_end,
        used=usage.used if usage else counted,
        held=usage.held if usage else 0,
        is_live=usage is not None,
    )
