"""Models: the ledger's own tables, and the base of a project's definitions."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import BigIntegerRangeField
from django.core import checks
from django.core.exceptions import FieldDoesNotExist
from django.db import DatabaseError, models
from django.db.models import Q
from django.db.models.base import ModelBase
from django.db.models.functions import Now

from quota_redis.django.binding import Binding
from quota_redis.errors import QuotaInUse

__all__ = ["Binding", "LedgerEntry", "QuotaDefinition", "SubjectMark", "SubjectVersion"]


class LedgerEntry(models.Model):
    """Used slots of a quota, or void ones above its limit. Written by SQL functions alone."""

    namespace = models.CharField(max_length=32)
    quota_id = models.BigIntegerField()
    slots = BigIntegerRangeField()
    void = models.BooleanField(default=False, db_default=False)

    class Meta:
        db_table = "quota_redis_ledger"
        verbose_name_plural = "ledger entries"
        constraints = [
            ExclusionConstraint(
                name="quota_redis_ledger_slot_once",
                expressions=[("quota_id", "="), ("slots", "&&"), ("namespace", "=")],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.namespace} {self.quota_id} {self.slots}"


class SubjectVersion(models.Model):
    """The version of a subject's definitions; every edit adds one."""

    namespace = models.CharField(max_length=32)
    subject = models.CharField(max_length=200)
    version = models.BigIntegerField()

    class Meta:
        db_table = "quota_redis_subject"
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "subject"], name="quota_redis_subject_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject} version {self.version}"


class SubjectMark(models.Model):
    """A subject that Redis has to hear of with the next sync."""

    namespace = models.CharField(max_length=32)
    subject = models.CharField(max_length=200)

    class Meta:
        db_table = "quota_redis_mark"

    def __str__(self) -> str:
        return self.subject


class QuotaQuerySet(models.QuerySet["QuotaDefinition"]):
    def active(self) -> "QuotaQuerySet":
        """Quotas whose period it is by PostgreSQL's clock; the first one rules its subject."""
        names = self.model.quota
        started = Q(**{f"{names.start}__lte": Now()})
        open_ended = Q(**{names.end: None}) | Q(**{f"{names.end}__gt": Now()})
        return self.filter(started & open_ended).order_by(f"-{names.start}")


class QuotaDefinition(models.Model):
    """Base of a project's quota model: the fields are the project's, `quota` says which is which.

        class OfferQuota(QuotaDefinition):
            quota = Binding(subject="target_id", limit="max_offers_per_period", used="used_offers_count")

    A migration binds the table with quota_redis.django.operations.BindQuota; without it limits fail open, which
    a system check reports. Edits reach Redis when they commit; those by raw SQL or `update()` with the next sync.
    """

    quota: ClassVar[Binding]

    objects = QuotaQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def subject(self) -> str:
        return self.quota.subject_of(self)

    def save_base(
        self,
        raw: bool = False,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Leaves the used count out of every update: it belongs to sync, and this instance may be old."""
        if update_fields is None and not self._state.adding and not force_insert:
            update_fields = frozenset(
                field.name
                for field in self._meta.concrete_fields
                if not field.primary_key and field.name != self.quota.used
            )
        super().save_base(raw, force_insert, force_update, using, update_fields)

    def delete(self, using: Any = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Raises QuotaInUse for a quota that was used: set its end instead."""
        try:
            return super().delete(using=using, keep_parents=keep_parents)
        except DatabaseError as error:
            if getattr(error.__cause__, "sqlstate", None) == "QS004":
                raise QuotaInUse(f"{error}".splitlines()[0]) from error
            raise

    @classmethod
    def check(cls, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *_check_binding(cls)]


def _check_binding(model: type[QuotaDefinition]) -> list[checks.CheckMessage]:
    binding = getattr(model, "quota", None)
    if not isinstance(binding, Binding):
        return [
            checks.Error(
                f"{model.__name__} has no Binding named `quota`.",
                hint="quota = Binding(subject=..., limit=..., used=...)",
                obj=model,
                id="quota_redis.E010",
            )
        ]
    missing = []
    for name in binding.field_names:
        try:
            model._meta.get_field(name.removesuffix("_id") if name == binding.subject else name)
        except FieldDoesNotExist:
            missing.append(name)
    return [
        checks.Error(
            f"The Binding of {model.__name__} names {name!r}, which is no field of it.",
            hint="Name fields of the model, a foreign key as `name_id`.",
            obj=model,
            id="quota_redis.E011",
        )
        for name in missing
    ]
