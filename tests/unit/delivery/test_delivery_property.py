"""
Delivery at random: keys, outcomes of every class, delays, divisions, outages and restarts, under a clock of ours.

Lanes, decisions, tracker, circuit and dispatcher are the real ones; the source, the store and the receiver are played.
What must hold whatever happens is checked on the way and at the end, against a ledger that keeps its own books by the
delivery table. And each check is shown to catch the fault that it is for.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.batching.groups import Grouping
from bridge.batching.lanes import Lanes, Window
from bridge.change import Event, Position, Transaction
from bridge.delivery import decide as decide_room
from bridge.delivery import dispatch
from bridge.delivery.circuit import Circuit, Limits
from bridge.delivery.decide import Policy
from bridge.delivery.dispatch import EVENT_OVERHEAD_BYTES, Dispatcher
from bridge.delivery.outcome import (
    Busy,
    Delivered,
    Evidence,
    Failed,
    Misconfigured,
    Partial,
    Rejected,
    TooLarge,
)
from bridge.errors import InvariantBroken
from bridge.lsn import LSN
from bridge.progress.tracker import Tracker
from bridge.testing import ManualClock
from bridge.triggers.envelope import Envelope

NEVER = Limits(minimum_invocations=10**9)
"""A circuit that does not open, so that attempts can be counted exactly."""


def evidence(text: str) -> Evidence:
    return Evidence(text, status=500)


def keys_of(event: Event) -> set[bytes]:
    return {key for key in (event.key, event.old_key) if key is not None}


def conflict(first: Event, second: Event) -> bool:
    return first.barrier or second.barrier or not keys_of(first).isdisjoint(keys_of(second))


@dataclass
class Call:
    events: list[Event]
    ends_at: float
    answer: asyncio.Future


class World:
    """The source and what was saved, which outlive each process; the receiver; and the process of the moment."""

    def __init__(self, seed: int, *, circuit: bool = False) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = ManualClock()
        self.names = [b"k%d" % number for number in range(rng.choice([1, 3, 12]))]
        self.batch_size = rng.choice([1, 3, 8, 40])
        self.parallel = rng.choice([1, 2, 6])
        self.most_bytes = rng.choice([700, 2_000, 1 << 20])
        self.target_bytes = rng.choice([600, 1_500, 1 << 20])
        self.attempts = rng.choice([0, 1, 3])
        self.bisect = rng.random() < 0.6
        self.tenants = rng.random() < 0.3
        self.limits = Limits(minimum_invocations=8, window_seconds=60.0) if circuit else NEVER
        self.events: dict[bytes, Event] = {}
        self.poisoned: set[bytes] = set()
        self.checkpoint = Position(LSN(1), 0)
        self.delivered: Counter[bytes] = Counter()
        self.letters: dict[bytes, object] = {}
        self.saved_delivered: set[bytes] = set()
        self.down = False
        self.charges: Counter[bytes] = Counter()
        self.calls_made = 0
        self.start()

    # -- the process ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        grouping = Grouping(self.tenant_of, self.batch_size, self.most_bytes, 60) if self.tenants else None
        self.calls: list[Call] = []
        self.life: list[bytes] = []  # delivered by this process
        self.charges.clear()
        self.errors: list[BaseException] = []
        self.dispatcher = Dispatcher(
            "t",
            target=self,
            envelope=Envelope("t", "7"),
            batched=True,
            window=Window(self.batch_size, self.rng.choice([0.0, 0.0, 2.0]), self.most_bytes, 60),
            policy=Policy(self.attempts, -1, self.bisect),
            parallelization_factor=self.parallel,
            checkpoint=self.checkpoint,
            clock=self.clock,
            moved=lambda: None,
            failed=self.errors.append,
            circuit=Circuit(self.limits),
            grouping=grouping,
        )
        self.dispatcher.inbox.extend([event for event in self.events.values() if event.position > self.checkpoint])
        self.dispatcher.admit()

    def commit(self, count: int) -> None:
        rng, first = self.rng, len(self.events) + 10
        for number in range(first, first + count):
            key = rng.choice([None, *self.names])
            old_key = rng.choice(self.names) if key is not None and rng.random() < 0.1 else None
            barrier = rng.random() < 0.01
            event = Event(
                Position(LSN(number), 0).event_id.encode(),
                Transaction(number, number - 1, self.clock.now(), number),
                0,
                None if barrier else key,
                None if barrier or old_key == key else old_key,
                "public.t",
                "update",
                b"x" * rng.choice([50, 200, 500]),
                barrier,
            )
            self.events[event.id] = event
            if rng.random() < 0.06:
                self.poisoned.add(event.id)
            self.dispatcher.inbox.append(event)
        self.dispatcher.admit()

    def save(self) -> None:
        dispatcher = self.dispatcher
        checkpoint, total = dispatcher.tracker.checkpoint, dispatcher.settled_total
        assert checkpoint >= self.checkpoint, "a checkpoint moved back"
        for letter in dispatcher.letters:
            self.letters[letter.event_id.encode()] = letter
        dispatcher.letters.clear()
        self.checkpoint = checkpoint
        for event_id, event in self.events.items():
            if event.position <= checkpoint:
                assert self.delivered[event_id] or event_id in self.letters, f"{event} was passed and never delivered"
        dispatcher.saved(total)

    async def kill(self) -> None:
        """Without a word: what was settled since the last save is not known to anybody."""
        self.dispatcher.books.stopped = True
        for flight in list(self.dispatcher._flights):
            flight.cancel()
        await asyncio.gather(*self.dispatcher._flights, return_exceptions=True)
        if self.dispatcher._timer is not None:
            self.dispatcher._timer.cancel()
        self.start()

    # -- the receiver --------------------------------------------------------------------------------------------------

    def tenant_of(self, event: Event) -> str:
        return "ab"[event.transaction.commit_lsn % 2]

    async def deliver(self, invocation):
        events = [self.events[event_id.encode()] for event_id in invocation.ids]
        self.calls_made += 1
        try:
            self.look_at(events, invocation)
        except AssertionError as error:
            self.errors.append(error)  # the dispatcher would take it for a bug of the target
        answer = asyncio.get_running_loop().create_future()
        call = Call(events, self.clock.monotonic() + self.rng.choice([0.0, 0.1, 1.0, 20.0]), answer)
        self.calls.append(call)
        try:
            return await answer
        finally:
            if call in self.calls:
                self.calls.remove(call)

    def look_at(self, events: list[Event], invocation) -> None:
        """What must hold for a call when it is made."""
        ids = [event.id for event in events]
        assert ids == sorted(set(ids)), "a batch out of order, or an event in it twice"
        for event_id in ids:
            assert event_id not in self.life, f"{event_id} succeeded and was sent again"
        for other in self.calls:
            for event in events:
                assert not any(conflict(event, another) for another in other.events), "a key is in two calls at once"
        assert len(self.calls) < self.parallel, "more calls at once than allowed"
        size = sum(len(event.body) + 60 for event in events)
        assert len(events) == 1 or size <= self.most_bytes, "a batch above its bound"
        in_flight = size + sum(len(event.body) + 60 for call in self.calls for event in call.events)
        assert in_flight <= self.parallel * max(self.most_bytes, 560), "more bytes in flight than the bound"
        assert len(events) <= self.batch_size
        if self.tenants:
            assert {self.tenant_of(event) for event in events} == {invocation.tenant}, "tenants in one call"

    def land(self, call: Call, *, calm: bool) -> None:
        """End a call; the ledger is kept by the delivery table."""
        outcome = self.outcome(call.events, calm=calm)
        failed = set()
        match outcome:
            case Delivered():
                pass
            case Partial(ids, _):
                failed = {event.id for event in call.events if event.id.decode() in ids}
                blamed: set[bytes] = set()
                for event in call.events:
                    keys = keys_of(event)
                    if event.id in failed and blamed.isdisjoint(keys):
                        self.charges[event.id] += 1
                        blamed |= keys
                    elif event.id in failed or not blamed.isdisjoint(keys):
                        # Held back by the handler, or taken out of turn: it goes again, and no charge is made.
                        failed.add(event.id)
                        blamed |= keys
            case Failed():
                failed = {event.id for event in call.events}
                if not outcome.unsent and (len(call.events) == 1 or not self.bisect):
                    self.charges.update(failed)
            case Rejected():
                failed = {event.id for event in call.events}
                if len(call.events) == 1:
                    self.charges.update(failed)
            case _:
                failed = {event.id for event in call.events}
        for event in call.events:
            if event.id not in failed:
                self.succeed(event)
        call.answer.set_result(outcome)

    def succeed(self, event: Event) -> None:
        for later in self.life:
            assert later < event.id or not conflict(self.events[later], event), f"{later} overtook {event}"
        self.life.append(event.id)
        self.delivered[event.id] += 1

    def outcome(self, events: list[Event], *, calm: bool):
        rng, ids = self.rng, [event.id.decode() for event in events]
        if self.down:
            return rng.choice(
                [Failed(evidence("down")), Failed(evidence("out of reach"), unsent=True), Busy(evidence("busy"))]
            )
        if sum(len(event.body) for event in events) > self.target_bytes and len(events) > 1:
            return TooLarge(evidence("too large"))
        bad = {event.id.decode() for event in events if event.id in self.poisoned}
        if bad:
            if len(events) == 1 and rng.random() < 0.2:
                return Rejected(evidence("rejected"), final=rng.random() < 0.5)
            return (
                Failed(evidence("poison"))
                if rng.random() < 0.5
                else Partial(self.held_back(events, bad), evidence("p"))
            )
        draw = 1.0 if calm else rng.random()
        if draw < 0.08:
            return Failed(evidence("transient"), unsent=draw < 0.02)
        if draw < 0.16:
            return Busy(evidence("busy"), rng.choice([None, 3.0]))
        if draw < 0.21:
            return Misconfigured(evidence("misconfigured"), "mend it")
        if draw < 0.3:
            return Partial(self.held_back(events, {rng.choice(ids)}), evidence("partial"))
        return Delivered()

    def held_back(self, events: list[Event], bad: set[str]) -> frozenset[str]:
        """As a handler reports that keeps the order of keys: with what it held back behind a failure."""
        named, keys, closed = set(), set(), False
        for event in events:
            if event.id.decode() in bad or closed or not keys.isdisjoint(keys_of(event)):
                named.add(event.id.decode())
                keys |= keys_of(event)
                closed = closed or event.barrier
        return frozenset(named)

    # -- time ----------------------------------------------------------------------------------------------------------

    async def step(self, *, calm: bool) -> None:
        self.clock.advance(self.rng.choice([0.0, 0.05, 0.5, 5.0]) if not calm else 5.0)
        self.dispatcher.pump()
        await self.settle()
        due = [call for call in self.calls if call.ends_at <= self.clock.monotonic() and not call.answer.done()]
        for call in due:
            self.land(call, calm=calm)
        await self.settle()
        if self.errors:
            raise self.errors[0]
        self.check_books()

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    def check_books(self) -> None:
        dispatcher = self.dispatcher
        unsettled = [self.events[event.id] for event in dispatcher.tracker._unsettled.values()]
        held = sum(len(event.body) + EVENT_OVERHEAD_BYTES for event in unsettled)
        assert dispatcher.buffered_bytes == held, "the bytes in hand are counted wrong"
        for letter in dispatcher.letters:
            event_id = letter.event_id.encode()
            assert event_id not in self.life, "delivered and dead-lettered"
            if self.limits is NEVER:
                assert letter.attempts == self.charges[event_id], "attempts are counted wrong"
                final = letter.error == "rejected"
                assert final or letter.attempts == self.attempts + 1, "given up too soon or too late"


async def drive(seed: int, *, circuit: bool = False, steps: int = 70) -> World:
    random.seed(seed)  # the dispatcher's jitter
    world = World(seed, circuit=circuit)
    rng = world.rng
    for _ in range(steps):
        if rng.random() < 0.4:
            world.commit(rng.randrange(1, 12))
        if circuit and rng.random() < 0.06:
            world.down = not world.down
        await world.step(calm=False)
        draw = rng.random()
        if draw < 0.3:
            world.save()
        elif draw < 0.33:
            await world.kill()
    world.down = False
    for _ in range(3000):
        await world.step(calm=True)
        world.save()
        if len(world.dispatcher.tracker) == 0 and not world.calls:
            break
    missing = [event_id for event_id in world.events if not world.delivered[event_id] and event_id not in world.letters]
    assert not missing, f"{len(missing)} events were never delivered"
    assert len(world.dispatcher.tracker) == 0, "something never settles"
    assert world.dispatcher.buffered_bytes == 0
    assert world.dispatcher.retrying_events == 0, "charges are left over"
    lanes = world.dispatcher._lanes
    assert lanes.waiting == lanes.in_flight == lanes.backing_off == 0
    assert not lanes._held
    if world.events:
        assert world.checkpoint == list(world.events.values())[-1].position
    await world.dispatcher.drain(0)
    return world


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=0, max_value=1 << 32))
def test_order_completeness_and_the_count_of_attempts_hold_whatever_happens(seed):
    asyncio.run(drive(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=0, max_value=1 << 32))
def test_the_same_holds_with_outages_and_a_circuit_that_opens(seed):
    asyncio.run(drive(seed, circuit=True))


def test_the_random_world_meets_every_kind_of_trouble():
    """Else the properties above would hold of nothing."""

    async def meet() -> None:
        seen: Counter[str] = Counter()
        letters = delivered_twice = tenants = 0
        outcome = World.outcome
        World.outcome = lambda self, events, *, calm: count(outcome(self, events, calm=calm))

        def count(given_outcome):
            seen[type(given_outcome).__name__] += 1
            return given_outcome

        try:
            for seed in range(24):
                world = await drive(seed, circuit=seed % 2 == 0)
                letters += len(world.letters)
                delivered_twice += sum(count > 1 for count in world.delivered.values())
                tenants += world.tenants
        finally:
            World.outcome = outcome
        kinds = {"Delivered", "Partial", "Failed", "Busy", "Misconfigured", "TooLarge", "Rejected"}
        assert kinds <= {name for name, times in seen.items() if times >= 5}
        assert letters > 30
        assert delivered_twice > 10  # after kills
        assert tenants > 2

    asyncio.run(meet())


# Seeded faults


def free_of_charge(decide):
    def faulty(batch, outcome, charges, policy, **more):
        decision = decide(batch, outcome, charges, policy, **more)
        kept = {key: replace(charge, attempts=max(1, charge.attempts - 1)) for key, charge in decision.charged.items()}
        return replace(decision, charged=kept)

    return faulty


def forgets_the_rest(decide):
    def faulty(batch, outcome, charges, policy, **more):
        decision = decide(batch, outcome, charges, policy, **more)
        return replace(decision, parts=decision.parts[:1]) if len(decision.parts) > 1 else decision

    return faulty


def sends_the_whole_batch_again(decide):
    def faulty(batch, outcome, charges, policy, **more):
        decision = decide(batch, outcome, charges, policy, **more)
        if isinstance(outcome, Partial) and decision.parts and decision.settled:
            again = decide_room.part_of(batch, batch.events, then=batch.then)
            return replace(decision, settled=(), given_up=(), parts=[(again, 0.0)])
        return decision

    return faulty


def charges_for_busy(decide):
    def faulty(batch, outcome, charges, policy, **more):
        return decide(
            batch, Failed(outcome.evidence) if isinstance(outcome, Busy) else outcome, charges, policy, **more
        )

    return faulty


def settles_what_failed(decide):
    def faulty(batch, outcome, charges, policy, **more):
        return decide(batch, Delivered() if isinstance(outcome, Partial) else outcome, charges, policy, **more)

    return faulty


@pytest.mark.parametrize(
    "fault", [free_of_charge, forgets_the_rest, sends_the_whole_batch_again, charges_for_busy, settles_what_failed]
)
def test_a_faulty_decision_is_caught(fault, monkeypatch):
    monkeypatch.setattr(dispatch, "decide", fault(dispatch.decide))
    assert_caught()


class FreesKeysInFlight(Lanes):
    def take(self, now):
        batch = super().take(now)
        if batch is not None:
            for key in batch.own_keys():
                if isinstance(self._held.get(key), int):
                    del self._held[key]
        return batch


class OverlooksOldKeys(Lanes):
    def admit(self, events, now):
        super().admit([event._replace(old_key=None) for event in events], now)


class DropsOne(Lanes):
    def admit(self, events, now):
        super().admit(events[1:] if len(events) > 5 else events, now)


class IgnoresBytes(Lanes):
    def __init__(self, window):
        super().__init__(replace(window, max_bytes=1 << 30))


@pytest.mark.parametrize("fault", [FreesKeysInFlight, OverlooksOldKeys, DropsOne, IgnoresBytes])
def test_faulty_lanes_are_caught(fault, monkeypatch):
    monkeypatch.setattr(dispatch, "Lanes", fault)
    assert_caught()


class RunsAhead(Tracker):
    @property
    def checkpoint(self):
        return self._received


def test_a_checkpoint_that_runs_ahead_is_caught(monkeypatch):
    monkeypatch.setattr(dispatch, "Tracker", RunsAhead)
    assert_caught()


class NeverDoubts(Circuit):
    def examine(self, records):
        return list(records)


def test_a_circuit_without_doubts_gives_up_good_records(monkeypatch):
    """Good records that only ever failed while the target was down; twelve outages with both, to compare."""

    async def innocents() -> int:
        found = 0
        for seed in range(12):
            random.seed(seed)
            world = World(seed, circuit=True)
            world.attempts, world.poisoned = 0, set()
            await world.kill()
            world.down = True
            world.commit(60)
            world.poisoned.clear()
            for _ in range(60):
                await world.step(calm=True)
                world.save()
            world.down = False
            for _ in range(200):
                await world.step(calm=True)
                world.save()
            found += len(world.letters)
            await world.dispatcher.drain(0)
        return found

    with_doubts = asyncio.run(innocents())
    monkeypatch.setattr(dispatch, "Circuit", NeverDoubts)
    monkeypatch.setitem(globals(), "Circuit", NeverDoubts)
    without = asyncio.run(innocents())
    assert with_doubts * 5 < without


def assert_caught() -> None:
    def drive_many() -> None:
        for seed in range(40):
            asyncio.run(drive(seed))

    with pytest.raises((AssertionError, InvariantBroken, KeyError)):
        drive_many()
