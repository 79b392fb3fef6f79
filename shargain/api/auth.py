"""Who is calling: a scraper with its bearer token, and which targets it may use."""

from collections.abc import Iterable

from django.http import HttpRequest
from ninja.security import HttpBearer

from shargain.api.models import ScraperToken
from shargain.api.problems import Problem, no_target
from shargain.offers.models import ScrapingTarget


class ScraperRequest(HttpRequest):
    """A request that passed `ScraperBearer`."""

    auth: ScraperToken


class ScraperBearer(HttpBearer):
    """`Authorization: Bearer <token>`. Runs before anything of the body is read."""

    def authenticate(self, request: HttpRequest, token: str) -> ScraperToken | None:
        known = ScraperToken.authenticate(token)
        if known is not None and request.method == "POST":
            # Here, because django-ninja reads the body as soon as it knows who is calling.
            check_is_json(request)
        return known


def check_is_json(request: HttpRequest) -> None:
    """Raise a problem if the header fields show that no JSON of a known length comes."""
    # Without a length Django reads an empty body, and complains of what it has not read.
    if not request.META.get("CONTENT_LENGTH", "").isdecimal():
        raise Problem(411, "Send the body with a Content-Length, not in chunks.")
    if request.content_type != "application/json":
        raise Problem(
            415,
            f"The Content-Type is {str(request.content_type)[:100]!r}: send application/json.",
            headers={"Accept": "application/json"},
        )


def check_target(token: ScraperToken, target_id: int) -> None:
    """Raise the 404 problem unless the target is active and the token's owner has it."""
    if not own_targets(token, [target_id]):
        raise no_target()


def own_targets(token: ScraperToken, target_ids: Iterable[int]) -> set[int]:
    """Those of the targets that are active and that the token's owner has."""
    own = ScrapingTarget.objects.filter(owner_id=token.owner_id, is_active=True)
    return set(own.filter(pk__in=target_ids).values_list("pk", flat=True))
