"""When a record of running transactions is worth writing, told by a model of how the server moves restart_lsn."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.progress.restart import (
    FIRST_PAUSE_SECONDS,
    IN_VAIN,
    LONGEST_PAUSE_SECONDS,
    POSTPONED_SECONDS,
    REFUSED_PAUSE_SECONDS,
    STEP_BYTES,
    STILL_SECONDS,
    RestartPace,
)

MEGABYTE = 1 << 20
SEGMENT = 16 * MEGABYTE
RECORD_BYTES = 100
TICK_SECONDS = 0.5


class Server:
    """
    One slot, as snapbuild.c and logical.c move it, in steps of half a second.

    Transactions come one after another, so that one is always open: the least favourable of the usual cases. Decoding
    is never behind; confirming is, as far as it is told.
    """

    def __init__(self, pace: RestartPace) -> None:
        self.pace = pace
        self.now = 0.0
        self.written = self.confirmed = self.restart = self.last_record = 1000 * MEGABYTE
        self.candidate: tuple[int, int] | None = None
        self.open_since: int | None = None
        """What the oldest transaction holds back decoding to, if it is a long one."""
        self.records: list[float] = []
        self.most_retained = 0

    def tick(self, wal_bytes: int, unconfirmed_bytes: int) -> None:
        """Something is written, something confirmed, and somebody looks."""
        self.now += TICK_SECONDS
        self.written += wal_bytes
        self.confirm(unconfirmed_bytes)
        self.most_retained = max(self.most_retained, self.written - self.restart)
        self.pace.seen(self.now, restart_lsn=self.restart, confirmed_lsn=self.confirmed)
        if self.pace.is_due(self.now, written_lsn=self.written, confirmed_lsn=self.confirmed):
            self.records.append(self.now)
            self.decode_record()
            self.pace.wrote(self.now, self.written)

    def confirm(self, unconfirmed_bytes: int) -> None:
        """LogicalConfirmReceivedLocation."""
        self.confirmed = max(self.confirmed, self.written - unconfirmed_bytes)
        if self.candidate is not None and self.candidate[0] <= self.confirmed:
            self.restart = self.candidate[1]
            self.candidate = None

    def decode_record(self) -> None:
        """SnapBuildProcessRunningXacts and LogicalIncreaseRestartDecodingForSlot."""
        start = self.written
        self.written += RECORD_BYTES
        restart = self.last_record if self.open_since is None else min(self.last_record, self.open_since)
        self.last_record = start
        if self.candidate is None and restart > self.restart:
            self.candidate = (start, restart)


def run(pace: RestartPace, ticks: Iterable[tuple[int, int]]) -> Server:
    server = Server(pace)
    for wal_bytes, unconfirmed_bytes in ticks:
        server.tick(wal_bytes, unconfirmed_bytes)
    return server


BOUND = 64 * MEGABYTE
WAL = st.integers(0, 4 * MEGABYTE)  # in half a second: up to the rate at which one record a second is enough
UNCONFIRMED = st.integers(0, BOUND // 2)


@given(st.lists(st.tuples(WAL, UNCONFIRMED), min_size=1, max_size=100))
@example([(4 * MEGABYTE, BOUND // 2)] * 300)
@example([(3 * MEGABYTE, BOUND // 2)] * 300)
@example([(MEGABYTE, BOUND // 2)] * 1000)
@example([(MEGABYTE // 4, BOUND // 2)] * 4000)
@example([(4 * MEGABYTE, 0)] * 300)
def test_a_slot_retains_no_more_than_the_bound_and_a_segment(ticks: list[tuple[int, int]]):
    server = run(RestartPace(BOUND), ticks)
    one_tick = max(wal_bytes for wal_bytes, _ in ticks) + RECORD_BYTES
    # A record and a move may each be noticed one tick late.
    assert server.most_retained <= BOUND + SEGMENT + 2 * one_tick


def test_a_slot_that_is_confirmed_at_once_retains_a_part_of_the_bound():
    server = run(RestartPace(BOUND), [(2 * MEGABYTE, 0)] * 300)
    assert server.most_retained <= BOUND // 4 + SEGMENT


@given(st.lists(st.tuples(st.integers(0, 40 * MEGABYTE), UNCONFIRMED), max_size=100), st.integers(24, 40))
def test_no_two_records_come_within_a_second_nor_without_as_much_wal_as_makes_them_worth_it(ticks, bound_bits):
    server = Server(RestartPace(1 << bound_bits))
    written_at = []
    for wal_bytes, unconfirmed_bytes in ticks:
        before = len(server.records)
        server.tick(wal_bytes, unconfirmed_bytes)
        if len(server.records) > before:
            written_at.append(server.written)
    pairs = itertools.pairwise(server.records)
    assert all(later - earlier >= FIRST_PAUSE_SECONDS for earlier, later in pairs)
    positions = itertools.pairwise(written_at)
    assert all(later - earlier >= STEP_BYTES for earlier, later in positions)


@given(st.lists(st.tuples(WAL, UNCONFIRMED), max_size=100))
def test_an_idle_server_gets_no_record_beyond_the_one_that_was_due_when_it_fell_idle(ticks: list[tuple[int, int]]):
    server = run(RestartPace(BOUND), ticks)
    busy = len(server.records)
    for _ in range(2000):
        server.tick(0, 0)
    assert len(server.records) - busy <= 1


def test_a_slot_that_retains_little_gets_none_however_long_it_takes():
    server = Server(RestartPace(BOUND))
    for tick in range(3000):
        server.tick(MEGABYTE // 4, 0)
        if tick % 30 == 0:
            server.decode_record()  # the background writer's, every 15 seconds
    assert server.most_retained > BOUND // 8
    assert server.records == []


def test_while_more_than_the_bound_is_not_confirmed_no_record_is_written():
    pace = RestartPace(BOUND)
    pace.seen(0, restart_lsn=0, confirmed_lsn=0)
    assert pace.is_due(0, written_lsn=BOUND, confirmed_lsn=0)
    assert not pace.is_due(0, written_lsn=BOUND + 1, confirmed_lsn=0)


def test_a_long_transaction_slows_the_records_down_to_the_pace_of_the_servers_own():
    server = Server(RestartPace(BOUND))
    server.open_since = server.written
    for _ in range(600):
        server.tick(8 * MEGABYTE, 0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(server.records)]
    assert pauses[0] == FIRST_PAUSE_SECONDS
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert pauses == sorted(pauses)
    assert server.pace.is_held(server.now)


def test_once_a_long_transaction_has_ended_the_records_come_as_before():
    server = Server(RestartPace(BOUND))
    server.open_since = server.written
    for _ in range(600):
        server.tick(2 * MEGABYTE, 0)
    server.open_since = None
    for _ in range(100):
        server.tick(2 * MEGABYTE, 0)
    assert not server.pace.is_held(server.now)
    server.most_retained = 0
    for _ in range(300):
        server.tick(2 * MEGABYTE, 0)
    assert server.most_retained <= BOUND // 4 + SEGMENT


@given(st.lists(st.tuples(WAL, UNCONFIRMED), max_size=100))
def test_what_moves_is_never_called_held(ticks: list[tuple[int, int]]):
    server = Server(RestartPace(BOUND))
    for wal_bytes, unconfirmed_bytes in ticks:
        server.tick(wal_bytes, unconfirmed_bytes)
        assert not server.pace.is_held(server.now)


def test_two_confirmed_records_without_a_move_are_one_too_many():
    pace = RestartPace(BOUND)
    pace.seen(0, restart_lsn=0, confirmed_lsn=BOUND)
    for number in range(1, IN_VAIN + 1):
        assert not pace.is_held(number)
        pace.wrote(number, BOUND + number)
        pace.seen(number, restart_lsn=0, confirmed_lsn=BOUND + number - 1)
        assert not pace.is_held(number), "it is not confirmed yet"
        pace.seen(number, restart_lsn=0, confirmed_lsn=BOUND + number)
    assert pace.is_held(IN_VAIN)
    pace.seen(9, restart_lsn=1, confirmed_lsn=BOUND + 9)
    assert not pace.is_held(9)


def test_where_no_records_are_written_a_minute_without_a_move_says_as_much():
    pace = RestartPace(BOUND)
    for now in range(int(STILL_SECONDS)):
        pace.seen(now, restart_lsn=0, confirmed_lsn=BOUND)
        assert not pace.is_held(now)
    assert pace.is_held(STILL_SECONDS)


def test_a_slot_that_has_nothing_to_move_to_is_not_held():
    pace = RestartPace(BOUND)
    pace.seen(0, restart_lsn=0, confirmed_lsn=5)
    pace.seen(10 * STILL_SECONDS, restart_lsn=0, confirmed_lsn=5)
    assert not pace.is_held(10 * STILL_SECONDS)
    pace.seen(10 * STILL_SECONDS, restart_lsn=0, confirmed_lsn=BOUND)
    assert not pace.is_held(11 * STILL_SECONDS - 1)


def test_a_role_that_may_not_is_asked_about_again_after_a_minute():
    pace = RestartPace(BOUND)
    pace.seen(0, restart_lsn=0, confirmed_lsn=BOUND)
    pace.refused(0)
    assert not pace.is_due(REFUSED_PAUSE_SECONDS - 1, written_lsn=BOUND, confirmed_lsn=BOUND)
    assert pace.is_due(REFUSED_PAUSE_SECONDS, written_lsn=BOUND, confirmed_lsn=BOUND)


def test_what_was_due_only_by_a_guess_is_looked_at_again_after_a_while():
    pace = RestartPace(BOUND)
    pace.seen(0, restart_lsn=0, confirmed_lsn=BOUND)
    pace.refused(0)
    pace.postpone(0)
    assert not pace.is_due(REFUSED_PAUSE_SECONDS - 1, written_lsn=BOUND, confirmed_lsn=BOUND)
    pace = RestartPace(BOUND)
    pace.seen(0, restart_lsn=0, confirmed_lsn=BOUND)
    pace.postpone(0)
    assert not pace.is_due(POSTPONED_SECONDS - 1, written_lsn=BOUND, confirmed_lsn=BOUND)
    assert pace.is_due(POSTPONED_SECONDS, written_lsn=BOUND, confirmed_lsn=BOUND)


def test_nothing_is_due_before_the_slot_was_looked_at():
    assert not RestartPace(BOUND).is_due(0, written_lsn=1 << 40, confirmed_lsn=1 << 40)
