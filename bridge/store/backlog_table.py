"""
The backlog in PostgreSQL: a table of many segments, each a table of its own that is dropped once it is empty.

What stands where is known without asking (`segments.py`), since one process at a time writes. It is looked up again
when somebody else may have written, and after a save whose answer was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg import AsyncConnection, sql

from bridge.errors import InvariantBroken
from bridge.store.backlog_rows import copy_data, read_rows
from bridge.store.claim import Claim
from bridge.store.protocol import Parked
from bridge.store.segments import Segments
from bridge.store.session import Session, one_value
from bridge.store.statements import Statements

# Empty segments dropped at once; a save that comes meanwhile waits for it.
_TIDY_SEGMENTS: Final = 4

Written = tuple[int, str, str, str, int]
"""What `Segments.written` is to be told once it is committed."""


class BacklogTable:
    """
    Args:
        schema: its name.
        statements: with that name in them.
        progress: the session that saves, in whose transactions changes are parked and taken out.
        pages: the session that reads.
    """

    def __init__(self, schema: str, statements: Statements, *, progress: Session, pages: Session) -> None:
        self._schema = schema
        self._statements = statements
        self._progress = progress
        self._pages = pages
        self._segments: Segments | None = None
        """As in the database; None while that is not known."""
        self._unsure = False
        """Whether a save into the backlog may have been made although its answer was lost."""
        self._writes = 0
        self._reading_or_dropping = asyncio.Lock()

    def forget(self) -> None:
        """Somebody else may have written."""
        self._segments = None

    async def read(self, slot: str, trigger: str, after: bytes, *, events: int, body_bytes: int) -> Sequence[Parked]:
        """A page of a trigger's backlog; see the protocol."""
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
                    return read_rows(rows, self._pages.incoming)
            return []

        async with self._reading_or_dropping:
            return await self._pages.run(work)

    async def tidy(self, claim: Claim) -> None:
        """
        Drop segments that have become empty.

        Raises:
            StoreError: also where somebody reads a segment just now; it is dropped another time.
        """

        async def work(connection: AsyncConnection[Any]) -> None:
            parameters = {"slot": claim.slot, "most": _TIDY_SEGMENTS}
            rows = await connection.execute(self._statements["empty_segments"], parameters)
            for (segment,) in await rows.fetchall():
                # Looked up again at the next use, however this ends; saves have their turn before or after all of it.
                self._segments = None
                await connection.execute(
                    self._statements["close_segment"], {"slot": claim.slot, "epoch": claim.epoch, "segment": segment}
                )

        if self._segments is not None and not self._segments.any:
            return
        async with self._reading_or_dropping:
            await self._progress.run(work)

    # -- in a save ---------------------------------------------------------------------------------------------------

    async def removals(
        self,
        connection: AsyncConnection[Any],
        slot: str,
        parked: Mapping[str, Sequence[Parked]],
        removed: Mapping[str, Sequence[bytes]],
    ) -> list[tuple[sql.Composed, dict[str, object]]]:
        """The statements that take out what is to go; to be asked for once in each save."""
        # Until this save has been answered for, the next one must reckon with its rows.
        unsure, self._unsure = self._unsure, True
        if unsure or self._segments is None:
            self._segments = await self._load_segments(connection, slot)
        statements: list[tuple[sql.Composed, dict[str, object]]] = []
        for trigger in {**removed, **parked}:
            ids = [event_id.decode("ascii") for event_id in removed.get(trigger, ())]
            if unsure:
                ids += [each.event.id.decode("ascii") for each in parked.get(trigger, ())]
            for segment, some in self._segments.places(trigger, ids):
                statement = self._statements.fill("take_out", table=self._segment_table(segment))
                statements.append((statement, {"segment": segment, "ids": some}))
        return statements

    async def park(
        self, connection: AsyncConnection[Any], slot: str, trigger: str, changes: Sequence[Parked]
    ) -> Written:
        """Copy changes into the trigger's last segment, or a new one."""
        if self._segments is None:
            raise InvariantBroken("changes were to be parked before it was known where")
        segment = self._segments.writable(trigger)
        if segment is None:
            parameters = {"slot": slot, "trigger": trigger}
            segment = int(await one_value(connection, self._statements["open_segment"], parameters))
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

    def saved(self, written: Sequence[Written]) -> None:
        """The save has been answered for; `written` is what was parked in it."""
        self._unsure = False
        self._writes += 1
        for each in written:
            if self._segments is not None:
                self._segments.written(*each)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _load_segments(self, connection: AsyncConnection[Any], slot: str) -> Segments:
        rows = await (await connection.execute(self._statements["segments"], {"slot": slot})).fetchall()
        return Segments(rows)

    def _segment_table(self, segment: int) -> sql.Identifier:
        return sql.Identifier(self._schema.replace("%", "%%"), f"backlog_{segment}")
