"""What a process hands out from its stock, and what it gives back."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from stock_workers import (
    PATIENCE_SECONDS,
    DefineQuota,
    consume,
    counted_calls,
    drain,
    numbers,
    refused,
    until,
    use_up,
)

from quota_redis import (
    Counters,
    Granted,
    InvalidArgument,
    NoQuota,
    Quota,
    Reason,
    StateLost,
    Unavailable,
)
from quota_redis.scripts import Call
from quota_redis.stocks import Stocks
from quota_redis.testing import LONG_AGO

NewStocks = Callable[..., Stocks]


def held(counters: Counters, subject: str) -> int:
    return numbers(counters, subject)[1]


def test_what_was_consumed_is_used_once_the_stock_is_back(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(10_000)
    consume(stocks, subject, 100)
    assert held(counters, subject) > 0
    stocks.close()
    assert numbers(counters, subject) == (100, 0)


def test_most_units_cost_no_round_trip(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(None)
    with counted_calls(counters) as calls:
        consume(stocks, subject, 5000)
    assert len(calls) < 40


def test_the_first_call_takes_no_stock(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    """Who asks once should not keep others from what is left."""
    subject = define(10_000)
    consume(stocks, subject, 1)
    assert numbers(counters, subject) == (1, 0)


def test_a_stock_grows_while_it_is_used_up(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(1_000_000)
    sizes = []
    for _ in range(6000):
        consume(stocks, subject, 1)
        sizes.append(held(counters, subject))
    seen = list(dict.fromkeys(sizes))
    assert seen == sorted(seen)
    assert seen[:4] == [0, 2, 4, 8]
    assert seen[-1] == 1000


def test_no_stock_is_larger_than_its_size(
    counters: Counters, new_stocks: NewStocks, define: DefineQuota
) -> None:
    subject = define(1_000_000)
    stocks = new_stocks(size=16)
    consume(stocks, subject, 200)
    assert held(counters, subject) == 16


def test_near_the_limit_it_takes_a_share_and_then_nothing_in_stock(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject, limit = define(400), 400
    for used in range(1, limit + 1):
        consume(stocks, subject, 1)
        others = limit - used
        assert held(counters, subject) <= max(others // 4, 1) + used
        usage = counters.usage(subject)[1]
        assert usage.held <= limit // 8
        if others < 8:
            assert usage == usage.__class__(1, limit, used, 0)
    assert refused(stocks.consume(subject)).reason is Reason.FULL


def test_every_unit_is_granted_and_not_one_more(stocks: Stocks, define: DefineQuota) -> None:
    subject = define(1234)
    consume(stocks, subject, 1234)
    for _ in range(3):
        assert refused(stocks.consume(subject)).reason is Reason.FULL


def test_all_or_nothing(counters: Counters, stocks: Stocks, define: DefineQuota) -> None:
    subject = define(100)
    consume(stocks, subject, 3, amount=3)
    assert refused(stocks.consume(subject, 92)).reason is Reason.FULL
    assert numbers(counters, subject) == (9, 0)
    consume(stocks, subject, 1, amount=91)
    assert numbers(counters, subject) == (100, 0)


def test_a_stock_that_turns_out_too_small_goes_back_at_once(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    """Others used up the rest since Redis last told what was left: nothing is held in vain."""
    subject = define(10_000)
    consume(stocks, subject, 40)
    used, in_stock = numbers(counters, subject)
    counters.consume(subject, 10_000 - used - in_stock - 5)
    left = used + in_stock - 40 + 5
    assert refused(stocks.consume(subject, left + 1)).reason is Reason.FULL
    assert numbers(counters, subject) == (10_000 - left, 0)
    consume(stocks, subject, 1, amount=left)


def test_more_than_a_stock_ever_has_is_asked_of_redis(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(100_000)
    consume(stocks, subject, 50)
    consume(stocks, subject, 1, amount=5000)
    consume(stocks, subject, 50)
    stocks.close()
    assert numbers(counters, subject) == (5100, 0)


@pytest.mark.parametrize("amount", [0, -1, 1.0, 0.5, True, "1", None, 10**12 + 1])
def test_amounts_that_are_none(stocks: Stocks, define: DefineQuota, amount: object) -> None:
    """Also where there is a stock that such an amount would spoil."""
    subject = define(1000)
    consume(stocks, subject, 20)
    with pytest.raises(InvalidArgument, match="amount is"):
        stocks.consume(subject, amount)  # type: ignore[arg-type]
    consume(stocks, subject, 980)


@pytest.mark.parametrize(
    "options", [{"size": 1}, {"size": 1001}, {"lease_seconds": 0.05}, {"lease_seconds": 601.0}]
)
def test_options_out_of_bounds(new_stocks: NewStocks, options: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        new_stocks(**options)


def test_unlimited_counts_too(counters: Counters, stocks: Stocks, define: DefineQuota) -> None:
    subject = define(None)
    consume(stocks, subject, 3000)
    stocks.close()
    assert numbers(counters, subject) == (3000, 0)


def test_without_a_quota_nothing_is_limited_until_there_is_one(
    counters: Counters, stocks: Stocks
) -> None:
    counters.define("team:7")
    assert [stocks.consume("team:7") for _ in range(20)] == [NoQuota()] * 20
    counters.define("team:7", Quota(id=1, limit=1, start=LONG_AGO))
    assert isinstance(stocks.consume("team:7"), Granted)
    assert refused(stocks.consume("team:7")).reason is Reason.FULL


def test_a_limit_of_nothing(stocks: Stocks, define: DefineQuota) -> None:
    assert refused(stocks.consume(define(0))).reason is Reason.FULL


def test_subjects_do_not_meet(counters: Counters, stocks: Stocks, define: DefineQuota) -> None:
    first, second = define(100, "team:1"), define(10_000, "team:2")
    consume(stocks, first, 40)
    consume(stocks, second, 400)
    stocks.close()
    assert numbers(counters, first) == (40, 0)
    assert numbers(counters, second) == (400, 0)


def test_after_close_it_may_be_used_again(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(1000)
    for _ in range(3):
        consume(stocks, subject, 50)
        stocks.close()
    assert numbers(counters, subject) == (150, 0)


def test_a_block_gives_back_what_is_left(counters: Counters, define: DefineQuota) -> None:
    subject = define(1000)
    with Stocks(counters) as stocks:
        consume(stocks, subject, 20)
        assert held(counters, subject) > 0
    assert numbers(counters, subject) == (20, 0)


def test_a_stock_that_nobody_asks_for_any_more_goes_back_by_itself(
    counters: Counters, new_stocks: NewStocks, define: DefineQuota
) -> None:
    subject = define(1000)
    stocks = new_stocks(lease_seconds=0.4)
    consume(stocks, subject, 50)
    until(lambda: numbers(counters, subject) == (50, 0))


def test_who_was_given_too_much_is_given_less(
    counters: Counters, new_stocks: NewStocks, define: DefineQuota
) -> None:
    subject = define(1_000_000)
    stocks = new_stocks(lease_seconds=0.4)
    consume(stocks, subject, 1100)
    assert held(counters, subject) > 500
    until(lambda: held(counters, subject) == 0)
    consume(stocks, subject, 4)
    until(lambda: held(counters, subject) == 0)
    consume(stocks, subject, 20)
    assert held(counters, subject) <= 64
    stocks.close()
    assert numbers(counters, subject) == (1124, 0)


def test_a_stock_is_handed_out_for_half_of_its_lease_and_has_the_rest_to_go_back(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject = define(1000)
    consume(stocks, subject, 10)
    (hold,) = counters.snapshot(subject).holds
    lease_left = (hold.expires_ms - counters.snapshot(subject).now_ms) / 1000
    term_left = stocks._book._stocks[subject].deadline - time.monotonic()
    assert term_left <= 30 <= lease_left - 20


def test_no_stock_is_handed_out_after_its_lease(
    counters: Counters, new_stocks: NewStocks, define: DefineQuota
) -> None:
    """Also where nothing swept it away: what others found expired and counted is not used once more."""
    subject = define(1000)
    stocks = new_stocks(lease_seconds=0.1)
    stocks._tick = 3600.0
    consume(stocks, subject, 20)
    time.sleep(0.15)
    assert counters.forfeit(subject) == 1
    used, _ = numbers(counters, subject)
    consume(stocks, subject, 1000 - used)
    assert refused(stocks.consume(subject)).reason is Reason.FULL


def test_the_limit_holds_without_any_clock(
    counters: Counters,
    new_stocks: NewStocks,
    define: DefineQuota,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process whose clock stands still hands out its stock long after the lease has ended, and others have
    counted it as used."""
    subject, limit = define(1000), 1000
    still = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr("quota_redis.stocks.time.monotonic", lambda: still)
        stocks = new_stocks(lease_seconds=0.1)
        consume(stocks, subject, 20)
        time.sleep(0.15)
        assert counters.forfeit(subject) == 1
        others = 0
        while isinstance(counters.consume(subject), Granted):
            others += 1
        granted = 20 + use_up(stocks, subject)
    assert granted > 20
    assert others + granted <= limit
    stocks.close()
    assert numbers(counters, subject) == (limit, 0)


def test_what_others_have_in_stock_is_busy_and_not_full(
    counters: Counters, stocks: Stocks, new_stocks: NewStocks, define: DefineQuota
) -> None:
    subject = define(100)
    consume(stocks, subject, 10)
    other = new_stocks()
    used = 10
    while isinstance(answer := other.consume(subject), Granted):
        used += 1
    assert used < 100
    assert refused(answer).reason is Reason.BUSY
    stocks.close()
    consume(other, subject, 100 - used)
    assert refused(other.consume(subject)).reason is Reason.FULL


def test_stocks_that_live_are_busy_whoever_took_one_long_ago(
    counters: Counters, new_stocks: NewStocks, define: DefineQuota
) -> None:
    """Redis says EXPIRED by the earliest lease of those that were held together, also if that hold is settled."""
    subject = define(100)
    short, long = new_stocks(lease_seconds=0.1), new_stocks()
    consume(short, subject, 5)
    consume(long, subject, 5)
    short.close()
    time.sleep(0.1)
    rest = counters.usage(subject)[1].remaining
    assert counters.consume(subject, rest) is not None
    assert refused(counters.consume(subject)).reason is Reason.EXPIRED
    assert refused(short.consume(subject)).reason is Reason.BUSY


def test_a_stock_does_not_outlive_its_period(counters: Counters, stocks: Stocks) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=300)
    first, second = Quota(1, 10_000, LONG_AGO, soon), Quota(2, 5, soon)
    counters.define("team:7", first, second)
    granted = {1: 0, 2: 0}
    while isinstance(answer := stocks.consume("team:7"), Granted):
        granted[answer.usage.quota_id] += 1
        assert (datetime.now(UTC) - soon).total_seconds() < 0.2 or answer.usage.quota_id == 2
        if granted[1] > 3000:
            time.sleep(0.001)
    assert granted[2] == 5
    assert granted[1] > 100
    stocks.close()
    usage = counters.usage("team:7")
    assert (usage[1].used, usage[2].used) == (granted[1], 5)


def test_a_stock_that_arrives_late_is_as_old_as_its_question(
    counters: Counters, stocks: Stocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Redis says of the time left was true when it answered, and the answer may have travelled long."""
    soon = datetime.now(UTC) + timedelta(milliseconds=400)
    counters.define("team:7", Quota(1, 10_000, LONG_AGO), Quota(2, 10_000, soon))
    consume(stocks, "team:7", 3)
    send = counters.connection.send

    def send_slowly(call: Call[object]) -> object:
        answer = send(call)
        time.sleep(0.5)
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(counters.connection, "send", send_slowly)
        consume(stocks, "team:7", 1)
    assert datetime.now(UTC) > soon
    answer = stocks.consume("team:7")
    assert isinstance(answer, Granted)
    assert answer.usage.quota_id == 2


def test_a_quota_that_is_to_come_ends_the_stock_of_the_one_before(
    counters: Counters, stocks: Stocks
) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=200)
    counters.define("team:7", Quota(1, None, LONG_AGO), Quota(2, 0, soon))
    while isinstance(stocks.consume("team:7"), Granted):
        assert datetime.now(UTC) < soon + timedelta(seconds=5)
    stocks.close()
    assert counters.usage("team:7")[2].used == 0


def test_a_lowered_limit_holds_for_all_but_what_is_in_stock(
    counters: Counters, new_stocks: NewStocks, define: DefineQuota
) -> None:
    stocks = new_stocks(lease_seconds=0.4)
    subject = define(10_000)
    consume(stocks, subject, 200)
    used, in_stock = numbers(counters, subject)
    define(0)
    granted = 200 + use_up(stocks, subject)
    assert granted <= used + in_stock
    until(lambda: numbers(counters, subject) == (granted, 0))
    assert refused(stocks.consume(subject)).reason is Reason.FULL


def test_threads_share_a_stock(counters: Counters, stocks: Stocks, define: DefineQuota) -> None:
    subject, limit, threads = define(20_000), 20_000, 8

    with ThreadPoolExecutor(threads) as pool:
        granted = [pool.submit(use_up, stocks, subject) for _ in range(threads)]
    assert sum(done.result() for done in granted) == limit
    stocks.close()
    assert numbers(counters, subject) == (limit, 0)


def test_threads_that_find_no_stock_wait_for_one(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    """Eight that ask at once do not take eight stocks."""
    subject = define(1_000_000)
    consume(stocks, subject, 4)
    ready = threading.Barrier(8)

    def run(_: int) -> None:
        ready.wait()
        consume(stocks, subject, 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert held(counters, subject) <= 16


def test_a_forked_child_has_nothing_of_its_parents_stock(
    counters: Counters, stocks: Stocks, define: DefineQuota
) -> None:
    subject, limit = define(1000), 1000
    consume(stocks, subject, 30)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens, it must not go on as a second test run.
        try:
            granted = use_up(stocks, subject)
            stocks.close()
            os.write(writer, str(granted).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    by_child = int(os.read(reader, 10))
    os.close(reader)
    by_parent = 30 + use_up(stocks, subject)
    assert by_child > 100
    assert by_child + by_parent == limit
    stocks.close()
    assert numbers(counters, subject) == (limit, 0)


def test_there_is_a_sweeper_only_while_there_is_something_to_sweep(
    new_stocks: NewStocks, define: DefineQuota
) -> None:
    stocks = new_stocks(lease_seconds=0.2)
    consume(stocks, define(1000), 1)
    assert stocks._sweeper is None
    for is_closed in (False, True):
        consume(stocks, define(1000), 10)
        sweeper = stocks._sweeper
        assert sweeper in threading.enumerate()
        if is_closed:
            stocks.close()
        sweeper.join(PATIENCE_SECONDS)
        assert not sweeper.is_alive()
        assert stocks._sweeper is None


def test_a_redis_that_forgot_is_no_missing_quota(
    counters: Counters, new_stocks: NewStocks, define: DefineQuota
) -> None:
    subject = define(10_000)
    stocks = new_stocks(lease_seconds=0.4)
    consume(stocks, subject, 100)
    counters.connection.client.delete(counters.keys.subject(subject))
    with pytest.raises(StateLost):
        drain(stocks, subject)
    define(10)
    consume(stocks, subject, 10)
    assert refused(stocks.consume(subject)).reason is Reason.FULL


def test_a_redis_that_is_not_there_is_no_denial() -> None:
    nobody = Counters.from_url("redis://127.0.0.1:1/0", namespace="nobody")
    with Stocks(nobody) as stocks:
        for _ in range(50):
            with pytest.raises(Unavailable):
                stocks.consume("team:7")
            with pytest.raises(Unavailable):
                stocks.reserve("team:7", 5)
        # Of what was never sent nothing has to be given back, and what cannot be is forgotten in the end.
        assert 1 <= len(stocks._book.owed(time.monotonic())) <= 3
    assert stocks._book.is_idle
