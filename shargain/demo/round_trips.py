"""Counts on the wire what a batch costs in round trips, for each thing that can become of it."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from shargain.demo.listings import listings
from shargain.demo.measuring import make_targets
from shargain.demo.wire import Proxy
from shargain.offers.services.offer_creation import BatchResult, create_offers

WARM_UP = 20
COUNTED = 200


def count_round_trips(batch: int, postgres: Proxy, redis: Proxy) -> dict[str, Any]:
    """Turns per batch, for each connection that was spoken on.

    A turn is where the client speaks after the server has spoken. Nobody waits for the answers on
    Redis's second connection, the one for settle.
    """
    roomy, spent, known = make_targets(3, (10**9, 10**9)), make_targets(1, (0, 0)), iter(range(0))
    del known
    target, again, full = roomy[0], roomy[1], spent[0]
    create_offers(again, listings(0, batch), batch_id=uuid4())
    cases: dict[str, tuple[Callable[[int], BatchResult], str]] = {
        "all new": (lambda turn: _create(target, turn * batch, batch), "created"),
        "all known": (lambda _turn: _create(again, 0, batch), "duplicate"),
        "all refused": (lambda turn: _create(full, turn * batch, batch), "discarded"),
    }
    return {
        name: _count(create, outcome, postgres, redis) for name, (create, outcome) in cases.items()
    }
