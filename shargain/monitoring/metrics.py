"""shargain's own metrics, and the receivers that count. Labels are names of the code: routes, tasks, outcomes."""

import time
from typing import Any

from celery.signals import after_task_publish, task_postrun, task_prerun
from django.http import HttpRequest, HttpResponse
from prometheus_client import Counter, Histogram

import quota_redis.metrics
from shargain.offers.services.offer_creation import BatchResult, Outcome, batch_decided

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BATCH_OUTCOMES = ("created", "partly", "refused", "duplicates")
OTHER = "other"
"""The route of a request that met none, and the method of one that has none of ours."""

BATCHES = Counter(
    "shargain_batches_total",
    "Batches that were decided: all new offers created, some of them, none for want of quota, or none new.",
    ["outcome"],
)
OFFERS = Counter(
    "shargain_offers_total", "Offers of decided batches, by what became of them.", ["outcome"]
)
BATCH_SECONDS = Histogram(
    "shargain_batch_seconds", "Time that creating a batch took.", buckets=_BUCKETS
)
TASKS = Counter("shargain_tasks_total", "Celery tasks that ended, by how.", ["task", "state"])
TASK_SECONDS = Histogram(
    "shargain_task_seconds", "Duration of Celery tasks.", ["task"], buckets=_BUCKETS
)
BEAT_TASKS = Counter("shargain_beat_tasks_total", "Tasks that beat has sent.", ["task"])
REQUESTS = Counter(
    "shargain_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram(
    "shargain_http_request_seconds",
    "Time from a request to its answer.",
    ["route"],
    buckets=_BUCKETS,
)

_BATCHES = {outcome: BATCHES.labels(outcome) for outcome in _BATCH_OUTCOMES}
_OFFERS = {outcome: OFFERS.labels(outcome.value) for outcome in Outcome}
_began: dict[str, float] = {}


def connect() -> None:
    """Count in this process and in those it forks."""
    quota_redis.metrics.connect()
    batch_decided.connect(_on_batch, dispatch_uid="shargain.monitoring")
    task_prerun.connect(_on_task_begin, dispatch_uid="shargain.monitoring")
    task_postrun.connect(_on_task_end, dispatch_uid="shargain.monitoring")


def do_quotas_answer() -> bool:
    """Whether the quota Redis answers; brings the gauge of its breaker up to date."""
    return quota_redis.metrics.probe()


def connect_beat() -> None:
    """Count what beat sends."""
    after_task_publish.connect(_on_sent, dispatch_uid="shargain.monitoring")


def observe_request(request: HttpRequest, response: HttpResponse, seconds: float) -> None:
    """Count a request under its route's pattern, so that no client can add a label."""
    match = request.resolver_match
    route = match.route if match and match.route else OTHER
    method = request.method if request.method in _METHODS else OTHER
    REQUESTS.labels(method, route, str(response.status_code)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)


def _on_batch(result: BatchResult, seconds: float, **_: Any) -> None:
    _BATCHES[_batch_outcome(result)].inc()
    BATCH_SECONDS.observe(seconds)
    for outcome in result.outcomes:
        _OFFERS[outcome].inc()


def _batch_outcome(result: BatchResult) -> str:
    if result.created:
        return "partly" if result.discarded else "created"
    return "refused" if result.discarded else "duplicates"


def _on_task_begin(task_id: str, **_: Any) -> None:
    _began[task_id] = time.perf_counter()


def _on_task_end(task_id: str, task: Any, state: str | None = None, **_: Any) -> None:
    began = _began.pop(task_id, None)
    TASKS.labels(task.name, (state or "unknown").lower()).inc()
    if began is not None:
        TASK_SECONDS.labels(task.name).observe(time.perf_counter() - began)


def _on_sent(sender: str, **_: Any) -> None:
    BEAT_TASKS.labels(sender).inc()
