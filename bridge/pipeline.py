"""
The data path of pgbridge, from the slot to the targets and back. Read this first.

                 ┌────────── one replication slot ──────────┐
    PostgreSQL ──▶ connection ──▶ assembler ──▶ inbox ──▶ lanes ──▶ target     a function, a webhook
        ▲           (frames)      (events)     (one for each trigger)   │
        │                                         │  ▲                  ▼
        │                                      backlog table         outcome   settled, or set aside
        │                                         │                     │
        └── status update ◀── store ◀── confirmable ◀── tracker ◀───────┘

Five things happen at once, each in a task of its own, so that none waits for another:

1. *read*: take what the server sent, make events of it, hand them to the triggers. At the memory bound it stops
   reading (promise 7); the walsender then waits, the rest goes on.
2. *deliver*: each trigger's dispatcher, in its own tasks.
3. *save*: when something settled, write the checkpoints, and the dead letters and backlog rows that they pass, to the
   store, in one transaction. The slot is confirmed only to what the store holds (promises 1, 2, 3).
4. *answer*: send a status update when it is due, whatever the others do (promise 6).
5. *watch*: let the changes of a trigger that holds too much, or the slot for too long, go to the backlog table
   (`delivery/backlog.py`), and share out the memory (`delivery/budget.py`).

A pipeline lives as long as one replication connection. The triggers' dispatchers live longer: after a reconnect the
server sends again from the confirmed position, and what is in hand already is skipped by its position.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog

from bridge.clock import Clock
from bridge.delivery.backlog import Move
from bridge.delivery.budget import Budget
from bridge.delivery.dispatch import Dispatcher
from bridge.errors import InvariantBroken, SourceUnavailable, StoreError, StoreFenced, StoreMisconfigured
from bridge.lsn import LSN
from bridge.observe import log as events
from bridge.pgoutput.assembler import Assembler
from bridge.pgoutput.lookup import Lookup
from bridge.progress.feedback import Feedback, IdlePace, confirmable
from bridge.store.guards import GuardKeeper
from bridge.store.protocol import DeadLetter, Store

# Long enough that a store on a slow disk is not written to without pause, short enough that a killed process repeats
# little of what a light load had settled; under heavy load a full window of calls saves sooner.
SAVE_PAUSE_SECONDS = 0.05
STORE_RETRY_SECONDS = 1.0
# What one save writes into the backlog at most, for all triggers: others wait for it with their checkpoints.
MOVE_BYTES = 4 << 20
WATCH_PAUSE_SECONDS = 1.0
TIDY_PAUSE_SECONDS = 10.0
# A walsender that is shutting down asks again after every answer until it hears that all is flushed.
SHUTDOWN_REQUESTS = 20

log = structlog.get_logger("pgbridge.pipeline")


class Stream(Protocol):
    """What the pipeline needs of a replication connection."""

    async def frames(self, *, max_frames: int = ..., max_bytes: int = ...) -> Sequence[memoryview | bytes]: ...

    def send_status(self, written: int, flushed: int, applied: int, *, now: float, reply: bool = False) -> None: ...


async def no_catalog(lookup: Lookup) -> None:
    """For an assembler that never stops for a lookup."""
    raise InvariantBroken(f"nobody reads the catalog for {lookup.table}")


class Pipeline:
    """
    Args:
        stream: started at the confirmed position.
        assembler: made for this stream, with routes into the dispatchers' inboxes.
        dispatchers: by trigger.
        store: claimed by this process.
        saved_lsn: the confirmed position that the store holds.
        status_interval_seconds: between status updates.
        max_buffered_bytes: events in hand, of all triggers together, above which reading stops.
        clock: the time.
        look_up: reads the catalog again where the assembler stops for it; the stream waits meanwhile.
        guards: what triggers that stop at schema changes know; None: there are none.
    """

    def __init__(
        self,
        stream: Stream,
        assembler: Assembler,
        dispatchers: Mapping[str, Dispatcher],
        store: Store,
        *,
        saved_lsn: int,
        status_interval_seconds: float,
        max_buffered_bytes: int,
        clock: Clock,
        look_up: Callable[[Lookup], Awaitable[None]] = no_catalog,
        guards: GuardKeeper | None = None,
    ) -> None:
        self.assembler = assembler
        self.feedback = Feedback(saved_lsn, interval_seconds=status_interval_seconds)
        self.store_error: StoreError | None = None
        self.written_lsn = 0
        """As far as the server has written, when somebody looked."""
        self._stream = stream
        self._dispatchers = dispatchers
        self._store = store
        self._budget = Budget(dispatchers, max_buffered_bytes)
        self._clock = clock
        self._look_up = look_up
        self._guards = guards or GuardKeeper(store, {})
        self._settled = asyncio.Event()
        self._pressing = asyncio.Event()
        self._room = asyncio.Event()
        self._reading = True
        self._idle_pace = IdlePace()
        self._saves = 0
        self._tidied_at = clock.monotonic()
        self._unanswered_requests = 0

    # -- what a caller may see ----------------------------------------------------------------------------------------

    @property
    def buffered_bytes(self) -> int:
        """Events in hand, of all triggers together."""
        return self._budget.buffered_bytes

    @property
    def reading(self) -> bool:
        """False while the memory bound holds reading back."""
        return self._reading

    @property
    def received_lsn(self) -> int:
        """As far as the server has sent."""
        return max(self.assembler.received_end_lsn, self.assembler.server_wal_end)

    # -- the life of a connection --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """
        Work until the connection or the store fails, or the task is cancelled.

        Raises:
            BridgeError: why it ended; its disposition says what to do.
        """
        # The triggers may have settled something while nobody read, and wait for it to be saved.
        self._settled.set()
        tasks = [
            asyncio.create_task(self._read(), name="read"),
            asyncio.create_task(self._save_when_settled(), name="save"),
            asyncio.create_task(self._answer(), name="answer"),
            asyncio.create_task(self._watch(), name="watch bounds"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def finish(self) -> None:
        """
        After the dispatchers have drained: save what settled and what it overtook, and tell the server.

        Raises:
            StoreError: it is not saved, so what has settled since the last save will be sent again.
        """
        for dispatcher in self._dispatchers.values():
            dispatcher.stow()
        try:
            await self._save()
            while any(dispatcher.has_moves for dispatcher in self._dispatchers.values()):
                await self._save()
        except StoreError as error:
            log.error(events.NOT_SAVED, error=str(error), repeated=self._unsaved())  # noqa: TRY400 - as above
            raise
        self._send_status()
        with contextlib.suppress(StoreError):  # whoever starts next does it
            await self._store.tidy_backlog()

    def progress_moved(self) -> None:
        """Something settled: save it soon, and see whether there is room to read again."""
        self._settled.set()
        self._press_on()

    def _press_on(self) -> None:
        if any(dispatcher.save_is_pressing for dispatcher in self._dispatchers.values()):
            self._pressing.set()
        if not self._reading and self._budget.has_room:
            self._room.set()

    # -- read ----------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        assembler = self.assembler
        while True:
            frames = assembler.consume(await self._stream.frames())  # gives the deliveries their turn on the loop
            await self._hand_over()
            while assembler.lookup is not None:
                await self._look_up(assembler.lookup)
                frames = assembler.consume(frames)
                await self._hand_over()
            if assembler.reply_requested:
                assembler.reply_requested = False
                self._answer_request()
            if self._idle_gain() > 0:
                self._settled.set()
            self._budget.relieve()
            await self._wait_for_room()

    async def _hand_over(self) -> None:
        """Let the triggers take in what is in their inboxes, once it is stored where some of them stop."""
        if self._guards.has_changes:
            try:
                await self._keep_guards()
            except BaseException:
                for dispatcher in self._dispatchers.values():
                    dispatcher.inbox.clear()  # the next stream sends it again
                raise
        for dispatcher in self._dispatchers.values():
            dispatcher.admit()

    async def _keep_guards(self) -> None:
        while True:
            try:
                await self._guards.save()
            except (StoreFenced, StoreMisconfigured):
                raise
            except StoreError as error:
                self._store_is_away(error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
            else:
                self._store_is_back()
                return

    async def _wait_for_room(self) -> None:
        while self._budget.is_full:
            self._reading = False
            self._room.clear()
            await self._room.wait()
        self._reading = True

    # -- save ----------------------------------------------------------------------------------------------------------

    async def _save_when_settled(self) -> None:
        while True:
            await self._settled.wait()
            self._settled.clear()
            if not self._something_settled() and self._idle_gain() > 0:
                await self._sleep_unless_settled(self._idle_pace.wake_at() - self._clock.monotonic())
            try:
                await self._save()
            except (StoreFenced, StoreMisconfigured):
                raise
            except StoreError as error:
                # Delivery goes on up to its bound of unsaved events, then waits: nothing is confirmed meanwhile.
                self._store_is_away(error)
                self._settled.set()
                await asyncio.sleep(STORE_RETRY_SECONDS)
                continue
            self._store_is_back()
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with the event.
                async with asyncio.timeout(SAVE_PAUSE_SECONDS):
                    await self._pressing.wait()

    def _store_is_away(self, error: StoreError) -> None:
        if self.store_error is None:
            log.error(events.STORE_UNAVAILABLE, error=str(error))
        self.store_error = error

    def _store_is_back(self) -> None:
        if self.store_error is not None:
            log.info(events.STORE_AVAILABLE)
            self.store_error = None

    async def _save(self) -> None:
        """One transaction with everything that has settled so far; then the server may be told."""
        if self._guards.has_changes:
            await self._guards.save()  # somebody let a trigger go on
        dispatchers = self._dispatchers
        self._pressing.clear()
        # No await until the call: letters, moves, checkpoints and the confirmed position belong to one moment.
        settled = self._something_settled()
        moves = self._begin_moves()
        confirmed = max(self.confirmable(), self.feedback.saved_lsn)
        settled_totals = {name: dispatcher.settled_total for name, dispatcher in dispatchers.items()}
        checkpoints = {
            name: dispatcher.tracker.checkpoint
            for name, dispatcher in dispatchers.items()
            if dispatcher.unsaved or moves[name].parked
        }
        letters: dict[str, list[DeadLetter]] = {
            name: list(dispatcher.letters) for name, dispatcher in dispatchers.items()
        }
        gained = confirmed - self.feedback.saved_lsn
        if not settled and not gained and not any(move.parked or move.removed for move in moves.values()):
            return
        try:
            await self._store.save(
                LSN(confirmed),
                checkpoints,
                [letter for each in letters.values() for letter in each],
                parked={name: move.parked for name, move in moves.items() if move.parked},
                removed={name: move.removed for name, move in moves.items() if move.removed},
            )
        except BaseException:  # cancelled, for one: whether it was made is not known then
            for dispatcher in dispatchers.values():
                dispatcher.save_failed()
            raise
        self.feedback.saved(confirmed)
        self._idle_pace.saved(self._clock.monotonic(), gained_bytes=gained, settled=settled)
        self._unanswered_requests = 0
        for name, dispatcher in dispatchers.items():
            del dispatcher.letters[: len(letters[name])]
            dispatcher.saved(settled_totals[name])
        self._send_status()
        if any(dispatcher.has_moves for dispatcher in dispatchers.values()):
            self._settled.set()
        self._press_on()

    def _begin_moves(self) -> dict[str, Move]:
        """What this save does to each trigger's backlog; each time another one comes first."""
        names = list(self._dispatchers)
        self._saves += 1
        first = self._saves % max(1, len(names))
        room = MOVE_BYTES
        moves = {}
        for name in names[first:] + names[:first]:
            moves[name] = self._dispatchers[name].begin_save(room)
            room = max(0, room - moves[name].size)
        return moves

    def confirmable(self) -> int:
        """The LSN up to which everything is settled for every trigger, saved or not."""
        if any(dispatcher.inbox for dispatcher in self._dispatchers.values()):
            return self.feedback.saved_lsn  # received, but no tracker knows of it yet
        return confirmable(
            (dispatcher.tracker for dispatcher in self._dispatchers.values()),
            received_end_lsn=self.assembler.received_end_lsn,
            server_wal_end=self.assembler.server_wal_end,
            open_transaction=self.assembler.transaction,
        )

    def _something_settled(self) -> bool:
        return any(
            dispatcher.unsaved or dispatcher.letters or dispatcher.has_moves
            for dispatcher in self._dispatchers.values()
        )

    def _unsaved(self) -> int:
        """Events that a new process will send again."""
        return sum(dispatcher.unsaved for dispatcher in self._dispatchers.values())

    def _idle_gain(self) -> int:
        """Bytes of WAL that could be confirmed though nothing of ours settled in them."""
        return self.confirmable() - self.feedback.saved_lsn

    async def _sleep_unless_settled(self, seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        while (rest := deadline - self._clock.monotonic()) > 0 and not self._something_settled():
            try:
                async with asyncio.timeout(rest):
                    await self._settled.wait()
            except TimeoutError:
                return
            self._settled.clear()

    # -- watch ---------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        backlogs = [each.backlog for each in self._dispatchers.values() if each.backlog is not None]
        if not backlogs:
            await asyncio.Event().wait()
        shortest = min(backlog.bounds.after_seconds for backlog in backlogs)
        while True:
            await asyncio.sleep(min(WATCH_PAUSE_SECONDS, max(0.05, shortest / 4)))
            for dispatcher in self._dispatchers.values():
                dispatcher.watch(self.received_lsn, self.written_lsn)
            self._budget.share_out()
            if self._clock.monotonic() - self._tidied_at >= TIDY_PAUSE_SECONDS:
                self._tidied_at = self._clock.monotonic()
                try:
                    await self._store.tidy_backlog()
                except StoreFenced:
                    raise
                except StoreError as error:
                    log.debug(events.BACKLOG_UNTIDY, error=str(error))

    # -- answer --------------------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        while True:
            wait = self.feedback.due_at() - self._clock.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                self._send_status()

    def _answer_request(self) -> None:
        """
        The server wants an answer now.

        A server that shuts down waits until all that it sent is flushed, and asks without pause until then. Where we
        can't say so, because a target is down or the store is gone with the server, hanging up lets it go.
        """
        self._send_status()
        if self.feedback.saved_lsn >= self.assembler.server_wal_end:
            self._unanswered_requests = 0
            return
        self._settled.set()
        self._unanswered_requests += 1
        if self._unanswered_requests >= SHUTDOWN_REQUESTS:
            raise SourceUnavailable("the server asks again and again for a confirmation that can't be given yet")

    def _send_status(self) -> None:
        now = self._clock.monotonic()
        status = self.feedback.status(now, received_lsn=self.received_lsn)
        self._stream.send_status(status.written, status.flushed, status.applied, now=self._clock.now())
