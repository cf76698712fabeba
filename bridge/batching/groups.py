"""Dividing a batch into batches of one group each, where a call can only carry one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from bridge.batching.batch import Batch, events_by_key, part_of
from bridge.batching.lanes import Window
from bridge.change import Event
from bridge.errors import InvariantBroken

_WIDER = 10
_WIDEST = 10_000

GroupOf = Callable[[Event], str | None]


@dataclass(frozen=True, slots=True)
class Grouping:
    """What batches are divided by, and the limits of what comes out."""

    group_of: GroupOf
    batch_size: int
    max_bytes: int
    event_overhead_bytes: int

    def lower_max_bytes(self, max_bytes: int) -> Grouping:
        """The same for a target that has shown that it takes no more than this."""
        return replace(self, max_bytes=min(self.max_bytes, max_bytes))

    def divide(self, batch: Batch) -> list[Batch]:
        """
        The events of a fresh batch as batches that hold one group each, within the limits.

        Changes of one key stay together. Where they belong to several groups, as when a row changes hands, or are above
        the limits, they become a chain, in which each batch waits for the one before it. A batch of one event keeps
        what follows it.

        Raises:
            InvariantBroken: something follows a batch of several events: nobody knows which of them.
        """
        if len(batch.events) == 1:
            return [_part(batch, batch.events, self.group_of(batch.events[0]), then=batch.then)]
        if batch.then is not None:
            raise InvariantBroken(f"{batch!r} was to be divided by groups with a batch behind it")
        groups = {event.id: self.group_of(event) for event in batch.events}
        pieces: dict[str | None, list[_Piece]] = {}
        parts: list[Batch] = []
        for tied in events_by_key(batch.events):
            # A change of key ties what came before under either key, one behind the other.
            events = sorted(tied, key=_id)
            runs = [(group, list(run)) for group, run in groupby(events, lambda event: groups[event.id])]
            size = sum(map(self._cost, events))
            if len(runs) > 1 or len(events) > self.batch_size or size > self.max_bytes:
                parts.append(self._chain(batch, runs))
                continue
            group = runs[0][0]
            same = pieces.setdefault(group, [])
            last = same[-1] if same else None
            if last is None or len(last.events) + len(events) > self.batch_size or last.size + size > self.max_bytes:
                last = _Piece()
                same.append(last)
            last.events += events
            last.size += size
        for group, same in pieces.items():
            parts += [_part(batch, sorted(piece.events, key=_id), group) for piece in same]
        return parts

    def _chain(self, batch: Batch, runs: Sequence[tuple[str | None, list[Event]]]) -> Batch:
        chain = [(group, piece) for group, run in runs for piece in self._cut(run)]
        part: Batch | None = None
        for group, piece in reversed(chain):
            part = _part(batch, piece, group, then=part)
        assert part is not None  # noqa: S101 - there is a run, and no run is empty
        return part

    def _cut(self, events: Sequence[Event]) -> list[list[Event]]:
        """Consecutive pieces within the limits; an event that is above them alone stands alone."""
        pieces: list[list[Event]] = []
        size = 0
        for event in events:
            cost = self._cost(event)
            if not pieces or len(pieces[-1]) >= self.batch_size or size + cost > self.max_bytes:
                pieces.append([])
                size = 0
            pieces[-1].append(event)
            size += cost
        return pieces

    def _cost(self, event: Event) -> int:
        return len(event.body) + self.event_overhead_bytes


def by_group(group_of: GroupOf, window: Window) -> Grouping:
    """Divide within a window's limits."""
    return Grouping(group_of, window.batch_size, window.max_bytes, window.event_overhead_bytes)


def wider(window: Window) -> Window:
    """A window to take from before dividing: else, with many groups, each call would carry an event or two."""
    return replace(window, batch_size=min(_WIDEST, window.batch_size * _WIDER), max_bytes=window.max_bytes * _WIDER)


@dataclass(slots=True)
class _Piece:
    events: list[Event] = field(default_factory=list)
    size: int = 0


def _part(batch: Batch, events: Sequence[Event], group: str | None, *, then: Batch | None = None) -> Batch:
    part = part_of(batch, events, then=then)
    part.group = (group,)
    return part


def _id(event: Event) -> bytes:
    return event.id
