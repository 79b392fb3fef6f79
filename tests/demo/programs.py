"""The smallest web application and the smallest Celery application."""

from collections.abc import Callable, Iterable

from celery import Celery

tasks = Celery("programs", broker="memory://", set_as_current=False)


def web(_environ: object, start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"here"]
