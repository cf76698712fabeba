"""
Keys that wait for a dead letter (`on_dead_letter: hold_key`), and the events that wait with them. Pure.

An event of a held key is taken out of its batch when it would be sent, and kept here, unsettled. A change of key ties
its two keys together: behind it, both are held. When a letter was replayed or discarded, everything that is kept goes
back into the lanes, and what is still held comes here again.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.batching.batch import Batch
from bridge.change import Event


class HeldKeys:
    """Those of one trigger."""

    def __init__(self, keys: Iterable[bytes] = (), *, barrier: bool = False) -> None:
        """
        Hold what the letters in the table hold.

        Args:
            keys: the ordering keys of all letters of the trigger.
            barrier: whether one of them is a barrier, which holds back every key.
        """
        self.version = 0
        """Counts what was held since the start."""
        self._letters: dict[bytes, int] = dict.fromkeys(keys, 0)  # by key, the version at which it was held
        self._barrier: int | None = 0 if barrier else None
        self._blocked: set[bytes] = set(self._letters)
        self._events: list[Event] = []
        self._closed = False  # a barrier is among the events, so whatever is younger waits for it

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self._letters and self._barrier is None

    @property
    def keys(self) -> int:
        return len(self._letters)

    @property
    def events(self) -> int:
        """Events kept here."""
        return len(self._events)

    def hold(self, event: Event) -> None:
        """From now on the keys of this event wait: it has become a letter, or may yet."""
        self.version += 1
        if event.barrier:
            self._barrier = self.version
        for key in event.keys:
            self._letters[key] = self.version
            self._blocked.add(key)

    def free(self, event: Event) -> None:
        """It has not become a letter after all."""
        if event.barrier:
            self._barrier = None
        for key in event.keys:
            self._letters.pop(key, None)

    def holds(self, event: Event) -> bool:
        """Whether an event has to wait. A barrier is a change of every key, of the held ones too."""
        if self.is_empty:
            return False
        return event.barrier or self._closed or self._barrier is not None or not self._blocked.isdisjoint(event.keys)

    def sift(self, batch: Batch) -> list[Event]:
        """The events of a batch that may be sent; the others are kept here."""
        if self.is_empty:
            return list(batch.events)
        free: list[Event] = []
        for event in batch.events:
            if self.holds(event):
                self._blocked.update(event.keys)
                self._events.append(event)
                self._closed = self._closed or event.barrier
            else:
                free.append(event)
        return free

    def let_go(self) -> list[Event]:
        """Everything that is kept here, in commit order, to be sent or kept again."""
        events = sorted(self._events, key=_id)
        self._events.clear()
        self._closed = False
        self._blocked = set(self._letters)
        return events

    def letters_now(self, keys: Iterable[bytes], *, barrier: bool, version: int) -> bool:
        """
        Take notice of the letters that are in the table.

        Args:
            keys: the ordering keys of all letters of the trigger.
            barrier: whether one of them is a barrier.
            version: when they were asked for; what was held since then may not be in the table yet.

        Returns:
            Whether something is held no longer, so that `let_go` is due.
        """
        stored = set(keys)
        before = len(self._letters), self._barrier is None
        self._letters = {key: held for key, held in self._letters.items() if key in stored or held > version}
        if self._barrier is not None and not barrier and self._barrier <= version:
            self._barrier = None
        freed = before != (len(self._letters), self._barrier is None)
        for key in stored - self._letters.keys():
            self._letters[key] = version
            self._blocked.add(key)
        return freed


def _id(event: Event) -> bytes:
    return event.id
