"""
One trigger's way to the backlog table and back: when its changes go there, what a save has to do, which page is read.

What is where, is elsewhere and pure (`backlog.py`). Here are the bounds that send a trigger there, the task that reads
its pages, and the lines in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from bridge.change import Event
from bridge.clock import Clock
from bridge.delivery.backlog import Backlog, Move, Page, Waiting, size_of
from bridge.delivery.books import Books
from bridge.delivery.read_ahead import READ_AHEAD_BYTES, Patience
from bridge.errors import StoreError
from bridge.observe import log as log_events
from bridge.store.protocol import Parked

MOST_HELD_BYTES: Final = 1 << 20
"""What has waited too long gets rows without disturbing what has not, as long as it is no more than this."""
READ_RETRY_SECONDS: Final = 1.0
WAL_SHARE: Final = 0.5
"""
Of backlog.after_wal_bytes, what a trigger may keep the slot behind by. The server keeps WAL from the slot's
restart_lsn, and before that moves, a position has to be confirmed that was decoded after the last move: twice what is
unconfirmed, and two steps between the records from which decoding can begin (`progress/restart.py`).
"""

# Trigger, event id to begin behind, most events, most bytes of bodies.
ReadBacklog = Callable[[str, bytes, int, int], Awaitable[Sequence[Parked]]]

log = structlog.get_logger("pgbridge.delivery")


class Parking:
    """
    Args:
        trigger: its name.
        books: what it has in hand.
        backlog: where its changes are.
        read_backlog: reads a page of it.
        most_unsaved: events that may be exposed to a repetition.
        enough_events: that wait, and keep all of its calls busy.
        clock: the time.
        moved: called when there is something to save.
        pump: called when there may be something to send.
        failed: called with a bug of ours, which ends the process.
    """

    def __init__(
        self,
        trigger: str,
        books: Books,
        backlog: Backlog,
        read_backlog: ReadBacklog | None,
        *,
        most_unsaved: int,
        enough_events: int,
        clock: Clock,
        moved: Callable[[], None],
        pump: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.backlog = backlog
        self.patient = False
        """Whether reading may stop for this trigger before its changes move: where there is no other."""
        self.exposed_when_saved = 0
        """Events settled above the checkpoint that was saved last."""
        self.takes_in = not backlog.is_live
        """Whether what is admitted goes to the table."""
        self.reading: asyncio.Task[None] | None = None
        self._trigger = trigger
        self._books = books
        self._read_backlog = read_backlog
        self._most_unsaved = most_unsaved
        self._enough_events = enough_events
        self._clock = clock
        self._moved = moved
        self._pump = pump
        self._failed = failed
        self._waiting = Waiting()
        self._most_wal_bytes = int(backlog.bounds.after_wal_bytes * WAL_SHARE)
        self._patience = Patience(self._most_wal_bytes)
        self._exposed_by_save = 0
        self._looked_total = 0
        self._read_again_at = 0.0
        self._read_failed = False

    # -- how much is in hand -------------------------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """What it holds of the stream."""
        return self.backlog.parking_bytes if self.takes_in else self._books.buffered_bytes

    def keeps_busy(self, share: float) -> bool:
        """Whether that is as much as is good for anything, or a share of it."""
        most_bytes = self.backlog.bounds.after_bytes
        if self.unsent_bytes < share * min(READ_AHEAD_BYTES, most_bytes):
            return False
        enough = self._books.lanes.waiting >= share * self._enough_events
        return self.takes_in or enough or self._books.buffered_bytes >= share * most_bytes

    @property
    def save_is_pressing(self) -> bool:
        """Much waits for its row."""
        return self.backlog.parking_bytes >= MOST_HELD_BYTES

    @property
    def is_reading(self) -> bool:
        """Whether something is on its way from the table, or about to be."""
        return self.reading is not None or self.backlog.page_is_due

    # -- saving --------------------------------------------------------------------------------------------------------

    def begin_save(self, room: int) -> Move:
        """What a save has to do; `room` is for most bytes to be written newly."""
        self._look_for_the_way_back()
        tracker = self._books.tracker
        move = self.backlog.begin_save(tracker.unsettled(), room)
        if move.newly:
            tracker.settle(move.newly)
        self._exposed_by_save = tracker.settled_above
        self._come_back_if_due()
        return move

    def saved(self) -> None:
        """It has been done."""
        self._books.buffered_bytes -= self.backlog.save_done()
        self.exposed_when_saved = self._exposed_by_save
        self._hold_overtaken()

    def stow(self) -> None:
        """After the last call, for good: what is unsettled but older than something settled gets a row."""
        tracker = self._books.tracker
        failed = [event_id for event_id in self._books.charges if event_id in tracker]
        limit = max([self._books.newest_settled, self.backlog.newest_held, *failed])
        self.backlog.stow(tracker.through(limit), self._books.charge_of)

    # -- to the backlog ------------------------------------------------------------------------------------------------

    def park(self, events: Sequence[Event], size: int) -> None:
        """Take in what was admitted while the trigger is not live."""
        self.backlog.park(events, size)
        self._moved()

    def retreat_if_full(self) -> None:
        """Something was admitted."""
        if self._books.buffered_bytes > self.backlog.bounds.after_bytes and not self.takes_in and not self.patient:
            self.retreat("it holds more than backlog.after_bytes in memory")

    def retreat(self, reason: str) -> None:
        """Let everything that is in no call leave the memory, for the table."""
        books, backlog = self._books, self.backlog
        if books.stopped:
            return
        was_live = backlog.is_live
        # What waits for a letter goes with it, and comes back to wait again.
        evicted = sorted([*books.lanes.evict(), *books.held.let_go()], key=_id)
        books.buffered_bytes -= backlog.retreat(evicted, books.charge_of, books.tracker.received_id)
        for event in backlog.unknown(books.tracker.unsettled()):
            backlog.hold(event, books.charge_of(event.id))
        self.takes_in = True
        if was_live:
            size = sum([size_of(event) for event in evicted])
            log.warning(
                log_events.TRIGGER_TO_BACKLOG, trigger=self._trigger, reason=reason, events=len(evicted), bytes=size
            )
        self._moved()

    def watch(self, received_lsn: int, written_lsn: int) -> None:
        """See whether its changes have waited for too long, or hold back too much WAL; called every second or so."""
        if self._books.stopped:
            return
        self._look_for_the_way_back()
        now = self._clock.monotonic()
        tracker, bounds = self._books.tracker, self.backlog.bounds
        oldest = tracker.oldest
        self._waiting.note(now, None if oldest is None else oldest.id, tracker.received_id)
        if oldest is None:
            return
        if not (self.patient and self.backlog.is_live and self.keeps_busy(1.0)):
            self._patience.forget()
        elif self._patience.is_over(now, self._books.settled_total, written_lsn - oldest.transaction.commit_lsn):
            self.retreat("the slot would soon retain more than backlog.after_wal_bytes while reading waits for it")
        limit = self._waiting.through(now, bounds.after_seconds) or b""
        reason = "its oldest change has waited longer than backlog.after_seconds"
        if received_lsn - oldest.transaction.commit_lsn > self._most_wal_bytes:
            limit = max(limit, b"%016X" % (received_lsn - self._most_wal_bytes))
            reason = "the slot would soon retain more than backlog.after_wal_bytes because of it"
        if limit:
            self._free_slot(limit, reason)

    def look_for_overtaken(self) -> None:
        """Something settled; now and then, see whether that was above changes that go on waiting."""
        if self._books.settled_total - self._looked_total >= self._most_unsaved // 8:
            self._looked_total = self._books.settled_total
            self._hold_overtaken()

    def _free_slot(self, limit: bytes, reason: str) -> None:
        """See to it that the slot needn't keep anything up to an event id."""
        overdue = self.backlog.unknown(self._books.tracker.through(limit))
        if not overdue:
            return
        if sum([size_of(event) for event in overdue]) > MOST_HELD_BYTES:
            self.retreat(reason)
            return
        # So few that the others needn't be disturbed.
        for event in overdue:
            self.backlog.hold(event, self._books.charge_of(event.id))
        self._moved()

    def _hold_overtaken(self) -> None:
        """
        Give rows to the oldest once many others have overtaken them, though they may wait for long yet.

        The checkpoint stays below them, so all that has settled above would be sent again after a crash. Sending stops
        where that is a whole window (`Dispatcher.pump`); this, at half of it, keeps it from coming to that.
        """
        tracker = self._books.tracker
        if self._books.stopped or tracker.settled_above <= self._most_unsaved // 2:
            return
        size = 0
        for event in self.backlog.unknown(tracker.overtaken(self._most_unsaved // 4)):
            self.backlog.hold(event, self._books.charge_of(event.id))
            size += size_of(event)
            if size >= MOST_HELD_BYTES:
                break  # the rest after the save that is due now
        if size:
            self._moved()

    # -- from the backlog ----------------------------------------------------------------------------------------------

    def read_on(self) -> None:
        """Begin to read a page, if one is due."""
        if not self.takes_in or self.reading is not None or self._read_backlog is None:
            return
        if self._clock.monotonic() < self._read_again_at:
            return
        page = self.backlog.next_page()
        if page is not None:
            reading = asyncio.get_running_loop().create_task(
                self._read(page, self._read_backlog), name=f"backlog {self._trigger}"
            )
            self.reading = reading
            reading.add_done_callback(self._read_ended)

    async def stop_reading(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.reading

    async def _read(self, page: Page, read_backlog: ReadBacklog) -> None:
        try:
            rows = await read_backlog(self._trigger, page.after, page.events, page.body_bytes)
        except StoreError as error:
            self.backlog.page_failed(page)
            if not self._read_failed:
                log.error(log_events.BACKLOG_UNREADABLE, trigger=self._trigger, error=str(error))  # noqa: TRY400
            self._read_failed = True
            self._read_again_at = self._clock.monotonic() + READ_RETRY_SECONDS
            asyncio.get_running_loop().call_later(READ_RETRY_SECONDS, self._pump)
            return
        self._read_failed = False
        taken = self.backlog.take_page(page, rows)
        self.backlog.look(self._clock.monotonic())
        if taken:
            for row in taken:
                self._books.charge_again(row)
            events = [row.event for row in taken]
            self._books.buffered_bytes += sum([size_of(event) for event in events])
            self._books.lanes.admit(events, self._clock.monotonic())
        self._come_back_if_due()

    def _read_ended(self, reading: asyncio.Task[None]) -> None:
        self.reading = None
        if reading.cancelled():
            return
        error = reading.exception()
        if error is not None:
            self._failed(error)
            return
        self._pump()

    def _look_for_the_way_back(self) -> None:
        mode = self.backlog.mode
        self.backlog.look(self._clock.monotonic())
        if self.backlog.mode is not mode:
            # Nobody else sees to the page that may be due now.
            asyncio.get_running_loop().call_soon(self._pump)

    def _come_back_if_due(self) -> None:
        events = self.backlog.come_back() if self.takes_in else None
        if events is None:
            return
        if events:
            self._books.lanes.admit(events, self._clock.monotonic())
        self.takes_in = False
        log.info(log_events.TRIGGER_LIVE, trigger=self._trigger)
        self._moved()


def _id(event: Event) -> bytes:
    return event.id
