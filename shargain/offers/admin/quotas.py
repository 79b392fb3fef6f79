"""Quotas: live numbers, and edits through `QuotaService` that hold from their commit."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol, cast

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from quota_redis.django.admin import QuotaAdminMixin, QuotaForm, Refusal
from shargain.console.bulk import BULK_ACTIONS, BulkAdminMixin
from shargain.console.quota_admin import QuotaPageMixin
from shargain.console.quota_form import PreviewForm
from shargain.offers.admin.filters import StateFilter, TargetFilter, TargetForm
from shargain.offers.admin.parts import State, in_words, usage_bar, with_state
from shargain.offers.models import MAX_LIMIT, OfferQuota, ScrapingTarget
from shargain.offers.recording import RecordedAdminMixin
from shargain.offers.services.errors import InvalidQuota, ServiceError
from shargain.offers.services.quota import QuotaInfo, QuotaService


class QuotaRow(Protocol):
    """A quota as its pages show it: the row, its state, and what `QuotaService` says of it."""

    pk: int
    target: ScrapingTarget
    state: str
    info: QuotaInfo | None


def describe(rows: Iterable[QuotaRow]) -> None:
    """Attach `info` to every row, by one call for all of them."""
    rows = list(rows)
    infos = QuotaService().describe([row.pk for row in rows])
    for row in rows:
        row.info = infos.get(row.pk)


class QuotaChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        describe(self.result_list)


class OfferQuotaForm(PreviewForm, QuotaForm):
    pass


@admin.register(OfferQuota)
class OfferQuotaAdmin(
    RecordedAdminMixin, BulkAdminMixin, QuotaPageMixin, QuotaAdminMixin, ModelAdmin
):
    form = OfferQuotaForm
    actions: Any = BULK_ACTIONS
    list_display = (
        "target",
        "usage",
        "held",
        "remaining",
        "state",
        "period_start",
        "end",
        "counted_by",
    )
    list_filter = (StateFilter, TargetFilter)
    list_select_related = ("target",)
    search_fields = ("target__name",)
    ordering = ("-period_start", "-pk")
    autocomplete_fields = ("target",)
    refusals = (*QuotaAdminMixin.refusals, ServiceError)
    definition = ("target", "max_offers_per_period", "period_start", "period_end")

    @property
    def media(self) -> forms.Media:
        return super().media + TargetForm().media

    def get_fieldsets(self, request: HttpRequest, obj: OfferQuota | None = None) -> Any:
        may_edit = self.has_change_permission(request, obj) if obj else True
        return [(None, {"fields": (*self.definition, "why") if may_edit else self.definition})]

    def get_queryset(self, request: HttpRequest) -> QuerySet[OfferQuota]:
        return with_state(super().get_queryset(request))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return QuotaChangeList

    def get_object(self, request: HttpRequest, *args: Any, **kwargs: Any) -> OfferQuota | None:
        quota = super().get_object(request, *args, **kwargs)
        if quota:
            describe([cast("QuotaRow", quota)])
        return quota

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "max_offers_per_period":
            kwargs["max_value"] = MAX_LIMIT
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    @admin.display(description="used / limit")
    def usage(self, row: QuotaRow) -> str | SafeString:
        return usage_bar(row.info)

    @admin.display
    def held(self, row: QuotaRow) -> str:
        if row.info is None or row.state == State.EXPIRED:
            return "-"
        return f"{row.info.held:,}" if row.info.is_live else "unknown"

    @admin.display
    def remaining(self, row: QuotaRow) -> str:
        if row.info is None or row.state == State.EXPIRED:
            return "-"
        # What workers hold is unknown without Redis, and so may be gone already.
        at_most = "" if row.info.is_live or row.info.remaining is None else "at most "
        return at_most + in_words(row.info.remaining)

    @admin.display
    def state(self, row: QuotaRow) -> str:
        return State(row.state).label

    @admin.display(description="period end", ordering="period_end", empty_value="no end")
    def end(self, quota: OfferQuota) -> datetime | None:
        return quota.period_end

    @admin.display(description="counted by")
    def counted_by(self, row: QuotaRow) -> str:
        """Redis, which knows to the unit, or the ledger, which knows no holds."""
        if row.info is None:
            return "-"
        return "live" if row.info.is_live else "ledger"

    def explain(self, error: Exception) -> Refusal | None:
        if isinstance(error, ServiceError):
            return Refusal(getattr(error, "field", None), str(error))
        return super().explain(error)

    def was_used(self, quotas: Iterable[Any]) -> list[Any]:
        quotas = list(quotas)
        infos = QuotaService().describe([quota.pk for quota in quotas])
        return [quota for quota in quotas if quota.pk in infos and infos[quota.pk].used]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        values = {name: form.cleaned_data[name] for name in self.definition if name != "target"}
        if change:
            QuotaService().update_quota(obj.pk, **values)
            return
        # The facade's upsert would overwrite a quota that another admin added since the form was
        # validated; the lock makes the second one wait for the first and then see it.
        target = ScrapingTarget.objects.select_for_update(no_key=True).get(pk=obj.target_id)
        if target.quotas.filter(period_start=obj.period_start).exists():
            raise InvalidQuota(
                "This target already has a quota with this start: change that one.",
                field="period_start",
            )
        obj.pk = QuotaService().set_new_quota(target, **values).id

    def close_quota(self, quota: Any) -> None:
        QuotaService().close_quota(quota.pk)

    def delete_model(self, request: HttpRequest, obj: OfferQuota) -> None:
        QuotaService().delete_quota(obj.pk)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[OfferQuota]) -> None:
        for quota in queryset:
            QuotaService().delete_quota(quota.pk)
