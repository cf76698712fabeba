"""What looks like a loop, and what only looks busy."""

from __future__ import annotations

import random

import pytest

from bridge.batching.batch import part_of
from bridge.batching.lanes import Lanes, Window
from bridge.change import Event, Position, Transaction
from bridge.delivery import loop_guard
from bridge.delivery.loop_guard import Alarm, Hold, LoopGuard
from bridge.lsn import LSN


class Simulation:
    """One trigger whose calls take some time, under a clock of ours; `guard` watches."""

    def __init__(self, *, repeats: int = 50, batch_size: int = 100, parallel: int = 4) -> None:
        self.guard = LoopGuard(repeats)
        self.lanes = Lanes(Window(batch_size, 0.0, 1 << 20, 0))
        self.parallel = parallel
        self.now = 0.0
        self.number = 0
        self.received = b""
        self.calls = self.holds = 0
        self.alarm: Event | None = None
        self.flying: list[tuple[float, object, bytes]] = []
        self.due: list[tuple[float, bytes]] = []

    def commit_at(self, when: float, key: bytes) -> None:
        self.due.append((when, key))
        self.due.sort()

    def run(self, until: float, seconds, on_call=lambda batch, began, ends: None) -> None:
        """`seconds` gives how long a call takes."""
        while self.alarm is None:
            times = [self.due[0][0]] if self.due else []
            times += [ends for ends, *_ in self.flying]
            if len(self.flying) < self.parallel and (wake := self.lanes.wake_at()) is not None:
                times.append(max(wake, self.now))
            if not times or min(times) > until:
                return
            self.now = min(times)
            while self.due and self.due[0][0] <= self.now:
                self.number += 1
                event_id = Position(LSN(self.number), 0).event_id.encode()
                key = self.due.pop(0)[1]
                self.lanes.admit([Event(event_id, Transaction(1, 0, 0, 0), 0, key, None, "t", "update", b"")], self.now)
                self.received = event_id
            for flight in [each for each in self.flying if each[0] <= self.now]:
                self.flying.remove(flight)
                self.guard.ended(flight[1], received_before=flight[2], received=self.received, now=self.now)
                self.lanes.finish(flight[1], self.now)
            while len(self.flying) < self.parallel and (batch := self.lanes.take(self.now)) is not None:
                found = self.guard.sending(batch, self.now, self.lanes.waits_for)
                if isinstance(found, Alarm):
                    self.alarm = found.event
                    return
                if isinstance(found, Hold):
                    self.holds += 1
                    part = part_of(batch, batch.events, then=batch.then)
                    part.not_before = self.now + found.seconds
                    self.lanes.retry(batch, [part])
                    continue
                self.calls += 1
                ends = self.now + seconds()
                on_call(batch, self.now, ends)
                self.flying.append((ends, batch, self.received))


def loop(simulation, key=b"k", where=0.5):
    """A target that answers each call with a change of each key in it, before it ends."""

    def on_call(batch, began, ends):
        for one in {event.key for event in batch.events}:
            if one == key:
                simulation.commit_at(began + (ends - began) * where, one)

    return on_call


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 100])
def test_a_function_that_writes_to_the_row_it_is_called_for_raises_the_alarm(parallel, batch_size):
    simulation = Simulation(parallel=parallel, batch_size=batch_size)
    simulation.commit_at(0.0, b"k")
    simulation.run(1000.0, lambda: 0.05, loop(simulation))
    assert simulation.alarm.key == b"k"
    assert 52 <= simulation.calls <= 54
    assert simulation.holds == 3


def test_a_loop_shows_amid_other_traffic():
    rng = random.Random(4)
    simulation = Simulation()
    for _ in range(3000):
        simulation.commit_at(rng.random() * 60, b"%d" % rng.randrange(1000))
    simulation.commit_at(1.0, b"k")
    simulation.run(60.0, lambda: rng.uniform(0.02, 0.08), loop(simulation))
    assert simulation.alarm.key == b"k"


def test_changes_that_come_a_moment_after_the_call_count_neither_way():
    rng = random.Random(5)
    simulation = Simulation()

    def on_call(batch, began, ends):
        simulation.commit_at(ends - 0.01 if rng.random() < 0.5 else ends + 0.005, b"k")

    simulation.commit_at(0.0, b"k")
    simulation.run(1000.0, lambda: 0.05, on_call)
    assert simulation.alarm is not None
    assert 80 <= simulation.calls <= 140


@pytest.mark.parametrize("batch_size", [1, 100])
@pytest.mark.parametrize("per_second", [1, 7, 20, 50, 300, 2000])
def test_a_row_that_is_only_busy_raises_none(per_second, batch_size):
    rng = random.Random(per_second)
    simulation = Simulation(batch_size=batch_size)
    when = 0.0
    for _ in range(4000):
        when += rng.expovariate(per_second)
        simulation.commit_at(when, b"k")
    simulation.run(when + 300, lambda: rng.uniform(0.04, 0.06))
    assert simulation.alarm is None
    assert simulation.calls > 30


@pytest.mark.parametrize("period", [0.02, 0.045, 0.049, 0.0505, 0.055, 0.06, 0.1, 1.0])
def test_a_row_that_is_written_like_clockwork_raises_none(period):
    rng = random.Random(1)
    simulation = Simulation()
    for tick in range(4000):
        simulation.commit_at(tick * period, b"k")
    simulation.run(5000.0, lambda: 0.05 + rng.uniform(-0.01, 0.01))
    assert simulation.alarm is None


def test_a_queue_of_changes_of_one_row_sent_one_by_one_raises_none():
    simulation = Simulation(batch_size=1)
    for _ in range(500):
        simulation.commit_at(0.0, b"k")
    simulation.run(1000.0, lambda: 0.05)
    assert simulation.alarm is None
    assert simulation.calls == 500


def test_after_a_resume_it_counts_anew_and_off_is_off():
    simulation = Simulation(repeats=50)
    simulation.commit_at(0.0, b"k")
    simulation.run(1000.0, lambda: 0.05, loop(simulation))
    simulation.guard.reset()
    simulation.alarm, simulation.calls = None, 0
    simulation.commit_at(simulation.now, b"other")
    simulation.run(simulation.now + 1, lambda: 0.05, loop(simulation, b"other"))
    assert simulation.alarm is None
    never = Simulation()
    never.guard = LoopGuard(None)
    never.commit_at(0.0, b"k")
    never.run(100.0, lambda: 0.05, loop(never))
    assert never.alarm is None


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(loop_guard, "_MOST_KEYS", 20)
    rng = random.Random(2)
    simulation = Simulation()
    for number in range(2000):
        simulation.commit_at(rng.random() * 10, b"%d" % number)
    simulation.run(60.0, lambda: 0.05)
    assert 0 < len(simulation.guard._calls) + len(simulation.guard._older) <= 2 * 20 + 1


def test_a_writer_that_keeps_step_and_then_stops_raises_none():
    simulation = Simulation()
    for tick in range(56):
        simulation.commit_at(tick * 0.05 + 0.001 * tick / 60, b"k")
    simulation.run(100.0, lambda: 0.0501)
    assert simulation.alarm is None


def test_the_reason_names_the_table_and_no_key():
    simulation = Simulation()
    simulation.commit_at(0.0, b"secret")
    reasons = []
    sending = simulation.guard.sending
    simulation.guard.sending = lambda *arguments: reasons.append(sending(*arguments)) or reasons[-1]
    simulation.run(1000.0, lambda: 0.05, loop(simulation, b"secret"))
    assert "of the same row of t, and" in reasons[-1].reason
    assert "secret" not in reasons[-1].reason
