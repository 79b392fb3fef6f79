"""The book of stocks, against a model: every slot that Redis gave is used once, or goes back once."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quota_redis import Denied, Granted, NoQuota, Reason, Reservation, Usage, ranges
from quota_redis.stock_book import FORGET_SECONDS, MAX_OWED, MAX_SUBJECTS, Back, Book

SUBJECT = "team:7"
TERM = 1.0


def new_book(size: int = 1000) -> Book:
    return Book(size, TERM, object)


def usage(remaining: int | None) -> Usage:
    return Usage(1, remaining, 0, 0)


def reservation(
    amount: int, *, first: int = 1, changes_in_ms: int | None = None, subject: str = SUBJECT
) -> Reservation:
    slots = ((first, first + amount - 1),)
    return Reservation(subject, f"hold-{first}", slots, amount, usage(None), 1, changes_in_ms)


def slots_of(held: ranges.Ranges) -> set[int]:
    return {slot for lo, hi in held for slot in range(lo, hi + 1)}


@dataclass
class Hold:
    """What the model knows of one stock: units taken without a number, slots used by number, what came back."""

    slots: set[int]
    taken: int = 0
    used: set[int] = field(default_factory=set)
    backs: list[set[int]] = field(default_factory=list)


class StockMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.book = new_book()
        self.now = 0.0
        self.next_slot = 1
        self.holds: dict[str, Hold] = {}
        self.open_hold: Hold | None = None
        self.lent: dict[str, tuple[Hold, Reservation]] = {}
        self.lent_ever = 0

    @rule(amount=st.integers(1, 40), changes_in_ms=st.none() | st.integers(0, 1500))
    def open(self, amount: int, changes_in_ms: int | None) -> None:
        given = reservation(amount, first=self.next_slot, changes_in_ms=changes_in_ms)
        self.next_slot += amount + 3
        self.open_hold = self.holds[given.hold_id] = Hold(slots_of(given.ranges))
        self.book.open(given, self.now, self.now)
        self.collect_owed()

    @rule(amount=st.integers(1, 10))
    def take(self, amount: int) -> None:
        if self.book.take(SUBJECT, amount, self.now):
            assert self.open_hold is not None
            self.open_hold.taken += amount

    @rule(amount=st.integers(1, 10))
    def lend(self, amount: int) -> None:
        self.lent_ever += 1
        hold_id = f"lent-{self.lent_ever}"
        lent = self.book.lend(SUBJECT, amount, hold_id, self.now)
        if lent:
            assert self.open_hold is not None
            assert lent.amount == ranges.size(lent.ranges) <= amount
            assert len(lent.ranges) <= 8
            self.lent[hold_id] = self.open_hold, lent

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.lent)))
        hold, lent = self.lent.pop(hold_id)
        used = data.draw(st.integers(0, lent.amount))
        is_known, back = self.book.put_back(hold_id, used, self.now)
        assert is_known
        first, _ = ranges.split(lent.ranges, used)
        assert not hold.used & slots_of(first)
        hold.used |= slots_of(first)
        self.came_back(back)

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.lent)))
        del self.lent[hold_id]
        is_known, back = self.book.refuse(hold_id, self.now)
        assert is_known
        self.came_back(back)

    @rule(amount=st.integers(1, 10))
    def plan(self, amount: int) -> None:
        wanted, back = self.book.plan(SUBJECT, amount, self.now)
        assert wanted == 0 or amount < wanted <= 1000
        self.open_hold = None
        self.came_back(back)

    @rule(seconds=st.floats(0.0, 1.5))
    def sweep(self, seconds: float) -> None:
        self.now += seconds
        self.book.sweep(self.now)
        self.collect_owed()

    def teardown(self) -> None:
        for hold_id, (hold, lent) in self.lent.items():
            hold.used |= slots_of(lent.ranges)
            self.came_back(self.book.put_back(hold_id, lent.amount, self.now)[1])
        self.book.end(self.now)
        self.collect_owed()
        for hold in self.holds.values():
            assert len(hold.backs) == 1
            back = hold.backs[0]
            assert not back & hold.used
            assert len(hold.slots) == len(back) + len(hold.used) + hold.taken

    @invariant()
    def nothing_is_in_two_places(self) -> None:
        out = Counter(slot for _, lent in self.lent.values() for slot in slots_of(lent.ranges))
        assert not out or max(out.values()) == 1
        for hold in self.holds.values():
            assert not hold.used & set(out)

    def came_back(self, back: Back | None) -> None:
        if back is not None:
            slots = slots_of(back.ranges)
            assert slots <= self.holds[back.hold_id].slots
            self.holds[back.hold_id].backs.append(slots)
            self.book.paid(back)

    def collect_owed(self) -> None:
        for back in self.book.owed(self.now):
            self.came_back(back)


StockMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)
TestBook = StockMachine.TestCase


def test_stocks_double_while_they_are_used_up_in_time_and_stay_within_the_size() -> None:
    book = new_book(size=50)
    assert [book.plan(SUBJECT, 1, 0.0)[0] for _ in range(8)] == [0, 2, 4, 8, 16, 32, 50, 50]


def test_whoever_asks_seldom_gets_no_stock() -> None:
    book = new_book()
    for step in range(10):
        assert book.plan(SUBJECT, 1, step * TERM)[0] == 0


def test_the_next_stock_follows_what_was_taken_of_the_last() -> None:
    book = new_book()
    for _ in range(9):
        book.plan(SUBJECT, 1, 0.0)
    book.open(reservation(256), 0.0, 0.0)
    book.take(SUBJECT, 10, 0.5)
    wanted, back = book.plan(SUBJECT, 1, TERM)
    assert back == Back(SUBJECT, "hold-1", ((11, 256),))
    assert wanted == 20


@pytest.mark.parametrize(
    ("remaining", "wanted"), [(None, 64), (1000, 64), (100, 12), (15, 0), (0, 0)]
)
def test_a_stock_is_a_share_of_what_is_left(remaining: int | None, wanted: int) -> None:
    book = new_book()
    for _ in range(6):
        book.plan(SUBJECT, 1, 0.0)
    book.saw(SUBJECT, Granted(usage(remaining)))
    assert book.plan(SUBJECT, 1, 0.0)[0] == wanted


def test_what_redis_denied_leaves_nothing_for_a_stock() -> None:
    book = new_book()
    for answer in (Denied(Reason.FULL, usage(0)), NoQuota()):
        for _ in range(6):
            book.plan(SUBJECT, 1, 0.0)
        book.saw(SUBJECT, answer)
        assert book.plan(SUBJECT, 1, 0.0)[0] == 0


@pytest.mark.parametrize(("changes_in_ms", "seconds"), [(None, TERM), (400, 0.4), (5000, TERM)])
def test_a_stock_ends_with_its_term_or_its_quota(changes_in_ms: int | None, seconds: float) -> None:
    book = new_book()
    book.open(reservation(10, changes_in_ms=changes_in_ms), 100.0, 100.0)
    assert book.take(SUBJECT, 1, 100.0 + seconds - 0.001)
    assert book.take(SUBJECT, 1, 100.0 + seconds) is None
    assert book.lend(SUBJECT, 1, "h", 100.0 + seconds) is None


def test_there_is_a_bound_on_the_subjects_that_have_stocks() -> None:
    """Beyond it, those that nobody asks for any more make room."""
    book = new_book()
    for number in range(MAX_SUBJECTS):
        book.gate(f"team:{number}", 0.0)
        book.plan(f"team:{number}", 1, 0.0)
    assert book.gate("one more", 0.5) is None
    assert book.gate("one more", TERM) is not None


def test_there_is_a_bound_on_what_is_owed() -> None:
    book = new_book()
    for number in range(MAX_OWED + 5):
        book.owe(Back(SUBJECT, f"hold-{number}", ()), 0.0)
    assert len(book.owed(1.0)) == MAX_OWED
    assert book.owed(FORGET_SECONDS) == []
    assert book.is_idle


def test_what_was_lent_and_never_came_back_is_forgotten_in_time() -> None:
    book = new_book()
    book.open(reservation(10), 0.0, 0.0)
    book.lend(SUBJECT, 3, "lent", 0.0)
    book.end(0.0)
    book.sweep(FORGET_SECONDS - 1)
    assert not book.is_idle
    book.sweep(FORGET_SECONDS)
    assert book.is_idle
    assert book.put_back("lent", 0, 0.0) == (False, None)


def test_what_was_lent_and_came_back_late_is_not_remembered() -> None:
    book = new_book()
    book.open(reservation(10), 0.0, 0.0)
    book.lend(SUBJECT, 3, "lent", 0.0)
    book.end(0.0)
    back = Back(SUBJECT, "hold-1", ((2, 10),))
    assert book.put_back("lent", 1, 0.0) == (True, back)
    book.paid(back)
    assert book.is_idle


def test_a_stock_that_arrives_after_its_time_goes_back_too() -> None:
    book = new_book()
    book.plan(SUBJECT, 1, 0.0)
    book.sweep(2 * TERM)
    book.open(reservation(10), 0.0, 2 * TERM)
    assert book.take(SUBJECT, 1, 2 * TERM) is None
    book.sweep(3 * TERM)
    assert book.owed(3 * TERM) == [Back(SUBJECT, "hold-1", ((1, 10),))]


def scattered_book(pieces: int) -> Book:
    """A stock of which so many single slots, each apart from the next, came back before a rest of three."""
    book = new_book()
    book.open(reservation(2 * pieces + 3), 0.0, 0.0)
    for number in range(2 * pieces):
        book.lend(SUBJECT, 1, f"lent-{number}", 0.0)
    for number in range(0, 2 * pieces, 2):
        book.put_back(f"lent-{number}", 0, 0.0)
    for number in range(1, 2 * pieces, 2):
        book.put_back(f"lent-{number}", 1, 0.0)
    return book


def test_a_reservation_has_at_most_eight_ranges_and_the_others_stay_in_stock() -> None:
    book = scattered_book(10)
    lent = book.lend(SUBJECT, 12, "lent", 0.0)
    assert lent is not None
    assert lent.ranges == tuple((slot, slot) for slot in range(1, 16, 2))
    rest = book.lend(SUBJECT, 5, "rest", 0.0)
    assert rest is not None
    assert rest.ranges == ((17, 17), (19, 19), (21, 23))


def test_a_stock_of_several_ranges_is_lent_to_the_last_slot() -> None:
    book = new_book()
    given = Reservation(SUBJECT, "hold", ((1, 5), (11, 15), (21, 21)), 11, usage(None), 1)
    book.open(given, 0.0, 0.0)
    lent = [book.lend(SUBJECT, amount, f"lent-{amount}", 0.0) for amount in (2, 3, 6)]
    assert [each and each.ranges for each in lent] == [
        ((1, 2),),
        ((3, 5),),
        ((11, 15), (21, 21)),
    ]
    assert book.put_back("lent-3", 1, 0.0) == (True, None)
    assert book.plan(SUBJECT, 1, 0.0)[1] is None
    assert book.put_back("lent-2", 2, 0.0) == (True, None)
    assert book.put_back("lent-6", 6, 0.0) == (True, Back(SUBJECT, "hold", ((4, 5),)))
