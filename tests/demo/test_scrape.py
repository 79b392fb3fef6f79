"""The scraper worker, as a process: from the marketplace's pages to the broker's queue."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import pytest
import redis
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection

from shargain.demo.marketplace import Marketplace
from shargain.demo.servers import Valkey
from shargain.offers.management.commands.scrape import new_offers
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.offer_creation import MAX_TITLE
from shargain.offers.services.payload import batch_from_json
from shargain.scraping import ScrapedOffer
from tests.demo.test_run import ROOT

SECONDS = 60.0

pytestmark = pytest.mark.usefixtures("quota_db")

Scrape: TypeAlias = "Callable[..., subprocess.Popen[str]]"


@pytest.fixture
def target() -> ScrapingTarget:
    owner = get_user_model().objects.create(username="owner")
    return ScrapingTarget.objects.create(owner=owner, name="Rings")


@pytest.fixture
def marketplace() -> Iterator[Marketplace]:
    with Marketplace(new_per_minute=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def broker(home: Path) -> Iterator[Valkey]:
    with Valkey(home / "broker", persistent=True) as server:
        yield server


@pytest.fixture
def scrape(
    target: ScrapingTarget, marketplace: Marketplace, broker: Valkey, home: Path
) -> Iterator[Scrape]:
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, page: int = 14) -> "subprocess.Popen[str]":
        url = f"{marketplace.url}/sellers/1/?page={page}"
        host = marketplace.url.removeprefix("http://")
        command = ["manage.py", "scrape", str(target.pk), url, "--allow-host", host, *arguments]
        env = {**os.environ, "DATABASE_URL": database(), "CELERY_BROKER_URL": broker.url}
        with (home / "scrape.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=env, stdout=log, stderr=log, text=True
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def database() -> str:
    """Where the tests' own database is, for another process."""
    its = connection.settings_dict
    secret = f"{quote(its['USER'])}:{quote(its['PASSWORD'])}"
    return f"postgresql://{secret}@{its['HOST']}:{its['PORT']}/{quote(its['NAME'])}"


def queued(broker: Valkey) -> list[dict[str, Any]]:
    """The payloads in the queue, in the order in which they were queued."""
    with redis.Redis.from_url(broker.url) as client:
        messages = client.lrange("celery", 0, -1)
    bodies = (json.loads(message)["body"] for message in reversed(messages))
    return [json.loads(base64.b64decode(body))[0][0] for body in bodies]


def wait_for(home: Path, text: str) -> None:
    deadline = time.monotonic() + SECONDS
    while text not in (log := (home / "scrape.log").read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.05)


def test_a_listing_reaches_the_queue_in_batches(
    scrape: Scrape, broker: Valkey, target: ScrapingTarget
) -> None:
    assert scrape("--batch", "15").wait(SECONDS) == 0
    batches = [batch_from_json(payload) for payload in queued(broker)]
    assert [len(offers) for _, _, offers in batches] == [15, 5, 15, 5]
    assert {target_id for target_id, _, _ in batches} == {target.pk}
    assert len({batch_id for _, batch_id, _ in batches}) == 4
    assert len({offer.url for _, _, offers in batches for offer in offers}) == 40


def test_a_broker_that_is_down_is_waited_for(scrape: Scrape, broker: Valkey, home: Path) -> None:
    broker.stop()
    process = scrape()
    wait_for(home, "the broker cannot be reached, the batch is kept")
    broker.start()
    assert process.wait(SECONDS) == 0
    assert [len(payload["offers"]) for payload in queued(broker)] == [20, 20]


def test_a_worker_that_is_asked_to_end_finishes_its_batch(
    scrape: Scrape, broker: Valkey, home: Path
) -> None:
    process = scrape("--repeat-every", "3600", page=15)
    wait_for(home, "20 offers")
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0
    assert len(queued(broker)) == 1
    wait_for(home, "asked to end, after 1 batches")


def test_a_batch_that_cannot_be_queued_before_the_end_is_named(
    scrape: Scrape, broker: Valkey, home: Path
) -> None:
    broker.stop()
    process = scrape()
    wait_for(home, "the batch is kept")
    process.send_signal(signal.SIGTERM)
    process.wait(SECONDS)
    wait_for(home, "20 offers was never queued")


def test_a_target_that_is_not_active_is_not_scraped(
    scrape: Scrape, broker: Valkey, target: ScrapingTarget, home: Path
) -> None:
    ScrapingTarget.objects.update(is_active=False)
    assert scrape().wait(SECONDS) == 1
    wait_for(home, "there is no such active target")
    assert queued(broker) == []


@pytest.mark.parametrize(
    ("url", "options", "sentence"),
    [
        ("http://127.0.0.1/", {"batch": 0}, "--batch is 0: give 1 to 1000"),
        ("http://127.0.0.1/", {"batch": 1001}, "--batch is 1001"),
        ("http://127.0.0.1/", {"repeat_every": float("nan")}, "--repeat-every is nan"),
        ("http://127.0.0.1/", {"repeat_every": 0.5}, "--repeat-every is 0.5: give 1 to"),
        ("http://127.0.0.1/", {"allow_host": ["localhost"]}, "--allow-host is 'localhost'"),
        ("http://127.0.0.1/", {"allow_host": ["localhost:99999"]}, "give HOST:PORT"),
        ("ftp://example.org/", {}, "is not an http"),
    ],
)
def test_what_cannot_be_scraped_is_named(url: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        call_command("scrape", 1, url, **options)


def test_an_offer_that_cannot_be_stored_spoils_no_batch() -> None:
    good = ScrapedOffer(url="https://a.example/", title="ä" * (MAX_TITLE + 1), list_url="")
    bad = ScrapedOffer(url="https://b.example/\0", title="b", list_url="")
    (kept,) = new_offers([bad, good])
    assert kept.url == good.url
    assert good.title.startswith(kept.title)
    assert kept.title == "ä" * MAX_TITLE
