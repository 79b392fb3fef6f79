"""What each operation sends and how its answer is read: the one logic of Counters and AsyncCounters."""

import itertools
import os
import re
import secrets
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from quota_redis import ranges, scripts
from quota_redis.connection import text
from quota_redis.errors import Garbled, InvalidArgument, KeyReused, StateLost
from quota_redis.keys import Keys, check_text, encode_text
from quota_redis.recent import Recent
from quota_redis.scripts import Call, Reply, Script, Value, bulk
from quota_redis.types import (
    MAX_LIMIT,
    MAX_QUOTAS,
    MAX_RESERVE,
    Denied,
    Granted,
    Hold,
    NoQuota,
    Quota,
    QuotaState,
    Reason,
    Reservation,
    Snapshot,
    Usage,
    check_integer,
)

Consumed: TypeAlias = Granted | Denied | NoQuota
Reserved: TypeAlias = Reservation | Denied | NoQuota

_QUOTA_END = 2**63
MAX_SKEW = timedelta(hours=1)
MAX_REMEMBER_FULL = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Keyed(NamedTuple):
    """A consume of one subject and amount, packed but for the place of its answer, which is new each time."""

    script: Script
    keys: tuple[str, str]
    answers: str
    args: tuple[Value, ...]
    before: bytes
    after: bytes


class Calls:
    """The operations on the counters of one namespace. Raises InvalidArgument for values that make none."""

    def __init__(
        self,
        namespace: str,
        *,
        lease: timedelta,
        boundary_skew: timedelta,
        remember_full: timedelta,
    ) -> None:
        self.keys = Keys(namespace)
        self._keys = lru_cache(maxsize=4096)(self._make_keys)
        # By type too: what is no integer may be equal to one.
        self._consume = lru_cache(maxsize=4096, typed=True)(self._make_consume)
        self._keyed = lru_cache(maxsize=4096, typed=True)(self._make_keyed)
        self._lease_ms = milliseconds("lease", lease, timedelta(days=1))
        _check_span("boundary_skew", boundary_skew, MAX_SKEW)
        _check_span("remember_full", remember_full, MAX_REMEMBER_FULL)
        self._skew = boundary_skew // timedelta(microseconds=1)
        span = remember_full.total_seconds()
        self._full: Recent[Denied] = Recent(span)
        self._without_quota: Recent[NoQuota] = Recent(span)

    def define(self, subject: str, quotas: Sequence[Quota]) -> Call[int]:
        if len(quotas) > MAX_QUOTAS:
            raise InvalidArgument(
                f"{subject!r} has {len(quotas)} quotas: give at most {MAX_QUOTAS}."
            )
        ordered = sorted(quotas, key=lambda quota: quota.start, reverse=True)
        if len({quota.id for quota in quotas}) < len(quotas):
            raise InvalidArgument(f"{subject!r} has two quotas with the same id.")
        if len({quota.start for quota in quotas}) < len(quotas):
            raise InvalidArgument(f"{subject!r} has two quotas with the same start: one must rule.")
        values: list[Value] = [subject]
        for quota in ordered:
            limit = "" if quota.limit is None else str(quota.limit)
            values += [str(quota.id), microseconds(quota.start), microseconds(quota.end), limit]
        self.forget(subject)
        return Call(scripts.load("define"), self._keys(subject), values, int, subject)

    def consume(
        self, subject: str, amount: int, key: str | None, remember: timedelta
    ) -> Call[Consumed]:
        if key is None:
            return self._consume(subject, amount)
        encode_text("key", key)
        script, keys, answers, args, before, after = self._keyed(subject, amount, remember)
        answer_key = answers + key

        def read(reply: Reply) -> Consumed:
            return self._consumed(subject, amount, key, reply)

        packed = b"%b%b%b" % (before, bulk(answer_key), after)
        return Call(script, (*keys, answer_key), args, read, subject, packed)

    def reserve(self, subject: str, amount: int, hold_id: str | None) -> Call[Reserved]:
        check_integer("amount", amount, 1, MAX_RESERVE)
        if hold_id is None:
            hold_id = new_hold_id()
        else:
            check_text("hold id", hold_id)
        args = (subject, amount, hold_id, self._lease_ms, self._skew)

        def read(reply: Reply) -> Reserved:
            return self._reserved(subject, hold_id, reply)

        return Call(scripts.load("reserve"), self._keys(subject), args, read, subject)

    def settle(self, reservation: Reservation, used: int) -> Call[None]:
        check_integer("used", used, 0, reservation.amount)
        rest = () if used == reservation.amount else ranges.split(reservation.ranges, used)[1]
        return self.give_back(reservation.subject, reservation.hold_id, rest)

    def release(self, subject: str, hold_id: str) -> Call[None]:
        return self.give_back(subject, hold_id, ranges.EVERYTHING)

    def give_back(self, subject: str, hold_id: str, back: ranges.Ranges) -> Call[None]:
        args = (hold_id, ranges.render(back))
        return Call(scripts.load("settle"), self._keys(subject)[:1], args, _nothing, subject)

    def snapshot(self, subject: str) -> Call[Snapshot]:
        def read(reply: Reply) -> Snapshot:
            return read_snapshot(subject, reply)

        return Call(scripts.load("snapshot"), self._keys(subject)[:1], (), read, subject)

    def recall(self, subject: str) -> Denied | None:
        """What was answered a moment ago, where that was FULL with nothing left for anybody.

        Nothing comes free under FULL but by an edit or a repair: whoever has a ledger compares the version.
        """
        return self._full.recall(subject)

    def note_without_quota(self, subject: str, answer: NoQuota, *, at: float) -> None:
        """Remember that Redis knew of no active quota at a moment of time.monotonic()."""
        self._without_quota.note(subject, answer, at=at, true_for=self._true_for(answer))

    def recall_without_quota(self, subject: str) -> NoQuota | None:
        """What was noted a moment ago: for who asks PostgreSQL in every transaction whether it is still so, and
        forgets it where it is not. Nobody else would hear of a quota that was created meanwhile."""
        return self._without_quota.recall(subject)

    def forget(self, subject: str) -> None:
        """Remember nothing of a subject any longer."""
        self._full.forget(subject)
        self._without_quota.forget(subject)

    def usage_of(self, snapshot: Snapshot) -> dict[int, Usage]:
        """The numbers of all quotas of a snapshot. Raises StateLost."""
        if snapshot.document is None:
            raise self._lost(snapshot.subject)
        return {quota: state.usage for quota, state in snapshot.quotas.items()}

    def _make_keys(self, subject: str) -> tuple[str, str]:
        return self.keys.subject(subject), self.keys.changed(subject)

    def _make_consume(self, subject: str, amount: int) -> Call[Consumed]:
        """One without a key is the same each time. It keeps no answer; its place has a key of the same node."""
        check_integer("amount", amount, 1, MAX_LIMIT)
        subject_key, changed_key = self._keys(subject)

        def read(reply: Reply) -> Consumed:
            return self._consumed(subject, amount, None, reply)

        keys, args = (subject_key, changed_key, subject_key), (subject, amount, 0)
        call = Call(scripts.load("consume"), keys, args, read, subject)
        return call._replace(packed=call.by_hash())

    def _make_keyed(self, subject: str, amount: int, remember: timedelta) -> _Keyed:
        check_integer("amount", amount, 1, MAX_LIMIT)
        remember_ms = milliseconds("remember", remember, timedelta(days=7))
        script, keys = scripts.load("consume"), self._keys(subject)
        command, args = ("EVALSHA", script.sha, 3, *keys), (subject, amount, remember_ms)
        count = b"*%d\r\n" % (len(command) + 1 + len(args))
        before, after = (b"".join([bulk(value) for value in part]) for part in (command, args))
        return _Keyed(script, keys, self.keys.answers(subject), args, count + before, after)

    def _consumed(self, subject: str, amount: int, key: str | None, reply: Reply) -> Consumed:
        word, *values = text(reply).split(":")
        if word == "GRANTED":
            return Granted(_usage(*values))
        if word == "NO_QUOTA":
            return NoQuota()
        if word == "REUSED":
            raise KeyReused(
                f"key {key!r} was used for {values[0]} units and now for {amount}: "
                "give every call a key of its own."
            )
        if word == "UNKNOWN":
            raise self._lost(subject)
        quota, limit, used, held, changes = values
        return self._denied(subject, word, _usage(quota, limit, used, held), 0, changes)

    def _reserved(self, subject: str, hold_id: str, reply: Reply) -> Reserved:
        word, *values = text(reply).split(":")
        if word == "UNKNOWN":
            raise self._lost(subject)
        if word == "NO_QUOTA":
            return NoQuota(int(values[0]), _milliseconds(values[1]))
        quota, version, limit, used, held, changes, listed = values
        usage = _usage(quota, limit, used, held)
        if word != "SLOTS":
            return self._denied(subject, word, usage, int(version), changes)
        slots = ranges.parse(listed)
        size = check_integer("slots", ranges.size(slots), 1, MAX_RESERVE)
        check_integer("slot", slots[-1][1], 1, ranges.SLOT_END - 1)
        return Reservation(
            subject, hold_id, slots, size, usage, int(version), _milliseconds(changes)
        )

    def _denied(self, subject: str, word: str, usage: Usage, version: int, changes: str) -> Denied:
        denied = Denied(Reason(word.lower()), usage, version, _milliseconds(changes))
        if denied.reason is Reason.FULL and usage.remaining == 0:
            now = time.monotonic()
            self._full.note(subject, denied, at=now, true_for=self._true_for(denied))
        return denied

    def _true_for(self, answer: Denied | NoQuota) -> float | None:
        """Seconds until another quota may rule by some clock; None = not known to come."""
        if answer.changes_in_ms is None:
            return None
        return (answer.changes_in_ms - self._skew / 1000) / 1000

    def _lost(self, subject: str) -> StateLost:
        return StateLost(
            f"Redis knows nothing of {subject!r} in namespace {self.keys.namespace!r}: "
            "define its quotas, or absorb them from the ledger."
        )


def microseconds(moment: datetime | None) -> str:
    """A moment as the scripts read it: microseconds since 1970, with zeros at the end counted; empty for none."""
    if moment is None:
        return ""
    digits = str((moment - EPOCH) // timedelta(microseconds=1))
    short = digits.rstrip("0")
    zeros = len(digits) - len(short)
    return f"{short}e{zeros}" if short and zeros > 2 else digits


def usable_text(usable: int, limit: int | None) -> str:
    """Slots that are not void, as the scripts read them: the usual ones in short."""
    if usable == ranges.SLOT_END - 1:
        return ""
    return "=" if usable == limit else str(usable)


def _usable(text_: str, limit: str) -> int:
    return ranges.SLOT_END - 1 if text_ == "" else int(limit if text_ == "=" else text_)


@lru_cache(maxsize=64)
def milliseconds(name: str, span: timedelta, highest: timedelta) -> int:
    """A span in whole milliseconds, at least one and at most `highest`."""
    if not isinstance(span, timedelta) or not timedelta(milliseconds=1) <= span <= highest:
        raise InvalidArgument(f"{name} is {span!r}: give a timedelta from 1 ms to {highest}.")
    return span // timedelta(milliseconds=1)


def _check_span(name: str, span: timedelta, highest: timedelta) -> None:
    if not isinstance(span, timedelta) or not timedelta(0) <= span <= highest:
        raise InvalidArgument(f"{name} is {span!r}: give a timedelta from 0 to {highest}.")


class _HoldIds:
    """HOST.PROCESS.RANDOM, so that a hold tells who has it; random once in each process, then counted on."""

    def __init__(self) -> None:
        self._host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:20] or "host"
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._prefix = f"{self._host}.{os.getpid()}.{secrets.token_hex(8)}"
        self._count = itertools.count()

    def new(self) -> str:
        return f"{self._prefix}{next(self._count):x}"


new_hold_id = _HoldIds().new
"""An id for one attempt, never used before."""


def _nothing(reply: Reply) -> None:
    int(reply)


def _milliseconds(value: str) -> int | None:
    return int(value) if value else None


def _usage(quota: str, limit: str, used: str, held: str) -> Usage:
    quota_id = int(quota)
    if not 0 <= quota_id < _QUOTA_END:
        raise ValueError(f"{quota_id} is no quota")
    return Usage(quota_id, int(limit) if limit else None, max(0, int(used)), int(held))


def snapshot_of(call: Call[Snapshot], outcome: Snapshot | Exception) -> Snapshot:
    """The snapshot, one that is marked as garbled, or what an outage raises."""
    if isinstance(outcome, Garbled):
        return Snapshot(call.subject, 0, None, 0, "", {}, (), is_garbled=True)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def read_snapshot(subject: str, reply: Sequence[bytes | str | int]) -> Snapshot:
    """Read what snapshot.lua wrote; the layout of the hash is in scripts/lua/include/state.lua."""
    fields = dict(zip(map(text, reply[1::2]), map(text, reply[2::2]), strict=True))
    document = fields.get("d")
    version, _, listed = (document or "0|").partition("|")
    quotas: dict[int, QuotaState] = {}
    for entry in filter(None, listed.split(";")):
        quota, _, _, limit, usable = entry.split(":")
        raw = fields.get(f"q{quota}")
        if raw is not None:
            quotas[int(quota)] = _quota_state(int(quota), limit, _usable(usable, limit), raw)
    holds = [_hold(field[1:], raw) for field, raw in fields.items() if field.startswith("h")]
    return Snapshot(
        subject, int(reply[0]), document, int(version), fields.get("a", ""), quotas, tuple(holds)
    )


def _quota_state(quota: int, limit: str, usable: int, raw: str) -> QuotaState:
    free, held, holds, _, listed = raw.split(":")
    usage = Usage(
        quota, int(limit) if limit else None, max(0, usable - int(free) - int(held)), int(held)
    )
    return QuotaState(usage, ranges.parse(listed), int(holds), raw)


def _hold(hold_id: str, raw: str) -> Hold:
    quota, expires, listed = raw.split(":")
    return Hold(hold_id, int(quota), int(expires), ranges.parse(listed), raw)
