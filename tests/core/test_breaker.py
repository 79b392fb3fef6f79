"""A server that keeps failing is left alone, then tried by one call at a time."""

import threading

import pytest

from quota_redis.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=3, pause=1.0, clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admit()
        breaker.failed(OSError("gone"))


def test_it_lets_through_what_fails_now_and_then(breaker: Breaker) -> None:
    for _ in range(10):
        fail(breaker, 2)
        breaker.succeeded()
    assert breaker.admit()
    assert not breaker.is_open


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    assert breaker.is_open
    assert not breaker.admit()
    clock.now += 0.999
    assert not breaker.admit()


def test_a_failure_that_took_its_time_opens_it_at_once(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(OSError("silent"), at_once=True)
    assert breaker.is_open
    assert not breaker.admit()
    clock.now += 1.0
    assert breaker.admit()
    breaker.failed(OSError("still silent"), at_once=True)
    assert not breaker.admit()
    clock.now += 1.0
    assert breaker.admit()
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.admit()


def test_it_counts_as_open_until_a_trial_succeeds(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10.0
    assert breaker.is_open


def test_after_the_pause_one_call_tries(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admit()
    assert not breaker.admit()


def test_a_failed_trial_opens_it_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    fail(breaker, 1)
    assert not breaker.admit()
    clock.now += 1.0
    assert breaker.admit()


def test_a_trial_that_never_reports_gives_way_to_another(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admit()
    clock.now += 1.0
    assert breaker.admit()


def test_a_trial_that_succeeds_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admit()
    breaker.succeeded()
    assert not breaker.is_open
    assert all(breaker.admit() for _ in range(5))
    fail(breaker, 2)
    assert breaker.admit()


def test_of_many_threads_one_tries(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    ready = threading.Barrier(8)
    admitted: list[bool] = []

    def knock() -> None:
        ready.wait()
        admitted.append(breaker.admit())

    threads = [threading.Thread(target=knock) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(admitted) == [False] * 7 + [True]
