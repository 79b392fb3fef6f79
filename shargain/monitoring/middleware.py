"""Counts requests."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


class MetricsMiddleware:
    """Belongs first in `MIDDLEWARE`, so that every answer is counted with the status that it leaves with."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        from shargain.monitoring.metrics import observe_request

        self._get_response = get_response
        self._observe = observe_request

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        response = self._get_response(request)
        self._observe(request, response, time.perf_counter() - began)
        return response
