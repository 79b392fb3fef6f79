"""Alert rules, dashboard and scrape configuration in `monitoring/`, against the metrics that there are."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import quota_redis.metrics
import shargain.monitoring.metrics
from shargain.monitoring.servers import ServerCollector
from tests.deploy.compose_file import ROOT, compose

FOLDER = ROOT / "monitoring"
OF_PROMETHEUS = {"job", "instance"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
ANCHORS = {
    "redis-down", "direct-road", "sync-stale", "audit-stale", "drift", "schema-problem", "failed-batches",
    "queue-growing", "postgresql-down", "slow-batches",
}  # fmt: skip
# What an operator has to hear of, whatever the rules are called.
WATCHED = {
    "quota_redis_breaker_open", "quota_redis_direct_road_total", "quota_redis_drift_quotas",
    "quota_redis_sync_last_success_timestamp_seconds", "quota_redis_schema_problems",
    "quota_redis_audit_last_success_timestamp_seconds", "shargain_failed_batches", "shargain_queue_length",
    "shargain_batches_total", "shargain_batch_seconds_bucket", "shargain_server_up", "up",
}  # fmt: skip
PARTS = ("lhs", "rhs", "expr", "param", "vector_selector")


@dataclass(frozen=True, slots=True)
class Known:
    """A metric that can be asked for: its labels, and the values of those whose values are all known."""

    labels: frozenset[str]
    values: dict[str, set[str]]


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    document = json.loads((FOLDER / "dashboard.json").read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Every expression of both files, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "5m")
            found[f"{panel['title']} {target['refId']}"] = expr
    return found


def parts(node: Any) -> Iterator[Any]:
    """A parsed expression and all that is in it."""
    yield node
    below = [getattr(node, name, None) for name in PARTS] + list(getattr(node, "args", []))
    for child in below:
        if child is not None and not isinstance(child, str):
            yield from parts(child)


def selectors(node: Any) -> list[Any]:
    return [part for part in parts(node) if isinstance(part, promql.VectorSelector)]


@pytest.fixture
def known(quota_db: None) -> dict[str, Known]:
    """Every sample name that a scrape of some role can have."""
    names = {"up": Known(frozenset(), {})}
    for module in (quota_redis.metrics, shargain.monitoring.metrics):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase) and not metric._labelvalues:
                for suffix in SUFFIXES[metric._type]:
                    labels = {*metric._labelnames, *(["le"] if suffix == "_bucket" else [])}
                    names[metric._name + suffix] = Known(frozenset(labels), _values(metric))
    for family in ServerCollector().collect():
        values: dict[str, set[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
        names[family.name] = Known(frozenset(values), values)
    return names


def _values(metric: MetricWrapperBase) -> dict[str, set[str]]:
    """Of a label whose values the code makes at once."""
    if metric._labelnames not in (("outcome",), ("reason",), ("by",)):
        return {}
    return {metric._labelnames[0]: {values[0] for values in metric._metrics}}


def test_every_expression_asks_for_metrics_and_labels_that_there_are(
    known: dict[str, Known],
) -> None:
    assert len(expressions()) > 40
    for place, expression in expressions().items():
        for selector in selectors(promql.parse(expression)):
            assert selector.name in known, (place, selector.name)
            metric = known[selector.name]
            for matcher in selector.matchers.matchers:
                assert matcher.name in metric.labels | OF_PROMETHEUS, (place, matcher.name)
                if matcher.op == promql.MatchOp.Equal and matcher.name in metric.values:
                    assert matcher.value in metric.values[matcher.name], (place, matcher.value)


def test_what_is_grouped_by_is_a_label_of_what_is_grouped(known: dict[str, Known]) -> None:
    for place, expression in expressions().items():
        for part in parts(promql.parse(expression)):
            if not isinstance(part, promql.AggregateExpr) or part.modifier is None:
                continue
            # A comparison keeps the labels of its left side.
            labels = known[selectors(part.expr)[0].name].labels | OF_PROMETHEUS
            assert set(part.modifier.labels) <= labels, (place, part.modifier.labels)


def test_what_is_shown_of_a_label_has_that_label(known: dict[str, Known]) -> None:
    """A name in braces that is no label would stay empty on the screen and in the message."""
    for rule in rules():
        wanted = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert wanted <= _kept(promql.parse(rule["expr"]), known), rule["alert"]
    for panel in panels():
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            expr = promql.parse(target["expr"].replace("$__rate_interval", "5m"))
            assert wanted <= _kept(expr, known), panel["title"]


def _kept(node: Any, known: dict[str, Known]) -> set[str]:
    """The labels that a result has, as far as these files need it: of the leftmost part."""
    if isinstance(node, promql.AggregateExpr):
        return set(node.modifier.labels) if node.modifier else set()
    if isinstance(node, promql.Call) and str(node.func.name) == "histogram_quantile":
        return _kept(node.args[1], known) - {"le"}
    if isinstance(node, promql.VectorSelector):
        return set(known[node.name].labels | OF_PROMETHEUS)
    for name in PARTS:
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, promql.NumberLiteral | promql.Call):
            return _kept(child, known)
    return set()


def test_every_metric_is_shown_or_watched(known: dict[str, Known]) -> None:
    asked = {s.name for e in expressions().values() for s in selectors(promql.parse(e))}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    wanted = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known}
    assert wanted == families


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 10
    anchors = set()
    for rule in rules():
        notes = rule["annotations"]
        assert len(notes["summary"]) > 20, rule["alert"]
        file, _, anchor = notes["runbook"].partition("#")
        assert file == "docs/operations.md"
        assert anchor in ANCHORS, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        anchors.add(anchor)
    assert anchors == ANCHORS


def test_what_has_to_be_watched_is() -> None:
    asked = {s.name for rule in rules() for s in selectors(promql.parse(rule["expr"]))}
    assert asked >= WATCHED
    [schema] = [rule for rule in rules() if rule["alert"] == "QuotaSchemaProblem"]
    assert schema["labels"]["severity"] == "critical"


def test_the_dashboard_can_be_imported() -> None:
    document = json.loads((FOLDER / "dashboard.json").read_text())
    idents = [panel["id"] for panel in document["panels"]]
    assert len(idents) == len(set(idents))
    places = [panel["gridPos"] for panel in document["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}


def test_prometheus_scrapes_every_role_where_compose_serves_it() -> None:
    document = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert document["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"]: job for job in document["scrape_configs"]}
    assert set(jobs) == {"shargain-web", "shargain-worker", "shargain-beat"}
    for name, job in jobs.items():
        assert job["authorization"]["type"] == "Bearer"
        assert "credentials" not in job["authorization"]
        [target] = job["static_configs"][0]["targets"]
        service, _, port = target.partition(":")
        assert name == f"shargain-{service}"
        role = compose()["services"][service]
        assert port == ("8000" if service == "web" else role["environment"]["METRICS_PORT"])
        if service == "web":
            assert "web" in role["environment"]["DJANGO_ALLOWED_HOSTS"].split(",")
