"""sync: the counts of changed subjects, from Redis (or the ledger) to the definitions' used column."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from quota_redis.connection import text
from quota_redis.counters import Counters
from quota_redis.errors import Unavailable
from quota_redis.postgres.absorb import absorb, absorb_batch, write_counts
from quota_redis.postgres.ledger import Ledger, LedgerSubject, refuse_transaction, translated
from quota_redis.postgres.queries import PgConnection
from quota_redis.postgres.shards import run, snapshots
from quota_redis.scripts import Value
from quota_redis.types import Snapshot

logger = logging.getLogger(__name__)

ROUND = 100_000
"""Changed subjects that are sorted together, so that rows that are neighbours are written together."""
BATCH = 5000
"""Counts that are written in one transaction."""
READ = 1000
"""Subjects that are read together: marks, members of the set of changed ones, hashes."""
MAX_SCANS = 1_000_000
"""Calls that read one set of changed subjects: more would be a server that never comes to an end."""
MOVED = 2
"""What unmark answers where the definitions have changed."""

OnCounts: TypeAlias = Callable[[Mapping[int, int]], None]
"""Called with used units by quota id, after the transaction that wrote them."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one run did. `is_complete` is False where Redis was out of reach for a part of it."""

    subjects: int
    counts: int
    absorbed: int
    is_complete: bool
    was_running: bool = False


def sync(
    counters: Counters,
    ledger: Ledger,
    connection: PgConnection,
    *,
    on_counts: OnCounts | None = None,
    progress: Callable[[int], None] | None = None,
) -> SyncReport:
    """Write the counts of every subject that changed; one run at a time, safe to start twice.

    Marks that PostgreSQL keeps (edits, the direct road) are absorbed first. Where Redis does not answer, their
    counts come from the ledger and the marks stay. `progress` is told how many subjects were seen to, marked and
    changed ones alike. What it costs follows what changed, not what there is. Call it outside a transaction.
    """
    refuse_transaction(connection)
    with translated(), writing_counts(connection, ledger.namespace, wait=False) as is_ours:
        if not is_ours:
            return SyncReport(0, 0, 0, is_complete=False, was_running=True)
        return _Run(
            counters, ledger, connection, on_counts or _ignore, progress or _ignore
        ).report()


@contextlib.contextmanager
def writing_counts(connection: PgConnection, namespace: str, *, wait: bool) -> Iterator[bool]:
    """Be the only one in this namespace who writes counts; false where somebody else is and we don't wait."""
    function = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
    name = f"quota_redis:sync:{namespace}"
    row = connection.execute(
        f"SELECT {function}(hashtextextended(%s, 0))::text".encode(),
        (name,),
    ).fetchone()
    connection.commit()
    is_ours = bool(row and row[0] != "false")
    try:
        yield is_ours
    finally:
        if is_ours and not connection.closed:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))
            connection.commit()


def _ignore(_news: object) -> None:
    """Nobody wants to hear of it."""


class _Run:
    """One run of sync, and what it has done so far."""

    def __init__(
        self,
        counters: Counters,
        ledger: Ledger,
        connection: PgConnection,
        on_counts: OnCounts,
        progress: Callable[[int], None],
    ) -> None:
        self._counters = counters
        self._ledger = ledger
        self._connection = connection
        self._on_counts = on_counts
        self._progress = progress
        self._is_up = True
        self._marked = self._subjects = self._counts = self._absorbed = 0

    def report(self) -> SyncReport:
        """Do it; what Redis does not answer to is left to the next run."""
        self._absorb_marked()
        try:
            for names in self._changed():
                self._sync_batch(names)
                self._subjects += len(names)
                self._tell()
        except Unavailable as error:
            self._lose_redis(error)
        return SyncReport(self._subjects, self._counts, self._absorbed, self._is_up)

    def _tell(self) -> None:
        self._progress(self._marked + self._subjects)

    def _lose_redis(self, error: Unavailable) -> None:
        logger.warning("sync leaves the rest to the next run: %s", error)
        self._is_up = False

    def _absorb_marked(self) -> None:
        """Absorb what PostgreSQL marked. A mark goes only after what it stands for has reached Redis."""
        after = 0
        while marks := self._marks(after):
            after = marks[-1][0]
            subjects = sorted({subject for _, subject in marks})
            done: Mapping[str, LedgerSubject] = {}
            try:
                if self._is_up:
                    done = absorb_batch(self._counters, self._ledger, self._connection, subjects)
            except Unavailable as error:
                self._lose_redis(error)
            known = done.values() if self._is_up else self._read_ledger(subjects)
            self._write({quota.id: quota.used for now in known for quota in now.quotas})
            with self._connection.transaction():
                self._connection.execute(
                    "DELETE FROM quota_redis_mark WHERE id = ANY(%s)",
                    ([mark for mark, subject in marks if subject in done],),
                )
            self._absorbed += len(done)
            self._marked += len(subjects)
            self._tell()

    def _marks(self, after: int) -> list[tuple[int, str]]:
        with self._connection.transaction():
            return self._connection.execute(
                "SELECT id, subject FROM quota_redis_mark WHERE namespace = %s AND id > %s ORDER BY id LIMIT %s",
                (self._ledger.namespace, after, READ),
            ).fetchall()

    def _read_ledger(self, subjects: Sequence[str]) -> Sequence[LedgerSubject]:
        with self._connection.transaction():
            return self._ledger.read(self._connection, subjects)

    def _write(self, wanted: Mapping[int, int]) -> set[int]:
        with self._connection.transaction():
            written = write_counts(self._ledger, self._connection, wanted)
        self._on_counts({quota: wanted[quota] for quota in written})
        return written

    def _changed(self) -> Iterator[list[str]]:
        """The subjects that Redis marked as changed, in batches."""
        names: set[str] = set()
        for shard in range(self._counters.keys.shards):
            for members in self._scan(self._counters.keys.changed_of(shard)):
                names.update(filter(self._ledger.is_subject, map(text, members)))
                if len(names) >= ROUND:
                    yield from _in_order(names)
                    names.clear()
        yield from _in_order(names)

    def _scan(self, key: str) -> Iterator[list[bytes | str]]:
        cursor = "0"
        for _ in range(MAX_SCANS):
            answer = self._counters.connection.command("SSCAN", key, cursor, "COUNT", READ)
            cursor = text(answer[0])
            yield answer[1]
            if cursor == "0":
                return

    def _sync_batch(self, names: Sequence[str]) -> None:
        seen = self._look(names)
        wanted = {
            quota: state.usage.used for snapshot in seen for quota, state in snapshot.quotas.items()
        }
        written = self._write(wanted)
        self._counts += len(written)
        done = written | _gone(self._ledger, self._connection, wanted.keys() - written)
        moved = _unmark(self._counters, seen, done)
        if moved:
            # What has left Redis meanwhile was counted a last time by whoever took it out, perhaps before us.
            with self._connection.transaction():
                counts = self._ledger.used(self._connection, moved)
            self._write(counts)

    def _look(self, names: Sequence[str]) -> list[Snapshot]:
        """What Redis has of the subjects, those absorbed that it lost, that are garbled, or with expired holds."""
        seen = [
            s
            for at in range(0, len(names), READ)
            for s in snapshots(self._counters, names[at : at + READ])
        ]
        stale = [s.subject for s in seen if s.document is None or s.expired]
        if not stale:
            return seen
        absorb(self._counters, self._ledger, self._connection, stale)
        self._absorbed += len(stale)
        fresh = {s.subject: s for s in snapshots(self._counters, stale)}
        return [fresh.get(s.subject, s) for s in seen]


def _in_order(names: Iterable[str]) -> Iterator[list[str]]:
    """In batches, shorter names first: so `target:9` comes before `target:10`, as their rows do."""
    ordered = sorted(names, key=lambda name: (len(name), name))
    for at in range(0, len(ordered), BATCH):
        yield ordered[at : at + BATCH]


def _gone(ledger: Ledger, connection: PgConnection, quotas: set[int]) -> set[int]:
    """Those of the quotas that have no row any more, unlike rows that are merely locked."""
    if not quotas:
        return set()
    t = ledger.table
    query = f"SELECT {t.id} FROM {t.table} WHERE {t.id} = ANY(%s)"  # noqa: S608
    with connection.transaction():
        rows = connection.execute(query.encode(), (list(quotas),)).fetchall()
    return quotas - {row[0] for row in rows}


def _unmark(counters: Counters, seen: Iterable[Snapshot], done: set[int]) -> list[int]:
    """Clear the marks of subjects that have not changed since, of which nothing is held and all quotas are done.

    Returns the quotas of those whose definitions have changed.
    """
    by_name = {snapshot.subject: snapshot for snapshot in seen if snapshot.document is not None}
    values = {name: _seen_values(snapshot, done) for name, snapshot in by_name.items()}
    answers = run(counters, "unmark", values)
    return [
        quota
        for name, answer in answers.items()
        if answer == MOVED
        for quota in by_name[name].quotas
    ]


def _seen_values(snapshot: Snapshot, done: set[int]) -> list[Value]:
    may_go = not snapshot.holds and snapshot.quotas.keys() <= done
    member = snapshot.subject if may_go else ""
    values: list[Value] = [member, 1 + len(snapshot.quotas), "d", snapshot.document or ""]
    for quota, state in snapshot.quotas.items():
        values += [f"q{quota}", state.raw]
    return values
