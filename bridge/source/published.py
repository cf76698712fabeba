"""A publication as it is, and the server that has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.source.commands import quote_literal
from bridge.source.queries import Queries
from bridge.source.tables import Table

OPERATIONS: Final = ("insert", "update", "delete", "truncate")
"""What a publication can publish, in the order of the manual."""

TABLES_IN_SCHEMA: Final = 150000
"""The first server that can publish a schema whole."""
SLICES: Final = 150000
"""The first server whose publications can choose rows and columns."""

_STATE: Final = """
SELECT p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
       pg_catalog.to_jsonb(p) ->> 'pubgencols', pg_catalog.pg_has_role(p.pubowner, 'USAGE')
  FROM pg_catalog.pg_publication p WHERE p.pubname =
"""
_STATE_TABLES: Final = """
SELECT n.nspname, c.relname, {slice}
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname =
"""
_WHOLE: Final = "NULL, NULL"
_SLICE: Final = """
       pg_catalog.pg_get_expr(r.prqual, r.prrelid),
       (SELECT pg_catalog.json_agg(pg_catalog.quote_ident(a.attname) ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]))
"""
_STATE_SCHEMAS: Final = """
SELECT n.nspname
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
 WHERE p.pubname =
"""
_SERVER: Final = (
    "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('is_superuser'),"
    " pg_catalog.current_user(), pg_catalog.current_database(),"
    " pg_catalog.current_setting('server_encoding')"
)


@dataclass(frozen=True, slots=True)
class Server:
    """Whom we talk to, and as whom."""

    version: int
    superuser: bool
    user: str
    database: str
    utf8: bool = True
    """Whether every character can be sent to it."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a table that is published, in the server's own spelling."""

    columns: tuple[str, ...] = ()
    """Quoted, in the table's order; none: all of them."""
    where: str = ""
    """The row filter; empty: all rows."""


WHOLE: Final = Slice()


@dataclass(frozen=True, slots=True)
class PublicationState:
    """A publication as it is."""

    name: str
    all_tables: bool
    operations: frozenset[str]
    via_root: bool
    generated_columns: bool | None
    """None before 18."""
    owned: bool
    """Whether we may alter it."""
    tables: frozenset[tuple[str, str]]
    schemas: frozenset[str]
    slices: Mapping[tuple[str, str], Slice]
    """Of the tables in `tables`, those of which only some rows or columns are published."""

    def names(self, table: Table) -> bool:
        """Whether it publishes this table by itself, whatever its partitioned parents do."""
        return self.all_tables or table.schema in self.schemas or (table.schema, table.name) in self.tables


async def ask_server(session: Queries) -> Server:
    """Raises SourceError if the server does not answer."""
    ((version, superuser, user, database, encoding),) = await session.query(_SERVER)
    return Server(int(version or 0), superuser == "on", user or "", database or "", utf8=encoding == "UTF8")


async def inspect(session: Queries, name: str) -> PublicationState | None:
    """
    The publication as it is; None where there is none of that name.

    Raises:
        SourceError: the server refused.
    """
    literal = quote_literal(name)
    rows = await session.query(_STATE + literal)
    if not rows:
        return None
    ((all_tables, inserts, updates, deletes, truncates, via_root, generated, owned),) = rows
    published = zip(OPERATIONS, (inserts, updates, deletes, truncates), strict=True)
    server = await ask_server(session)
    tables = await session.query(_STATE_TABLES.format(slice=_SLICE if server.version >= SLICES else _WHOLE) + literal)
    slices = {
        (schema or "", table or ""): Slice(tuple(orjson.loads(columns or "[]")), where or "")
        for schema, table, where, columns in tables
    }
    schemas = await session.query(_STATE_SCHEMAS + literal) if server.version >= TABLES_IN_SCHEMA else ()
    return PublicationState(
        name=name,
        all_tables=all_tables == "t",
        operations=frozenset(operation for operation, flag in published if flag == "t"),
        via_root=via_root == "t",
        generated_columns=None if generated is None else generated == "s",
        owned=owned == "t",
        tables=frozenset(slices),
        schemas=frozenset(schema or "" for (schema,) in schemas),
        slices={table: part for table, part in slices.items() if part != WHOLE},
    )
