"""
The segments of the backlog as far as their writer has to know them: which to read, to write, to delete from. Pure.

Rows are written in event order, but for a few that are parked late: what was in flight when its trigger's changes
moved, and what a stop leaves behind. So the ranges of two segments may overlap, and a page may have to be merged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""Of bodies. Small enough that the space comes back soon, large enough that a table is not made every second."""
SEGMENT_SHARE: Final = 16
"""A long backlog has larger segments: of this many together a new one is as large as one. So there are never many."""

BEHIND_ALL: Final = "~"
"""Above every event id: those are of digits, A to F and a hyphen."""


@dataclass(slots=True)
class _Segment:
    number: int
    trigger: str
    first: str
    """Ids of all the events that ever stood in it; empty where there were none."""
    last: str
    written_bytes: int


class Segments:
    """
    Args:
        rows: (number, trigger, first event id, last event id, bytes ever written) of each, by number.
    """

    def __init__(self, rows: Iterable[tuple[int, str, str | None, str | None, int]] = ()) -> None:
        self._by_trigger: dict[str, list[_Segment]] = {}
        for number, trigger, first, last, written_bytes in rows:
            segment = _Segment(
                int(str(number)), str(trigger), str(first or ""), str(last or ""), int(str(written_bytes))
            )
            self._by_trigger.setdefault(segment.trigger, []).append(segment)

    @property
    def any(self) -> bool:
        """Whether there is a segment at all."""
        return any(self._by_trigger.values())

    def writable(self, trigger: str) -> int | None:
        """The segment that takes the trigger's next rows; None where a new one is due."""
        segments = self._by_trigger.get(trigger)
        if not segments:
            return None
        total = sum(segment.written_bytes for segment in segments)
        last = segments[-1]
        return last.number if last.written_bytes < max(SEGMENT_BYTES, total // SEGMENT_SHARE) else None

    def written(self, number: int, trigger: str, first: str, last: str, body_bytes: int) -> None:
        """Rows from `first` to `last` now stand in a segment, a new one perhaps."""
        segments = self._by_trigger.setdefault(trigger, [])
        for segment in segments:
            if segment.number == number:
                segment.first = min(segment.first or first, first)
                segment.last = max(segment.last, last)
                segment.written_bytes += body_bytes
                return
        segments.append(_Segment(number, trigger, first, last, body_bytes))

    def places(self, trigger: str, ids: Iterable[str]) -> list[tuple[int, list[str]]]:
        """By segment, which of the events may stand in it, in order."""
        ordered = sorted(set(ids))
        found = []
        for segment in self._by_trigger.get(trigger, ()):
            if segment.first:
                some = ordered[bisect_left(ordered, segment.first) : bisect_right(ordered, segment.last)]
                if some:
                    found.append((segment.number, some))
        return found

    def ranges(self, trigger: str, after: str) -> Iterator[tuple[str, str, list[int]]]:
        """
        Where to look for the events behind an id, nearest first.

        Each range lies between two ids, both exclusive but for what no event is called, and names all the segments that
        may have events in it.
        """
        segments = [one for one in self._by_trigger.get(trigger, ()) if one.first and one.last > after]
        # A range ends where another segment begins: from there on that one has to be read too.
        bounds = sorted({one.first for one in segments if one.first > after})
        start = after
        for until in [*bounds, BEHIND_ALL]:
            numbers = [one.number for one in segments if one.first < until and one.last > start]
            if numbers:
                yield start, until, numbers
            # The next range begins with the event of that very id: just below it, there is none.
            start = until[:-1] if until != BEHIND_ALL else until
