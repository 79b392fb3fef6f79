"""Puts the page of a quota around its form in the admin, and the repair of its drift beside it."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from shargain.console.quota_page import quota_page
from shargain.offers.services.quota import AuditReport, QuotaService

if TYPE_CHECKING:
    ModelAdminBase = admin.ModelAdmin[Any]
else:
    ModelAdminBase = object


class QuotaPageMixin(ModelAdminBase):
    """Put before unfold's ModelAdmin. Its `get_object` has to give quotas an `info`, a QuotaInfo."""

    change_form_outer_before_template = "console/quota/head.html"
    change_form_before_template = "console/quota/preview.html"
    change_form_after_template = "console/quota/preview_button.html"
    change_form_outer_after_template = "console/quota/body.html"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        obj = kwargs.get("obj")
        if obj is not None:
            # An audit refuses the transaction in which a form is posted; what was posted matters more then.
            context["page"] = quota_page(obj.info, with_drift=request.method == "GET")
            context["repair_url"] = self._address("repair", obj.pk)
            context["may_repair"] = self.has_change_permission(request, obj)
            if context["may_repair"] and obj.max_offers_per_period is not None:
                context["grant_url"] = reverse("admin:plans_grant", args=[obj.pk])
            context["others_url"] = f"{self._address('changelist')}?target={obj.target_id}"
        return super().render_change_form(request, context, *args, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        repair = path(
            "<int:quota_id>/repair/",
            self.admin_site.admin_view(self.repair_view),
            name=self._name("repair"),
        )
        return [repair, *super().get_urls()]

    def repair_view(self, request: HttpRequest, quota_id: int) -> HttpResponse:
        """Shows the drift of the quota's target, and repairs it once that is confirmed."""
        quota = self.get_object(request, str(quota_id))
        if not self.has_change_permission(request, quota):
            raise PermissionDenied
        if quota is None:
            return HttpResponseRedirect(self._address("changelist"))
        if request.method != "POST":
            return self._confirm_repair(request, quota)
        self._report_repair(
            request, quota, QuotaService().audit_target(quota.target_id, repair=True)
        )
        return HttpResponseRedirect(self._address("change", quota.pk))

    def _confirm_repair(self, request: HttpRequest, quota: Any) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Repair",
            "opts": self.opts,
            "media": self.media,
            "quota": quota,
            "drift": QuotaService().audit_target(quota.target_id, repair=False),
            "back_url": self._address("change", quota.pk),
        }
        return TemplateResponse(request, "console/quota/repair.html", context)

    def _report_repair(self, request: HttpRequest, quota: Any, report: AuditReport) -> None:
        found = ", ".join(f"quota {drift.quota_id}: {drift.reason}" for drift in report.drifts[:20])
        if report.drifts:
            self.log_change(request, quota, f"Repaired the target's drift ({found}).")
        if not report.is_complete:
            text = "Redis does not answer: counts follow the ledger, Redis is put right when it is back."
            self.message_user(request, text, messages.WARNING)
        elif report.drifts:
            self.message_user(request, f"Repaired: {found}.")
        else:
            self.message_user(request, "There was nothing to repair.")

    def _name(self, view: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

    def _address(self, view: str, *args: object) -> str:
        return reverse(f"{self.admin_site.name}:{self._name(view)}", args=args)
