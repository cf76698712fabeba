"""What is wrong with a publication and its tables, given the triggers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.config import Settings
from bridge.errors import BridgeError
from bridge.source import commands, publication
from bridge.source.findings import Finding
from bridge.source.identity_warnings import identity_warnings
from bridge.source.publication import Plan
from bridge.source.published import OPERATIONS, WHOLE, PublicationState
from bridge.source.queries import Queries
from bridge.source.tables import Table, list_tables


async def about_publication(session: Queries, settings: Settings) -> list[Finding]:
    """Ask for it and for the tables; a server that refuses is a finding too."""
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
    for lack in identity_warnings(settings, tables):
        lacking: dict[str, object] = {"trigger": lack.trigger, "tables": [table.full_name for table in lack.tables]}
        # PostgreSQL's default is often enough, and then there is nothing to mend.
        if lack.asked_for:
            yield Finding("warning", lack.what, lack.remedy, lacking)
        else:
            yield Finding("ok", lack.what, details=lacking)


def _all_needed(plan: Plan) -> tuple[Table, ...]:
    return (*plan.needs.tables, *plan.needs.unidentified)
