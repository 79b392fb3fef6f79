"""Counters: quotas in Redis, enforced by scripts; without a ledger they are as durable as that Redis."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from quota_redis import ranges
from quota_redis.calls import Calls, Consumed, Reserved, snapshot_of
from quota_redis.connection import Connection, raise_first
from quota_redis.errors import InvalidArgument
from quota_redis.scripts import Call
from quota_redis.types import Denied, Quota, Reservation, Snapshot, Usage

DEFAULT_LEASE = timedelta(seconds=15)
DEFAULT_REMEMBER = timedelta(hours=1)
DEFAULT_REMEMBER_FULL = timedelta(milliseconds=50)


class Counters:
    """Quotas of many subjects in one namespace of a Redis (7.0 or later) or Valkey.

    A call is one round trip and is never repeated by itself. Where Redis does not answer it raises
    Unavailable, and where it knows nothing of the subject StateLost: an outage is never a denial.

    namespace: 1 to 32 of letters, digits, '_', '.' and '-'; counters of two namespaces never meet.
    lease: how long a reservation may stay unsettled. boundary_skew: how far apart the clocks of Redis and
    of the ledger's PostgreSQL may be; zero where there is no ledger. remember_full: for how long, at most a
    second, a quota that is used up is refused without asking again; so long may a limit that another process
    has raised go unseen. With a ledger nothing does, and so long is remembered too that no quota was active.
    Zero asks every time.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        namespace: str,
        lease: timedelta = DEFAULT_LEASE,
        boundary_skew: timedelta = timedelta(0),
        remember_full: timedelta = DEFAULT_REMEMBER_FULL,
    ) -> None:
        self.calls = Calls(
            namespace, lease=lease, boundary_skew=boundary_skew, remember_full=remember_full
        )
        self.keys = self.calls.keys
        self.boundary_skew = boundary_skew
        self.connection = Connection(client)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str,
        timeout: float = 0.05,
        lease: timedelta = DEFAULT_LEASE,
        boundary_skew: timedelta = timedelta(0),
        remember_full: timedelta = DEFAULT_REMEMBER_FULL,
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
        return cls(
            client,
            namespace=namespace,
            lease=lease,
            boundary_skew=boundary_skew,
            remember_full=remember_full,
        )

    def define(self, subject: str, *quotas: Quota) -> int:
        """Make these the subject's quotas, exactly; usage of those that stay is kept. Returns the version.

        For counters without a ledger. No quota at all means that nothing limits the subject.
        """
        return self.connection.send(self.calls.define(subject, quotas))

    def consume(
        self,
        subject: str,
        amount: int = 1,
        *,
        key: str | None = None,
        remember: timedelta = DEFAULT_REMEMBER,
    ) -> Consumed:
        """Use `amount` units, all or none.

        With a key, a call that was granted (or met no quota) gives the same answer again for `remember`, and
        counts once; a denial used nothing and is decided anew. Raises KeyReused where the key came with
        another amount.
        """
        call = self.calls.consume(subject, amount, key, remember)
        if key is None and (denied := self.calls.recall(subject)):
            return denied
        return self.connection.send(call)

    def reserve(self, subject: str, amount: int, *, hold_id: str | None = None) -> Reserved:
        """Hold up to `amount` units (1 to 1,000) for the lease; fewer where fewer are free.

        A hold id of the caller's, of 1 to 64 bytes, makes the call repeatable: the same id gives the first
        answer again.
        """
        call = self.calls.reserve(subject, amount, hold_id)
        if hold_id is None and (denied := self.calls.recall(subject)):
            return denied
        return self.connection.send(call)

    def reserve_many(self, wanted: Iterable[tuple[str, int]]) -> list[Reserved | Exception]:
        """Reserve for many subjects, given with their amounts, in one round trip.

        Each is decided on its own: an element is its reservation or denial, or the error of that one alone.
        Raises Unavailable where the server did not answer.
        """
        calls = [self.calls.reserve(subject, amount, None) for subject, amount in wanted]
        return self.connection.send_many(calls)

    def consume_many(self, wanted: Iterable[tuple[str, int]]) -> list[Consumed | Exception]:
        """Use units of many subjects, given with their amounts, in one round trip; otherwise as reserve_many."""
        calls = [
            self.calls.consume(subject, amount, None, DEFAULT_REMEMBER)
            for subject, amount in wanted
        ]
        return self.connection.send_many(calls)

    def settle(self, reservation: Reservation, used: int, *, wait: bool = True) -> None:
        """End a reservation: its `used` lowest slots count, the rest is free again.

        Without `wait` the call travels unanswered; where it is lost the lease ends the hold.
        """
        self._settle(self.calls.settle(reservation, used), wait=wait)

    def settle_many(self, settled: Iterable[tuple[Reservation, int]]) -> None:
        """End many reservations, given with the units used, in one round trip. Raises what one of them raises."""
        raise_first(self.connection.send_many([self.calls.settle(*each) for each in settled]))

    def release(self, subject: str, hold_id: str, *, wait: bool = True) -> None:
        """Give back a hold whole, also one of which nobody knows whether it was made."""
        self._settle(self.calls.release(subject, hold_id), wait=wait)

    def forfeit(self, subject: str) -> int:
        """Count what expired holds keep as used, for counters without a ledger; returns how many holds."""
        expired = self.snapshot(subject).expired
        for hold in expired:
            self.connection.send(self.calls.give_back(subject, hold.id, ()))
        return len(expired)

    def give_back(
        self, subject: str, hold_id: str, back: ranges.Ranges, *, wait: bool = True
    ) -> None:
        """End a hold, of which these slots (at most 500 ranges) are free again; the rest counts as used."""
        self._settle(self.calls.give_back(subject, hold_id, back), wait=wait)

    def recall(self, subject: str) -> Denied | None:
        """The FULL that was answered a moment ago, where it is remembered."""
        return self.calls.recall(subject)

    def forget(self, subject: str) -> None:
        """Remember no FULL of a subject any longer."""
        self.calls.forget(subject)

    def usage(self, subject: str) -> dict[int, Usage]:
        """The numbers of all quotas of the subject that Redis has, by quota id. Raises StateLost."""
        return self.calls.usage_of(self.snapshot(subject))

    def snapshot(self, subject: str) -> Snapshot:
        """Everything Redis has of a subject."""
        return self.connection.send(self.calls.snapshot(subject))

    def snapshots(self, subjects: Iterable[str]) -> list[Snapshot]:
        """Everything Redis has of many subjects, in one round trip. Raises where any of them fails, but for
        what is garbled: that is said in its snapshot."""
        calls = [self.calls.snapshot(subject) for subject in subjects]
        outcomes = self.connection.send_many(calls)
        return [snapshot_of(call, each) for call, each in zip(calls, outcomes, strict=True)]

    def flush(self) -> None:
        """Wait for the answers of everything that was sent without waiting."""
        self.connection.flush()

    def close(self) -> None:
        """Close what the counters opened; the client itself is its owner's."""
        self.connection.close()

    def _settle(self, call: Call[None], *, wait: bool) -> None:
        if wait:
            self.connection.send(call)
        else:
            self.connection.send_unanswered(call)
