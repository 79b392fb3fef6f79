"""What the definitions of quotas were at any moment, by the commits of PostgreSQL. Pure."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter


@dataclass(frozen=True, slots=True)
class Edit:
    """What a quota was from the commit `at` on; moments in microseconds, None = unlimited, no end."""

    at: int
    quota_id: int
    target_id: int
    limit: int | None
    start: int
    end: int | None
    is_deleted: bool = False

    def is_active(self, clock: int) -> bool:
        return (
            not self.is_deleted and self.start <= clock and (self.end is None or clock < self.end)
        )


_AT = attrgetter("at")


class History:
    """All edits, in the order of their commits."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._by_quota: dict[int, list[Edit]] = {}
        self._by_target: dict[int, list[int]] = {}
        for edit in sorted(edits, key=_AT):
            if edit.quota_id not in self._by_quota:
                self._by_target.setdefault(edit.target_id, []).append(edit.quota_id)
            self._by_quota.setdefault(edit.quota_id, []).append(edit)

    def edits(self, quota_id: int) -> list[Edit]:
        return self._by_quota.get(quota_id, [])

    def active(self, target_id: int, seen_at: int, clock: int) -> Edit | None:
        """The quota that rules at `clock`, by the edits that were committed at `seen_at`."""
        best: Edit | None = None
        for quota_id in self._by_target.get(target_id, ()):
            edit = self._at(quota_id, seen_at)
            if edit and edit.is_active(clock) and (best is None or edit.start > best.start):
                best = edit
        return best

    def changes(self, target_id: int, begin: int, end: int) -> list[int]:
        """The moments, begin and end among them, between which neither definitions nor periods changed."""
        found = {begin, end}
        for quota_id in self._by_target.get(target_id, ()):
            for edit in self._by_quota[quota_id]:
                boundaries = (edit.at, edit.start, edit.end)
                found.update(m for m in boundaries if m is not None and begin < m < end)
        return sorted(found)

    def _at(self, quota_id: int, moment: int) -> Edit | None:
        edits = self._by_quota[quota_id]
        index = bisect_right(edits, moment, key=_AT)
        return edits[index - 1] if index else None
