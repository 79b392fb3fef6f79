"""The text that Prometheus reads."""

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from shargain.monitoring.processes import alone, directory, fold_dead

CONTENT_TYPE = CONTENT_TYPE_LATEST


def counts() -> bytes:
    """What all processes of this role have counted, those that are gone included."""
    folder = directory()
    if folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    with alone(folder):
        fold_dead(folder)
        return generate_latest(registry)
