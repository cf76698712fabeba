"""
The store in PostgreSQL, in the source database or another one.

Saving progress never waits for an operator who lists a million letters, nor for a page of the backlog: each has a
connection of its own, made when it is first used. A replay has one whose life is its claim. A save costs one round
trip; with letters, or with rows taken out of the backlog, it is a pipelined transaction and costs two, and each COPY
into the backlog costs two more.

Durability: sessions run with `synchronous_commit` at least `on`. The slot is confirmed once a save has returned, and
then the source may throw the WAL away: a letter that a crash of the store takes back would be lost. A plain checkpoint
may not be taken back either, for a slot ahead of its checkpoint is refused at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor

from bridge.change import Position
from bridge.errors import InvariantBroken, StoreError, StoreMisconfigured
from bridge.lsn import LSN
from bridge.store.backlog_table import BacklogTable
from bridge.store.claim import Claim
from bridge.store.installation import Installation
from bridge.store.letter_table import LetterTable, letter_row
from bridge.store.migrations import check_schema_name, latest_version, lock_key
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
    SourceIdentity,
)
from bridge.store.replay_claim import PostgresReplayClaim, replaying
from bridge.store.session import DsnSupplier, Session
from bridge.store.sqlstate import not_migrated
from bridge.store.statements import Statements
from bridge.store.trigger_notes import TriggerNotes

# A claim that waits longer for the slot's row waits for a process that hangs in a save: paused, or cut off.
_HELD_UP_SECONDS: Final = 1.0


class PostgresStore:
    """
    Keeps `store/protocol.py` in tables of one schema.

    Args:
        dsn: asked at each connect, so that a rotated password is found.
        schema: quoted wherever it stands; need not exist before `migrate`.
    """

    def __init__(self, dsn: DsnSupplier, schema: str) -> None:
        self._dsn = dsn
        self._schema = check_schema_name(schema)
        self._statements = Statements(schema)
        self._progress = self._session()
        self._asides = self._session()
        self._pages = self._session()
        self._installation = Installation(self._schema, self._statements)
        self._backlog = BacklogTable(self._schema, self._statements, progress=self._progress, pages=self._pages)
        self._letters = LetterTable(self._asides, self._statements)
        self._notes = TriggerNotes(self._progress, self._statements)
        self._claimed: Claim | None = None

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Connect and check that the tables are of this program's version.

        Raises:
            StoreMisconfigured: they are missing, older or newer.
            StoreError: the store can't be reached.
        """
        version = await self._progress.run(self._installation.version)
        if version < latest_version():
            raise not_migrated(self._schema)

    async def close(self) -> None:
        await self._progress.close()
        await self._asides.close()
        await self._pages.close()

    async def migrate(self) -> Sequence[str]:
        """
        Create or upgrade the tables; needs no rights where there is nothing to do.

        Raises:
            StoreMisconfigured: the tables are newer than this program, or a right is missing.
        """
        # An index on a large table takes what it takes.
        session = self._session(statement_timeout_seconds=0)
        try:
            version = await session.run(self._installation.version)
            return [] if version == latest_version() else await session.run(self._installation.upgrade)
        finally:
            await session.close()

    # -- progress ----------------------------------------------------------------------------------------------------

    async def read(self, slot: str) -> Progress:
        """What is stored, claiming nothing."""

        async def work(connection: AsyncConnection[Any]) -> Progress:
            return await self._read(connection, slot)

        return await self._progress.run(work)

    async def claim(self, identity: SourceIdentity) -> Progress:
        """
        Raise the epoch; see the protocol.

        A predecessor that hangs in the middle of a save keeps the slot's row locked, for as long as its kernel answers
        for it. That save is barred by the claim in any case, so its connection is ended.
        """
        backend: list[int] = []

        async def work(connection: AsyncConnection[Any]) -> Progress:
            async with connection.transaction():
                row = await (await connection.execute(self._statements["backend"])).fetchone()
                backend[:] = row or ()
                await connection.execute(self._statements["raise_epoch"], self._identity(identity))
                return await self._read(connection, identity.slot)

        claiming = asyncio.create_task(self._progress.run(work))
        try:
            while not (await asyncio.wait([claiming], timeout=_HELD_UP_SECONDS))[0]:
                await self._end_what_holds_up(backend)
            progress = claiming.result()
        finally:
            claiming.cancel()
            await asyncio.wait([claiming])
        self._claimed = Claim(identity.slot, progress.epoch)
        self._backlog.forget()
        return progress

    async def _end_what_holds_up(self, backend: Sequence[int]) -> None:
        """Terminate the sessions of other processes of ours that a backend waits for."""

        async def work(connection: AsyncConnection[Any]) -> None:
            for waiting in backend:
                await connection.execute(self._statements["end_what_holds_up"], {"backend": waiting})

        with contextlib.suppress(StoreError, StoreMisconfigured):  # it then waits as long as the server lets it
            await self._asides.run(work)

    async def adopt(self, identity: SourceIdentity) -> None:
        """Replace the stored identity of the claimed slot; see the protocol."""
        claim = self._claim()
        if identity.slot != claim.slot:
            raise InvariantBroken(f'the claimed slot is "{claim.slot}", not "{identity.slot}"')

        async def work(connection: AsyncConnection[Any]) -> int:
            parameters = {**self._identity(identity), "epoch": claim.epoch}
            return (await connection.execute(self._statements["adopt_identity"], parameters)).rowcount

        if await self._progress.run(work) == 0:
            raise claim.fenced()

    async def forget(self, slot: str) -> None:
        """Drop identity and positions; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> None:
            async with connection.transaction():
                await connection.execute(self._statements["forget_slot"], {"slot": slot})
                await connection.execute(self._statements["forget_checkpoints"], {"slot": slot})
                await connection.execute(self._statements["forget_schema_guards"], {"slot": slot})

        await self._progress.run(work)

    async def save(
        self,
        confirmed_lsn: LSN | None,
        checkpoints: Mapping[str, Position],
        letters: Sequence[DeadLetter] = (),
        *,
        parked: Mapping[str, Sequence[Parked]] = NOTHING_PARKED,
        removed: Mapping[str, Sequence[bytes]] = NOTHING_REMOVED,
    ) -> None:
        """Save progress, and the letters and parked changes it passes, in one transaction; see the protocol."""
        claim = self._claim()
        parameters = {
            "slot": claim.slot,
            "epoch": claim.epoch,
            "confirmed_lsn": None if confirmed_lsn is None else str(confirmed_lsn),
            "triggers": list(checkpoints),
            "commit_lsns": [str(position.commit_lsn) for position in checkpoints.values()],
            "ordinals": [position.ordinal for position in checkpoints.values()],
        }
        touches_backlog = any(parked.values()) or any(removed.values())

        async def work(connection: AsyncConnection[Any]) -> None:
            if not letters and not touches_backlog:
                await connection.execute(self._statements["save_progress"], parameters)
                return
            rows = [letter_row(claim.slot, letter, self._progress.outgoing) for letter in letters]
            removals = await self._backlog.removals(connection, claim.slot, parked, removed) if touches_backlog else ()

            async def send(cursor: AsyncCursor[Any]) -> None:
                # The slot's row is locked first: of two processes with letters in common, one waits there, and neither
                # for the other's letters.
                await cursor.execute(self._statements["save_progress"], parameters)
                if rows:
                    await cursor.executemany(self._statements["set_aside"], rows)
                for statement, its_parameters in removals:
                    await cursor.execute(statement, its_parameters)

            written = []
            if any(parked.values()):
                # COPY can't be pipelined.
                async with connection.transaction(), connection.cursor() as cursor:
                    async with connection.pipeline():
                        await send(cursor)
                    written = [
                        await self._backlog.park(connection, claim.slot, trigger, some)
                        for trigger, some in parked.items()
                        if some
                    ]
            else:
                async with connection.pipeline(), connection.transaction(), connection.cursor() as cursor:
                    await send(cursor)
            if touches_backlog:
                self._backlog.saved(written)

        await self._progress.run(work)

    # -- the backlog -------------------------------------------------------------------------------------------------

    async def backlogs(self, slot: str) -> Mapping[str, BacklogSize]:
        """By trigger, what its backlog holds; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> Mapping[str, BacklogSize]:
            rows = await (await connection.execute(self._statements["backlogs"], {"slot": slot})).fetchall()
            return {trigger: BacklogSize(events, body_bytes) for trigger, events, body_bytes in rows}

        return await self._asides.run(work)

    async def read_backlog(self, trigger: str, after: bytes, *, events: int, body_bytes: int) -> Sequence[Parked]:
        """A page of a trigger's backlog; see the protocol."""
        return await self._backlog.read(self._claim().slot, trigger, after, events=events, body_bytes=body_bytes)

    async def tidy_backlog(self) -> None:
        """Drop segments that have become empty; see the protocol."""
        await self._backlog.tidy(self._claim())

    # -- what is kept of triggers besides ----------------------------------------------------------------------------

    async def schema_guards(self, slot: str) -> Mapping[str, Mapping[str, str]]:
        """By trigger, its items; see the protocol."""
        return await self._notes.schema_guards(slot)

    async def save_schema_guards(self, changes: Mapping[str, Mapping[str, str | None]]) -> None:
        """Store items, or drop them; see the protocol."""
        await self._notes.save_schema_guards(self._claim(), changes)

    async def pauses(self, slot: str) -> Mapping[str, KeptPause]:
        """By trigger; see the protocol."""
        return await self._notes.pauses(slot)

    async def save_pauses(self, changes: Mapping[str, KeptPause | None]) -> None:
        """Keep them, or drop them; see the protocol."""
        await self._notes.save_pauses(self._claim(), changes)

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def letters(self, where: LetterFilter, *, limit: int | None = None) -> Sequence[DeadLetter]:
        """Matching letters in event order; as many as there are, so give a limit or iterate."""
        return await self._letters.find(where, limit=limit)

    def iterate_letters(self, where: LetterFilter, *, whole: bool = True) -> AsyncIterator[DeadLetter]:
        """Page by page; see the protocol."""
        return self._letters.iterate(where, whole=whole)

    async def count_letters(self, where: LetterFilter = ANY_LETTER) -> Mapping[str, int]:
        """Dead letters by trigger."""
        return (await self._letters.survey(where)).by_trigger

    async def survey_letters(self, where: LetterFilter) -> LetterSurvey:
        """How many match, and the newest of them."""
        return await self._letters.survey(where)

    async def letter_keys(self, slot: str, trigger: str) -> LetterKeys:
        """The keys of a trigger's letters; see the protocol."""
        return await self._letters.keys(slot, trigger)

    async def mark_reported(self, ids: Sequence[int]) -> None:
        """The on-failure destination knows."""
        await self._letters.mark_reported(ids)

    async def discard_letters(self, ids: Sequence[int]) -> int:
        """Delete by id; returns how many there were."""
        return await self._letters.discard(ids)

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
        """One more attempt, and the new reason; see the protocol."""
        await self._letters.fail_again(
            letter_id, error=error, detail=detail, status=status, request_id=request_id, log_tail=log_tail
        )

    def replaying(
        self, slot: str, trigger: str, *, on_wait: Callable[[], None] | None = None
    ) -> AbstractAsyncContextManager[PostgresReplayClaim]:
        """Be the only one who replays this trigger's letters; see the protocol."""
        key = lock_key("replay", self._schema, slot, trigger)
        return replaying(self._session(), self._statements, key, on_wait)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _session(self, **arguments: int) -> Session:
        return Session(self._dsn, self._schema, self._statements, **arguments)

    def _claim(self) -> Claim:
        if self._claimed is None:
            raise InvariantBroken("progress was to be saved before a slot was claimed")
        return self._claimed

    async def _read(self, connection: AsyncConnection[Any], slot: str) -> Progress:
        rows = await (await connection.execute(self._statements["progress"], {"slot": slot})).fetchall()
        if not rows:
            return Progress(identity=None, epoch=0, confirmed_lsn=None, checkpoints={})
        epoch, confirmed_lsn, system_identifier, timeline, database = rows[0][:5]
        identity = None
        if system_identifier is not None:
            identity = SourceIdentity(slot, system_identifier, timeline, self._progress.incoming(database))
        return Progress(
            identity=identity,
            epoch=epoch,
            confirmed_lsn=None if confirmed_lsn is None else LSN.parse(confirmed_lsn),
            checkpoints={
                trigger: Position(LSN.parse(commit_lsn), ordinal)
                for *_, trigger, commit_lsn, ordinal in rows
                if trigger is not None
            },
        )

    def _identity(self, identity: SourceIdentity) -> dict[str, object]:
        return {
            "slot": identity.slot,
            "system_identifier": identity.system_identifier,
            "timeline": identity.timeline,
            "database": self._progress.outgoing(identity.database),
        }
