"""One of the processes that `load` posts from: waits for the others, posts, tells what it saw.

    python -m shargain.demo.load_process FOLDER NUMBER

They talk through files in FOLDER: `plan`, then `ready-NUMBER` of each process, then `go`, and at the
end `seen-NUMBER`.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

import django

from shargain.demo.folders import write_private

if TYPE_CHECKING:
    from shargain.offers.services.offer_creation import BatchResult, NewOffer

    Create: TypeAlias = Callable[..., BatchResult]

GO_SECONDS = 120.0
GO_LOOK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Plan:
    """What every process does: batches of this size, a share of each the same in all processes."""

    targets: list[int]
    batch: int
    overlap: float
    seconds: float
    is_naive: bool


@dataclass(slots=True)
class Seen:
    """What one process saw: offers by outcome, and the milliseconds of batches by what they did."""

    seconds: float = 0.0
    failed: int = 0
    offers: dict[str, int] = field(default_factory=dict)
    creating_ms: list[float] = field(default_factory=list)
    knowing_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)

    def count(self, result: "BatchResult", span_ms: float) -> None:
        for outcome in result.outcomes:
            self.offers[outcome] = self.offers.get(outcome, 0) + 1
        if result.created:
            self.creating_ms.append(span_ms)
        elif result.discarded:
            self.refused_ms.append(span_ms)
        else:
            self.knowing_ms.append(span_ms)


class Batches:
    """The batches of one process, to targets as they come."""

    def __init__(self, number: int, plan: Plan) -> None:
        self._plan = plan
        self._edition = f"-{number}"
        self._shared = round(plan.batch * plan.overlap)
        self._random = random.Random(number)  # noqa: S311  no secret, only the same again
        self._posted: Counter[int] = Counter()

    def next(self) -> tuple[int, list["NewOffer"]]:
        """A target, and offers that this process never posted to it."""
        from shargain.demo.listings import listings

        target = self._random.choice(self._plan.targets)
        turn, own = self._posted[target], self._plan.batch - self._shared
        self._posted[target] += 1
        offers = [
            *listings(turn * self._shared, self._shared),
            *listings(turn * own, own, self._edition),
        ]
        self._random.shuffle(offers)
        return target, offers


def main(folder: Path, number: int) -> None:
    """Post as planned, and write a Seen."""
    plan = Plan(**json.loads((folder / "plan").read_text(encoding="utf-8")))
    django.setup()
    create = _creator(is_naive=plan.is_naive)
    batches = Batches(number, plan)
    batches.next()
    (folder / f"ready-{number}").touch()
    _wait_for(folder / "go")
    seen = _post(plan, batches, create)
    write_private(folder / f"seen-{number}", json.dumps(asdict(seen)))


def _creator(*, is_naive: bool) -> "Create":
    from shargain.demo import naive
    from shargain.offers.services import offer_creation

    return naive.create_offers if is_naive else offer_creation.create_offers


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + GO_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{file} did not come within {GO_SECONDS:.0f} s.")
        time.sleep(GO_LOOK_SECONDS)


def _post(plan: Plan, batches: Batches, create: "Create") -> Seen:
    from django.db import DatabaseError

    # The naive form deadlocks now and then; what is measured is exact and must not fail at all.
    bearable = (DatabaseError,) if plan.is_naive else ()
    seen = Seen()
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < plan.seconds:
        target, offers = batches.next()
        before = time.monotonic()
        try:
            result = create(target, offers, batch_id=uuid4())
        except bearable:
            seen.failed += 1
        else:
            seen.count(result, (time.monotonic() - before) * 1000)
    seen.seconds = elapsed
    return seen


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
