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

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.batching.batch import Batch
from bridge.change import Event

REMEDY: Final = "keep its own writes from triggering it (docs/delivery.md, Loops), or set loop_guard; then resume it"
_A_MOMENT_SECONDS: Final = 0.01
_SILENT_PERIODS: Final = 5
_SHORTEST_SILENCE_SECONDS: Final = 0.2
_LONGEST_SILENCE_SECONDS: Final = 30.0
_TESTS: Final = 3
_MOST_KEYS: Final = 10_000
_KEYS_OF_A_CALL: Final = 100
"""In larger batches the first are looked at; a loop shows in them as well, for its changes keep their order."""


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
        # By key, the last call that carried one change of it; the oldest first.
        self._calls: dict[bytes, _Call] = {}

    def reset(self) -> None:
        """Begin to count anew."""
        self._calls.clear()

    def sending(self, batch: Batch, now: float, waits: Callable[[bytes], bool]) -> Hold | Alarm | None:
        """
        Take notice of a batch that is about to be sent for the first time, or again after a `Hold`.

        Args:
            batch: what is to be sent.
            now: monotonic seconds.
            waits: whether a change of a key waits besides those of the batch.
        """
        if not self._calls:
            return None
        counts = _counts(batch)
        for event in batch.events[:_KEYS_OF_A_CALL]:
            for key in (event.key, event.old_key):
                call = None if key is None else self._calls.get(key)
                if key is None or call is None:
                    continue
                if counts[key] > 1 or event.id <= call.received_before:
                    del self._calls[key]
                elif event.id <= call.received_at_end:
                    found = self._suspect(key, call, event, now, waits)
                    if found is not None:
                        return found
                elif now - call.ended > _A_MOMENT_SECONDS and call.held_for != event.id:
                    del self._calls[key]
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
        if self._repeats is None or (received == received_before and not self._calls):
            return
        for key, count in _counts(batch).items():
            call = self._calls.pop(key, None)
            if count == 1 and (call is not None or received != received_before):
                call = call or _Call(now)
                call.received_before, call.received_at_end, call.ended = received_before, received, now
                self._calls[key] = call
        while len(self._calls) > _MOST_KEYS:
            del self._calls[next(iter(self._calls))]

    def _suspect(
        self, key: bytes, call: _Call, event: Event, now: float, waits: Callable[[bytes], bool]
    ) -> Hold | Alarm | None:
        """One more change of a key that came during the call before."""
        if call.held_for == event.id:
            if waits(key):
                del self._calls[key]
                return None
            call.tests += 1
            if call.tests >= _TESTS:
                return Alarm(
                    event,
                    f"{call.repeats} calls in a row were each answered by a change of the same row of {event.table}, "
                    "and without a call there was none: the target seems to write to what triggers it",
                )
            return None
        call.repeats += 1
        if self._repeats is None or call.repeats < self._repeats:
            return None
        call.held_for = event.id
        periods = _SILENT_PERIODS * (now - call.began - call.silent) / call.repeats
        seconds = min(max(periods, _SHORTEST_SILENCE_SECONDS), _LONGEST_SILENCE_SECONDS)
        call.silent += seconds
        return Hold(event, seconds)


class _Call:
    __slots__ = ("began", "ended", "held_for", "received_at_end", "received_before", "repeats", "silent", "tests")

    def __init__(self, now: float) -> None:
        self.began = now
        self.ended = now
        self.received_before = self.received_at_end = b""
        self.repeats = 0
        self.held_for = b""
        """The change that was held back last."""
        self.silent = 0.0
        """Seconds that changes were held back for, in all."""
        self.tests = 0
        """How often there was silence."""


def _counts(batch: Batch) -> Counter[bytes]:
    """How many changes of each key are in it."""
    events = batch.events[:_KEYS_OF_A_CALL]
    keys = [key for event in events for key in (event.key, event.old_key)]
    return Counter(key for key in keys if key is not None)
