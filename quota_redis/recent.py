"""What Redis answered a moment ago, by subject."""

import time
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_SUBJECTS = 10_000


class Recent(Generic[T]):
    """Answers that are remembered for `span` seconds, 0 for not at all; of 10,000 subjects, beyond which all are
    forgotten. Safe to share between threads."""

    def __init__(self, span: float) -> None:
        self._span = span
        self._answers: dict[str, tuple[float, T]] = {}

    def note(self, subject: str, answer: T, *, at: float, true_for: float | None) -> None:
        """Remember an answer of the moment `at`, of time.monotonic(), that holds for so many seconds more (None =
        not known to end)."""
        if not self._span:
            return
        if len(self._answers) >= MAX_SUBJECTS:
            self._answers.clear()
        span = self._span if true_for is None else min(self._span, true_for)
        self._answers[subject] = (at + span, answer)

    def recall(self, subject: str) -> T | None:
        known = self._answers.get(subject)
        if known is None:
            return None
        if time.monotonic() < known[0]:
            return known[1]
        self._answers.pop(subject, None)
        return None

    def forget(self, subject: str) -> None:
        self._answers.pop(subject, None)
