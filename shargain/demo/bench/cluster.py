"""A cluster: what a call costs through it, and how evenly its nodes share the work."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import redis

from quota_redis import Counters, Granted
from shargain.demo.bench import Bench, Case, Cell, Result, Table
from shargain.demo.bench.redis_tools import NAMESPACE, ServerMeter, quota
from shargain.demo.bench.rounds import interleaved, middle, ratio
from shargain.demo.valkey_cluster import cluster_client, valkey_cluster

SUBJECTS = 300
CALLS = 1500
SERVER, ONE, THREE = "one server", "cluster of one node", "cluster of three nodes"

NOTES = [
    (
        f"One process consumes from {SUBJECTS} subjects in turn: one a call, then all in one round trip to each "
        "node. Three nodes on a machine of two cores have no more cores than one: the figures tell what a cluster "
        "costs, not what it gains; that is in docs/scaling.md, from the CPU of a call and from how calls spread."
    )
]


def cases() -> tuple[Case, ...]:
    return (Case("cluster", "One server and clusters of one and three nodes", run),)


class Place:
    """A server or a cluster with the subjects defined, and meters of its nodes."""

    def __init__(self, client: Any, nodes: list["redis.Redis"]) -> None:
        self._counters = Counters(client, namespace=NAMESPACE)
        self._subjects = [f"team:{number}" for number in range(SUBJECTS)]
        self._meters = [ServerMeter(node) for node in nodes]
        self.cpu: list[float] = []
        self.share: list[float] = []
        for subject in self._subjects:
            self._counters.define(subject, quota())

    def one_by_one(self) -> float:
        """Calls a second."""
        return self._timed(CALLS, self._each)

    def together(self) -> float:
        """Units a second, of all subjects in one call."""
        return self._timed(CALLS // SUBJECTS * SUBJECTS, self._all)

    def close(self) -> None:
        self._counters.close()

    def _timed(self, calls: int, work: Callable[[], None]) -> float:
        for meter in self._meters:
            meter.cpu_us()
        before = [meter.cpu_us() for meter in self._meters]
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        spent = [meter.cpu_us() - was for meter, was in zip(self._meters, before, strict=True)]
        self.cpu.append(sum(spent) / calls)
        self.share.append(max(spent) / sum(spent))
        return calls / seconds

    def _each(self) -> None:
        for number in range(CALLS):
            answer = self._counters.consume(self._subjects[number % SUBJECTS])
            assert isinstance(answer, Granted)

    def _all(self) -> None:
        for _ in range(CALLS // SUBJECTS):
            answers = self._counters.consume_many((subject, 1) for subject in self._subjects)
            assert all(isinstance(answer, Granted) for answer in answers)


def run(bench: Bench) -> Result:
    with ExitStack() as stack:
        places = _places(bench, stack)
        singly = interleaved(
            {name: place.one_by_one for name, place in places.items()}, bench.rounds
        )
        single_cpu = {name: list(place.cpu) for name, place in places.items()}
        together = interleaved(
            {name: place.together for name, place in places.items()}, bench.rounds
        )
        rows: list[list[Cell]] = [
            [
                name,
                middle(singly[name]),
                middle(single_cpu[name]),
                middle(together[name]),
                middle(place.share),
            ]
            for name, place in places.items()
        ]
    return Result(
        figures={
            "three nodes over one server, one by one": ratio(singly[THREE], singly[SERVER]),
            "three nodes over one server, together": ratio(together[THREE], together[SERVER]),
        },
        tables=[
            Table(
                f"{SUBJECTS} subjects",
                [
                    "",
                    "calls/s, one by one",
                    "CPU of the nodes a call, us",
                    "units/s, all in one call",
                    "share of the busiest node",
                ],
                rows,
            )
        ],
        notes=NOTES,
    )


def _places(bench: Bench, stack: ExitStack) -> dict[str, Place]:
    server = redis.Redis.from_url(bench.valkey().url)
    stack.callback(server.close)
    places = {SERVER: Place(server, [server])}
    for name, count in ((ONE, 1), (THREE, 3)):
        url = stack.enter_context(valkey_cluster(bench.folder / f"cluster-{count}", count))
        client = cluster_client(url)
        stack.callback(client.close)
        nodes = [client.get_redis_connection(node) for node in client.get_primaries()]
        places[name] = Place(client, nodes)
    for place in places.values():
        stack.callback(place.close)
    return places
