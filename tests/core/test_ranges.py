"""Arithmetic of slots, held against sets of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from quota_redis import ranges
from quota_redis.ranges import EVERYTHING, SLOT_END, Ranges

numbers = st.sets(st.integers(1, 60), max_size=40)


def made_of(slots: set[int]) -> Ranges:
    """The slots as ranges, found the slow and certain way."""
    found: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot - 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return tuple(found)


def in_(several: Ranges) -> set[int]:
    return {slot for lo, hi in several for slot in range(lo, hi + 1)}


@given(numbers, numbers)
def test_union(a: set[int], b: set[int]) -> None:
    assert ranges.union(made_of(a), made_of(b)) == made_of(a | b)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=12))
def test_union_of_what_overlaps_in_any_order(pairs: list[tuple[int, int]]) -> None:
    several = [(lo, lo + more) for lo, more in pairs]
    assert ranges.union(several) == made_of(in_(tuple(several)))


@given(numbers, numbers)
def test_subtract(a: set[int], b: set[int]) -> None:
    assert ranges.subtract(made_of(a), made_of(b)) == made_of(a - b)


@given(numbers)
def test_subtract_from_everything(taken: set[int]) -> None:
    rest = ranges.subtract(EVERYTHING, made_of(taken))
    assert ranges.size(rest) == SLOT_END - 1 - len(taken)
    assert ranges.subtract(EVERYTHING, rest) == made_of(taken)


@given(numbers, st.integers(0, 70))
def test_split(slots: set[int], amount: int) -> None:
    first, rest = ranges.split(made_of(slots), amount)
    assert in_(first) == set(sorted(slots)[:amount])
    assert in_(rest) == set(sorted(slots)[amount:])
    assert ranges.size(first) + ranges.size(rest) == len(slots)


@given(numbers)
def test_size(slots: set[int]) -> None:
    assert ranges.size(made_of(slots)) == len(slots)


@given(numbers)
def test_text_is_read_as_it_was_written(slots: set[int]) -> None:
    several = made_of(slots)
    assert ranges.parse(ranges.render(several)) == several
    assert ranges.parse_multirange(ranges.render_multirange(several)) == several


def test_text_of_lua() -> None:
    assert ranges.render(((1, 20), (31, 40))) == "1-20,31-40"
    assert ranges.parse(f"1-1,3-{SLOT_END - 1}") == ((1, 1), (3, SLOT_END - 1))
    assert ranges.parse("") == ()


def test_text_of_postgresql() -> None:
    assert ranges.render_multirange(((1, 20), (31, 40))) == "{[1,21),[31,41)}"
    assert ranges.parse_multirange("{[1,21),[401,)}") == ((1, 20), (401, SLOT_END - 1))
    assert ranges.parse_multirange("{}") == ()


def test_void_above_all_slots_is_no_range() -> None:
    assert ranges.parse_multirange(f"{{[{SLOT_END},)}}") == ()
