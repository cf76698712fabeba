"""
One trigger at work: its events into batches, the batches into calls, what came of them back into its lanes.

The rules are elsewhere and pure: what may be sent (`batching/lanes.py`), what an outcome means (`decide.py`), what is
settled (`progress/tracker.py`), what is in the table and not in memory (`parking.py`). Here are the tasks, the timer
and the counters.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from bridge.batching.batch import Batch, part_of
from bridge.batching.groups import Grouping
from bridge.batching.held import HeldKeys
from bridge.batching.lanes import Lanes, Window
from bridge.change import Event, Position
from bridge.clock import Clock
from bridge.delivery.backlog import EVENT_OVERHEAD_BYTES, NO_MOVE, Backlog, Move
from bridge.delivery.books import Books
from bridge.delivery.call import call
from bridge.delivery.circuit import REMEDY, Circuit, Turn
from bridge.delivery.decide import Decision, GivenUp, Pause, Policy, decide, expired, left_out
from bridge.delivery.failure_log import FailureLog
from bridge.delivery.failure_record import Reporting
from bridge.delivery.letter import letter_of
from bridge.delivery.limits import Gate
from bridge.delivery.loop_guard import REMEDY as LOOP_REMEDY
from bridge.delivery.loop_guard import Alarm, LoopGuard
from bridge.delivery.outcome import Misconfigured, Outcome, TooLarge
from bridge.delivery.parking import Parking, ReadBacklog
from bridge.delivery.target import Target
from bridge.observe import log as log_events
from bridge.pgoutput.schema_guard import SchemaGuard
from bridge.progress.tracker import Tracker
from bridge.store.protocol import DeadLetter
from bridge.triggers.envelope import ALL_SENT, Envelope

# Below this many, waiting for the store would slow a trigger that sends one event a call and gains nothing.
LEAST_UNSAVED = 1000

log = structlog.get_logger("pgbridge.delivery")


@dataclass(slots=True)
class Counters:
    """What happened since the process started; plain numbers, read when somebody asks."""

    admitted: int = 0
    delivered: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    invocations: int = 0
    failed_invocations: int = 0
    retried_batches: int = 0
    last_delivery_at: float | None = None
    last_error: str = ""
    last_error_at: float | None = None


class Observer(Protocol):
    """Told once a call, for metrics; must not block."""

    def invoked(self, trigger: str, outcome: Outcome, *, events: int, seconds: float) -> None: ...


class Dispatcher:
    """
    Args:
        trigger: its name.
        target: what is called.
        envelope: the outer form of what is sent.
        batched: whether a call carries `{"Records": […]}`; else it carries one event by itself.
        window: the limits of a batch.
        policy: what happens to records that fail.
        parallelization_factor: calls in flight at once.
        checkpoint: everything at or below is settled.
        clock: the time.
        moved: called when something settled or the trigger's state changed, so that progress gets saved.
        failed: called with a bug of ours, which ends the process.
        observer: told of each call.
        circuit: decides when the target counts as down; None for one with the default limits.
        grouping: divides batches by tenant.
        reporting: makes what an on-failure destination is to be told of a dead letter.
        guard: knows before which events the trigger stops because a table was altered; None where it never does.
        held: keys that wait for letters that are there already; None where dead letters hold nothing back.
        gate: the limits that hold for all who call this target.
        loop_guard: pauses the trigger where its target seems to write to what triggers it.
        backlog: where its changes are; None for a trigger that keeps them in memory whatever happens.
        read_backlog: reads a page of it.
        pause_changed: called when the trigger began or ceased to wait for somebody to resume it.
    """

    def __init__(
        self,
        trigger: str,
        *,
        target: Target,
        envelope: Envelope,
        batched: bool,
        window: Window,
        policy: Policy,
        parallelization_factor: int,
        checkpoint: Position,
        clock: Clock,
        moved: Callable[[], None],
        failed: Callable[[BaseException], None],
        observer: Observer | None = None,
        circuit: Circuit | None = None,
        grouping: Grouping | None = None,
        reporting: Reporting | None = None,
        guard: SchemaGuard | None = None,
        held: HeldKeys | None = None,
        gate: Gate | None = None,
        loop_guard: LoopGuard | None = None,
        backlog: Backlog | None = None,
        read_backlog: ReadBacklog | None = None,
        pause_changed: Callable[[], None] | None = None,
    ) -> None:
        self.trigger = trigger
        self.inbox: list[Event] = []
        """The assembler appends here; `admit` empties it after each burst."""
        self.counters = Counters()
        self.letters: list[DeadLetter] = []
        """Set aside and not saved yet; the checkpoint that passes them is saved in the same transaction."""
        self.books = Books(Tracker(checkpoint), Lanes(window), held or HeldKeys())
        self.tracker, self.held = self.books.tracker, self.books.held
        self.saved_total = 0
        self.pause_reason: Pause | None = None
        self._target = target
        self._envelope = envelope
        self._batched = batched
        self._lanes = self.books.lanes
        self._policy = policy
        self._parallel = parallelization_factor
        self._most_unsaved = max(4 * parallelization_factor * window.batch_size, LEAST_UNSAVED)
        self._clock = clock
        self._moved = moved
        self._failed = failed
        self._observer = observer
        self._circuit = circuit or Circuit()
        self._grouping = grouping
        self._reporting = reporting
        self._guard = guard
        self._at_stop: bytes | None = None
        self._holds_keys = held is not None
        self._gate = gate or Gate()
        self._loop_guard = loop_guard or LoopGuard(None)
        self.parking: Parking | None = None
        """Its way to the backlog and back, if it has one."""
        if backlog is not None:
            self.parking = Parking(
                trigger,
                self.books,
                backlog,
                read_backlog,
                most_unsaved=self._most_unsaved,
                enough_events=parallelization_factor * window.batch_size,
                clock=clock,
                moved=moved,
                pump=self.pump,
                failed=failed,
            )
        self._flights: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._paused_until = 0.0
        self._probing = False
        self._pause_changed = pause_changed or (lambda: None)
        self._failure_log = FailureLog()

    # -- what a caller may see ----------------------------------------------------------------------------------------

    @property
    def backlog(self) -> Backlog | None:
        """Where its changes are, if they may be in the table."""
        return None if self.parking is None else self.parking.backlog

    @property
    def buffered_bytes(self) -> int:
        """Of its events in memory."""
        return self.books.buffered_bytes

    @property
    def settled_total(self) -> int:
        """Events that have settled since the process started."""
        return self.books.settled_total

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._flights)

    @property
    def backing_off(self) -> int:
        """Batches that wait for another attempt."""
        return self._lanes.backing_off

    @property
    def retrying_events(self) -> int:
        """Events with failed attempts against them."""
        return len(self.books.charges) + self._circuit.doubted

    @property
    def unsaved(self) -> int:
        """Events settled since the last save."""
        return self.settled_total - self.saved_total

    @property
    def lasting_pause(self) -> Pause | None:
        """The pause that only ends by hand, and is to be kept over a restart: a guard keeps its stops itself."""
        pause = self.pause_reason
        return pause if pause is not None and pause.seconds is None and self._at_stop is None else None

    @property
    def exposed(self) -> int:
        """What a process that dies now would deliver again besides the calls under way, or a few more."""
        return self.unsaved + (0 if self.parking is None else self.parking.exposed_when_saved)

    @property
    def save_is_pressing(self) -> bool:
        """Half of what may be exposed is unsaved, or less where more is exposed; or much waits for its row."""
        return self.unsaved + self.exposed >= self._most_unsaved or (
            self.parking is not None and self.parking.save_is_pressing
        )

    @property
    def has_enough(self) -> bool:
        """Whether more of the stream would only lie in memory."""
        return self.parking is not None and self.parking.keeps_busy(1.0)

    @property
    def has_room(self) -> bool:
        """Whether it could do with more of the stream, after it had enough."""
        return self.parking is None or not self.parking.keeps_busy(0.75)

    @property
    def target(self) -> Target:
        return self._target

    # -- the way in ----------------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Take in what the assembler has put into the inbox."""
        events = self.inbox
        if not events:
            return
        self.tracker.admit(events)
        self.counters.admitted += len(events)
        size = sum([len(event.body) for event in events]) + EVENT_OVERHEAD_BYTES * len(events)
        self.books.buffered_bytes += size
        parking = self.parking
        if parking is not None and parking.takes_in:
            parking.park(events, size)
        else:
            self._lanes.admit(events, self._clock.monotonic())
        self.inbox.clear()
        if parking is not None:
            parking.retreat_if_full()
        self.pump()

    # -- saving --------------------------------------------------------------------------------------------------------

    @property
    def has_moves(self) -> bool:
        """Whether a save has anything to do in its backlog."""
        return self.parking is not None and self.parking.backlog.has_moves

    def begin_save(self, room: int) -> Move:
        """
        What a save has to do in its backlog. The checkpoint is to be read after this, and passes what moves.

        Args:
            room: most bytes to be written newly.
        """
        return NO_MOVE if self.parking is None else self.parking.begin_save(room)

    def saved(self, settled_total: int) -> None:
        """Progress was saved while `settled_total` stood at this; makes room where sending had to wait for it."""
        self.saved_total = settled_total
        if self.parking is not None:
            self.parking.saved()
        self.pump()

    def save_failed(self) -> None:
        """What `begin_save` said was not done, or nobody knows."""
        if self.parking is not None:
            self.parking.backlog.save_failed()

    def stow(self) -> None:
        """
        After `drain`, for good: what is unsettled but older than something settled gets a row with the last saves.

        The checkpoint can pass it then, and a new process repeats nothing of what was settled behind it.
        """
        if self.parking is not None:
            self.parking.stow()

    def watch(self, received_lsn: int, written_lsn: int = 0) -> None:
        """
        See whether its changes have waited for too long, or hold back too much WAL; called every second or so.

        Args:
            received_lsn: as far as the server has sent.
            written_lsn: as far as the server has written, where that is known.
        """
        if self.parking is not None:
            self.parking.watch(received_lsn, written_lsn)

    # -- by hand -------------------------------------------------------------------------------------------------------

    def pause(
        self,
        reason: str = "paused by an operator",
        remedy: str = "resume it when the cause is gone",
        *,
        asked_by_target: bool = False,
    ) -> None:
        """Send nothing until `resume`."""
        self._hold(Pause(reason, remedy, None, asked_by_target=asked_by_target), by_hand=True)

    def resume(self) -> None:
        """Send again, whatever the pause was for."""
        if self._guard is not None and self._at_stop is not None:
            self._guard.open(self._at_stop)
            self._at_stop = None
        self._circuit.reset()
        self._loop_guard.reset()
        self._paused_until = 0.0
        self._probing = False
        self.pause_reason = None
        self._pause_changed()
        self._moved()
        self.pump()

    # -- at work -------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send what may be sent now, and set the timer for what may be sent later."""
        if self.books.stopped:
            return
        now = self._clock.monotonic()
        if self._circuit.doubted:
            self._resolve_doubts(now)
        if now >= self._paused_until:
            most = 1 if self._probing else self._parallel
            while (
                len(self._flights) < most
                and self.exposed < self._most_unsaved
                and self._gate.may_begin(now)
                and now >= self._paused_until
            ):
                lanes = self._lanes
                batch = lanes.take_probe(now, random.random) if self._circuit.is_open else lanes.take(now)
                if batch is None:
                    break
                if not self.held.is_empty and not self._sift(batch, now):
                    continue
                if self._guard is not None and self._stops_before(batch, self._guard):
                    break
                if self._grouping is not None and batch.group is None:
                    self._lanes.divide(batch, self._grouping.divide(batch))
                    continue
                if batch.attempt == 1 and self._is_looping(batch, now):
                    continue
                self._send(batch)
        if self._circuit.doubted and not self._flights:
            self._resolve_doubts(now)  # what was left to try may have turned out to wait for a letter
        if self.parking is not None:
            self.parking.read_on()
        self._set_timer(now)

    def letters_to_come(self) -> tuple[set[bytes], bool]:
        """The ordering keys of records that are letters, or may become some, and not in the table; and any barrier."""
        doubted = self._circuit.doubted_events()
        keys = {key for each in self.letters for key in (each.ordering_key, each.old_ordering_key)}
        keys |= {key for event in doubted for key in (event.key, event.old_key)}
        barrier = any(each.barrier for each in self.letters) or any(event.barrier for event in doubted)
        return {key for key in keys if key is not None}, barrier

    def letters_are(self, keys: Iterable[bytes], *, barrier: bool, version: int) -> None:
        """The ordering keys of the trigger's letters in the table, asked for when `held.version` stood at this."""
        if self.held.letters_now(keys, barrier=barrier, version=version):
            log.info(log_events.KEYS_FREED, trigger=self.trigger, keys_held=self.held.keys)
            self._lanes.readmit(self.held.let_go(), self._clock.monotonic())
            self.pump()

    async def drain(self, timeout_seconds: float) -> int:
        """Stop sending and wait for what is in flight; calls that take longer are abandoned. Returns how many."""
        self.books.stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self.parking is not None:
            await self.parking.stop_reading()
        flights = set(self._flights)
        if not flights:
            return 0
        _, late = await asyncio.wait(flights, timeout=timeout_seconds)
        for flight in late:
            flight.cancel()
        if late:
            await asyncio.wait(late)
        return len(late)

    async def close(self) -> None:
        await self._target.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _sift(self, batch: Batch, now: float) -> bool:
        """Whether a batch may be sent as it is; else what waits for a letter was taken out, and the rest put back."""
        free = self.held.sift(batch)
        if len(free) == len(batch.events):
            return True
        if free:
            self._lanes.divide(batch, [part_of(batch, free, then=batch.then)])
        else:
            self._lanes.finish(batch, now)
        return False

    def _is_looping(self, batch: Batch, now: float) -> bool:
        """Whether a batch was put back, because its target seems to write to what triggers it."""
        found = self._loop_guard.sending(batch, now, self._lanes.waits_for)
        if found is None:
            return False
        if isinstance(found, Alarm):
            self._lanes.divide(batch, [part_of(batch, batch.events, then=batch.then)])
            self._hold(Pause(found.reason, LOOP_REMEDY, None))
        else:
            part = part_of(batch, batch.events, then=batch.then)
            part.not_before = now + found.seconds
            self._lanes.retry(batch, [part])
        return True

    def _stops_before(self, batch: Batch, guard: SchemaGuard) -> bool:
        """Whether a batch was put back, because it is the first of an altered table: a barrier, so it is alone."""
        event_id = batch.events[0].id
        stop = guard.stops.get(event_id)
        if stop is None:
            return False
        self._lanes.divide(batch, [part_of(batch, batch.events, then=batch.then)])
        self._at_stop = event_id
        reason = f"the description of {stop.table} has changed: {'; '.join(stop.what)}"
        self._hold(Pause(reason, "resume the trigger when its target can take such changes", None))
        return True

    def _send(self, batch: Batch) -> None:
        now = self._clock.now()
        gone = expired(batch, self.books.charges, self._policy, now=now)
        if gone is not None:
            self._apply(batch, gone)
            return
        unsent = self._envelope.prepare(batch.events)
        if unsent is not ALL_SENT:
            self.counters.filtered += len(unsent.dropped)
            self.counters.delivered -= len(unsent.dropped)  # they settle as what is delivered does
            self._apply(batch, left_out(batch, unsent, self.books.charges, now=now))
            return
        self._gate.begin(self._clock.monotonic())
        flight = asyncio.get_running_loop().create_task(self._fly(batch), name=f"deliver {self.trigger}")
        self._flights.add(flight)
        flight.add_done_callback(self._landed)

    async def _fly(self, batch: Batch) -> None:
        events = batch.events
        started, started_at, newest = self._clock.monotonic(), self._clock.now(), self.tracker.received_id
        outcome = await call(
            self._target,
            batch,
            self._envelope,
            trigger=self.trigger,
            batched=self._batched,
            tenant=None if batch.group is None else batch.group[0],
        )
        now = self._clock.monotonic()
        self._count(outcome, len(events), now - started)
        self._loop_guard.ended(batch, received_before=newest, received=self.tracker.received_id, now=now)
        if isinstance(outcome, TooLarge) and len(events) > 1:
            self._lanes.lower_max_bytes(batch.size // 2)
            self._grouping = self._grouping and self._grouping.lower_max_bytes(batch.size // 2)
        circuit = self._circuit
        turn = circuit.observe(outcome, events, began_at=started_at, began=started, now=now, charges=self.books.charges)
        if turn is Turn.OPENED:
            self._forgive()
        decision = decide(
            batch,
            outcome,
            self.books.charges,
            self._policy,
            now=self._clock.now(),
            random=random.random,
            charging=not circuit.is_open,
        )
        if circuit.is_open:
            self._hold_for_probe(now)
        elif not isinstance(outcome, Misconfigured):
            self._answers()
        self._apply(batch, decision)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._gate.end()
        if flight.cancelled():
            return
        error = flight.exception()
        if error is not None:
            self._failed(error)
            return
        self.pump()

    def _apply(self, batch: Batch, decision: Decision) -> None:
        now = self._clock.monotonic()
        if self._holds_keys:
            for record in decision.given_up:
                self.held.hold(record.event)
        given_up = self._circuit.examine(decision.given_up) if decision.given_up else ()
        self._settle(decision.settled, given_up)
        self.books.charges.update(decision.charged)
        self.counters.delivered += len(decision.settled)
        if decision.parts:
            self.counters.retried_batches += len(decision.parts)
            for part, wait in decision.parts:
                part.not_before = now + wait
            self._lanes.retry(batch, [part for part, _ in decision.parts])
        else:
            self._lanes.finish(batch, now)
        if decision.pause is not None:
            self._hold(decision.pause)

    def _settle(self, delivered: Sequence[Event], given_up: Sequence[GivenUp]) -> None:
        settled = [*delivered, *(record.event for record in given_up)]
        if not settled:
            return
        self.tracker.settle(settled if self.parking is None else self.parking.backlog.settle(settled))
        self.books.settle(delivered, settled[len(delivered) :])
        if given_up:
            self._set_aside(given_up)
        if self.parking is not None:
            self.parking.look_for_overtaken()
        self._moved()

    def _forgive(self) -> None:
        """The target is down, and has been since its last success: what failed since then was not to blame."""
        self.books.forgive(self._circuit.alive_at, self._clock.now())

    def _resolve_doubts(self, now: float) -> None:
        """Records whose attempts are spent become dead letters, or go back to their place where the target is down."""
        if self._circuit.reconsider(now) is Turn.OPENED:
            self._forgive()
            self._hold_for_probe(now)
        if self._circuit.is_open:
            # Only with nothing in flight: then everything that is unsettled can be put in commit order again.
            if not self._flights:
                records = self._circuit.take_back()
                for record in records:
                    self.held.free(record.event)
                self._lanes.put_back([*(record.event for record in records), *self.held.let_go()], now)
            return
        idle = not self._flights and self._lanes.waiting == 0 and self._lanes.backing_off == 0
        if self.parking is not None and self.parking.is_reading:
            idle = False
        self._settle((), self._circuit.settle_doubts(idle=idle))

    def _set_aside(self, records: Sequence[GivenUp]) -> None:
        now = self._clock.now()
        for record in records:
            letter = letter_of(
                record, trigger=self.trigger, envelope=self._envelope, reporting=self._reporting, now=now
            )
            self.letters.append(letter)
            self.counters.dead_lettered += 1
            log.warning(
                log_events.DEAD_LETTER,
                trigger=self.trigger,
                event_id=letter.event_id,
                table=letter.table,
                error=letter.error,
                attempts=letter.attempts,
            )

    def _hold_for_probe(self, now: float) -> None:
        if self._circuit.reason is not None:
            self._hold(Pause(self._circuit.reason, REMEDY, self._circuit.probe_pause(now)))

    def _hold(self, pause: Pause, *, by_hand: bool = False) -> None:
        held = self.pause_reason
        if held is not None and held.seconds is None and pause.seconds is not None:
            return  # what somebody has to end by hand is not ended by a later call
        if self.pause_reason is None or self.pause_reason.reason != pause.reason:
            tell = log.warning if by_hand else log.error
            tell(log_events.TRIGGER_PAUSED, trigger=self.trigger, reason=pause.reason, remedy=pause.remedy)
        self.pause_reason = pause
        self._probing = True
        self._paused_until = float("inf") if pause.seconds is None else self._clock.monotonic() + pause.seconds
        if pause.seconds is None:
            self._pause_changed()
        self._moved()

    def _answers(self) -> None:
        """The target can be called: a pause that was for its configuration is over."""
        if self.pause_reason is not None and self.pause_reason.seconds is not None:
            log.info(log_events.TRIGGER_RESUMED, trigger=self.trigger)
            self.pause_reason = None
            self._probing = False
            self._paused_until = 0.0

    def _count(self, outcome: Outcome, events: int, seconds: float) -> None:
        counters = self.counters
        counters.invocations += 1
        error = outcome.evidence.error
        if error:
            counters.failed_invocations += 1
            counters.last_error = error
            counters.last_error_at = self._clock.now()
            kind = type(outcome).__name__
            times = self._failure_log.failed(f"{kind} {error}", self._clock.monotonic())
            if times:
                log.info(
                    log_events.DELIVERY_FAILED,
                    trigger=self.trigger,
                    error=error,
                    outcome=kind,
                    events=events,
                    times=times,
                )
        else:
            counters.last_delivery_at = self._clock.now()
            if self._failure_log.failures:
                self._tell_recovery()
        if self._observer is not None:
            self._observer.invoked(self.trigger, outcome, events=events, seconds=seconds)

    def _tell_recovery(self) -> None:
        ended = self._failure_log.worked(self._clock.monotonic())
        if ended is not None:
            failures, seconds = ended
            log.info(
                log_events.DELIVERY_WORKS, trigger=self.trigger, failures=failures, after_seconds=round(seconds, 1)
            )

    def _set_timer(self, now: float) -> None:
        """One timer, for the earliest moment at which `pump` can do more than it did just now."""
        wake = self._lanes.wake_at()
        if now < self._paused_until:
            wake = None if self._paused_until == float("inf") else self._paused_until
        ready_at = self._gate.ready_at(now)
        if ready_at is None:
            self._gate.when_one_ends(self.pump)
            return
        if ready_at > now >= self._paused_until:
            wake = ready_at if wake is None else max(wake, ready_at)
        if wake is None or len(self._flights) >= (1 if self._probing else self._parallel):
            return  # a landing calls `pump`
        if self.exposed >= self._most_unsaved:
            return  # and so does a save
        if self._timer is not None:
            if now < self._timer_at <= wake:
                return
            self._timer.cancel()
        self._timer_at = wake
        self._timer = asyncio.get_running_loop().call_later(max(wake - now, 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        self.pump()
