"""
How much of the stream a trigger holds at a time, and how long reading may wait for the only one there is.

What a trigger has not sent yet is as safe in the slot as in memory, so no more is read than keeps its lanes busy. Where
others share the process, reading goes on for them, and what one can't send grows until it moves to the backlog. A
trigger by itself makes nobody wait: the slot keeps its changes for as long as its target takes some, and the slot does
not come to retain more and more WAL for it.
"""

from __future__ import annotations

from typing import Final

READ_AHEAD_BYTES: Final = 16 << 20
"""Some 40,000 small events: a second's work, and a small part of the process's memory."""

STILL_SECONDS: Final = 5.0
"""A target that took nothing for so long counts as one that takes nothing, as far as the bound on WAL goes."""
GROWING_SECONDS: Final = 30.0
"""Retained WAL that has not fallen for so long is not being worked off. The slot is looked at every few seconds."""


class Patience:
    """
    Whether reading may go on waiting for a trigger; times are monotonic seconds, given by the caller.

    Args:
        most_wal_bytes: retained by the slot, up to which nothing needs to happen.
    """

    def __init__(self, most_wal_bytes: int) -> None:
        self._most_wal_bytes = most_wal_bytes
        self._settled_total = -1
        self._settled_at = 0.0
        self._least_bytes = 0
        self._least_at = 0.0

    def is_over(self, now: float, settled_total: int, retained_bytes: int) -> bool:
        """
        Called every second or so while reading waits.

        Args:
            now: the time.
            settled_total: how many of its events were ever settled.
            retained_bytes: of WAL, from its oldest change to where the server writes.
        """
        if settled_total != self._settled_total:
            self._settled_total, self._settled_at = settled_total, now
        if retained_bytes <= self._most_wal_bytes:
            self._least_bytes = 0
            return False
        if not self._least_bytes or retained_bytes < self._least_bytes:
            self._least_bytes, self._least_at = retained_bytes, now
        return now - self._settled_at >= STILL_SECONDS or now - self._least_at >= GROWING_SECONDS

    def forget(self) -> None:
        """Reading does not wait."""
        self._settled_total = -1
        self._least_bytes = 0
