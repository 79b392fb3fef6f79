"""Counts on the wire what a batch costs in round trips, for each thing that can become of it."""

from collections.abc import Iterator, Sequence
from itertools import count, repeat
from typing import Any
from uuid import uuid4

from shargain.demo.folders import ServerError
from shargain.demo.listings import listings
from shargain.demo.measuring import make_targets
from shargain.demo.wire import Proxy
from shargain.offers.services.offer_creation import NewOffer, Outcome, create_offers

WARM_UP = 20
COUNTED = 200


def count_round_trips(batch: int, postgres: Proxy, redis: Proxy) -> dict[str, Any]:
    """Turns per batch on each connection, for batches of new, of known and of refused offers.

    Raises:
        ServerError: batches did not end as they had to.
    """
    new, known = make_targets(2, (10**9, 10**9))
    (spent,) = make_targets(1, (0, 0))
    create_offers(known, listings(0, batch), batch_id=uuid4())
    following = (listings(number * batch, batch) for number in count())
    return {
        "all new": _count(new, following, Outcome.CREATED, postgres, redis),
        "all known": _count(known, repeat(listings(0, batch)), Outcome.DUPLICATE, postgres, redis),
        "all refused": _count(spent, following, Outcome.DISCARDED, postgres, redis),
    }


def _count(
    target: int,
    batches: Iterator[list[NewOffer]],
    outcome: Outcome,
    postgres: Proxy,
    redis: Proxy,
) -> dict[str, Any]:
    _post(WARM_UP, target, batches, outcome)
    proxies = {"PostgreSQL": postgres, "Redis": redis}
    before = {name: proxy.turns() for name, proxy in proxies.items()}
    _post(COUNTED, target, batches, outcome)
    return {name: _per_batch(before[name], proxy.turns()) for name, proxy in proxies.items()}


def _post(times: int, target: int, batches: Iterator[list[NewOffer]], outcome: Outcome) -> None:
    for _ in range(times):
        result = create_offers(target, next(batches), batch_id=uuid4())
        if set(result.outcomes) != {outcome}:
            raise ServerError(f"A batch had to be {outcome} as a whole and was {result}.")


def _per_batch(before: Sequence[int], after: Sequence[int]) -> list[float]:
    """For each connection that was used; one that was opened meanwhile counts from its start."""
    earlier = [*before, *([0] * (len(after) - len(before)))]
    spent = (now - then for then, now in zip(earlier, after, strict=True))
    return [round(turns / COUNTED, 2) for turns in spent if turns]
