"""preview: what an edit of a quota would do, before it is made. It only reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from quota_redis.counters import Counters
from quota_redis.errors import InvalidArgument
from quota_redis.postgres.explain import QuotaView, Status, as_words, count, look, status_of
from quota_redis.postgres.ledger import Ledger
from quota_redis.postgres.queries import PgConnection
from quota_redis.postgres.timeline import Change, Span, changes, ruling_at, spans
from quota_redis.types import Quota

MAX_CHANGES = 8
"""Changes of rule that are told one by one."""
_NEW = 2**63 - 1
"""Stands for a quota that has no id yet: ids are given from below."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an edit would do, a sentence each; `used` and `held` are units of the edited quota, 0 for a new one.

    is_dangerous: it stops creation at once, or leaves the subject without a limit.
    """

    sentences: tuple[str, ...]
    is_dangerous: bool
    used: int
    held: int


@dataclass(frozen=True, slots=True)
class _Edit:
    """A quota as it is (None = there is none yet) and as it would be, among the others of its subject."""

    status: Status
    old: QuotaView | None
    new: Quota
    before: tuple[Span, ...]
    after: tuple[Span, ...]

    @property
    def used(self) -> int:
        return self.old.used if self.old else 0

    @property
    def held(self) -> int:
        return self.old.held if self.old else 0

    @property
    def now(self) -> datetime:
        return self.status.at

    def limit(self, quota_id: int) -> int | None:
        return self.new.limit if quota_id == self.new.id else self._view(quota_id).limit

    def left(self, quota_id: int) -> int | None:
        """Units that the quota would have for new batches; None = unlimited."""
        if quota_id != self.new.id:
            return self._view(quota_id).remaining
        limit = self.new.limit
        return None if limit is None else max(0, limit - self.used - self.held)

    def name(self, quota_id: int | None) -> str:
        if quota_id is None:
            return "no quota"
        return "the new quota" if quota_id == _NEW else f"quota {quota_id}"

    def _view(self, quota_id: int) -> QuotaView:
        return next(view for view in self.status.quotas if view.id == quota_id)


def preview_edit(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    subject: str,
    quota_id: int | None,
    *,
    limit: int | None,
    start: datetime,
    end: datetime | None,
) -> Preview:
    """What it would do to give a quota (None = the one with this start, or a new one) these values now.

    Raises InvalidArgument where the values make no quota or the subject has no such one, Unavailable where
    PostgreSQL does not answer.
    """
    wanted = Quota(0, limit, start, end)
    [seen] = look(counters, ledger, connection, [subject], ended=True)
    edit = _edit(status_of(seen, seen.now), quota_id, wanted)
    told = [*_of_limit(edit), *_of_rule(edit), *_of_effect(edit)]
    sentences = [sentence for sentence, _ in told] or ["It changes nothing."]
    if edit.old and edit.status.note:
        sentences.append(edit.status.note)
    is_dangerous = any(dangerous for _, dangerous in told)
    return Preview(tuple(sentences), is_dangerous, edit.used, edit.held)


def _edit(status: Status, quota_id: int | None, wanted: Quota) -> _Edit:
    same_start = next((view for view in status.quotas if view.start == wanted.start), None)
    if quota_id is None:
        old = same_start
    else:
        old = next((view for view in status.quotas if view.id == quota_id), None)
        if old is None:
            raise InvalidArgument(f"{status.subject} has no quota {quota_id}.")
        if same_start and same_start is not old:
            raise InvalidArgument(
                f"quota {same_start.id} starts at {as_words(wanted.start)} too: give another start."
            )
    new = Quota(_NEW if old is None else old.id, wanted.limit, wanted.start, wanted.end)
    others = [view for view in status.quotas if view is not old]
    return _Edit(status, old, new, spans(status.quotas), spans([*others, new]))


def _of_limit(edit: _Edit) -> Iterator[tuple[str, bool]]:
    """What a changed limit does to its own quota while that rules."""
    if edit.old is None or edit.old.limit == edit.new.limit:
        return
    limit, figures = edit.new.limit, f"used {edit.used:,}, held {edit.held:,}"
    will_rule = _rules_from_now_on(edit)
    if limit is None:
        yield f"{figures}: without a limit, everything is created while it rules.", will_rule
        return
    left = edit.left(edit.new.id) or 0
    if left:
        verb = "rises" if edit.old.limit is not None and limit > edit.old.limit else "falls"
        change = f"the limit {verb} from {count(edit.old.limit)} to {limit:,}"
        yield f"{figures}: {change} and leaves {left:,}.", False
    elif limit > edit.used:
        rest = limit - edit.used
        yield (
            f"{figures}: the new limit {limit:,} leaves nothing but {rest:,} of what workers hold.",
            _is_stopped(edit),
        )
    elif _is_stopped(edit):
        yield f"{figures}: the new limit {limit:,} stops creation at once.", True
    else:
        yield f"{figures}: the new limit {limit:,} leaves nothing.", False


def _of_rule(edit: _Edit) -> Iterator[tuple[str, bool]]:
    """Who rules when, where that changes from now on."""
    found = changes(edit.before, edit.after, edit.now)
    for change in found[:MAX_CHANGES]:
        yield _told(edit, change), _is_unlimited_by(edit, change)
    if rest := found[MAX_CHANGES:]:
        is_dangerous = any(_is_unlimited_by(edit, change) for change in rest)
        yield f"{len(rest):,} more changes of rule follow.", is_dangerous
    if _is_stopped(edit) and found and found[0].start == edit.now and found[0].after is not None:
        ruling = found[0].after
        yield f"The limit of {edit.name(ruling)} is used up: creation stops at once.", True


def _told(edit: _Edit, change: Change) -> str:
    start = "At once" if change.start <= edit.now else f"From {as_words(change.start)}"
    end = "" if change.end is None else f", until {as_words(change.end)},"
    was = "none did" if change.before is None else f"{edit.name(change.before)} did"
    if change.after is None:
        return f"{start}{end} no quota rules where {was}: creation has no limit, and nothing is counted."
    limit = edit.limit(change.after)
    allows = "without a limit" if limit is None else f"limit {limit:,}"
    return f"{start}{end} {edit.name(change.after)} ({allows}) rules where {was}."


def _of_effect(edit: _Edit) -> Iterator[tuple[str, bool]]:
    """What becomes of the edited quota itself, where the changes of rule do not say it."""
    if edit.new.end is not None and edit.new.end <= edit.now:
        was_active = edit.old is not None and ruling_at([edit.old], edit.now)
        if was_active:
            yield "It ends at once; what was used stays counted.", False
        elif edit.old is None:
            yield "Its whole period is past.", False
    elif not _rules_from_now_on(edit):
        yield f"It never rules: it is shadowed by {_shadows(edit)}.", False
    elif edit.new.limit == 0 and not _is_stopped(edit):
        yield "A limit of 0 allows nothing while it rules.", False


def _rules_from_now_on(edit: _Edit) -> bool:
    return any(
        span.quota_id == edit.new.id and (span.end is None or span.end > edit.now)
        for span in edit.after
    )


def _shadows(edit: _Edit) -> str:
    """Those that rule in its place."""
    end = edit.new.end
    found: Sequence[int] = [
        span.quota_id
        for span in edit.after
        if span.quota_id is not None
        and (span.end is None or span.end > max(edit.now, edit.new.start))
        and (end is None or span.start < end)
    ]
    names = [edit.name(quota_id) for quota_id in dict.fromkeys(found)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _is_stopped(edit: _Edit) -> bool:
    """Whether creation goes on now and does not after the edit."""
    before = edit.status.ruling
    after = _ruling_after(edit)
    could = before is None or before.remaining != 0
    return could and after is not None and edit.left(after) == 0


def _ruling_after(edit: _Edit) -> int | None:
    for span in edit.after:
        if span.start <= edit.now and (span.end is None or edit.now < span.end):
            return span.quota_id
    return None


def _is_unlimited_by(edit: _Edit, change: Change) -> bool:
    """Whether a limit held before and none does after."""
    if change.before is None:
        return False
    before = next(v for v in edit.status.quotas if v.id == change.before)
    if before.limit is None:
        return False
    return change.after is None or edit.limit(change.after) is None
