import logging
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid4

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from kombu.exceptions import OperationalError

from shargain.logs import fields
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.errors import InvalidBatch
from shargain.offers.services.offer_creation import (
    MAX_BATCH,
    MAX_TITLE,
    NewOffer,
    validate_offer,
)
from shargain.offers.services.payload import batch_to_json
from shargain.offers.tasks import create_batch
from shargain.scraping import AddressPolicy, Fetcher, ScrapedOffer, ScrapeError, crawl
from shargain.scraping.addresses import parse_url
from shargain.stopping import StopRequest

logger = logging.getLogger(__name__)

MAX_PAUSE = 30.0
MAX_REPEAT = 7 * 24 * 3600


class Stopped(Exception):  # noqa: N818
    """The worker was asked to end."""


class Command(BaseCommand):
    help = "Scrape a listing and hand what it finds to the workers, in batches."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("target_id", type=int, metavar="TARGET_ID")
        parser.add_argument("url", metavar="URL", help="the first page of the listing")
        parser.add_argument(
            "--repeat-every", type=float, metavar="SECONDS", help="without it: once"
        )
        parser.add_argument("--batch", type=int, default=20, help="offers per batch, 20 by default")
        parser.add_argument(
            "--allow-host",
            action="append",
            default=[],
            metavar="HOST:PORT",
            help="fetch from here even where it is no public address; may be repeated",
        )

    def handle(self, *, target_id: int, url: str, **options: Any) -> None:
        repeat_every: float | None = options["repeat_every"]
        _check("--batch", options["batch"], 1, MAX_BATCH)
        if repeat_every is not None:
            _check("--repeat-every", repeat_every, 1, MAX_REPEAT)
        policy = AddressPolicy(allowed_hosts=frozenset(map(_host_and_port, options["allow_host"])))
        stop = StopRequest()
        stop.listen()
        with Fetcher(policy=policy, sleep=lambda seconds: _pause(stop, seconds)) as fetcher:
            visits = _Visits(fetcher, target_id, _address(url), options["batch"], stop)
            try:
                while True:
                    visits.visit(is_only=repeat_every is None)
                    if repeat_every is None:
                        return
                    _pause(stop, repeat_every)
            except Stopped:
                logger.info("asked to end, after %d batches", visits.batches)


class _Visits:
    """Goes through one listing, again and again."""

    def __init__(
        self, fetcher: Fetcher, target_id: int, url: str, size: int, stop: StopRequest
    ) -> None:
        self.batches = 0
        self._fetcher = fetcher
        self._target_id = target_id
        self._url = url
        self._size = size
        self._stop = stop

    def visit(self, *, is_only: bool) -> None:
        """Hand over all of the listing. What goes wrong ends the command if this visit is the only one."""
        try:
            self._check_target()
            offers = self._scrape()
        except (ScrapeError, DatabaseError, ScrapingTarget.DoesNotExist) as error:
            sentence = f"{self._url} for target {self._target_id}: {error}".strip()
            if is_only:
                raise CommandError(sentence) from error
            logger.warning("%s; the next visit comes in its turn", sentence)
        else:
            logger.info("%s: %d offers", self._url, offers)

    def _check_target(self) -> None:
        """Visits may be far apart, so no connection is kept open between them."""
        try:
            if not ScrapingTarget.objects.filter(pk=self._target_id, is_active=True).exists():
                raise ScrapingTarget.DoesNotExist("there is no such active target")
        finally:
            connection.close()

    def _scrape(self) -> int:
        offers = 0
        for page in crawl(self._url, fetcher=self._fetcher):
            if page.skipped:
                logger.warning("%s: left out %s", page.url, dict(page.skipped))
            for batch in page.batches(self._size):
                new = list(new_offers(batch))
                if new:
                    hand_over(self._target_id, new, self._stop)
                    self.batches += 1
                    offers += len(new)
            if self._stop.is_set:
                raise Stopped
        return offers


def hand_over(target_id: int, offers: list[NewOffer], stop: StopRequest) -> None:
    """Queue a batch; while the broker is out of reach it is kept and tried again.

    Queued twice, it counts once, for it keeps its id. Raises Stopped where the broker does not come back
    before the end; the loss is logged, and the next visit finds the same offers.
    """
    payload = batch_to_json(target_id, uuid4(), offers)
    with fields(batch_id=payload["batch_id"], target_id=target_id):
        _queue(payload, stop)


def _queue(payload: dict[str, Any], stop: StopRequest) -> None:
    count, pause = len(payload["offers"]), 1.0
    while True:
        try:
            queued = create_batch.apply_async(args=(payload,), retry=False)
        except OperationalError as error:
            logger.warning("the broker cannot be reached, the batch is kept: %s", error)
        else:
            logger.info(
                "batch %s of %d offers is queued",
                payload["batch_id"],
                count,
                extra={"task_id": queued.id},
            )
            return
        if stop.wait(pause):
            logger.error("batch %s of %d offers was never queued", payload["batch_id"], count)
            raise Stopped
        pause = min(2 * pause, MAX_PAUSE)


def new_offers(scraped: Iterable[ScrapedOffer]) -> Iterator[NewOffer]:
    """What was scraped, as offers; one that cannot be stored is left out, so that it spoils no batch."""
    for found in scraped:
        offer = NewOffer(
            url=found.url,
            title=found.title[:MAX_TITLE],
            price=found.price,
            main_image_url=found.main_image_url,
            list_url=found.list_url,
            metadata=dict(found.metadata),
            published_at=found.published_at,
        )
        try:
            validate_offer(offer)
        except InvalidBatch as error:
            logger.warning("%s is left out: %s", found.url, error)
        else:
            yield offer


def _pause(stop: StopRequest, seconds: float) -> None:
    if stop.wait(seconds):
        raise Stopped


def _check(name: str, value: float, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise CommandError(f"{name} is {value:g}: give {lowest} to {highest}.")


def _address(text: str) -> str:
    try:
        return str(parse_url(text))
    except ScrapeError as error:
        raise CommandError(f"URL: {error}.") from error


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise CommandError(f"--allow-host is {text!r}: give HOST:PORT, such as 127.0.0.1:8080.")
    return host, int(port)
