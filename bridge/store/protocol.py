"""The contract of a store; `postgres.py` and `memory.py` keep it, and the same tests hold both to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from bridge.change import Event, Position
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
    """
    A change set aside with its reason. Unique by (slot, trigger, event_id); a later failure of the same updates it.

    A store keeps `event` and the keys byte for byte. Of texts it keeps what PostgreSQL can (`store/text.py`).
    """

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
    old_ordering_key: bytes | None = field(default=None, repr=False)
    """Where the change altered its ordering key: a replay keeps it behind the letters of both."""
    barrier: bool = False
    """A replay sends it after all older letters of its trigger, and before all younger ones."""
    report: str | None = None
    """What an on-failure destination has still to be told (`delivery/failure_record.py`); None where it has been."""
    id: int | None = None
    """Given by the store."""


@dataclass(frozen=True, slots=True)
class Parked:
    """
    A change in the backlog, with what it has against it. Unique by (slot, trigger, event id).

    A store keeps the event byte for byte; of its transaction, once read back, only position and commit time are left.
    """

    event: Event
    attempts: int = 0
    first_failed_at: float = 0.0
    """Seconds since 1970; 0 without failed attempts."""


@dataclass(frozen=True, slots=True)
class BacklogSize:
    """What one trigger has in the backlog."""

    events: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; None means any. All given conditions must hold."""

    slot: str | None = None
    ids: Sequence[int] | None = None
    trigger: str | None = None
    table: str | None = None
    since: datetime | None = None
    """First failed at or after."""
    error: str | None = None
    """Substring of `error`, without regard to the case of ASCII letters."""
    unreported: bool | None = None
    """True: only those of which an on-failure destination has still to be told."""
    up_to_id: int | None = None
    """None that was set aside after this one: a long replay or discard ends although new letters keep coming."""


ANY_LETTER: Final = LetterFilter()
NOTHING_PARKED: Final[Mapping[str, Sequence[Parked]]] = MappingProxyType({})
NOTHING_REMOVED: Final[Mapping[str, Sequence[bytes]]] = MappingProxyType({})
NO_BACKLOGS: Final[Mapping[str, BacklogSize]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LetterKeys:
    """The ordering keys of a trigger's letters."""

    keys: frozenset[bytes] = frozenset()
    barrier: bool = False
    """Whether one of them is a barrier, which belongs to every key."""


@dataclass(frozen=True, slots=True)
class KeptPause:
    """Why a trigger waits until somebody resumes it, and what to do about it; in our words, without row values."""

    reason: str
    remedy: str
    target: str | None = None
    """The fingerprint of the target that asked for it; None where an operator did, or a guard."""

    def holds_for(self, target: str) -> bool:
        """Whether a trigger that calls this target has to wait: what another target asked for is none of its affair."""
        return self.target is None or self.target == target


NO_LETTER_KEYS: Final[Mapping[str, LetterKeys]] = {}


@dataclass(frozen=True, slots=True)
class LetterSurvey:
    """How many letters match a filter."""

    by_trigger: Mapping[str, int]
    newest_id: int
    """0 where there are none; for `LetterFilter.up_to_id`."""

    @property
    def total(self) -> int:
        return sum(self.by_trigger.values())


class ReplayClaim(Protocol):
    """The right of one process to replay the letters of one trigger."""

    async def check(self) -> None:
        """`StoreError` when the claim was lost, with its connection."""
        ...


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
        """
        Raise the epoch and return what is stored; from now on this store object writes with the new epoch.

        Once it returns, no save of an earlier epoch can follow, and none is missing from what it returns. The first
        claim of a slot stores the identity; later ones leave it as it is, for the caller to compare and refuse.
        """
        ...

    async def adopt(self, identity: SourceIdentity) -> None:
        """
        Replace the stored identity of the claimed slot, once it is clear that positions hold on: a new timeline.

        Raises:
            StoreFenced: another process has claimed the slot since.
        """
        ...

    async def forget(self, slot: str) -> None:
        """
        Drop identity, positions and schema guards of a slot that is begun anew; dead letters and pauses stay, and every
        claim is void.
        """
        ...

    async def save(
        self,
        confirmed_lsn: LSN | None,
        checkpoints: Mapping[str, Position],
        letters: Sequence[DeadLetter] = (),
        *,
        parked: Mapping[str, Sequence[Parked]] = NOTHING_PARKED,
        removed: Mapping[str, Sequence[bytes]] = NOTHING_REMOVED,
    ) -> None:
        """
        Save progress, and the letters and the parked changes that it passes, in one transaction.

        Durable when it returns, so that the slot may be confirmed. Saving the same again changes nothing, so a save
        whose answer was lost may be repeated; until it has been, nothing else may be parked.

        Args:
            confirmed_lsn: to be confirmed once this has returned.
            checkpoints: by trigger.
            letters: of any trigger.
            parked: by trigger, changes to put into the backlog, in event order.
            removed: by trigger, ids of changes to take out of it, in any order; before `parked` is put in, so that
                one may be put in anew. What is not there is no error.

        Raises:
            StoreFenced: another process has claimed the slot since.
            InvariantBroken: a stored position would move back.
        """
        ...

    async def backlogs(self, slot: str) -> Mapping[str, BacklogSize]:
        """By trigger, what its backlog holds; triggers without one are left out. Claims nothing."""
        ...

    async def read_backlog(self, trigger: str, after: bytes, *, events: int, body_bytes: int) -> Sequence[Parked]:
        """
        A page of a trigger's backlog of the claimed slot, in event order.

        Args:
            trigger: its name.
            after: the event id that the page begins behind; empty for the beginning.
            events: most on the page.
            body_bytes: the page ends with the event that reaches them.

        Returns:
            At least one change where there is any behind `after`; not always as many as would fit.
        """
        ...

    async def tidy_backlog(self) -> None:
        """Give back the space of what was taken out of the claimed slot's backlog. To be called now and then."""
        ...

    async def letters(self, where: LetterFilter, *, limit: int | None = None) -> Sequence[DeadLetter]:
        """Matching letters in event order, which is commit order."""
        ...

    def iterate_letters(self, where: LetterFilter, *, whole: bool = True) -> AsyncIterator[DeadLetter]:
        """
        The same in event order with bounded memory, however many there are; `whole` False leaves `event` and `detail`
        empty and costs less.
        """
        ...

    async def count_letters(self, where: LetterFilter = ANY_LETTER) -> Mapping[str, int]:
        """Dead letters by trigger."""
        ...

    async def survey_letters(self, where: LetterFilter) -> LetterSurvey:
        """How many match, and where a replay or discard that begins now has to end."""
        ...

    async def letter_keys(self, slot: str, trigger: str) -> LetterKeys:
        """The keys that a trigger with `on_dead_letter: hold_key` holds back."""
        ...

    async def schema_guards(self, slot: str) -> Mapping[str, Mapping[str, str]]:
        """By trigger, the items that `save_schema_guards` stored: item to content."""
        ...

    async def save_schema_guards(self, changes: Mapping[str, Mapping[str, str | None]]) -> None:
        """
        By trigger, store items of the claimed slot, or drop those whose content is None, in one transaction.

        Raises:
            StoreFenced: another process has claimed the slot since.
        """
        ...

    async def pauses(self, slot: str) -> Mapping[str, KeptPause]:
        """By trigger, those that wait until somebody resumes them. Claims nothing."""
        ...

    async def save_pauses(self, changes: Mapping[str, KeptPause | None]) -> None:
        """
        By trigger, keep pauses of the claimed slot, or drop those that are None, in one transaction.

        Raises:
            StoreFenced: another process has claimed the slot since.
        """
        ...

    async def mark_reported(self, ids: Sequence[int]) -> None:
        """The on-failure destination has been told of these letters."""
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
        """A replay failed: the letter stays, with one more attempt and the new reason. No letter, no effect."""
        ...

    def replaying(
        self, slot: str, trigger: str, *, on_wait: Callable[[], None] | None = None
    ) -> AbstractAsyncContextManager[ReplayClaim]:
        """
        Be the only one who replays this trigger's letters; wait, and call `on_wait` once, while another process does.

        One at a time per trigger is what keeps the letters of a key in order and sends none twice. The claim goes with
        the process that holds it, however that ends.
        """
        ...
