"""What every client of a run was answered: a file for each, to which it only ever adds lines.

A line is JSON: `begin` of a process; `ask` before a call; `answer`, `error` or `queued` after it, which
belongs to the `ask` before it; `stopped` where the client stopped itself. Moments are microseconds
since 1970, by the clock that PostgreSQL has too.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

if TYPE_CHECKING:
    from shargain.offers.services.offer_creation import BatchResult, NewOffer

LETTERS = {"created": "c", "duplicate": "d", "discarded": "x"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call: a letter of `LETTERS` for each address, or the error's name, or neither."""

    batch_id: str
    target_id: int
    road: str
    urls: tuple[str, ...]
    asked_at: int
    answered_at: int | None = None
    outcomes: str | None = None
    error: str | None = None
    detail: str = ""


@dataclass(slots=True)
class Answers:
    """All journals of a run. `queued` is when the queue acknowledged a batch, by its id."""

    attempts: list[Attempt] = field(default_factory=list)
    queued: dict[str, int] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)


class Journal:
    """The journal of this process; one call at a time. Each line is one write, and survives a kill."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = os.open(
            folder / f"{name}.{os.getpid()}.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600
        )
        # An earlier process of this number may have been killed in the middle of a line.
        os.write(self._file, b"\n")
        self._write(begin=now())

    def ask(self, road: str, target_id: int, batch_id: str, urls: Sequence[str]) -> None:
        self._write(ask=batch_id, road=road, target=target_id, urls=urls, at=now())

    def answer(self, outcomes: Iterable[str]) -> None:
        self._write(answer="".join(LETTERS[outcome] for outcome in outcomes), at=now())

    def error(self, name: str, detail: object) -> None:
        self._write(error=name, detail=str(detail)[:300], at=now())

    def queued(self) -> None:
        self._write(queued=True, at=now())

    def stopped(self, step: str) -> None:
        self._write(stopped=step)

    def posted(
        self, road: str, create: "Callable[..., BatchResult]"
    ) -> "Callable[..., BatchResult]":
        """`create`, with each of its calls and answers in the journal."""

        def journaled(
            target_id: int, offers: "Sequence[NewOffer]", *, batch_id: UUID
        ) -> "BatchResult":
            self.ask(road, target_id, str(batch_id), [offer.url for offer in offers])
            try:
                result = create(target_id, offers, batch_id=batch_id)
            except Exception as error:
                self.error(type(error).__name__, error)
                raise
            self.answer(result.outcomes)
            return result

        return journaled

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def now() -> int:
    return time.time_ns() // 1000


def read(folder: Path) -> Answers:
    """All journals in a folder."""
    answers = Answers()
    for file in sorted(folder.glob("*.jsonl")):
        with file.open("rb") as lines:
            _read_one(_parsed(lines), answers)
    answers.attempts.sort(key=lambda attempt: attempt.asked_at)
    return answers


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            # Empty, or torn by a kill: what it began to say was never answered to anybody.
            continue


def _read_one(lines: Iterator[dict[str, Any]], answers: Answers) -> None:
    asked: Attempt | None = None
    for line in lines:
        if asked is not None and line.keys() & {"answer", "error", "queued"}:
            if "queued" in line:
                answers.queued.setdefault(asked.batch_id, line["at"])
            asked = _answered(asked, line)
            answers.attempts.append(asked)
            asked = None
        elif line.keys() & {"ask", "begin"}:
            if asked is not None:
                answers.attempts.append(asked)
            asked = _asked(line) if "ask" in line else None
        elif "stopped" in line:
            answers.stops.append(line["stopped"])
    if asked is not None:
        answers.attempts.append(asked)


def _asked(line: dict[str, Any]) -> Attempt:
    return Attempt(line["ask"], line["target"], line["road"], tuple(line["urls"]), line["at"])


def _answered(asked: Attempt, line: dict[str, Any]) -> Attempt:
    return replace(
        asked,
        answered_at=line["at"],
        outcomes=line.get("answer"),
        error=line.get("error"),
        detail=line.get("detail", ""),
    )
