"""How the pages show what they show: text from outside is escaped and bounded."""

import json
from typing import Any

from django.db.models import Case, Exists, OuterRef, QuerySet, TextChoices, Value, When
from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from unfold.admin import ModelAdmin

from shargain.console.quota_page import RARE_FROM, SCARCE_FROM
from shargain.offers.models import OfferQuota
from shargain.offers.services.quota import QuotaInfo

MAX_SHOWN_CHARACTERS = 20_000
MAX_SHOWN_URL = 80


class State(TextChoices):
    """Where a quota stands at this moment."""

    ACTIVE = "active", "active"
    SCHEDULED = "scheduled", "scheduled"
    EXPIRED = "expired", "expired"
    SHADOWED = "shadowed", "shadowed by a newer one"


def with_state(quotas: QuerySet[Any]) -> QuerySet[Any]:
    """Annotate each quota with its `state`, by the clock of PostgreSQL, which also decides."""
    active: QuerySet[Any] = OfferQuota.objects.active()
    newer = active.filter(target=OuterRef("target"), period_start__gt=OuterRef("period_start"))
    annotated: QuerySet[Any] = quotas.annotate(
        state=Case(
            When(period_start__gt=Now(), then=Value(State.SCHEDULED)),
            When(period_end__lte=Now(), then=Value(State.EXPIRED)),
            When(Exists(newer), then=Value(State.SHADOWED)),
            default=Value(State.ACTIVE),
        )
    )
    return annotated


def in_words(count: int | None) -> str:
    return "unlimited" if count is None else f"{count:,}"


def usage_bar(info: QuotaInfo | None) -> str | SafeString:
    """Used of limit as text, and as a bar where there is a limit."""
    if info is None:
        return "-"
    limit = info.max_offers_per_period
    text = f"{info.used:,} / {in_words(limit)}"
    if limit is None:
        return text
    # A limit of 0 is spent from the start, and a meter needs a maximum above its minimum.
    full, value = (limit, min(info.used, limit)) if limit else (1, 1)
    return format_html(
        '<meter class="quota-usage" min="0" max="{}" value="{}" low="{}" high="{}" optimum="0"'
        ' aria-label="used">{}</meter> {}',
        full,
        value,
        full * SCARCE_FROM,
        full * RARE_FROM,
        text,
        text,
    )


def link(url: str) -> str | SafeString:
    """A link to a page outside; plain text unless its scheme is http or https."""
    shown = Truncator(url).chars(MAX_SHOWN_URL)
    if not url.lower().startswith(("http://", "https://")):
        return shown or "-"
    return format_html('<a href="{}" rel="noopener noreferrer" target="_blank">{}</a>', url, shown)


def page_link(model: str, pk: int, text: str) -> SafeString:
    return format_html(
        '<a href="{}">{}</a>', reverse(f"admin:offers_{model}_change", args=[pk]), text
    )


def pretty_json(value: object) -> SafeString:
    """JSON for reading, cut where it would be more than a page can bear."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    shown = text[:MAX_SHOWN_CHARACTERS]
    more = "" if shown == text else f"\n... {len(text) - len(shown):,} more characters"
    return format_html('<pre class="quota-json">{}{}</pre>', shown, more)


class ReadOnlyAdmin(ModelAdmin):
    """Rows that the service writes: to be looked at, and deleted by those who may."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
