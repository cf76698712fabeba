"""
What `init` does to a database, as statements: the same list is run, or printed for a DBA.

The order matters. The publication comes before the slot, because the server looks it up as it was when a change was
made; and the store before the slot, because a slot that nobody can read holds the server's WAL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge.config import Settings
from bridge.errors import SlotInUse, SlotLost, SourceMisconfigured
from bridge.source import commands, publication, running_xacts, slot
from bridge.source.commands import Statement, quote_identifier, quote_literal
from bridge.source.publication import Plan
from bridge.source.queries import Queries
from bridge.source.slot import SlotState
from bridge.source.tables import Table

DEFAULT_ROLE: Final = "pgbridge"


OLDEST_SERVER: Final = 140000
"""pgoutput has sent logical messages, and taken `NOEXPORT_SNAPSHOT` slots as we make them, since 14."""


@dataclass(frozen=True, slots=True)
class Provision:
    """What a source database lacks."""

    plan: Plan
    slot: SlotState | None
    wal_level: str
    publication: tuple[Statement, ...]
    """To run before the store's tables are made."""
    replication_slot: tuple[Statement, ...]
    """To run after."""


async def examine(session: Queries, settings: Settings, *, accept_gap: bool = False) -> Provision:
    """
    Compare the source database with the settings.

    Args:
        session: an ordinary one; its role decides what is possible.
        settings: of the process.
        accept_gap: replace a slot that is lost.

    Raises:
        ConfigError: a pattern matches no table.
        SourceMisconfigured: the slot is not one that we can read, or the user's own publication is missing.
        SlotLost: the server has invalidated the slot.
    """
    source = settings.source
    ((wal_level,),) = await session.query("SELECT pg_catalog.current_setting('wal_level')")
    state = await slot.inspect(session, source.slot)
    plan = await publication.plan(session, settings, make_companion=state is None)
    if plan.server.version < OLDEST_SERVER:
        raise too_old(plan.server.version)
    if plan.needs.faults:
        raise publication.combined(plan.needs.faults)
    if plan.state is None and not source.manage:
        raise SourceMisconfigured(
            f'publication "{source.publication}" does not exist, and source.manage is false',
            remedy="create it, or set source.manage to true",
        )
    create = Statement(
        commands.create_slot_sql(source.slot, server_version=plan.server.version),
        "holds the server's WAL until it was read; it is confirmed only to what is settled",
    )
    if state is None:
        return Provision(plan, state, wal_level or "", plan.todo, (create,))
    if misfit := state.misfit(plan.server.database):
        what, remedy = misfit
        raise SourceMisconfigured(f'slot "{source.slot}" exists, and {what}', remedy=remedy)
    if accept_gap and state.active_pid is not None:
        raise SlotInUse(
            f'slot "{source.slot}" is read by server process {state.active_pid}',
            remedy="stop the running pgbridge first",
        )
    if not is_lost(state):
        return Provision(plan, state, wal_level or "", plan.todo, ())
    if not accept_gap:
        raise SlotLost(
            f'slot "{source.slot}" is lost: the server has invalidated it{_because(state)},'
            " and the changes since were not read",
            position=state.confirmed_flush_lsn,
            remedy="to begin anew without them run: pgbridge init --accept-gap,"
            " then have their rows sent again by an UPDATE that touches them",
        )
    drop = Statement(commands.drop_slot_sql(source.slot), "it is lost, and can't be read any more")
    return Provision(plan, state, wal_level or "", plan.todo, (drop, create))


def is_lost(state: SlotState) -> bool:
    """Whether the server has invalidated the slot."""
    return state.wal_status == "lost" or state.invalidation_reason is not None


def too_old(version: int) -> SourceMisconfigured:
    """The server is of a major that pgbridge does not know."""
    return SourceMisconfigured(
        f"the server is PostgreSQL {version // 10000}, and pgbridge needs 14 or later", remedy="upgrade the server"
    )


def wrong_wal_level(wal_level: str) -> SourceMisconfigured:
    """Nothing can be decoded from this server's WAL."""
    return SourceMisconfigured(
        f"wal_level is {wal_level}, and has to be logical",
        remedy="run ALTER SYSTEM SET wal_level = logical, and restart the server",
    )


async def role_statements(
    session: Queries, role: str, database: str, tables: Sequence[Table], *, replication: bool = True
) -> list[Statement]:
    """
    A role that may do what the bridge does, and no more: connect, replicate, read what is published.

    It is given no password here, so that none stands in a file.
    """
    name = quote_identifier(role)
    # A role belongs to all databases of the server, so it may be there for another one.
    known = await session.query(f"SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {quote_literal(role)}")  # noqa: S608 - quoted
    rights = "LOGIN REPLICATION" if replication else "LOGIN"
    made = [
        Statement(
            f"{'ALTER' if known else 'CREATE'} ROLE {name} {rights}",
            "the role that the bridge runs as; give it a password with \\password",
        ),
        Statement(f"GRANT CONNECT ON DATABASE {quote_identifier(database)} TO {name}", ""),
    ]
    schemas = sorted({table.schema for table in tables})
    made += [Statement(f"GRANT USAGE ON SCHEMA {quote_identifier(schema)} TO {name}", "") for schema in schemas]
    if tables:
        listed = ", ".join(table.quoted for table in tables)
        made.append(Statement(f"GRANT SELECT ON {listed} TO {name}", "for backfills; the stream needs no SELECT"))
    return made


def optional_statements(role: str, version: int) -> list[Statement]:
    """
    What a role can do without, and some providers let nobody grant.

    `init` itself never runs them: the role of source.dsn is the one that runs the bridge, and whoever may grant the
    right to itself has it.
    """
    if version < running_xacts.OLDEST_SERVER:
        return []
    return [
        Statement(
            running_xacts.grant(role),
            "Optional, and the last for that: lets the slot give up WAL within a second or two of its being confirmed."
            " Without it that takes up to 30 seconds, and as much WAL as is written meanwhile.",
            needed=False,
        )
    ]


def _because(state: SlotState) -> str:
    return f" ({state.invalidation_reason})" if state.invalidation_reason else ""
