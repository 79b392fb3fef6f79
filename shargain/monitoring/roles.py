"""Starts the metrics of each role where it begins."""

from celery.signals import beat_init, worker_init, worker_ready

from shargain.monitoring import exporter
from shargain.monitoring.processes import open_directory


def start_web() -> None:
    """In each web process. Several of them need `web_server` to give them a directory, or each shows its own."""
    from shargain.monitoring import metrics

    metrics.connect()


def connect() -> None:
    """Have workers and beat start theirs."""
    worker_init.connect(_start_worker, dispatch_uid="shargain.monitoring")
    worker_ready.connect(_serve, dispatch_uid="shargain.monitoring")
    beat_init.connect(_start_beat, dispatch_uid="shargain.monitoring")


def _start_worker(**_: object) -> None:
    """Before its children are forked, which do the work."""
    open_directory()
    from shargain.monitoring import metrics

    metrics.connect()


def _start_beat(**_: object) -> None:
    from shargain.monitoring import metrics

    metrics.connect_beat()
    exporter.serve()


def _serve(**_: object) -> None:
    exporter.serve()
