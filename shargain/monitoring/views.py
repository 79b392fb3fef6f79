"""`/metrics` of the web process."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from shargain.monitoring.access import CHALLENGE, is_allowed


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For whoever has METRICS_TOKEN; where none is set there is no such page.

    An address says nothing about who asks: behind a proxy everybody comes from this host.
    """
    from shargain.monitoring import exposition, servers

    if not settings.METRICS_TOKEN:
        raise Http404
    if not is_allowed(request.headers.get("Authorization", ""), settings.METRICS_TOKEN):
        headers = {"WWW-Authenticate": CHALLENGE}
        return HttpResponse("Send the metrics token.\n", status=401, headers=headers)
    # The servers first: asking Redis brings its breaker's gauge up to date.
    said = servers.answers()
    return HttpResponse(exposition.counts() + said, content_type=exposition.CONTENT_TYPE)
