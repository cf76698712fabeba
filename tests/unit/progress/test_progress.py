"""The low watermark, what may be confirmed, and when the server is told."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.change import Event, Position, Transaction
from bridge.errors import InvariantBroken
from bridge.lsn import LSN
from bridge.progress import tracker as tracker_room
from bridge.progress.feedback import (
    FIRST_IDLE_PAUSE_SECONDS,
    FOREIGN_WAL_BYTES,
    LONGEST_IDLE_PAUSE_SECONDS,
    Feedback,
    IdlePace,
    confirmable,
)
from bridge.progress.tracker import Tracker

START = Position(LSN(50), 0)


def transaction(commit_lsn: int, previous_end_lsn: int) -> Transaction:
    return Transaction(commit_lsn, previous_end_lsn, 0.0, 7)


def event(transaction: Transaction, ordinal: int) -> Event:
    event_id = Position(LSN(transaction.commit_lsn), ordinal).event_id.encode()
    return Event(event_id, transaction, ordinal, b"k", None, "public.t", "insert", b"{}")


def test_the_checkpoint_waits_just_before_the_oldest_unsettled_event():
    tracker = Tracker(START)
    first = transaction(200, 100)
    events = [event(first, n) for n in range(4)]
    tracker.admit(events)
    assert tracker.checkpoint == (200, -1)
    tracker.settle([events[2], events[0]])
    assert tracker.checkpoint == (200, 0)
    tracker.settle([events[1]])
    assert tracker.checkpoint == (200, 2)
    tracker.settle([events[3]])
    assert tracker.checkpoint == (200, 3)


def test_settling_what_is_not_open_is_a_bug_of_ours():
    tracker = Tracker(START)
    one = event(transaction(200, 100), 0)
    with pytest.raises(InvariantBroken):
        tracker.settle([one])
    tracker.admit([one])
    tracker.settle([one])
    with pytest.raises(InvariantBroken):
        tracker.settle([one])


def test_admitting_an_older_event_is_a_bug_of_ours():
    tracker = Tracker(START)
    later, earlier = event(transaction(300, 100), 0), event(transaction(200, 100), 0)
    tracker.admit([later])
    with pytest.raises(InvariantBroken):
        tracker.admit([earlier])
    with pytest.raises(InvariantBroken):
        tracker.admit([later])


def test_confirmed_lsn_waits_for_the_slowest_trigger():
    fast, slow = Tracker(START), Tracker(START)
    one, two = transaction(200, 110), transaction(300, 250)
    fast.admit([event(one, 0), event(two, 0)])
    slow.admit([event(one, 1)])
    fast.settle([event(one, 0), event(two, 0)])
    positions = {"received_end_lsn": 350, "server_wal_end": 900, "open_transaction": None}
    assert confirmable([fast, slow], **positions) == 110
    slow.settle([event(one, 1)])
    assert confirmable([fast, slow], **positions) == 900


def test_a_keepalive_is_confirmed_only_when_nothing_at_all_is_open():
    tracker = Tracker(START)
    open_one = transaction(400, 350)
    positions = {"received_end_lsn": 350, "server_wal_end": 900}
    assert confirmable([tracker], open_transaction=open_one, **positions) == 350
    assert confirmable([tracker], open_transaction=None, **positions) == 900


def test_nothing_is_added_to_an_end_lsn():
    """A commit record may start exactly where the one before it ended."""
    tracker = Tracker(START)
    adjacent = transaction(350, 350)
    tracker.admit([event(adjacent, 0)])
    assert confirmable([tracker], received_end_lsn=420, server_wal_end=420, open_transaction=None) == 350


@pytest.mark.parametrize("apart", [1, 7, tracker_room.MARK_EVENTS])
@given(seed=st.integers(min_value=0, max_value=1 << 32))
def test_what_settled_above_the_watermark_is_counted_and_so_is_what_holds_it_down(apart, seed):
    rng = random.Random(seed)
    tracker = Tracker(START)
    admitted: list[Event] = []
    settled: set[bytes] = set()

    def above(oldest: list[Event]) -> int:
        return sum(each.id in settled for each in admitted if oldest and each.id > oldest[0].id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracker_room, "MARK_EVENTS", apart)
        for step in range(1, 12):
            burst = [event(transaction(100 * step, 100 * step - 50), n) for n in range(rng.randrange(40))]
            tracker.admit(burst)
            admitted += burst
            open_ones = [each for each in admitted if each.id not in settled]
            some = rng.sample(open_ones, rng.randrange(len(open_ones) + 1))
            tracker.settle(some)
            settled |= {each.id for each in some}
            open_ones = [each for each in admitted if each.id not in settled]
            assert above(open_ones) <= tracker.settled_above < above(open_ones) + apart
            most = rng.randrange(30)
            overtaken = tracker.overtaken(most)
            assert overtaken == open_ones[: len(overtaken)]
            assert above(open_ones[len(overtaken) :]) <= most
            if overtaken:
                assert above(overtaken[-1:]) + apart > most, "more than needed be"


def stream(rng: random.Random) -> list[tuple[Transaction, int, list[Event]]]:
    transactions = []
    end = 100
    for _ in range(rng.randrange(1, 12)):
        start = end + rng.choice([0, 0, 8, 100])
        one = transaction(start, end)
        end = start + rng.randrange(8, 60)
        transactions.append((one, end, [event(one, n) for n in range(rng.randrange(4))]))
    return transactions


@given(st.integers(min_value=0, max_value=1 << 32))
def test_confirmed_and_checkpoints_are_never_ahead_of_the_unsettled_and_never_go_back(seed):
    rng = random.Random(seed)
    trackers = [Tracker(START) for _ in range(rng.choice([1, 2, 3]))]
    unsettled: list[list[Event]] = [[] for _ in trackers]
    confirmed, received = 100, 100
    checkpoints = [START for _ in trackers]
    for _one, end, events in stream(rng):
        for tracker, mine in zip(trackers, unsettled, strict=True):
            wanted = [e for e in events if rng.random() < 0.6]
            tracker.admit(wanted)
            mine.extend(wanted)
        received = end
        for _ in range(rng.randrange(6)):
            index = rng.randrange(len(trackers))
            if unsettled[index]:
                chosen = unsettled[index].pop(rng.randrange(len(unsettled[index])))
                trackers[index].settle([chosen])
            now = confirmable(trackers, received_end_lsn=received, server_wal_end=0, open_transaction=None)
            assert now >= confirmed
            confirmed = now
            for mine in unsettled:
                for e in mine:
                    assert now <= e.transaction.commit_lsn
            for place, (tracker, mine) in enumerate(zip(trackers, unsettled, strict=True)):
                assert tracker.checkpoint >= checkpoints[place]
                checkpoints[place] = tracker.checkpoint
                assert all(e.position > tracker.checkpoint for e in mine)
                assert tracker.oldest is None or tracker.oldest == min(mine)


def test_the_server_is_told_no_more_than_the_store_holds_and_at_once_when_that_moves():
    feedback = Feedback(100, interval_seconds=10)
    first = feedback.status(0.0, received_lsn=500)
    assert (first.written, first.flushed, first.applied) == (500, 100, 100)
    assert feedback.due_at() == 10.0
    feedback.saved(300)
    assert feedback.due_at() == 0.0
    assert feedback.status(1.0, received_lsn=500).flushed == 300
    with pytest.raises(InvariantBroken):
        feedback.saved(299)


def test_idle_saves_of_our_own_making_die_away():
    pace, now, saves = IdlePace(), 0.0, 0
    while now < 86_400:
        now = max(now, pace.wake_at()) + 0.001
        pace.saved(now, gained_bytes=200, settled=False)
        saves += 1
    assert saves < 40
    assert pace.wake_at() - now <= LONGEST_IDLE_PAUSE_SECONDS


def test_a_busy_neighbour_keeps_the_slot_moving():
    pace = IdlePace()
    for second in range(20):
        pace.saved(float(second), gained_bytes=100, settled=False)
    pace.saved(100.0, gained_bytes=FOREIGN_WAL_BYTES + 1, settled=False)
    assert pace.wake_at() == 100.0 + FIRST_IDLE_PAUSE_SECONDS
