"""One batch, and how it is divided when a call has to be made smaller. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence

from bridge.change import Event

# An event is a tuple: its members without a step of Python's for each.
_key = operator.itemgetter(3)
_old_key = operator.itemgetter(4)


class Batch:
    """
    Events that travel in one call, in commit order, with the keys that they hold.

    `then` is a batch of the same keys that may only follow once this one is finished with: what a division by position
    leaves. The keys of the whole chain stay held until its last batch is done.
    """

    __slots__ = ("attempt", "events", "group", "not_before", "size", "then")

    def __init__(
        self,
        events: Sequence[Event],
        size: int,
        *,
        attempt: int = 1,
        then: Batch | None = None,
        not_before: float = 0.0,
        group: tuple[str | None] | None = None,
    ) -> None:
        self.events = events
        self.size = size
        """Bytes of all events as they count toward the limits."""
        self.attempt = attempt
        """Which call with these events this is, from 1."""
        self.then = then
        self.not_before = not_before
        """Monotonic time before which it may not be sent (again)."""
        self.group = group
        """What all of its events have in common (`groups.py`); None where nothing was divided by."""

    def __repr__(self) -> str:
        return f"Batch({len(self.events)} events from {self.events[0].id.decode()}, attempt {self.attempt})"

    def chain(self) -> Iterable[Event]:
        """The events of this batch and of all that have to follow it."""
        batch: Batch | None = self
        while batch is not None:
            yield from batch.events
            batch = batch.then

    def own_keys(self) -> list[bytes]:
        """The ordering keys of its own events, as often as they occur."""
        keys = [key for key in map(_key, self.events) if key is not None]
        keys += [key for key in map(_old_key, self.events) if key is not None]
        return keys

    def keys(self) -> set[bytes]:
        """The ordering keys that this batch and its followers hold."""
        keys = set(self.own_keys())
        return keys if self.then is None else keys | self.then.keys()


def bisect(batch: Batch) -> list[Batch]:
    """
    Divide a batch of two events or more into two.

    Keys are kept whole where that is possible, and then both halves may be in flight together. A batch whose events all
    hang together by their keys, or that has followers already, is cut by position, the second half to follow the first.
    """
    groups = events_by_key(batch.events) if batch.then is None else []
    if len(groups) < 2:
        middle = len(batch.events) // 2
        second = part_of(batch, batch.events[middle:], then=batch.then)
        return [part_of(batch, batch.events[:middle], then=second)]
    left: list[Event] = []
    right: list[Event] = []
    for group in groups:
        half = left if len(left) < len(batch.events) / 2 and group is not groups[-1] else right
        half.extend(group)
    return [part_of(batch, sorted(half, key=_id)) for half in (left, right)]


def single_out(batch: Batch, random: Callable[[], float]) -> list[Batch]:
    """
    Divide a batch into one event, first in the list, and what is left, if anything is.

    It is the first event of one of its keys, any of them. Later events of that key are to follow it.
    """
    if len(batch.events) == 1:
        return [batch]
    # What follows a batch may share keys with all of it: only its first event is sure to be first.
    groups = events_by_key(batch.events) if batch.then is None else [batch.events]
    # A change of key ties what came before under either key, one behind the other.
    first, *later = sorted(groups.pop(int(random() * len(groups))), key=_id)
    then = part_of(batch, later, then=batch.then) if later else batch.then
    rest = sorted((event for group in groups for event in group), key=_id)
    return [part_of(batch, [first], then=then), *([part_of(batch, rest)] if rest else [])]


def part_of(batch: Batch, events: Sequence[Event], *, then: Batch | None = None) -> Batch:
    """Some of a batch's events as a batch; sizes are shared out by the events' own bytes."""
    overhead = (batch.size - sum(len(event.body) for event in batch.events)) // max(len(batch.events), 1)
    size = sum(len(event.body) + overhead for event in events)
    return Batch(events, size, attempt=batch.attempt, then=then, group=batch.group)


def _id(event: Event) -> bytes:
    return event.id


def events_by_key(events: Sequence[Event]) -> list[list[Event]]:
    """Events grouped such that no key stands in two groups, in order of first appearance."""
    groups: dict[int, list[Event]] = {}
    group_of: dict[bytes, int] = {}
    for number, event in enumerate(events):
        keys = event.keys
        joined = sorted({group_of[key] for key in keys if key in group_of})
        home = joined[0] if joined else number
        members = groups.setdefault(home, [])
        for other in joined[1:]:
            # A change of key ties two groups together.
            members.extend(groups.pop(other))
            group_of.update((key, home) for key, group in list(group_of.items()) if group == other)
        members.append(event)
        group_of.update((key, home) for key in keys)
    return list(groups.values())
