"""The SQL of the ledger: what it writes, and what it refuses."""

from collections.abc import Callable

import psycopg
import pytest
from bench import HOUR, START, SUBJECT, Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quota_redis import (
    InvalidArgument,
    NotInstalled,
    QuotaInUse,
    QuotaMoved,
    Reservation,
    SlotConflict,
    Usage,
    ranges,
)
from quota_redis.postgres import Ledger, QuotaTable, adopt, compact
from quota_redis.ranges import SLOT_END

FOREVER = SLOT_END - 1


class TestRecord:
    def test_the_lowest_slots_are_written(self, bench: Bench) -> None:
        quota = bench.define(400)
        bench.ledger.record_slots(bench.connection, SUBJECT, quota, ((1, 20), (31, 40)), 25)
        assert bench.slots_used(quota) == ((1, 20), (31, 35))
        assert bench.used(quota) == 25

    def test_a_reservation_is_recorded_by_its_slots(self, bench: Bench) -> None:
        quota = bench.define(400)
        hold = Reservation(SUBJECT, "h", ((5, 9),), 5, Usage(quota, 400, 0, 5), 1)
        bench.ledger.record(bench.connection, hold, 3)
        assert bench.slots_used(quota) == ((5, 7),)
        with pytest.raises(InvalidArgument, match="used is 6"):
            bench.ledger.record(bench.connection, hold, 6)

    def test_nothing_used_writes_nothing(self, bench: Bench) -> None:
        quota = bench.define(400)
        bench.ledger.record_slots(bench.connection, SUBJECT, quota, ((1, 20),), 0)
        assert bench.slots_used(quota) == ()

    @pytest.mark.parametrize(
        "slots", [((5, 5),), ((1, 5),), ((5, 9),), ((1, 3), (4, 9)), ((401, 401),)]
    )
    def test_a_taken_or_void_slot_is_a_conflict(self, bench: Bench, slots: ranges.Ranges) -> None:
        quota = bench.define(400)
        bench.use(quota, ((5, 6),))
        assert not bench.try_to_use(quota, slots)
        assert bench.slots_used(quota) == ((5, 6),)
        assert bench.items() == 2

    def test_slots_of_another_quota_are_other_slots(self, bench: Bench) -> None:
        other = bench.define(400, team=8)
        bench.use(other, ((1, 20),), subject="team:8")
        quota = bench.define(400)
        bench.use(quota, ((1, 20),))
        assert (bench.used(other), bench.used(quota)) == (20, 20)

    def test_a_quota_that_another_one_shadows_has_moved(self, bench: Bench) -> None:
        old, new = bench.define(400), bench.define(10, start=START + HOUR)
        with pytest.raises(QuotaMoved, match=f"quota {old} does not rule, {new} does"):
            bench.use(old, ((1, 1),))

    def test_a_quota_that_has_ended_has_moved(self, bench: Bench) -> None:
        quota = bench.define(400)
        bench.end_now(quota)
        with pytest.raises(QuotaMoved, match="none does"):
            bench.use(quota, ((1, 1),))

    def test_a_quota_of_another_subject_has_moved(self, bench: Bench) -> None:
        quota = bench.define(400, team=8)
        with pytest.raises(QuotaMoved):
            bench.use(quota, ((1, 1),))

    @pytest.mark.parametrize("used", [21, -1])
    def test_more_than_the_slots_is_refused(self, bench: Bench, used: int) -> None:
        quota = bench.define(400)
        with pytest.raises(InvalidArgument, match=f"used is {used}"):
            bench.ledger.record_slots(bench.connection, SUBJECT, quota, ((1, 20),), used)
        assert bench.slots_used(quota) == ()

    @pytest.mark.parametrize("slots", ["{[0,5)}", "{[-3,2)}", "{(,5)}"])
    def test_slots_begin_with_one(self, bench: Bench, slots: str) -> None:
        quota = bench.define(400)
        with pytest.raises(psycopg.Error):
            bench.connection.execute(
                "SELECT quota_redis_record_v1('bench', %s, %s, %s, 2)", (quota, quota, slots)
            )
        assert bench.slots_used(quota) == ()

    def test_slots_end_where_lua_ends_them(self, bench: Bench) -> None:
        quota = bench.define(None)
        bench.use(quota, ((FOREVER, FOREVER),))
        with pytest.raises(psycopg.errors.CheckViolation):
            bench.use(quota, ((SLOT_END, SLOT_END),))

    @pytest.mark.parametrize(
        "subject", ["team:", "7", "user:7", "team:x", "team:1.5", f"team:{2**63}"]
    )
    def test_a_subject_names_a_row(self, bench: Bench, subject: str) -> None:
        with pytest.raises(InvalidArgument, match="subject"):
            bench.ledger.record_slots(bench.connection, subject, 1, ((1, 1),), 1)

    def test_without_the_ledger_it_says_so(self, bench: Bench) -> None:
        nowhere = Ledger(QuotaTable("elsewhere", namespace="bench", prefix="team:"))
        with pytest.raises(NotInstalled, match="elsewhere_active_v1"):
            nowhere.record_slots(bench.connection, SUBJECT, 1, ((1, 1),), 1)


class TestRecordV2:
    """quota_redis_record_v2 takes a shorter way to what quota_redis_record_v1 does."""

    @pytest.mark.parametrize(
        ("slots", "used", "written"),
        [
            ("{[1,21)}", 20, "{[1,21)}"),
            ("{[1,21)}", 7, "{[1,8)}"),
            ("{[1,21)}", 0, "{}"),
            ("{[1,)}", 3, "{[1,4)}"),
            ("{[1,5),[11,21)}", 3, "{[1,4)}"),
            ("{[1,5),[11,21)}", 6, "{[1,5),[11,13)}"),
            ("{[4503599627370495,4503599627370496)}", 1, "{[4503599627370495,4503599627370496)}"),
            ("{[1,21)}", 21, "QS003"),
            ("{[1,21)}", -1, "QS003"),
            ("{[1,5),[11,21)}", 15, "QS003"),
            ("{}", 1, "QS003"),
            (None, 1, "QS003"),
            ("{[31,41)}", 1, "QS002"),
            ("{[25,41)}", 20, "QS002"),
            ("{[1,5),[31,41)}", 5, "QS002"),
            ("{[0,5)}", 2, "23514"),
            ("{(,5)}", 2, "QS002"),
            ("{[4503599627370496,4503599627370497)}", 1, "23514"),
        ],
    )
    def test_it_does_what_the_first_one_does(
        self, bench: Bench, slots: str | None, used: int, written: str
    ) -> None:
        quota = bench.define(None)
        bench.use(quota, ((31, 40),))
        for version in (1, 2):
            assert recorded(bench, version, quota, quota, slots, used) == written, version

    @pytest.mark.parametrize("active", [None, 7])
    def test_another_quota_rules(self, bench: Bench, active: int | None) -> None:
        quota = bench.define(400)
        for version in (1, 2):
            assert recorded(bench, version, quota, active, "{[1,21)}", 3) == "QS001", version

    def test_it_returns_what_it_wrote(self, bench: Bench) -> None:
        quota = bench.define(400)
        query = "SELECT quota_redis_record_v2('bench', %s, %s, %s, 3)"
        assert bench.value(query, (quota, quota, "{[1,21)}")) == 3


def recorded(
    bench: Bench, version: int, quota: int, active: int | None, slots: str | None, used: int
) -> str:
    """What a version of the function writes into the ledger, or the SQLSTATE of its error; undone again."""
    with bench.connection.transaction(force_rollback=True):
        before = bench.slots_used(quota)
        try:
            with bench.connection.transaction():
                bench.connection.execute(
                    f"SELECT quota_redis_record_v{version}('bench', %s, %s, %s, %s)",
                    (quota, active, slots, used),
                )
        except psycopg.Error as error:
            return str(error.sqlstate)
        return ranges.render_multirange(ranges.subtract(bench.slots_used(quota), before))


class TestTake:
    def test_from_the_top_of_the_largest_gap(self, bench: Bench) -> None:
        quota = bench.define(400)
        bench.use(quota, ((101, 399),))
        assert bench.ledger.take(bench.connection, SUBJECT, quota, 10) == ((91, 100),)

    def test_at_most_one_gap(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.use(quota, ((4, 5),))
        assert bench.ledger.take(bench.connection, SUBJECT, quota, 10) == ((6, 10),)

    def test_an_unlimited_quota_has_slots_up_to_the_end(self, bench: Bench) -> None:
        quota = bench.define(None)
        taken = bench.ledger.take(bench.connection, SUBJECT, quota, 5)
        assert taken == ((FOREVER - 4, FOREVER),)
        bench.use(quota, taken)
        assert bench.ledger.take(bench.connection, SUBJECT, quota, 5) == (
            (FOREVER - 9, FOREVER - 5),
        )

    def test_it_leaves_a_mark_for_sync(self, bench: Bench) -> None:
        quota = bench.define(10)
        before = bench.marks()
        bench.ledger.take(bench.connection, SUBJECT, quota, 3)
        assert bench.marks() == before + 1

    def test_a_full_ledger_has_none_and_leaves_no_mark(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.use(quota, ((1, 10),))
        before = bench.marks()
        assert bench.ledger.take(bench.connection, SUBJECT, quota, 3) is None
        assert bench.marks() == before

    def test_what_is_taken_is_not_yet_used(self, bench: Bench) -> None:
        quota = bench.define(10)
        for _ in range(2):
            assert bench.ledger.take(bench.connection, SUBJECT, quota, 3) == ((8, 10),)

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        limit=st.one_of(st.none(), st.integers(1, 90)),
        rows=st.lists(st.tuples(st.integers(1, 80), st.integers(1, 9)), max_size=20),
        amount=st.integers(1, 12),
    )
    def test_any_version_takes_the_top_of_a_gap_that_is_large_enough_if_one_is(
        self, bench: Bench, limit: int | None, rows: list[tuple[int, int]], amount: int
    ) -> None:
        bench.connection.execute("TRUNCATE item, team_quota, quota_redis_ledger")
        quota = bench.define(limit)
        for first, size in rows:
            bench.try_to_use(quota, ((first, first + size - 1),))
        free = bench.free(quota)
        largest = max((ranges.size((gap,)) for gap in free), default=0)
        for version in (1, 3):
            taken = taken_by(bench, version, quota, amount)
            assert ranges.size(taken) == min(amount, largest)
            assert ranges.subtract(taken, free) == ()
            assert all(high in (top for _, top in free) for _, high in taken)
            assert len(taken) <= 1


def taken_by(bench: Bench, version: int, quota: int, amount: int) -> ranges.Ranges:
    """What a version of the function takes, with a mark; nothing and without one where the ledger is full."""
    before = bench.marks()
    text = bench.value(
        f"SELECT quota_redis_take_v{version}('bench', %s, %s, %s)::text", (SUBJECT, quota, amount)
    )
    assert bench.marks() == before + (text is not None)
    return ranges.parse_multirange(text or "{}")


class TestLimit:
    def test_a_limit_is_a_void_tail(self, bench: Bench) -> None:
        assert bench.free(bench.define(400)) == ((1, 400),)

    def test_nothing_is_void_from_the_first_slot(self, bench: Bench) -> None:
        assert bench.free(bench.define(0)) == ()

    def test_unlimited_has_no_void(self, bench: Bench) -> None:
        quota = bench.define(None)
        assert bench.free(quota) == ranges.EVERYTHING
        assert bench.value("SELECT count(*) FROM quota_redis_ledger") == 0

    def test_lowering_voids_the_highest_free_slots(self, bench: Bench) -> None:
        """Slots 6 to 8 of 10 are used: under a limit of 5 two more fit, not five."""
        quota = bench.define(10)
        bench.use(quota, ((6, 8),))
        bench.set_limit(quota, 5)
        assert bench.free(quota) == ((1, 2),)
        assert not bench.try_to_use(quota, ((3, 3),))

    @pytest.mark.parametrize("limit", [3, 2, 0])
    def test_lowering_to_used_or_below_leaves_nothing_and_undoes_nothing(
        self, bench: Bench, limit: int
    ) -> None:
        quota = bench.define(10)
        bench.use(quota, ((6, 8),))
        bench.set_limit(quota, limit)
        assert bench.free(quota) == ()
        assert bench.used(quota) == 3

    def test_raising_gives_some_back(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.use(quota, ((6, 8),))
        bench.set_limit(quota, 5)
        bench.set_limit(quota, 9)
        assert bench.free(quota) == ((1, 5), (9, 9))

    def test_unlimited_and_back(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.use(quota, ((6, 8),))
        bench.set_limit(quota, None)
        assert ranges.size(bench.free(quota)) == FOREVER - 3
        bench.use(quota, ((FOREVER, FOREVER),))
        bench.set_limit(quota, 5)
        assert bench.free(quota) == ((1, 1),)

    def test_a_larger_limit_than_a_billion(self, bench: Bench) -> None:
        quota = bench.define(10**12)
        assert bench.free(quota) == ((1, 10**12),)

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    def test_another_isolation_level_is_refused(self, bench: Bench, level: str) -> None:
        quota = bench.define(10)
        with bench.connection.transaction(force_rollback=True):
            bench.connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
            with pytest.raises(psycopg.Error, match=level.lower()) as raised:
                bench.set_limit(quota, 5)
        assert raised.value.sqlstate == "QS003"
        assert bench.free(quota) == ((1, 10),)


edits = st.tuples(st.just("limit"), st.one_of(st.none(), st.integers(0, 30)))
uses = st.tuples(
    st.just("use"), st.tuples(st.integers(1, 30), st.integers(0, 6)).map(lambda p: (p[0], sum(p)))
)
takes = st.tuples(st.just("take"), st.integers(1, 6))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.one_of(edits, uses, takes), max_size=15))
def test_free_is_always_the_limit_less_what_is_used(bench: Bench, steps: list[tuple]) -> None:
    """The invariant that everything rests on, after any edits, uses of any slots, and direct users."""
    bench.connection.execute("TRUNCATE item, team_quota, quota_redis_ledger")
    limit: int | None = 10
    quota = bench.define(limit)
    for step, value in steps:
        if step == "limit":
            limit = value
            bench.set_limit(quota, limit)
        elif step == "use":
            bench.try_to_use(quota, (value,))
        elif slots := bench.ledger.take(bench.connection, SUBJECT, quota, value):
            bench.use(quota, slots)
        used = bench.used(quota)
        assert used == bench.items()
        room = FOREVER - used if limit is None else max(0, limit - used)
        assert ranges.size(bench.free(quota)) == room


class TestDefinitions:
    def test_every_edit_has_a_later_version_and_a_mark(self, bench: Bench) -> None:
        quota = bench.define(10)
        assert (bench.version(), bench.marks()) == (1, 1)
        for number, change in enumerate(
            (
                "quota_limit = 9",
                "quota_limit = NULL",
                "period_end = '2100-01-01'",
                "period_end = NULL",
                "period_start = '2019-01-01'",
            ),
            start=2,
        ):
            bench.connection.execute(f"UPDATE team_quota SET {change}".encode())
            assert (bench.version(), bench.marks()) == (number, number)
        bench.connection.execute("DELETE FROM team_quota WHERE id = %s", (quota,))
        assert (bench.version(), bench.marks()) == (7, 7)

    @pytest.mark.parametrize(
        "change", ["used = 4", "quota_limit = 10", "period_start = period_start, used = 1"]
    )
    def test_a_count_or_the_same_again_is_no_edit(self, bench: Bench, change: str) -> None:
        bench.define(10)
        bench.connection.execute(f"UPDATE team_quota SET {change}".encode())
        assert (bench.version(), bench.marks()) == (1, 1)

    def test_many_rows_in_one_statement(self, bench: Bench) -> None:
        quotas = [bench.define(10, team=team) for team in range(5)]
        bench.connection.execute("UPDATE team_quota SET quota_limit = 4")
        assert [bench.free(quota) for quota in quotas] == [((1, 4),)] * 5
        assert {bench.version(subject=f"team:{team}") for team in range(5)} == {2}

    @pytest.mark.parametrize("change", ["id = 99", "team_id = 8"])
    def test_a_quota_keeps_its_id_and_subject(self, bench: Bench, change: str) -> None:
        bench.define(10)
        with pytest.raises(psycopg.Error, match="another id or subject") as raised:
            bench.connection.execute(f"UPDATE team_quota SET {change}".encode())
        assert raised.value.sqlstate == "QS004"

    def test_a_used_quota_cannot_be_deleted(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.use(quota, ((1, 1),))
        with pytest.raises(psycopg.Error, match="was used and cannot be deleted") as raised:
            bench.connection.execute("DELETE FROM team_quota WHERE id = %s", (quota,))
        assert raised.value.sqlstate == "QS004"
        assert bench.used(quota) == 1

    def test_deleting_an_unused_one_leaves_its_slots_void(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.connection.execute("DELETE FROM team_quota")
        assert bench.free(quota) == ()

    def test_an_edit_that_is_rolled_back_never_was(self, bench: Bench) -> None:
        quota = bench.define(10)
        with bench.connection.transaction(force_rollback=True):
            bench.set_limit(quota, 2)
        assert (bench.version(), bench.marks()) == (1, 1)
        assert bench.free(quota) == ((1, 10),)


class TestActive:
    def test_the_latest_start_among_the_active(self, bench: Bench) -> None:
        bench.define(1)
        second = bench.define(2, start=START + HOUR)
        bench.define(3, start=START + 2 * HOUR, end=START + 3 * HOUR)
        bench.connection.execute(
            """INSERT INTO team_quota (team_id, quota_limit, period_start)
            VALUES (7, 4, clock_timestamp() + interval '1 hour')"""
        )
        assert bench.ledger.active_quota(bench.connection, SUBJECT) == second

    def test_the_start_is_included_and_the_end_is_not(self, bench: Bench) -> None:
        with bench.connection.transaction():
            bench.connection.execute(
                """INSERT INTO team_quota (team_id, quota_limit, period_start, period_end)
                VALUES (7, 1, '2020-01-01', statement_timestamp())"""
            )
            assert bench.ledger.active_quota(bench.connection, SUBJECT) is None
            bench.connection.execute("UPDATE team_quota SET period_end = NULL")
            assert bench.ledger.active_quota(bench.connection, SUBJECT) == 1

    def test_none_where_there_is_none(self, bench: Bench) -> None:
        assert bench.ledger.active_quota(bench.connection, SUBJECT) is None


class TestCompact:
    def test_it_merges_neighbours_and_frees_nothing(self, bench: Bench) -> None:
        quota = bench.define(100)
        for slot in [*range(1, 11), *range(21, 26)]:
            bench.use(quota, ((slot, slot),))
        before = bench.free(quota)
        assert compact(bench.ledger, bench.connection, above=10) == 13
        assert bench.free(quota) == before
        assert bench.slots_used(quota) == ((1, 10), (21, 25))
        assert bench.used(quota) == 15
        assert compact(bench.ledger, bench.connection, above=1) == 0

    def test_quotas_with_few_rows_are_left_alone(self, bench: Bench) -> None:
        quota = bench.define(100)
        for slot in range(1, 6):
            bench.use(quota, ((slot, slot),))
        assert compact(bench.ledger, bench.connection, above=5) == 0

    def test_it_leaves_the_void_alone(self, bench: Bench) -> None:
        quota = bench.define(3)
        for slot in range(1, 4):
            bench.use(quota, ((slot, slot),))
        compact(bench.ledger, bench.connection, above=1)
        assert bench.slots_used(quota) == ((1, 3),)
        bench.set_limit(quota, 5)
        assert bench.free(quota) == ((4, 5),)


class TestAdopt:
    @pytest.fixture
    def counted(self, bench: Bench) -> Callable[[int | None, int], int]:
        """A quota that was counted by other means."""

        def make(limit: int | None, used: int) -> int:
            quota = bench.define(limit)
            bench.connection.execute("UPDATE team_quota SET used = %s", (used,))
            return quota

        return make

    @pytest.mark.parametrize(
        ("limit", "used", "free"),
        [(10, 4, ((5, 10),)), (10, 10, ()), (10, 13, ()), (None, 4, ((5, FOREVER),)), (0, 2, ())],
    )
    def test_counts_become_opening_slots(
        self,
        bench: Bench,
        counted: Callable[[int | None, int], int],
        limit: int | None,
        used: int,
        free: ranges.Ranges,
    ) -> None:
        quota = counted(limit, used)
        assert adopt(bench.ledger, bench.connection) == 1
        assert bench.slots_used(quota) == ((1, used),)
        assert bench.free(quota) == free
        assert (bench.version(), bench.marks()) == (2, 2)

    def test_it_can_be_repeated(
        self, bench: Bench, counted: Callable[[int | None, int], int]
    ) -> None:
        quota = counted(10, 4)
        adopt(bench.ledger, bench.connection)
        bench.use(quota, ((5, 5),))
        assert adopt(bench.ledger, bench.connection) == 0
        assert bench.used(quota) == 5

    def test_what_the_ledger_counts_is_not_counted_again(self, bench: Bench) -> None:
        quota = bench.define(10)
        bench.use(quota, ((3, 4),))
        bench.connection.execute("UPDATE team_quota SET used = 2")
        assert adopt(bench.ledger, bench.connection) == 0
        assert bench.slots_used(quota) == ((3, 4),)

    def test_counts_of_nothing_need_nothing(
        self, bench: Bench, counted: Callable[[int | None, int], int]
    ) -> None:
        counted(10, 0)
        assert adopt(bench.ledger, bench.connection) == 0


def test_errors_of_the_driver_keep_their_cause(bench: Bench) -> None:
    quota = bench.define(10)
    bench.use(quota, ((1, 1),))
    with pytest.raises(SlotConflict) as raised:
        bench.use(quota, ((1, 1),))
    assert isinstance(raised.value.__cause__, psycopg.Error)


def test_a_refused_edit_is_named_by_the_ledger(bench: Bench) -> None:
    from quota_redis.postgres.ledger import translated

    quota = bench.define(10)
    bench.use(quota, ((1, 1),))
    with pytest.raises(QuotaInUse, match="Close it instead"), translated():
        bench.connection.execute("DELETE FROM team_quota")
