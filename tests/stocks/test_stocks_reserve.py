"""Reservations that are cut from a stock, and what comes back of them."""

import pytest
from stock_workers import DefineQuota, consume, numbers, refused, reserved

from quota_redis import Counters, InvalidArgument, NoQuota, Reason
from quota_redis.stocks import Stocks


def held(counters: Counters, subject: str) -> int:
    return numbers(counters, subject)[1]


def test_a_reservation_comes_from_stock_and_its_rest_goes_back_there(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(10_000)
    for _ in range(20):
        reservation = reserved(stocks.reserve(subject, 10))
        assert reservation.amount == 10
        stocks.settle(reservation, 4, wait=False)
    assert held(counters, subject) > 10
    stocks.close()
    assert numbers(counters, subject) == (80, 0)


def test_reservations_never_overlap(stocks: Stocks, define: DefineQuota) -> None:
    subject = define(3000)
    taken: set[int] = set()
    while not isinstance(answer := stocks.reserve(subject, 7), NoQuota):
        if not hasattr(answer, "ranges"):
            break
        slots = {n for lo, hi in answer.ranges for n in range(lo, hi + 1)}
        assert len(slots) == answer.amount <= 7
        assert not slots & taken
        used = len(slots) // 2 + 1
        stocks.settle(answer, used)
        taken |= set(sorted(slots)[:used])
    assert refused(answer).reason is Reason.FULL
    assert taken == set(range(1, 3001))


def test_a_reservation_holds_back_its_stock_until_it_is_settled(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(10_000)
    consume(stocks, subject, 10)
    reservation = reserved(stocks.reserve(subject, 2))
    stocks.close()
    assert held(counters, subject) > 0
    stocks.settle(reservation, 1)
    assert numbers(counters, subject) == (11, 0)


def test_the_same_hold_id_gives_the_same_reservation(stocks: Stocks, define: DefineQuota) -> None:
    subject = define(10_000)
    consume(stocks, subject, 20)
    first = stocks.reserve(subject, 3, hold_id="job-1")
    assert stocks.reserve(subject, 3, hold_id="job-1") == first
    assert stocks.reserve(subject, 3, hold_id="job-2") != first


def test_what_is_released_ends_its_stock(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(10_000)
    consume(stocks, subject, 20)
    reservation = reserved(stocks.reserve(subject, 3))
    assert held(counters, subject) > 0
    stocks.release(subject, reservation.hold_id)
    assert numbers(counters, subject) == (20, 0)


def test_settled_twice_counts_once(counters: Counters, stocks: Stocks, define: DefineQuota) -> None:
    subject = define(10_000)
    consume(stocks, subject, 20)
    reservation = reserved(stocks.reserve(subject, 3))
    stocks.settle(reservation, 2)
    stocks.settle(reservation, 0)
    stocks.release(subject, reservation.hold_id)
    stocks.close()
    assert numbers(counters, subject) == (22, 0)


def test_what_was_scattered_goes_back_to_the_last_piece(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(10_000)
    consume(stocks, subject, 1100)
    out = [reserved(stocks.reserve(subject, 1)) for _ in range(600)]
    for number, reservation in enumerate(out):
        stocks.settle(reservation, number % 2)
    stocks.close()
    assert numbers(counters, subject) == (1400, 0)
    consume(stocks, subject, 10_000 - 1400)
    assert refused(stocks.consume(subject)).reason is Reason.FULL


def test_a_hold_may_come_back_in_as_many_pieces_as_it_can_have(
    counters: Counters, define: DefineQuota
) -> None:
    """With slots of the most digits that there are."""
    subject = define(None)
    end = 10**12
    counters.consume(subject, end)
    hold = reserved(counters.reserve(subject, 1000))
    pieces = tuple((slot, slot) for slot in range(hold.ranges[0][0], end + 1001, 2))
    assert len(pieces) == 500
    counters.give_back(subject, hold.hold_id, pieces)
    assert numbers(counters, subject) == (end + 500, 0)


@pytest.mark.parametrize("hold_id", ["", "x" * 201])
def test_hold_ids_that_are_none(stocks: Stocks, define: DefineQuota, hold_id: str) -> None:
    subject = define(10_000)
    consume(stocks, subject, 20)
    with pytest.raises(InvalidArgument, match="hold id is"):
        stocks.reserve(subject, 3, hold_id=hold_id)


def test_a_settle_checks_its_numbers(stocks: Stocks, define: DefineQuota) -> None:
    subject = define(10_000)
    consume(stocks, subject, 20)
    reservation = reserved(stocks.reserve(subject, 3))
    with pytest.raises(InvalidArgument, match="used is 4"):
        stocks.settle(reservation, 4)
