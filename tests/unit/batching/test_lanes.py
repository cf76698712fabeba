"""The lanes of one trigger against the rules that they promise, with random keys, outcomes, divisions and times."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.batching.batch import Batch, bisect, part_of, single_out
from bridge.batching.lanes import SHORT_LANE, Lanes, Window
from bridge.change import Event, Position, Transaction
from bridge.errors import InvariantBroken
from bridge.lsn import LSN


def event(
    number: int, key: bytes | None = b"k", old_key: bytes | None = None, *, barrier: bool = False, size: int = 10
) -> Event:
    transaction = Transaction(1000 + number, 900 + number, 0.0, number)
    event_id = Position(LSN(transaction.commit_lsn), 0).event_id.encode()
    return Event(event_id, transaction, 0, key, old_key, "public.t", "update", b"x" * size, barrier)


def lanes(batch_size: int = 100, seconds: float = 0.0, max_bytes: int = 1 << 20) -> Lanes:
    return Lanes(Window(batch_size=batch_size, seconds=seconds, max_bytes=max_bytes, event_overhead_bytes=2))


def keys_of(event: Event) -> set[bytes]:
    return {key for key in (event.key, event.old_key) if key is not None}


def conflict(first: Event, second: Event) -> bool:
    return first.barrier or second.barrier or bool(keys_of(first) & keys_of(second))


def test_several_changes_of_one_key_travel_in_one_batch():
    subject = lanes()
    events = [event(n) for n in range(50)]
    subject.admit(events, 0.0)
    batch = subject.take(0.0)
    assert batch.events == events
    assert subject.take(0.0) is None


def test_a_key_in_flight_holds_back_only_itself():
    subject = lanes()
    subject.admit([event(1, b"a")], 0.0)
    first = subject.take(0.0)
    subject.admit([event(2, b"a"), event(3, b"b")], 0.0)
    second = subject.take(0.0)
    assert [e.key for e in second.events] == [b"b"]
    assert subject.take(0.0) is None
    subject.finish(first, 0.0)
    assert [e.key for e in subject.take(0.0).events] == [b"a"]


@pytest.mark.parametrize("count", [SHORT_LANE - 1, SHORT_LANE, SHORT_LANE + 1, 5 * SHORT_LANE])
def test_a_lane_keeps_its_order_however_long_it_grows(count):
    subject = lanes(batch_size=7)
    subject.admit([event(0)], 0.0)
    first = subject.take(0.0)
    later = [event(n) for n in range(1, count + 1)]
    for each in later:
        subject.admit([each], 0.0)
        assert subject.take(0.0) is None
    assert subject.waiting == count
    assert sorted(subject.unsent()) == later
    taken = []
    while first is not None:
        subject.finish(first, 0.0)
        first = subject.take(0.0)
        taken += [] if first is None else first.events
    assert taken == later
    assert subject.waiting == 0


def test_a_change_of_key_waits_for_both_keys_and_holds_both():
    subject = lanes()
    subject.admit([event(1, b"a")], 0.0)
    first = subject.take(0.0)
    subject.admit([event(2, b"b", b"a"), event(3, b"b"), event(4, b"a"), event(5, b"c")], 0.0)
    other = subject.take(0.0)
    assert [e.key for e in other.events] == [b"c"]
    subject.finish(first, 0.0)
    moved = subject.take(0.0)
    assert [e.id for e in moved.events] == [event(n).id for n in (2, 4)]
    assert subject.take(0.0) is None
    subject.finish(moved, 0.0)
    assert [e.id for e in subject.take(0.0).events] == [event(3).id]


def test_a_window_closes_by_count_bytes_or_age():
    by_count = lanes(batch_size=2, seconds=5)
    by_count.admit([event(1, None)], 0.0)
    assert by_count.take(1.0) is None
    assert by_count.wake_at() == 5.0
    by_count.admit([event(2, None), event(3, None)], 1.0)
    assert len(by_count.take(1.0).events) == 2
    assert by_count.take(1.0) is None
    assert by_count.wake_at() == 6.0
    assert len(by_count.take(6.0).events) == 1

    by_bytes = lanes(seconds=5, max_bytes=30)
    by_bytes.admit([event(1, None), event(2, None), event(3, None)], 0.0)
    assert len(by_bytes.take(0.0).events) == 2


def test_an_event_above_the_byte_limit_goes_alone():
    subject = lanes(max_bytes=30)
    subject.admit([event(1, None), event(2, None, size=500), event(3, None)], 0.0)
    assert [len(subject.take(0.0).events) for _ in range(3)] == [1, 1, 1]


def test_a_barrier_goes_alone_after_everything_before_it_and_before_everything_after():
    subject = lanes()
    subject.admit([event(1, b"a"), event(2, None, barrier=True), event(3, b"b")], 0.0)
    first = subject.take(0.0)
    assert len(first.events) == 1
    assert subject.take(0.0) is None
    subject.finish(first, 0.0)
    barrier = subject.take(0.0)
    assert barrier.events[0].barrier
    assert subject.take(0.0) is None
    subject.retry(barrier, [part_of(barrier, barrier.events)])
    again = subject.take(0.0)
    assert again.events[0].barrier
    assert subject.take(0.0) is None
    subject.finish(again, 0.0)
    assert subject.take(0.0).events[0].key == b"b"


def test_a_hot_row_costs_a_request_per_batch_and_not_per_change():
    subject = lanes(batch_size=100)
    requests = 0
    for number in range(10_000):
        subject.admit([event(number)], 0.0)
        if number % 100 == 99:
            batch = subject.take(0.0)
            requests += 1
            subject.finish(batch, 0.0)
    assert requests <= 10_000 / 50


def test_failing_batches_leave_turns_for_fresh_events():
    subject = lanes(batch_size=1)
    subject.admit([event(n, b"%d" % n) for n in range(4)], 0.0)
    for batch in [subject.take(0.0), subject.take(0.0)]:
        subject.retry(batch, [part_of(batch, batch.events)])
    order = [subject.take(0.0).events[0].key for _ in range(4)]
    assert order in ([b"0", b"2", b"1", b"3"], [b"2", b"0", b"3", b"1"])


def test_a_probe_is_one_event_that_may_be_any_but_the_first_of_its_key():
    chosen = set()
    for seed in range(300):
        subject = lanes(batch_size=4)
        subject.admit([event(n, b"%d" % (n % 15)) for n in range(30)], 0.0)
        (one,) = subject.take_probe(0.0, random.Random(seed).random).events
        chosen.add(one.transaction.commit_lsn - 1000)
    assert chosen == set(range(15))


def test_what_follows_a_probe_by_its_key_waits_for_it_and_nothing_else_does():
    subject = lanes(batch_size=4)
    subject.admit([event(n, b"%d" % (n % 2)) for n in range(8)], 0.0)
    probe = subject.take_probe(0.0, lambda: 0.0)
    assert [e.id for e in probe.events] == [event(0).id]
    other = subject.take(0.0)
    assert {e.key for e in other.events} == {b"1"}
    subject.finish(probe, 0.0)
    assert [e.id for e in subject.take(0.0).events] == [event(2).id]


def test_what_a_change_of_key_ties_to_a_probe_follows_it_in_commit_order():
    tied = [event(0, b"a"), event(1, b"b"), event(2, b"a"), event(3, b"a", b"b")]
    (probe,) = single_out(Batch(tied, 40), lambda: 0.0)
    assert [e.id for e in probe.chain()] == [e.id for e in tied]


def test_with_everything_backing_off_there_is_nothing_to_probe_with_yet():
    subject = lanes()
    subject.admit([event(1)], 0.0)
    batch = subject.take(0.0)
    part = part_of(batch, batch.events)
    part.not_before = 5.0
    subject.retry(batch, [part])
    assert subject.take_probe(4.0, random.random) is None
    assert subject.take_probe(5.0, random.random) is not None


def test_handing_back_a_batch_twice_is_a_bug_of_ours():
    subject = lanes()
    subject.admit([event(1)], 0.0)
    batch = subject.take(0.0)
    subject.finish(batch, 0.0)
    with pytest.raises(InvariantBroken):
        subject.finish(batch, 0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from([None, b"a", b"b", b"c", b"d"]), st.sampled_from([None, b"a", b"b", b"e"])),
        min_size=2,
        max_size=30,
    )
)
def test_bisect_keeps_all_events_and_never_parts_a_key_to_fly_at_once(pairs):
    events = [event(n, key, old if key and old != key else None) for n, (key, old) in enumerate(pairs)]
    halves = bisect(Batch(events, sum(len(e.body) + 2 for e in events)))
    assert sorted(e.id for half in halves for e in half.chain()) == [e.id for e in events]
    assert all(half.events for half in halves)
    assert max(len(half.events) for half in halves) < len(events)
    if len(halves) == 2:
        assert not halves[0].keys() & halves[1].keys()
    for half in halves:
        ids = [e.id for e in half.chain()]
        assert ids == sorted(ids)


def drive(seed: int, make=lanes, steps: int = 150) -> None:
    """Random events and outcomes; checks every promise on the way and that everything is settled in the end."""
    rng = random.Random(seed)
    window = rng.choice([0.0, 0.0, 2.0])
    subject = make(batch_size=rng.choice([1, 3, 8]), seconds=window, max_bytes=rng.choice([40, 100, 1 << 20]))
    parallel = rng.choice([1, 2, 5])
    names = [b"k%d" % n for n in range(rng.choice([1, 3, 10]))]
    admitted: list[Event] = []
    settled: list[Event] = []
    settled_ids: set[bytes] = set()
    flying: list[Batch] = []
    now = 0.0

    def settle(events):
        for one in events:
            assert one.id not in settled_ids, "settled twice"
            for earlier in admitted:
                if earlier.id >= one.id:
                    break
                if earlier.id not in settled_ids:
                    assert not conflict(earlier, one), f"{one} overtook {earlier}"
            settled_ids.add(one.id)
            settled.append(one)

    def take() -> Batch | None:
        if rng.random() < 0.2:
            probe = subject.take_probe(now, rng.random)
            assert probe is None or len(probe.events) == 1
            return probe
        return subject.take(now)

    def step(*, calm: bool) -> None:
        nonlocal now
        now += rng.choice([0.0, 0.1, 1.0])
        while len(flying) < parallel and (batch := take()) is not None:
            assert [e.id for e in batch.events] == sorted(e.id for e in batch.events)
            for other in flying:
                assert not any(conflict(a, b) for a in batch.events for b in other.events), (
                    "conflicting batches in flight"
                )
            for one in batch.events:
                for earlier in admitted:
                    if earlier.id >= one.id:
                        break
                    if earlier.id not in settled_ids and earlier not in batch.events:
                        assert not conflict(earlier, one), f"{one} was sent before {earlier}"
            flying.append(batch)
        if not flying:
            return
        batch = flying.pop(rng.randrange(len(flying)))
        outcome = "delivered" if calm else rng.choice(["delivered", "delivered", "failed", "partial", "bisect", "dead"])
        if outcome in ("delivered", "dead"):
            settle(batch.events)
            subject.finish(batch, now)
        elif outcome == "failed" or (outcome == "bisect" and len(batch.events) == 1):
            part = part_of(batch, batch.events, then=batch.then)
            part.not_before = now + rng.choice([0.0, 3.0])
            subject.retry(batch, [part])
        elif outcome == "bisect":
            subject.retry(batch, bisect(batch))
        else:
            failed: list[Event] = []
            for one in batch.events:
                if rng.random() < 0.4 or any(conflict(one, other) for other in failed):
                    failed.append(one)
            settle([one for one in batch.events if one not in failed])
            if failed:
                subject.retry(batch, [part_of(batch, failed, then=batch.then)])
            else:
                subject.finish(batch, now)

    for _ in range(steps):
        if rng.random() < 0.5:
            group = []
            for _ in range(rng.randrange(1, 6)):
                key = rng.choice([None, *names])
                old = rng.choice(names) if key is not None and rng.random() < 0.15 else None
                barrier = rng.random() < 0.01
                group.append(
                    event(
                        len(admitted) + len(group),
                        None if barrier else key,
                        old if old != key and not barrier else None,
                        barrier=barrier,
                        size=rng.choice([5, 10, 60]),
                    )
                )
            admitted.extend(group)
            subject.admit(group, now)
        if rng.random() < 0.05:
            away = subject.evict()
            assert [e.id for e in away] == sorted(e.id for e in away)
            flying_ids = {e.id for batch in flying for e in batch.chain()}
            assert {e.id for e in away} == {e.id for e in admitted} - settled_ids - flying_ids
            assert subject.waiting == subject.backing_off == 0
            # They come back page by page.
            while away:
                page, away = away[:3], away[3:]
                subject.admit(page, now)
                step(calm=False)
        step(calm=False)
    for _ in range(20 * len(admitted) + 100):
        if len(settled) == len(admitted):
            break
        now += 1.0
        step(calm=True)
    assert len(settled) == len(admitted), f"{len(admitted) - len(settled)} events never left"
    assert subject.waiting == subject.in_flight == subject.backing_off == 0
    assert not subject._held, "keys are held by nothing"
    assert not subject._blocks
    assert list(subject.unsent()) == []


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=0, max_value=1 << 32))
def test_order_per_key_holds_and_nothing_is_left_whatever_happens(seed):
    drive(seed)


class ForgetsOldKeys(Lanes):
    def admit(self, events, now):
        super().admit([e._replace(old_key=None) for e in events], now)


class ReleasesEarly(Lanes):
    def retry(self, batch, parts):
        super().retry(batch, parts)
        for key in list(self._held):
            if isinstance(self._held[key], int):
                del self._held[key]


class IgnoresBarriers(Lanes):
    def admit(self, events, now):
        super().admit([e._replace(barrier=False) for e in events], now)


@pytest.mark.parametrize("fault", [ForgetsOldKeys, ReleasesEarly, IgnoresBarriers])
def test_the_random_drive_catches_a_seeded_fault(fault):
    def make(**limits):
        return fault(Window(limits["batch_size"], limits["seconds"], limits["max_bytes"], 2))

    def drive_many():
        for seed in range(60):
            drive(seed, make)

    with pytest.raises((AssertionError, KeyError, InvariantBroken, ValueError)):
        drive_many()


class LooksAtEach(Lanes):
    def _gather_freely(self):
        return None


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0, max_value=1 << 32))
def test_gathering_without_looking_at_each_event_gives_the_same_batches(seed):
    choose = random.Random(seed)
    window = Window(choose.randint(1, 5), choose.choice([0.0, 2.0]), choose.choice([60, 1 << 20]), 2)
    both = [Lanes(window), LooksAtEach(window)]
    keys = [None, *(b"%d" % n for n in range(choose.choice([2, 20])))]
    flying: list[list[Batch]] = []
    number = 0
    for now in range(40):
        admitted = []
        for _ in range(choose.randint(0, 6)):
            number += 1
            key, old_key = choose.choice(keys), None
            if key is not None and choose.random() < 0.1:
                old_key = choose.choice([other for other in keys if other not in (None, key)])
            admitted.append(event(number, key, old_key, barrier=choose.random() < 0.03, size=choose.randint(1, 30)))
        for subject in both:
            if admitted:
                subject.admit(admitted, now)
        while choose.random() < 0.7:
            taken = [subject.take(now) for subject in both]
            if None in taken:
                assert taken == [None, None]
                break
            assert taken[0].events == taken[1].events
            assert taken[0].size == taken[1].size
            flying.append(taken)
        while flying and choose.random() < 0.5:
            for subject, batch in zip(both, flying.pop(choose.randrange(len(flying))), strict=True):
                subject.finish(batch, now)
        assert both[0].waiting == both[1].waiting
        assert both[0].wake_at() == both[1].wake_at()
