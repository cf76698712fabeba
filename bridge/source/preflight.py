"""
What is wrong with a database, its store and the targets, and what mends each.

Every part is examined whatever came of the others, so that one run names all faults; a part that can't be asked says so
and leaves the rest alone. An `error` is what keeps the bridge from running or from sending what a trigger asks for; a
`warning` is what will hurt later, or what somebody may not expect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bridge.clock import Clock
from bridge.config import Settings, TriggerSettings
from bridge.errors import BridgeError
from bridge.lsn import LSN
from bridge.rds import connection_string
from bridge.secret import SecretResolver
from bridge.source import commands, facts, provision, publication, slot
from bridge.source.connection import ReplicationConnection, SystemIdentity
from bridge.source.facts import Facts
from bridge.source.publication import Plan
from bridge.source.published import OPERATIONS, WHOLE, PublicationState
from bridge.source.queries import Queries
from bridge.source.resume import resume_at
from bridge.source.session import connected
from bridge.source.slot import SlotState
from bridge.source.tables import Table, leaves, list_tables
from bridge.store.protocol import Progress, SourceIdentity, Store

Severity = Literal["ok", "warning", "error"]

NEWEST_SERVER: Final = 18
"""The newest major that pgbridge was tested with."""

# AWS refuses signatures that are five minutes off; ages and lags are wrong by as much as the clocks differ.
_CLOCK_SKEW_SECONDS: Final = 5.0

# Vacuum can remove no catalog row newer than the slot's catalog_xmin. At 200 million autovacuum_freeze_max_age forces
# vacuums of everything; a quarter of that is a slot that nobody has read for long.
_OLD_CATALOG_TRANSACTIONS: Final = 50_000_000

_MEGABYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out."""

    severity: Severity
    what: str
    remedy: str = ""
    """What mends it; empty for `ok`."""
    details: Mapping[str, object] = field(default_factory=dict)
    """The numbers and names behind it, for programs."""

    @classmethod
    def of(cls, error: BridgeError, severity: Severity = "error", **details: object) -> Finding:
        """An error as a finding."""
        return cls(severity, error.message, error.remedy or "", details)


async def examine(settings: Settings, secrets: SecretResolver, clock: Clock, store: Store) -> list[Finding]:
    """
    Look at everything that a run needs, and change nothing.

    Args:
        settings: of the process.
        secrets: fetches DSNs and what the targets need.
        clock: compared with the server's.
        store: that of the settings; not opened yet, and closed by the caller.

    Returns:
        In the order in which a reader would mend them; the source's first.
    """
    source, identity, state = await _examine_source(settings, secrets, clock)
    stored = await _examine_store(settings, store, identity, state)
    targets = await asyncio.gather(
        *(_examine_target(name, trigger, secrets) for name, trigger in settings.triggers.items())
    )
    return [*source, *stored, *(finding for findings in targets for finding in findings)]


async def _examine_source(
    settings: Settings, secrets: SecretResolver, clock: Clock
) -> tuple[list[Finding], SystemIdentity | None, SlotState | None]:
    findings: list[Finding] = []
    identity: SystemIdentity | None = None
    state: SlotState | None = None
    try:
        dsn = await connection_string(settings.source.dsn, secrets, iam_auth=settings.source.iam_auth)
        async with connected(dsn, application_name="pgbridge check") as session:
            seen = await facts.read(session, clock)
            state = await slot.inspect(session, settings.source.slot)
            findings += _server(seen, state)
            identity, finding = await _replication(dsn, seen)
            findings.append(finding)
            findings += await _publication(session, settings)
            findings += _slot(settings.source.slot, state, seen)
    except BridgeError as error:
        findings.append(Finding.of(error))
    return findings, identity, state


async def _replication(dsn: str, seen: Facts) -> tuple[SystemIdentity | None, Finding]:
    """The right to replicate is had in several ways, some of them a provider's own: trying tells."""
    try:
        connection = await ReplicationConnection.open(dsn, application_name="pgbridge check")
    except BridgeError as error:
        return None, Finding.of(error, role=seen.user)
    await connection.close()
    return connection.identity, Finding(
        "ok",
        f'role "{seen.user}" may replicate',
        details={
            "system_identifier": connection.identity.system_identifier,
            "timeline": connection.identity.timeline,
            "wal_sender_timeout_seconds": connection.wal_sender_timeout_seconds,
        },
    )


def _server(seen: Facts, state: SlotState | None) -> Iterator[Finding]:
    major = seen.version // 10000
    details = {"version": seen.version_text, "database": seen.database, "user": seen.user}
    what = f'connected to PostgreSQL {seen.version_text}, database "{seen.database}"'
    if seen.version < provision.OLDEST_SERVER:
        yield Finding.of(provision.too_old(seen.version))
    elif major > NEWEST_SERVER:
        yield Finding(
            "warning",
            f"{what}, a newer major than pgbridge was tested with ({NEWEST_SERVER})",
            "upgrade pgbridge when a release names it",
            details,
        )
    else:
        yield Finding("ok", what, details=details)
    if seen.wal_level != "logical":
        yield Finding.of(provision.wrong_wal_level(seen.wal_level), wal_level=seen.wal_level)
    else:
        yield Finding("ok", "wal_level is logical", details={"wal_level": seen.wal_level})
    yield from _room(seen, state)
    if seen.plugins is not None and commands.PLUGIN not in [name.strip(' "') for name in seen.plugins.split(",")]:
        yield Finding(
            "error",
            f"output_plugin_libraries does not have {commands.PLUGIN}, so the server refuses to decode with it",
            f"run ALTER SYSTEM SET output_plugin_libraries = {seen.plugins}, {commands.PLUGIN}, and reload",
            {"output_plugin_libraries": seen.plugins},
        )
    if seen.in_recovery:
        yield Finding(
            # Logical decoding on standbys came with 16.
            "warning" if major >= 16 else "error",
            "the server is a standby",
            "name the primary in source.dsn: publications and slots of its own are made there",
        )
    if seen.encoding == "SQL_ASCII":
        yield Finding(
            "warning",
            "the database's encoding is SQL_ASCII: bytes that are not UTF-8 can't stand in JSON as they are",
            "convert the database to UTF8",
            {"server_encoding": seen.encoding},
        )
    yield _clocks(seen)


def _room(seen: Facts, state: SlotState | None) -> Iterator[Finding]:
    """Slots and walsenders: one of each is needed, unless it is in use by a bridge already."""
    for what, setting, most, used, have in (
        ("replication slots", "max_replication_slots", seen.slots, seen.slots_used, state is not None),
        ("walsenders", "max_wal_senders", seen.senders, seen.senders_used, state is not None and state.active_pid),
    ):
        details = {setting: most, "used": used}
        if used < most:
            yield Finding("ok", f"{most - used} of {most} {what} are free", details=details)
        elif have:
            yield Finding("ok", f"all {most} {what} are in use, one of them for pgbridge", details=details)
        else:
            yield Finding(
                "error",
                f"all {most} {what} are in use",
                f"raise {setting} and restart the server, or end what uses them without need",
                details,
            )


def _clocks(seen: Facts) -> Finding:
    ahead = seen.clock_ahead_seconds
    details = {"server_ahead_seconds": round(ahead, 3), "round_trip_seconds": round(seen.round_trip_seconds, 3)}
    if abs(ahead) - seen.round_trip_seconds / 2 > _CLOCK_SKEW_SECONDS:
        return Finding(
            "warning",
            f"the server's clock is {abs(ahead):.1f} seconds {'ahead of' if ahead > 0 else 'behind'} this machine's:"
            " lag and record age will be wrong by as much, and AWS refuses signatures of a clock that is far off",
            "synchronise both clocks (NTP)",
            details,
        )
    return Finding("ok", "the server's clock and this machine's agree", details=details)


async def _publication(session: Queries, settings: Settings) -> list[Finding]:
    try:
        plan = await publication.plan(session, settings)
        tables = await list_tables(session)
    except BridgeError as error:
        return [Finding.of(error)]
    findings = [Finding.of(fault, trigger=fault.trigger) for fault in plan.needs.faults]
    findings += [Finding.of(fault, "warning", trigger=fault.trigger) for fault in plan.needs.untold]
    findings += _coverage(settings, plan)
    findings += _identities(settings, plan, tables)
    findings += [
        Finding(
            "warning", publication.shadow_warning(table), "name the parent in the trigger", {"table": table.full_name}
        )
        for table in plan.needs.shadowed
    ]
    unreadable = [table.full_name for table in _all_needed(plan) if not table.readable]
    if unreadable:
        role = plan.server.user
        findings.append(
            Finding(
                "warning",
                f'role "{role}" may not SELECT from {", ".join(unreadable)}: changes are sent, a backfill would fail',
                f"run GRANT SELECT ON {', '.join(unreadable)} TO {commands.quote_identifier(role)},"
                " with USAGE on their schemas",
                {"tables": unreadable},
            )
        )
    return findings


def _coverage(settings: Settings, plan: Plan) -> Iterator[Finding]:
    """Whether the publication is there, and sends what the triggers ask for."""
    name = settings.source.publication
    state = plan.state
    if state is None:
        yield Finding(
            "error",
            f'publication "{name}" does not exist',
            "create it with: pgbridge init" if settings.source.manage else "create it, before the slot",
            {"publication": name},
        )
        return
    if settings.source.manage:
        yield from _steps(name, plan, state)
        return
    yield from _gaps(name, plan, state)
    for table in _all_needed(plan):
        part = state.slices.get((table.schema, table.name), WHOLE)
        for what, chosen in (("rows", part.where), ("columns", part.columns)):
            if chosen:
                yield Finding(
                    "warning",
                    f'publication "{name}" sends only some {what} of {table.full_name}',
                    f"if that is not meant, run ALTER PUBLICATION {commands.quote_identifier(name)}"
                    f" SET TABLE with {table.quoted} by its name alone",
                    {"publication": name, "table": table.full_name},
                )


def _steps(name: str, plan: Plan, state: PublicationState) -> Iterator[Finding]:
    """A publication that we keep: what a start would change in it."""
    if not plan.todo:
        yield Finding(
            "ok", f'publication "{name}" has what the triggers need', details={"operations": sorted(state.operations)}
        )
    for statement in plan.todo:
        details = {"publication": name, "statement": statement.text}
        if state.owned:
            yield Finding(
                "warning",
                f'publication "{name}" is out of step with the triggers',
                f"start pgbridge, or run pgbridge init, which runs: {statement.text}",
                details,
            )
        else:
            yield Finding(
                "error" if statement.needed else "warning",
                f'publication "{name}" is out of step with the triggers, and "{plan.server.user}" may not change it',
                f"let a DBA run: {statement.text}",
                details,
            )


def _gaps(name: str, plan: Plan, state: PublicationState) -> Iterator[Finding]:
    """The user's own publication: what it does not send."""
    missing = [table for table in _all_needed(plan) if not state.names(table)]
    quoted = commands.quote_identifier(name)
    for table in missing:
        yield Finding(
            "error",
            f'publication "{name}" does not have {table.full_name}',
            f"run ALTER PUBLICATION {quoted} ADD TABLE {table.quoted}",
            {"publication": name, "table": table.full_name},
        )
    unsent = sorted(plan.needs.operations - state.operations)
    if unsent:
        every = ", ".join(operation for operation in OPERATIONS if operation in state.operations | set(unsent))
        yield Finding(
            "error",
            f'publication "{name}" does not send {", ".join(unsent)}',
            f"run ALTER PUBLICATION {quoted} SET (publish = '{every}')",
            {"publication": name, "operations": unsent},
        )
    if not missing and not unsent:
        yield Finding(
            "ok", f'publication "{name}" has what the triggers need', details={"operations": sorted(state.operations)}
        )


def _identities(settings: Settings, plan: Plan, tables: Sequence[Table]) -> Iterator[Finding]:
    """Tables whose rows the server can't name, and triggers that want old values which it does not send."""
    state = plan.state
    refused = state.operations & {"update", "delete"} if state is not None else frozenset()
    for table in plan.needs.unidentified:
        details = {"table": table.full_name, "replica_identity": table.identity}
        if state is not None and refused and state.names(table):
            writes = " and ".join(sorted(operation.upper() for operation in refused))
            yield Finding(
                "error",
                f"{writes} on {table.full_name} fail for the application: it is published without a replica identity",
                publication.give_identity(table),
                details,
            )
        elif not plan.with_companion:
            what, _, remedy = publication.left_out(table).partition("; ")
            yield Finding("error", what, remedy, details)
        elif table in plan.needs.unsent:
            what, _, remedy = publication.inserts_alone(table).partition("; ")
            # A glob takes what it finds; who names a table means its updates too.
            yield Finding("error" if table.oid in plan.needs.named else "warning", what, remedy, details)
    for name, matched in plan.needs.by_trigger.items():
        trigger = settings.triggers[name]
        if "update" not in trigger.operations or not _wants_old_values(trigger):
            continue
        for table in matched:
            if any(leaf.identity != "full" for leaf in leaves(table, tables)):
                yield Finding(
                    "warning",
                    f"trigger {name} asks what changed in {table.full_name}, and the server does not send old values",
                    f"run ALTER TABLE {table.quoted} REPLICA IDENTITY FULL",
                    {"trigger": name, "table": table.full_name, "replica_identity": table.identity},
                )


def _wants_old_values(trigger: TriggerSettings) -> bool:
    """Beside `changed`, of which the publication's plan knows."""
    matcher = None if trigger.selection is None else trigger.selection.matcher
    return matcher is not None and matcher.reads("changes")


def _all_needed(plan: Plan) -> tuple[Table, ...]:
    return (*plan.needs.tables, *plan.needs.unidentified)


def _slot(name: str, state: SlotState | None, seen: Facts) -> Iterator[Finding]:
    if state is None:
        yield Finding("error", f'slot "{name}" does not exist', "create it with: pgbridge init", {"slot": name})
        return
    details = {
        "slot": name,
        "wal_status": state.wal_status,
        "retained_bytes": state.retained_bytes,
        "safe_wal_bytes": state.safe_wal_bytes,
        "confirmed_flush_lsn": _text(state.confirmed_flush_lsn),
        "restart_lsn": _text(state.restart_lsn),
        "active_pid": state.active_pid,
        "catalog_xmin_age": state.catalog_xmin_age,
        "failover": state.failover,
    }
    for what, remedy in _unfit(state, seen):
        yield Finding("error", f'slot "{name}" {what}', remedy, details)
        return
    if provision.is_lost(state):
        reason = f" ({state.invalidation_reason})" if state.invalidation_reason else ""
        yield Finding(
            "error",
            f'slot "{name}" is lost{reason}: the server has removed WAL that was not read',
            "begin anew with: pgbridge init --accept-gap; then send existing rows with: pgbridge backfill start",
            details,
        )
        return
    kept = _megabytes(state.retained_bytes)
    if state.wal_status == "unreserved":
        yield Finding(
            "error",
            f'slot "{name}" will be lost at the next checkpoint: it holds {kept} of WAL, more than the server allows',
            "start pgbridge now, or raise max_slot_wal_keep_size (ALTER SYSTEM SET, then reload)",
            details,
        )
    else:
        reader = f"read by server process {state.active_pid}" if state.active_pid is not None else "not being read"
        yield Finding("ok", f'slot "{name}" is healthy, {reader}, and holds {kept} of WAL', details=details)
    yield from _dangers(name, state, seen)


def _unfit(state: SlotState, seen: Facts) -> Iterator[tuple[str, str]]:
    other = "name another one in source.slot, and create it with: pgbridge init"
    if state.slot_type != "logical":
        yield f"is a {state.slot_type} slot, not a logical one", other
    elif state.plugin != commands.PLUGIN:
        yield f"decodes with {state.plugin}, not with {commands.PLUGIN}", other
    elif state.database != seen.database:
        yield (
            f'belongs to database "{state.database}", and source.dsn names "{seen.database}"',
            "name the right database in source.dsn, or another slot in source.slot",
        )
    elif state.temporary:
        yield "is a temporary slot of another session", other


def _dangers(name: str, state: SlotState, seen: Facts) -> Iterator[Finding]:
    limit = seen.slot_wal_limit_mb * _MEGABYTE
    if seen.slot_wal_limit_mb >= 0 and state.retained_bytes is not None and state.retained_bytes * 2 > limit:
        yield Finding(
            "warning",
            f'slot "{name}" holds {_megabytes(state.retained_bytes)} of the {seen.slot_wal_limit_mb} MB of WAL that'
            " max_slot_wal_keep_size allows; above that it is lost",
            "find out what holds it back with: pgbridge status; or raise max_slot_wal_keep_size",
            {"slot": name, "max_slot_wal_keep_size_mb": seen.slot_wal_limit_mb},
        )
    if seen.idle_slot_timeout > 0:
        yield Finding(
            "warning",
            f'slot "{name}" is lost if nobody reads it for {seen.idle_slot_timeout} seconds'
            " (idle_replication_slot_timeout)",
            "set it to 0, or to more than the longest time pgbridge may be stopped",
            {"slot": name, "idle_replication_slot_timeout_seconds": seen.idle_slot_timeout},
        )
    if state.catalog_xmin_age is not None and state.catalog_xmin_age > _OLD_CATALOG_TRANSACTIONS:
        yield Finding(
            "warning",
            f'slot "{name}" keeps vacuum from catalog rows of the last {state.catalog_xmin_age} transactions',
            "start pgbridge, or drop the slot if it is not needed any more",
            {"slot": name, "catalog_xmin_age": state.catalog_xmin_age},
        )


async def _examine_store(
    settings: Settings, store: Store, identity: SystemIdentity | None, state: SlotState | None
) -> list[Finding]:
    try:
        await store.open()
        progress = await store.read(settings.source.slot)
        letters = await store.count_letters()
    except BridgeError as error:
        return [Finding.of(error)]
    details = {
        "schema": settings.store.schema_,
        "confirmed_lsn": _text(progress.confirmed_lsn),
        "dead_letters": sum(letters.values()),
    }
    findings = [
        Finding("ok", f'the store\'s tables in schema "{settings.store.schema_}" are up to date', details=details)
    ]
    if identity is not None and state is not None:
        findings += _continuity(progress, identity, state)
    return findings


def _continuity(progress: Progress, identity: SystemIdentity, state: SlotState) -> Iterable[Finding]:
    """Whether slot and store are of one history, as a start would ask."""
    if state.confirmed_flush_lsn is None:
        return []
    ours = SourceIdentity(state.name, identity.system_identifier, identity.timeline, identity.database)
    wal_end = identity.wal_flush_lsn
    if state.active_pid is not None and progress.confirmed_lsn is not None:
        wal_end = max(wal_end, progress.confirmed_lsn)  # whoever reads may have saved what was written since
    try:
        resume_at(progress, ours, slot_confirmed_lsn=state.confirmed_flush_lsn, server_lsn=wal_end)
    except BridgeError as error:
        return [Finding.of(error)]
    return []


async def _examine_target(name: str, trigger: TriggerSettings, secrets: SecretResolver) -> list[Finding]:
    from bridge.delivery.factory import build_target  # noqa: PLC0415 - the HTTP client and botocore, for this alone

    if not trigger.enabled:
        return [Finding("ok", f"trigger {name} is disabled", details={"trigger": name})]
    try:
        target = build_target(name, trigger, secrets)
    except BridgeError as error:
        return [Finding.of(error, trigger=name)]
    try:
        results = await target.check()
    except BridgeError as error:
        return [Finding.of(error, trigger=name)]
    finally:
        await target.close()
    return [
        Finding("ok" if result.ok else "error", f"trigger {name}: {result.what}", result.remedy, {"trigger": name})
        for result in results
    ]


def _text(lsn: LSN | None) -> str | None:
    return None if lsn is None else str(lsn)


def _megabytes(amount: int | None) -> str:
    return "an unknown amount" if amount is None else f"{amount / _MEGABYTE:.1f} MB"
