"""What an owner may see: their own targets, and nothing of anybody else's."""

from dataclasses import dataclass

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from shargain.console.quota_page import quota_page
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.quota import QuotaInfo, QuotaService

PER_PAGE = 25
MAX_SEARCH = 100
SCARCE_FROM = 0.8


@dataclass(frozen=True, slots=True)
class Row:
    """A target and the quota that rules it, None where nothing limits it."""

    target: ScrapingTarget
    quota: QuotaInfo | None

    @property
    def share(self) -> int | None:
        """Percent of the limit that is used, at most 100; None without a limit."""
        if self.quota is None or self.quota.max_offers_per_period is None:
            return None
        limit = self.quota.max_offers_per_period
        return min(100, 100 * self.quota.used // limit) if limit else 100

    @property
    def state(self) -> str:
        """A word for how much is left."""
        if self.quota is None:
            return "no limit"
        if self.quota.remaining is None:
            return "unlimited"
        if self.quota.remaining == 0:
            return "used up"
        return "nearly used up" if (self.share or 0) >= 100 * SCARCE_FROM else "available"


@require_safe
@never_cache
@login_required(login_url="owners:login")
def target_list(request: HttpRequest) -> HttpResponse:
    search = request.GET.get("q", "")[:MAX_SEARCH].replace("\0", "").strip()
    targets = _own(request)
    found = targets.filter(name__icontains=search) if search else targets
    page = Paginator(found.order_by("name", "pk"), PER_PAGE).get_page(request.GET.get("page"))
    quotas = QuotaService().active_quotas([target.pk for target in page])
    rows = [Row(target, quotas.get(target.pk)) for target in page]
    context = {"page": page, "rows": rows, "search": search, "has_targets": targets.exists()}
    return render(request, "owners/targets.html", context)


@require_safe
@never_cache
@login_required(login_url="owners:login")
def target_page(request: HttpRequest, target_id: int) -> HttpResponse:
    target = get_object_or_404(_own(request), pk=target_id)
    quota = QuotaService().get_active_quota(target)
    page = quota_page(quota, with_drift=False) if quota else None
    context = {"target": target, "row": Row(target, quota if page else None), "page": page}
    return render(request, "owners/target.html", context)


def _own(request: HttpRequest) -> "QuerySet[ScrapingTarget]":
    return ScrapingTarget.objects.filter(owner_id=request.user.pk, is_active=True)
