"""Offers: text from outside, to be looked at."""

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from shargain.offers.admin.filters import TargetFilter, TargetForm
from shargain.offers.admin.parts import ReadOnlyAdmin, link, page_link, pretty_json
from shargain.offers.models import Offer


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
