"""
Where the unsettled changes of one trigger are: in the slot's keeping, in memory, in the backlog table. Pure.

The way of the whole trigger:

    live ──retreat──▶ backlog ──the rest fits in memory──▶ returning ──all of it was read──▶ live
                         ▲                                     │
                         └───── what comes in doesn't fit ─────┘

- *live*: what is admitted goes into the lanes.
- *backlog*: what is admitted is parked; its row is written with the next save. Pages of rows go into the lanes.
- *returning*: what is admitted is parked, and stays so, while the last pages are read; then it goes into the lanes
  behind them. There is the seam: nothing is left unread, and nothing of what follows has been written.

A trigger that had to go again soon after it came back has to show that it keeps pace, before it comes back once more:
under a load that comes in bursts it would go to and fro else, and each way costs more than staying.

The way of one change. Until its row is committed the slot keeps it (it is unsettled in the tracker), from then on the
table does; so at every moment a process that dies finds it again.

    in the lanes ──retreat──▶ parking ──▶ moving ──saved──▶ unread ──page──▶ loaded ──settled──▶ done ──saved──▶ gone
          │                                  ▲                                 ▲
          └──hold──▶ held ───────────────────┘─────────────── saved ───────────┘

- *parking*: in memory, in no lane. *moving*: its row is part of the save under way, or of one that failed and is
  repeated; the tracker has settled it, so that the checkpoint of the same save passes it.
- *held*: its row is written while it stays where it is, in a lane or in flight, so that the slot needn't wait for it:
  what is in flight when its trigger's changes move, or what has waited too long while others have not.
- *unread*: nothing of it is in memory. *loaded*: in the lanes, with its row still there. *done*: the row goes with the
  next save, in one transaction with its dead letter, if it became one.

Rows are written in event order, the oldest unsettled change first, so the checkpoint of the same save passes all of
them: nothing is both in the table and in what the slot sends again. That is why what is in flight gets rows as well.

What keeps the order is that lanes are only ever given changes that are younger than those given before, or that `evict`
gave out again. Pages are read in order from the *cursor*, and these hold:

1. A row above the cursor is unread, or its id is in `_skip`: it, or what was settled of it, is in memory.
2. The cursor never passes a change that is parking or moving and in no lane.

Sizes are bytes of memory: a body and `EVENT_OVERHEAD_BYTES`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bridge.change import Event
from bridge.errors import InvariantBroken
from bridge.store.protocol import BacklogSize, Parked

# A tuple, an id, two keys, the header of the body, and a place in three containers.
EVENT_OVERHEAD_BYTES: Final = 400

# Most on a page: a page is decoded in one go, and others share the loop.
PAGE_EVENTS: Final = 2000
PAGE_BYTES: Final = 1 << 20
# Who stays live for so long has come back for good.
SETTLED_SECONDS: Final = 60.0
# What has to go again sooner stays for at least so long once it keeps pace, twice as long each further time.
FIRST_TRIAL_SECONDS: Final = 5.0
LONGEST_TRIAL_SECONDS: Final = 60.0
# Most rows in one save besides its bytes, for the same reason.
MOVE_EVENTS: Final = 10_000


class Mode(StrEnum):
    """Of a trigger; see above."""

    LIVE = "live"
    BACKLOG = "backlog"
    RETURNING = "returning"


@dataclass(frozen=True, slots=True)
class Bounds:
    """`backlog` of a trigger's settings: past any of these its changes move."""

    after_bytes: int
    """Held in memory."""
    after_wal_bytes: int
    """Retained by the slot."""
    after_seconds: float
    """Waited by the oldest change."""


@dataclass(frozen=True, slots=True)
class Move:
    """What one save does to a trigger's backlog."""

    parked: Sequence[Parked] = ()
    removed: Sequence[bytes] = ()
    newly: Sequence[Event] = ()
    """Of the parked ones those that are still unsettled in the tracker; to be settled before its checkpoint is read."""
    size: int = 0


NO_MOVE: Final = Move()


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is to be read."""

    after: bytes
    events: int
    body_bytes: int
    before: bytes | None
    """What is at or above this is not to be taken yet."""
    turn: int
    unread: tuple[int, int]


ChargeOf = Callable[[bytes], tuple[int, float]]
"""By event id: failed attempts, and when the first was, in seconds since 1970; (0, 0.0) without any."""


class Backlog:
    """
    Args:
        bounds: of the trigger.
        stored: what its table holds at the start.
    """

    def __init__(self, bounds: Bounds, stored: BacklogSize | None = None) -> None:
        self.bounds = bounds
        self.mode = Mode.LIVE
        self.window = bounds.after_bytes // 2
        """Bytes that may be loaded; whoever shares out the memory sets it."""
        self.stored_events = 0
        self.stored_bytes = 0
        self.loaded_bytes = 0
        self._unread_events = 0
        self._unread_bytes = 0
        if stored is not None and stored.events:
            self.mode = Mode.BACKLOG
            self.stored_events = self._unread_events = stored.events
            self.stored_bytes = self._unread_bytes = stored.body_bytes + EVENT_OVERHEAD_BYTES * stored.events
        self._parking: deque[Parked] = deque()
        self._parking_bytes = 0
        self._through = b""  # what is parking up to this id is stored before the trigger returns
        self._held: dict[bytes, Parked] = {}
        self._moving: dict[bytes, Parked] = {}
        self._in_lanes: set[bytes] = set()  # of those moving
        self._finished: set[bytes] = set()  # settled since they began to move
        self._loaded: dict[bytes, Event] = {}
        self._done: dict[bytes, int | None] = {}  # with the size of its row; None where there may be none
        self._removing: tuple[bytes, ...] = ()
        self._rewritten: dict[bytes, Parked] = {}
        self._cursor = b""
        self._skip: set[bytes] = set()
        self._page: Page | None = None
        self._turn = 0
        self._at_end = False  # the last page was empty, and no row has been written since
        self._waits_for_save = False  # what comes next behind the cursor is parking or moving
        self._reached_at: float | None = None  # commit time of what was loaded last, or evicted
        self._now = 0.0
        self._live_since = float("-inf")
        self._keeps_pace_since: float | None = None
        self._trial_seconds = 0.0

    # -- what a caller may see -----------------------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether what is admitted goes into the lanes."""
        return self.mode is Mode.LIVE

    @property
    def stored(self) -> BacklogSize:
        """What the table holds."""
        return BacklogSize(self.stored_events, self.stored_bytes - EVENT_OVERHEAD_BYTES * self.stored_events)

    @property
    def in_memory(self) -> int:
        """Changes in memory whose rows are committed, so that the tracker no longer counts them."""
        return len(self._loaded)

    @property
    def parking_bytes(self) -> int:
        """What waits to be written, and in no lane."""
        return self._parking_bytes if self.mode is Mode.BACKLOG else 0

    @property
    def has_moves(self) -> bool:
        """Whether a save has anything to do for it."""
        parking = self._parking and self.mode is Mode.BACKLOG
        return bool(parking or self._held or self._moving or self._done or self._rewritten)

    @property
    def has_unread(self) -> bool:
        """Whether there are rows that are not in memory."""
        return self._unread_events > 0

    @property
    def oldest_committed_at(self) -> float | None:
        """Commit time of the oldest change that the table keeps, in seconds since 1970; None where it is not known."""
        oldest = min(self._loaded, default=None)
        if oldest is not None:
            return self._loaded[oldest].transaction.committed_at
        return self._reached_at if self.has_unread else None

    @property
    def newest_held(self) -> bytes:
        """The id of the newest event that is to have a row though it stays where it is; empty without one."""
        return max(self._held, default=b"")

    def unknown(self, events: Iterable[Event]) -> list[Event]:
        """Those of the tracker's unsettled events whose rows are not yet to be written."""
        parking = {parked.event.id for parked in self._parking}
        return [event for event in events if event.id not in self._held and event.id not in parking]

    # -- away from the slot --------------------------------------------------------------------------------------------

    def retreat(self, evicted: Sequence[Event], charge_of: ChargeOf, newest: bytes) -> int:
        """
        Go to backlog: everything that is in no call leaves the memory.

        Args:
            evicted: all that was taken out of the lanes, in event order.
            charge_of: what each has against it.
            newest: the id of the newest event admitted.

        Returns:
            Bytes that are free at once; the others are when they are saved.
        """
        cursor = newest if self.is_live else self._cursor
        freed = 0
        parked: list[Parked] = []
        for event in evicted:
            size = size_of(event)
            if event.id in self._loaded:
                del self._loaded[event.id]
                self.loaded_bytes -= size
                self._unread_events += 1
                self._unread_bytes += size
                freed += size
            elif event.id in self._in_lanes:
                self._in_lanes.remove(event.id)
            else:
                self._held.pop(event.id, None)
                parked.append(Parked(event, *charge_of(event.id)))
                self._parking_bytes += size
        if evicted:
            cursor = min(cursor, _just_below(evicted[0].id))
            self._reached_at = evicted[0].transaction.committed_at
        if parked:
            self._parking = deque(sorted([*parked, *self._parking], key=_id))
        if self.is_live:
            self._skip.clear()
            self._keeps_pace_since = None
            if self._now - self._live_since < SETTLED_SECONDS:
                self._trial_seconds = min(max(FIRST_TRIAL_SECONDS, 2 * self._trial_seconds), LONGEST_TRIAL_SECONDS)
            else:
                self._trial_seconds = 0.0
        in_memory = (self._loaded, self._held, self._in_lanes, self._finished, self._done)
        self._skip.difference_update(event.id for event in evicted)
        self._skip.update(event_id for some in in_memory for event_id in some if event_id > cursor)
        self._cursor = cursor
        self._through = newest
        self._page = None
        self._turn += 1
        self._at_end = self._waits_for_save = False
        self.mode = Mode.BACKLOG
        return freed

    def park(self, events: Iterable[Event], size: int) -> None:
        """Take in what is admitted while the trigger is not live, in event order."""
        self._parking.extend(map(Parked, events))
        self._parking_bytes += size

    def hold(self, event: Event, charge: tuple[int, float]) -> None:
        """An event stays where it is, but the slot shall not wait for it, nor for any older one: it gets a row."""
        self._held[event.id] = Parked(event, *charge)
        if not self.is_live and event.id > self._cursor:
            self._skip.add(event.id)

    def stow(self, events: Sequence[Event], charge_of: ChargeOf) -> None:
        """
        The last word of a process that stops: rows for these, and new ones for what has failed since it was read.

        Args:
            events: those that the tracker has not settled, from the oldest as far as rows are to be written.
            charge_of: what each has against it.
        """
        for event in events:
            self._held[event.id] = Parked(event, *charge_of(event.id))
        self._parking.clear()
        for event_id, event in self._loaded.items():
            charge = charge_of(event_id)
            if charge[0]:
                self._rewritten[event_id] = Parked(event, *charge)
        self._page = None
        self._turn += 1
        self.mode = Mode.LIVE

    # -- settled -------------------------------------------------------------------------------------------------------

    def settle(self, events: Sequence[Event]) -> Sequence[Event]:
        """Events of the lanes are finished; returns those that the tracker has to settle, as the slot keeps them."""
        if not self._loaded and not self._held and not self._in_lanes:
            return events
        kept_by_slot: list[Event] = []
        for event in events:
            if event.id in self._loaded:
                del self._loaded[event.id]
                size = size_of(event)
                self.loaded_bytes -= size
                self._done[event.id] = size
            elif event.id in self._in_lanes:
                self._in_lanes.remove(event.id)
                self._finished.add(event.id)
            else:
                self._held.pop(event.id, None)
                kept_by_slot.append(event)
        return kept_by_slot

    # -- saving --------------------------------------------------------------------------------------------------------

    def begin_save(self, in_slot: Iterable[Event], room: int) -> Move:
        """
        What the next save has to do. It ends with `save_done` or `save_failed`, before there is another.

        Args:
            in_slot: what the tracker has not settled, in event order.
            room: most bytes to be newly written; at least one change is, unless it is 0.
        """
        newly: list[Event] = []
        size = 0
        if not self._moving:
            for event in in_slot:
                if size >= room or len(newly) >= MOVE_EVENTS:
                    break
                parked = self._held.pop(event.id, None)
                if parked is not None:
                    self._in_lanes.add(event.id)
                elif self.mode is Mode.BACKLOG and self._parking and self._parking[0].event.id == event.id:
                    parked = self._parking.popleft()
                    self._parking_bytes -= size_of(event)
                else:
                    break  # the slot keeps this one, so it keeps all that follows
                self._moving[event.id] = parked
                newly.append(event)
                size += size_of(event)
        self._removing = tuple(self._done)
        if not self._moving and not self._removing and not self._rewritten:
            return NO_MOVE
        return Move(
            parked=sorted([*self._moving.values(), *self._rewritten.values()], key=_id),
            removed=[*self._removing, *self._rewritten],
            newly=newly,
            size=size,
        )

    def save_done(self) -> int:
        """The save has been made. Returns the bytes that left the memory with it."""
        for event_id in self._removing:
            size = self._done.pop(event_id)
            if size is not None:
                self.stored_events -= 1
                self.stored_bytes -= size
        freed = 0
        for event_id, parked in self._moving.items():
            size = size_of(parked.event)
            self.stored_events += 1
            self.stored_bytes += size
            if event_id in self._in_lanes:
                self._loaded[event_id] = parked.event
                self.loaded_bytes += size
            elif event_id in self._finished:
                self._done[event_id] = size
            else:
                self._unread_events += 1
                self._unread_bytes += size
                freed += size
                self._at_end = False
        self._removing = ()
        self._moving.clear()
        self._in_lanes.clear()
        self._finished.clear()
        self._rewritten.clear()
        self._waits_for_save = False
        return freed

    def save_failed(self) -> None:
        """The save has not been made, or nobody knows: the next one repeats it, but for what is finished meanwhile."""
        for event_id in self._finished:
            del self._moving[event_id]
            self._done.setdefault(event_id, None)
        self._finished.clear()
        self._removing = ()

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def page_is_due(self) -> bool:
        """Whether `next_page` has one."""
        if self.is_live or self._page is not None or self._waits_for_save or self._at_end:
            return False
        # On the way back even the last, empty page is read: that nothing is left is not taken from a count.
        has_room = self.loaded_bytes <= self.window * 3 // 4
        return self.mode is Mode.RETURNING or (self.has_unread and has_room)

    def next_page(self) -> Page | None:
        """The page to read now, if one is due; it ends with `take_page` or `page_failed`."""
        if not self.page_is_due:
            return None
        unread = (self._unread_events, self._unread_bytes)
        body_bytes = max(1, min(PAGE_BYTES, self.window // 4))
        self._page = Page(self._cursor, PAGE_EVENTS, body_bytes, self._first_unwritten(), self._turn, unread)
        return self._page

    def take_page(self, page: Page, rows: Sequence[Parked]) -> list[Parked]:
        """The rows of a page that go into the lanes."""
        if page.turn != self._turn:
            return []  # everything was laid out anew meanwhile
        self._page = None
        within = [row for row in rows if page.before is None or row.event.id < page.before]
        self._waits_for_save = len(within) < len(rows)
        if not rows:
            # What was expected is not there: somebody else has taken it out. What was written meanwhile is.
            self._unread_events -= page.unread[0]
            self._unread_bytes -= page.unread[1]
            self._at_end = self._unread_events <= 0
        if not within:
            return []
        fresh = [row for row in within if row.event.id not in self._skip]
        self._cursor = within[-1].event.id
        self._reached_at = within[-1].event.transaction.committed_at
        self._skip = {event_id for event_id in self._skip if event_id > self._cursor}
        size = 0
        for row in fresh:
            if row.event.id in self._loaded:
                raise InvariantBroken(f"event {row.event.id.decode()} was read from the backlog a second time")
            self._loaded[row.event.id] = row.event
            size += size_of(row.event)
        self.loaded_bytes += size
        self._unread_events = max(0, self._unread_events - len(fresh))
        self._unread_bytes = max(0, self._unread_bytes - size)
        return fresh

    def page_failed(self, page: Page) -> None:
        """A page could not be read; it is due again."""
        if page.turn == self._turn:
            self._page = None

    # -- the way back --------------------------------------------------------------------------------------------------

    def come_back(self) -> list[Event] | None:
        """Live again, if all was read: what goes into the lanes now, in event order. Otherwise None."""
        if self.mode is not Mode.RETURNING or not self._at_end or self._page is not None or self._leaving():
            return None
        events = [parked.event for parked in self._parking]
        self._parking.clear()
        self._parking_bytes = 0
        self._skip.clear()
        self.mode = Mode.LIVE
        self._live_since = self._now
        return events

    def look(self, now: float) -> None:
        """
        See whether the way back is open; called before a save, after a page, and every second or so.

        Args:
            now: monotonic time.
        """
        self._now = now
        needed = self._unread_bytes + self.loaded_bytes + self._parking_bytes
        if self.mode is Mode.BACKLOG:
            if needed > min(self.bounds.after_bytes // 2, self.window):
                self._keeps_pace_since = None
                return
            if self._keeps_pace_since is None:
                self._keeps_pace_since = now
            settled_in = not self._parking or self._parking[0].event.id > self._through
            if settled_in and not self._leaving() and now - self._keeps_pace_since >= self._trial_seconds:
                self.mode = Mode.RETURNING
                self._at_end = False
        elif self.mode is Mode.RETURNING and needed > self.bounds.after_bytes * 3 // 4:
            self.mode = Mode.BACKLOG

    # -- inside --------------------------------------------------------------------------------------------------------

    def _leaving(self) -> bool:
        """Whether changes are moving that are in no lane."""
        return len(self._moving) > len(self._in_lanes) + len(self._finished)

    def _first_unwritten(self) -> bytes | None:
        """The oldest change that is in no lane and not in the table either."""
        ids = [self._parking[0].event.id] if self._parking else []
        if self._leaving():
            ids += [each for each in self._moving if each not in self._in_lanes and each not in self._finished]
        return min(ids, default=None)


class Waiting:
    """
    How long the oldest of a trigger's changes has been waiting, from marks set now and then.

    The commit time would not do: after a halt of ours everything is old, and no trigger is to blame.
    """

    # More marks than that make nothing more precise that matters.
    _MOST = 256

    def __init__(self) -> None:
        self._marks: deque[tuple[float, bytes]] = deque()  # (monotonic time, newest id admitted)

    def note(self, now: float, oldest: bytes | None, newest: bytes) -> None:
        """Set a mark: the oldest event that waits, if any, and the newest admitted."""
        marks = self._marks
        while marks and (oldest is None or marks[0][1] < oldest):
            marks.popleft()
        if oldest is not None and len(marks) < self._MOST and (not marks or marks[-1][1] < newest):
            marks.append((now, newest))

    def through(self, now: float, seconds: float) -> bytes | None:
        """The newest id such that everything up to it that waits has been waiting for that long."""
        overdue = [newest for marked_at, newest in self._marks if now - marked_at >= seconds]
        return overdue[-1] if overdue else None


def size_of(event: Event) -> int:
    """Bytes of memory."""
    return len(event.body) + EVENT_OVERHEAD_BYTES


def _just_below(event_id: bytes) -> bytes:
    """Below this id, and above most that are smaller; of the few in between, each is in `_skip` or in no table."""
    return event_id[:-1]


def _id(parked: Parked) -> bytes:
    return parked.event.id
