"""What the enabled triggers need of the publication, of the tables that there are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from bridge.config import Settings, TriggerSettings
from bridge.errors import ConfigError
from bridge.source.published import TABLES_IN_SCHEMA, Server
from bridge.source.push_down import row_filter
from bridge.source.tables import Table, leaves
from bridge.triggers.tables import TablePattern, TableSelection

NEED_IDENTITY: Final = frozenset({"update", "delete"})
"""Operations that fail for the application where they are published of a table that does not identify its rows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the enabled triggers need of the publication."""

    operations: frozenset[str]
    """Without `message`, which needs no publication."""
    tables: tuple[Table, ...]
    """To publish, by name; of a partition tree the topmost that was named."""
    schemas: frozenset[str]
    """To publish whole, present and future tables alike; their tables stand in `tables` too."""
    shadowed: tuple[Table, ...] = ()
    """Partitions that a pattern names, whose changes come under the name of a published parent."""
    unidentified: tuple[Table, ...] = ()
    """For the companion: publishing their updates would make the application's UPDATE and DELETE fail."""
    unsent: tuple[Table, ...] = ()
    """Those of them whose updates or deletes a trigger asks for."""
    named: frozenset[int] = frozenset()
    """Oids of the tables that such a trigger names without a glob."""
    faults: tuple[ConfigError, ...] = ()
    """Patterns that can't be met, each with the nearest there is."""
    by_trigger: Mapping[str, tuple[Table, ...]] = field(default_factory=dict)
    """What each trigger's patterns name, with partitions and tables left out."""
    untold: tuple[ConfigError, ...] = ()
    """Tables that a glob found, and in which a trigger's `changed` can't be told."""
    inserted: frozenset[int] = frozenset()
    """Oids of the tables of which no trigger wants updates or deletes, where that may be pushed down."""
    row_filters: Mapping[int, str] = field(default_factory=dict)
    """By table oid, the rows that do where inserts alone are published; see `push_down.py`."""


def wanted(
    settings: Settings, tables: Sequence[Table], server: Server, *, published_schemas: frozenset[str] = frozenset()
) -> Wanted:
    """
    Find out.

    Args:
        settings: of the process.
        tables: all of the database.
        server: decides whether schemas can be published whole.
        published_schemas: those that are already, and may stay so even if we could not make them.
    """
    own = settings.store.schema_
    triggers = {name: trigger for name, trigger in settings.triggers.items() if trigger.enabled}
    operations = frozenset(operation for trigger in triggers.values() for operation in trigger.operations) - {"message"}
    candidates = [table for table in tables if table.schema != own]
    published = [table for table in candidates if table.unpublishable is None]
    identity_needed = bool(operations & NEED_IDENTITY)

    def refuses_writes(table: Table) -> bool:
        return identity_needed and not all(leaf.identifies_rows for leaf in leaves(table, tables))

    matched: dict[int, Table] = {}
    by_trigger: dict[str, tuple[Table, ...]] = {}
    faults: list[ConfigError] = []
    untold: list[ConfigError] = []
    wanting: dict[int, list[TriggerSettings]] = {}
    whole: set[str] = set()
    updated: set[int] = set()
    named: set[int] = set()
    for name, trigger in triggers.items():
        if not set(trigger.operations) - {"message"}:
            continue
        selection = trigger.table_selection
        mine = [table for table in published if selection.matches(table.schema, table.name)]
        by_trigger[name] = tuple(mine)
        if NEED_IDENTITY & set(trigger.operations):
            updated |= {table.oid for table in mine}
            exact = {pattern.exact for pattern in selection.patterns}
            named |= {table.oid for table in mine if (table.schema, table.name) in exact}
        matched |= {table.oid: table for table in mine}
        for table in mine:
            wanting.setdefault(table.oid, []).append(trigger)
        faults += _faults(name, selection, candidates, own)
        for table in mine if "update" in trigger.operations else ():
            fault = _untold(name, trigger.changed, table, leaves(table, tables))
            if fault is not None and (table.schema, table.name) in {pattern.exact for pattern in selection.patterns}:
                faults.append(fault)
            elif fault is not None:
                untold.append(fault)
        whole |= _whole_schemas(selection)
    shadowed = [table for table in matched.values() if table.ancestors & matched.keys()]
    topmost = [table for table in matched.values() if not table.ancestors & matched.keys()]
    risky = {table.schema for table in published if refuses_writes(table)}
    may_add = server.version >= TABLES_IN_SCHEMA and server.superuser
    whole = (whole - risky if may_add else whole & published_schemas) - {own}
    unidentified = tuple(table for table in topmost if refuses_writes(table))
    pushed = topmost if settings.source.push_down == "auto" else []
    row_filters = {table.oid: row_filter(table, wanting[table.oid], server) for table in pushed}
    return Wanted(
        operations=operations,
        tables=tuple(table for table in topmost if not refuses_writes(table)),
        schemas=frozenset(whole) & {table.schema for table in published},
        shadowed=tuple(shadowed),
        unidentified=unidentified,
        unsent=tuple(table for table in unidentified if table.oid in updated),
        named=frozenset(named),
        faults=tuple(faults),
        by_trigger=by_trigger,
        untold=tuple(untold),
        inserted=frozenset(table.oid for table in pushed) - updated,
        row_filters={oid: condition for oid, condition in row_filters.items() if condition},
    )


def _faults(trigger: str, selection: TableSelection, tables: Sequence[Table], own: str) -> list[ConfigError]:
    faults = []
    for pattern in selection.patterns:
        matches = [table for table in tables if pattern.matches(table.schema, table.name)]
        if not pattern.excludes and not any(table.unpublishable is None for table in matches):
            faults.append(_unmet(trigger, pattern, matches, tables, own))
    return faults


def _untold(trigger: str, changed: Sequence[str], table: Table, rows: Sequence[Table]) -> ConfigError | None:
    """Why `changed` can't be told of a table's updates, where that is so; `rows` are the tables that hold its rows."""
    setting = f"triggers.{trigger}.changed"
    missing = sorted(set(changed) - table.columns) if table.columns else []
    if missing:
        near = get_close_matches(missing[0], sorted(table.columns), n=3)
        return ConfigError(
            f"{setting}: {table.full_name} has no column {missing[0]}",
            remedy=f"the nearest are {', '.join(near)}" if near else f"it has {', '.join(sorted(table.columns))}",
            trigger=trigger,
        )
    for leaf in rows:
        unsent = sorted(set(changed) - leaf.key) if leaf.identity != "full" else []
        if unsent:
            return ConfigError(
                f"{setting}: whether {', '.join(unsent)} changed can't be told: the server does not send the old values"
                f" of {leaf.full_name}, whose replica identity is {leaf.identity}",
                remedy=f"run: ALTER TABLE {leaf.quoted} REPLICA IDENTITY FULL",
                trigger=trigger,
            )
    return None


def _unmet(
    trigger: str, pattern: TablePattern, matches: Sequence[Table], tables: Sequence[Table], own: str
) -> ConfigError:
    setting = f"triggers.{trigger}.tables"
    for table in matches:
        return ConfigError(
            f"{setting}: {pattern} {table.unpublishable}, which PostgreSQL does not publish",
            remedy="name a table",
            trigger=trigger,
        )
    if pattern.exact is not None and pattern.exact[0] == own:
        return ConfigError(
            f"{setting}: {pattern} is one of pgbridge's own tables, which are never published",
            remedy="name another table",
            trigger=trigger,
        )
    names = [table.full_name for table in tables if table.unpublishable is None]
    # The usual mistakes: the wrong schema, upper case, a plural.
    near = [name for name in names if name.rpartition(".")[2] == str(pattern).rpartition(".")[2]][:3]
    near = near or get_close_matches(str(pattern).lower(), names, n=3, cutoff=0.75)
    return ConfigError(
        f"{setting}: {pattern} matches no table of the database",
        remedy=f"the nearest are {', '.join(near)}" if near else "create the table first, or correct the name",
        trigger=trigger,
    )


def _whole_schemas(selection: TableSelection) -> set[str]:
    """Schemas of which a trigger wants every table, whatever its name."""
    if any(pattern.excludes for pattern in selection.patterns):
        return set()
    whole = set()
    for pattern in selection.patterns:
        schema, dot, table = str(pattern).rpartition(".")
        exact = TablePattern.parse(f"{schema}.x").exact if dot and table == "*" else None
        if exact is not None:
            whole.add(exact[0])
    return whole
