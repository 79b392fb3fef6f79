"""The parts of quota_redis, put together for a definition model and the project's settings."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django_redis import get_redis_connection

from quota_redis.counters import Counters
from quota_redis.django.conf import quota_settings
from quota_redis.django.events import audit_ended, counts_written, spend_ended, sync_ended
from quota_redis.django.models import QuotaDefinition
from quota_redis.errors import InsideTransaction, Unavailable
from quota_redis.postgres import (
    AuditReport,
    Course,
    ExactQuota,
    Explanation,
    Ledger,
    Preview,
    Spent,
    Status,
    SyncReport,
    audit,
    compact,
    examine,
    explain,
    preview_edit,
    rebuild,
    sync,
)
from quota_redis.postgres.queries import PgConnection
from quota_redis.stocks import Stocks


@dataclass(frozen=True, slots=True)
class Engine:
    """Counters, ledger and the exact quota over both, for one model."""

    model: type[QuotaDefinition]
    counters: Counters
    ledger: Ledger
    exact: ExactQuota
    database: str

    def spend(self, subject: str, amount: int, work: Callable[[int], int]) -> Spent:
        """ExactQuota.spend in Django's own transactions, so that `work` may use models as it likes."""
        atomic = partial(transaction.atomic, using=self.database)
        return self.exact.spend(self.connection(), subject, amount, work, transaction=atomic)

    async def aspend(self, subject: str, amount: int, work: Callable[[int], int]) -> Spent:
        """`spend` for async views, in the thread where Django keeps their database connection."""
        return await sync_to_async(self.spend)(subject, amount, work)

    def sync(self, *, progress: Callable[[int], None] | None = None) -> SyncReport:
        """Write the counts of every subject that changed, and tell who listens to quota_redis.django.events."""

        def tell_counts(counts: Mapping[int, int]) -> None:
            if counts:
                counts_written.send_robust(self.model, counts=counts)

        began = time.perf_counter()
        report = sync(
            self.counters,
            self.ledger,
            self.connection(),
            on_counts=tell_counts,
            progress=progress,
        )
        seconds = time.perf_counter() - began
        sync_ended.send_robust(self.model, report=report, seconds=seconds)
        return report

    def audit(
        self,
        subjects: Sequence[str] | None = None,
        *,
        repair: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> AuditReport:
        """Compare Redis, counts and ledger, and repair towards the ledger. Who listens is told of audits of all
        subjects (None), for one of a few says nothing of the others."""
        connection = self.connection()
        began = time.perf_counter()
        report = audit(
            self.counters, self.ledger, connection, subjects, repair=repair, progress=progress
        )
        seconds = time.perf_counter() - began
        if subjects is None:
            audit_ended.send_robust(self.model, report=report, seconds=seconds)
        return report

    def rebuild(
        self,
        subjects: Sequence[str] | None = None,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Load Redis anew from the ledger, these subjects or all; returns how many."""
        return rebuild(self.counters, self.ledger, self.connection(), subjects, progress=progress)

    def examine(self, subjects: Sequence[str], *, ended: bool = False) -> list[Status]:
        """The quotas of subjects with their numbers now; those that ended only where asked for."""
        return examine(self.counters, self.ledger, self.reading(), subjects, ended=ended)

    def explain(self, subject: str, *, amount: int = 1, at: datetime | None = None) -> Explanation:
        """Which quota rules a subject, why, and what a batch of `amount` would get."""
        return explain(
            self.counters,
            self.ledger,
            self.reading(),
            subject,
            amount=amount,
            at=at,
            refuse_without_redis=self.exact.refuse_without_redis,
        )

    def preview_edit(
        self,
        subject: str,
        quota_id: int | None,
        *,
        limit: int | None,
        start: datetime,
        end: datetime | None,
    ) -> Preview:
        """What it would do to give a quota of the subject these values now."""
        connection = self.reading()
        return preview_edit(
            self.counters,
            self.ledger,
            connection,
            subject,
            quota_id,
            limit=limit,
            start=start,
            end=end,
        )

    def compact(self) -> int:
        """Merge ledger rows; returns how many went."""
        return compact(self.ledger, self.connection())

    def flush(self) -> None:
        """Give back what this process has in stock, and wait until Redis has taken everything it was sent."""
        if isinstance(self.exact.slots, Stocks):
            self.exact.slots.close()
        self.counters.flush()

    def connection(self) -> PgConnection:
        """The psycopg connection that Django uses in this thread, outside any transaction.

        Raises InsideTransaction in an atomic block, Unavailable where PostgreSQL cannot be reached.
        """
        wrapper = connections[self.database]
        if wrapper.in_atomic_block:
            raise InsideTransaction(
                "called inside transaction.atomic(), whose locks and whose clock would hold up everybody "
                "else: call it outside, it commits by itself."
            )
        return _opened(wrapper)

    def reading(self) -> PgConnection:
        """The same connection for what only reads, in an atomic block too. Raises Unavailable."""
        return _opened(connections[self.database])


def _opened(wrapper: Any) -> PgConnection:
    """The connection that Django's wrapper has, or a new one where it has none or has lost it."""
    try:
        is_lost = wrapper.connection is not None and wrapper.connection.closed
        if is_lost and not wrapper.in_atomic_block:
            wrapper.close()
        wrapper.ensure_connection()
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(f"PostgreSQL cannot be reached: {error}".strip()) from error
    return wrapper.connection  # type: ignore[no-any-return]


@cache
def counters() -> Counters:
    """The process's counters, on the django-redis alias of the settings."""
    options = quota_settings()
    try:
        client = get_redis_connection(options.alias)
    except (KeyError, NotImplementedError, DatabaseError) as error:
        raise ImproperlyConfigured(
            f"CACHES has no django-redis cache {options.alias!r}."
        ) from error
    return Counters(
        client,
        namespace=options.namespace,
        lease=options.lease,
        boundary_skew=options.boundary_skew,
    )


@cache
def stocks() -> Stocks | None:
    """The process's stocks where the settings want some; what is left of them goes back when it ends."""
    size = quota_settings().stock_size
    return Stocks(counters(), size=size) if size else None


@cache
def engine_for(model: type[QuotaDefinition]) -> Engine:
    """The engine of a definition model; made once."""
    options = quota_settings()
    ledger = Ledger(model.quota.table(model))

    def tell(course: Course) -> None:
        spend_ended.send_robust(model, course=course)

    exact = ExactQuota(
        counters(),
        ledger,
        slots=stocks(),
        refuse_without_redis=options.refuse_without_redis,
        observe=tell,
    )
    return Engine(model, counters(), ledger, exact, options.database)


def engines() -> Iterator[Engine]:
    """The engines of all definition models of the project."""
    for model in definition_models():
        yield engine_for(model)


def definition_models() -> list[type[QuotaDefinition]]:
    return [model for model in apps.get_models() if issubclass(model, QuotaDefinition)]


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("QUOTA_REDIS", "CACHES"):
        counters.cache_clear()
        stocks.cache_clear()
        engine_for.cache_clear()


setting_changed.connect(_forget, dispatch_uid="quota_redis.engine")
