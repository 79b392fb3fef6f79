"""explain: which quota rules a subject, why, and what a batch would get. It only reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from quota_redis import ranges
from quota_redis.calls import EPOCH
from quota_redis.counters import Counters
from quota_redis.errors import Unavailable
from quota_redis.postgres.ledger import Ledger, LedgerQuota, LedgerSubject, translated
from quota_redis.postgres.queries import PgConnection
from quota_redis.postgres.spending import MAX_GRANTS
from quota_redis.postgres.timeline import Period, is_active, ruling_at
from quota_redis.types import (
    MAX_RESERVE,
    Hold,
    QuotaState,
    Snapshot,
    check_integer,
    check_moment,
)

RANGES_PER_GRANT = 8
"""As in reserve.lua: a free list in more pieces takes several reservations."""


class State(StrEnum):
    """Where a quota stands at a moment."""

    RULES = "rules"
    SHADOWED = "shadowed"
    """Active, and so is one that starts later."""
    SCHEDULED = "scheduled"
    ENDED = "ended"


class Prediction(StrEnum):
    """What a batch would meet."""

    GRANTED = "granted"
    PARTLY = "partly"
    DENIED = "denied"
    BUSY = "busy"
    """Others hold a part of what is left: what the batch gets of that part depends on what they use."""
    BOUNDARY = "boundary"
    """A period starts or ends within the clock skew: the ledger decides, not Redis."""
    REFUSED = "refused"
    """Redis does not answer, and the installation refuses batches without it."""
    NO_QUOTA = "no_quota"
    UNLIMITED = "unlimited"


@dataclass(frozen=True, slots=True)
class HoldView:
    """Units that a worker has and has not settled."""

    hold_id: str
    quota_id: int
    amount: int
    expires_at: datetime
    is_expired: bool


@dataclass(frozen=True, slots=True)
class QuotaView:
    """A quota and its numbers, in units; `remaining` None = unlimited. `why` says why it is in its state."""

    id: int
    limit: int | None
    start: datetime
    end: datetime | None
    used: int
    held: int
    remaining: int | None
    state: State
    why: str
    holds: tuple[HoldView, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """The quotas of a subject at a moment, latest start first, with the numbers of now.

    Without `is_live` Redis did not answer or does not know the subject: used is the ledger's, held is unknown.
    `note` says what else is to be known of the numbers, empty for nothing.
    """

    subject: str
    at: datetime
    is_live: bool
    note: str
    quotas: tuple[QuotaView, ...]

    @property
    def ruling(self) -> QuotaView | None:
        return next((quota for quota in self.quotas if quota.state is State.RULES), None)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A Status, and what a batch of `amount` would get at that moment if nothing else happened until then.

    granted: of `amount`, None where nothing limits it. at_once: the part of it that no worker holds.
    """

    subject: str
    at: datetime
    is_live: bool
    ruling: QuotaView | None
    quotas: tuple[QuotaView, ...]
    amount: int
    granted: int | None
    at_once: int | None
    outcome: Prediction
    sentence: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the servers said of a subject. `snapshot` is None where Redis did not answer."""

    now: datetime
    known: LedgerSubject
    snapshot: Snapshot | None

    @property
    def is_live(self) -> bool:
        return self.snapshot is not None and self.snapshot.document is not None

    @property
    def is_current(self) -> bool:
        """Whether Redis has the definitions that PostgreSQL has."""
        return self.snapshot is not None and self.snapshot.version == self.known.version

    def state(self, quota_id: int) -> QuotaState | None:
        return self.snapshot.quotas.get(quota_id) if self.snapshot else None

    def holds(self, quota_id: int) -> list[Hold]:
        holds = self.snapshot.holds if self.snapshot else ()
        return [hold for hold in holds if hold.quota_id == quota_id]

    def expired(self, quota_id: int) -> list[Hold]:
        holds = self.snapshot.expired if self.snapshot else ()
        return [hold for hold in holds if hold.quota_id == quota_id]


def look(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    subjects: Sequence[str],
    *,
    ended: bool = False,
) -> list[Seen]:
    """Read these subjects: one round trip to Redis, then one snapshot of PostgreSQL.

    Quotas that ended long ago are left out unless `ended`. Raises Unavailable where PostgreSQL does not answer.
    """
    names = list(dict.fromkeys(subjects))
    snapshots: Sequence[Snapshot | None]
    try:
        snapshots = counters.snapshots(names)
    except Unavailable:
        snapshots = [None] * len(names)
    with translated(), connection.transaction():
        row = connection.execute("SELECT statement_timestamp()").fetchone()
        known = ledger.read(connection, names, ended=ended)
    assert row is not None
    return [Seen(row[0], now, seen) for now, seen in zip(known, snapshots, strict=True)]


def examine(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    subjects: Sequence[str],
    *,
    ended: bool = False,
) -> list[Status]:
    """The quotas of many subjects now. Reads as `look` does."""
    return [
        status_of(seen, seen.now)
        for seen in look(counters, ledger, connection, subjects, ended=ended)
    ]


def explain(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    subject: str,
    *,
    amount: int = 1,
    at: datetime | None = None,
    refuse_without_redis: bool = False,
) -> Explanation:
    """Which quota rules the subject at a moment (None = now, by PostgreSQL's clock) and what a batch would get.

    amount: units, 1 to 1,000. Another moment is judged by the definitions and the numbers of now. Raises
    InvalidArgument, and Unavailable where PostgreSQL does not answer.
    """
    check_integer("amount", amount, 1, MAX_RESERVE)
    if at is not None:
        check_moment("at", at)
    [seen] = look(counters, ledger, connection, [subject], ended=True)
    moment = at or seen.now
    status = status_of(seen, moment)
    if at is None:
        forecast = _forecast(seen, amount, counters.boundary_skew, refuses=refuse_without_redis)
    else:
        forecast = _by_numbers(status.ruling, amount)
    return Explanation(
        subject=subject,
        at=moment,
        is_live=status.is_live,
        ruling=status.ruling,
        quotas=status.quotas,
        amount=amount,
        granted=forecast.granted,
        at_once=forecast.at_once,
        outcome=forecast.outcome,
        sentence=_sentence(status, seen.now, amount, forecast),
    )


def status_of(seen: Seen, at: datetime) -> Status:
    ruling = ruling_at(seen.known.quotas, at)
    views = tuple(_view(seen, quota, ruling, at) for quota in seen.known.quotas)
    return Status(seen.known.subject, at, seen.is_live, _note(seen), views)


def as_words(moment: datetime) -> str:
    """A moment to the second, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC".replace(":00 UTC", " UTC")


def count(number: int | None) -> str:
    return "unlimited" if number is None else f"{number:,}"


def _view(seen: Seen, quota: LedgerQuota, ruling: LedgerQuota | None, at: datetime) -> QuotaView:
    live = seen.state(quota.id)
    used, held = (live.usage.used, live.usage.held) if live else (quota.used, 0)
    state, why = _standing(quota, ruling, at)
    return QuotaView(
        id=quota.id,
        limit=quota.limit,
        start=quota.start,
        end=quota.end,
        used=used,
        held=held,
        remaining=None if quota.limit is None else max(0, quota.limit - used - held),
        state=state,
        why=why,
        holds=tuple(_hold(hold, seen) for hold in seen.holds(quota.id)),
    )


def _standing(quota: Period, ruling: Period | None, at: datetime) -> tuple[State, str]:
    if quota.start > at:
        return State.SCHEDULED, f"It starts at {as_words(quota.start)}."
    if not is_active(quota, at):
        assert quota.end is not None
        return State.ENDED, f"It ended at {as_words(quota.end)}."
    assert ruling is not None
    if ruling.id == quota.id:
        return State.RULES, "Of the active quotas it has the latest start."
    return (
        State.SHADOWED,
        f"Quota {ruling.id} is active too and starts later, at {as_words(ruling.start)}.",
    )


def _hold(hold: Hold, seen: Seen) -> HoldView:
    assert seen.snapshot is not None
    expires = EPOCH + timedelta(milliseconds=min(hold.expires_ms, 10**14))
    is_expired = hold.expires_ms <= seen.snapshot.now_ms
    return HoldView(hold.id, hold.quota_id, ranges.size(hold.ranges), expires, is_expired)


def _note(seen: Seen) -> str:
    if seen.snapshot is None:
        return "Redis does not answer: the numbers are the ledger's, and what is held is unknown."
    if seen.snapshot.document is None:
        return "Redis does not know the subject yet, the next batch loads it: the numbers are the ledger's."
    return "" if seen.is_current else "Redis has yet to hear of the last edit."


@dataclass(frozen=True, slots=True)
class _Forecast:
    outcome: Prediction
    granted: int | None = None
    at_once: int | None = None
    missing: int = 0
    """Units that the ledger has free and Redis does not, where that denies them."""


def _forecast(seen: Seen, amount: int, skew: timedelta, *, refuses: bool) -> _Forecast:
    """What ExactQuota and the scripts would do with a batch now."""
    if seen.snapshot is None and refuses:
        return _Forecast(Prediction.REFUSED, 0, 0)
    quota = ruling_at(seen.known.quotas, seen.now)
    if quota is None:
        return _Forecast(Prediction.NO_QUOTA)
    if quota.limit is None:
        return _Forecast(Prediction.UNLIMITED)
    room = quota.usable - quota.used
    most = min(amount, room)
    state = seen.state(quota.id)
    if state is None or not seen.is_current or not _names(seen, quota):
        return _Forecast(_plain(most, amount), most, most)
    free = _available(state)
    expired = sum(ranges.size(hold.ranges) for hold in seen.expired(quota.id))
    at_once = min(most, free + expired)
    if free < amount and _is_final(seen, quota, state, free, skew):
        granted = min(free, most)
        return _Forecast(_plain(granted, amount), granted, granted, room - granted)
    if at_once < most and state.holds:
        return _Forecast(Prediction.BUSY, most, at_once)
    if free < amount and not state.holds and _is_near(seen, skew):
        return _Forecast(Prediction.BOUNDARY, most, at_once)
    return _Forecast(_plain(most, amount), most, most)


def _by_numbers(ruling: QuotaView | None, amount: int) -> _Forecast:
    """What is left now, for a batch at another moment."""
    if ruling is None:
        return _Forecast(Prediction.NO_QUOTA)
    if ruling.remaining is None:
        return _Forecast(Prediction.UNLIMITED)
    granted = min(amount, ruling.remaining)
    return _Forecast(_plain(granted, amount), granted, granted)


def _plain(granted: int, amount: int) -> Prediction:
    if granted == amount:
        return Prediction.GRANTED
    return Prediction.PARTLY if granted else Prediction.DENIED


def _redis_now(seen: Seen) -> datetime:
    assert seen.snapshot is not None
    return EPOCH + timedelta(milliseconds=seen.snapshot.now_ms)


def _names(seen: Seen, quota: LedgerQuota) -> bool:
    """Whether Redis names the same quota by its own clock."""
    return ruling_at(seen.known.quotas, _redis_now(seen)) is quota


def _available(state: QuotaState) -> int:
    """As `available` in choose.lua: what comes back after a limit was lowered may be more than it leaves."""
    usage, free = state.usage, ranges.size(state.free)
    return free if usage.limit is None else max(0, min(free, usage.limit - usage.used - usage.held))


def _is_near(seen: Seen, skew: timedelta) -> bool:
    now = _redis_now(seen)
    moments = [m for quota in seen.known.quotas for m in (quota.start, quota.end) if m is not None]
    return any(abs(now - moment) < skew for moment in moments)


def _is_final(
    seen: Seen, quota: LedgerQuota, state: QuotaState, free: int, skew: timedelta
) -> bool:
    """Whether Redis, having given what it has free, says FULL and is believed, so that the ledger is not asked."""
    offered, _ = ranges.split(state.free, free)
    is_whole = len(offered) <= RANGES_PER_GRANT * (MAX_GRANTS - 1)
    is_free = ranges.subtract(offered, quota.taken) == offered
    return not state.holds and not _is_near(seen, skew) and is_whole and is_free


def _sentence(status: Status, now: datetime, amount: int, forecast: _Forecast) -> str:
    quota = status.ruling
    if quota is None:
        parts = [_without_quota(status, now)]
    else:
        parts = [_ruling(status, quota, now), _numbers(quota, status, now)]
        if status.at >= now and forecast.outcome is not Prediction.REFUSED:
            parts.append(_outcome(quota, amount, forecast))
        parts.append(status.note)
    if forecast.outcome is Prediction.REFUSED:
        parts.append("Without Redis batches are refused here, as an outage.")
    if forecast.missing:
        parts.append(
            f"The ledger has {forecast.missing:,} more free than Redis knows of: an audit puts that right."
        )
    return " ".join(filter(None, parts))


def _without_quota(status: Status, now: datetime) -> str:
    when = "now" if status.at == now else f"at {as_words(status.at)}"
    verb = "ruled" if status.at < now else "rules"
    later = [quota for quota in status.quotas if quota.state is State.SCHEDULED]
    sentence = (
        f"No quota {verb} {status.subject} {when}: nothing limits a batch, and nothing is counted."
    )
    if not later:
        return sentence
    return f"{sentence} The next one, quota {later[-1].id}, starts at {as_words(later[-1].start)}."


def _ruling(status: Status, quota: QuotaView, now: datetime) -> str:
    when = "" if status.at == now else f" at {as_words(status.at)}"
    verb = "ruled" if status.at < now else "rules"
    others = sum(view.state is State.SHADOWED for view in status.quotas)
    why = f"its start is the latest of {others + 1} active ones" if others else "no other is active"
    allows = "without a limit" if quota.limit is None else f"with a limit of {quota.limit:,}"
    end = "no end" if quota.end is None else f"the end {as_words(quota.end)}"
    return (
        f"Quota {quota.id} {verb} {status.subject}{when}, for {why}: "
        f"{allows}, from {as_words(quota.start)}, {end}."
    )


def _numbers(quota: QuotaView, status: Status, now: datetime) -> str:
    used = f"{quota.used:,} used"
    held = f", {quota.held:,} held by {len(quota.holds)} workers" if quota.held else ""
    left = f", {quota.remaining:,} left" if quota.remaining is not None else ""
    by_now = "" if status.at == now else "By now "
    return f"{by_now}{used}{held}{left}."


def _outcome(quota: QuotaView, amount: int, forecast: _Forecast) -> str:
    batch, granted = f"A batch of {amount:,}", forecast.granted or 0
    at_once = forecast.at_once or 0
    match forecast.outcome:
        case Prediction.UNLIMITED:
            return f"{batch} would be granted whole, and counted."
        case Prediction.GRANTED:
            return f"{batch} would be granted whole."
        case Prediction.PARTLY:
            return f"{batch} would get {granted:,}; {amount - granted:,} would be denied."
        case Prediction.DENIED:
            why = "the quota allows nothing" if quota.limit == 0 else "the quota is used up"
            return f"{batch} would get nothing: {why}."
        case Prediction.BUSY:
            return (
                f"{batch} would get {at_once:,} at once, and up to {granted - at_once:,} more of what workers "
                "hold and do not use."
            )
        case _:
            return (
                f"{batch} would get {granted:,}: a period starts or ends at this moment, so the ledger "
                "decides."
            )
