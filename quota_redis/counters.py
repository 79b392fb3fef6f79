"""Counters: quotas in Redis, enforced by scripts; without a ledger they are as durable as that Redis."""

import os
import re
import secrets
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_redis import ranges
from quota_redis.connection import Connection, Reply, text
from quota_redis.errors import Garbled, InvalidArgument, KeyReused, StateLost
from quota_redis.keys import Keys, check_text
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

DEFAULT_LEASE = timedelta(seconds=15)
DEFAULT_REMEMBER = timedelta(hours=1)
MAX_SKEW = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:20] or "host"
_NONSENSE = (ValueError, TypeError, LookupError, AttributeError)
"""What reading a reply raises that none of our scripts gave."""


def microseconds(moment: datetime | None) -> str:
    """A moment as the scripts read it: microseconds since 1970, empty for none."""
    return "" if moment is None else str((moment - EPOCH) // timedelta(microseconds=1))


def milliseconds(name: str, span: timedelta, highest: timedelta) -> int:
    """A span in whole milliseconds, at least one and at most `highest`."""
    if not isinstance(span, timedelta) or not timedelta(milliseconds=1) <= span <= highest:
        raise InvalidArgument(f"{name} is {span!r}: give a timedelta from 1 ms to {highest}.")
    return span // timedelta(milliseconds=1)


class Counters:
    """Quotas of many subjects in one namespace of a Redis (7.0 or later) or Valkey.

    A call is one round trip and is never repeated by itself. Where Redis does not answer it raises
    Unavailable, and where it knows nothing of the subject StateLost: an outage is never a denial.

    namespace: 1 to 32 of letters, digits, '_', '.' and '-'; counters of two namespaces never meet.
    lease: how long a reservation may stay unsettled. boundary_skew: how far apart the clocks of Redis and
    of the ledger's PostgreSQL may be; zero where there is no ledger.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        namespace: str,
        lease: timedelta = DEFAULT_LEASE,
        boundary_skew: timedelta = timedelta(0),
    ) -> None:
        self.keys = Keys(namespace)
        self.connection = Connection(client)
        self._lease_ms = milliseconds("lease", lease, timedelta(days=1))
        if not timedelta(0) <= boundary_skew <= MAX_SKEW:
            raise InvalidArgument(
                f"boundary_skew is {boundary_skew!r}: give a timedelta from 0 to {MAX_SKEW}."
            )
        self.boundary_skew = boundary_skew
        self._skew_us = boundary_skew // timedelta(microseconds=1)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str,
        timeout: float = 0.05,
        lease: timedelta = DEFAULT_LEASE,
        boundary_skew: timedelta = timedelta(0),
    ) -> Self:
        """Counters on the server at a redis://, rediss:// or unix:// address; `timeout` in seconds."""
        try:
            client = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise InvalidArgument(f"the address of Redis cannot be used: {error}") from error
        return cls(client, namespace=namespace, lease=lease, boundary_skew=boundary_skew)

    def define(self, subject: str, *quotas: Quota) -> int:
        """Make these the subject's quotas, exactly; usage of those that stay is kept. Returns the version.

        For counters without a ledger. No quota at all means that nothing limits the subject.
        """
        if len(quotas) > MAX_QUOTAS:
            raise InvalidArgument(
                f"{subject!r} has {len(quotas)} quotas: give at most {MAX_QUOTAS}."
            )
        ordered = sorted(quotas, key=lambda quota: quota.start, reverse=True)
        if len({quota.id for quota in quotas}) < len(quotas):
            raise InvalidArgument(f"{subject!r} has two quotas with the same id.")
        if len({quota.start for quota in quotas}) < len(quotas):
            raise InvalidArgument(f"{subject!r} has two quotas with the same start: one must rule.")
        values = [subject]
        for quota in ordered:
            limit = "" if quota.limit is None else str(quota.limit)
            values += [str(quota.id), microseconds(quota.start), microseconds(quota.end), limit]
        return int(self.connection.run("define", self._keys(subject), values))

    def consume(
        self,
        subject: str,
        amount: int = 1,
        *,
        key: str | None = None,
        remember: timedelta = DEFAULT_REMEMBER,
    ) -> Granted | Denied | NoQuota:
        """Use `amount` units, all or none.

        With a key, a call that was granted (or met no quota) gives the same answer again for `remember`, and
        counts once; a denial used nothing and is decided anew. Raises KeyReused where the key came with
        another amount.
        """
        check_integer("amount", amount, 1, MAX_LIMIT)
        remember_ms = 0
        if key is not None:
            check_text("key", key)
            remember_ms = milliseconds("remember", remember, timedelta(days=7))
        keys = [*self._keys(subject), self.keys.answer(subject, key or "-")]
        reply = self.connection.run("consume", keys, [subject, amount, remember_ms])
        try:
            return self._consumed(subject, amount, key, reply)
        except _NONSENSE as error:
            raise _garbled(subject, reply) from error

    def _consumed(
        self, subject: str, amount: int, key: str | None, reply: Reply
    ) -> Granted | Denied | NoQuota:
        word = text(reply[0])
        if word == "GRANTED":
            return Granted(_usage(*reply[1:5]))
        if word == "NO_QUOTA":
            return NoQuota()
        if word == "REUSED":
            raise KeyReused(
                f"key {key!r} was used for {text(reply[1])} units and now for {amount}: "
                "give every call a key of its own."
            )
        if word == "UNKNOWN":
            raise self._lost(subject)
        return Denied(Reason(word.lower()), _usage(*reply[1:5]))

    def reserve(
        self, subject: str, amount: int, *, hold_id: str | None = None
    ) -> Reservation | Denied | NoQuota:
        """Hold up to `amount` units (1 to 1,000) for the lease; fewer where fewer are free.

        A hold id of the caller's, of 1 to 64 bytes, makes the call repeatable: the same id gives the first
        answer again.
        """
        check_integer("amount", amount, 1, MAX_RESERVE)
        if hold_id is None:
            hold_id = new_hold_id()
        else:
            check_text("hold id", hold_id)
        reply = self.connection.run(
            "reserve",
            self._keys(subject),
            [subject, amount, hold_id, self._lease_ms, self._skew_us],
        )
        try:
            return self._reserved(subject, hold_id, reply)
        except _NONSENSE as error:
            raise _garbled(subject, reply) from error

    def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None:
        """End a reservation: its `used` lowest slots count, the rest is free again.

        Without `wait` the call travels unanswered; where it is lost the lease ends the hold.
        """
        check_integer("used", used, 0, reservation.amount)
        _, rest = ranges.split(reservation.ranges, used)
        self._settle(reservation.subject, reservation.hold_id, rest, wait=wait)

    def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None:
        """Give back a hold whole, also one of which nobody knows whether it was made."""
        self._settle(subject, hold_id, ranges.EVERYTHING, wait=wait)

    def forfeit(self, subject: str) -> int:
        """Count what expired holds keep as used, for counters without a ledger; returns how many holds."""
        expired = self.snapshot(subject).expired
        for hold in expired:
            self._settle(subject, hold.id, (), wait=True)
        return len(expired)

    def usage(self, subject: str) -> dict[int, Usage]:
        """The numbers of all quotas of the subject that Redis has, by quota id. Raises StateLost."""
        snapshot = self.snapshot(subject)
        if snapshot.document is None:
            raise self._lost(subject)
        return {quota: state.usage for quota, state in snapshot.quotas.items()}

    def snapshot(self, subject: str) -> Snapshot:
        """Everything Redis has of a subject."""
        reply = self.connection.run("snapshot", [self.keys.subject(subject)], [])
        try:
            return read_snapshot(subject, reply)
        except _NONSENSE as error:
            raise _garbled(subject, reply) from error

    def snapshots(self, subjects: Iterable[str]) -> list[Snapshot]:
        """Everything Redis has of many subjects, in one round trip. Raises where any of them fails, but for
        what is garbled: that is said in its snapshot."""
        names = list(subjects)
        replies = self.connection.run_many(
            "snapshot", [([self.keys.subject(s)], []) for s in names]
        )
        return [_snapshot_of(name, reply) for name, reply in zip(names, replies, strict=True)]

    def flush(self) -> None:
        """Wait for the answers of everything that was sent without waiting."""
        self.connection.flush()

    def close(self) -> None:
        """Close what the counters opened; the client itself is its owner's."""
        self.connection.close()

    def _keys(self, subject: str) -> list[str]:
        return [self.keys.subject(subject), self.keys.changed(subject)]

    def _settle(self, subject: str, hold_id: str, back: ranges.Ranges, *, wait: bool) -> None:
        call = self.connection.run if wait else self.connection.post
        call("settle", [self.keys.subject(subject)], [hold_id, ranges.render(back)])

    def _reserved(self, subject: str, hold_id: str, reply: Reply) -> Reservation | Denied | NoQuota:
        word = text(reply[0])
        if word == "UNKNOWN":
            raise self._lost(subject)
        if word == "NO_QUOTA":
            return NoQuota(version=int(reply[1]))
        version, usage = int(reply[2]), _usage(reply[1], *reply[3:6])
        if word != "SLOTS":
            return Denied(Reason(word.lower()), usage, version)
        held = ranges.parse(text(reply[6]))
        size = check_integer("slots", ranges.size(held), 1, MAX_RESERVE)
        check_integer("slot", held[-1][1], 1, ranges.SLOT_END - 1)
        return Reservation(subject, hold_id, held, size, usage, version)

    def _lost(self, subject: str) -> StateLost:
        return StateLost(
            f"Redis knows nothing of {subject!r} in namespace {self.keys.namespace!r}: "
            "define its quotas, or absorb them from the ledger."
        )


def new_hold_id() -> str:
    """An id for one attempt, never used before: HOST.PROCESS.RANDOM, so that a hold tells who has it."""
    return f"{_HOST}.{os.getpid()}.{secrets.token_hex(12)}"


def _usage(quota: bytes | str, limit: bytes | str, used: int, held: int) -> Usage:
    most = text(limit)
    quota_id = check_integer("quota", int(quota), 0, 2**63 - 1)
    return Usage(quota_id, int(most) if most else None, max(0, int(used)), int(held))


def _snapshot_of(subject: str, reply: Reply) -> Snapshot:
    """The snapshot, one that is marked as garbled, or what an outage raises."""
    garbled = Snapshot(subject, 0, None, 0, "", {}, (), is_garbled=True)
    if isinstance(reply, Garbled):
        return garbled
    if isinstance(reply, Exception):
        raise reply
    try:
        return read_snapshot(subject, reply)
    except _NONSENSE:
        return garbled


def _garbled(subject: str, reply: Reply) -> Garbled:
    return Garbled(
        f"Redis has something of {subject!r} that no script wrote: {str(reply)[:100]!r}. Rebuild the subject."
    )


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
            quotas[int(quota)] = _quota_state(int(quota), limit, int(usable), raw)
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
