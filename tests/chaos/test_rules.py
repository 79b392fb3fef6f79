"""Each rule of the judge, broken by a journal or a history that is wrong in one place."""

from dataclasses import replace

import pytest

from shargain.demo.chaos.history import Edit
from shargain.demo.chaos.journal import Answers, Attempt
from shargain.demo.chaos.rules import FINAL, Evidence, Row, Rule, judge

SECOND = 1_000_000
TARGET, QUOTA = 7, 70
ONE, TWO = "batch-1", "batch-2"


def at(seconds: float) -> int:
    return round(seconds * SECOND)


def edit(limit: int | None, seconds: float = 0, quota_id: int = QUOTA, **values: object) -> Edit:
    return replace(Edit(at(seconds), quota_id, TARGET, limit, 0, None), **values)


def row(url: str, batch_id: str, seconds: float, **values: object) -> Row:
    made = Row(TARGET, url, batch_id, QUOTA, at(seconds), at(seconds) + 1)
    return replace(made, **values)


def answer(
    batch_id: str, urls: str, outcomes: str | None, seconds: float, **values: object
) -> Attempt:
    """An attempt that began at `seconds` and took one."""
    made = Attempt(batch_id, TARGET, "direct", tuple(urls), at(seconds), at(seconds + 1), outcomes)
    return replace(made, **values)


@pytest.fixture
def evidence() -> Evidence:
    """A run in which all is well: a quota of 2, full after the first batch, seen by the second."""
    return Evidence(
        Answers([answer(ONE, "ab", "cc", 10), answer(TWO, "aacd", "ddxx", 20)]),
        [row("a", ONE, 10.1), row("b", ONE, 10.1)],
        [edit(2)],
    )


def broken(evidence: Evidence) -> set[Rule]:
    return {violation.rule for violation in judge(evidence).violations}


def test_a_run_in_which_all_is_well_breaks_no_rule(evidence: Evidence) -> None:
    assert broken(evidence) == set()


class TestLimit:
    def test_one_more_than_the_limit(self, evidence: Evidence) -> None:
        evidence.edits = [edit(1)]
        assert broken(evidence) == {Rule.LIMIT}

    def test_one_more_after_it_was_lowered_below_what_is_used(self, evidence: Evidence) -> None:
        evidence.edits.append(edit(1, 10.05))
        assert broken(evidence) == {Rule.LIMIT}

    def test_lowering_below_what_is_used_undoes_nothing(self, evidence: Evidence) -> None:
        evidence.edits.append(edit(1, 15))
        assert broken(evidence) == set()

    def test_deleted_offers_stay_counted(self, evidence: Evidence) -> None:
        evidence.rows[0] = replace(evidence.rows[0], deleted_at=at(30))
        evidence.rows.append(row("e", "batch-3", 31))
        evidence.answers.attempts.append(answer("batch-3", "e", "c", 31))
        assert broken(evidence) == {Rule.LIMIT}

    def test_what_was_raised_in_time_may_be_used(self, evidence: Evidence) -> None:
        evidence.edits = [edit(0), edit(2, 9)]
        assert broken(evidence) == set()


class TestPeriod:
    def test_an_offer_of_a_quota_that_is_over(self, evidence: Evidence) -> None:
        evidence.edits = [edit(2, end=at(9)), edit(0, quota_id=71, start=at(9))]
        assert broken(evidence) == {Rule.PERIOD}

    def test_an_offer_of_a_quota_that_another_one_outranks(self, evidence: Evidence) -> None:
        evidence.edits.append(edit(0, quota_id=71, start=at(5)))
        assert broken(evidence) == {Rule.PERIOD}

    def test_an_offer_that_counts_for_none_though_one_rules(self, evidence: Evidence) -> None:
        evidence.rows[1] = replace(evidence.rows[1], quota_id=None)
        evidence.answers.attempts.pop()
        assert broken(evidence) == {Rule.PERIOD}

    def test_a_statement_under_way_when_the_edit_commits_may_not_see_it(
        self, evidence: Evidence
    ) -> None:
        evidence.edits.append(edit(0, 10.05, quota_id=71, start=at(5)))
        assert broken(evidence) == set()


class TestAnswers:
    def test_created_but_not_there(self, evidence: Evidence) -> None:
        del evidence.rows[1]
        evidence.edits = [edit(1)]
        assert broken(evidence) == {Rule.CREATED}

    def test_created_but_under_another_batch(self, evidence: Evidence) -> None:
        evidence.answers.attempts.append(answer(TWO, "b", "c", 30))
        assert broken(evidence) == {Rule.CREATED}

    def test_created_and_deleted_since(self, evidence: Evidence) -> None:
        evidence.rows[1] = replace(evidence.rows[1], deleted_at=at(25))
        assert broken(evidence) == set()

    def test_duplicate_of_nothing(self, evidence: Evidence) -> None:
        evidence.answers.attempts.append(answer(TWO, "z", "d", 30))
        assert broken(evidence) == {Rule.DUPLICATE}

    def test_duplicate_of_what_is_created_only_later(self, evidence: Evidence) -> None:
        evidence.answers.attempts.append(answer("batch-3", "b", "d", 5))
        assert broken(evidence) == {Rule.DUPLICATE}

    def test_duplicate_of_what_was_deleted_before(self, evidence: Evidence) -> None:
        evidence.rows[1] = replace(evidence.rows[1], deleted_at=at(15))
        evidence.answers.attempts.append(answer(TWO, "b", "d", 30))
        assert broken(evidence) == {Rule.DUPLICATE}

    def test_a_repeated_batch_that_does_not_know_its_own(self, evidence: Evidence) -> None:
        evidence.answers.attempts.append(answer(ONE, "ab", "cd", 30))
        assert broken(evidence) == {Rule.AGAIN}

    def test_discarded_though_known(self, evidence: Evidence) -> None:
        evidence.answers.attempts.append(answer(TWO, "b", "x", 30))
        assert broken(evidence) == {Rule.KNOWN}

    def test_too_few_outcomes(self, evidence: Evidence) -> None:
        evidence.answers.attempts[0] = answer(ONE, "ab", "c", 10)
        assert broken(evidence) == {Rule.ANSWER}

    def test_the_same_address_twice_in_a_batch(self, evidence: Evidence) -> None:
        evidence.answers.attempts[0] = answer(ONE, "abb", "ccc", 10)
        assert broken(evidence) == {Rule.ANSWER}

    def test_an_offer_that_nobody_posted(self, evidence: Evidence) -> None:
        evidence.answers.attempts[0] = answer(ONE, "a", "c", 10)
        assert broken(evidence) == {Rule.POSTED}


class TestRoom:
    def test_discarded_though_there_is_room(self, evidence: Evidence) -> None:
        evidence.edits = [edit(3)]
        assert broken(evidence) == {Rule.ROOM}

    def test_discarded_though_nothing_limits(self, evidence: Evidence) -> None:
        evidence.edits = [edit(None)]
        assert broken(evidence) == {Rule.ROOM}

    def test_discarded_long_after_the_limit_was_raised(self, evidence: Evidence) -> None:
        evidence.edits.append(edit(5, 18))
        assert broken(evidence) == {Rule.ROOM}

    def test_discarded_while_the_limit_is_being_raised(self, evidence: Evidence) -> None:
        evidence.edits.append(edit(5, 20.5))
        assert broken(evidence) == set()

    def test_discarded_before_the_quota_was_full(self, evidence: Evidence) -> None:
        evidence.answers.attempts.append(answer("batch-3", "z", "x", 5))
        assert broken(evidence) == {Rule.ROOM}


class TestErrorsAndQueue:
    def test_an_error_that_is_no_outage(self, evidence: Evidence) -> None:
        failed = answer("batch-3", "z", None, 30, error="AssertionError")
        evidence.answers.attempts += [failed, answer("batch-3", "z", "x", 32, road=FINAL)]
        assert broken(evidence) == {Rule.ERROR}

    def test_an_outage_after_which_the_batch_was_not_decided(self, evidence: Evidence) -> None:
        failed = answer("batch-3", "z", None, 30, error="ServiceUnavailable")
        evidence.answers.attempts.append(failed)
        assert broken(evidence) == {Rule.DECIDED}

    def test_an_outage_after_which_it_was(self, evidence: Evidence) -> None:
        failed = answer("batch-3", "z", None, 30, error="ServiceUnavailable")
        evidence.answers.attempts += [failed, answer("batch-3", "z", "x", 32)]
        assert broken(evidence) == set()

    def test_a_queued_batch_that_nobody_decided(self, evidence: Evidence) -> None:
        self._queue(evidence)
        assert broken(evidence) == {Rule.QUEUED}

    def test_a_queued_batch_that_is_kept_as_failed(self, evidence: Evidence) -> None:
        self._queue(evidence)
        evidence.failed = {"batch-3"}
        assert broken(evidence) == set()

    def test_a_queued_batch_that_a_dead_worker_took_along(self, evidence: Evidence) -> None:
        self._queue(evidence)
        evidence.losses = [at(32)]
        verdict = judge(evidence)
        assert (verdict.violations, verdict.in_gap) == ([], 1)

    def test_more_batches_than_workers_that_died(self, evidence: Evidence) -> None:
        self._queue(evidence)
        self._queue(evidence, "batch-4")
        evidence.losses = [at(32)]
        assert broken(evidence) == {Rule.QUEUED}

    def test_a_queued_batch_that_a_worker_had_begun(self, evidence: Evidence) -> None:
        self._queue(evidence)
        begun = answer("batch-3", "z", None, 31, road="worker", answered_at=None)
        evidence.answers.attempts.append(begun)
        evidence.losses = [at(32)]
        assert broken(evidence) == {Rule.QUEUED}

    def test_a_queued_batch_that_was_queued_again_and_taken_along(self, evidence: Evidence) -> None:
        self._queue(evidence)
        failed = answer("batch-3", "z", None, 31, road="worker", error="ServiceUnavailable")
        evidence.answers.attempts.append(failed)
        evidence.losses = [at(33)]
        assert (broken(evidence), judge(evidence).in_gap) == (set(), 1)

    def test_a_queued_batch_that_is_lost_long_after_a_worker_died(self, evidence: Evidence) -> None:
        self._queue(evidence)
        evidence.losses = [at(20)]
        assert broken(evidence) == {Rule.QUEUED}

    def _queue(self, evidence: Evidence, batch_id: str = "batch-3") -> None:
        evidence.answers.queued[batch_id] = at(31)
        evidence.answers.attempts += [
            answer(batch_id, "z", None, 30, road="queue"),
            answer(batch_id, "z", "x", 60, road=FINAL),
        ]
