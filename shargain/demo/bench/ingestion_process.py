"""One of the processes that post batches for `ingestion`: reads orders from standard input, a line of JSON each.

It makes an order's batches, says "ready", posts them when another line comes, and tells how long each took. So
neither making offers nor starting a process is measured.
"""

import gc
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID, uuid4

import django

from shargain.demo.bench.ingestion_processes import Order, Posted

if TYPE_CHECKING:
    from shargain.offers.services.offer_creation import NewOffer

    Batch: TypeAlias = tuple[int, list[NewOffer]]

REMEMBERED = 400
"""Addresses of a target that may be posted again."""


class Supply:
    """Makes batches of real listings, each under an address of its own unless it is to be a duplicate."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._made = 0
        self._posted: dict[int, deque[NewOffer]] = {}
        self._random = random.Random(number)  # noqa: S311  no secret, only the same again

    def batches(self, order: Order) -> "list[Batch]":
        return [self._batch(order) for _ in range(order.batches)]

    def _batch(self, order: Order) -> "Batch":
        target = self._random.choice(order.targets)
        posted = self._posted.setdefault(target, deque(maxlen=REMEMBERED))
        known = self._random.sample(posted, min(order.duplicates, len(posted)))
        fresh = [self._fresh() for _ in range(order.size - len(known))]
        posted.extend(fresh)
        offers = [*known, *fresh]
        self._random.shuffle(offers)
        return target, offers

    def _fresh(self) -> "NewOffer":
        from shargain.demo.listings import listings

        self._made += 1
        offer = listings(self._made % 3000, 1)[0]
        return replace(offer, url=f"{offer.url}&by={self._number}-{self._made}")


def main(number: int) -> None:
    """Obey until standard input ends."""
    django.setup()
    from shargain.demo.bench import ingestion_peers

    supply = Supply(number)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        create = getattr(ingestion_peers, order.peer)
        batches = supply.batches(order)
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        if not sys.stdin.readline():
            return
        print(json.dumps(asdict(_post(create, batches))), flush=True)
        gc.unfreeze()


def _post(
    create: "Callable[[int, Sequence[NewOffer], UUID], object]", batches: "list[Batch]"
) -> Posted:
    spans = []
    cpu, began = time.process_time(), time.perf_counter()
    for target, offers in batches:
        before = time.perf_counter()
        create(target, offers, uuid4())
        spans.append(time.perf_counter() - before)
    return Posted(time.perf_counter() - began, time.process_time() - cpu, spans)


if __name__ == "__main__":
    main(int(sys.argv[1]))
