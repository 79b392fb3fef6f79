"""Turns the error pages of Django and django-ninja below the API's paths into problems."""

from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from shargain.api.problems import CONTENT_TYPE, Problem

PATHS = ("/api/", "/livez", "/readyz")
DETAILS = {
    404: "There is nothing at this address: see /api/v1/docs.",
    405: "The Allow field names the methods of this address.",
    500: "The service failed, and its log says why.",
}


class ProblemMiddleware:
    """Belongs first in `MIDDLEWARE`, as what stands before it can answer with pages of its own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path_info.startswith(PATHS) and _is_page(response):
            _make_problem(response)
        return response


def _is_page(response: HttpResponse) -> bool:
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return False
    # With DEBUG the page of a failure has the traceback that its reader wants.
    is_traceback = settings.DEBUG and response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    return response.headers.get("Content-Type") != CONTENT_TYPE and not is_traceback


def _make_problem(page: HttpResponse) -> None:
    # In place: the header fields that others have set (Allow, the security ones) stay.
    status = page.status_code
    page.content = Problem(status, DETAILS.get(status, page.reason_phrase)).response().content
    page["Content-Type"] = CONTENT_TYPE
    page["Content-Length"] = str(len(page.content))
