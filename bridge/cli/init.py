"""`pgbridge init`: makes what the bridge needs in the database, or prints it for a DBA."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bridge.cli.options import config_option, load_settings
from bridge.cli.output import on_one_line
from bridge.errors import SlotLost

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.secret import SecretResolver
    from bridge.source.commands import Statement
    from bridge.source.queries import Queries

_HEADER: Final = """\
-- What pgbridge needs in database {database}. Run it as a superuser:  psql -X -v ON_ERROR_STOP=1 -f FILE
-- Not with --single-transaction: a slot can't be made in a transaction that has written something.
"""


@click.command(epilog="Example:  pgbridge init --print-sql --role pgbridge > init.sql")
@click.option(
    "--print-sql", is_flag=True, help="Print the statements for a DBA, with a role of least privilege; run nothing."
)
@click.option(
    "--role",
    metavar="NAME",
    help="With --print-sql: the role the bridge will run as.  [default: that of source.dsn, unless a superuser]",
)
@click.option(
    "--accept-gap",
    is_flag=True,
    help="Begin anew where the slot stands, or with a new slot, giving up the changes that were not read.",
)
@config_option
def command(*, config: Path, print_sql: bool, role: str | None, accept_gap: bool) -> None:
    """
    Create the publication, the tables and the replication slot.

    What is there already is left as it is, but for the publication, which is brought in step with the triggers. Safe to
    run again.
    """
    if role is not None and not print_sql:
        raise click.UsageError("--role goes with --print-sql")
    settings = load_settings(config)
    if print_sql:
        click.echo(asyncio.run(script(settings, role, accept_gap=accept_gap)), nl=False)
        return
    for line in asyncio.run(_run(settings, accept_gap=accept_gap)):
        click.echo(line)


async def _run(settings: Settings, *, accept_gap: bool) -> list[str]:
    """Do it; returns what was done, line by line."""
    from bridge.rds import connection_string  # noqa: PLC0415 - --help needs none of it
    from bridge.secret import SecretResolver  # noqa: PLC0415 - as above
    from bridge.source import provision  # noqa: PLC0415 - as above
    from bridge.source.session import connected  # noqa: PLC0415 - as above
    from bridge.store.factory import build_store  # noqa: PLC0415 - as above

    source = settings.source
    secrets = SecretResolver()
    dsn = await connection_string(source.dsn, secrets, iam_auth=source.iam_auth)
    store = build_store(settings, secrets)
    try:
        async with connected(dsn, application_name="pgbridge init") as session:
            todo = await provision.examine(session, settings, accept_gap=accept_gap)
            if todo.replication_slot and todo.wal_level != "logical":
                raise provision.wrong_wal_level(todo.wal_level)
            lines = await _execute(session, todo.publication, f'publication "{source.publication}"')
            migrations = await store.migrate()
            lines.append(f'tables in schema "{settings.store.schema_}": {", ".join(migrations) or "already there"}')
            progress = await store.read(source.slot)
            if todo.slot is None and progress.confirmed_lsn is not None and not accept_gap:
                from bridge.source.resume import ACCEPT_GAP  # noqa: PLC0415 - as above

                raise SlotLost(
                    f'slot "{source.slot}" is gone, and with it the changes since {progress.confirmed_lsn}',
                    position=progress.confirmed_lsn,
                    remedy=ACCEPT_GAP,
                )
            lines += await _execute(session, todo.replication_slot, f'slot "{source.slot}"')
            if accept_gap and progress.confirmed_lsn is not None:
                await store.forget(source.slot)
                lines.append(f'slot "{source.slot}": reading begins anew where it stands')
    finally:
        await store.close()
    return [*lines, *(f"warning: {warning}" for warning in todo.plan.warnings)]


async def _execute(session: Queries, statements: Iterable[Statement], what: str) -> list[str]:
    from bridge.source.queries import run  # noqa: PLC0415 - as above

    lines = []
    for statement in statements:
        await run(session, statement)
        lines.append(f"{what}: {statement.text}")
    return lines or [f"{what}: already there"]


async def script(settings: Settings, role: str | None = None, *, accept_gap: bool = False) -> str:
    """
    What `init` would run, and a role of least privilege that may run the bridge, as SQL for psql.

    Raises:
        BridgeError: the database can't be asked what is there, or can't be made to fit.
    """
    from bridge.rds import connection_string  # noqa: PLC0415 - as above
    from bridge.secret import SecretResolver  # noqa: PLC0415 - as above
    from bridge.source import provision  # noqa: PLC0415 - as above
    from bridge.source.session import connected  # noqa: PLC0415 - as above

    source = settings.source
    secrets = SecretResolver()
    dsn = await connection_string(source.dsn, secrets, iam_auth=source.iam_auth)
    async with connected(dsn, application_name="pgbridge init") as session:
        todo = await provision.examine(session, settings, accept_gap=accept_gap)
        server = todo.plan.server
        reader = role or (provision.DEFAULT_ROLE if server.superuser else server.user)
        store_is_here = await secrets.fetch(settings.store_dsn) == await secrets.fetch(source.dsn)
        installed = await _installed(session, settings.store.schema_) if store_is_here else 0
        parts = [_HEADER.format(database=on_one_line(server.database))]
        if todo.replication_slot and todo.wal_level != "logical":
            parts.append(f"-- First: {provision.wrong_wal_level(todo.wal_level)}.\n")
        parts += [f"-- Warning: {on_one_line(warning)}\n" for warning in todo.plan.warnings]
        tables = [*todo.plan.needs.tables, *todo.plan.needs.unidentified]
        parts.append("\nBEGIN;\n")
        parts += map(_written, await provision.role_statements(session, reader, server.database, tables))
        parts += map(_written, todo.publication)
        parts.append("COMMIT;\n")
        if store_is_here:
            parts += _store_script(settings.store.schema_, reader, installed)
        parts += map(_written, todo.replication_slot)
        parts += map(_written, provision.optional_statements(reader, server.version))
    if not store_is_here:
        parts += await _other_store_script(settings, secrets, role)
    return "".join(parts)


async def _other_store_script(settings: Settings, secrets: SecretResolver, role: str | None) -> list[str]:
    from bridge import dsn as dsns  # noqa: PLC0415 - as above
    from bridge.source import provision  # noqa: PLC0415 - as above
    from bridge.source.published import ask_server  # noqa: PLC0415 - as above
    from bridge.source.session import connected  # noqa: PLC0415 - as above

    dsn = await secrets.fetch(settings.store_dsn)
    async with connected(dsn, application_name="pgbridge init", setting="store.dsn") as session:
        server = await ask_server(session)
        installed = await _installed(session, settings.store.schema_)
        writer = role or (provision.DEFAULT_ROLE if server.superuser else server.user)
        roles = await provision.role_statements(session, writer, server.database, [], replication=False)
    host = dsns.parse(dsn, setting="store.dsn").get("host", "this machine")
    where = on_one_line(f"database {server.database} of {host}")
    return [
        f"\n-- The store is {where}: run what follows there.\n\nBEGIN;\n",
        *map(_written, roles),
        "COMMIT;\n",
        *_store_script(settings.store.schema_, writer, installed),
    ]


def _store_script(schema: str, role: str, installed: int) -> list[str]:
    """The store's tables, made as and so owned by the role."""
    from bridge.source.commands import quote_identifier  # noqa: PLC0415 - as above
    from bridge.store.migrations import migrations, record_version, version_table  # noqa: PLC0415 - as above

    due = [migration for migration in migrations() if migration.version > installed]
    if not due:
        return []
    parts = ["\n-- the tables of checkpoints and dead letters, which the role owns\n"]
    if not installed:
        parts.append(
            f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(schema)} AUTHORIZATION {quote_identifier(role)};\n"
        )
    parts.append(f"SET ROLE {quote_identifier(role)};\nBEGIN;\n")
    if not installed:
        parts.append(version_table(schema).as_string(None))
    for migration in due:
        parts += [
            f"\n{migration.statement(schema).as_string(None).rstrip()}\n\n",
            record_version(schema, migration).as_string(None),
        ]
    parts.append("COMMIT;\nRESET ROLE;\n")
    return parts


async def _installed(session: Queries, schema: str) -> int:
    """The version of the store's tables; 0 where there are none."""
    from bridge.source.commands import quote_literal, quote_qualified  # noqa: PLC0415 - as above

    table = quote_qualified(schema, "schema_version")
    ((there,),) = await session.query(f"SELECT pg_catalog.to_regclass({quote_literal(table)}) IS NOT NULL")
    if there != "t":
        return 0
    ((version,),) = await session.query(f"SELECT pg_catalog.max(version) FROM {table}")  # noqa: S608 - quoted
    return int(version or 0)


def _written(statement: Statement) -> str:
    comment = f"\n-- {statement.why}\n" if statement.why else ""
    return comment + "".join(f"{command};\n" for command in statement.commands)
