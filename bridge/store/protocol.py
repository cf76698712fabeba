"""The contract of a store; `postgres.py` and `memory.py` keep it, and the same tests hold both to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from bridge.change import Position
from bridge.lsn import LSN


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """What must still be true of the source for stored positions to mean anything."""

    slot: str
    system_identifier: str
    timeline: int
    database: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What a store knows of one slot."""

    identity: SourceIdentity | None
    """None before the first claim."""
    epoch: int
    """Counts claims; a writer with an older one is refused."""
    confirmed_lsn: LSN | None
    """Saved before the slot is confirmed to it, so the slot is never ahead of this unless somebody else moved it."""
    checkpoints: Mapping[str, Position]
    """By trigger: everything at or below is settled."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A change set aside with its reason. Unique by (trigger, event_id); a later failure of the same updates it."""

    trigger: str
    event_id: str
    table: str
    event: bytes = field(repr=False)
    """The whole event as it was to be sent, JSON, so that a replay sends the same bytes."""
    error: str
    detail: str = field(repr=False)
    status: int | None
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    request_id: str | None = None
    log_tail: str | None = field(default=None, repr=False)
    ordering_key: bytes | None = field(default=None, repr=False)
    id: int | None = None
    """Given by the store."""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; None means any. All given conditions must hold."""

    ids: Sequence[int] | None = None
    trigger: str | None = None
    table: str | None = None
    since: datetime | None = None
    """First failed at or after."""
    error: str | None = None
    """Substring of `error`, case-insensitive."""


class Store(Protocol):
    """
    Duties of a store: each method is one transaction; a refused or lost connection is a `StoreError`, and reconnecting
    is the store's own affair at the next call.
    """

    async def open(self) -> None:
        """Connect and check the schema version; `StoreError` names the command that migrates."""
        ...

    async def close(self) -> None: ...

    async def migrate(self) -> Sequence[str]:
        """Create or upgrade the tables; returns the names of the migrations applied."""
        ...

    async def read(self, slot: str) -> Progress:
        """What is stored, claiming nothing."""
        ...

    async def claim(self, identity: SourceIdentity) -> Progress:
        """Raise the epoch and return what is stored; from now on this store object writes with the new epoch."""
        ...

    async def save(
        self,
        confirmed_lsn: LSN | None,
        checkpoints: Mapping[str, Position],
        letters: Sequence[DeadLetter] = (),
    ) -> None:
        """
        Save progress, and the letters it passes, in one transaction.

        Raises:
            StoreFenced: another process has claimed the slot since.
            InvariantBroken: a stored position would move back.
        """
        ...

    async def letters(self, where: LetterFilter, *, limit: int | None = None) -> Sequence[DeadLetter]:
        """Matching letters in event order."""
        ...

    def iterate_letters(self, where: LetterFilter) -> AsyncIterator[DeadLetter]:
        """The same in event order with bounded memory, however many there are."""
        ...

    async def count_letters(self) -> Mapping[str, int]:
        """Dead letters by trigger."""
        ...

    async def discard_letters(self, ids: Sequence[int]) -> int:
        """Delete by id; returns how many there were."""
        ...

    async def fail_letter_again(
        self,
        letter_id: int,
        *,
        error: str,
        detail: str,
        status: int | None,
        request_id: str | None,
        log_tail: str | None,
    ) -> None:
        """A replay failed: the letter stays, with one more attempt and the new reason."""
        ...
