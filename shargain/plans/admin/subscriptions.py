"""Who has which plan, until when periods are armed, and where a quota was missing."""

from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from shargain.offers.admin.parts import in_words
from shargain.plans import renewal
from shargain.plans.models import Subscription
from shargain.plans.subscriptions import stop

MAX_STOPPED = 200


@admin.register(Subscription)
class SubscriptionAdmin(ModelAdmin):
    """A subscription is stopped, never deleted: what it has armed would stay behind."""

    list_display = ("target", "plan", "limit", "repeats", "armed_until", "without_quota")
    list_filter = ("repeats", "plan")
    list_select_related = ("target", "plan")
    search_fields = ("target__name",)
    ordering = ("target__name", "pk")
    autocomplete_fields = ("target", "plan")
    actions = ("stop_selected",)
    fields = ("target", "plan", "has_own_limit", "own_limit", "repeats")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        return super().get_queryset(request).annotate(until=Max("armed_periods__period_end"))

    def get_readonly_fields(self, request: HttpRequest, obj: Subscription | None = None) -> Any:
        return ("target",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Subscription, form: Any, change: bool) -> None:
        if not change or "repeats" in form.changed_data:
            # What was meant to be without a quota is no gap.
            obj.checked_until = obj.gap_start = obj.gap_end = None
        super().save_model(request, obj, form, change)
        renewal.arm(obj.pk, who=_who(request))
        if not obj.repeats:
            text = "Nothing is armed any more: when the present period ends, nothing limits the target."
            self.message_user(request, text, messages.WARNING)

    @admin.action(description="Stop: arm no further periods", permissions=["change"])
    def stop_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> None:
        ids = list(queryset.filter(repeats=True).values_list("pk", flat=True)[: MAX_STOPPED + 1])
        if len(ids) > MAX_STOPPED:
            text = f"Too many are selected: stop at most {MAX_STOPPED} at a time."
            self.message_user(request, text, messages.ERROR)
            return
        for pk in ids:
            stop(pk, who=_who(request))
        text = f"Stopped {len(ids)}: when their present periods end, nothing limits these targets."
        self.message_user(request, text, messages.WARNING)

    @admin.display(description="limit")
    def limit(self, row: Subscription) -> str:
        return in_words(row.limit) + (" (its own)" if row.has_own_limit else "")

    @admin.display(description="armed until", ordering="until", empty_value="nothing yet")
    def armed_until(self, row: Any) -> datetime | None:
        until: datetime | None = row.until
        return until

    @admin.display(description="without a quota", ordering="gap_end", empty_value="never")
    def without_quota(self, row: Subscription) -> str | None:
        if row.gap_start is None or row.gap_end is None:
            return None
        return f"{row.gap_start:%Y-%m-%d %H:%M} to {row.gap_end:%Y-%m-%d %H:%M} UTC"


def _who(request: HttpRequest) -> str:
    return f"admin {request.user.get_username()}"
