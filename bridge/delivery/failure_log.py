"""
Which failed calls of a trigger get a line in the log. Pure: the time comes in.

A target that is down fails thousands of calls a minute, and they all say the same. The first failure of a kind since
the last success is told at once, then how many there have been, every ten seconds at most; and the success that ends
it. Where failures and successes take turns, as with bad records among good ones, all of this would be a line for each
call, so the lines of a trigger have a limit of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SUMMARY_SECONDS: Final = 10.0
MOST_AT_ONCE: Final = 20
"""First failures that are told at once; another for each ten seconds that pass."""
MOST_KINDS: Final = 50
"""Kept apart; a handler names its own errors, and may name them all differently."""

OTHERS: Final = "others"


@dataclass(slots=True)
class _Kind:
    told_at: float
    untold: int = 0


class FailureLog:
    """What was told of one trigger's failures. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.failures = 0
        """Since the last success."""
        self._since = 0.0
        self._kinds: dict[str, _Kind] = {}
        self._told = False
        self._allowance = float(MOST_AT_ONCE)
        self._allowed_at = 0.0

    def failed(self, kind: str, now: float) -> int:
        """
        A call failed.

        Returns:
            Of how many failures of this kind a line is to tell, this one included; 0: no line.
        """
        if not self.failures:
            self._since = now
        self.failures += 1
        known = self._kinds.get(kind)
        if known is None and len(self._kinds) >= MOST_KINDS:
            kind = OTHERS
            known = self._kinds.get(kind)
        if known is None:
            if not self._may_tell(now):
                self._kinds[kind] = _Kind(now, untold=1)
                return 0
            self._kinds[kind] = _Kind(now)
            self._told = True
            return 1
        known.untold += 1
        if now - known.told_at < SUMMARY_SECONDS:
            return 0
        times, known.untold, known.told_at = known.untold, 0, now
        self._told = True
        return times

    def worked(self, now: float) -> tuple[int, float] | None:
        """
        A call succeeded.

        Returns:
            How many had failed since the last one that did, and for how many seconds, if a line is to tell of it.
        """
        if not self.failures:
            return None
        ended = (self.failures, now - self._since) if self._told else None
        self.failures = 0
        self._told = False
        self._kinds.clear()
        return ended

    def _may_tell(self, now: float) -> bool:
        self._allowance = min(MOST_AT_ONCE, self._allowance + (now - self._allowed_at) / SUMMARY_SECONDS)
        self._allowed_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True
