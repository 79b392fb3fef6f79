import os
from pathlib import Path
from uuid import UUID

import pytest

from shargain.demo.chaos import journal
from shargain.demo.chaos.journal import Journal


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with Journal(tmp_path, "client") as ours:
        ours.ask("direct", 7, "one", ["a", "b"])
        ours.answer(["created", "discarded"])
        ours.ask("direct", 7, "two", ["c"])
        ours.error("ServiceUnavailable", "down")
        ours.ask("queue", 7, "three", ["d"])
        ours.queued()
        ours.stopped("killed somewhere")
    answers = journal.read(tmp_path)
    one, two, three = answers.attempts
    assert (one.batch_id, one.target_id, one.urls, one.outcomes) == ("one", 7, ("a", "b"), "cx")
    assert (two.error, two.detail, two.outcomes) == ("ServiceUnavailable", "down", None)
    assert answers.queued == {"three": three.answered_at}
    assert answers.stops == ["killed somewhere"]
    assert one.asked_at <= (one.answered_at or 0) <= two.asked_at


def test_a_call_without_an_answer_stays_unanswered(tmp_path: Path) -> None:
    with Journal(tmp_path, "client") as ours:
        ours.ask("direct", 7, "one", ["a"])
        ours.ask("direct", 7, "two", ["b"])
        ours.answer(["created"])
        ours.ask("direct", 7, "three", ["c"])
    found = {a.batch_id: a.outcomes for a in journal.read(tmp_path).attempts}
    assert found == {"one": None, "two": "c", "three": None}


def test_a_line_torn_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / f"client.{os.getpid()}.jsonl"
    file.write_bytes(b'{"ask":"one","road":"direct","target":7,"urls":["a"],"at":1}\n{"answ')
    with Journal(tmp_path, "client") as ours:
        ours.ask("direct", 7, "two", ["b"])
        ours.answer(["duplicate"])
    found = {a.batch_id: a.outcomes for a in journal.read(tmp_path).attempts}
    assert found == {"one": None, "two": "d"}


def test_an_exception_is_in_the_journal_and_goes_on(tmp_path: Path) -> None:
    def create(*_: object, **__: object) -> None:
        raise LookupError("no such target")

    with Journal(tmp_path, "client") as ours, pytest.raises(LookupError):
        ours.posted("direct", create)(7, [], batch_id=UUID(int=1))  # type: ignore[arg-type]
    (attempt,) = journal.read(tmp_path).attempts
    assert (attempt.error, attempt.detail) == ("LookupError", "no such target")
