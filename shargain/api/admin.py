"""The admin of scraper tokens: issued here, shown once, revoked here."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin

from shargain.api.models import ScraperToken


class TokenForm(forms.ModelForm):
    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at and expires_at <= timezone.now():
            raise forms.ValidationError("The expiry is in the past: give a later one, or none.")
        return expires_at


@admin.register(ScraperToken)
class ScraperTokenAdmin(ModelAdmin):
    """Once issued, a token can be renamed and revoked, and nothing else of it changes."""

    form = TokenForm
    list_display = ("name", "owner", "prefix", "state", "created_at", "expiry", "last_used")
    list_select_related = ("owner",)
    search_fields = ("name", "prefix", "owner__username")
    ordering = ("-pk",)
    autocomplete_fields = ("owner",)
    actions = ("revoke",)
    issued = ("owner", "expires_at")
    shown = ("prefix", "created_at", "revoked_at", "last_used_at")

    def get_fields(self, request: HttpRequest, obj: ScraperToken | None = None) -> Any:
        return ("name", *self.issued, *self.shown) if obj else ("name", *self.issued)

    def get_readonly_fields(self, request: HttpRequest, obj: ScraperToken | None = None) -> Any:
        return (*self.issued, *self.shown) if obj else ()

    def save_model(self, request: HttpRequest, obj: ScraperToken, form: Any, change: bool) -> None:
        if change:
            # The other columns are written by the service while the page is open.
            obj.save(update_fields=["name"])
            return
        token, plain = ScraperToken.issue(obj.owner, obj.name, expires_at=obj.expires_at)
        obj.pk, obj.prefix = token.pk, token.prefix
        text = f"The token of {obj.name}, shown this once and never again: {plain}"
        self.message_user(request, text, messages.WARNING)

    @admin.action(description="Revoke selected tokens", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ScraperToken]) -> None:
        valid = list(queryset.filter(revoked_at=None))
        for token in valid:
            token.revoke()
            self.log_change(request, token, "Revoked.")
        self.message_user(request, f"Revoked {len(valid)} of {queryset.count()}.")

    @admin.display
    def state(self, token: ScraperToken) -> str:
        if token.revoked_at:
            return "revoked"
        return "expired" if token.expires_at and token.expires_at <= timezone.now() else "valid"

    @admin.display(ordering="expires_at", empty_value="no expiry")
    def expiry(self, token: ScraperToken) -> datetime | None:
        return token.expires_at

    @admin.display(ordering="last_used_at", empty_value="never")
    def last_used(self, token: ScraperToken) -> datetime | None:
        return token.last_used_at
