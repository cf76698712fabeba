"""
Which events of one trigger are unsettled, hence how far its checkpoint has come. Pure.

Events settle in any order, and one of them may stay open for days while millions after it are settled. So only the
unsettled ones are kept: the low watermark lies just before the oldest of them, whatever has settled above it.

How many have settled above it is what a process that dies now would repeat. It is counted by marks between the events
admitted, so that no event has to carry a number.
"""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Iterable, Sequence

from bridge.change import Event, Position
from bridge.errors import InvariantBroken

# An event is a tuple and its id the first member: this is called for each event, and stays out of Python.
_id = operator.itemgetter(0)

# Events between two marks: by so many at most is the number of those above the watermark given too high.
MARK_EVENTS = 64


class Tracker:
    """
    Args:
        checkpoint: everything at or below is settled already.
    """

    def __init__(self, checkpoint: Position) -> None:
        self._received = checkpoint
        self._received_id = checkpoint.event_id.encode("ascii") if checkpoint.ordinal >= 0 else b""
        # Insertion order is commit order, so the first value is the oldest.
        self._unsettled: dict[bytes, Event] = {}
        self._admitted = 0
        # The id of an event, and how many were admitted before it; in commit order, none below the oldest but one.
        self._marks: deque[tuple[bytes, int]] = deque()

    @property
    def received(self) -> Position:
        """The newest position admitted; a change at or below it is in hand or settled."""
        return self._received

    @property
    def received_id(self) -> bytes:
        """The event id of that position; empty where it names no change."""
        return self._received_id

    @property
    def oldest(self) -> Event | None:
        """The oldest unsettled event."""
        return next(iter(self._unsettled.values()), None)

    @property
    def checkpoint(self) -> Position:
        """
        The low watermark: every change of this trigger at or below it is settled.

        An ordinal of -1 means that nothing of that transaction is settled yet.
        """
        oldest = self.oldest
        if oldest is None:
            return self._received
        return Position(oldest.position.commit_lsn, oldest.ordinal - 1)

    def __len__(self) -> int:
        """Unsettled events."""
        return len(self._unsettled)

    def __contains__(self, event_id: bytes) -> bool:
        """Whether an event was admitted and is unsettled."""
        return event_id in self._unsettled

    def unsettled(self) -> Iterable[Event]:
        """The unsettled events, the oldest first; not to be walked while they change."""
        return self._unsettled.values()

    def through(self, event_id: bytes) -> list[Event]:
        """The unsettled events up to this id, the oldest first."""
        return list(itertools.takewhile(lambda event: event.id <= event_id, self._unsettled.values()))

    @property
    def settled_above(self) -> int:
        """How many events are settled though an older one is not, or up to `MARK_EVENTS` more."""
        marks = self._marks
        oldest = next(iter(self._unsettled), None)
        if oldest is None:
            marks.clear()
            return 0
        while len(marks) > 1 and marks[1][0] <= oldest:
            marks.popleft()
        return self._admitted - marks[0][1] - len(self._unsettled)

    def overtaken(self, most: int) -> list[Event]:
        """The oldest unsettled events, those without which `settled_above` would be no more than `most`."""
        if self.settled_above <= most:
            return []
        found: list[Event] = []
        marks = iter(self._marks)
        (_, before), following = next(marks), next(marks, None)
        for event in self._unsettled.values():
            while following is not None and following[0] <= event.id:
                (_, before), following = following, next(marks, None)
            if self._admitted - before - (len(self._unsettled) - len(found)) <= most:
                break
            found.append(event)
        return found

    def admit(self, events: Sequence[Event]) -> None:
        """
        Take events in, in commit order, each newer than any before.

        Raises:
            InvariantBroken: an event is not newer than what was admitted before it (promise 2).
        """
        if not events:
            return
        if events[0].id <= self._received_id:
            raise InvariantBroken(
                f"event {events[0].id.decode()} was admitted after {self._received_id.decode()}, which is not older"
            )
        before = len(self._unsettled)
        self._unsettled.update(zip(map(_id, events), events, strict=True))
        if len(self._unsettled) != before + len(events):
            raise InvariantBroken(f"an event between {events[0]!r} and {events[-1]!r} was admitted twice")
        first = 0 if not self._marks else max(0, self._marks[-1][1] + MARK_EVENTS - self._admitted)
        for number in range(first, len(events), MARK_EVENTS):
            self._marks.append((events[number].id, self._admitted + number))
        self._admitted += len(events)
        last = events[-1]
        self._received = last.position
        self._received_id = last.id

    def settle(self, events: Iterable[Event]) -> None:
        """
        Mark admitted events as finished, in any order.

        Raises:
            InvariantBroken: an event was not admitted, or settled before (promise 1).
        """
        unsettled = self._unsettled
        try:
            for event_id in map(_id, events):
                del unsettled[event_id]
        except KeyError:
            raise InvariantBroken(f"event {event_id.decode()} was settled without being open") from None
