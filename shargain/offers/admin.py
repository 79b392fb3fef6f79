"""The admin of what shargain collects and of what limits it.

Quotas are read and edited through `QuotaService`: what the pages show is live, and an edit holds
from its commit. What came from outside (titles, urls, payloads) is escaped and bounded.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import Case, Count, Exists, OuterRef, QuerySet, TextChoices, Value, When
from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from quota_redis.django.admin import QuotaAdminMixin, Refusal
from shargain.offers.models import MAX_LIMIT, FailedBatch, Offer, OfferQuota, ScrapingTarget
from shargain.offers.services import failed_batches
from shargain.offers.services.errors import InvalidQuota, ServiceError
from shargain.offers.services.quota import QuotaInfo, QuotaService

MAX_SHOWN_CHARACTERS = 20_000
MAX_SHOWN_URL = 80
MAX_SHOWN_ERROR = 120
MAX_RETRIED = 1000
# Shares of the limit from which the bar changes its colour, once and once more.
SCARCE_FROM, RARE_FROM = 0.8, 0.95


class State(TextChoices):
    """Where a quota stands at this moment."""

    ACTIVE = "active", "active"
    SCHEDULED = "scheduled", "scheduled"
    EXPIRED = "expired", "expired"
    SHADOWED = "shadowed", "shadowed by a newer one"


def with_state(quotas: QuerySet[Any]) -> QuerySet[Any]:
    """Annotate each quota with its `state`, by the clock of PostgreSQL, which also decides."""
    active: QuerySet[Any] = OfferQuota.objects.active()
    newer = active.filter(target=OuterRef("target"), period_start__gt=OuterRef("period_start"))
    annotated: QuerySet[Any] = quotas.annotate(
        state=Case(
            When(period_start__gt=Now(), then=Value(State.SCHEDULED)),
            When(period_end__lte=Now(), then=Value(State.EXPIRED)),
            When(Exists(newer), then=Value(State.SHADOWED)),
            default=Value(State.ACTIVE),
        )
    )
    return annotated


def in_words(count: int | None) -> str:
    return "unlimited" if count is None else f"{count:,}"


def usage_bar(info: QuotaInfo | None) -> str | SafeString:
    """Used of limit as text, and as a bar where there is a limit."""
    if info is None:
        return "-"
    limit = info.max_offers_per_period
    text = f"{info.used:,} / {in_words(limit)}"
    if limit is None:
        return text
    # A limit of 0 is spent from the start, and a meter needs a maximum above its minimum.
    full, value = (limit, min(info.used, limit)) if limit else (1, 1)
    return format_html(
        '<meter class="quota-usage" min="0" max="{}" value="{}" low="{}" high="{}" optimum="0"'
        ' aria-label="used">{}</meter> {}',
        full,
        value,
        full * SCARCE_FROM,
        full * RARE_FROM,
        text,
        text,
    )


def link(url: str) -> str | SafeString:
    """A link to a page outside; plain text unless its scheme is http or https."""
    shown = Truncator(url).chars(MAX_SHOWN_URL)
    if not url.lower().startswith(("http://", "https://")):
        return shown or "-"
    return format_html('<a href="{}" rel="noopener noreferrer" target="_blank">{}</a>', url, shown)


def page_link(model: str, pk: int, text: str) -> SafeString:
    return format_html(
        '<a href="{}">{}</a>', reverse(f"admin:offers_{model}_change", args=[pk]), text
    )


def pretty_json(value: object) -> SafeString:
    """JSON for reading, cut where it would be more than a page can bear."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    shown = text[:MAX_SHOWN_CHARACTERS]
    more = "" if shown == text else f"\n... {len(text) - len(shown):,} more characters"
    return format_html('<pre class="quota-json">{}{}</pre>', shown, more)


class TargetForm(forms.Form):
    """One target, looked up while typing: there may be thousands."""

    target = forms.ModelChoiceField(
        ScrapingTarget.objects,
        required=False,
        widget=AutocompleteSelect(Offer.target.field, admin.site),
    )

    class Media:
        css = {"all": ("offers/admin.css",)}


class TargetFilter(admin.SimpleListFilter):
    title = "target"
    parameter_name = "target"
    template = "offers/admin/target_filter.html"

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        self.form = TargetForm(request.GET)
        others = ((k, values) for k, values in request.GET.lists() if k not in ("target", "p"))
        self.others = [(key, value) for key, values in others for value in values]
        super().__init__(request, *args)

    def has_output(self) -> bool:
        return True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        return []

    def choices(self, changelist: Any) -> Iterator[Any]:
        return iter(())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.form.is_valid():
            raise IncorrectLookupParameters
        target = self.form.cleaned_data["target"]
        return queryset.filter(target=target) if target else queryset


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        return list(State.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() in State.values else queryset


class QuotaRow(Protocol):
    """A quota as its pages show it: the row, its state, and what `QuotaService` says of it."""

    pk: int
    target: ScrapingTarget
    state: str
    info: QuotaInfo | None


class TargetRow(Protocol):
    """A target as its list shows it."""

    info: QuotaInfo | None
    offer_count: int


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


class TargetChangeList(ChangeList):
    """Adds to the targets of one page their active quota and their number of offers."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        targets = [target.pk for target in self.result_list]
        counted = Offer.objects.filter(target__in=targets).values_list("target_id")
        counts = dict(counted.annotate(Count("pk")))
        active = QuotaService().active_quotas(targets)
        for target in self.result_list:
            target.offer_count = counts.get(target.pk, 0)
            target.info = active.get(target.pk)


@admin.register(OfferQuota)
class OfferQuotaAdmin(QuotaAdminMixin, admin.ModelAdmin):
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
    readonly_fields = ("usage", "held", "remaining", "state", "counted_by")
    refusals = (*QuotaAdminMixin.refusals, ServiceError)
    definition = ("target", "max_offers_per_period", "period_start", "period_end")

    @property
    def media(self) -> forms.Media:
        return super().media + TargetForm().media

    def get_fieldsets(self, request: HttpRequest, obj: OfferQuota | None = None) -> Any:
        usage = (*self.readonly_fields, "used_offers_count")
        shown = [("Usage", {"fields": usage})] if obj else []
        return [(None, {"fields": self.definition}), *shown]

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


@admin.register(ScrapingTarget)
class ScrapingTargetAdmin(admin.ModelAdmin):
    list_display = ("name", "owner", "is_active", "active_quota", "offer_count")
    list_filter = ("is_active",)
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username")
    ordering = ("name", "pk")
    autocomplete_fields = ("owner",)

    class Media:
        css = {"all": ("offers/admin.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TargetChangeList

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Without an object this is asked for the bulk action, whose confirmation would load every
        # offer of every target chosen. A target that has offers is switched off instead.
        allowed = super().has_delete_permission(request, obj)
        return allowed and obj is not None and not obj.offers.exists()

    @admin.display(description="active quota")
    def active_quota(self, row: TargetRow) -> str | SafeString:
        if row.info is None:
            return "none"
        return page_link("offerquota", row.info.id, usage_bar(row.info))

    @admin.display(description="offers")
    def offer_count(self, row: TargetRow) -> str:
        return f"{row.offer_count:,}"


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that the service writes: to be looked at, and deleted by those who may."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Offer)
class OfferAdmin(ReadOnlyAdmin):
    list_display = ("title", "target", "price", "address", "counted_by", "created_at")
    list_filter = (TargetFilter,)
    list_select_related = ("target", "quota")
    search_fields = ("url", "title")
    search_help_text = "Part of a url or of a title"
    ordering = ("-pk",)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fields = (
        "title",
        "target",
        "price",
        "address",
        "image",
        "listing",
        "counted_by",
        "batch_id",
        "created_at",
        "published_at",
        "last_check_at",
        "closed_at",
        "details",
    )

    @property
    def media(self) -> forms.Media:
        return super().media + TargetForm().media

    def get_queryset(self, request: HttpRequest) -> QuerySet[Offer]:
        # A join finds no row where the quota is gone; reading `offer.quota` alone would raise.
        return super().get_queryset(request).select_related(*self.list_select_related)

    @admin.display(description="url", ordering="url")
    def address(self, offer: Offer) -> str | SafeString:
        return link(offer.url)

    @admin.display(description="image")
    def image(self, offer: Offer) -> str | SafeString:
        return link(offer.main_image_url)

    @admin.display(description="found at")
    def listing(self, offer: Offer) -> str | SafeString:
        return link(offer.list_url)

    @admin.display(description="quota")
    def counted_by(self, offer: Offer) -> str | SafeString:
        if offer.quota_id is None:
            return "none was active"
        if offer.quota is None:
            return f"{offer.quota_id} (no longer exists)"
        return page_link("offerquota", offer.quota_id, str(offer.quota))

    @admin.display(description="metadata")
    def details(self, offer: Offer) -> SafeString:
        return pretty_json(offer.metadata)


@admin.register(FailedBatch)
class FailedBatchAdmin(ReadOnlyAdmin):
    list_display = ("batch_id", "target_id", "attempts", "failed_at", "reason")
    search_fields = ("batch_id", "=target_id", "error")
    ordering = ("-pk",)
    fields = ("batch_id", "target_id", "attempts", "failed_at", "error", "content")
    actions = ("try_again",)

    class Media:
        css = {"all": ("offers/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[FailedBatch]:
        # A payload may be megabytes: only the page of one batch reads it.
        return super().get_queryset(request).defer("payload")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("offers.change_failedbatch")

    @admin.action(description="Try selected batches again", permissions=["retry"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[FailedBatch]) -> None:
        batches = list(queryset.values_list("batch_id", flat=True)[: MAX_RETRIED + 1])
        if len(batches) > MAX_RETRIED:
            message = f"Too many are selected: try at most {MAX_RETRIED:,} batches at a time."
            self.message_user(request, message, messages.ERROR)
            return
        try:
            sent = failed_batches.retry(batches)
        except ServiceError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, f"Sent to the workers again: {sent}.")

    @admin.display(description="error")
    def reason(self, batch: FailedBatch) -> str:
        return Truncator(batch.error).chars(MAX_SHOWN_ERROR)

    @admin.display(description="payload")
    def content(self, batch: FailedBatch) -> SafeString:
        return pretty_json(batch.payload)
