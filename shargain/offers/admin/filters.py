"""Filters of lists."""

from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import QuerySet
from django.http import HttpRequest

from shargain.offers.admin.parts import State
from shargain.offers.models import Offer, ScrapingTarget


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
