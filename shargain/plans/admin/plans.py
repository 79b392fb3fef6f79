"""Plans: a limit and how it repeats."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from shargain.offers.admin.parts import in_words
from shargain.plans.models import Plan


@admin.register(Plan)
class PlanAdmin(ModelAdmin):
    list_display = ("name", "limit", "rhythm", "anchor", "time_zone", "targets")
    search_fields = ("name",)
    ordering = ("name",)
    fields = ("name", "max_offers_per_period", "repeats", "every_days", "anchor", "time_zone")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        repeating = Count("subscriptions", filter=Q(subscriptions__repeats=True))
        return super().get_queryset(request).annotate(targets=repeating)

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if change:
            text = "Periods that have begun stay; those armed ahead follow the plan within minutes."
            self.message_user(request, text)

    @admin.display(description="limit", ordering="max_offers_per_period")
    def limit(self, plan: Plan) -> str:
        return in_words(plan.max_offers_per_period)

    @admin.display(description="repeats")
    def rhythm(self, plan: Plan) -> str:
        return f"every {plan.every_days} days" if plan.every_days else plan.get_repeats_display()

    @admin.display(description="targets", ordering="targets")
    def targets(self, plan: Any) -> str:
        return f"{plan.targets:,}"
