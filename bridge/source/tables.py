"""The tables of the database: what a trigger's patterns can name, and what publishing would do to each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.source.commands import quote_qualified
from bridge.source.libpq import Row
from bridge.source.queries import Queries

_PUBLISHABLE_KINDS: Final = frozenset({"r", "p"})
_KIND_NAMES: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_IDENTITY_NAMES: Final = {"d": "default", "f": "full", "i": "index", "n": "nothing"}

# Which index identifies rows: RelationGetIndexList in relcache.c. A deferrable primary key does not, and one that is
# not valid (a failed CREATE INDEX CONCURRENTLY) does not either. The root of a partition tree is its last ancestor.
_TABLES: Final = """
SELECT n.nspname, c.relname, c.oid, c.relkind, c.relpersistence, c.relreplident,
       CASE c.relreplident
            WHEN 'f' THEN true
            WHEN 'n' THEN false
            ELSE EXISTS (SELECT FROM pg_catalog.pg_index i
                          WHERE i.indrelid = c.oid AND i.indislive AND (i.indisvalid OR c.relkind = 'p')
                            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                                    ELSE i.indisreplident END)
       END,
       CASE WHEN c.relispartition
            THEN (SELECT pg_catalog.string_agg(a.relid::pg_catalog.oid::pg_catalog.text, ' ')
                    FROM pg_catalog.pg_partition_ancestors(c.oid) a WHERE a.relid <> c.oid)
       END,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE'),
       (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attname, pg_catalog.quote_ident(a.attname),
                    a.atttypid::pg_catalog.int8, a.attgenerated <> '',
                    (SELECT k.collisdeterministic AND k.oid < 16384 FROM pg_catalog.pg_collation k
                      WHERE k.oid = a.attcollation)) ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT pg_catalog.json_agg(a.attname)
          FROM pg_catalog.pg_index i
          JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid
                                        AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
         WHERE i.indrelid = c.oid AND i.indislive AND (i.indisvalid OR c.relkind = 'p')
           AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                   WHEN 'i' THEN i.indisreplident END)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
 ORDER BY n.nspname, c.relname
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    quoted: str
    """As the server quotes it, which is only where it must."""
    type_oid: int
    generated: bool
    plainly_collated: bool
    """Whether texts that are equal here are the same characters, and the server's own collations say so."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or something that looks like one to whoever writes a pattern."""

    schema: str
    name: str
    oid: int
    kind: str
    """As `pg_class.relkind`."""
    persistence: str
    """As `pg_class.relpersistence`."""
    identity: str
    """Replica identity: default, full, index or nothing."""
    identifies_rows: bool
    """Whether the replica identity gives old keys; if not, publishing updates makes the table's updates fail."""
    ancestors: frozenset[int]
    """Oids of the partitioned tables that this is a partition of, at any depth."""
    readable: bool
    """Whether we may SELECT from it."""
    owned: bool
    """Whether we may add it to a publication."""
    columns: frozenset[str] = frozenset()
    """Names of its columns; none where that is not known."""
    key: frozenset[str] = frozenset()
    """Those of its replica identity where that is an index: of these alone the server sends old values."""
    details: tuple[Column, ...] = ()
    """The columns, in their order; none where they are not known."""

    @property
    def full_name(self) -> str:
        """`schema.table`, as patterns and events spell it."""
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return quote_qualified(self.schema, self.name)

    @property
    def unpublishable(self) -> str | None:
        """Why PostgreSQL does not publish it; None where it does."""
        if self.kind not in _PUBLISHABLE_KINDS:
            return f"is {_KIND_NAMES.get(self.kind, 'no table')}"
        if self.persistence == "u":
            return "is an unlogged table"
        return None


async def list_tables(session: Queries) -> list[Table]:
    """
    All tables and views that are neither the system's nor temporary, by name.

    Raises:
        SourceError: the server refused.
    """
    return [_table(row) for row in await session.query(_TABLES)]


def _table(row: Row) -> Table:
    schema, name, oid, kind, persistence, identity, identifies, ancestors, readable, owned, *lists = row
    columns, key = (orjson.loads(listed or "[]") for listed in lists)
    return Table(
        schema=schema or "",
        name=name or "",
        oid=int(oid or 0),
        kind=kind or "",
        persistence=persistence or "",
        identity=_IDENTITY_NAMES.get(identity or "", ""),
        identifies_rows=identifies == "t",
        ancestors=frozenset(int(ancestor) for ancestor in (ancestors or "").split()),
        readable=readable == "t",
        owned=owned == "t",
        columns=frozenset(column[0] for column in columns),
        key=frozenset(key),
        details=tuple(
            Column(column, quoted, type_oid, generated=generated, plainly_collated=plainly_collated is True)
            for column, quoted, type_oid, generated, plainly_collated in columns
        ),
    )


def leaves(table: Table, tables: Iterable[Table]) -> list[Table]:
    """The tables whose rows are this one's: itself, or its partitions at any depth that hold rows."""
    if table.kind != "p":
        return [table]
    return [other for other in tables if table.oid in other.ancestors and other.kind != "p"]
