"""Reads single values of JSON-LD, which sites write in many ways, into clean and bounded ones."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

# What a price column of 12 digits holds.
MAX_PRICE = Decimal("9999999999.99")
_CENT = Decimal("0.01")
_MAX_PRICE_CHARS = 64
_MAX_DATE_CHARS = 40
# Control characters and halves of surrogate pairs: no database takes them all.
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_NUMBER = re.compile(r"(-?)\s*([0-9][0-9\s.,'\u2019]*)")
_GROUPING = re.compile(r"[\s'\u2019]")


def as_list(value: Any) -> list[Any]:
    """A property's values: schema.org lets one stand where several may."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def types_of(node: dict[str, Any]) -> set[str]:
    """The node's types without their namespace: `http://schema.org/Offer` is `Offer`."""
    return {local_name(name) for name in as_list(node.get("@type")) if isinstance(name, str)}


def local_name(term: str) -> str:
    return re.split(r"[/:#]", term)[-1]


def to_text(value: Any, most: int) -> str:
    """At most `most` clean characters. Takes the first of a list and the name of an object."""
    for candidate in as_list(value)[:1]:
        inner = candidate.get("name") if isinstance(candidate, dict) else candidate
        if isinstance(inner, str | Decimal | bool):
            clean = _UNCLEAN.sub(" ", str(inner)[: 4 * most])
            return " ".join(clean.split())[:most].rstrip()
    return ""


def to_price(value: Any) -> Decimal | None:
    """The price in whole cents, or None where there is none, as in "negotiable".

    In text the last of two kinds of separators is the decimal one, and a comma before three digits
    parts thousands. Raises ValueError for a price below 0 or above what is stored.
    """
    if isinstance(value, str):
        value = _number_in(value[:_MAX_PRICE_CHARS])
    if not isinstance(value, Decimal):
        return None
    if not 0 <= value <= MAX_PRICE:
        raise ValueError(f"the price is not between 0 and {MAX_PRICE}")
    return value.quantize(_CENT, rounding=ROUND_HALF_UP)


def _number_in(text: str) -> Decimal | None:
    found = _NUMBER.search(text)
    if found is None:
        return None
    digits = _GROUPING.sub("", found.group(2)).rstrip(".,")
    return Decimal(found.group(1) + _with_decimal_point(digits))


def _with_decimal_point(digits: str) -> str:
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0:
        return digits
    separator = digits[last]
    other = "," if separator == "." else "."
    thousands = separator == "," and other not in digits and len(digits) - last == len(",000")
    if thousands or digits.count(separator) > 1:
        return digits.replace(separator, "").replace(other, "")
    return digits.replace(other, "").replace(separator, ".")


def lowest_price(values: Iterable[Any]) -> Decimal | None:
    """Raises ValueError if one of them is impossible."""
    return min((price for value in values if (price := to_price(value)) is not None), default=None)


def to_datetime(value: Any) -> datetime | None:
    """An ISO 8601 date in UTC, which is assumed where the text names no zone; else None."""
    if not isinstance(value, str) or len(value) > _MAX_DATE_CHARS:
        return None
    try:
        parsed = datetime.fromisoformat(value.strip())
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
