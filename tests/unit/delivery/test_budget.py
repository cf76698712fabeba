"""When reading waits: what the triggers hold is what each test says."""

from __future__ import annotations

import asyncio

import pytest

from bridge.batching.lanes import Window
from bridge.change import Event, Position, Transaction
from bridge.clock import SystemClock
from bridge.delivery.backlog import Backlog, Bounds
from bridge.delivery.budget import Budget
from bridge.delivery.decide import Policy
from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.outcome import Delivered
from bridge.delivery.read_ahead import READ_AHEAD_BYTES
from bridge.lsn import LSN
from bridge.triggers.envelope import Envelope

MIB = 1 << 20
MOST = 128 * MIB


class Hanging:
    """A target that answers nobody until it is told to."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()

    async def deliver(self, invocation):
        await self.answers.wait()
        return Delivered()

    async def check(self): ...

    async def close(self) -> None: ...


class Trigger:
    """A trigger with one call in flight, which carries all that the trigger holds but for what a test gives it more."""

    def __init__(self, name: str, *, batch_size: int = 1) -> None:
        self.target = Hanging()
        self.count = 0
        self.dispatcher = Dispatcher(
            name,
            target=self.target,
            envelope=Envelope(name, "7"),
            batched=True,
            window=Window(batch_size, 0.0, MOST, 60),
            policy=Policy(1, -1, False),
            parallelization_factor=1,
            checkpoint=Position(LSN(1), 0),
            clock=SystemClock(),
            moved=lambda: None,
            failed=pytest.fail,
            backlog=Backlog(Bounds(1 << 40, 1 << 40, 1e9)),
        )

    def hold(self, size: int, events: int = 16) -> None:
        for _ in range(events):
            self.count += 1
            transaction = Transaction(1000 + self.count, 900, 0.0, self.count)
            event_id = Position(LSN(transaction.commit_lsn), 0).event_id.encode()
            body = bytes(size // events)
            self.dispatcher.inbox.append(Event(event_id, transaction, 0, None, None, "public.t", "insert", body))
        self.dispatcher.admit()

    async def done(self) -> None:
        self.target.answers.set()
        while self.dispatcher.settled_total < self.count:
            await asyncio.sleep(0)
            self.dispatcher.saved(self.dispatcher.settled_total)


def budget(*triggers: Trigger) -> Budget:
    return Budget({each.dispatcher.trigger: each.dispatcher for each in triggers}, MOST)


async def test_reading_waits_for_a_trigger_that_has_enough_to_send_and_goes_on_once_it_has_not():
    trigger = Trigger("a")
    memory = budget(trigger)
    trigger.hold(READ_AHEAD_BYTES - MIB)
    assert (memory.is_full, memory.has_room) == (False, False)
    trigger.hold(MIB)
    assert memory.is_full
    await trigger.done()
    assert (memory.is_full, memory.has_room) == (False, True)


async def test_what_does_not_fill_a_trigger_s_calls_is_not_enough():
    trigger = Trigger("a", batch_size=100)
    memory = budget(trigger)
    trigger.hold(READ_AHEAD_BYTES + MIB)
    assert not memory.is_full
    trigger.hold(MIB, events=200)
    assert memory.is_full
    await trigger.done()


async def test_reading_goes_on_for_a_trigger_that_has_nothing_whatever_another_holds():
    stuck, idle = Trigger("stuck"), Trigger("idle")
    memory = budget(stuck, idle)
    stuck.hold(4 * READ_AHEAD_BYTES)
    assert (memory.is_full, memory.has_room) == (False, True)
    idle.hold(READ_AHEAD_BYTES + MIB)
    assert (memory.is_full, memory.has_room) == (True, False)
    await idle.done()
    assert (memory.is_full, memory.has_room) == (False, True)
    await stuck.done()


async def test_the_bound_of_the_process_holds_whoever_has_nothing_to_do():
    stuck, idle = Trigger("stuck"), Trigger("idle")
    memory = budget(stuck, idle)
    stuck.hold(MOST)
    assert (memory.is_full, memory.has_room) == (True, False)
    await stuck.done()


async def test_a_process_without_triggers_reads_on():
    assert (budget().is_full, budget().has_room) == (False, True)
