"""Who is told of what: endpoints, thresholds of single targets, and what was told."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline

from shargain.alerts.models import (
    PREDICTED,
    Alert,
    Delivery,
    DeliveryState,
    Endpoint,
    TargetThresholds,
)
from shargain.alerts.signing import new_salt
from shargain.offers.admin.parts import ReadOnlyAdmin, page_link
from shargain.offers.models import ScrapingTarget


@admin.register(Endpoint)
class EndpointAdmin(ModelAdmin):
    """The secret is shown when it is made, and never again."""

    list_display = ("name", "url", "hears_of", "is_active", "created_at")
    list_filter = ("is_active",)
    list_select_related = ("owner",)
    search_fields = ("name", "url")
    ordering = ("name", "pk")
    autocomplete_fields = ("owner",)
    fields = ("name", "url", "owner", "is_active")
    actions = ("renew_secret",)

    def save_model(self, request: HttpRequest, obj: Endpoint, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change:
            self._show_secret(request, obj)

    @admin.action(description="Give selected endpoints a new secret", permissions=["change"])
    def renew_secret(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        for endpoint in queryset[:20]:
            endpoint.salt = new_salt()
            endpoint.save(update_fields=["salt"])
            self.log_change(request, endpoint, "New secret.")
            self._show_secret(request, endpoint)

    @admin.display(description="hears of")
    def hears_of(self, endpoint: Endpoint) -> str:
        return f"targets of {endpoint.owner}" if endpoint.owner else "all targets"

    def _show_secret(self, request: HttpRequest, endpoint: Endpoint) -> None:
        text = f"The secret of {endpoint.name}, shown this once and never again: {endpoint.secret}"
        self.message_user(request, text, messages.WARNING)


@admin.register(TargetThresholds)
class TargetThresholdsAdmin(ModelAdmin):
    list_display = ("target", "percents", "is_predicted")
    list_select_related = ("target",)
    search_fields = ("target__name",)
    ordering = ("target__name", "pk")
    autocomplete_fields = ("target",)


class DeliveryInline(TabularInline):
    model = Delivery
    fields = ("receiver", "state", "attempts", "due_at", "delivered_at", "error")
    readonly_fields = fields
    can_delete = False
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).select_related("endpoint").order_by("pk")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display
    def receiver(self, delivery: Delivery) -> str:
        return delivery.endpoint.name if delivery.endpoint else delivery.recipient


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ("at", "target", "quota", "reached", "used_of_limit", "told")
    list_filter = ("threshold",)
    search_fields = ("=quota_id", "=target_id", "=event_id")
    ordering = ("-pk",)
    show_full_result_count = False
    inlines = (DeliveryInline,)
    actions = ("try_again",)
    fields = (
        "at", "target", "quota", "reached", "used_of_limit", "period_start", "period_end",
        "runs_out_at", "event_id",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        name = ScrapingTarget.objects.filter(pk=OuterRef("target_id")).values("name")
        failed = Count("deliveries", filter=Q(deliveries__state=DeliveryState.FAILED))
        waiting = Count("deliveries", filter=Q(deliveries__state=DeliveryState.WAITING))
        counted = super().get_queryset(request).annotate(all=Count("deliveries"))
        return counted.annotate(failed=failed, waiting=waiting, target_name=Subquery(name))

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("alerts.change_alert")

    @admin.action(description="Deliver again what has failed", permissions=["retry"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        chosen = Delivery.objects.filter(alert__in=queryset.values("pk"))
        failed = chosen.filter(state=DeliveryState.FAILED)
        count = failed.update(state=DeliveryState.WAITING, attempts=0, due_at=Now())
        self.message_user(request, f"Tried again within a minute: {count}.")

    @admin.display(description="target")
    def target(self, alert: Any) -> str | SafeString:
        if alert.target_name is None:
            return f"{alert.target_id} (no longer exists)"
        return page_link("scrapingtarget", alert.target_id, alert.target_name)

    @admin.display(description="quota", ordering="quota_id")
    def quota(self, alert: Alert) -> SafeString:
        return page_link("offerquota", alert.quota_id, f"quota {alert.quota_id}")

    @admin.display(description="reached", ordering="threshold")
    def reached(self, alert: Alert) -> str:
        return PREDICTED if alert.threshold == PREDICTED else f"{alert.threshold} %"

    @admin.display(description="used / limit")
    def used_of_limit(self, alert: Alert) -> str:
        return f"{alert.used:,} / {alert.limit:,}"

    @admin.display(description="told")
    def told(self, alert: Any) -> str:
        if not alert.all:
            return "nobody"
        done = alert.all - alert.failed - alert.waiting
        parts = [f"{done} of {alert.all}"]
        if alert.waiting:
            parts.append(f"{alert.waiting} waiting")
        if alert.failed:
            parts.append(f"{alert.failed} failed")
        return ", ".join(parts)
