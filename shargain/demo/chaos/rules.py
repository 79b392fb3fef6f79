"""Judges a run by the clients' journals and by what PostgreSQL committed when. Pure.

Commits of PostgreSQL are in an order that both sides of a conflict agree on: whoever waits for
another transaction commits later than it. So limits are judged in that order, to the single offer.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby, pairwise

from shargain.demo.chaos.history import Edit, History
from shargain.demo.chaos.journal import Answers, Attempt

FINAL = "final"
"""The road of the calls that decide at the end what nobody had an answer about."""
LAG = 500_000
"""Microseconds from a commit's time stamp until everybody sees it: the log has to reach the disk."""
CLOCK = 50_000
"""Microseconds between the beginning of a transaction, which is noted, and that of its statement."""
GAP_SECONDS = 60

_OUTAGES = {"ServiceUnavailable"}
EXPECTED_ERRORS = {
    "direct": _OUTAGES,
    "worker": {*_OUTAGES, "SoftTimeLimitExceeded"},
    "queue": {"OperationalError", "ConnectionError", "TimeoutError"},
    "http": {
        "503", "ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError",
        "WriteTimeout", "RemoteProtocolError",
    },
    FINAL: set(),
}  # fmt: skip


class Rule(StrEnum):
    """What can be wrong."""

    LIMIT = "no offer is created beyond the limit in force"
    PERIOD = "an offer counts for the quota that rules when it is created"
    CREATED = "what was answered 'created' exists under that batch"
    POSTED = "every offer was posted, in the batch whose id it carries"
    DUPLICATE = "what was answered 'duplicate' exists under another batch"
    AGAIN = "a batch that comes again is answered 'created' for what it made"
    KNOWN = "what exists already is not answered 'discarded'"
    ROOM = "an offer is discarded only where the quota is full"
    ANSWER = "there is one outcome for each offer, and the same address twice is a duplicate"
    ERROR = "a call fails only for want of a server"
    DECIDED = "every batch is decided in the end"
    QUEUED = "what the queue acknowledged is decided or kept as failed"


@dataclass(frozen=True, slots=True)
class Row:
    """An offer as PostgreSQL has or had it; moments in microseconds."""

    target_id: int
    url: str
    batch_id: str
    quota_id: int | None
    created_at: int
    committed_at: int
    deleted_at: int | None = None

    def stood(self, begin: int, end: int) -> bool:
        """Whether it could be seen all the time from begin to end."""
        return self.committed_at + LAG < begin and (
            self.deleted_at is None or self.deleted_at > end
        )

    def was_there(self, begin: int, end: int) -> bool:
        """Whether it could be seen at some moment from begin to end."""
        return self.committed_at <= end and (
            self.deleted_at is None or self.deleted_at + LAG >= begin
        )


@dataclass(slots=True)
class Evidence:
    """Everything that is known of a run, apart from the ledger."""

    answers: Answers
    rows: list[Row]
    edits: list[Edit]
    failed: set[str] = field(default_factory=set)
    losses: list[int] = field(default_factory=list)
    """When a worker or the broker was killed or cut off, in microseconds."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken, and by what."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.rule}, but {self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `in_gap` batches were lost by the queue's transport in a way it is known for."""

    violations: list[Violation]
    in_gap: int = 0


def judge(evidence: Evidence) -> Verdict:
    """Judge a run."""
    court = _Court(evidence)
    lost, in_gap = court.queue()
    found = [
        *court.limits(), *court.periods(), *court.posted(), *court.errors(), *court.decided(), *lost,
    ]  # fmt: skip
    for attempt in evidence.answers.attempts:
        if attempt.outcomes is not None:
            found += court.answer(attempt)
    return Verdict(found, in_gap)


class _Court:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._attempts = evidence.answers.attempts
        self._history = History(evidence.edits)
        self._by_place: dict[tuple[int, str], list[Row]] = defaultdict(list)
        self._commits: dict[int, list[int]] = defaultdict(list)
        for row in sorted(evidence.rows, key=lambda row: row.committed_at):
            self._by_place[row.target_id, row.url].append(row)
            if row.quota_id is not None:
                self._commits[row.quota_id].append(row.committed_at)

    def limits(self) -> Iterator[Violation]:
        """In the order of commits, each creation must leave no more used than some limit of its moment."""
        for quota_id, commits in self._commits.items():
            used = 0
            for moment, group in groupby(commits):
                used += len(list(group))
                limits = self._limits_at(quota_id, moment)
                if None not in limits and used > max(filter(None, limits), default=0):
                    yield Violation(
                        Rule.LIMIT,
                        f"quota {quota_id} had {used} used after the commit at {moment}, under {limits}.",
                    )

    def _limits_at(self, quota_id: int, moment: int) -> list[int | None]:
        """The limit in force; two where an edit has the very same time stamp."""
        edits = self._history.edits(quota_id)
        before = [edit.limit for edit in edits if edit.at < moment][-1:]
        return before + [edit.limit for edit in edits if edit.at == moment]

    def periods(self) -> Iterator[Violation]:
        made = {
            (r.target_id, r.quota_id, r.created_at, r.committed_at) for r in self._evidence.rows
        }
        for target_id, quota_id, created_at, committed_at in made:
            if quota_id not in self._ruling(target_id, created_at, committed_at):
                yield Violation(
                    Rule.PERIOD,
                    f"quota {quota_id} of target {target_id} got an offer at {created_at}, which"
                    " another one or none ruled.",
                )

    def _ruling(self, target_id: int, created_at: int, committed_at: int) -> set[int | None]:
        """The quotas that a statement of that moment may have found to rule."""
        found: set[int | None] = set()
        clocks = self._history.changes(target_id, created_at - CLOCK, created_at + CLOCK)
        for seen_at in self._history.changes(target_id, created_at - LAG, committed_at):
            for clock in clocks:
                edit = self._history.active(target_id, seen_at, clock)
                found.add(edit.quota_id if edit else None)
        return found

    def posted(self) -> Iterator[Violation]:
        posted: dict[tuple[str, int], set[str]] = defaultdict(set)
        for attempt in self._attempts:
            posted[attempt.batch_id, attempt.target_id].update(attempt.urls)
        for row in self._evidence.rows:
            if row.url not in posted.get((row.batch_id, row.target_id), ()):
                yield Violation(
                    Rule.POSTED,
                    f"batch {row.batch_id} did not post {row.url} to target {row.target_id}.",
                )

    def errors(self) -> Iterator[Violation]:
        for attempt in self._attempts:
            if attempt.error and attempt.error not in EXPECTED_ERRORS[attempt.road]:
                yield Violation(
                    Rule.ERROR,
                    f"batch {attempt.batch_id} by {attempt.road} met {attempt.error}:"
                    f" {attempt.detail}",
                )

    def decided(self) -> Iterator[Violation]:
        asked = {attempt.batch_id for attempt in self._attempts}
        for batch_id in sorted(asked - self._decided(self._attempts) - self._evidence.failed):
            yield Violation(Rule.DECIDED, f"batch {batch_id} was not.")

    def queue(self) -> tuple[list[Violation], int]:
        """What the queue lost, apart from what it lost in its gap; and how much that was.

        The transport pops a message, and notes that only once its worker has read it. A worker that is
        killed or cut off in between takes the message along: at most one for each time.
        """
        last = {a.batch_id: a for a in self._attempts if a.road == "worker"}
        early = [attempt for attempt in self._attempts if attempt.road != FINAL]
        done = self._decided(early) | self._evidence.failed
        lost = [(b, at) for b, at in self._evidence.answers.queued.items() if b not in done]
        gap = {b for b, at in lost if self._is_in_gap(at, last.get(b))}
        if len(gap) > len(self._evidence.losses):
            gap = set()
        return [
            Violation(Rule.QUEUED, f"batch {b}, queued at {at}, was not.")
            for b, at in lost
            if b not in gap
        ], len(gap)

    def _is_in_gap(self, queued_at: int, last: Attempt | None) -> bool:
        """Whether the last that was heard of the batch is that it was queued, for the first time or again."""
        if last is None:
            return self._is_near_loss(queued_at)
        return last.answered_at is not None and self._is_near_loss(last.answered_at)

    def _is_near_loss(self, moment: int) -> bool:
        return any(-1 <= (at - moment) / 1e6 <= GAP_SECONDS for at in self._evidence.losses)

    def answer(self, attempt: Attempt) -> Iterator[Violation]:
        assert attempt.outcomes is not None
        where = (
            f"in the answer to batch {attempt.batch_id} by {attempt.road} at {attempt.answered_at}"
        )
        if len(attempt.outcomes) != len(attempt.urls):
            yield Violation(Rule.ANSWER, f"{len(attempt.outcomes)} {where}.")
            return
        seen: set[str] = set()
        for url, outcome in zip(attempt.urls, attempt.outcomes, strict=True):
            rule = self._offer(attempt, url, outcome, is_again=url in seen)
            seen.add(url)
            if rule:
                yield Violation(
                    rule, f"{url} of target {attempt.target_id} was {outcome!r} {where}."
                )
        if "x" in attempt.outcomes and not self._was_full(attempt):
            count = attempt.outcomes.count("x")
            yield Violation(Rule.ROOM, f"{count} of target {attempt.target_id} were {where}.")

    def _offer(self, attempt: Attempt, url: str, outcome: str, *, is_again: bool) -> Rule | None:
        if is_again:
            return None if outcome == "d" else Rule.ANSWER
        rows = self._by_place.get((attempt.target_id, url), [])
        own = [row for row in rows if row.batch_id == attempt.batch_id]
        others = [row for row in rows if row.batch_id != attempt.batch_id]
        begin, end = attempt.asked_at, attempt.answered_at or 0
        if outcome == "c":
            return None if _any_there(own, begin, end) else Rule.CREATED
        if any(row.stood(begin, end) for row in own):
            return Rule.AGAIN
        if outcome == "d":
            return None if _any_there(others, begin, end) else Rule.DUPLICATE
        return Rule.KNOWN if any(row.stood(begin, end) for row in others) else None

    def _was_full(self, attempt: Attempt) -> bool:
        """Whether the quota that ruled was full at some moment of the call."""
        begin, end = attempt.asked_at - LAG, attempt.answered_at or 0
        for since, until in pairwise(self._history.changes(attempt.target_id, begin, end)):
            edit = self._history.active(attempt.target_id, since, since)
            if edit is None or edit.limit is None:
                continue
            if bisect_right(self._commits.get(edit.quota_id, []), until) >= edit.limit:
                return True
        return False

    def _decided(self, attempts: Iterable[Attempt]) -> set[str]:
        return {attempt.batch_id for attempt in attempts if attempt.outcomes is not None}


def _any_there(rows: Sequence[Row], begin: int, end: int) -> bool:
    return any(row.was_there(begin, end) for row in rows)


def count_outcomes(attempts: Iterable[Attempt]) -> Counter[str]:
    """Answers by road and kind."""
    found: Counter[str] = Counter()
    for attempt in attempts:
        if attempt.outcomes is not None:
            found[f"{attempt.road} answered"] += 1
        elif attempt.error is not None:
            found[f"{attempt.road} {attempt.error}"] += 1
        elif attempt.answered_at is None:
            found[f"{attempt.road} killed before the answer"] += 1
        else:
            found[f"{attempt.road} queued"] += 1
    return found
