"""`pgbridge event`: what an event of a table looks like, with made-up values, for tests and for `pgbridge filter`."""

from __future__ import annotations

import asyncio
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import orjson

from bridge.cli.options import config_option, json_option, load_settings
from bridge.cli.samples import TypeFacts, another, candidates
from bridge.errors import ConfigError, SourceMisconfigured
from bridge.triggers.tables import PatternSyntaxError, TablePattern

if TYPE_CHECKING:
    from bridge.change import Event
    from bridge.config import Settings
    from bridge.pgoutput.messages import RelationMessage, TupleData
    from bridge.pgoutput.plan import Plan
    from bridge.source.libpq import Row, Wire

# The same on every run, so that a sample can be kept beside a test: the ones of the documentation's example.
COMMIT_LSN: Final = 0x1A2B3C0
ORDINAL: Final = 3
XID: Final = 743
COMMITTED_AT_MICROSECONDS: Final = 848_641_020_123_456
"""Since 2000: 2026-11-22T05:37:00.123456Z."""
SYSTEM_IDENTIFIER: Final = "7000000000000000000"
NO_TRIGGER: Final = "sample"
"""Stands for the trigger's name where no trigger takes the table."""


@click.command(epilog="Example:  pgbridge event public.users --operation update --trigger welcome-email")
@click.argument("table", metavar="SCHEMA.TABLE")
@click.option(
    "--operation",
    type=click.Choice(["insert", "update", "delete", "truncate"]),
    default="insert",
    envvar="PGBRIDGE_EVENT_OPERATION",
    show_default=True,
    show_envvar=True,
    help="What happened to the row.",
)
@click.option(
    "--trigger",
    envvar="PGBRIDGE_EVENT_TRIGGER",
    show_envvar=True,
    help="With the columns of this trigger.  [default: the first that takes the table]",
)
@click.option("--batch", is_flag=True, help='As a function gets it: {"Records": [event]}.')
@json_option
@config_option
def command(*, config: Path, table: str, operation: str, trigger: str | None, batch: bool, as_json: bool) -> None:
    """
    Print a sample event for a table.

    Names and types come from the database's catalog, the values are made up; no row is read. With --json it stands on
    one line, byte for byte as it would be sent.
    """
    settings = load_settings(config)
    body = asyncio.run(_sample(settings, _exact(table), operation, trigger, batch=batch))
    # Indented by a parser, which would round no number here: int8 fits, and numeric is text.
    click.echo(body if as_json else orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2))


def _exact(text: str) -> tuple[str, str]:
    try:
        pattern = TablePattern.parse(text)
    except PatternSyntaxError as error:
        raise ConfigError(str(error)) from error
    if pattern.exact is None or pattern.excludes:
        raise ConfigError(f"{text!r} names no single table", remedy="write schema.table, such as public.users")
    return pattern.exact


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as the catalog describes it."""

    database: str
    relation: RelationMessage
    primary_key: tuple[str, ...]
    types: dict[int, TypeFacts] = field(repr=False)
    """By OID, of the columns and of what they are made of."""
    type_names: tuple[str, ...]
    """Of the columns, as SQL writes them: `numeric(12,2)`."""

    @property
    def identity(self) -> frozenset[str]:
        """Columns that name a row, which an ordinary update leaves as they are."""
        full = self.relation.replica_identity == "f"
        flagged = () if full else (column.name for column in self.relation.columns if column.is_key)
        return frozenset((*self.primary_key, *flagged))


async def _sample(
    settings: Settings, table: tuple[str, str], operation: str, trigger: str | None, *, batch: bool
) -> bytes:
    from bridge.pgoutput.plan import Plan  # noqa: PLC0415 - --help needs none of it
    from bridge.secret import SecretResolver  # noqa: PLC0415 - as above
    from bridge.source.session import connected, pin  # noqa: PLC0415 - as above
    from bridge.triggers.envelope import Envelope  # noqa: PLC0415 - as above
    from bridge.triggers.shape import Shape  # noqa: PLC0415 - as above

    name = _trigger(settings, table, trigger)
    secrets = SecretResolver()
    keys = {} if name is None else await secrets.fetch_all(settings.triggers[name].mask_keys)
    dsn = await secrets.fetch(settings.source.dsn)
    async with connected(dsn, application_name="pgbridge event") as wire:
        await pin(wire)
        described = await _describe(wire, table)
        new, old = await _rows(wire, described)
    plan = Plan(
        described.relation,
        Shape() if name is None else settings.triggers[name].shape(keys),
        database=described.database,
        primary_key=described.primary_key or None,
        catalog=lambda oid: described.types[oid].in_catalog if oid in described.types else None,
    )
    event = _event(plan, operation, new, old)
    envelope = Envelope(name or NO_TRIGGER, SYSTEM_IDENTIFIER)
    return envelope.records([event]) if batch else envelope.event(event)


def _trigger(settings: Settings, table: tuple[str, str], wanted: str | None) -> str | None:
    """The trigger whose event it is."""
    if wanted is None:
        taking = (name for name, trigger in settings.triggers.items() if trigger.table_selection.matches(*table))
        return next(taking, None)
    if wanted not in settings.triggers:
        known = ", ".join(sorted(settings.triggers))
        raise ConfigError(f"--trigger: there is no trigger {wanted!r}", remedy=f"name one of these: {known}")
    return wanted


def _event(plan: Plan, operation: str, new: TupleData, old: TupleData) -> Event:
    """
    The event of a made-up change.

    Raises:
        SourceMisconfigured: the server would refuse such a change, for the table has no replica identity.
    """
    from bridge.change import Transaction  # noqa: PLC0415 - as above
    from bridge.pgoutput.messages import Delete, Insert, Update  # noqa: PLC0415 - as above
    from bridge.pgoutput.plan import make_stamp  # noqa: PLC0415 - as above

    relation = plan.relation
    transaction = Transaction(COMMIT_LSN, COMMIT_LSN, 0.0, XID)
    stamp = make_stamp(transaction, COMMITTED_AT_MICROSECONDS)
    full = relation.replica_identity == "f"
    keyed = any(column.is_key for column in relation.columns)
    if operation == "truncate":
        return plan.encode_truncate(0, ORDINAL, stamp)
    if operation == "insert":
        return plan.encode(Insert(relation.oid, new), ORDINAL, stamp)
    if not full and not keyed:
        raise SourceMisconfigured(
            f"{relation.qualified_name} has no replica identity, so PostgreSQL refuses every {operation} of it",
            remedy=f"give it a primary key, or: ALTER TABLE {relation.qualified_name} REPLICA IDENTITY FULL",
        )
    if operation == "update":
        return plan.encode(Update(relation.oid, None, old if full else None, new), ORDINAL, stamp)
    key = tuple(value if column.is_key else None for value, column in zip(new, relation.columns, strict=True))
    return plan.encode(Delete(relation.oid, None if full else key, new if full else None), ORDINAL, stamp)


# -- the catalog -------------------------------------------------------------------------------------------------------

# Literals are quoted by `quote_literal`; the type's name in `_CAST` is the server's own, from format_type.
_FIND: Final = """
SELECT c.oid, c.relreplident, pg_catalog.current_database()
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname = {schema} AND c.relname = {table}
"""

_NAMES: Final = """
SELECT n.nspname || '.' || c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""

# Generated columns are not sent.
_COLUMNS: Final = """
SELECT a.attname, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod),
       COALESCE(a.attnum = ANY (p.indkey), false), COALESCE(a.attnum = ANY (i.indkey), false)
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_index p ON p.indrelid = a.attrelid AND p.indisprimary
  LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisreplident
 WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attnum
"""

_TYPES: Final = """
WITH RECURSIVE needed (oid) AS (
    SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped
  UNION
    SELECT part.oid
      FROM needed JOIN pg_catalog.pg_type t USING (oid)
     CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS part (oid)
     WHERE part.oid <> 0
)
SELECT t.oid, t.typname, t.typtype, t.typbasetype, t.typtypmod,
       CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc THEN t.typelem ELSE 0 END,
       COALESCE((SELECT e.typdelim FROM pg_catalog.pg_type e WHERE e.oid = t.typelem), ','),
       (SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder LIMIT 1),
       (SELECT count(*) FROM pg_catalog.pg_attribute m
         WHERE m.attrelid = t.typrelid AND m.attnum > 0 AND NOT m.attisdropped)
  FROM needed JOIN pg_catalog.pg_type t USING (oid)
"""

_CAST: Final = "SELECT CAST({text}::pg_catalog.text AS {type})"

_REFUSED: Final = ("22", "23", "42")
"""SQLSTATE classes by which a text is none of a type: its input, a domain's check, no such cast."""


async def _describe(wire: Wire, table: tuple[str, str]) -> _Table:
    """
    Look a table up.

    Raises:
        SourceMisconfigured: there is none of that name.
    """
    from bridge.pgoutput.messages import KEY_FLAG, Column, RelationMessage  # noqa: PLC0415 - as above
    from bridge.source.commands import quote_literal  # noqa: PLC0415 - as above

    schema, name = table
    found = await wire.query(_FIND.format(schema=quote_literal(schema), table=quote_literal(name)))
    if not found:
        names = [known or "" for (known,) in await wire.query(_NAMES)]
        near = difflib.get_close_matches(f"{schema}.{name}", names, n=1)
        raise SourceMisconfigured(
            f"there is no table {schema}.{name} in this database",
            remedy=f"did you mean {near[0]}?" if near else "name one that there is",
        )
    ((oid, identity, database),) = [[value or "" for value in row] for row in found]
    columns = [[value or "" for value in row] for row in await wire.query(_COLUMNS.format(oid=oid))]
    flag_at = {"d": 4, "i": 5}.get(identity)
    described = tuple(
        Column(
            KEY_FLAG if identity == "f" or (flag_at is not None and row[flag_at] == "t") else 0,
            row[0],
            int(row[1]),
            int(row[2]),
        )
        for row in columns
    )
    return _Table(
        database,
        RelationMessage(int(oid), schema, name, identity, described),
        tuple(row[0] for row in columns if row[4] == "t"),
        {facts.oid: facts for facts in map(_facts, await wire.query(_TYPES.format(oid=oid)))},
        tuple(row[3] for row in columns),
    )


def _facts(row: Row) -> TypeFacts:
    oid, name, kind, base, base_modifier, element, delimiter, label, members = row
    return TypeFacts(
        oid=int(oid or 0),
        name=name or "",
        kind=kind or "",
        base=int(base or 0),
        base_modifier=int(base_modifier or -1),
        element=int(element or 0),
        delimiter=delimiter or ",",
        label=label,
        members=int(members or 0),
    )


async def _rows(wire: Wire, table: _Table) -> tuple[TupleData, TupleData]:
    """A row, and how it was before an update changed one column of it."""
    new: list[bytes | None] = []
    spare: tuple[int, bytes] | None = None
    for index, column in enumerate(table.relation.columns):
        texts = candidates(table.types, column.type_oid, column.type_modifier, column.name)
        text, value = await _first_accepted(wire, table.type_names[index], texts)
        new.append(value)
        if spare is None and text is not None and column.name not in table.identity:
            _, other = await _first_accepted(wire, table.type_names[index], another(texts, text))
            if other is not None and other != value:
                spare = index, other
    old = list(new)
    if spare is not None:
        old[spare[0]] = spare[1]
    return tuple(new), tuple(old)


async def _first_accepted(wire: Wire, type_name: str, texts: list[str]) -> tuple[str | None, bytes | None]:
    """
    The first text that the server takes for the type, and the server's own form of it; nothing where it takes none.

    Raises:
        SourceError: the server could not be asked.
    """
    from bridge.source import failure  # noqa: PLC0415 - as above
    from bridge.source.commands import quote_literal  # noqa: PLC0415 - as above

    for text in texts:
        answer = await wire.execute(_CAST.format(text=quote_literal(text), type=type_name), timeout_seconds=10)
        if not answer.failed:
            ((value,),) = answer.rows
            return text, None if value is None else value.encode()
        if (answer.sqlstate or "")[:2] not in _REFUSED:
            raise failure.while_querying("make sample values", answer.sqlstate, answer.said)
    return None, None
