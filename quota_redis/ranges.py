"""Ranges of slots: pairs (lowest, highest), both included, ascending and disjoint."""

import re
from collections.abc import Iterable
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
Ranges: TypeAlias = tuple[Range, ...]

SLOT_END = 2**52
"""The first number that is no slot: where unlimited ends, in Lua, in SQL and here."""

EVERYTHING: Ranges = ((1, SLOT_END - 1),)

_MULTIRANGE = re.compile(r"[\[(](\d+),(\d*)\)")


def parse(text: str) -> Ranges:
    """Read what the Lua scripts write: `1-20,31-40`. Raises ValueError for anything else."""
    if not text:
        return ()
    out: list[Range] = []
    last = 0
    for part in text.split(","):
        lo, _, hi = part.partition("-")
        pair = int(lo), int(hi)
        if not last < pair[0] <= pair[1]:
            raise ValueError(f"{text[:100]!r} are no ascending ranges of slots")
        last = pair[1]
        out.append(pair)
    return tuple(out)


def render(ranges: Ranges) -> str:
    """Write what the Lua scripts read: `1-20,31-40`."""
    return ",".join(f"{lo}-{hi}" for lo, hi in ranges)


def parse_multirange(text: str) -> Ranges:
    """Read PostgreSQL's text of an int8multirange, as `{[1,21),[31,)}`; no upper bound is SLOT_END."""
    pairs = (
        (int(lo), (int(end) if end else SLOT_END) - 1) for lo, end in _MULTIRANGE.findall(text)
    )
    return tuple((lo, hi) for lo, hi in pairs if lo <= hi)


def render_multirange(ranges: Ranges) -> str:
    """Write PostgreSQL's text of an int8multirange."""
    return "{" + ",".join(f"[{lo},{hi + 1})" for lo, hi in ranges) + "}"


def size(ranges: Ranges) -> int:
    """How many slots the ranges have."""
    return sum(hi - lo + 1 for lo, hi in ranges)


def union(*several: Iterable[Range]) -> Ranges:
    """All slots that are in any of them, with neighbours joined."""
    out: list[Range] = []
    for lo, hi in sorted(pair for ranges in several for pair in ranges):
        if out and lo <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], hi))
        else:
            out.append((lo, hi))
    return tuple(out)


def subtract(ranges: Ranges, taken: Ranges) -> Ranges:
    """The slots of `ranges` that are not in `taken`; one pass over both."""
    out: list[Range] = []
    at = 0
    for first, hi in ranges:
        lo = first
        while at < len(taken) and taken[at][1] < lo:
            at += 1
        i = at
        while i < len(taken) and taken[i][0] <= hi:
            if taken[i][0] > lo:
                out.append((lo, taken[i][0] - 1))
            lo = taken[i][1] + 1
            i += 1
        if lo <= hi:
            out.append((lo, hi))
    return tuple(out)


def split(ranges: Ranges, amount: int) -> tuple[Ranges, Ranges]:
    """The lowest `amount` slots, and the rest."""
    first: list[Range] = []
    rest: list[Range] = []
    for lo, hi in ranges:
        take = min(amount, hi - lo + 1)
        if take:
            first.append((lo, lo + take - 1))
        if lo + take <= hi:
            rest.append((lo + take, hi))
        amount -= take
    return tuple(first), tuple(rest)
