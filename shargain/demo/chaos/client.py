"""A client of a run: posts batches by one road, and keeps a journal of every answer.

    python -m shargain.demo.chaos.client PLAN NUMBER

It works in a child process, which faults may kill as often as they like: a new one follows at once.
"""

import json
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest.mock import patch
from uuid import UUID

import django
import httpx

if TYPE_CHECKING:
    import psycopg

    from shargain.demo.chaos.journal import Journal
    from shargain.offers.services.offer_creation import NewOffer
    from shargain.offers.services.quota import Permit

ROADS = ("direct", "direct", "stepped", "http", "http", "queue")
WINDOW = 40
"""How many of the newest listings of a target are posted again and again."""
NEW_PER_SECOND = 2.0
"""New listings of a target of weight 1."""
MOST_OFFERS = 16
PAUSE_SECONDS = 0.02
ATTEMPTS = 3
REPEATED = 0.05
REMEMBERED = 30
HTTP_SECONDS = 8.0
MOST_QUEUED = 100
STOPPED = 0.01


@dataclass(frozen=True, slots=True)
class Plan:
    """What clients post to: ids of targets and how often each is chosen. `began` in seconds since 1970."""

    targets: list[tuple[int, float]]
    began: float
    seed: int
    web: str
    token: str
    journals: str


@dataclass(frozen=True, slots=True)
class Posting:
    """A batch to be posted."""

    target_id: int
    batch_id: UUID
    offers: "list[NewOffer]"


Post: TypeAlias = Callable[[Posting], bool]
"""Posts once; whether somebody decided."""


def main(plan: Plan, number: int) -> None:
    """Run one worker after another, until we are stopped."""
    django.setup()
    # What a child needs is loaded once, here, so that its death costs little.
    from shargain.demo.listings import listings
    from shargain.offers import tasks  # noqa: F401

    listings(0, 1)
    for incarnation in range(sys.maxsize):
        child = os.fork()
        if child == 0:
            _work(plan, number, incarnation)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status >= 0:
            sys.exit(f"The child of client {number} ended by itself, with status {status}.")


def _work(plan: Plan, number: int, incarnation: int) -> None:
    try:
        from shargain.demo.chaos.journal import Journal

        road = ROADS[number % len(ROADS)]
        drawn = random.Random(f"{plan.seed}-{number}-{incarnation}")  # noqa: S311
        journal = Journal(Path(plan.journals), f"client-{number}-{road}")
        post = _ROADS[road](plan, journal, drawn)
        for posting in _postings(plan, drawn):
            _insist(post, posting)
            time.sleep(drawn.expovariate(1 / PAUSE_SECONDS))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stderr.flush()
        os._exit(1)


def _insist(post: Post, posting: Posting) -> None:
    """Post until somebody decides, a few times; what is left undecided is decided at the end of the run."""
    for attempt in range(ATTEMPTS):
        if post(posting):
            return
        time.sleep(0.1 * 2**attempt)


def _postings(plan: Plan, drawn: random.Random) -> Iterator[Posting]:
    """Batches of listings that all clients know of at about the same time, and now and then one again."""
    targets, weights = zip(*plan.targets, strict=True)
    earlier: deque[Posting] = deque(maxlen=REMEMBERED)
    while True:
        if earlier and drawn.random() < REPEATED:
            yield drawn.choice(earlier)
            continue
        index = drawn.choices(range(len(targets)), weights)[0]
        batch_id = UUID(int=drawn.getrandbits(128), version=4)
        offers = _offers(time.time() - plan.began, weights[index], drawn)
        earlier.append(Posting(targets[index], batch_id, offers))
        yield earlier[-1]


def _offers(elapsed: float, weight: float, drawn: random.Random) -> "list[NewOffer]":
    from shargain.demo.listings import listings

    newest = int(elapsed * NEW_PER_SECOND * weight)
    chosen = drawn.sample(range(newest, newest + WINDOW), drawn.randint(1, MOST_OFFERS))
    offers = [listings(number, 1)[0] for number in chosen]
    return offers + offers[:1] if drawn.random() < REPEATED else offers


def _direct(_plan: Plan, journal: "Journal", _drawn: random.Random) -> Post:
    from django.db import close_old_connections

    from shargain.offers.services.offer_creation import create_offers

    create = journal.posted("direct", create_offers)

    def post(posting: Posting) -> bool:
        # As Django does before each request, and Celery before each task.
        close_old_connections()
        with suppress(Exception):
            create(posting.target_id, posting.offers, batch_id=posting.batch_id)
            return True
        return False

    return post


def _stepped(plan: Plan, journal: "Journal", drawn: random.Random) -> Post:
    """As `direct`, and now and then stops for good or for longer than its lease, at any step."""
    from shargain.demo.chaos.settings import LEASE_SECONDS
    from shargain.offers.services import offer_creation, quota

    def step(name: str) -> None:
        if drawn.random() < STOPPED:
            journal.stopped(f"killed {name}")
            os.kill(os.getpid(), signal.SIGKILL)
        if drawn.random() < STOPPED:
            journal.stopped(f"paused {name}")
            time.sleep(LEASE_SECONDS * drawn.uniform(0.5, 2))

    class Stepped:
        """A batch on its way, with a stop before and after each of its statements."""

        def __init__(self, batch: quota.Batch) -> None:
            self._batch = batch

        @property
        def left(self) -> int:
            return self._batch.left

        def insert(self, connection: "psycopg.Connection[Any]", permit: "Permit") -> int | None:
            step(f"before the insert, road {permit.road}")
            used = self._batch.insert(connection, permit)
            step(f"after the insert, road {permit.road}")
            return used

        def read_known(self, connection: "psycopg.Connection[Any]") -> int:
            step("before the look at known offers")
            return self._batch.read_known(connection)

    class SteppedQuotas(quota.QuotaService):
        def spend(self, target_id: int, batch: quota.Batch) -> quota.Spent:
            return super().spend(target_id, Stepped(batch))

    patch.object(offer_creation, "QuotaService", SteppedQuotas).start()
    return _direct(plan, journal, drawn)


def _queue(_plan: Plan, journal: "Journal", _drawn: random.Random) -> Post:
    from shargain.demo.broker import queued
    from shargain.offers.services.payload import batch_to_json
    from shargain.offers.tasks import create_batch

    def post(posting: Posting) -> bool:
        # More would only wait, and be decided long after what is going on now.
        while (queued() or 0) >= MOST_QUEUED:
            time.sleep(PAUSE_SECONDS)
        _ask(journal, "queue", posting)
        payload = batch_to_json(posting.target_id, posting.batch_id, posting.offers)
        try:
            create_batch.delay(payload)
        except Exception as error:  # noqa: BLE001  the judge decides which ones may be
            journal.error(type(error).__name__, error)
            return False
        journal.queued()
        return True

    return post


def _http(plan: Plan, journal: "Journal", _drawn: random.Random) -> Post:
    from shargain.offers.services.payload import offer_to_json

    web = httpx.Client(
        base_url=plan.web,
        timeout=HTTP_SECONDS,
        headers={"Authorization": f"Bearer {plan.token}"},
        trust_env=False,
    )

    def post(posting: Posting) -> bool:
        _ask(journal, "http", posting)
        body = {
            "batch_id": str(posting.batch_id),
            "offers": [offer_to_json(offer) for offer in posting.offers],
        }
        try:
            response = web.post(f"/api/v1/targets/{posting.target_id}/offers", json=body)
        except httpx.HTTPError as error:
            journal.error(type(error).__name__, error)
            return False
        if response.status_code in (200, 201, 429):
            journal.answer(response.json()["outcomes"])
            return True
        journal.error(str(response.status_code), response.text)
        return False

    return post


def _ask(journal: "Journal", road: str, posting: Posting) -> None:
    urls = [offer.url for offer in posting.offers]
    journal.ask(road, posting.target_id, str(posting.batch_id), urls)


_ROADS: dict[str, Callable[[Plan, "Journal", random.Random], Post]] = {
    "direct": _direct,
    "stepped": _stepped,
    "queue": _queue,
    "http": _http,
}


if __name__ == "__main__":
    main(Plan(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), int(sys.argv[2]))
