"""The processes that post batches for `ingestion`, and what they are told over their pipes."""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Order:
    """So many batches of `size` offers, each for one of the targets, by the function `peer`.

    duplicates: of each batch so many were posted before, as far as there are such.
    """

    peer: str
    targets: list[int]
    batches: int
    size: int
    duplicates: int

    def with_batches(self, batches: int) -> "Order":
        return replace(self, batches=batches)


@dataclass(frozen=True, slots=True)
class Posted:
    """What one process needed for an order: seconds in all, of its CPU, and of each batch."""

    seconds: float
    cpu_seconds: float
    spans: list[float]


class Processes:
    """So many of `ingestion_process`; they end with the block."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._running: list[subprocess.Popen[str]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for number in range(self._count):
            command = [sys.executable, "-m", "shargain.demo.bench.ingestion_process", str(number)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            # It ends where its standard input does, also when we are killed.
            self._running.append(self._stack.enter_context(process))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            assert process.stdin is not None
            process.stdin.close()
        self._stack.close()

    def prepare(self, order: Order) -> None:
        """Let all of them make their batches."""
        self._tell(json.dumps(asdict(order)))
        for process in self._running:
            self._line(process)

    def post(self) -> list[Posted]:
        """Let all of them post what they have made."""
        self._tell("go")
        return [Posted(**json.loads(self._line(process))) for process in self._running]

    def _tell(self, line: str) -> None:
        for process in self._running:
            assert process.stdin is not None
            print(line, file=process.stdin, flush=True)

    @staticmethod
    def _line(process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("A process that posts has ended: its error stands above.")
        return line
