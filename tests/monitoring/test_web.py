"""`/metrics` of the web process as it is shipped, with two workers."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from scraping import HOST, TOKEN, scrape

from shargain.api.models import ScraperToken
from shargain.offers.models import FailedBatch, ScrapingTarget
from shargain.offers.services.quota import QuotaService
from tests.security.server import Server, request, serve, statuses

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def web(target: ScrapingTarget, tmp_path: Path) -> Iterator[Server]:
    with serve(tmp_path, workers=2, METRICS_TOKEN=TOKEN, DJANGO_HTTPS="true") as server:
        yield server


def get(server: Server, path: str, method: str = "GET", **headers: str) -> int:
    extra = {"X_Forwarded_Proto": "https", "Connection": "close", **headers}
    return statuses(server.send(request(method, path, **extra)))[0]


def post(server: Server, token: str, target_id: int, number: int) -> int:
    body = {"batch_id": str(uuid4()), "offers": [{"url": f"https://x.test/{number}", "title": "a"}]}
    asked = Request(
        f"http://127.0.0.1:{server.port}/api/v1/targets/{target_id}/offers",
        data=json.dumps(body).encode(),
        headers={
            "Host": HOST,
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "X-Forwarded-Proto": "https",
        },
    )
    try:
        with urlopen(asked, timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_n_batches_are_n_over_all_processes_and_stay_n_when_one_is_killed(
    web: Server, target: ScrapingTarget
) -> None:
    QuotaService().set_new_quota(target, max_offers_per_period=30, period_start=LONG_AGO)
    token = ScraperToken.issue(target.owner, "scraper")[1]
    answers = [post(web, token, target.pk, number) for number in range(40)]
    assert (answers.count(201), answers.count(429)) == (30, 10)
    before = scrape(web.port)
    assert before.sum("shargain_batches_total", outcome="created") == 30
    assert before.sum("shargain_batches_total", outcome="refused") == 10
    assert before["quota_redis_spends_total"] == before["shargain_batch_seconds_count"] == 40
    route = "api/v1/targets/<int:target_id>/offers"
    assert before.sum("shargain_http_requests_total", route=route, status="429") == 10

    processes = children(web.process.pid)
    assert len(processes) == 2
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
        wait_for_other(web, {pid})
    after = scrape(web.port)
    for name in ("shargain_batches_total", "quota_redis_spends_total", "shargain_offers_total"):
        assert after[name] == before[name], name
    post(web, token, target.pk, 99)
    assert scrape(web.port)["shargain_batches_total"] == 41


def test_what_dead_processes_leave_is_folded_and_goes_with_the_server(
    target: ScrapingTarget, tmp_path: Path
) -> None:
    with serve(tmp_path, workers=2, METRICS_TOKEN=TOKEN, TMPDIR=str(tmp_path)) as server:
        scrape(server.port)
        [folder] = tmp_path.glob("shargain-metrics-*")
        for _ in range(3):
            pid = min(children(server.process.pid))
            os.kill(pid, signal.SIGKILL)
            wait_for_other(server, {pid})
        for _ in range(5):
            scrape(server.port)
        alive = {str(pid) for pid in children(server.process.pid)} | {"0"}
        owners = {file.stem.rpartition("_")[2] for file in folder.glob("*.db")}
        assert owners <= alive
    assert not folder.exists()


def test_the_token_opens_and_nothing_else_does(web: Server) -> None:
    assert get(web, "/metrics", Authorization=f"Bearer {TOKEN}") == 200
    assert get(web, "/metrics", Authorization=f"bearer {TOKEN}") == 200
    for wrong in (
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer",
        "Bearer \xff",
        f"Bearer {TOKEN}x",
    ):
        assert get(web, "/metrics", Authorization=wrong) == 401, wrong
    assert get(web, "/metrics") == 401
    assert get(web, "/metrics", method="POST", Authorization=f"Bearer {TOKEN}") == 403


def test_prometheus_asks_without_https(web: Server) -> None:
    assert scrape(web.port)["shargain_server_up"] == 3
    assert statuses(web.send(request("GET", "/livez", Connection="close"))) == [301]


def test_without_a_token_there_is_no_such_page(target: ScrapingTarget, tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}):
            assert get(server, "/metrics", **headers) == 404


def test_no_client_can_add_a_label(web: Server) -> None:
    before = len(scrape(web.port).text.splitlines())
    for number in range(30):
        get(web, f"/nothing/{number}")
        get(web, f"/admin/nothing/{number}")
        get(web, f"/api/v1/targets/{number}/quota")
        get(web, "/livez", method=f"METHOD{number}")
    scraped = scrape(web.port)
    name = "shargain_http_requests_total"
    assert scraped.values(name, "method") == {"GET", "other"}
    assert scraped.sum(name, route="other") >= 30
    assert scraped.sum(name, route="api/v1/targets/<int:target_id>/quota") == 30
    assert scraped.values(name, "route") <= {
        "other",
        "livez",
        "metrics",
        "admin/(?P<url>.*)$",
        "api/v1/targets/<int:target_id>/quota",
    }
    assert len(scraped.text.splitlines()) < before + 120


def test_the_servers_are_asked_when_prometheus_asks(web: Server, target: ScrapingTarget) -> None:
    FailedBatch.objects.create(batch_id=uuid4(), target_id=1, payload={}, error="x", attempts=1)
    scraped = scrape(web.port)
    assert scraped["shargain_failed_batches"] == 1
    assert scraped.values("shargain_queue_length", "queue") == {"celery", "quotas"}
    assert scraped["quota_redis_breaker_open"] == 0


def test_servers_that_are_down_are_told_and_hold_nothing_up(
    target: ScrapingTarget, tmp_path: Path
) -> None:
    dead, gone = "redis://127.0.0.1:1/0", "redis://127.0.0.1:2/0"
    with serve(
        tmp_path, workers=2, METRICS_TOKEN=TOKEN, REDIS_URL=dead, CELERY_BROKER_URL=gone
    ) as server:
        QuotaService().set_new_quota(target, max_offers_per_period=9, period_start=LONG_AGO)
        token = ScraperToken.issue(target.owner, "scraper")[1]
        assert [post(server, token, target.pk, n) for n in range(4)] == [201] * 4
        for _ in range(8):
            scraped = scrape(server.port)
        assert scraped.sum("shargain_server_up", server="quotas") == 0
        assert scraped.sum("shargain_server_up", server="broker") == 0
        assert scraped.sum("shargain_server_up", server="postgresql") == 1
        assert not scraped.has("shargain_queue_length")
        assert scraped.sum("quota_redis_direct_road_total", reason="unavailable") == 4
        assert scraped["quota_redis_breaker_open"] == 1


def wait_for_other(server: Server, gone: set[int]) -> None:
    """Until gunicorn has put another process in the place of those."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = children(server.process.pid)
        if len(now) == 2 and not now & gone:
            return
        time.sleep(0.05)
    raise AssertionError(server.log.read_text())
