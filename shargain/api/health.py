"""Probes for whatever runs the process. They need no token and tell nothing but up or down."""

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from shargain.api.problems import unavailable
from shargain.offers.services.quota import QuotaService


@never_cache
@require_safe
def livez(_request: HttpRequest) -> HttpResponse:
    """The process answers. It touches nothing else, so that no outage restarts every process."""
    return JsonResponse({"status": "alive"})


@never_cache
@require_safe
def readyz(_request: HttpRequest) -> HttpResponse:
    """Ready when PostgreSQL answers. Without Redis it still is: the direct road serves."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        return unavailable().response()
    redis = "up" if QuotaService().is_redis_up() else "down"
    return JsonResponse({"status": "ready", "postgresql": "up", "redis": redis})
