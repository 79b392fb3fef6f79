"""Logs for machines: the id of a batch in all that is said about it, and no record that a stranger wrote."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings
from test_worker import WORKER, Role, _until, broker, start  # noqa: F401  fixtures

from shargain.api.models import ScraperToken
from shargain.demo.marketplace import Marketplace
from shargain.demo.servers import Valkey
from shargain.logs import FieldsFilter, fields, formatter
from shargain.offers.models import FailedBatch, ScrapingTarget
from shargain.offers.services.offer_creation import BatchResult
from shargain.offers.services.quota import QuotaService
from shargain.offers.tasks import create_batch
from tests.deploy.compose_file import ROOT
from tests.security.server import database_url, request, serve

FORGED = 'x"}\n{"level": "CRITICAL", "message": "forged"}\r\x1b[2J\u2028\u202e\x00'
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What the handler of the settings would write with LOG_FORMAT=json."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter("json"))
    handler.addFilter(FieldsFilter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_record_is_one_line_whatever_it_says(
    output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("alone")
    [handler] = [h for h in logging.getLogger().handlers if getattr(h, "stream", None) is output]
    # What runs the tests collects records too, and cannot bear half of a surrogate pair.
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [handler])
    worse = FORGED + "\udc9b"
    with fields(batch_id=worse):
        logger.warning("a title: %s", worse, extra={"road": worse, "request": object()})
        logger.error("an error", exc_info=ValueError(worse))
    text = output.getvalue()
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 2
    first, second = records(text)
    assert set(first) == {"timestamp", "level", "logger", "message", "batch_id", "road"}
    assert first["level"] == "WARNING"
    assert first["message"] == f"a title: {worse}"
    assert first["batch_id"] == first["road"] == worse
    assert "ValueError" in second["exc_info"]
    assert datetime.fromisoformat(first["timestamp"]).tzinfo is not None


def test_fields_are_those_of_their_block_and_thread(output: io.StringIO) -> None:
    logger = logging.getLogger("test")
    with fields(batch_id="a", target_id=1):
        with fields(batch_id="b", task_id=None):
            logger.info("inner", extra={"target_id": 2})
            other = threading.Thread(target=logger.info, args=("other",))
            other.start()
            other.join()
        logger.info("outer")
    logger.info("none")
    said = {r["message"]: r for r in records(output.getvalue())}
    assert (said["inner"]["batch_id"], said["inner"]["target_id"]) == ("b", 2)
    assert (said["outer"]["batch_id"], said["outer"]["target_id"]) == ("a", 1)
    assert "task_id" not in said["inner"]
    assert not {"batch_id", "target_id"} & {*said["other"], *said["none"]}


def test_a_created_batch_names_its_quota_and_its_road(
    target: ScrapingTarget, create: Callable[..., BatchResult], output: io.StringIO, settings: Any
) -> None:
    quota = QuotaService().set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)
    reserved = create(1)
    dead = {**settings.CACHES["quotas"], "LOCATION": "redis://127.0.0.1:1/0"}
    with override_settings(CACHES={**settings.CACHES, "quotas": dead}):
        direct = create(2)
    said = {r["batch_id"]: r for r in records(output.getvalue()) if "road" in r}
    for result, road in ((reserved, "reserved"), (direct, "direct: unavailable")):
        record = said[str(result.batch_id)]
        assert (record["road"], record["quota_id"], record["conflicts"]) == (road, quota.id, 0)
        assert (record["target_id"], record["logger"]) == (
            target.pk,
            "shargain.offers.services.offer_creation",
        )
    debug = [r for r in records(output.getvalue()) if "takes the direct road" in r["message"]]
    assert [r["batch_id"] for r in debug] == [str(direct.batch_id)]


def test_a_batch_that_fails_is_named_and_its_names_are_cut(
    target: ScrapingTarget, output: io.StringIO
) -> None:
    payload = {"batch_id": FORGED * 20, "target_id": [1] * 100, "offers": []}
    create_batch.apply(args=[payload]).get()
    assert FailedBatch.objects.exists()
    [record] = [r for r in records(output.getvalue()) if "failed for good" in r["message"]]
    assert record["batch_id"].startswith(FORGED[:20])
    assert max(len(record["batch_id"]), len(record["target_id"])) <= 64
    assert record["task_id"]


def test_one_id_leads_from_the_scraper_to_the_creation(
    target: ScrapingTarget,
    start: Callable[..., Role],  # noqa: F811
    broker: Valkey,  # noqa: F811
) -> None:
    quota = QuotaService().set_new_quota(target, max_offers_per_period=9_999, period_start=LONG_AGO)
    worker = start(*WORKER)
    scraped = _scrape(target, broker)
    queued = [r for r in records(scraped) if "is queued" in r["message"]]
    assert queued
    _until(lambda: len(_decided(worker)) == len(queued), worker)
    decided = _decided(worker)
    for record in queued:
        made = decided[record["batch_id"]]
        assert made["task_id"] == record["task_id"]
        assert made["target_id"] == record["target_id"] == target.pk
        assert (made["road"], made["quota_id"]) == ("reserved", quota.id)


def test_one_id_leads_from_the_request_to_the_creation(
    target: ScrapingTarget, tmp_path: Path
) -> None:
    token = ScraperToken.issue(target.owner, "scraper")[1]
    batch_id = str(uuid4())
    body = json.dumps(
        {"batch_id": batch_id, "offers": [{"url": "https://x.test/1", "title": FORGED[:20]}]}
    )
    with serve(tmp_path, LOG_FORMAT="json") as server:
        server.send(
            request(
                "POST",
                f"/api/v1/targets/{target.pk}/offers",
                body.encode(),
                Authorization=f"Bearer {token}",
                Content_Type="application/json",
                Content_Length=str(len(body)),
                Connection="close",
            )
        )
        server.send(request("GET", "/x%0A{%22level%22:1}", Referer="\x9b31m", Connection="close"))
    text = server.log.read_text()
    [made] = [r for r in records(text) if r.get("batch_id") == batch_id]
    assert (made["target_id"], made["road"]) == (target.pk, "no_quota")
    assert "quota_id" not in made
    access = [r for r in records(text) if r["logger"] == "gunicorn.access"]
    assert any("%0A" in r["message"] for r in access), text
    assert text.replace("\n", "").isprintable()


def _scrape(target: ScrapingTarget, queue: Valkey) -> str:
    with Marketplace(new_per_minute=0) as market:
        threading.Thread(target=market.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{market.server_address[1]}"
        command = [
            sys.executable, "manage.py", "scrape", str(target.pk), f"http://{host}/sellers/1/",
            "--allow-host", host, "--batch", "10",
        ]  # fmt: skip
        own = {"DATABASE_URL": database_url(), "CELERY_BROKER_URL": queue.url, "LOG_FORMAT": "json"}
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **own}, capture_output=True, text=True, timeout=60
        )
        market.shutdown()
    assert done.returncode == 0, done.stderr
    return done.stderr


def _decided(worker: Role) -> dict[str, dict[str, Any]]:
    return {r["batch_id"]: r for r in records(worker.log.read_text()) if "road" in r}
