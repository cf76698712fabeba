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
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor, sql

from bridge.change import Position
from bridge.errors import InvariantBroken, StoreError, StoreFenced, StoreMisconfigured
from bridge.lsn import LSN
from bridge.store.backlog_rows import copy_data, read_rows
from bridge.store.migrations import (
    check_schema_name,
    latest_version,
    lock_key,
    migrations,
    record_version,
    version_table,
)
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
from bridge.store.segments import Segments
from bridge.store.session import DsnSupplier, Session
from bridge.store.sqlstate import not_migrated
from bridge.store.statements import Statements

# A page of letters ends at whichever comes first. At least one letter is in it, whatever its size.
PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 8 * 1024 * 1024

# Deleting a million rows in one statement would hold their locks, and run into the statement timeout.
_DISCARD_ROWS: Final = 5000

# Empty segments dropped at once; a save that comes meanwhile waits for it.
_TIDY_SEGMENTS: Final = 4

# A claim that waits longer for the slot's row waits for a process that hangs in a save: paused, or cut off.
_HELD_UP_SECONDS: Final = 1.0

# How soon a replay that waits for another one notices its end. Asked, not waited for in a lock queue, because a waiting
# statement holds back vacuum for as long as the other replay takes.
_REPLAY_POLL_SECONDS: Final = 0.5

_COLUMNS: Final = (
    "id, trigger, event_id, table_name, {whole}, error, status, attempts, first_failed_at, last_failed_at, request_id, "
    "log_tail, ordering_key, old_ordering_key, barrier, report"
)
_WHOLE: Final = sql.SQL(_COLUMNS).format(whole=sql.SQL("event, detail"))
_OUTLINE: Final = sql.SQL(_COLUMNS).format(whole=sql.SQL("''::bytea, ''"))
_WHOLE_SIZE: Final = sql.SQL("(octet_length(event) + octet_length(detail) + coalesce(octet_length(log_tail), 0))")
_OUTLINE_SIZE: Final = sql.SQL("coalesce(octet_length(log_tail), 0)")


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
        self._letters = self._session()
        self._backlog = self._session()
        self._claimed: tuple[str, int] | None = None
        self._segments: Segments | None = None
        """As in the database; None while that is not known."""
        self._unsure = False
        """Whether a save into the backlog may have been made although its answer was lost."""
        self._writes = 0
        self._reading_or_dropping = asyncio.Lock()

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Connect and check that the tables are of this program's version.

        Raises:
            StoreMisconfigured: they are missing, older or newer.
            StoreError: the store can't be reached.
        """
        version = await self._progress.run(self._installed_version)
        self._refuse_newer(version)
        if version < latest_version():
            raise not_migrated(self._schema)

    async def close(self) -> None:
        await self._progress.close()
        await self._letters.close()
        await self._backlog.close()

    async def migrate(self) -> Sequence[str]:
        """
        Create or upgrade the tables; needs no rights where there is nothing to do.

        Raises:
            StoreMisconfigured: the tables are newer than this program, or a right is missing.
        """
        # An index on a large table takes what it takes.
        session = self._session(statement_timeout_seconds=0)
        try:
            version = await session.run(self._installed_version)
            self._refuse_newer(version)
            return [] if version == latest_version() else await session.run(self._upgrade)
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
        self._claimed = (identity.slot, progress.epoch)
        self._segments = None
        return progress

    async def _end_what_holds_up(self, backend: Sequence[int]) -> None:
        """Terminate the sessions of other processes of ours that a backend waits for."""

        async def work(connection: AsyncConnection[Any]) -> None:
            for waiting in backend:
                await connection.execute(self._statements["end_what_holds_up"], {"backend": waiting})

        with contextlib.suppress(StoreError, StoreMisconfigured):  # it then waits as long as the server lets it
            await self._letters.run(work)

    async def adopt(self, identity: SourceIdentity) -> None:
        """Replace the stored identity of the claimed slot; see the protocol."""
        slot, epoch = self._claim()
        if identity.slot != slot:
            raise InvariantBroken(f'the claimed slot is "{slot}", not "{identity.slot}"')

        async def work(connection: AsyncConnection[Any]) -> int:
            parameters = {**self._identity(identity), "epoch": epoch}
            return (await connection.execute(self._statements["adopt_identity"], parameters)).rowcount

        if await self._progress.run(work) == 0:
            raise _fenced(slot, epoch)

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
        slot, epoch = self._claim()
        parameters = {
            "slot": slot,
            "epoch": epoch,
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
            rows = [self._row(slot, letter) for letter in letters]
            gone = await self._places(connection, slot, parked, removed) if touches_backlog else ()
            statements: list[tuple[sql.Composed, dict[str, object]]] = [
                (
                    self._statements.fill("take_out", table=self._segment_table(segment)),
                    {"segment": segment, "ids": ids},
                )
                for segment, ids in gone
            ]

            async def send(cursor: AsyncCursor[Any]) -> None:
                # The slot's row is locked first: of two processes with letters in common, one waits there, and neither
                # for the other's letters.
                await cursor.execute(self._statements["save_progress"], parameters)
                if rows:
                    await cursor.executemany(self._statements["set_aside"], rows)
                for statement, its_parameters in statements:
                    await cursor.execute(statement, its_parameters)

            written = []
            if any(parked.values()):
                # COPY can't be pipelined.
                async with connection.transaction(), connection.cursor() as cursor:
                    async with connection.pipeline():
                        await send(cursor)
                    written = [
                        await self._park(connection, slot, trigger, some) for trigger, some in parked.items() if some
                    ]
            else:
                async with connection.pipeline(), connection.transaction(), connection.cursor() as cursor:
                    await send(cursor)
            if touches_backlog:
                self._unsure = False
                self._writes += 1
                for each in written:
                    if self._segments is not None:
                        self._segments.written(*each)

        await self._progress.run(work)

    # -- the backlog -------------------------------------------------------------------------------------------------

    async def backlogs(self, slot: str) -> Mapping[str, BacklogSize]:
        """By trigger, what its backlog holds; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> Mapping[str, BacklogSize]:
            rows = await (await connection.execute(self._statements["backlogs"], {"slot": slot})).fetchall()
            return {trigger: BacklogSize(events, body_bytes) for trigger, events, body_bytes in rows}

        return await self._letters.run(work)

    async def read_backlog(self, trigger: str, after: bytes, *, events: int, body_bytes: int) -> Sequence[Parked]:
        """A page of a trigger's backlog; see the protocol."""
        slot, _ = self._claim()
        parameters: dict[str, object] = {"rows": events, "bytes": body_bytes}

        async def work(connection: AsyncConnection[Any]) -> Sequence[Parked]:
            while self._segments is None:
                writes = self._writes
                loaded = await self._load_segments(connection, slot)
                if writes == self._writes:  # else a save came in between, and may not be in it
                    self._segments = loaded
            # Each step leaves behind the segments that were found to hold nothing in its range.
            for start, until, numbers in self._segments.ranges(trigger, after.decode("ascii")):
                parts = [
                    self._statements.fill("page_of_segment", table=self._segment_table(number)) for number in numbers
                ]
                query = self._statements.fill("page_of_backlog", segments=sql.SQL(" UNION ALL ").join(parts))
                async with connection.cursor(binary=True) as cursor:
                    await cursor.execute(query, {**parameters, "after": start, "until": until})
                    rows = await cursor.fetchall()
                if rows:
                    return read_rows(rows, self._backlog.incoming)
            return []

        async with self._reading_or_dropping:
            return await self._backlog.run(work)

    async def tidy_backlog(self) -> None:
        """
        Drop segments that have become empty.

        Raises:
            StoreError: also where somebody reads a segment just now; it is dropped another time.
        """
        slot, epoch = self._claim()

        async def work(connection: AsyncConnection[Any]) -> None:
            rows = await connection.execute(self._statements["empty_segments"], {"slot": slot, "most": _TIDY_SEGMENTS})
            for (segment,) in await rows.fetchall():
                # Looked up again at the next use, however this ends; saves have their turn before or after all of it.
                self._segments = None
                parameters = {"slot": slot, "epoch": epoch, "segment": segment}
                await connection.execute(self._statements["close_segment"], parameters)

        if self._segments is not None and not self._segments.any:
            return
        async with self._reading_or_dropping:
            await self._progress.run(work)

    async def _load_segments(self, connection: AsyncConnection[Any], slot: str) -> Segments:
        rows = await (await connection.execute(self._statements["segments"], {"slot": slot})).fetchall()
        return Segments(rows)

    async def _places(
        self,
        connection: AsyncConnection[Any],
        slot: str,
        parked: Mapping[str, Sequence[Parked]],
        removed: Mapping[str, Sequence[bytes]],
    ) -> Sequence[tuple[int, list[str]]]:
        """Where the rows may stand that are to be taken out."""
        # Until this save has been answered for, the next one must reckon with its rows.
        unsure, self._unsure = self._unsure, True
        if unsure or self._segments is None:
            self._segments = await self._load_segments(connection, slot)
        places: list[tuple[int, list[str]]] = []
        for trigger in {**removed, **parked}:
            ids = [event_id.decode("ascii") for event_id in removed.get(trigger, ())]
            if unsure:
                ids += [each.event.id.decode("ascii") for each in parked.get(trigger, ())]
            places += self._segments.places(trigger, ids)
        return places

    async def _park(
        self, connection: AsyncConnection[Any], slot: str, trigger: str, changes: Sequence[Parked]
    ) -> tuple[int, str, str, str, int]:
        """Copy changes into the trigger's last segment, or a new one; returns what is to be noted once committed."""
        if self._segments is None:
            raise InvariantBroken("changes were to be parked before it was known where")
        segment = self._segments.writable(trigger)
        if segment is None:
            segment = int(
                await _value(connection, self._statements["open_segment"], {"slot": slot, "trigger": trigger})
            )
        # COPY has no parameters, so nothing looks for their placeholders in names.
        table = sql.Identifier(self._schema, f"backlog_{segment}")
        async with connection.cursor() as cursor:
            async with cursor.copy(self._statements.fill("park", table=table)) as copy:
                for block in copy_data(trigger, changes, self._progress.outgoing):
                    await copy.write(block)
            if cursor.rowcount != len(changes):
                raise InvariantBroken(f"{len(changes)} changes were parked, and the server counts {cursor.rowcount}")
        ids = [each.event.id for each in changes]
        first, last = min(ids).decode("ascii"), max(ids).decode("ascii")
        body_bytes = sum([len(each.event.body) for each in changes])
        await connection.execute(
            self._statements["count_parked"],
            {"segment": segment, "first": first, "last": last, "events": len(changes), "body_bytes": body_bytes},
        )
        return segment, trigger, first, last, body_bytes

    def _segment_table(self, segment: int) -> sql.Identifier:
        return sql.Identifier(self._schema.replace("%", "%%"), f"backlog_{segment}")

    # -- schema guards -----------------------------------------------------------------------------------------------

    async def schema_guards(self, slot: str) -> Mapping[str, Mapping[str, str]]:
        """By trigger, its items; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> Mapping[str, Mapping[str, str]]:
            found: dict[str, dict[str, str]] = {}
            rows = await (await connection.execute(self._statements["schema_guards"], {"slot": slot})).fetchall()
            for trigger, item, content in rows:
                found.setdefault(trigger, {})[item] = content
            return found

        return await self._progress.run(work)

    async def save_schema_guards(self, changes: Mapping[str, Mapping[str, str | None]]) -> None:
        """Store items, or drop them; see the protocol."""
        slot, epoch = self._claim()
        rows = [
            {"slot": slot, "trigger": trigger, "item": item, "content": content}
            for trigger, items in changes.items()
            for item, content in items.items()
        ]

        async def work(connection: AsyncConnection[Any]) -> bool:
            async with connection.transaction(), connection.cursor() as cursor:
                await cursor.execute(self._statements["hold_epoch"], {"slot": slot, "epoch": epoch})
                if cursor.rowcount == 0:
                    return False
                kept = [row for row in rows if row["content"] is not None]
                await cursor.executemany(self._statements["keep_schema_item"], kept)
                gone = [row for row in rows if row["content"] is None]
                await cursor.executemany(self._statements["drop_schema_item"], gone)
                return True

        if not await self._progress.run(work):
            raise _fenced(slot, epoch)

    # -- pauses ------------------------------------------------------------------------------------------------------

    async def pauses(self, slot: str) -> Mapping[str, KeptPause]:
        """By trigger; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> Mapping[str, KeptPause]:
            text = self._progress.incoming
            rows = await (await connection.execute(self._statements["pauses"], {"slot": slot})).fetchall()
            return {trigger: KeptPause(text(reason), text(remedy)) for trigger, reason, remedy in rows}

        return await self._progress.run(work)

    async def save_pauses(self, changes: Mapping[str, KeptPause | None]) -> None:
        """Keep them, or drop them; see the protocol."""
        slot, epoch = self._claim()

        async def work(connection: AsyncConnection[Any]) -> bool:
            text = self._progress.outgoing
            async with connection.transaction(), connection.cursor() as cursor:
                await cursor.execute(self._statements["hold_epoch"], {"slot": slot, "epoch": epoch})
                if cursor.rowcount == 0:
                    return False
                for trigger, pause in changes.items():
                    row = {"slot": slot, "trigger": trigger}
                    if pause is None:
                        await cursor.execute(self._statements["drop_pause"], row)
                    else:
                        row |= {"reason": text(pause.reason), "remedy": text(pause.remedy)}
                        await cursor.execute(self._statements["keep_pause"], row)
                return True

        if not await self._progress.run(work):
            raise _fenced(slot, epoch)

    # -- dead letters ------------------------------------------------------------------------------------------------

    async def letters(self, where: LetterFilter, *, limit: int | None = None) -> Sequence[DeadLetter]:
        """Matching letters in event order; as many as there are, so give a limit or iterate."""
        found: list[DeadLetter] = []
        while limit is None or len(found) < limit:
            rows = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(found))
            page = await self._page(where, found[-1] if found else None, rows, whole=True)
            if not page:
                break
            found += page
        return found

    async def iterate_letters(self, where: LetterFilter, *, whole: bool = True) -> AsyncIterator[DeadLetter]:
        """Page by page, each from where the last one ended: no transaction stays open in between."""
        page = await self._page(where, None, PAGE_ROWS, whole=whole)
        while page:
            for letter in page:
                yield letter
            page = await self._page(where, page[-1], PAGE_ROWS, whole=whole)

    async def count_letters(self, where: LetterFilter = ANY_LETTER) -> Mapping[str, int]:
        """Dead letters by trigger."""
        return (await self.survey_letters(where)).by_trigger

    async def survey_letters(self, where: LetterFilter) -> LetterSurvey:
        """How many match, and the newest of them."""

        async def work(connection: AsyncConnection[Any]) -> LetterSurvey:
            conditions, parameters = self._conditions(where)
            query = self._statements.fill("survey_letters", conditions=conditions)
            rows = await (await connection.execute(query, parameters)).fetchall()
            return LetterSurvey(
                {trigger: count for trigger, count, _ in sorted(rows)}, max((newest for *_, newest in rows), default=0)
            )

        return await self._letters.run(work)

    async def letter_keys(self, slot: str, trigger: str) -> LetterKeys:
        """The keys of a trigger's letters; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> LetterKeys:
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(self._statements["letter_keys"], {"slot": slot, "trigger": trigger})
                rows = await cursor.fetchall()
            keys = frozenset(bytes(key) for key, _ in rows if key is not None)
            return LetterKeys(keys, any(barrier for _, barrier in rows))

        return await self._letters.run(work)

    async def mark_reported(self, ids: Sequence[int]) -> None:
        """The on-failure destination knows."""

        async def work(connection: AsyncConnection[Any]) -> None:
            await connection.execute(self._statements["mark_reported"], {"ids": sorted(ids)})

        await self._letters.run(work)

    async def discard_letters(self, ids: Sequence[int]) -> int:
        """Delete by id; returns how many there were."""

        async def discard(some: list[int]) -> int:
            async def work(connection: AsyncConnection[Any]) -> int:
                return (await connection.execute(self._statements["discard_letters"], {"ids": some})).rowcount

            return await self._letters.run(work)

        # In order, so that two who delete the same do not wait for each other in a ring.
        ordered = sorted(set(ids))
        parts = [ordered[start : start + _DISCARD_ROWS] for start in range(0, len(ordered), _DISCARD_ROWS)]
        return sum([await discard(part) for part in parts])

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

        async def work(connection: AsyncConnection[Any]) -> None:
            text = self._letters.outgoing
            await connection.execute(
                self._statements["fail_letter_again"],
                {
                    "id": letter_id,
                    "error": text(error),
                    "detail": text(detail),
                    "status": status,
                    "request_id": None if request_id is None else text(request_id),
                    "log_tail": None if log_tail is None else text(log_tail),
                },
            )

        # Repeated where the answer was lost, the attempt may count twice: better that than the old reason.
        await self._letters.run(work)

    @asynccontextmanager
    async def replaying(
        self, slot: str, trigger: str, *, on_wait: Callable[[], None] | None = None
    ) -> AsyncIterator[PostgresReplayClaim]:
        """
        Hold a session advisory lock on the trigger's letters, in a connection of its own.

        It ends with the connection, so with the process, without a timeout to choose; no row is locked and no
        transaction open while targets take their time. It needs a session, so a pooler that lends connections by the
        transaction is found out and refused.
        """
        session = self._session()
        claim = PostgresReplayClaim(session, self._statements, lock_key("replay", self._schema, slot, trigger))
        try:
            while not await claim.take():
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                await asyncio.sleep(_REPLAY_POLL_SECONDS)
            await claim.check()
            yield claim
        finally:
            await session.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _session(self, **arguments: int) -> Session:
        return Session(self._dsn, self._schema, self._statements, **arguments)

    def _claim(self) -> tuple[str, int]:
        if self._claimed is None:
            raise InvariantBroken("progress was to be saved before a slot was claimed")
        return self._claimed

    async def _installed_version(self, connection: AsyncConnection[Any]) -> int:
        """0 where there are no tables."""
        if not await _value(connection, self._statements["has_version_table"], {"schema": self._schema}):
            return 0
        return int(await _value(connection, self._statements["installed_version"]))

    def _refuse_newer(self, version: int) -> None:
        if version > latest_version():
            raise StoreMisconfigured(
                f'the tables in schema "{self._schema}" have version {version}, '
                f"and this pgbridge knows versions up to {latest_version()}",
                remedy="run the newer pgbridge that made them",
            )

    async def _upgrade(self, connection: AsyncConnection[Any]) -> list[str]:
        async with connection.transaction():
            key = lock_key("migrate", self._schema)
            await connection.execute(self._statements["take_migration_lock"], {"key": key})
            # Read again: somebody else may have been at it while we waited.
            version = await self._installed_version(connection)
            self._refuse_newer(version)
            if version == 0:
                if not await _value(connection, self._statements["has_schema"], {"schema": self._schema}):
                    create = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._schema))
                    await connection.execute(create)
                await connection.execute(version_table(self._schema))
            due = [migration for migration in migrations() if migration.version > version]
            for migration in due:
                await connection.execute(migration.statement(self._schema))
                await connection.execute(record_version(self._schema, migration))
        return [migration.name for migration in due]

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

    def _row(self, slot: str, letter: DeadLetter) -> dict[str, object]:
        text = self._progress.outgoing
        return {
            "slot": slot,
            "trigger": letter.trigger,
            "event_id": letter.event_id,
            "table": text(letter.table),
            "event": letter.event,
            "error": text(letter.error),
            "detail": text(letter.detail),
            "status": letter.status,
            "request_id": None if letter.request_id is None else text(letter.request_id),
            "log_tail": None if letter.log_tail is None else text(letter.log_tail),
            "attempts": letter.attempts,
            "first_failed_at": letter.first_failed_at,
            "last_failed_at": letter.last_failed_at,
            "ordering_key": letter.ordering_key,
            "old_ordering_key": letter.old_ordering_key,
            "barrier": letter.barrier,
            "report": None if letter.report is None else text(letter.report),
        }

    async def _page(self, where: LetterFilter, after: DeadLetter | None, rows: int, *, whole: bool) -> list[DeadLetter]:
        async def work(connection: AsyncConnection[Any]) -> list[DeadLetter]:
            conditions, parameters = self._conditions(where)
            if after is not None:
                conditions += sql.SQL(" AND (event_id, id) > (%(after_event_id)s, %(after_id)s)")
                parameters |= {"after_event_id": after.event_id, "after_id": after.id}
            query = self._statements.fill(
                "page_of_letters",
                columns=_WHOLE if whole else _OUTLINE,
                size=_WHOLE_SIZE if whole else _OUTLINE_SIZE,
                conditions=conditions,
            )
            # Binary, for the events: as text, bytea comes in hexadecimal.
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(query, {**parameters, "rows": rows, "bytes": PAGE_BYTES})
                return [self._letter(row) for row in await cursor.fetchall()]

        return await self._letters.run(work)

    def _letter(self, row: Sequence[Any]) -> DeadLetter:
        text = self._letters.incoming
        (
            letter_id, trigger, event_id, table, event, detail, error, status, attempts, first_failed_at,
            last_failed_at, request_id, log_tail, ordering_key, old_ordering_key, barrier, report,
        ) = row  # fmt: skip
        return DeadLetter(
            id=letter_id,
            trigger=trigger,
            event_id=event_id,
            table=text(table),
            event=event,
            error=text(error),
            detail=text(detail),
            status=status,
            attempts=attempts,
            first_failed_at=first_failed_at,
            last_failed_at=last_failed_at,
            request_id=None if request_id is None else text(request_id),
            log_tail=None if log_tail is None else text(log_tail),
            ordering_key=ordering_key,
            old_ordering_key=old_ordering_key,
            barrier=barrier,
            report=None if report is None else text(report),
        )

    def _conditions(self, where: LetterFilter) -> tuple[sql.Composed, dict[str, object]]:
        """Only the conditions that were given: the planner can then choose an index for them."""
        text = self._letters.outgoing
        given: list[tuple[str, str, object]] = [
            ("slot = %(slot)s", "slot", where.slot),
            ("id = ANY (%(ids)s::bigint[])", "ids", None if where.ids is None else list(where.ids)),
            ("trigger = %(trigger)s", "trigger", where.trigger),
            ("table_name = %(table)s", "table", None if where.table is None else text(where.table)),
            ("first_failed_at >= %(since)s", "since", where.since),
            # Not LIKE: what was asked for may hold its wildcards.
            (
                "strpos(lower(error), lower(%(error)s)) > 0",
                "error",
                None if where.error is None else text(where.error),
            ),
            ("id <= %(up_to_id)s", "up_to_id", where.up_to_id),
            # The parameter is used up by a condition that always holds; the other one is what the index is made for.
            ("report IS NOT NULL AND %(unreported)s", "unreported", where.unreported or None),
        ]
        held = [(condition, name, value) for condition, name, value in given if value is not None]
        texts = [sql.SQL(condition) for condition, _, _ in held] or [sql.SQL("true")]
        return sql.SQL(" AND ").join(texts), {name: value for _, name, value in held}


class PostgresReplayClaim:
    """The lock of one replay, and the session that it lives in."""

    def __init__(self, session: Session, statements: Statements, key: int) -> None:
        self._session = session
        self._statements = statements
        self._key = key

    async def take(self) -> bool:
        """Whether the lock is ours now."""
        return bool(await self._ask("try_replay_lock"))

    async def check(self) -> None:
        """Find out whether the lock is still ours; see the protocol."""
        if not self._session.connected or not await self._ask("check_replay_lock"):
            raise StoreError(
                "the claim to replay was lost with its connection to the store",
                remedy="run the replay again; if that does not help, let store.dsn name PostgreSQL and not a pooler",
            )

    async def _ask(self, query: str) -> Any:
        async def work(connection: AsyncConnection[Any]) -> Any:
            return await _value(connection, self._statements[query], {"key": self._key})

        # A new connection would answer without the lock.
        return await self._session.run(work, repeatable=False)


async def _value(
    connection: AsyncConnection[Any], query: sql.Composed, parameters: Mapping[str, object] | None = None
) -> Any:
    """The one value of a query that answers one."""
    row = await (await connection.execute(query, parameters or {})).fetchone()
    if row is None:
        raise InvariantBroken("a query for one value answered none")
    return row[0]


def _fenced(slot: str, epoch: int) -> StoreFenced:
    return StoreFenced(
        f'slot "{slot}" was claimed by another process (our epoch is {epoch})',
        remedy="stop one of the two processes",
    )
