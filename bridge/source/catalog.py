"""
What the stream does not say of tables and types, read from the system catalogs.

A Relation message flags no key where the replica identity is FULL or NOTHING, and a Type message has a type's name but
not whether it is a domain or an array. Both are read when a stream starts, and again, for one relation, when the stream
describes a table that may have been altered since or uses a type that was made since (`CatalogReader`).

How new is new enough? Whoever alters a table holds its lock until the altering transaction is visible to others. So a
row written after the change was written by a transaction that came later, or by the altering one itself: a catalog read
under a snapshot that sees the row's transaction sees the table as that row needs it, or newer. Newer is what a backlog
is read with; the catalog keeps no history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Self

import structlog

from bridge.errors import SourceError, SourceUnavailable
from bridge.observe import log as events
from bridge.pgoutput.lookup import Lookup
from bridge.pgoutput.values import CatalogType
from bridge.source.libpq import Wire
from bridge.source.lingering import LingeringSession
from bridge.source.queries import Queries

_PRIMARY_KEYS: Final = """
SELECT i.indrelid, a.attname
  FROM pg_catalog.pg_index i
  CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indisprimary AND {which}
 ORDER BY i.indrelid, k.place
"""

_TYPES: Final = """
WITH RECURSIVE needed (oid) AS (
    {which}
  UNION
    SELECT part.oid
      FROM needed JOIN pg_catalog.pg_type t USING (oid)
     CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS part (oid)
     WHERE part.oid >= 10000
)
SELECT t.oid, t.typtype, t.typbasetype,
       CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc THEN t.typelem ELSE 0 END,
       coalesce(e.typdelim, ',')
  FROM needed
  JOIN pg_catalog.pg_type t USING (oid)
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
"""

# From FirstGenbkiObjectId on OIDs differ from server to server. Every table has a row type and an array of it; they are
# left out here, and read when a column is of such a type.
_ALL_TYPES: Final = """
    SELECT t.oid FROM pg_catalog.pg_type t
      LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
      LEFT JOIN pg_catalog.pg_class c ON c.oid = CASE WHEN t.typtype = 'c' THEN t.typrelid ELSE e.typrelid END
     WHERE t.oid >= 10000 AND t.typtype <> 'p' AND (c.oid IS NULL OR c.relkind = 'c')
"""

_SNAPSHOT: Final = "SELECT pg_catalog.pg_current_snapshot()"

LOOKUP_SECONDS: Final = 2.0
"""
How long a transaction that was streamed to us may stay invisible. It is sent once its commit is on disk, a moment
before others see it; that moment lasts where the server waits for a synchronous standby.
"""
_FIRST_PAUSE_SECONDS: Final = 0.005
LINGER_SECONDS: Final = 5.0
"""How long the connection for lookups is kept after one: an altered publication brings one for each of its tables."""

log = structlog.get_logger("pgbridge.source")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Which transactions a query saw (`pg_current_snapshot`)."""

    xmax: int
    """Neither this nor any later transaction; 64 bits, with the epoch."""
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `xmin:xmax:xid,xid,…`."""
        _, xmax, listed = text.split(":")
        return cls(int(xmax), frozenset(int(xid) for xid in listed.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Whether a committed transaction is visible; its id has 32 bits, as in the stream."""
        before = (self.xmax - xid) & 0xFFFF_FFFF
        # Ids that are compared lie within 2^31 of each other: the server stops before the slot's are further back.
        return 0 < before < 1 << 31 and self.xmax - before not in self.in_progress


class Catalog:
    """The catalogs as they were when each part was read; `look_up` reads a part again."""

    def __init__(
        self,
        primary_keys: Mapping[int, tuple[str, ...]],
        types: Mapping[int, CatalogType],
        snapshot: Snapshot,
    ) -> None:
        self._primary_keys = dict(primary_keys)
        self._types: dict[int, CatalogType | None] = dict(types)  # None: there is no such type, any more
        self._snapshot = snapshot
        self._snapshots: dict[int, Snapshot] = {}  # of relations whose key was read again
        self._done_without: Lookup | None = None

    def primary_key(self, relation_oid: int) -> tuple[str, ...] | None:
        """Columns of a table's primary key, in its order; None where it has none."""
        return self._primary_keys.get(relation_oid)

    def type_of(self, type_oid: int) -> CatalogType | None:
        """What is known of a type that is not built in; None for row types of tables, which are text."""
        return self._types.get(type_oid)

    def lacks(self, lookup: Lookup) -> bool:
        """Whether reading again could change the answers for a relation, as a transaction left it."""
        if lookup == self._done_without:
            return False
        if lookup.key_of is not None and not self._snapshots.get(lookup.key_of, self._snapshot).sees(lookup.xid):
            return True
        return any(oid not in self._types for oid in lookup.types)

    async def look_up(self, session: Queries, lookup: Lookup) -> None:
        """
        Read what a lookup asks for; `lacks` may stay true where the transaction is not visible yet.

        Raises:
            SourceError: the server refused.
        """
        # Statements that follow see at least what the first one saw.
        snapshot = await _snapshot(session)
        if lookup.key_of is not None:
            found = await _read_primary_keys(session, f"i.indrelid = {lookup.key_of}")
            self._primary_keys.pop(lookup.key_of, None)
            self._primary_keys.update(found)
            self._snapshots[lookup.key_of] = snapshot
        unknown = [oid for oid in lookup.types if oid not in self._types]
        if unknown:
            self._types.update(await _read_types(session, _values(unknown)))
            if snapshot.sees(lookup.xid):
                for oid in unknown:
                    self._types.setdefault(oid, None)

    def do_without(self, lookup: Lookup) -> None:
        """Let `lacks` be false for this lookup, so that the stream goes on with what is known."""
        self._done_without = lookup


class CatalogReader:
    """
    Answers lookups over an ordinary connection of its own, for the one that streams can't.

    Args:
        catalog: to be brought up to date.
        dsn: the source's, asked for at each connection.
        linger_seconds: how long the connection is kept after a lookup.
        lookup_seconds: how long a transaction may stay invisible.
    """

    def __init__(
        self,
        catalog: Catalog,
        dsn: Callable[[], Awaitable[str]],
        *,
        linger_seconds: float = LINGER_SECONDS,
        lookup_seconds: float = LOOKUP_SECONDS,
    ) -> None:
        self.lookups = 0
        """How often the catalog was read again."""
        self._catalog = catalog
        self._lookup_seconds = lookup_seconds
        self._session = LingeringSession(dsn, application_name="pgbridge catalog", linger_seconds=linger_seconds)

    async def look_up(self, lookup: Lookup) -> None:
        """
        Read what is asked for; afterwards the catalog lacks it no more.

        Raises:
            SourceUnavailable: it could not be read. The next stream reads the whole catalog when it starts.
        """
        self.lookups += 1
        try:
            await self._session.ask(lambda wire: self._ask(wire, lookup))
        except SourceError as error:
            raise SourceUnavailable(f"the catalog could not be read for {lookup.table}: {error.message}") from error

    async def _ask(self, wire: Wire, lookup: Lookup) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lookup_seconds
        pause = _FIRST_PAUSE_SECONDS
        await self._catalog.look_up(wire, lookup)
        while self._catalog.lacks(lookup):
            if loop.time() >= until:
                log.warning(events.CATALOG_BEHIND, table=lookup.table, waited_seconds=self._lookup_seconds)
                self._catalog.do_without(lookup)
                return
            await asyncio.sleep(pause)
            pause *= 2
            await self._catalog.look_up(wire, lookup)

    def close(self) -> None:
        """Leave the server; a later lookup connects again."""
        self._session.close()


async def load(session: Queries) -> Catalog:
    """
    Read the catalogs; any role may.

    Raises:
        SourceError: the server refused.
    """
    snapshot = await _snapshot(session)
    return Catalog(
        await _read_primary_keys(session, "i.indrelid >= 16384"),
        await _read_types(session, _ALL_TYPES),
        snapshot,
    )


async def _snapshot(session: Queries) -> Snapshot:
    ((text,),) = await session.query(_SNAPSHOT)
    return Snapshot.parse(text or "")


async def _read_primary_keys(session: Queries, which: str) -> dict[int, tuple[str, ...]]:
    keys: dict[int, list[str]] = {}
    for relation, column in await session.query(_PRIMARY_KEYS.format(which=which)):
        keys.setdefault(int(relation or 0), []).append(column or "")
    return {relation: tuple(columns) for relation, columns in keys.items()}


async def _read_types(session: Queries, which: str) -> dict[int, CatalogType]:
    return {
        int(oid or 0): CatalogType(
            kind=kind or "b", base=int(base or 0), element=int(element or 0), delimiter=delimiter or ","
        )
        for oid, kind, base, element, delimiter in await session.query(_TYPES.format(which=which))
    }


def _values(oids: Collection[int]) -> str:
    return "VALUES " + ", ".join(f"({oid}::pg_catalog.oid)" for oid in oids)
