"""Every error of the API is a problem document (RFC 9457, `application/problem+json`)."""

import logging
import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from shargain.offers.services.errors import InvalidBatch, ServiceUnavailable, UnknownTarget

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = 5
MAX_LISTED_ERRORS = 20


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so, and it is what is sent
    """Ends a request with a problem document. `members` are added to the standard ones."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members or {}

    def document(self) -> dict[str, object]:
        standard = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return {**standard, **self.members}

    def response(self) -> JsonResponse:
        return JsonResponse(
            self.document(),
            status=self.status,
            headers=self.headers,
            content_type=CONTENT_TYPE,
        )


def unauthenticated() -> Problem:
    """The one answer to missing, unknown, expired and revoked tokens."""
    return Problem(
        401,
        "Send a valid token: Authorization: Bearer <token>.",
        headers={"WWW-Authenticate": 'Bearer realm="shargain"'},
    )


def no_target() -> Problem:
    """The one answer for unknown, inactive and foreign targets: a token must not tell of others."""
    return Problem(404, "This token's owner has no such active target: check the id and the token.")


def unavailable() -> Problem:
    return Problem(
        503,
        "The service cannot reach its database: send the same request again later.",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def too_large() -> Problem:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return Problem(413, f"The body has more than {most} bytes: send fewer offers per batch.")


def invalid(errors: list[dict[str, str]]) -> Problem:
    """422 with the places (`in`, `pointer`) that are wrong, the first `MAX_LISTED_ERRORS`."""
    first = errors[0]
    detail = f"{first['in']} {first['pointer']}: {first['detail']}"
    if len(errors) > 1:
        detail += f" ({len(errors)} values are wrong in all)"
    return Problem(422, detail, members={"errors": errors[:MAX_LISTED_ERRORS]})


def of_batch(error: InvalidBatch, *above: str | int) -> Problem:
    """422 for a batch that stands below these members of the body."""
    parts = [*above, "offers"] if error.index is None else [*above, "offers", error.index]
    pointer = _pointer([*parts, error.field] if error.field else parts)
    return invalid([{"in": "body", "pointer": pointer, "detail": str(error)}])


def place(source: str, error: Mapping[str, Any]) -> dict[str, str]:
    """One entry of `errors` from an error of pydantic; `source` is body, header or path."""
    path = error["loc"][1:] if source == "body" else error["loc"]
    detail = error["msg"]
    if error["type"] == "missing":
        detail += "" if path else ": send a JSON document"
    else:
        detail += f", not {reprlib.repr(error['input'])}"
    return {"in": source, "pointer": _pointer(path), "detail": detail}


def _pointer(path: Iterable[object]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _of_http_error(error: HttpError) -> Problem:
    # The parser's own words, with line and column, are the cause of the general "cannot parse".
    return Problem(
        error.status_code, f"{error}: {error.__cause__}" if error.__cause__ else str(error)
    )


_PROBLEMS: dict[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda problem: problem,
    AuthenticationError: lambda _: unauthenticated(),
    HttpError: _of_http_error,
    ValidationError: lambda error: invalid(error.errors),
    InvalidBatch: of_batch,
    UnknownTarget: lambda _: no_target(),
    ServiceUnavailable: lambda _: unavailable(),
    OperationalError: lambda _: unavailable(),
    InterfaceError: lambda _: unavailable(),
    RequestDataTooBig: lambda _: too_large(),
    UnreadablePostError: lambda _: Problem(400, "The body broke off: send it again."),
}


def install(api: NinjaAPI) -> None:
    """Let the API answer the exceptions it expects with problem documents."""
    for kind, problem_of in _PROBLEMS.items():
        api.add_exception_handler(kind, partial(_answer, problem_of))


def _answer(
    problem_of: Callable[[Any], Problem], request: HttpRequest, error: Exception
) -> HttpResponse:
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s %s: %s", request.method, request.path, error, exc_info=error)
    return problem.response()
