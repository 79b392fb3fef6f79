"""The overview that the admin begins with: who is near a limit, who is refused, and whether the service is well.

Its number of queries is fixed, and Redis is asked once for all rows that are shown. Which rows those are is
decided by `used_offers_count`, which sync wrote some seconds ago, for Redis cannot be searched. The count has no
index: with one, sync could not update it in place.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.core.paginator import Page, Paginator
from django.db.models import Case, F, FloatField, Q, QuerySet, Value, When
from django.db.models.functions import Cast
from django.http import HttpRequest, QueryDict
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from shargain.console.health import Health, health
from shargain.offers.admin.parts import State, with_state
from shargain.offers.models import OfferQuota, ScrapingTarget
from shargain.offers.services.quota import QuotaInfo, QuotaService
from shargain.usage.services import (
    HotTarget,
    RefusedTarget,
    hottest_targets,
    refused_targets,
)

PAGE_SIZE = 50
LATELY = timedelta(hours=1)
MAX_TARGETS = 10
"""Targets that are shown of the refused ones, and of the hottest."""
ANY = "any"
DEFAULTS = {"state": State.ACTIVE.value, "share": "80"}


class FilterForm(forms.Form):
    q = forms.CharField(
        required=False,
        max_length=200,
        label="Target",
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "part of its name"}),
    )
    owner = forms.CharField(
        required=False,
        max_length=150,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "part of the user name"}),
    )
    state = forms.ChoiceField(
        choices=[*State.choices, (ANY, "any state")], widget=UnfoldAdminSelectWidget
    )
    share = forms.ChoiceField(
        choices=[
            ("100", "100 %: used up"),
            ("95", "95 % and more"),
            ("80", "80 % and more"),
            ("50", "50 % and more"),
            (ANY, "any share"),
        ],
        label="Used of the limit",
        widget=UnfoldAdminSelectWidget,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A quota of the page: as PostgreSQL has it, and its numbers, live where Redis knows them."""

    quota: OfferQuota
    state: str
    info: QuotaInfo | None

    @property
    def share(self) -> int | None:
        """Percent of the limit that is used or held; None without a limit."""
        limit = self.quota.max_offers_per_period
        if limit is None or self.info is None:
            return None
        return 100 * (self.info.used + self.info.held) // limit if limit else 100

    @property
    def full(self) -> int:
        """The limit for a meter, which needs one above 0."""
        return self.quota.max_offers_per_period or 1

    @property
    def filled(self) -> int:
        if self.info is None:
            return 0
        return min(self.full, self.info.used) if self.quota.max_offers_per_period else 1

    @property
    def scarce_from(self) -> float:
        return 0.8 * self.full

    @property
    def rare_from(self) -> float:
        return 0.95 * self.full


@dataclass(frozen=True, slots=True)
class Lately:
    """A target of late: its name, or None where it is gone."""

    name: str | None
    seen: RefusedTarget | HotTarget


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that the page shows. `query` is the filters without the page, for links."""

    health: Health
    form: FilterForm
    page: Page[Any]
    rows: tuple[Row, ...]
    refused: tuple[Lately, ...]
    hottest: tuple[Lately, ...]
    has_quotas: bool
    query: str

    @property
    def is_live(self) -> bool:
        return all(row.info is not None and row.info.is_live for row in self.rows)


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """unfold's callback for the index of the admin: adds the overview for those who may view quotas."""
    may_view = request.user.has_perm("offers.view_offerquota")
    may_change = request.user.has_perm("offers.change_offerquota")
    shown = overview(request.GET) if may_view or may_change else None
    title = {"title": "Overview"} if shown else {}
    return {**context, **title, "overview": shown}


def overview(params: QueryDict) -> Overview:
    """Read the overview. Raises what PostgreSQL raises while it is out of reach."""
    form = FilterForm({**DEFAULTS, **{name: params[name] for name in params if params[name]}})
    quotas = _chosen(form.cleaned_data) if form.is_valid() else OfferQuota.objects.none()
    page: Page[Any] = Paginator(quotas, PAGE_SIZE).get_page(params.get("p"))
    found: list[Any] = list(page.object_list)
    infos = QuotaService().describe([quota.pk for quota in found]) if found else {}
    seen = health()
    refused, hottest = _lately(seen.now)
    query = params.copy()
    query.pop("p", None)
    return Overview(
        health=seen,
        form=form,
        page=page,
        rows=tuple(Row(q, State(q.state).label, infos.get(q.pk)) for q in found),
        refused=refused,
        hottest=hottest,
        has_quotas=bool(found) or OfferQuota.objects.exists(),
        query=query.urlencode(),
    )


def _chosen(filters: dict[str, str]) -> "QuerySet[OfferQuota]":
    """The quotas that the filters ask for, the fullest first."""
    quotas: QuerySet[Any] = with_state(OfferQuota.objects.select_related("target__owner"))
    if filters["share"] != ANY:
        enough = Q(max_offers_per_period__lte=F("used_offers_count") * 100 / int(filters["share"]))
        quotas = quotas.filter(enough)
    if filters["state"] != ANY:
        quotas = quotas.filter(state=filters["state"])
    if filters["q"]:
        quotas = quotas.filter(target__name__icontains=filters["q"])
    if filters["owner"]:
        quotas = quotas.filter(target__owner__username__icontains=filters["owner"])
    return quotas.order_by(_share().desc(nulls_last=True), "pk")


def _share() -> Case:
    return Case(
        When(max_offers_per_period=0, then=Value(1.0)),
        default=Cast("used_offers_count", FloatField()) / F("max_offers_per_period"),
        output_field=FloatField(null=True),
    )


def _lately(now: datetime) -> tuple[tuple[Lately, ...], tuple[Lately, ...]]:
    """The targets that were refused, and the hottest ones, of late."""
    refused = refused_targets(now - LATELY, limit=MAX_TARGETS)
    hottest = hottest_targets(now - LATELY, limit=MAX_TARGETS)
    ids = {seen.target_id for seen in refused} | {seen.target_id for seen in hottest}
    names = dict(ScrapingTarget.objects.filter(pk__in=ids).values_list("pk", "name"))
    return (
        tuple(Lately(names.get(seen.target_id), seen) for seen in refused),
        tuple(Lately(names.get(seen.target_id), seen) for seen in hottest),
    )
