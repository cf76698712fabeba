"""
One budget of memory for all triggers of a process, fair among them.

Reading waits while every trigger has enough to send (`read_ahead.py`), which costs nobody anything. Where only some
have, nobody waits for another: before the budget is spent, the trigger that holds most goes to the backlog, and what
triggers there may load of it is shared out among them. Only where that does not help, because the store takes nothing,
does reading stop at the bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridge.delivery.dispatch import Dispatcher

LEAST_WINDOW_BYTES: Final = 1 << 20
"""What a trigger in backlog may load at least: enough for a page to be read while another is sent."""


class Budget:
    """
    Args:
        dispatchers: by trigger; those of the whole process.
        most_bytes: of events in memory.
    """

    def __init__(self, dispatchers: Mapping[str, Dispatcher], most_bytes: int) -> None:
        self._dispatchers = list(dispatchers.values())
        self._most = most_bytes
        for dispatcher in self._dispatchers:
            if dispatcher.parking is not None:
                dispatcher.parking.patient = len(self._dispatchers) == 1
        self.share_out()

    @property
    def buffered_bytes(self) -> int:
        """Events in memory, of all triggers together."""
        return sum([dispatcher.buffered_bytes for dispatcher in self._dispatchers])

    @property
    def is_full(self) -> bool:
        """Whether reading has to wait."""
        if self.buffered_bytes >= self._most:
            return True
        return bool(self._dispatchers) and all(each.has_enough for each in self._dispatchers)

    @property
    def has_room(self) -> bool:
        """Whether reading that had to wait may go on; not at the first byte, or it would stop at the next."""
        if self.buffered_bytes >= self._most * 3 // 4:
            return False
        return not self._dispatchers or any(each.has_room for each in self._dispatchers)

    def relieve(self) -> None:
        """See to it that the budget is not spent by those who could do with less."""
        if self.buffered_bytes < self._most * 3 // 4:
            return
        live = [each for each in self._dispatchers if each.parking is not None and each.parking.backlog.is_live]
        biggest = max(live, key=lambda each: each.buffered_bytes, default=None)
        if biggest is not None and biggest.parking is not None and not biggest.parking.patient:
            biggest.parking.retreat("it holds most of the process's memory budget")

    def share_out(self) -> None:
        """Tell the triggers in backlog how much of it they may load."""
        backlogs = [each.backlog for each in self._dispatchers if each.backlog is not None]
        away = sum(not backlog.is_live for backlog in backlogs)
        window = max(LEAST_WINDOW_BYTES, self._most // 4 // max(1, away))
        for backlog in backlogs:
            backlog.window = min(window, backlog.bounds.after_bytes)
