"""A clock that only moves when told to."""

from __future__ import annotations


class ManualClock:
    """Both readings stand still until `advance`."""

    def __init__(self, monotonic: float = 1000.0, now: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._now = now

    def monotonic(self) -> float:
        return self._monotonic

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass; it never goes back."""
        if seconds < 0:
            raise ValueError(f"time does not go back by {-seconds} s")
        self._monotonic += seconds
        self._now += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; the monotonic one does not notice."""
        self._now += seconds
