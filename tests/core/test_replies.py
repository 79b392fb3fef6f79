"""What Counters take from a reply: numbers that no script of ours gives are refused before anybody uses them."""

from typing import TypeVar

import pytest
import redis

from quota_redis import Counters
from quota_redis.connection import Connection
from quota_redis.errors import Garbled
from quota_redis.scripts import Call, Reply
from quota_redis.types import Reservation

T = TypeVar("T")


class Answering(Connection):
    """Answers each script with the same reply."""

    def __init__(self, client: "redis.Redis", reply: Reply) -> None:
        super().__init__(client)
        self._reply = reply

    def send(self, call: Call[T]) -> T:
        return call.answer(self._reply)


def slots(quota: int, ranges: bytes) -> Reply:
    return b"SLOTS:%d:1::0:2::%b" % (quota, ranges)


def test_the_largest_quota_id_is_read(counters: Counters) -> None:
    counters.connection = Answering(counters.connection.client, slots(2**63 - 1, b"1-2"))
    answer = counters.reserve("team:7", 2)
    assert isinstance(answer, Reservation)
    assert answer.quota_id == 2**63 - 1


@pytest.mark.parametrize(
    "reply",
    [slots(2**63, b"1-2"), slots(1, b"0-2"), slots(1, b"4503599627370496-4503599627370496")],
)
def test_numbers_that_postgresql_cannot_have_are_refused(counters: Counters, reply: Reply) -> None:
    counters.connection = Answering(counters.connection.client, reply)
    with pytest.raises(Garbled):
        counters.reserve("team:7", 2)


def test_the_last_slot_there_is_can_be_held(counters: Counters) -> None:
    last = 2**52 - 1
    reply = slots(1, b"%d-%d" % (last, last))
    counters.connection = Answering(counters.connection.client, reply)
    answer = counters.reserve("team:7", 2)
    assert isinstance(answer, Reservation)
    assert answer.ranges == ((last, last),)


def test_a_field_without_a_value_is_refused(counters: Counters) -> None:
    counters.connection = Answering(counters.connection.client, [1, b"d"])
    with pytest.raises(Garbled):
        counters.snapshot("team:7")
