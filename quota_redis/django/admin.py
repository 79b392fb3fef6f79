"""Django admin for quotas: `class MyQuotaAdmin(QuotaAdminMixin, admin.ModelAdmin)`."""

from collections.abc import Iterable
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext
from django.db import DatabaseError, transaction
from django.db.models import Field, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from quota_redis.django.models import QuotaDefinition
from quota_redis.errors import QuotaInUse

if TYPE_CHECKING:
    ModelAdminBase = admin.ModelAdmin[Any]
    ModelFormBase = forms.ModelForm[QuotaDefinition]
else:
    ModelAdminBase = object
    ModelFormBase = forms.ModelForm

MAX_CLOSED = 1000
# Classes of SQLSTATE that say no to what was asked: bad data, a constraint, a trigger (QS is the
# ledger's own). Everything else (no connection, no such column) is an outage or a bug, and stays
# an exception.
REFUSING_CLASSES = ("22", "23", "P0", "QS")


class Refusal(NamedTuple):
    """Why an edit was not made, and at which form field to say it (None: above the form)."""

    field: str | None
    message: str


class QuotaForm(ModelFormBase):
    """Refuses an end before its start, and shows what the database refused."""

    refusal: Refusal | None = None

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or self.cleaned_data
        binding = self._meta.model.quota
        start, end = cleaned.get(binding.start), cleaned.get(binding.end)
        if start and end and end <= start:
            self.add_error(binding.end, f"The end must be after the start, {start:%Y-%m-%d %H:%M}.")
        if self.refusal:
            field, message = self.refusal
            self.add_error(field if field in self.fields else None, message)
        return cleaned


class QuotaAdminMixin(ModelAdminBase):
    """Edits of any `QuotaDefinition` that cannot spoil its count.

    The count is read-only, the subject is fixed once a quota exists, a quota that was used is
    closed instead of deleted, and what the database refuses becomes a form error.
    """

    form = QuotaForm
    actions = ("close_selected",)
    refusal: Refusal | None = None
    refusals: tuple[type[Exception], ...] = (DatabaseError, QuotaInUse)

    def explain(self, error: Exception) -> Refusal | None:
        """Turn one of `refusals` into words; None where it is a failure and not a refusal."""
        if isinstance(error, QuotaInUse):
            return Refusal(None, f"{error}: close it instead.")
        cause = error.__cause__
        if (getattr(cause, "sqlstate", None) or "")[:2] not in REFUSING_CLASSES:
            return None
        diagnostics = getattr(cause, "diag", None)
        said = (getattr(diagnostics, name, None) for name in ("message_primary", "message_hint"))
        return Refusal(None, ". ".join(filter(None, said)) or str(error))

    def was_used(self, quotas: Iterable[QuotaDefinition]) -> list[QuotaDefinition]:
        """Those of the quotas that were used, as far as this can be told without a lock."""
        return [quota for quota in quotas if getattr(quota, quota.quota.used)]

    def close_quota(self, quota: QuotaDefinition) -> None:
        """End the quota now. Its slots stay used; nothing more is counted under it."""
        setattr(quota, quota.quota.end, timezone.now())
        quota.save(update_fields=[quota.quota.end])

    @admin.action(description="Close selected quotas", permissions=["change"])
    def close_selected(self, request: HttpRequest, queryset: QuerySet[QuotaDefinition]) -> None:
        binding = self.model.quota
        chosen = queryset.count()
        if chosen > MAX_CLOSED:
            message = f"{chosen} quotas are selected: close at most {MAX_CLOSED} at a time."
            self.message_user(request, message, messages.ERROR)
            return
        open_end = Q(**{binding.end: None}) | Q(**{f"{binding.end}__gt": Now()})
        running = list(queryset.filter(open_end, **{f"{binding.start}__lte": Now()}))
        for quota in running:
            self.close_quota(quota)
            self.log_change(request, quota, "Closed.")
        self._report_closed(request, len(running), chosen - len(running))

    def _report_closed(self, request: HttpRequest, closed: int, left: int) -> None:
        if closed:
            self.message_user(request, f"Closed {closed} {model_ngettext(self.opts, closed)}.")
        if left:
            message = f"{left} left as before: only what has begun and not ended can be closed."
            self.message_user(request, message, messages.WARNING)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        binding = self.model.quota
        fields = [*super().get_readonly_fields(request, obj), binding.used]
        return [*fields, self._subject.name] if obj else fields

    @property
    def _subject(self) -> "Field[Any, Any]":
        return cast("Field[Any, Any]", self.opts.get_field(self.model.quota.subject))

    def formfield_for_dbfield(
        self, db_field: "Field[Any, Any]", request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        if db_field.name == self.model.quota.limit:
            kwargs.setdefault("min_value", 0)
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> type[Any]:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"refusal": self.refusal}) if self.refusal else form

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except self.refusals as error:
            refusal = self.explain(error)
            if refusal is None or self.refusal:
                raise
        # The transaction is rolled back. The same form is answered once more, by a copy of this
        # admin whose form carries the refusal, so that what was typed is still there.
        refused = copy(self)
        refused.refusal = refusal
        return refused.changeform_view(request, object_id, form_url, extra_context)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        deleted, counts, permissions, protected = super().get_deleted_objects(objs, request)
        used = [f"{quota}: it was used, so close it instead" for quota in self.was_used(objs)]
        return deleted, counts, permissions, [*protected, *used]

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except self.refusals as error:
            self._report_refusal(request, error)
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change"
        return HttpResponseRedirect(reverse(name, args=[object_id]))

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Run an action as a whole or not at all."""
        try:
            with transaction.atomic(using=queryset.db):
                return super().response_action(request, queryset, *args, **kwargs)
        except self.refusals as error:
            self._report_refusal(request, error)
        return HttpResponseRedirect(request.get_full_path())

    def _report_refusal(self, request: HttpRequest, error: Exception) -> None:
        refusal = self.explain(error)
        if refusal is None:
            raise error
        self.message_user(request, refusal.message, messages.ERROR)
