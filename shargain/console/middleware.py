"""What the pages of the admin and of owners show while PostgreSQL is out of reach."""

import logging
from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse

from shargain.offers.services.errors import ServiceUnavailable

logger = logging.getLogger(__name__)
OUTAGES = (ServiceUnavailable, OperationalError, InterfaceError)
RETRY_AFTER_SECONDS = 5


class OutageMiddleware:
    """Answers outages of pages with a page of their own, which reads nothing, instead of a failure."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        pages = (reverse("admin:index"), reverse("owners:targets"))
        if not request.path_info.startswith(pages) or not isinstance(error, OUTAGES):
            return None
        logger.error("%s %s: %s", request.method, request.path, error, exc_info=error)
        page = render_to_string("console/outage.html", {"was_read": request.method == "GET"})
        return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
