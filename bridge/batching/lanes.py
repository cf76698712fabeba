"""
The lanes of one trigger: what is waiting, what is held by a key in flight, what backs off. Pure.

States of an event, and the only ways between them:

    waiting ──take──▶ in a batch ──finish──▶ gone
       │                 ▲   │
       │ key is held     │   └──retry──▶ backing off ──take──▶ in a batch
       ▼                 │
    deferred ──release───┘

- *waiting*: in commit order, not looked at yet.
- *deferred*: its key is held; it stands in that key's lane, in commit order. A change of key stands in two lanes and
  leaves when it is first in both.
- A key is *held* from the moment its first event enters a batch until that batch and its followers are finished; then
  its lane, if anything stands there, is *ready* and goes before younger events.
- A *barrier* (TRUNCATE) is taken alone, when nothing of this trigger is left before it.
- `evict` takes everything out that is in no batch in flight; what is admitted after it may be the same events again.

Every operation costs a constant for each event, once; thousands of keys that back off cost nothing while they do.
"""

from __future__ import annotations

import heapq
import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from bridge.batching.batch import Batch, single_out
from bridge.change import Event
from bridge.errors import InvariantBroken

_AT_ONCE = -math.inf
"""Before any time: what was divided before it was sent goes first."""


Lane = list[Event] | deque[Event]
SHORT_LANE: Final = 16
"""Up to here a lane is a list: an empty deque takes 600 bytes, and there may be as many lanes as there are keys."""
_PROBE_SPREAD: Final = 10
"""Fresh batches that every probe may choose from as well."""
_YOUNGEST_SHARE: Final = 0.5
"""Of the probes."""


@dataclass(frozen=True, slots=True)
class Window:
    """The limits that close a batch."""

    batch_size: int
    seconds: float
    """Age of the oldest waiting event; 0 sends as soon as there is room."""
    max_bytes: int
    event_overhead_bytes: int
    """What each event costs in the request besides its body."""


class Lanes:
    """One trigger's events on their way into batches. Times are monotonic seconds, given by the caller."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._waiting: deque[Event] = deque()
        self._waiting_bytes = 0
        self._arrivals: deque[tuple[float, bytes]] = deque()  # (time, id of the newest event that came then)
        # Held keys: the number of the batch that holds it, or, once an event has to wait for it, its lane.
        self._held: dict[bytes, int | Lane] = {}
        self._number = 0
        self._ready: list[tuple[bytes, bytes]] = []  # heap of (id of the lane's first event, key)
        self._blocks: dict[bytes, int] = {}  # event with two keys: in how many lanes it is not first yet
        self._backing_off: list[tuple[float, bytes, Batch]] = []  # heap by time, then commit order
        self._deferred = 0
        self._flying: set[Batch] = set()
        self._barrier = False  # one was taken and is not finished: nothing else may go
        self._retried_last = False

    # -- what a caller may see ----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Events that are in no batch: waiting or deferred."""
        return len(self._waiting) + self._deferred

    @property
    def in_flight(self) -> int:
        """Batches taken and not handed back."""
        return len(self._flying)

    @property
    def backing_off(self) -> int:
        """Batches that wait for another attempt."""
        return len(self._backing_off)

    def waits_for(self, key: bytes) -> bool:
        """Whether an event of this key is in no batch; looks at all that wait."""
        return isinstance(self._held.get(key), list | deque) or any(
            key in (each.key, each.old_key) for each in self._waiting
        )

    def unsent(self) -> Iterator[Event]:
        """Every event that is in no batch in flight, in no particular order."""
        yield from self._waiting
        yield from self._deferred_events()
        for _, _, batch in self._backing_off:
            yield from batch.chain()

    # -- in ------------------------------------------------------------------------------------------------------------

    def admit(self, events: Sequence[Event], now: float) -> None:
        """Take in events, in commit order."""
        self._waiting.extend(events)
        if self._window.seconds:
            self._waiting_bytes += sum(len(event.body) for event in events)
            self._arrivals.append((now, events[-1].id))

    def divide(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Hand a batch back as parts that go before anything else; none of it was sent."""
        for part in parts:
            part.not_before = _AT_ONCE
        self.retry(batch, parts)

    def lower_max_bytes(self, max_bytes: int) -> None:
        """The target has shown that it takes no more than this; what is not sent yet is batched by it."""
        if max_bytes < self._window.max_bytes:
            self._window = replace(self._window, max_bytes=max_bytes)

    def put_back(self, events: Sequence[Event], now: float) -> None:
        """
        Take events in again that had left unsettled, and lay everything out anew, in commit order.

        Raises:
            InvariantBroken: something is in flight, whose place in that order would be lost.
        """
        if self._flying:
            raise InvariantBroken(f"events were to be put back with {len(self._flying)} batches in flight")
        self.readmit(events, now)

    def readmit(self, events: Sequence[Event], now: float) -> None:
        """The same, whatever is in flight: none of it has a key in common with these."""
        everything = sorted([*self.evict(), *events], key=_id)
        if everything:
            self.admit(everything, now)

    # -- out -----------------------------------------------------------------------------------------------------------

    def take(self, now: float) -> Batch | None:
        """The next batch that may be sent now, or None. The caller owes a `finish` or `retry` for it."""
        retry_due = bool(self._backing_off) and self._backing_off[0][0] <= now
        if self._barrier:
            return self._take_retry() if retry_due else None
        # Batches that failed take turns with fresh events: many slow failures must not take every slot.
        if retry_due and (not self._retried_last or self._backing_off[0][0] == _AT_ONCE):
            self._retried_last = True
            return self._take_retry()
        batch = self._gather() if self._ready or self._closed(now) else None
        if batch is not None:
            self._retried_last = False
            return batch
        return self._take_retry() if retry_due else None

    def take_probe(self, now: float, random: Callable[[], float]) -> Batch | None:
        """
        One event from anywhere among those that may be sent now, or None. The caller owes a `finish` or `retry` for it.

        What has waited longest may be what is bad, and tells nothing about its target then. So it is from the youngest
        batch, or as often from any.

        Args:
            now: the monotonic time.
            random: answers a number in [0, 1).
        """
        for _ in range(_PROBE_SPREAD):
            fresh = None
            if not self._barrier and (self._ready or self._closed(now)):
                fresh = self._gather()
            if fresh is None:
                break
            self._flying.remove(fresh)
            self._back_off(fresh, now)
        backing_off = self._backing_off
        due = [place for place, (not_before, _, _) in enumerate(backing_off) if not_before <= now]
        if not due:
            return None
        if backing_off[0][0] == _AT_ONCE:
            chosen = 0
        elif random() < _YOUNGEST_SHARE:
            chosen = max(due, key=lambda place: backing_off[place][1])
        else:
            chosen = due[int(random() * len(due))]
        batch = backing_off.pop(chosen)[2]
        heapq.heapify(backing_off)
        probe, *rest = single_out(batch, random)
        for part in rest:
            self._back_off(part, now)
        self._flying.add(probe)
        return probe

    def wake_at(self) -> float | None:
        """Monotonic time from which `take` may return what it does not return now; None: not by waiting alone."""
        times = []
        if self._backing_off:
            times.append(self._backing_off[0][0])
        # A barrier in front goes when what is before it lands, not at a time.
        if self._arrivals and not self._barrier and not self._waiting[0].barrier:
            times.append(self._arrivals[0][0] + self._window.seconds)
        return min(times, default=None)

    # -- back ----------------------------------------------------------------------------------------------------------

    def finish(self, batch: Batch, now: float) -> None:
        """All events of a batch are settled (its followers are not): free its keys, or let the follower go."""
        self._hand_back(batch)
        self._barrier = False
        if batch.then is None:
            self._release(batch.own_keys())
        else:
            self._back_off(batch.then, now)
            self._release(set(batch.own_keys()) - batch.then.keys())

    def retry(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """
        Some of a batch's events go again, as `parts`, each from its `not_before`; the others are settled.

        Args:
            batch: as it was taken.
            parts: with the batch's followers, if any, behind one of them; no key in two of them.
        """
        if not parts:
            raise InvariantBroken(f"{batch!r} was handed back for a retry of nothing")
        self._hand_back(batch)
        kept: set[bytes] = set()
        for part in parts:
            kept |= part.keys()
            self._back_off(part, part.not_before)
        self._release(batch.keys() - kept)

    def evict(self) -> list[Event]:
        """Take out every event that is in no batch in flight, in commit order; their keys are free then."""
        evicted = sorted(self.unsent(), key=_id)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._arrivals.clear()
        self._ready.clear()
        self._blocks.clear()
        self._backing_off.clear()
        self._deferred = 0
        # No batch has the number 0, so these keys are held by somebody else for every batch to come.
        self._held = {key: 0 for batch in self._flying for key in batch.keys()}  # noqa: SIM118 - no mapping
        self._barrier = any(event.barrier for batch in self._flying for event in batch.events)
        return evicted

    # -- inside --------------------------------------------------------------------------------------------------------

    def _deferred_events(self) -> Iterator[Event]:
        seen: set[bytes] = set()
        for lane in self._held.values():
            for event in () if isinstance(lane, int) else lane:
                if event.old_key is None:
                    yield event
                elif event.id not in seen:
                    seen.add(event.id)
                    yield event

    def _hand_back(self, batch: Batch) -> None:
        if batch not in self._flying:
            raise InvariantBroken(f"{batch!r} was handed back, but is not in flight")
        self._flying.remove(batch)

    def _back_off(self, batch: Batch, not_before: float) -> None:
        heapq.heappush(self._backing_off, (not_before, batch.events[0].id, batch))

    def _take_retry(self) -> Batch:
        batch = heapq.heappop(self._backing_off)[2]
        self._flying.add(batch)
        return batch

    def _closed(self, now: float) -> bool:
        window = self._window
        waiting = self._waiting
        if not waiting:
            return False
        if not window.seconds or waiting[0].barrier:
            return True
        return (
            len(waiting) >= window.batch_size
            or self._waiting_bytes + len(waiting) * window.event_overhead_bytes >= window.max_bytes
            or now >= self._arrivals[0][0] + window.seconds
        )

    def _gather(self) -> Batch | None:
        """Fill a batch with the oldest events whose keys are free."""
        window = self._window
        waiting, held, ready = self._waiting, self._held, self._ready
        limit, max_bytes, overhead = window.batch_size, window.max_bytes, window.event_overhead_bytes
        number = self._number = self._number + 1
        batch = self._gather_freely()
        if batch is not None:
            return batch
        events: list[Event] = []
        size = 0
        full = False
        from_lanes = False
        while len(events) < limit and not full:
            if ready and (not waiting or ready[0][0] < waiting[0].id):
                size, full = self._gather_lane(heapq.heappop(ready)[1], events, size)
                from_lanes = True
                continue
            if not waiting:
                break
            event = waiting[0]
            _, _, _, key, old_key, _, _, body, barrier = event
            if barrier:
                if events or held or self._flying or self._backing_off:
                    break
                self._barrier = full = True
            elif key is None:
                pass
            elif old_key is not None:
                if held.get(key, number) != number or held.get(old_key, number) != number:
                    self._defer_two(self._next_waiting(), (key, old_key))
                    continue
            elif held.get(key, number) != number:
                self._defer(self._next_waiting(), key)
                continue
            cost = len(body) + overhead
            if events and size + cost > max_bytes:
                break
            self._next_waiting()
            events.append(event)
            size += cost
            if key is not None:
                held[key] = number
                if old_key is not None:
                    held[old_key] = number
        if not events:
            return None
        if from_lanes:
            # Lanes and waiting events were chosen by the age of their first; inside a batch commit order holds for all.
            events.sort(key=_id)
        batch = Batch(events, size)
        self._flying.add(batch)
        return batch

    def _gather_freely(self) -> Batch | None:
        """
        The oldest events as they stand, if nothing holds any of them up: the usual case, without a step for each event.

        None, with nothing changed, where one of them has to be looked at.
        """
        window, waiting = self._window, self._waiting
        if self._ready or not waiting:
            return None
        events = list(islice(waiting, window.batch_size))
        keys = list(map(_key, events))
        if any(map(_old_key, events)) or any(map(_is_barrier, events)) or not self._held.keys().isdisjoint(keys):
            return None
        size = sum(map(len, map(_body, events))) + len(events) * window.event_overhead_bytes
        if size > window.max_bytes:
            return None
        self._held.update(dict.fromkeys(keys, self._number))
        self._held.pop(None, None)  # type: ignore[call-overload] # of events without a key
        take = self._next_waiting if window.seconds else waiting.popleft
        for _ in events:
            take()
        batch = Batch(events, size)
        self._flying.add(batch)
        return batch

    def _gather_lane(self, key: bytes, events: list[Event], size: int) -> tuple[int, bool]:
        """Move a ready lane's events into a batch as far as it may be; returns the new size and whether it is full."""
        window = self._window
        lane = self._held[key]
        full = False
        taken = False
        if isinstance(lane, int):
            raise InvariantBroken("a key without a lane was ready")
        while lane:
            event = lane[0]
            cost = len(event.body) + window.event_overhead_bytes
            if events and (len(events) >= window.batch_size or size + cost > window.max_bytes):
                full = True
                break
            if event.old_key is not None:
                if self._blocks.get(event.id, 0):
                    break
                other = event.key if event.old_key == key else event.old_key
                if other is None:
                    raise InvariantBroken(f"{event!r} has an old key but no key")
                other_lane = self._held[other]
                if isinstance(other_lane, int) or _pop_first(other_lane) is not event:
                    raise InvariantBroken(f"{event!r} is first in one of its lanes only")
                self._blocks.pop(event.id, None)
                self._held[other] = other_lane or self._number
            _pop_first(lane)
            self._deferred -= 1
            events.append(event)
            taken = True
            size += cost
        if taken:
            self._held[key] = lane or self._number
        else:
            # Nothing of it fitted: it stays ready for the next batch.
            heapq.heappush(self._ready, (lane[0].id, key))
        return size, full

    def _defer(self, event: Event, key: bytes) -> None:
        self._stand_in_lane(key, event)
        self._deferred += 1

    def _defer_two(self, event: Event, keys: tuple[bytes, bytes]) -> None:
        """Stand in the lanes of both keys; a key that was free is held from now on, for this event."""
        blocks = 0
        for key in keys:
            if key in self._held:
                blocks += 1
            self._stand_in_lane(key, event)
        self._deferred += 1
        self._blocks[event.id] = blocks

    def _stand_in_lane(self, key: bytes, event: Event) -> None:
        """Go last in the lane of a key that is held, or is from now on."""
        lane = self._held.get(key)
        if lane is None or isinstance(lane, int):
            self._held[key] = [event]
            return
        lane.append(event)
        if len(lane) == SHORT_LANE and isinstance(lane, list):
            self._held[key] = deque(lane)

    def _release(self, keys: Iterable[bytes]) -> None:
        """Free keys whose batch is finished; where events stand in their lanes, these are next. Keys may repeat."""
        held = self._held
        passed_on: set[bytes] = set()
        for key in keys:
            lane = held.pop(key, 0)
            if isinstance(lane, int):
                continue
            held[key] = lane
            if key in passed_on:
                continue
            passed_on.add(key)
            event = lane[0]
            if event.old_key is not None:
                self._blocks[event.id] -= 1
                if self._blocks[event.id]:
                    continue
            heapq.heappush(self._ready, (event.id, key))

    def _next_waiting(self) -> Event:
        event = self._waiting.popleft()
        if self._window.seconds:
            self._waiting_bytes -= len(event.body)
            if self._arrivals[0][1] == event.id:
                self._arrivals.popleft()
        return event


def _pop_first(lane: Lane) -> Event:
    return lane.pop(0) if isinstance(lane, list) else lane.popleft()


# An event is a tuple, and these stay out of Python for each of them.
_id = operator.itemgetter(0)
_key = operator.itemgetter(3)
_old_key = operator.itemgetter(4)
_body = operator.itemgetter(7)
_is_barrier = operator.itemgetter(8)
