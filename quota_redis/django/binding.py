"""Binding: which fields of a model make it a definition of quotas."""

from typing import Any

from django.db import connections
from django.db.models import Model
from django.db.models.options import Options
from django.utils.deconstruct import deconstructible

from quota_redis.django.conf import quota_settings
from quota_redis.postgres.table import QuotaTable

_SQL_TYPES = {"bigint": "bigint", "integer": "integer", "uuid": "uuid", "text": "text"}


@deconstructible
class Binding:
    """Names the fields of a definition model.

    subject: what the quota is for, a foreign key's attribute (`target_id`) or a plain field. limit: most units,
    null for unlimited. used: the count that sync writes. start, end: the period, end null for none.
    prefix: put before the subject's value; by default the field's name and a colon (`target:`).
    """

    def __init__(
        self,
        *,
        subject: str,
        limit: str,
        used: str,
        start: str = "period_start",
        end: str = "period_end",
        prefix: str | None = None,
    ) -> None:
        self.subject = subject
        self.limit = limit
        self.used = used
        self.start = start
        self.end = end
        self.prefix = prefix if prefix is not None else subject.removesuffix("_id") + ":"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Binding) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(sorted(vars(self).items())))

    @property
    def field_names(self) -> tuple[str, ...]:
        return (self.subject, self.limit, self.used, self.start, self.end)

    def table(self, model: type[Model]) -> QuotaTable:
        """The model's table as the ledger knows it."""
        options = model._meta
        subject = self._field(options, self.subject)
        return QuotaTable(
            options.db_table,
            namespace=quota_settings().namespace,
            prefix=self.prefix,
            subject=subject.column,
            subject_type=self._sql_type(subject),
            id=self._column(options, options.pk.attname),
            limit=self._column(options, self.limit),
            used=self._column(options, self.used),
            start=self._column(options, self.start),
            end=self._column(options, self.end),
        )

    def subject_of(self, instance: Model) -> str:
        """The subject that an instance is a quota of."""
        return f"{self.prefix}{getattr(instance, self.subject)}"

    def _column(self, options: "Options[Any]", name: str) -> str:
        return str(self._field(options, name).column)

    def _field(self, options: "Options[Any]", name: str) -> Any:
        return options.get_field(name.removesuffix("_id") if name == self.subject else name)

    def _sql_type(self, field: Any) -> str:
        connection = connections[quota_settings().database]
        declared = (field.rel_db_type if not field.is_relation else field.db_type)(connection)
        return _SQL_TYPES.get(str(declared), "text")
