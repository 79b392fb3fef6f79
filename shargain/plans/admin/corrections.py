"""Granted units: the list of them, and the page that grants (`admin:plans_grant` with a quota's id)."""

from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextareaWidget

from shargain.offers.admin.parts import ReadOnlyAdmin, page_link
from shargain.offers.models import MAX_LIMIT
from shargain.offers.services.errors import UnknownQuota
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.plans.corrections import InvalidCorrection, grant
from shargain.plans.models import MAX_REASON, Correction


class GrantForm(forms.Form):
    """Units and why. The key is the page's own: sent twice, it grants once."""

    units = forms.IntegerField(
        min_value=1,
        max_value=MAX_LIMIT,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text="The limit rises by so many offers. What is used stays.",
    )
    reason = forms.CharField(
        max_length=MAX_REASON,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Kept for who asks later.",
    )
    key = forms.UUIDField(widget=forms.HiddenInput)


@admin.register(Correction)
class CorrectionAdmin(ReadOnlyAdmin):
    list_display = ("at", "quota", "units", "limit_before", "limit_after", "reason", "who")
    search_fields = ("=quota_id", "=target_id", "reason", "who")
    ordering = ("-pk",)
    fields = (
        "at", "quota_id", "target_id", "units", "limit_before", "limit_after", "reason", "who", "key",
    )  # fmt: skip

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="quota", ordering="quota_id")
    def quota(self, correction: Correction) -> SafeString:
        return page_link("offerquota", correction.quota_id, f"quota {correction.quota_id}")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.grant_view)
        return [path("grant/<int:quota_id>/", view, name="plans_grant"), *super().get_urls()]

    def grant_view(self, request: HttpRequest, quota_id: int) -> HttpResponse:
        """Grants units of a quota, for those who may change it."""
        if not request.user.has_perm("offers.change_offerquota"):
            raise PermissionDenied
        info = QuotaService().describe([quota_id]).get(quota_id)
        if info is None:
            self.message_user(request, f"There is no quota {quota_id}.", messages.ERROR)
            return HttpResponseRedirect(reverse("admin:offers_offerquota_changelist"))
        form = GrantForm(request.POST or None, initial={"key": uuid4()})
        if request.method == "POST" and form.is_valid() and self._grant(request, info, form):
            return HttpResponseRedirect(_page_of(quota_id))
        return self._show(request, info, form)

    def _grant(self, request: HttpRequest, info: QuotaInfo, form: GrantForm) -> bool:
        values = form.cleaned_data
        who = f"admin {request.user.get_username()}"
        try:
            done = grant(info.id, values["units"], values["reason"], who, key=values["key"])
        except (InvalidCorrection, UnknownQuota) as error:
            field = getattr(error, "field", None)
            form.add_error(field if field in ("units", "reason") else None, str(error))
            return False
        text = f"Granted {done.units:,}: the limit rose from {done.limit_before:,} to {done.limit_after:,}."
        self.message_user(request, text)
        return True

    def _show(self, request: HttpRequest, info: QuotaInfo, form: GrantForm) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Grant units",
            "opts": self.opts,
            "media": self.media + form.media,
            "info": info,
            "form": form,
            "before": Correction.objects.filter(quota_id=info.id).order_by("-pk")[:10],
            "back_url": _page_of(info.id),
        }
        return TemplateResponse(request, "plans/grant.html", context)


def _page_of(quota_id: int) -> str:
    return reverse("admin:offers_offerquota_change", args=[quota_id])
