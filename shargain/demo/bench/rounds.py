"""Interleaved rounds, and the numbers that are made of them."""

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shargain.demo.bench import Figure


def interleaved(
    turns: Mapping[str, Callable[[], float]], rounds: int, say: Callable[[str], None] | None = None
) -> dict[str, list[float]]:
    """What each of the turns measured in each round; all take their turn in every round.

    So a machine that slows down slows all of them. The order moves on by one with each round, for nobody always to
    come after the same; a round before the first warms everything up and is thrown away.
    """
    names = list(turns)
    found: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    # What is there already is nobody's garbage: looking through it would be measured, too.
    gc.freeze()
    for number in range(-1, rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            gc.collect()
            value = turns[name]()
            if number >= 0:
                found[name].append(value)
        if say and number >= 0:
            say(f"  round {number + 1} of {rounds}")
    gc.unfreeze()
    return found


def figure(values: Sequence[float], **more: Any) -> Figure:
    """The median of the values and their range; `more` as Figure has it."""
    return Figure(
        rounded(statistics.median(values)), rounded(min(values)), rounded(max(values)), **more
    )


def ratio(ours: Sequence[float], theirs: Sequence[float], **more: Any) -> Figure:
    """How many times theirs ours is: the median of what it was within each round."""
    return figure([a / b for a, b in zip(ours, theirs, strict=True)], **more)


def speed(values: Sequence[float], **more: Any) -> Figure:
    """Calls a second: never compared, for it is the machine's."""
    return figure(values, unit="/s", slack=None, **more)


def rounded(value: float) -> float:
    """Three digits that mean something, or all before the point."""
    return round(value) if abs(value) >= 100 else float(f"{value:.3g}")


def middle(values: Sequence[float]) -> float:
    """The median, as it is shown."""
    return rounded(statistics.median(values))


def spread(values: Sequence[float]) -> str:
    """From the lowest to the highest, as it is shown."""
    return f"{rounded(min(values)):,}-{rounded(max(values)):,}"
