"""A store that lives and dies with the process, for tests and for trying things out; keeps the same contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

from bridge.change import Position, Transaction
from bridge.clock import Clock, SystemClock
from bridge.errors import InvariantBroken, StoreFenced
from bridge.lsn import LSN
from bridge.store.protocol import (
    ANY_LETTER,
    NOTHING_PARKED,
    NOTHING_REMOVED,
    BacklogSize,
    DeadLetter,
    KeptPause,
    LetterFilter,
    LetterKeys,
    LetterSurvey,
    Parked,
    Progress,
    ReplayClaim,
    SourceIdentity,
)
from bridge.store.text import storable


@dataclass(slots=True)
class _Slot:
    identity: SourceIdentity | None = None
    epoch: int = 0
    confirmed_lsn: LSN | None = None
    checkpoints: dict[str, Position] = field(default_factory=dict)


@dataclass(slots=True)
class Tables:
    """What several stores may share, as processes share a database."""

    slots: dict[str, _Slot] = field(default_factory=dict)
    letters: dict[tuple[str, str, str], DeadLetter] = field(default_factory=dict)
    """By slot, trigger and event id."""
    ids: Iterable[int] = field(default_factory=lambda: count(1))
    backlogs: dict[tuple[str, str], dict[bytes, Parked]] = field(default_factory=dict)
    """By slot and trigger, then by event id."""
    replays: dict[tuple[str, str], asyncio.Lock] = field(default_factory=dict)
    schema_guards: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """By slot, trigger and item."""
    pauses: dict[tuple[str, str], KeptPause] = field(default_factory=dict)
    """By slot and trigger."""


class MemoryStore:
    """Keeps `store/protocol.py` in dictionaries."""

    def __init__(self, tables: Tables | None = None, clock: Clock | None = None) -> None:
        self.tables = Tables() if tables is None else tables
        self._clock = SystemClock() if clock is None else clock
        self._claimed: tuple[str, int] | None = None

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """What is stored stays in `tables`."""

    async def migrate(self) -> Sequence[str]:
        return []

    async def read(self, slot: str) -> Progress:
        stored = self.tables.slots.get(slot) or _Slot()
        return Progress(stored.identity, stored.epoch, stored.confirmed_lsn, dict(stored.checkpoints))

    async def claim(self, identity: SourceIdentity) -> Progress:
        stored = self.tables.slots.setdefault(identity.slot, _Slot())
        stored.epoch += 1
        stored.identity = stored.identity or identity
        self._claimed = (identity.slot, stored.epoch)
        return await self.read(identity.slot)

    async def adopt(self, identity: SourceIdentity) -> None:
        stored, slot = self._writable()
        if identity.slot != slot:
            raise InvariantBroken(f'the claimed slot is "{slot}", not "{identity.slot}"')
        stored.identity = identity

    async def forget(self, slot: str) -> None:
        if slot in self.tables.slots:
            self.tables.slots[slot] = _Slot(epoch=self.tables.slots[slot].epoch + 1)
            self.tables.schema_guards.pop(slot, None)

    async def save(
        self,
        confirmed_lsn: LSN | None,
        checkpoints: Mapping[str, Position],
        letters: Sequence[DeadLetter] = (),
        *,
        parked: Mapping[str, Sequence[Parked]] = NOTHING_PARKED,
        removed: Mapping[str, Sequence[bytes]] = NOTHING_REMOVED,
    ) -> None:
        stored, slot = self._writable()
        if confirmed_lsn is not None and stored.confirmed_lsn is not None and confirmed_lsn < stored.confirmed_lsn:
            raise InvariantBroken(
                f'the confirmed position of slot "{slot}" would move back '
                f"from {stored.confirmed_lsn} to {confirmed_lsn}"
            )
        for trigger, position in checkpoints.items():
            old = stored.checkpoints.get(trigger)
            if old is not None and position < old:
                raise InvariantBroken(
                    f'the checkpoint of trigger "{trigger}" would move back '
                    f"from {old.commit_lsn}, ordinal {old.ordinal}, "
                    f"to {position.commit_lsn}, ordinal {position.ordinal}"
                )
        stored.confirmed_lsn = stored.confirmed_lsn if confirmed_lsn is None else confirmed_lsn
        stored.checkpoints.update(checkpoints)
        for letter in letters:
            self._set_aside(slot, letter)
        for trigger in {**removed, **parked}:
            backlog = self.tables.backlogs.setdefault((slot, trigger), {})
            for event_id in removed.get(trigger, ()):
                backlog.pop(event_id, None)
            backlog.update({each.event.id: _as_read(each) for each in parked.get(trigger, ())})

    async def backlogs(self, slot: str) -> Mapping[str, BacklogSize]:
        return {
            trigger: BacklogSize(len(backlog), sum(len(each.event.body) for each in backlog.values()))
            for (owner, trigger), backlog in sorted(self.tables.backlogs.items())
            if owner == slot and backlog
        }

    async def read_backlog(self, trigger: str, after: bytes, *, events: int, body_bytes: int) -> Sequence[Parked]:
        backlog = self.tables.backlogs.get((self._claim()[0], trigger), {})
        page: list[Parked] = []
        size = 0
        for event_id in sorted(each for each in backlog if each > after)[:events]:
            page.append(backlog[event_id])
            size += len(backlog[event_id].event.body)
            if size >= body_bytes:
                break
        return page

    async def tidy_backlog(self) -> None:
        """What was taken out left nothing behind."""

    async def letters(self, where: LetterFilter, *, limit: int | None = None) -> Sequence[DeadLetter]:
        return self._matching(where)[:limit]

    async def iterate_letters(self, where: LetterFilter, *, whole: bool = True) -> AsyncIterator[DeadLetter]:
        for letter in self._matching(where):
            yield letter if whole else replace(letter, event=b"", detail="")

    async def count_letters(self, where: LetterFilter = ANY_LETTER) -> Mapping[str, int]:
        return (await self.survey_letters(where)).by_trigger

    async def survey_letters(self, where: LetterFilter) -> LetterSurvey:
        by_trigger: dict[str, int] = {}
        newest = 0
        for letter in self._matching(where):
            by_trigger[letter.trigger] = by_trigger.get(letter.trigger, 0) + 1
            newest = max(newest, letter.id or 0)
        return LetterSurvey(dict(sorted(by_trigger.items())), newest)

    async def letter_keys(self, slot: str, trigger: str) -> LetterKeys:
        letters = self._matching(LetterFilter(slot=slot, trigger=trigger))
        keys = {key for letter in letters for key in (letter.ordering_key, letter.old_ordering_key) if key is not None}
        return LetterKeys(frozenset(keys), any(letter.barrier for letter in letters))

    async def schema_guards(self, slot: str) -> Mapping[str, Mapping[str, str]]:
        stored = self.tables.schema_guards.get(slot, {})
        return {trigger: dict(items) for trigger, items in stored.items() if items}

    async def save_schema_guards(self, changes: Mapping[str, Mapping[str, str | None]]) -> None:
        _, slot = self._writable()
        stored = self.tables.schema_guards.setdefault(slot, {})
        for trigger, items in changes.items():
            kept = stored.setdefault(trigger, {})
            for item, content in items.items():
                kept.pop(item, None)
                if content is not None:
                    kept[item] = content

    async def pauses(self, slot: str) -> Mapping[str, KeptPause]:
        return {trigger: pause for (of, trigger), pause in self.tables.pauses.items() if of == slot}

    async def save_pauses(self, changes: Mapping[str, KeptPause | None]) -> None:
        _, slot = self._writable()
        for trigger, pause in changes.items():
            self.tables.pauses.pop((slot, trigger), None)
            if pause is not None:
                kept = KeptPause(storable(pause.reason), storable(pause.remedy), pause.target)
                self.tables.pauses[slot, trigger] = kept

    async def mark_reported(self, ids: Sequence[int]) -> None:
        for key, letter in self.tables.letters.items():
            if letter.id in ids:
                self.tables.letters[key] = replace(letter, report=None)

    async def discard_letters(self, ids: Sequence[int]) -> int:
        chosen = set(ids)
        keys = [key for key, letter in self.tables.letters.items() if letter.id in chosen]
        for key in keys:
            del self.tables.letters[key]
        return len(keys)

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
        for key, letter in self.tables.letters.items():
            if letter.id == letter_id:
                now = datetime.fromtimestamp(self._clock.now(), UTC)
                self.tables.letters[key] = _storable(
                    replace(
                        letter,
                        error=error,
                        detail=detail,
                        status=status,
                        request_id=request_id,
                        log_tail=log_tail,
                        attempts=letter.attempts + 1,
                        last_failed_at=max(letter.last_failed_at, now),
                    )
                )

    @asynccontextmanager
    async def replaying(
        self, slot: str, trigger: str, *, on_wait: Callable[[], None] | None = None
    ) -> AsyncIterator[ReplayClaim]:
        lock = self.tables.replays.setdefault((slot, trigger), asyncio.Lock())
        if lock.locked() and on_wait is not None:
            on_wait()
        async with lock:
            yield _MemoryReplayClaim()

    def _claim(self) -> tuple[str, int]:
        if self._claimed is None:
            raise InvariantBroken("progress was to be saved before a slot was claimed")
        return self._claimed

    def _writable(self) -> tuple[_Slot, str]:
        slot, epoch = self._claim()
        stored = self.tables.slots[slot]
        if stored.epoch != epoch:
            raise StoreFenced(
                f'slot "{slot}" was claimed by another process (epoch {stored.epoch}, ours is {epoch})',
                remedy="stop one of the two processes",
            )
        return stored, slot

    def _set_aside(self, slot: str, letter: DeadLetter) -> None:
        key = (slot, letter.trigger, letter.event_id)
        old = self.tables.letters.get(key)
        if old is None:
            letter = replace(letter, id=next(iter(self.tables.ids)))
        else:
            letter = replace(
                letter,
                id=old.id,
                table=old.table,
                attempts=max(old.attempts, letter.attempts),
                first_failed_at=min(old.first_failed_at, letter.first_failed_at),
                last_failed_at=max(old.last_failed_at, letter.last_failed_at),
            )
        self.tables.letters[key] = _storable(letter)

    def _matching(self, where: LetterFilter) -> list[DeadLetter]:
        found = [letter for (slot, _, _), letter in self.tables.letters.items() if _matches(where, slot, letter)]
        return sorted(found, key=lambda letter: (letter.event_id, letter.id or 0))


class _MemoryReplayClaim:
    async def check(self) -> None:
        """Held for as long as the block lasts."""


def _matches(where: LetterFilter, slot: str, letter: DeadLetter) -> bool:
    return (
        (where.slot is None or slot == where.slot)
        and (where.ids is None or letter.id in where.ids)
        and (where.trigger is None or letter.trigger == where.trigger)
        and (where.table is None or letter.table == where.table)
        and (where.since is None or letter.first_failed_at >= where.since)
        and (where.error is None or where.error.lower() in letter.error.lower())
        and (where.up_to_id is None or (letter.id or 0) <= where.up_to_id)
        and (not where.unreported or letter.report is not None)
    )


def _as_read(parked: Parked) -> Parked:
    """As PostgreSQL would give it back."""
    event = parked.event
    commit_lsn = event.transaction.commit_lsn
    transaction = Transaction(commit_lsn, commit_lsn, event.transaction.committed_at, 0)
    return replace(parked, event=event._replace(transaction=transaction, table=storable(event.table)))


def _storable(letter: DeadLetter) -> DeadLetter:
    """With the texts that PostgreSQL would give back."""
    return replace(
        letter,
        table=storable(letter.table),
        error=storable(letter.error),
        detail=storable(letter.detail),
        request_id=None if letter.request_id is None else storable(letter.request_id),
        log_tail=None if letter.log_tail is None else storable(letter.log_tail),
    )
