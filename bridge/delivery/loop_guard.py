"""
An alarm for a function that writes to what triggers it. Pure.

What a loop looks like: a change of some key is delivered, and while the call is under way exactly one new change of the
same key arrives; that one is delivered, and again one arrives; and so on without end. So for each key those calls in a
row are counted that carried one change of it, arrived during the call before. A change that arrives a moment after the
call's end may still be the call's own, and counts neither for nor against.

A row that is merely busy can look like that for a while, if its writer happens to keep step with the calls. So the
guard then makes sure: it holds the next change back for some periods. A busy row goes on changing meanwhile, and is
cleared. In a loop nobody writes who is not called: silence, then a call, and a new change during it. Three times that,
and the alarm is raised.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from bridge.batching.batch import Batch
from bridge.change import Event

REMEDY: Final = "keep its own writes from triggering it (docs/delivery.md, Loops), or set loop_guard; then resume it"
_A_MOMENT_SECONDS: Final = 0.01
_SILENT_PERIODS: Final = 5
_SHORTEST_SILENCE_SECONDS: Final = 0.2
_LONGEST_SILENCE_SECONDS: Final = 30.0
_TESTS: Final = 3
_MOST_KEYS: Final = 5_000
"""That are remembered before the oldest are forgotten; twice as many may be."""
_KEYS_OF_A_CALL: Final = 100
"""In larger batches the first are looked at; a loop shows in them as well, for its changes keep their order."""

# An event is a tuple: its keys without a step of Python's for each.
_key = operator.itemgetter(Event._fields.index("key"))
_old_key = operator.itemgetter(Event._fields.index("old_key"))


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold a change back for some seconds, to see whether others of its key come without a call."""

    event: Event
    seconds: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """It is a loop."""

    event: Event
    reason: str


class LoopGuard:
    """
    One trigger's alarm.

    Args:
        repeats: calls in a row that raise it; None for never.
    """

    def __init__(self, repeats: int | None) -> None:
        self._repeats = repeats
        # By key, the last call that carried one change of it, or what is known of a row of such calls; what is in
        # `_older` was put in first. Nearly all keys are never met again: they are put in, and forgotten, in bulk.
        self._calls: dict[bytes, _Call | _Row] = {}
        self._older: dict[bytes, _Call | _Row] = {}

    def reset(self) -> None:
        """Begin to count anew."""
        self._calls, self._older = {}, {}

    def sending(self, batch: Batch, now: float, waits: Callable[[bytes], bool]) -> Hold | Alarm | None:
        """
        Take notice of a batch that is about to be sent for the first time, or again after a `Hold`.

        Args:
            batch: what is to be sent.
            now: monotonic seconds.
            waits: whether a change of a key waits besides those of the batch.
        """
        if not self._calls and not self._older:
            return None
        keys = _keys(batch)
        if not self._knows_any(keys):
            return None
        counts = Counter(keys)
        for event in batch.events[:_KEYS_OF_A_CALL]:
            for key in (event.key, event.old_key):
                known = None if key is None else self._calls.get(key) or self._older.get(key)
                if key is None or known is None:
                    continue
                call = known if isinstance(known, _Call) else known.last
                if counts[key] > 1 or event.id <= call.received_before:
                    self._forget(key)
                elif event.id <= call.received_at_end:
                    found = self._suspect(key, self._row(key, known), event, now, waits)
                    if found is not None:
                        return found
                elif now - call.ended > _A_MOMENT_SECONDS and not (
                    isinstance(known, _Row) and known.held_for == event.id
                ):
                    self._forget(key)
        return None

    def ended(self, batch: Batch, *, received_before: bytes, received: bytes, now: float) -> None:
        """
        Take notice of the end of a call.

        Args:
            batch: what it carried.
            received_before: id of the newest event that had arrived when it began.
            received: the same for now.
            now: monotonic seconds.
        """
        if self._repeats is None or (received == received_before and not self._calls and not self._older):
            return
        keys = _keys(batch)
        call = _Call(received_before, received, now)
        once = dict.fromkeys(keys, call)
        known = self._known(once) if self._knows_any(keys) else ()
        if known or len(once) < len(keys):
            counts = Counter(keys)
            once = {key: call for key in once if counts[key] == 1}
            for key in known:
                before = self._forget(key)
                if once.pop(key, None) is not None:
                    row = before if isinstance(before, _Row) else _Row(before)
                    row.last = call
                    self._calls[key] = row
        if received != received_before:
            self._calls.update(once)
            if len(self._calls) > _MOST_KEYS:
                self._calls, self._older = {}, self._calls

    def _knows_any(self, keys: list[bytes]) -> bool:
        """Without making anything of the keys: for nearly all calls the answer is no."""
        return not (self._calls.keys().isdisjoint(keys) and self._older.keys().isdisjoint(keys))

    def _known(self, keys: Iterable[bytes]) -> list[bytes]:
        return [key for key in keys if key in self._calls or key in self._older]

    def _forget(self, key: bytes) -> _Call | _Row:
        older = self._older.pop(key, None)
        known = self._calls.pop(key, older)
        assert known is not None  # noqa: S101 - nobody forgets what is not known
        return known

    def _row(self, key: bytes, known: _Call | _Row) -> _Row:
        if isinstance(known, _Row):
            return known
        row = self._calls[key] = _Row(known)
        self._older.pop(key, None)
        return row

    def _suspect(
        self, key: bytes, row: _Row, event: Event, now: float, waits: Callable[[bytes], bool]
    ) -> Hold | Alarm | None:
        """One more change of a key that came during the call before."""
        if row.held_for == event.id:
            if waits(key):
                self._forget(key)
                return None
            row.tests += 1
            if row.tests >= _TESTS:
                return Alarm(
                    event,
                    f"{row.repeats} calls in a row were each answered by a change of the same row of {event.table}, "
                    "and without a call there was none: the target seems to write to what triggers it",
                )
            return None
        row.repeats += 1
        if self._repeats is None or row.repeats < self._repeats:
            return None
        row.held_for = event.id
        periods = _SILENT_PERIODS * (now - row.began - row.silent) / row.repeats
        seconds = min(max(periods, _SHORTEST_SILENCE_SECONDS), _LONGEST_SILENCE_SECONDS)
        row.silent += seconds
        return Hold(event, seconds)


class _Call(NamedTuple):
    """The same for all keys of the call."""

    received_before: bytes
    received_at_end: bytes
    ended: float


class _Row:
    """Calls in a row for one key."""

    __slots__ = ("began", "held_for", "last", "repeats", "silent", "tests")

    def __init__(self, first: _Call) -> None:
        self.began = first.ended
        self.last = first
        self.repeats = 0
        self.held_for = b""
        """The change that was held back last."""
        self.silent = 0.0
        """Seconds that changes were held back for, in all."""
        self.tests = 0
        """How often there was silence."""


def _keys(batch: Batch) -> list[bytes]:
    """Of its events, as often as they occur."""
    events = batch.events[:_KEYS_OF_A_CALL]
    keys = list(map(_key, events))
    if any(map(_old_key, events)):
        keys += map(_old_key, events)
    return cast("list[bytes]", keys if all(keys) else [key for key in keys if key is not None])
