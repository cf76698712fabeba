"""`pgbridge tail`: changes as they are committed, read through a slot that goes when the command ends."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli.options import config_option, json_option, load_settings
from bridge.cli.output import on_one_line
from bridge.errors import ConfigError, SourceMisconfigured
from bridge.triggers.shape import Shape
from bridge.triggers.tables import PatternSyntaxError, TableSelection

if TYPE_CHECKING:
    from bridge.change import Event
    from bridge.config import Settings
    from bridge.pgoutput.assembler import Assembler, Route
    from bridge.pgoutput.messages import RelationMessage
    from bridge.secret import Secret
    from bridge.source.catalog import Catalog, CatalogReader
    from bridge.source.connection import ReplicationConnection
    from bridge.triggers.selection import Selection

OWN_MESSAGES: Final = "pgbridge."
"""Logical messages with such a prefix are our own."""

WITHOUT_TRIGGER: Final = b'"trigger":null,"idempotency_key":null}}'
"""Completes an event's body that no trigger asked for."""

OPERATIONS: Final = ("insert", "update", "delete", "truncate", "message")

_STATUS_SECONDS: Final = 10.0
"""At most this long between two status updates; under any wal_sender_timeout that is in use."""

_COLORS: Final = {"insert": "green", "update": "yellow", "delete": "red", "truncate": "magenta", "message": "cyan"}
_VALUE_WIDTH: Final = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes to print, and in what shape."""

    tables: tuple[TableSelection, ...]
    """A table must be in all of them; none means every table of the publication."""
    operations: frozenset[str]
    trigger: str | None = None
    shape: Shape = field(default_factory=Shape)
    selection: Selection | None = None
    """The trigger's filter, where it has one."""

    def wants_table(self, schema: str, name: str) -> bool:
        return all(selection.matches(schema, name) for selection in self.tables)


@click.command(epilog="Example:  pgbridge tail --table 'shop.*' --operations insert,update --limit 10")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="PATTERN",
    envvar="PGBRIDGE_TAIL_TABLE",
    show_envvar=True,
    help="Only these tables: schema.table, globs allowed; may be given several times.  [default: all published]",
)
@click.option(
    "--trigger",
    envvar="PGBRIDGE_TAIL_TRIGGER",
    show_envvar=True,
    help="Only what this trigger would get, as it would get it.",
)
@click.option(
    "--operations",
    envvar="PGBRIDGE_TAIL_OPERATIONS",
    show_envvar=True,
    metavar="LIST",
    help=f"Only these, separated by commas: {', '.join(OPERATIONS)}.  [default: all]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    envvar="PGBRIDGE_TAIL_LIMIT",
    show_envvar=True,
    help="End after this many changes.  [default: go on until Ctrl-C]",
)
@json_option
@config_option
def command(
    *,
    config: Path,
    tables: tuple[str, ...],
    trigger: str | None,
    operations: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """
    Print changes as they are committed, from now on.

    Reads the configured publication through a temporary slot of its own: the slot of `pgbridge run` is not touched, and
    nothing stays behind. With --json each change is the event of one line, as a target would get it.
    """
    settings = load_settings(config)
    keys = asyncio.run(_mask_keys(settings, trigger))
    wanted = _wanted(settings, tables, trigger, operations, keys)
    asyncio.run(_tail(settings, wanted, limit, as_json=as_json))


def _wanted(
    settings: Settings,
    tables: tuple[str, ...],
    trigger: str | None,
    operations: str | None,
    keys: Mapping[Secret, str] = MappingProxyType({}),
) -> Wanted:
    """
    What the options ask for; `keys` are those that masks hash with.

    Raises:
        ConfigError: a pattern, an operation or a trigger that does not exist.
    """
    chosen = _operations(operations)
    selections: tuple[TableSelection, ...] = ()
    if tables:
        try:
            selections = (TableSelection.parse(tables),)
        except PatternSyntaxError as error:
            raise ConfigError(f"--table: {error}") from error
    if trigger is None:
        return Wanted(selections, chosen)
    own = settings.triggers.get(trigger)
    if own is None:
        known = ", ".join(sorted(settings.triggers))
        raise ConfigError(f"--trigger: there is no trigger {trigger!r}", remedy=f"name one of these: {known}")
    selection = None if own.selection is None else own.selection.of(trigger)
    return Wanted((*selections, own.table_selection), chosen & set(own.operations), trigger, own.shape(keys), selection)


async def _mask_keys(settings: Settings, trigger: str | None) -> Mapping[Secret, str]:
    from bridge.secret import SecretResolver  # noqa: PLC0415 - --help needs none of it

    own = None if trigger is None else settings.triggers.get(trigger)
    return {} if own is None else await SecretResolver().fetch_all(own.mask_keys)


def _operations(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset(OPERATIONS)
    names = {name.strip().lower() for name in text.split(",")}
    unknown = sorted(names - set(OPERATIONS))
    if unknown:
        raise ConfigError(
            f"--operations: {unknown[0]!r} is no operation", remedy=f"separate these by commas: {', '.join(OPERATIONS)}"
        )
    return frozenset(names)


# -- reading -----------------------------------------------------------------------------------------------------------


async def _tail(settings: Settings, wanted: Wanted, limit: int | None, *, as_json: bool) -> None:
    from bridge.rds import connection_string  # noqa: PLC0415 - --help needs none of it
    from bridge.secret import SecretResolver  # noqa: PLC0415 - as above
    from bridge.source import catalog  # noqa: PLC0415 - as above
    from bridge.source.connection import ReplicationConnection  # noqa: PLC0415 - as above

    source, resolver = settings.source, SecretResolver()

    async def dsn() -> str:
        return await connection_string(source.dsn, resolver, iam_auth=source.iam_auth)

    connection = await ReplicationConnection.open(await dsn(), application_name="pgbridge tail")
    try:
        await _need_publication(connection, source.publication)
        inbox: list[Event] = []
        facts = await catalog.load(connection)
        assembler = await _start(connection, settings, wanted, facts, inbox)
        show = _json_printer(wanted.trigger, assembler.system_identifier) if as_json else _print_pretty
        reporting = asyncio.create_task(_report(connection, assembler))
        reader = catalog.CatalogReader(facts, dsn)
        try:
            await _print_all(connection, assembler, reader, inbox, limit=limit, show=show)
        finally:
            reader.close()
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
    finally:
        # The slot is temporary: it goes with the connection, however that ends.
        await connection.close()


async def _need_publication(connection: ReplicationConnection, name: str) -> None:
    """The server would notice at the first change, and not before."""
    from bridge.source.commands import quote_literal  # noqa: PLC0415 - as above

    found = await connection.query(
        f"SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {quote_literal(name)}"  # noqa: S608 - quoted
    )
    if not found:
        raise SourceMisconfigured(f'publication "{name}" does not exist', remedy="create it with: pgbridge init")


async def _start(
    connection: ReplicationConnection, settings: Settings, wanted: Wanted, facts: Catalog, inbox: list[Event]
) -> Assembler:
    from bridge.change import Position  # noqa: PLC0415 - as above
    from bridge.lsn import LSN  # noqa: PLC0415 - as above
    from bridge.pgoutput.assembler import Assembler, Route  # noqa: PLC0415 - as above

    slot = f"pgbridge_tail_{os.getpid()}_{secrets.token_hex(4)}"
    start = await connection.create_slot(slot, temporary=True)
    source = settings.source
    await connection.start(slot, source.publication, start, local_only=source.origin == "none")
    nothing = Position(LSN(0), -1)

    def route(operations: frozenset[str]) -> Route:
        return Route(wanted.trigger or "", wanted.shape, operations, inbox, nothing, wanted.selection)

    def routes(relation: RelationMessage) -> list[Route]:
        rows = wanted.operations - {"message"}
        if not rows or not wanted.wants_table(relation.namespace, relation.name):
            return []
        return [route(rows)]

    def message_routes(prefix: str) -> list[Route]:
        if "message" not in wanted.operations or prefix.startswith(OWN_MESSAGES):
            return []
        return [route(frozenset({"message"}))]

    return Assembler(
        database=connection.identity.database,
        system_identifier=connection.identity.system_identifier,
        start_lsn=start,
        routes=routes,
        message_routes=message_routes,
        primary_keys=facts.primary_key,
        types=facts.type_of,
        lacks=facts.lacks,
        excluded_schemas=frozenset({settings.store.schema_}),
    )


async def _print_all(
    connection: ReplicationConnection,
    assembler: Assembler,
    reader: CatalogReader,
    inbox: list[Event],
    *,
    limit: int | None,
    show: Callable[[Event], None],
) -> None:
    printed = 0
    frames: Sequence[memoryview | bytes] = ()
    while True:
        if assembler.lookup is not None:  # what it is about comes next, and what came before it is printed
            await reader.look_up(assembler.lookup)
        frames = assembler.consume(frames or await connection.frames())
        if assembler.reply_requested:
            assembler.reply_requested = False
            _send_status(connection, assembler)
        for event in inbox[: None if limit is None else limit - printed]:
            show(event)
            printed += 1
        inbox.clear()
        sys.stdout.flush()
        if printed == limit:
            return


async def _report(connection: ReplicationConnection, assembler: Assembler) -> None:
    """Tell the server that we are here, whatever is being printed; it ends silent connections."""
    while True:
        await asyncio.sleep(min(_STATUS_SECONDS, (connection.wal_sender_timeout_seconds or _STATUS_SECONDS) / 3))
        _send_status(connection, assembler)


def _send_status(connection: ReplicationConnection, assembler: Assembler) -> None:
    from bridge.clock import SystemClock  # noqa: PLC0415 - as above

    received = assembler.received_end_lsn
    connection.send_status(received, received, received, now=SystemClock().now())


# -- printing ----------------------------------------------------------------------------------------------------------


def _json_printer(trigger: str | None, system_identifier: str) -> Callable[[Event], None]:
    """Each event on a line: as the trigger's target would get it, or without a trigger in its metadata."""
    from bridge.triggers.envelope import Envelope  # noqa: PLC0415 - as above

    if trigger is not None:
        envelope = Envelope(trigger, system_identifier)
        return lambda event: click.echo(envelope.event(event))
    return lambda event: click.echo(event.body + WITHOUT_TRIGGER)


def _print_pretty(event: Event) -> None:
    # By the slower parser: a json column may hold what the faster one refuses, 1e400 or a lone surrogate.
    try:
        document = json.loads(event.body + WITHOUT_TRIGGER, parse_int=_Digits, parse_float=_Digits)
        keys = "  ".join(f"{on_one_line(name)}={_value(value)}" for name, value in document["metadata"]["keys"].items())
        body = list(_body(document))
    except RecursionError:
        keys, body = "", [click.style("nests too deeply to be shown here; --json prints it", dim=True)]
    moment = datetime.fromtimestamp(event.transaction.committed_at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    action = click.style(f"{event.action:<8}", fg=_COLORS.get(event.action), bold=True)
    click.echo(f"{click.style(moment, dim=True)}  {action}  {on_one_line(event.table)}  {keys}".rstrip())
    for line in body:
        click.echo(f"              {line}")


def _body(document: dict[str, Any]) -> Iterator[str]:
    """The row without its key; of an update with a known old row, only what changed."""
    record, changes = document["record"] or {}, document["changes"]
    shown = changes if document["action"] == "update" and changes else record
    for name in shown:
        if name in document["metadata"]["keys"] and name not in (changes or {}):
            continue
        old = f"{_value(changes[name])} → " if changes and name in changes else ""
        new = _value(record[name]) if name in record else "(not sent)"
        yield f"{click.style(on_one_line(name), dim=True)}: {old}{new}"
    if document["metadata"]["unavailable"]:
        names = ", ".join(map(on_one_line, document["metadata"]["unavailable"]))
        yield click.style(f"not sent: {names}", dim=True)


class _Digits(str):
    """A number as it was written."""

    __slots__ = ()


def _value(value: Any) -> str:
    return on_one_line(_json(value), _VALUE_WIDTH)


def _json(value: Any) -> str:
    if isinstance(value, _Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_json(name)}: {_json(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
