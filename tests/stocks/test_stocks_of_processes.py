"""Processes with stocks, killed, stopped, or left without Redis: never above the limit, and nobody starves."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from stock_workers import DefineQuota, Worker, Workers, consume, drain, numbers, refused, until

from quota_redis import Counters, Quota, Reason, StateLost, Unavailable
from quota_redis.stocks import Stocks
from quota_redis.testing import LONG_AGO
from shargain.demo.servers import Valkey

LEASE = 0.6


def total(*workers: Worker) -> int:
    return sum(worker.granted for worker in workers)


def test_processes_use_the_whole_limit_and_not_one_more(
    counters: Counters, define: DefineQuota, workers: Workers
) -> None:
    subject, limit = define(30_000), 30_000
    crew = [workers.start(counters, subject) for _ in range(3)]
    until(lambda: all(worker.refused for worker in crew))
    for worker in crew:
        worker.end()
    assert total(*crew) == limit
    assert numbers(counters, subject) == (limit, 0)


def test_nobody_starves_while_one_sits_on_its_stock(
    counters: Counters, define: DefineQuota, workers: Workers
) -> None:
    """One worker stops calling after some hundred units. The others get all that is left, and are told BUSY until
    then: FULL only once every slot is used."""
    subject, limit = define(20_000), 20_000
    with Stocks(counters, lease=timedelta(seconds=LEASE)) as idle:
        consume(idle, subject, 300)
        crew = [workers.start(counters, subject, lease=LEASE) for _ in range(2)]
        until(lambda: any(worker.refused for worker in crew))
        assert numbers(counters, subject) == (limit, 0)
        until(lambda: 300 + total(*crew) == limit)
    for worker in crew:
        worker.end()


def test_a_process_that_ends_in_order_gives_back(
    counters: Counters, define: DefineQuota, workers: Workers
) -> None:
    subject = define(1_000_000)
    worker = workers.start(counters, subject, pause=0.002)
    until(lambda: worker.granted > 50)
    worker.end()
    assert numbers(counters, subject) == (worker.granted, 0)


def test_a_killed_process_costs_at_most_its_stock(
    counters: Counters, define: DefineQuota, workers: Workers
) -> None:
    subject, limit, size = define(20_000), 20_000, 1000
    dead = []
    for _ in range(4):
        worker = workers.start(counters, subject, lease=LEASE, pause=0.0001)
        until(lambda worker=worker: worker.granted > 700)
        worker.kill()
        dead.append(worker)
        used, held = numbers(counters, subject)
        assert total(*dead) <= used + held
    time.sleep(LEASE)
    assert 1 <= counters.forfeit(subject) <= len(dead)
    used, held = numbers(counters, subject)
    assert held == 0
    # A grant that the kill came between and its count is not counted.
    assert total(*dead) <= used <= total(*dead) + len(dead) * size
    last = workers.start(counters, subject)
    until(lambda: last.refused > 0)
    last.end()
    assert used + last.granted == limit
    assert numbers(counters, subject) == (limit, 0)


def test_processes_killed_all_the_time_never_go_above_the_limit(
    counters: Counters, define: DefineQuota, workers: Workers
) -> None:
    subject, limit = define(30_000), 30_000
    everybody = [workers.start(counters, subject, lease=LEASE, pause=0.00001) for _ in range(2)]
    for at in range(6):
        until(lambda at=at: everybody[at].granted > 500 or everybody[at].refused > 0)
        everybody[at].kill()
        everybody.append(workers.start(counters, subject, lease=LEASE, pause=0.00001))
        counters.forfeit(subject)

    def is_spent() -> bool:
        counters.forfeit(subject)
        return numbers(counters, subject) == (limit, 0)

    until(is_spent)
    for worker in everybody[-2:]:
        worker.end()
    assert limit - 6 * 1000 <= total(*everybody) <= limit


def test_a_process_that_was_stopped_past_its_lease_hands_out_nothing_that_others_have(
    counters: Counters, define: DefineQuota, workers: Workers
) -> None:
    subject, limit = define(10_000), 10_000
    sleeper = workers.start(counters, subject, lease=LEASE, pause=0.0005)
    until(lambda: sleeper.granted > 200)
    sleeper.send(signal.SIGSTOP)
    time.sleep(2 * LEASE)
    counters.forfeit(subject)
    other = workers.start(counters, subject)
    until(lambda: other.refused > 0)
    assert sleeper.granted + other.granted <= limit
    sleeper.send(signal.SIGCONT)
    until(lambda: sleeper.refused > 0)
    for worker in (sleeper, other):
        worker.end()
    assert limit - 1000 <= total(sleeper, other) <= limit
    assert numbers(counters, subject) == (limit, 0)


def test_a_process_that_was_stopped_gives_back_its_stock_where_nobody_counted_it(
    counters: Counters, define: DefineQuota, workers: Workers
) -> None:
    subject = define(1_000_000)
    sleeper = workers.start(counters, subject, lease=LEASE, pause=0.001)
    until(lambda: sleeper.granted > 200)
    sleeper.send(signal.SIGSTOP)
    time.sleep(2 * LEASE)
    sleeper.send(signal.SIGCONT)
    sleeper.end()
    assert numbers(counters, subject) == (sleeper.granted, 0)


@pytest.fixture
def server(tmp_path: Path) -> Valkey:
    tmp_path.chmod(0o711)
    return Valkey(tmp_path / "valkey", persistent=False)


@pytest.mark.parametrize("happening", ["flushed", "restarted"])
def test_a_redis_that_lost_everything_under_a_stock(server: Valkey, happening: str) -> None:
    with server:
        counters = Counters.from_url(server.url, namespace="lost", timeout=5.0)
        counters.define("team:7", Quota(1, 10_000, LONG_AGO))
        stocks = Stocks(counters, lease=timedelta(seconds=LEASE))
        consume(stocks, "team:7", 100)
        if happening == "flushed":
            counters.connection.client.flushall()
        else:
            server.kill()
            server.start()
        seen = []
        while not seen or seen[-1] is not StateLost:
            try:
                drain(stocks, "team:7")
            except Unavailable as error:
                seen.append(type(error))
                time.sleep(0.01)
        assert set(seen) <= {StateLost, Unavailable}
        counters.define("team:7", Quota(1, 10, LONG_AGO))
        consume(stocks, "team:7", 10)
        assert refused(stocks.consume("team:7")).reason is Reason.FULL
        stocks.close()
        assert numbers(counters, "team:7") == (10, 0)
        counters.close()


def test_a_stock_that_could_not_be_given_back_is_when_redis_answers_again(server: Valkey) -> None:
    """A pause of the server is no death of its clients: nothing is forfeited."""
    with server:
        counters = Counters.from_url(server.url, namespace="paused", timeout=0.2)
        counters.define("team:7", Quota(1, 10_000, LONG_AGO))
        stocks = Stocks(counters, lease=timedelta(seconds=LEASE))
        consume(stocks, "team:7", 100)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable):
                drain(stocks, "team:7")
            for _ in range(50):
                with pytest.raises(Unavailable):
                    stocks.consume("team:7")
            time.sleep(LEASE)
        finally:
            os.kill(server.pid, signal.SIGCONT)

        def is_back() -> bool:
            try:
                return numbers(counters, "team:7")[1] == 0
            except Unavailable:
                return False

        until(is_back)
        stocks.close()
        counters.close()
