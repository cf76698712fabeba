"""
Replay: dead letters sent again, to the target that their trigger has now.

What is sent is the stored event, byte for byte, under its old id. Order per key, batches, and what an outcome means are
those of live delivery (`batching/lanes.py`, `delivery/decide.py`), with one difference: nothing is retried for a fault
of the record. A letter is delivered and leaves the table, or stays there with one more attempt and the new reason. What
says nothing about the records (a busy, missing or silent target) leaves them as they are.

A letter is deleted after the target's answer. Killed in between, a replay sends it again the next time, under the same
id (promise 5); it never forgets one. One process at a time replays a trigger (`Store.replaying`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from bridge.batching.batch import Batch
from bridge.batching.held import HeldKeys
from bridge.batching.lanes import Lanes, Window
from bridge.change import Event, Transaction
from bridge.clock import Clock
from bridge.config import TriggerSettings
from bridge.config.targets import EnvelopeName
from bridge.delivery import retry
from bridge.delivery.backlog import EVENT_OVERHEAD_BYTES
from bridge.delivery.call import call
from bridge.delivery.decide import FOREVER, Decision, GivenUp, Policy, decide, left_out
from bridge.delivery.factory import build_form, is_batched, load_transform
from bridge.delivery.outcome import Busy, Evidence, Failed, Outcome
from bridge.delivery.target import Target
from bridge.delivery.tenant import tenant_reader
from bridge.errors import StoreError
from bridge.store.protocol import DeadLetter, LetterFilter, ReplayClaim, Store
from bridge.triggers.envelope import ALL_SENT, Envelope

MOST_BUFFERED_BYTES: Final = 32 << 20
"""Events read ahead. Beside them there is at most one page of letters."""

BUSY_CALLS: Final = 10
"""Attempts at one batch with a target that throttles: with the back-off's ceilings about two minutes."""

SILENT_CALLS: Final = 20
"""
Calls in a row that got no answer at all, from which on the target counts as down (as with ESM's minimum, nothing is
concluded from fewer). Otherwise a million letters would be charged an attempt for a host that is switched off.
"""

_RECORDING_ATTEMPTS: Final = 5

_T = TypeVar("_T")

# Letters carry no transaction, and lanes ask for none.
_NO_TRANSACTION: Final = Transaction(0, 0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A trigger's settings as far as they bear on a replay."""

    batched: bool
    batch_size: int
    maximum_batch_bytes: int
    parallelization_factor: int
    bisect_on_error: bool
    hold_key: bool
    """After a letter that fails, younger letters of its key stay."""
    envelope: EnvelopeName = "pgbridge"
    transform: str | None = None
    tenant_column: str | None = None
    """Where an event says whose it is. Letters then go one at a time: they are few, and of many tenants."""

    @classmethod
    def of(cls, settings: TriggerSettings) -> ReplayPlan:
        batched = is_batched(settings)
        column = None if settings.target.lambda_ is None else settings.target.lambda_.tenant_id_column
        return cls(
            batched=batched,
            batch_size=settings.batch_size if batched and column is None else 1,
            envelope=settings.target.envelope,
            transform=settings.transform,
            tenant_column=column,
            maximum_batch_bytes=settings.maximum_batch_bytes,
            parallelization_factor=settings.parallelization_factor,
            bisect_on_error=settings.bisect_batch_on_function_error,
            hold_key=settings.on_dead_letter == "hold_key",
        )


@dataclass(slots=True)
class ReplayResult:
    """How a replay ended."""

    trigger: str
    delivered: int = 0
    failed: int = 0
    """Stayed with a new reason."""
    left: int = 0
    """Stayed untouched."""
    stopped: str | None = None
    """Why not all were tried, with the next step."""

    @property
    def complete(self) -> bool:
        return self.failed == 0 and self.left == 0 and self.stopped is None


class Pace:
    """
    At most so many letters a second, shared by the replays of several triggers.

    Args:
        per_second: None is as fast as the target takes them.
        clock: the time.
        sleep: waits for some seconds.
    """

    def __init__(
        self, per_second: float | None, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock.monotonic()

    def batch_size(self, wanted: int) -> int:
        """No batch carries more than a second's letters, or the rate would be one on average only."""
        return wanted if self.per_second is None else max(1, min(wanted, math.floor(self.per_second)))

    async def wait(self, letters: int) -> None:
        """Wait until these may go."""
        if self.per_second is None:
            return
        now = self._clock.monotonic()
        starts_at = max(now, self._free_at)
        self._free_at = starts_at + letters / self.per_second
        if starts_at > now:
            await self._sleep(starts_at - now)


class Observer(Protocol):
    """Told of each letter, to show progress."""

    def delivered(self, letters: int) -> None: ...

    def failed(self, letter_id: int, event_id: str, evidence: Evidence) -> None: ...


class _AsStored(Envelope):
    """Events that are complete already; names their calls as live delivery does."""

    def event(self, event: Event) -> bytes:
        return event.body

    def records(self, events: Sequence[Event]) -> bytes:
        if not self._as_it_is:
            return super().records(events)
        return b'{"Records":[%b]}' % b",".join([event.body for event in events])


class Replay:
    """
    One trigger's letters on their way back.

    Args:
        store: where they are; for reading, and for what became of them.
        slot: whose letters.
        trigger: its name.
        plan: its settings.
        target: what is called; not closed here.
        clock: the time.
        pace: the limit of letters a second.
        observer: shown what happens.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        store: Store,
        slot: str,
        trigger: str,
        plan: ReplayPlan,
        target: Target,
        *,
        clock: Clock,
        pace: Pace | None = None,
        observer: Observer | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._slot = slot
        self._trigger = trigger
        self._plan = plan
        self._target = target
        self._clock = clock
        self._pace = pace or Pace(None, clock)
        self._observer = observer
        self._sleep = sleep
        self._policy = Policy(
            maximum_retry_attempts=0, maximum_record_age_seconds=FOREVER, bisect_on_error=plan.bisect_on_error
        )
        self._lanes = Lanes(
            Window(
                batch_size=self._pace.batch_size(plan.batch_size),
                seconds=0.0,
                max_bytes=plan.maximum_batch_bytes,
                event_overhead_bytes=len(","),
            )
        )
        self.result = ReplayResult(trigger)
        """So far."""
        self._tenant_of = (
            None if plan.tenant_column is None else tenant_reader(plan.tenant_column, lambda event: event.body)
        )
        self._letter_ids: dict[bytes, int] = {}
        """Of the letters in hand, by event id."""
        self._buffered_bytes = 0
        self._all_read = False
        self._held = HeldKeys()
        self._silent_calls = 0
        self._stop = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Send no more; calls under way are waited for. The first reason stands."""
        if self.result.stopped is None:
            self.result.stopped = reason
        self._stop.set()

    async def run(self, where: LetterFilter, *, on_wait: Callable[[], None] | None = None) -> ReplayResult:
        """
        Send the matching letters that are there when it is our turn.

        Args:
            where: which letters of this trigger.
            on_wait: called when another process has to finish its replay first.

        Raises:
            StoreError: the store does not answer; what was delivered but could not be recorded is sent again next time.
        """
        where = replace(where, slot=self._slot, trigger=self._trigger)
        async with contextlib.AsyncExitStack() as stack:
            claim = await self._take_turn(stack, on_wait)
            if claim is None:
                self.result.left = (await self._store.survey_letters(where)).total
                return self.result
            identity = (await self._store.read(self._slot)).identity
            envelope = _AsStored(
                self._trigger,
                system := "" if identity is None else identity.system_identifier,
                form=build_form(self._trigger, system, self._plan.envelope),
                transform=load_transform(self._plan.transform),
            )
            survey = await self._store.survey_letters(where)
            newest = survey.newest_id if where.up_to_id is None else min(survey.newest_id, where.up_to_id)
            where = replace(where, up_to_id=newest)
            if survey.total:
                await self._send_all(where, envelope, claim.check)
                # Others may have discarded some meanwhile; and what failed again may not match the filter any more.
                remaining = await self._store.survey_letters(where)
                untouched = survey.total - self.result.delivered - self.result.failed
                self.result.left = max(0, min(untouched, remaining.total))
        return self.result

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _take_turn(
        self, stack: contextlib.AsyncExitStack, on_wait: Callable[[], None] | None
    ) -> ReplayClaim | None:
        """None where `stop` came first."""
        claims: list[ReplayClaim] = []

        async def enter() -> None:
            turn = self._store.replaying(self._slot, self._trigger, on_wait=on_wait)
            claims.append(await stack.enter_async_context(turn))

        await self._unless_stopped(enter())
        return claims[0] if claims else None

    async def _send_all(self, where: LetterFilter, envelope: Envelope, check: Callable[[], Awaitable[None]]) -> None:
        letters = self._store.iterate_letters(where)
        flights: set[asyncio.Task[None]] = set()
        try:
            while not self._stop.is_set():
                await self._read_ahead(letters)
                while len(flights) < self._plan.parallelization_factor and not self._stop.is_set():
                    batch = self._next_batch()
                    if batch is None:
                        break
                    taken, sending = batch
                    await self._unless_stopped(self._pace.wait(len(sending.events)))
                    if self._stop.is_set():
                        break
                    await check()
                    flying = self._fly(taken, sending, envelope)
                    flights.add(asyncio.create_task(flying, name=f"replay {self._trigger}"))
                if not await self._wait(flights) and self._all_read:
                    break
            while flights:
                await self._wait(flights)
        except asyncio.CancelledError:
            for flight in flights:
                flight.cancel()
            raise
        finally:
            # After an error of ours the answers on their way still count, and are recorded where that is possible.
            await asyncio.gather(*flights, return_exceptions=True)

    async def _read_ahead(self, letters: AsyncIterator[DeadLetter]) -> None:
        """Fill the lanes, in event order, as far as memory may be used for it."""
        events: list[Event] = []
        while self._buffered_bytes < MOST_BUFFERED_BYTES:
            letter = await anext(letters, None)
            if letter is None:
                self._all_read = True
                break
            events.append(self._event(letter))
        if events:
            self._lanes.admit(events, self._clock.monotonic())

    def _event(self, letter: DeadLetter) -> Event:
        if letter.id is None:
            raise StoreError("the store gave a letter without an id")
        event = Event(
            id=letter.event_id.encode(),
            transaction=_NO_TRANSACTION,
            ordinal=0,
            key=letter.ordering_key,
            old_key=letter.old_ordering_key,
            table=letter.table,
            action="",
            body=letter.event,
            barrier=letter.barrier,
        )
        self._letter_ids[event.id] = letter.id
        self._buffered_bytes += len(event.body) + EVENT_OVERHEAD_BYTES
        return event

    def _next_batch(self) -> tuple[Batch, Batch] | None:
        """
        What may be sent now: a batch as it was taken from its lanes, and as it is to be sent, without the letters that
        stay because an older one of their key failed.
        """
        while True:
            now = self._clock.monotonic()
            taken = self._lanes.take(now)
            if taken is None:
                return None
            free = self._held.sift(taken)
            if len(free) == len(taken.events):
                return taken, taken
            left = self._held.let_go()
            for event in left:
                self._held.hold(event)  # it stays, and with two keys it now stands before the letters of both
            self._let_go(left)
            if free:
                return taken, Batch(free, taken.size, attempt=taken.attempt, then=taken.then)
            self._lanes.finish(taken, now)

    async def _fly(self, taken: Batch, batch: Batch, envelope: Envelope) -> None:
        unsent = envelope.prepare(batch.events)
        if unsent is not ALL_SENT:
            # What the transform wants nothing of leaves the table; what it failed at stays.
            await self._apply(taken, batch, left_out(batch, unsent, {}, now=self._clock.now()))
            return
        outcome = await call(
            self._target,
            batch,
            envelope,
            trigger=self._trigger,
            batched=self._plan.batched,
            tenant=None if self._tenant_of is None else self._tenant_of(batch.events[0]),
        )
        decision = decide(batch, outcome, {}, self._policy, now=self._clock.now(), random=random.random)
        await self._apply(taken, batch, decision)
        self._judge_target(batch, outcome, decision)

    async def _apply(self, taken: Batch, batch: Batch, decision: Decision) -> None:
        """Record what became of the letters; only then may others of their keys go."""
        failed = {record.event.id for record in decision.given_up}
        delivered: list[Event] = []
        if self._plan.hold_key:
            settled = {event.id for event in decision.settled}
            for event in batch.events:
                if event.id in failed or self._held.holds(event):
                    self._held.hold(event)
                elif event.id in settled:
                    delivered.append(event)
        else:
            delivered.extend(decision.settled)
        if delivered:
            ids = [self._letter_ids[event.id] for event in delivered]
            await self._record(lambda: self._store.discard_letters(ids))
            self.result.delivered += len(ids)
            if self._observer is not None:
                self._observer.delivered(len(ids))
        for record in decision.given_up:
            await self._fail_again(record)
        now = self._clock.monotonic()
        if decision.parts:
            for part, wait in decision.parts:
                part.not_before = now + wait
            self._lanes.retry(taken, [part for part, _ in decision.parts])
        else:
            self._lanes.finish(taken, now)
        self._let_go([*decision.settled, *(record.event for record in decision.given_up)])

    async def _fail_again(self, record: GivenUp) -> None:
        letter_id, evidence = self._letter_ids[record.event.id], record.evidence
        await self._record(
            lambda: self._store.fail_letter_again(
                letter_id,
                error=evidence.error,
                detail=evidence.detail,
                status=evidence.status,
                request_id=evidence.request_id,
                log_tail=evidence.log_tail,
            )
        )
        self.result.failed += 1
        if self._observer is not None:
            self._observer.failed(letter_id, record.event.id.decode(), evidence)

    def _judge_target(self, batch: Batch, outcome: Outcome, decision: Decision) -> None:
        """Stop where going on would tell nothing about the letters."""
        if decision.pause is not None:
            self.stop(f"{decision.pause.reason}; {decision.pause.remedy}")
        elif isinstance(outcome, Busy) and batch.attempt >= BUSY_CALLS:
            self.stop(f"the target is busy ({outcome.evidence.error}); replay again when it has room")
        silent = isinstance(outcome, Failed) and outcome.evidence.status is None
        self._silent_calls = self._silent_calls + 1 if silent else 0
        if self._silent_calls >= SILENT_CALLS:
            self.stop(
                f"the target has not answered {SILENT_CALLS} calls in a row ({outcome.evidence.error}); "
                "replay again when it is up"
            )

    async def _record(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write to the store; one that is away for a moment must not make us send a delivered letter again."""
        attempt = 1
        while True:
            try:
                return await write()
            except StoreError:
                if attempt == _RECORDING_ATTEMPTS:
                    raise
                await self._sleep(retry.ceiling_seconds(attempt))
                attempt += 1

    async def _wait(self, flights: set[asyncio.Task[None]]) -> bool:
        """Until something lands, is due, or we are stopped; False where nothing is under way or to come."""
        wake_at = self._lanes.wake_at()
        if not flights and (wake_at is None or self._stop.is_set()):
            return False
        if self._stop.is_set():
            await asyncio.wait(flights, return_when=asyncio.FIRST_COMPLETED)
        else:
            events: list[Awaitable[object]] = []
            if flights:
                events.append(asyncio.wait(flights, return_when=asyncio.FIRST_COMPLETED))
            if wake_at is not None:
                events.append(self._sleep(max(0.0, wake_at - self._clock.monotonic())))
            await self._unless_stopped(*events)
        for flight in [flight for flight in flights if flight.done()]:
            flights.discard(flight)
            flight.result()
        return True

    async def _unless_stopped(self, *events: Awaitable[object]) -> None:
        """Wait until one of these has happened, or for `stop`."""
        waits = [asyncio.ensure_future(event) for event in (*events, self._stop.wait())]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _let_go(self, events: Iterable[Event]) -> None:
        for event in events:
            del self._letter_ids[event.id]
            self._buffered_bytes -= len(event.body) + EVENT_OVERHEAD_BYTES
