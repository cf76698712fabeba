"""
The circuit breaker of one trigger: is it the record that is bad, or is the target down for everyone? Pure.

    closed ──too many calls failed, of more than one record──▶ open ──a call succeeded──▶ closed

*Open* means that the target is down: one event at a time probes it, any of those that may be sent, after pauses that
grow, and no record is charged. Failures since the target's last success are then no record's fault, so their charges
are taken back as well.

A trigger that has spent a record's attempts can't know yet whether the circuit is about to open. So the record is not
given up at once but *doubted*: it makes room for others, unsettled, until one of these comes first:

- a call succeeds that began after the record's first failure: the target works, so the record is bad, and given up;
- the circuit opens: the record goes back to its place and is sent again;
- nothing else is left to try: it is given up, as configured.

While records are doubted, as many failures in a row as are needed for a verdict open the circuit as well, however long
they took: the successes of a busy trigger's last minute would otherwise outweigh them for another minute, and a quiet
trigger never makes that many calls within the window. So of a target that is down for a day, a trigger with an event an
hour makes dead letters of no more records than it takes to make up the minimum of calls.

Some failures say nothing about the target, because a record explains them:

- those that all had one record in common, however many calls its isolation took;
- those of a record that had failed before others succeeded, and was charged for it; where the circuit opened meanwhile
  and took the charge back, of one that has failed alone before, between and after `_TELLING_SUCCESSES` of others;
- those of batches that fail for the first time, once a probe has succeeded as one event, until a batch of several has:
  so many bad records stand side by side, perhaps, that each batch holds one, and dividing them has to come first;
- refusals (another 4xx), if the target has accepted anything within the window before, or was first called in it, and
  has not refused `_MOST_REFUSALS` times as many events one after the other as make up the minimum of calls: bad rows
  side by side are dead letters at once, and only a target that goes on refusing everything counts as down.

A call that never reached the target is explained by no record.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from bridge.change import Event
from bridge.delivery.decide import Charge, Condition, GivenUp
from bridge.delivery.outcome import Accepted, Delivered, Failed, Outcome, Partial, Rejected
from bridge.delivery.retry import clamp_retry_after

FIRST_PROBE_SECONDS: Final = 1.0
LONGEST_PROBE_SECONDS: Final = 60.0
_TELLING_SUCCESSES: Final = 2
_MOST_REFUSALS: Final = 10
_MOST_LONERS: Final = 10_000
"""Events whose failures are remembered, so that memory is bounded."""
_SLICES: Final = 60
"""Calls are counted in this many slices of the window, not one by one: a fast trigger makes thousands a second."""

NOTHING_CHARGED: Final[Mapping[bytes, Charge]] = MappingProxyType({})

REMEDY: Final = "mend the target; it is probed with one event at a time, and no attempt is charged meanwhile"


@dataclass(frozen=True, slots=True)
class Limits:
    """`circuit_breaker` of a trigger's settings."""

    failure_rate: float = 0.9
    minimum_invocations: int = 20
    window_seconds: float = 60.0


class Sign(Enum):
    """What an outcome says about the target."""

    WORKS = "works"
    FAILS = "fails"
    NOTHING = "nothing"
    """Busy, misconfigured, too large, or a refusal that the receiver says is meant for this message."""


class Turn(Enum):
    """What a call did to the circuit."""

    NONE = "none"
    OPENED = "opened"
    CLOSED = "closed"


def sign_of(outcome: Outcome, events: int) -> Sign:
    """What the outcome of a call with so many events says about its target."""
    match outcome:
        case Delivered() | Accepted():
            return Sign.WORKS
        case Partial(failed_ids, _):
            return Sign.FAILS if len(failed_ids) >= events else Sign.WORKS
        case Failed():
            return Sign.FAILS
        case Rejected(_, final):
            return Sign.NOTHING if final else Sign.FAILS
        case _:
            return Sign.NOTHING


class Circuit:
    """One trigger's. Monotonic times are called `now`; wall times, which charges carry, `at`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._slice_seconds = self._limits.window_seconds / _SLICES
        self._slices: deque[list[int]] = deque()  # [number of the slice, calls, failed ones]
        self._calls = 0
        self._failures = 0
        self._run = 0  # failed calls since the last that succeeded
        self._suspects: frozenset[bytes] | None = None  # the events that all of them had in common
        self._alive_at = -math.inf
        self._first_at: float | None = None  # when the first call began
        self._refusals = 0  # of single events, since the last success
        self._armed = True
        self._crowded = False  # a probe has succeeded, and no batch of several events yet
        self._reason: str | None = None
        self._opened_now = 0.0
        self._probes = 0
        self._probe_now = 0.0
        self._doubted: dict[bytes, GivenUp] = {}
        self._success = 0  # number of the target's last
        # Events that failed alone: (number of the success before the last time, successes between all the times).
        self._loners: dict[bytes, tuple[int, int]] = {}

    # -- what a caller may see ----------------------------------------------------------------------------------------

    @property
    def reason(self) -> str | None:
        """Why the circuit is open; None while it is closed. The same from opening to closing."""
        return self._reason

    @property
    def is_open(self) -> bool:
        return self._reason is not None

    @property
    def alive_at(self) -> float:
        """When the last call began that succeeded, in seconds since 1970; minus infinity where none has."""
        return self._alive_at

    @property
    def doubted(self) -> int:
        """Records that are neither settled nor to be sent."""
        return len(self._doubted)

    def doubted_events(self) -> list[Event]:
        """Those records."""
        return [record.event for record in self._doubted.values()]

    def probe_pause(self, now: float) -> float:
        """Seconds until the next probe of an open circuit."""
        return max(0.0, self._probe_now - now)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def observe(
        self,
        outcome: Outcome,
        events: Sequence[Event],
        *,
        began_at: float,
        began: float,
        now: float,
        charges: Mapping[bytes, Charge] = NOTHING_CHARGED,
    ) -> Turn:
        """
        Take notice of a call that ended.

        Args:
            outcome: what came of it.
            events: what it carried.
            charges: what records had against them before it, by event id.
            began_at: when it began, in seconds since 1970.
            began: the same on the monotonic clock.
            now: the monotonic time.
        """
        if self._first_at is None:
            self._first_at = began_at
        sign = sign_of(outcome, len(events))
        if sign is Sign.WORKS:
            self._alive_at = max(self._alive_at, began_at)
            self._success += 1
            self._refusals = 0
            if self._loners:
                self._forget(events)
            self._end_run()
            self._armed = True
            if self.is_open:
                self._close()
                self._crowded = len(events) == 1
                return Turn.CLOSED
            self._crowded = self._crowded and len(events) == 1
            self._count(now, failed=False)
            return Turn.NONE
        if len(events) == 1 and sign is Sign.FAILS and not getattr(outcome, "unsent", False):
            self._note_loner(events[0].id)
            self._refusals += isinstance(outcome, Rejected)
        if self.is_open:
            # What was in flight when it opened was no probe, and says nothing new.
            if began >= self._opened_now:
                self._probes += 1
                self._next_probe(outcome, now)
            return Turn.NONE
        unsent = isinstance(outcome, Failed) and outcome.unsent
        if sign is Sign.NOTHING or (isinstance(outcome, Rejected) and self._accepts(began_at)):
            return Turn.NONE
        if not unsent and self._explains(events, charges):
            return Turn.NONE
        self._count(now, failed=True)
        self._run += 1
        ids = frozenset([] if unsent else [event.id for event in events])
        self._suspects = ids if self._suspects is None else self._suspects & ids
        return self._judge(outcome, now)

    def reconsider(self, now: float) -> Turn:
        """After records were doubted: whether the failures in a row are enough for a verdict."""
        return Turn.NONE if self.is_open else self._judge(None, now)

    def reset(self) -> None:
        """
        Close by hand. Somebody says that the target works: until it has proved so, the circuit does not open again, and
        records whose attempts are spent are given up as configured.
        """
        self._close()
        self._armed = False

    # -- records whose attempts are spent ------------------------------------------------------------------------------

    def examine(self, records: Iterable[GivenUp]) -> list[GivenUp]:
        """Those of the records that are to be given up now; the others are doubted from here on."""
        proved: list[GivenUp] = []
        for record in records:
            if self._is_proved(record):
                proved.append(record)
            else:
                self._doubted[record.event.id] = record
        self._forget(record.event for record in proved)
        return proved

    def settle_doubts(self, *, idle: bool) -> list[GivenUp]:
        """The doubted records that are to be given up now; `idle` says that nothing else is left to try."""
        if self.is_open:
            return []
        over = [record for record in self._doubted.values() if idle or self._is_proved(record)]
        for record in over:
            del self._doubted[record.event.id]
        self._forget(record.event for record in over)
        return over

    def take_back(self) -> list[GivenUp]:
        """With the circuit open: all doubted records, which are to be sent again."""
        if not self.is_open:
            return []
        records = list(self._doubted.values())
        self._doubted.clear()
        return records

    # -- inside --------------------------------------------------------------------------------------------------------

    def _explains(self, events: Sequence[Event], charges: Mapping[bytes, Charge]) -> bool:
        """Whether a record may well be why this call failed: one that failed before the target's last success did."""
        known = [charges[event.id] for event in events if event.id in charges] if charges else ()
        if self._crowded and len(events) > 1 and not known:
            return True
        if any(self._is_telling(event.id) for event in events):
            return True
        return any(self._alive_at > charge.first_failed_at for charge in known)

    def _accepts(self, at: float) -> bool:
        """Whether a refusal at that time is the record's fault."""
        first_at = math.inf if self._first_at is None else self._first_at
        lately = at - max(self._alive_at, first_at) <= self._limits.window_seconds
        return lately and self._refusals <= _MOST_REFUSALS * self._limits.minimum_invocations

    def _is_proved(self, record: GivenUp) -> bool:
        failed_at = record.charge.first_failed_at
        refused = record.condition is Condition.RECORD_REJECTED
        return (
            record.certain
            or not self._armed
            or self._alive_at > failed_at
            or (refused and self._accepts(failed_at))
            or self._is_telling(record.event.id)
        )

    def _note_loner(self, event_id: bytes) -> None:
        success, between = self._loners.get(event_id, (self._success, 0))
        if event_id in self._loners or len(self._loners) < _MOST_LONERS:
            self._loners[event_id] = (self._success, between + (self._success > success))

    def _is_telling(self, event_id: bytes) -> bool:
        return event_id in self._loners and self._loners[event_id][1] >= _TELLING_SUCCESSES

    def _forget(self, events: Iterable[Event]) -> None:
        for event in events:
            self._loners.pop(event.id, None)

    def _judge(self, outcome: Outcome | None, now: float) -> Turn:
        limits = self._limits
        if not self._armed or self._suspects or self._suspects is None:
            return Turn.NONE
        if self._calls >= limits.minimum_invocations and self._failures >= limits.failure_rate * self._calls:
            what = f"{self._failures} of {self._calls} invocations failed within {limits.window_seconds:g} s"
        elif self._doubted and self._run >= limits.minimum_invocations:
            what = f"the last {self._run} invocations failed"
        else:
            return Turn.NONE
        self._reason = f"the circuit is open: {what}"
        self._opened_now = now
        self._probes = 0
        self._next_probe(outcome, now)
        return Turn.OPENED

    def _end_run(self) -> None:
        self._run = 0
        self._suspects = None

    def _count(self, now: float, *, failed: bool) -> None:
        number = int(now / self._slice_seconds)
        slices = self._slices
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
            while slices[0][0] <= number - _SLICES:
                _, calls, failures = slices.popleft()
                self._calls -= calls
                self._failures -= failures
        slices[-1][1] += 1
        self._calls += 1
        if failed:
            slices[-1][2] += 1
            self._failures += 1

    def _next_probe(self, outcome: Outcome | None, now: float) -> None:
        pause = min(LONGEST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(self._probes, 16))
        asked = getattr(outcome, "retry_after_seconds", None)
        self._probe_now = now + (pause if asked is None else max(pause, clamp_retry_after(asked)))

    def _close(self) -> None:
        self._reason = None
        self._slices.clear()
        self._calls = self._failures = 0
        self._end_run()
