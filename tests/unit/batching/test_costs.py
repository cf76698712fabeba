"""What thousands of keys cost while they wait: counted work and bytes, no times."""

from __future__ import annotations

import heapq
import tracemalloc

import pytest

from bridge.batching import lanes as lanes_module
from bridge.batching.batch import part_of
from bridge.batching.held import HeldKeys
from bridge.batching.lanes import Lanes, Window
from bridge.change import Event, Position, Transaction
from bridge.delivery.backlog import EVENT_OVERHEAD_BYTES
from bridge.lsn import LSN

KEYS = 5_000


def event(number: int, key: bytes | None) -> Event:
    transaction = Transaction(1000 + number, 900 + number, 0.0, number)
    event_id = Position(LSN(transaction.commit_lsn), 0).event_id.encode()
    return Event(event_id, transaction, 0, key, None, "public.t", "update", b"x" * 100, False)


def changes(first: int) -> list[Event]:
    return [event(first + number, b"key%08d" % number) for number in range(KEYS)]


def backing_off(subject: Lanes, *, until: float) -> None:
    """Take everything, and hand each event back as a batch of its own that waits."""
    while (batch := subject.take(0.0)) is not None:
        parts = [part_of(batch, [each]) for each in batch.events]
        for part in parts:
            part.not_before = until
        subject.retry(batch, parts)


def lanes(batch_size: int = 1) -> Lanes:
    return Lanes(Window(batch_size, 0.0, 1 << 20, 60))


class Counted:
    """heapq, counting."""

    def __init__(self) -> None:
        self.pushes = self.pops = 0

    def heappush(self, heap, item):
        self.pushes += 1
        heapq.heappush(heap, item)

    def heappop(self, heap):
        self.pops += 1
        return heapq.heappop(heap)


@pytest.fixture
def heaps(monkeypatch):
    counted = Counted()
    monkeypatch.setattr(lanes_module, "heapq", counted)
    return counted


def test_keys_that_back_off_cost_no_work_until_they_are_due(heaps):
    subject = lanes()
    subject.admit(changes(0), 0.0)
    backing_off(subject, until=60.0)
    assert (heaps.pushes, heaps.pops) == (KEYS, 0)
    for moment in range(1000):
        assert subject.take(moment / 100) is None
        assert subject.wake_at() == 60.0
    assert (heaps.pushes, heaps.pops) == (KEYS, 0)


def test_other_keys_pass_by_thousands_that_back_off_without_touching_them(heaps):
    subject = lanes(batch_size=10)
    subject.admit(changes(0), 0.0)
    backing_off(subject, until=60.0)
    before = heaps.pushes, heaps.pops
    for number in range(KEYS, 2 * KEYS):
        subject.admit([event(number, b"other%08d" % number)], 1.0)
        batch = subject.take(1.0)
        assert len(batch.events) == 1
        subject.finish(batch, 1.0)
    assert (heaps.pushes, heaps.pops) == before


def test_when_they_are_due_each_costs_one_step_out_of_the_heap(heaps):
    subject = lanes()
    subject.admit(changes(0), 0.0)
    backing_off(subject, until=60.0)
    for _ in range(KEYS):
        subject.finish(subject.take(60.0), 60.0)
    assert subject.take(60.0) is None
    assert (heaps.pushes, heaps.pops) == (KEYS, KEYS)
    assert not subject._held


def test_later_changes_of_keys_that_back_off_are_looked_at_once(monkeypatch):
    looked_at = []
    defer = Lanes._defer
    monkeypatch.setattr(Lanes, "_defer", lambda self, event, key: (looked_at.append(key), defer(self, event, key)))
    subject = lanes()
    subject.admit(changes(0), 0.0)
    backing_off(subject, until=60.0)
    subject.admit(changes(KEYS), 1.0)
    for moment in range(100):
        assert subject.take(1.0 + moment / 10) is None
    assert len(looked_at) == subject.waiting == KEYS


def grown(work) -> float:
    """Bytes for each key that are left after some work."""
    work(lanes())  # what is made once and for all
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = work(lanes())
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept is not None
    return (after - before) / KEYS


def test_a_key_that_backs_off_takes_no_more_than_is_counted_for_its_event():
    events = changes(0)

    def work(subject: Lanes) -> Lanes:
        subject.admit(events, 0.0)
        backing_off(subject, until=60.0)
        return subject

    assert grown(work) < EVENT_OVERHEAD_BYTES


def test_a_change_that_waits_behind_one_takes_less_than_is_counted_for_it():
    first, second = changes(0), changes(KEYS)

    def work(subject: Lanes) -> Lanes:
        subject.admit(first, 0.0)
        while subject.take(0.0) is not None:
            pass
        before = tracemalloc.get_traced_memory()[0]
        subject.admit(second, 1.0)
        assert subject.take(1.0) is None
        more.append((tracemalloc.get_traced_memory()[0] - before) / KEYS)
        return subject

    more: list[float] = []
    grown(work)
    assert more[-1] < EVENT_OVERHEAD_BYTES / 2


def test_a_held_key_takes_the_bytes_of_its_name_and_little_more():
    def work(_: Lanes) -> HeldKeys:
        held = HeldKeys()
        for each in changes(0):
            held.hold(each)
        return held

    assert grown(work) < 250
