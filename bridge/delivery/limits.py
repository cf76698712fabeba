"""How many calls may be made at once, and in a second. Pure: times are monotonic seconds, given by the caller."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping


class Gate:
    """
    The limits of one target, for all that call it: the stream, the backlog, a replay by hand.

    Args:
        at_once: most calls under way; None for no limit of its own.
        per_second: most calls begun within any second, for a whole number; on average for a fraction. None: no limit.
    """

    def __init__(self, at_once: int | None = None, per_second: float | None = None) -> None:
        self._at_once = math.inf if at_once is None else at_once
        self._under_way = 0
        self._begun: deque[float] | None = None
        self._period = 1.0
        if per_second is not None:
            calls = math.ceil(per_second)
            self._begun = deque(maxlen=calls)
            self._period = calls / per_second
        self._waiting: list[Callable[[], None]] = []

    def ready_at(self, now: float) -> float | None:
        """When the next call may begin: now or later; None where one that is under way has to end first."""
        if self._under_way >= self._at_once:
            return None
        begun = self._begun
        if begun is None or len(begun) < (begun.maxlen or 0):
            return now
        return max(now, begun[0] + self._period)

    def may_begin(self, now: float) -> bool:
        """Whether a call may begin now."""
        return self.ready_at(now) == now

    def begin(self, now: float) -> None:
        """A call begins."""
        self._under_way += 1
        if self._begun is not None:
            self._begun.append(now)

    def end(self) -> None:
        """A call has ended; whoever waited for that is told."""
        self._under_way -= 1
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def when_one_ends(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, as soon as a call has ended."""
        if wake not in self._waiting:
            self._waiting.append(wake)


def fair_shares(wanted: Mapping[str, int], total: int) -> dict[str, int]:
    """
    Connections for each trigger, where there are not enough for all that is wanted.

    Who wants less than an equal part gets all it wants, and what it leaves is shared out among the others. The shares
    are fixed: what a slow trigger holds is never another's. Everybody gets one, were it above the total.
    """
    shares: dict[str, int] = {}
    left = total
    for place, name in enumerate(sorted(wanted, key=lambda name: wanted[name])):
        shares[name] = max(1, min(wanted[name], left // (len(wanted) - place)))
        left -= shares[name]
    return shares
