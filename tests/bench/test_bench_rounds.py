"""Interleaved rounds, and the numbers made of them."""

from collections.abc import Callable

import pytest

from shargain.demo.bench import paragraphs
from shargain.demo.bench.rounds import figure, interleaved, ratio, rounded, spread


def test_all_take_their_turn_in_every_round_in_an_order_that_moves_on() -> None:
    order: list[str] = []

    def turn(name: str) -> Callable[[], float]:
        return lambda: float(len(order)) if order.append(name) is None else 0.0

    found = interleaved({name: turn(name) for name in "abc"}, 3)
    rounds = ["".join(order[at : at + 3]) for at in range(0, 12, 3)]
    assert rounds == ["cab", "abc", "bca", "cab"]
    # The round before the first warmed up and is not told of.
    assert found == {"a": [4.0, 9.0, 11.0], "b": [5.0, 7.0, 12.0], "c": [6.0, 8.0, 10.0]}


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times slower in the second round, and took neither side by it.
    found = ratio([200, 20, 300], [100, 10, 100])
    assert (found.median, found.low, found.high) == (2.0, 2.0, 3.0)


def test_a_ratio_needs_a_partner_in_every_round() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])


def test_a_figure_is_the_median_with_its_range() -> None:
    found = figure([5, 1, 3], unit="us", slack=None)
    assert (found.median, found.low, found.high, found.unit) == (3, 1, 5, "us")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234.5, 1234), (0.123456, 0.123), (9.876, 9.88), (99.99, 100), (-345.6, -346)],
)
def test_numbers_keep_three_digits(value: float, shown: float) -> None:
    assert rounded(value) == shown


def test_a_spread_is_from_the_lowest_to_the_highest() -> None:
    assert spread([1234.5, 3, 20_000]) == "3.0-20,000"


def test_notes_are_paragraphs_of_the_source() -> None:
    assert paragraphs("\nOne line\nand more.\n\nAnother.\n") == ("One line and more.", "Another.")
