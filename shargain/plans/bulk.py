"""The action that gives a plan to the targets selected in a list of them."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminSelectWidget

from shargain.offers.models import ScrapingTarget
from shargain.plans.models import Plan
from shargain.plans.subscriptions import ARMED_AT_ONCE, MAX_TARGETS, apply_plan


class PlanForm(forms.Form):
    plan = forms.ModelChoiceField(Plan.objects, widget=UnfoldAdminSelectWidget)


@admin.action(description="Apply a plan to selected targets", permissions=["plan"])
def apply_plan_to_selected(
    model_admin: Any, request: HttpRequest, queryset: QuerySet[ScrapingTarget]
) -> HttpResponse | None:
    """Ask for the plan, then apply it. For a ModelAdmin of targets, with PlanPermissionMixin."""
    count = queryset.count()
    if count > MAX_TARGETS:
        text = f"{count:,} targets are selected: apply a plan to at most {MAX_TARGETS:,} at a time."
        model_admin.message_user(request, text, messages.ERROR)
        return None
    form = PlanForm(request.POST if "confirmed" in request.POST else None)
    if not form.is_valid():
        return _ask(model_admin, request, form, count)
    who = f"admin {request.user.get_username()}"
    plan = form.cleaned_data["plan"]
    done = apply_plan(plan, list(queryset.values_list("pk", flat=True)), who=who)
    when = "" if done <= ARMED_AT_ONCE else " Their periods are armed within minutes."
    model_admin.message_user(request, f"Plan {plan}: applied to {done:,} targets.{when}")
    return None


class PlanPermissionMixin:
    """Who may apply plans: who may change subscriptions and add them."""

    def has_plan_permission(self, request: HttpRequest) -> bool:
        codes = ("plans.add_subscription", "plans.change_subscription")
        return request.user.has_perms(codes)


def _ask(model_admin: Any, request: HttpRequest, form: PlanForm, count: int) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Apply a plan",
        "opts": model_admin.opts,
        "media": model_admin.media + form.media,
        "form": form,
        "count": count,
        # With all pages selected the list's own filters say which: one id stands for that there are some.
        "select_across": request.POST.get("select_across", "0"),
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "back_url": request.get_full_path(),
    }
    return TemplateResponse(request, "plans/apply.html", context)
