"""Targets, with the quota that rules each and the number of its offers."""

from typing import Any, Protocol

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from shargain.offers.admin.parts import page_link, usage_bar
from shargain.offers.models import Offer, ScrapingTarget
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.plans.bulk import PlanPermissionMixin, apply_plan_to_selected


class TargetRow(Protocol):
    """A target as its list shows it."""

    info: QuotaInfo | None
    offer_count: int


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


@admin.register(ScrapingTarget)
class ScrapingTargetAdmin(PlanPermissionMixin, ModelAdmin):
    list_display = ("name", "owner", "is_active", "active_quota", "offer_count")
    list_filter = ("is_active",)
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username")
    ordering = ("name", "pk")
    autocomplete_fields = ("owner",)
    actions = (apply_plan_to_selected,)

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
