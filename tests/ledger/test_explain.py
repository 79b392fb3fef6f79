"""explain: who rules, what is left, and what a batch gets, told as it then comes to pass."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from bench import EMPTY_SQL, HOUR, NAMESPACE, START, SUBJECT, Bench, Connect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quota_redis import Counters, InvalidArgument, Reservation, Unavailable
from quota_redis.postgres import Explanation, Preview, absorb, explain, preview_edit
from quota_redis.postgres.explain import Prediction, State, examine

Absorbed = Callable[..., int]
LATER = datetime(2199, 1, 1, tzinfo=UTC)


def explained(bench: Bench, amount: int = 1, **options: Any) -> Explanation:
    bench.counters.flush()
    return explain(
        bench.counters, bench.ledger, bench.connection, SUBJECT, amount=amount, **options
    )


class TestNow:
    def test_no_quota(self, bench: Bench) -> None:
        told = explained(bench, 20)
        assert (told.outcome, told.granted, told.ruling) == (Prediction.NO_QUOTA, None, None)
        assert told.sentence.startswith("No quota rules team:7 now: nothing limits a batch")

    def test_a_quota_with_room(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(10)
        bench.spend(4)
        told = explained(bench, 6)
        assert told.is_live
        assert told.ruling is not None
        assert (told.ruling.id, told.ruling.used, told.ruling.remaining) == (quota, 4, 6)
        assert (told.outcome, told.granted, told.at_once) == (Prediction.GRANTED, 6, 6)
        assert told.sentence == (
            f"Quota {quota} rules team:7, for no other is active: with a limit of 10, "
            "from 2020-01-01 00:00 UTC, no end. 4 used, 6 left. A batch of 6 would be granted whole."
        )

    @pytest.mark.parametrize(
        ("limit", "amount", "granted", "outcome", "words"),
        [
            (10, 12, 10, Prediction.PARTLY, "would get 10; 2 would be denied"),
            (0, 1, 0, Prediction.DENIED, "the quota allows nothing"),
            (None, 1000, None, Prediction.UNLIMITED, "granted whole, and counted"),
        ],
    )
    def test_outcomes(
        self,
        absorbed: Absorbed,
        bench: Bench,
        limit: int | None,
        amount: int,
        granted: int | None,
        outcome: Prediction,
        words: str,
    ) -> None:
        absorbed(limit)
        told = explained(bench, amount)
        assert (told.granted, told.outcome) == (granted, outcome)
        assert words in told.sentence

    def test_what_workers_hold_is_told_with_its_lease(
        self, bench: Bench, absorbed: Absorbed
    ) -> None:
        quota = absorbed(10)
        reservation = bench.reserve(7)
        told = explained(bench, 5)
        assert (told.outcome, told.granted, told.at_once) == (Prediction.BUSY, 5, 3)
        assert "would get 3 at once, and up to 2 more" in told.sentence
        assert told.ruling is not None
        [hold] = told.ruling.holds
        assert (hold.hold_id, hold.quota_id, hold.amount) == (reservation.hold_id, quota, 7)
        assert not hold.is_expired
        assert hold.expires_at > told.at

    def test_a_redis_that_lost_slots_is_told(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(10)
        bench.counters.settle(bench.reserve(4), 4)
        told = explained(bench, 10)
        assert (told.granted, told.outcome) == (6, Prediction.PARTLY)
        assert "4 more free than Redis knows of: an audit" in told.sentence
        assert bench.spend(10).used == 6
        assert bench.used(quota) == 6

    def test_a_slot_that_the_ledger_has_sends_the_batch_to_it(
        self, bench: Bench, absorbed: Absorbed
    ) -> None:
        quota = absorbed(10)
        bench.use(quota, ((10, 10),))
        bench.counters.settle(bench.reserve(4), 4)
        assert explained(bench, 10).granted == 9
        assert bench.spend(10).used == 9

    def test_a_redis_behind_an_edit_is_not_believed(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(4)
        bench.spend(4)
        bench.set_limit(quota, 10)
        assert explained(bench, 9).granted == 6
        assert bench.spend(9).used == 6

    def test_near_a_boundary_the_ledger_decides(self, bench: Bench, connect: Connect) -> None:
        url, skew = os.environ["REDIS_URL"], timedelta(hours=1)
        counters = Counters.from_url(url, namespace=NAMESPACE, timeout=5.0, boundary_skew=skew)
        near = Bench(bench.connection, counters)
        try:
            near.define(10, start=datetime.now(UTC) - timedelta(minutes=5))
            absorb(near.counters, near.ledger, near.connection, [SUBJECT])
            counters.settle(near.reserve(4), 4)
            told = explained(near, 10)
            assert (told.outcome, told.granted, told.at_once) == (Prediction.BOUNDARY, 10, 6)
            assert near.spend(10).used == 10
        finally:
            counters.close()
            counters.connection.client.close()

    def test_a_free_list_in_many_pieces_ends_at_the_ledger(
        self, bench: Bench, absorbed: Absorbed
    ) -> None:
        quota = absorbed(70)
        for slot in range(2, 71, 2):
            bench.use(quota, ((slot, slot),))
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        bench.counters.settle(bench.reserve(5), 5)
        assert explained(bench, 35).granted == 35
        assert bench.spend(35).used == 35

    def test_precedence_is_explained(self, bench: Bench) -> None:
        old = bench.define(10, end=LATER)
        ruling = bench.define(20, start=START + HOUR)
        ended = bench.define(20, start=START + 2 * HOUR, end=START + 3 * HOUR)
        coming = bench.define(5, start=LATER)
        told = explained(bench)
        assert {view.id: view.state for view in told.quotas} == {
            coming: State.SCHEDULED,
            ended: State.ENDED,
            ruling: State.RULES,
            old: State.SHADOWED,
        }
        assert [view.id for view in told.quotas] == [coming, ended, ruling, old]
        assert told.quotas[3].why == (
            f"Quota {ruling} is active too and starts later, at 2020-01-01 01:00 UTC."
        )
        assert "its start is the latest of 2 active ones" in told.sentence

    def test_without_redis_the_ledger_tells(
        self, bench: Bench, absorbed: Absorbed, dead_counters: Counters
    ) -> None:
        absorbed(10)
        bench.spend(4)
        told = explain(dead_counters, bench.ledger, bench.connection, SUBJECT, amount=9)
        assert not told.is_live
        assert told.ruling is not None
        assert (told.ruling.used, told.granted, told.outcome) == (4, 6, Prediction.PARTLY)
        assert told.sentence.endswith(
            "Redis does not answer: the numbers are the ledger's, and what is held is unknown."
        )
        refused = explain(
            dead_counters, bench.ledger, bench.connection, SUBJECT, refuse_without_redis=True
        )
        assert (refused.outcome, refused.granted) == (Prediction.REFUSED, 0)
        assert refused.sentence.endswith("Without Redis batches are refused here, as an outage.")

    def test_a_redis_that_forgot_and_one_that_is_behind(self, bench: Bench) -> None:
        quota = bench.define(10)
        told = explained(bench)
        assert not told.is_live
        assert "Redis does not know the subject yet" in told.sentence
        absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
        bench.set_limit(quota, 5)
        assert "Redis has yet to hear of the last edit" in explained(bench).sentence

    def test_it_only_reads(self, bench: Bench, absorbed: Absorbed) -> None:
        absorbed(10)
        bench.reserve(3)
        before = bench.counters.snapshot(SUBJECT)
        tables = "SELECT pg_current_xact_id_if_assigned() IS NULL"
        with bench.connection.transaction():
            bench.connection.execute("SET TRANSACTION READ ONLY")
            explained(bench, 5)
            assert bench.connection.execute(tables.encode()).fetchone() == (True,)
        after = bench.counters.snapshot(SUBJECT)
        assert (after.document, after.quotas, after.holds) == (
            before.document,
            before.quotas,
            before.holds,
        )

    @pytest.mark.parametrize("amount", [0, 1001, True])
    def test_amounts_that_no_batch_has(self, bench: Bench, amount: int) -> None:
        with pytest.raises(InvalidArgument, match="amount"):
            explained(bench, amount)

    def test_an_outage_of_postgresql(self, bench: Bench, connect: Connect) -> None:
        connection = connect()
        connection.close()
        with pytest.raises(Unavailable):
            explain(bench.counters, bench.ledger, connection, SUBJECT)


class TestAtAnotherTime:
    def test_the_future(self, bench: Bench) -> None:
        bench.define(10, end=LATER)
        coming = bench.define(3, start=LATER)
        told = explained(bench, 5, at=LATER)
        assert told.ruling is not None
        assert (told.ruling.id, told.granted, told.outcome) == (coming, 3, Prediction.PARTLY)
        assert told.sentence.startswith(f"Quota {coming} rules team:7 at 2199-01-01 00:00 UTC")

    def test_the_past(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(10)
        bench.spend(4)
        bench.end_now(quota, ago=HOUR)
        told = explained(bench, at=START + HOUR)
        assert told.ruling is not None
        assert (told.ruling.id, told.ruling.used) == (quota, 4)
        assert f"Quota {quota} ruled team:7 at 2020-01-01 01:00 UTC" in told.sentence
        assert "By now 4 used" in told.sentence
        assert "A batch" not in told.sentence
        assert explained(bench, at=START - HOUR).sentence.startswith("No quota ruled team:7")

    def test_a_naive_time(self, bench: Bench) -> None:
        with pytest.raises(InvalidArgument, match="without a time zone"):
            explained(bench, at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_many_subjects_at_once(bench: Bench) -> None:
    bench.define(10, team=1)
    bench.define(20, team=2)
    bench.define(30, team=2, end=START + HOUR, start=START - HOUR)
    found = examine(bench.counters, bench.ledger, bench.connection, ["team:1", "team:2", "team:3"])
    assert [[view.limit for view in status.quotas] for status in found] == [[10], [20], []]


class TestPreview:
    def preview(
        self,
        bench: Bench,
        quota: int | None,
        limit: int | None,
        start: datetime = START,
        end: datetime | None = None,
    ) -> Preview:
        bench.counters.flush()
        return preview_edit(
            bench.counters,
            bench.ledger,
            bench.connection,
            SUBJECT,
            quota,
            limit=limit,
            start=start,
            end=end,
        )

    @pytest.mark.parametrize(
        ("limit", "sentence", "is_dangerous"),
        [
            (5, "used 8, held 4: the new limit 5 stops creation at once.", True),
            (
                10,
                "used 8, held 4: the new limit 10 leaves nothing but 2 of what workers hold.",
                True,
            ),
            (15, "used 8, held 4: the limit falls from 20 to 15 and leaves 3.", False),
            (30, "used 8, held 4: the limit rises from 20 to 30 and leaves 18.", False),
            (
                None,
                "used 8, held 4: without a limit, everything is created while it rules.",
                True,
            ),
            (20, "It changes nothing.", False),
        ],
    )
    def test_limits(
        self,
        bench: Bench,
        absorbed: Absorbed,
        limit: int | None,
        sentence: str,
        is_dangerous: bool,
    ) -> None:
        quota = absorbed(20)
        bench.spend(8)
        bench.reserve(4)
        told = self.preview(bench, quota, limit)
        assert told == Preview((sentence,), is_dangerous, 8, 4)

    def test_the_same_start_is_the_same_quota(self, bench: Bench, absorbed: Absorbed) -> None:
        absorbed(20)
        bench.spend(8)
        assert self.preview(bench, None, 8).sentences == (
            "used 8, held 0: the new limit 8 stops creation at once.",
        )

    def test_lowering_what_is_used_up_stops_nothing(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(8)
        bench.spend(8)
        told = self.preview(bench, quota, 5)
        assert told.sentences == ("used 8, held 0: the new limit 5 leaves nothing.",)
        assert not told.is_dangerous

    def test_closing_leaves_a_gap(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(20)
        coming = bench.define(5, start=LATER)
        told = self.preview(bench, quota, 20, end=START + HOUR)
        assert told.sentences[0] == (
            f"At once, until 2199-01-01 00:00 UTC, no quota rules where quota {quota} did: "
            "creation has no limit, and nothing is counted."
        )
        assert told.sentences[1:2] == ("It ends at once; what was used stays counted.",)
        assert told.is_dangerous
        told = self.preview(bench, coming, 5, start=LATER, end=LATER + HOUR)
        assert told.sentences[0] == (
            f"From 2199-01-01 01:00 UTC quota {quota} (limit 20) rules where quota {coming} did."
        )
        assert not told.is_dangerous

    def test_a_new_one_that_shadows_and_stops(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(20)
        told = self.preview(bench, None, 0, start=START + HOUR)
        assert told.sentences == (
            f"At once the new quota (limit 0) rules where quota {quota} did.",
            "The limit of the new quota is used up: creation stops at once.",
        )
        assert told.is_dangerous

    def test_a_new_one_without_a_limit(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(20)
        told = self.preview(bench, None, None, start=LATER)
        assert told.sentences == (
            f"From 2199-01-01 00:00 UTC the new quota (without a limit) rules where quota {quota} did.",
        )
        assert told.is_dangerous

    def test_a_first_quota_is_no_danger(self, bench: Bench) -> None:
        told = self.preview(bench, None, 5, end=LATER)
        assert told.sentences == (
            "At once, until 2199-01-01 00:00 UTC, the new quota (limit 5) rules where none did.",
        )
        assert not told.is_dangerous

    def test_one_that_is_shadowed(self, bench: Bench, absorbed: Absorbed) -> None:
        quota = absorbed(20)
        told = self.preview(bench, None, 5, start=START - HOUR)
        assert told.sentences[-1] == f"It never rules: it is shadowed by quota {quota}."

    def test_moving_the_start_behind_another(self, bench: Bench, absorbed: Absorbed) -> None:
        older = absorbed(20)
        newer = absorbed(5, start=START + HOUR)
        told = self.preview(bench, newer, 5, start=START - HOUR)
        assert told.sentences == (
            f"At once quota {older} (limit 20) rules where quota {newer} did.",
            f"It never rules: it is shadowed by quota {older}.",
        )

    def test_what_cannot_be(self, bench: Bench) -> None:
        one, other = bench.define(20), bench.define(5, start=START + HOUR)
        with pytest.raises(InvalidArgument, match=f"quota {one} starts at .* too"):
            self.preview(bench, other, 5)
        with pytest.raises(InvalidArgument, match="no quota 99"):
            self.preview(bench, 99, 5)
        with pytest.raises(InvalidArgument, match="not after start"):
            self.preview(bench, None, 5, end=START)

    def test_without_redis(self, bench: Bench, dead_counters: Counters) -> None:
        quota = bench.define(20)
        told = preview_edit(
            dead_counters,
            bench.ledger,
            bench.connection,
            SUBJECT,
            quota,
            limit=0,
            start=START,
            end=None,
        )
        assert told.is_dangerous
        assert "Redis does not answer" in told.sentences[-1]


NOW = datetime.now(UTC).replace(microsecond=0)
limits = st.one_of(st.integers(0, 30), st.integers(0, 10), st.none())
moments = st.integers(-6, 1).map(lambda hours: NOW + hours * HOUR + timedelta(minutes=30))
quotas = st.lists(
    st.tuples(
        limits,
        moments,
        st.one_of(st.none(), st.integers(1, 6).map(lambda hours: hours * HOUR)),
    ),
    max_size=4,
    unique_by=lambda quota: quota[1],
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.integers(1, 12)),
        st.tuples(st.just("hold"), st.integers(1, 12)),
        st.tuples(st.just("die"), st.integers(1, 12)),
        st.tuples(st.just("lose"), st.integers(1, 6)),
        st.tuples(st.just("behind Redis"), st.integers(1, 6)),
        st.tuples(st.just("limit"), limits),
        st.tuples(st.just("absorb"), st.just(0)),
        st.tuples(st.just("forget"), st.just(0)),
    ),
    max_size=8,
)


class Story:
    """A subject to which things happen, none of which goes on when a batch comes."""

    def __init__(self, dsn: str) -> None:
        connection = psycopg.connect(dsn, autocommit=True)
        connection.execute(EMPTY_SQL.encode())
        url, skew = os.environ["REDIS_URL"], timedelta(seconds=1)
        options = {"namespace": NAMESPACE, "timeout": 5.0, "boundary_skew": skew}
        self.bench = Bench(connection, Counters.from_url(url, **options))
        self.mortal = Counters.from_url(url, **options, lease=timedelta(milliseconds=1))
        self.bench.counters.connection.client.flushdb()

    def tell(self, happening: str, amount: int | None) -> None:
        bench, n = self.bench, amount or 0
        match happening:
            case "spend":
                bench.spend(n)
            case "hold" | "die" | "lose":
                self._reserve(happening, n)
            case "behind Redis":
                quota = bench.ledger.active_quota(bench.connection, SUBJECT)
                if quota is not None and (free := bench.free(quota)):
                    bench.try_to_use(quota, ((free[0][0], min(free[0][1], free[0][0] + n)),))
            case "limit":
                bench.connection.execute(b"UPDATE team_quota SET quota_limit = %s", (amount,))
            case "absorb":
                absorb(bench.counters, bench.ledger, bench.connection, [SUBJECT])
            case _:
                bench.counters.connection.client.flushdb()
        bench.counters.flush()

    def _reserve(self, happening: str, amount: int) -> None:
        """Hold, hold until the lease ends, or settle as used what never was."""
        counters = self.mortal if happening == "die" else self.bench.counters
        try:
            answer = counters.reserve(SUBJECT, amount)
        except Unavailable:
            return
        if happening == "lose" and isinstance(answer, Reservation):
            counters.settle(answer, answer.amount)

    def close(self) -> None:
        for counters in (self.bench.counters, self.mortal):
            counters.close()
            counters.connection.client.close()
        self.bench.connection.close()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(quotas=quotas, steps=steps, amount=st.integers(1, 40))
def test_what_is_foretold_comes_to_pass(
    ledger_dsn: str, quotas: list[Any], steps: list[Any], amount: int
) -> None:
    story = Story(ledger_dsn)
    try:
        for limit, start, length in quotas:
            story.bench.define(limit, start=start, end=None if length is None else start + length)
        for happening, value in [("absorb", 0), *steps]:
            story.tell(happening, value)
        told = explained(story.bench, amount)
        ruling = story.bench.ledger.active_quota(story.bench.connection, SUBJECT)
        assert (told.ruling.id if told.ruling else None) == ruling
        before = story.bench.items()
        story.bench.spend(amount)
        got = story.bench.items() - before
        assert got == (amount if told.granted is None else told.granted), told.sentence
    finally:
        story.close()
