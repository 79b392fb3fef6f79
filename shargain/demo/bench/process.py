"""Runs one case in a process of its own:  python -m shargain.demo.bench.process CASE MODE FOLDER

Writes the result as `result.json` into the folder, and progress to standard output. So no case finds what another
one has left in memory, in Django's settings or on a server.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Self, TypeVar

from shargain.demo.bench import Case, SkippedError
from shargain.demo.servers import Postgres, Server, Valkey

S = TypeVar("S", bound=Server)

MODULES = (
    "consume",
    "asyncio_calls",
    "stocks",
    "against_postgres",
    "server_cpu",
    "steps",
    "ingestion",
    "scale",
    "cluster",
    "memory",
    "sizes",
    "ledger_sizes",
)
ROUNDS = {"smoke": 1, "quick": 5, "full": 15}
SKIPPED = 3
DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A checkpoint would fall on one turn and not on the next.
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "256MB",
}


class OwnBench:
    """What a case gets (see `Bench`); a context manager that ends its servers and removes their data."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.is_full = mode == "full"
        self.rounds = ROUNDS[mode]
        self.folder = folder
        self._stack = ExitStack()
        self._servers = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def valkey(self, *, persistent: bool = False, **settings: str) -> Valkey:
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        return self._run(Valkey(self._place("valkey"), persistent=persistent, settings=named))

    def postgres(self, **settings: str) -> Postgres:
        return self._run(Postgres(self._place("postgres"), settings={**DURABLE, **settings}))

    def on_one_core(self, *pids: int) -> AbstractContextManager[None]:
        core = {max(os.sched_getaffinity(0))}
        return _pinned(dict.fromkeys((0, *pids), core))

    def on_two_cores(self, *pids: int) -> AbstractContextManager[None]:
        cores = os.sched_getaffinity(0)
        if len(cores) < 2:
            raise SkippedError("Two cores are needed, and there is one.")
        return _pinned({0: {min(cores)}, **{pid: {max(cores)} for pid in pids}})

    def say(self, text: str) -> None:
        print(text, flush=True)

    def _place(self, kind: str) -> Path:
        self._servers += 1
        return self.folder / f"{kind}-{self._servers}"

    def _run(self, server: S) -> S:
        self._stack.callback(server.erase)
        self._stack.enter_context(server)
        return server


@contextmanager
def _pinned(places: Mapping[int, set[int]]) -> Iterator[None]:
    """Keep processes, by pid, on these cores."""
    before = {pid: os.sched_getaffinity(pid) for pid in places}
    try:
        for pid, cores in places.items():
            os.sched_setaffinity(pid, cores)
        yield
    finally:
        for pid, cores in before.items():
            os.sched_setaffinity(pid, cores)


def load() -> dict[str, Case]:
    """All cases by name, in the order in which they are run."""
    modules = [import_module(f"shargain.demo.bench.{name}") for name in MODULES]
    return {case.name: case for module in modules for case in module.cases()}


def main(name: str, mode: str, folder: str) -> int:
    """Run the case and return the exit status."""
    place = Path(folder)
    case = load()[name]
    try:
        with OwnBench(mode, place) as bench:
            result = case.run(bench)
    except SkippedError as reason:
        print(reason, flush=True)
        return SKIPPED
    (place / "result.json").write_text(json.dumps(asdict(result)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
