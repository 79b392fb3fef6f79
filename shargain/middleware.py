"""What every answer of the service carries."""

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

# Scripts and styles come from files of our own alone, so what somebody smuggles into a page does not run.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# unfold's Alpine compiles the expressions in its attributes and sets styles by attribute; it brings fonts.
ADMIN_POLICY = (
    CONTENT_SECURITY_POLICY.replace("script-src 'self'", "script-src 'self' 'unsafe-eval'")
    + "; style-src-attr 'unsafe-inline'; font-src 'self'"
)


class ContentSecurityPolicyMiddleware:
    """Adds the policy to every answer; not with DEBUG, whose error pages are one piece."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        if settings.DEBUG:
            raise MiddlewareNotUsed
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_admin = request.path_info.startswith(reverse("admin:index"))
        policy = ADMIN_POLICY if is_admin else CONTENT_SECURITY_POLICY
        response.headers["Content-Security-Policy"] = policy
        return response
