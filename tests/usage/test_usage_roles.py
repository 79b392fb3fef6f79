"""Web and worker processes count what they decide, and leave nothing behind when they end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection

from shargain.api.models import ScraperToken
from shargain.demo.servers import Valkey
from shargain.offers.models import Offer, ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer
from shargain.offers.services.payload import batch_to_json
from shargain.offers.services.quota import QuotaService
from shargain.offers.tasks import create_batch
from shargain.usage.models import OfferCount, Resolution
from tests.deploy.compose_file import ROOT
from tests.security.server import database_url, request, serve, statuses

PATIENCE = 60.0
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that the account of a server can reach."""
    tmp_path.chmod(0o711)
    return tmp_path


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def counted() -> tuple[int, int]:
    """Created and discarded."""
    rows = OfferCount.objects.filter(resolution=Resolution.DAY)
    return sum(row.created for row in rows), sum(row.discarded for row in rows)


def test_web_has_counted_all_when_it_has_ended(target: ScrapingTarget, home: Path) -> None:
    QuotaService().set_new_quota(target, max_offers_per_period=4, period_start=LONG_AGO)
    token = ScraperToken.issue(target.owner, "test")[1]
    with serve(home, workers=2) as server:
        for number in range(6):
            offer = {"url": f"https://x.test/{number}", "title": "ring"}
            body = json.dumps({"batch_id": str(uuid4()), "offers": [offer]}).encode()
            headers: dict[str, Any] = {
                "Authorization": f"Bearer {token}",
                "Content_Type": "application/json",
                "Content_Length": len(body),
                "Connection": "close",
            }
            path = f"/api/v1/targets/{target.pk}/offers"
            answer = server.send(request("POST", path, body, **headers))
            assert statuses(answer) == [201 if number < 4 else 429], answer
    assert server.process.returncode == 0
    assert counted() == (4, 2)


def test_a_worker_and_its_children_have_counted_all_when_they_have_ended(
    target: ScrapingTarget, home: Path
) -> None:
    log = home / "worker.log"
    with Valkey(home / "broker", persistent=False) as broker, log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app=shargain", "worker", "--concurrency=2",
             "--without-gossip", "--without-mingle"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url(), "CELERY_BROKER_URL": broker.url},
            stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            with Connection(broker.url) as connection:
                for number in range(8):
                    offers = [NewOffer(url=f"https://x.test/{number}", title="ring")]
                    payload = batch_to_json(target.pk, uuid4(), offers)
                    create_batch.apply_async(args=(payload,), connection=connection)
            wait_for(lambda: Offer.objects.count() == 8 or worker.poll() is not None)
            worker.terminate()
            assert worker.wait(PATIENCE) == 0, log.read_text()
        finally:
            worker.kill()
            worker.wait()
    assert counted() == (8, 0), log.read_text()
