"""From a publication as it is to one as it is needed, as statements. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.source import commands
from bridge.source.commands import Statement, quote_identifier, quote_qualified
from bridge.source.needs import NEED_IDENTITY, Wanted
from bridge.source.published import OPERATIONS, WHOLE, PublicationState, Server, Slice
from bridge.source.tables import Table

_GENERATED_COLUMNS: Final = 180000
"""The first server that can publish stored generated columns."""


Key = tuple[str, str]
"""Schema and name of a table."""


@dataclass(frozen=True, slots=True)
class _Aim:
    """A publication as it is, and what it is to have."""

    name: str
    state: PublicationState | None
    operations: frozenset[str]
    tables: Mapping[Key, Table]
    """To be listed by name."""
    row_filters: Mapping[int, str]
    """By table oid, which rows are published; of a table that is not here, all are."""
    schemas: frozenset[str] = frozenset()

    @property
    def listed(self) -> frozenset[Key]:
        """The tables that it has by name."""
        return frozenset() if self.state is None else self.state.tables

    def part(self, table: Table) -> Slice:
        return Slice(where=self.row_filters.get(table.oid, ""))


def statements(
    name: str,
    state: PublicationState | None,
    companion: PublicationState | None,
    needs: Wanted,
    server: Server,
    *,
    make_companion: bool = False,
) -> list[Statement]:
    """
    What brings the publication and its companion to what is needed; empty where they are there.

    A publication that still publishes updates is not given row filters in the same go: they come with the next one.

    Args:
        name: of the publication.
        state: None where there is none.
        companion: likewise.
        needs: of the triggers.
        server: whom it is for.
        make_companion: whether a missing companion may be made beside a publication that is there: only before the
            slot is.
    """
    with_companion = companion is not None or state is None or make_companion
    first, second = _aims(name, state, companion, needs, with_companion=with_companion)
    made = []
    if with_companion:
        made += [*_move(first, second, needs), *_move(second, first, needs)]
        made += _statements(second, first, server)
    made = [*_statements(first, second, server), *made]
    # First what is added: a table that is in neither for a moment would lose what is committed then. Row filters go
    # before updates come, or the application's would fail.
    return sorted(made, key=lambda statement: (not statement.needed, not statement.locked))


def _aims(
    name: str,
    state: PublicationState | None,
    companion: PublicationState | None,
    needs: Wanted,
    *,
    with_companion: bool,
) -> tuple[_Aim, _Aim]:
    operations = needs.operations or frozenset(OPERATIONS)
    safe = needs.operations - NEED_IDENTITY
    schemas = needs.schemas | (state.schemas if state is not None else frozenset())
    for_all = state is not None and state.all_tables
    there = companion.tables if companion is not None else frozenset()

    def is_apart(table: Table) -> bool:
        """Whether it is published beside the others because no trigger wants its updates."""
        movable = with_companion and not for_all and table.schema not in schemas and table.oid in needs.inserted
        return movable and (operations != safe or _key(table) in there)

    apart = [table for table in needs.tables if is_apart(table)]
    tables = [table for table in needs.tables if not is_apart(table) and table.schema not in needs.schemas]
    if with_companion:
        apart = [*needs.unidentified, *apart]
    elif state is not None:
        # Somebody put them there; without a companion it is the only way to have their inserts.
        tables += [table for table in needs.unidentified if _key(table) in state.tables]

    # A schema is published whole, and what one publication has whole no other has in part.
    filters = {oid: condition for oid, condition in needs.row_filters.items() if not for_all}
    for table in (*tables, *apart):
        if table.schema in schemas:
            filters.pop(table.oid, None)
    return (
        _Aim(name, state, operations, _by_key(tables), _safely(filters, state, operations), needs.schemas),
        _Aim(commands.companion_name(name), companion, safe, _by_key(apart), _safely(filters, companion, safe)),
    )


def _safely(
    filters: Mapping[int, str], state: PublicationState | None, operations: frozenset[str]
) -> Mapping[int, str]:
    """A filter that leaves out a part of the key makes updates fail where they are published, now or in a moment."""
    published = operations | (state.operations if state is not None else frozenset())
    return {} if published & NEED_IDENTITY else filters


def _move(source: _Aim, to: _Aim, needs: Wanted) -> list[Statement]:
    """In one step: in neither a table would lose changes, in both it may be published in two different parts."""
    if source.state is None or to.state is None:
        return []
    moved = [table for key, table in to.tables.items() if key in source.listed and key not in to.listed]
    updated = [table for table in moved if table.oid not in needs.inserted or _key(table) in source.state.slices]
    made = []
    for tables, why in (
        (updated, "tables of which other operations are wanted by now, or can be sent"),
        ([table for table in moved if table not in updated], "tables of which no trigger wants updates or deletes"),
    ):
        if tables:
            made.append(
                Statement(
                    f"ALTER PUBLICATION {quote_identifier(to.name)} ADD {_parts(tables, to)}",
                    why,
                    needed=tables is updated,
                    together=(f"ALTER PUBLICATION {quote_identifier(source.name)} DROP TABLE {_named(tables)}",),
                    locked=_lockable(tables),
                )
            )
    return made


def _statements(aim: _Aim, other: _Aim, server: Server) -> list[Statement]:
    quoted = quote_identifier(aim.name)
    options = _options(aim.operations, server)
    state = aim.state
    if state is None:
        parts = _parts(aim.tables.values(), aim, aim.schemas)
        scope = f" FOR {parts}" if parts else ""
        return [
            Statement(
                f"CREATE PUBLICATION {quoted}{scope} WITH ({_with(options)})",
                "says which tables and operations the server sends",
            )
        ]
    made: list[Statement] = []
    if not state.all_tables:
        elsewhere = other.listed if other.state is not None else frozenset()
        added = [table for key, table in aim.tables.items() if key not in state.tables | elsewhere]
        new_schemas = aim.schemas - state.schemas
        if added or new_schemas:
            made.append(
                Statement(
                    f"ALTER PUBLICATION {quoted} ADD {_parts(added, aim, new_schemas)}",
                    "tables that triggers name by now",
                )
            )
        made += _resliced(aim, state)
        moved = other.tables.keys() - other.listed if other.state is not None else frozenset()
        gone = sorted(state.tables - aim.tables.keys() - moved)
        old_schemas = sorted(state.schemas - aim.schemas)
        if gone or old_schemas:
            dropped = [f"TABLE {', '.join(f'ONLY {quote_qualified(*key)}' for key in gone)}"] if gone else []
            dropped += [f"TABLES IN SCHEMA {', '.join(map(quote_identifier, old_schemas))}"] if old_schemas else []
            made.append(
                Statement(
                    f"ALTER PUBLICATION {quoted} DROP {', '.join(dropped)}",
                    "tables that no trigger names any more",
                    needed=False,
                )
            )
    current = {
        "publish": _publish(state.operations),
        "publish_via_partition_root": _boolean(state.via_root),
        "publish_generated_columns": "stored" if state.generated_columns else "none",
    }
    changed = {option: value for option, value in options.items() if current[option] != value}
    if changed:
        made.append(
            Statement(
                f"ALTER PUBLICATION {quoted} SET ({_with(changed)})",
                "what the triggers need of it",
                needed=not (state.via_root and aim.operations <= state.operations),
            )
        )
    return made


def _resliced(aim: _Aim, state: PublicationState) -> list[Statement]:
    """Tables that stay where they are, and of which more or less is wanted."""
    quoted = quote_identifier(aim.name)
    stale = [
        table
        for key, table in aim.tables.items()
        if key in state.tables and state.slices.get(key, WHOLE) != aim.part(table)
    ]
    made = []
    for needed in (True, False):
        tables = [table for table in stale if (_key(table) in state.slices) is needed]
        if tables:
            made.append(
                Statement(
                    f"ALTER PUBLICATION {quoted} DROP TABLE {_named(tables)}",
                    "rows that the triggers' filters ask for, and few others",
                    needed=needed,
                    together=(f"ALTER PUBLICATION {quoted} ADD {_parts(tables, aim)}",),
                    locked=_lockable(tables),
                )
            )
    return made


def _key(table: Table) -> Key:
    return table.schema, table.name


def _by_key(tables: Iterable[Table]) -> dict[Key, Table]:
    return {_key(table): table for table in tables}


def _named(tables: Iterable[Table]) -> str:
    return ", ".join(f"ONLY {table.quoted}" for table in tables)


def _lockable(tables: Iterable[Table]) -> tuple[str, ...]:
    """Of a partitioned table also its partitions, which rows are written to."""
    return tuple(table.quoted if table.kind == "p" else f"ONLY {table.quoted}" for table in tables)


def _parts(tables: Iterable[Table], aim: _Aim, schemas: Iterable[str] = ()) -> str:
    parts = []
    if named := ", ".join(_filtered(table, aim.part(table).where) for table in tables):
        parts.append(f"TABLE {named}")
    if whole := ", ".join(quote_identifier(schema) for schema in sorted(schemas)):
        parts.append(f"TABLES IN SCHEMA {whole}")
    return ", ".join(parts)


def _filtered(table: Table, condition: str) -> str:
    where = condition if condition.startswith("(") else f"({condition})"
    return f"ONLY {table.quoted} WHERE {where}" if condition else f"ONLY {table.quoted}"


def _options(operations: frozenset[str], server: Server) -> dict[str, str]:
    options = {"publish": _publish(operations), "publish_via_partition_root": "true"}
    if server.version >= _GENERATED_COLUMNS:
        options["publish_generated_columns"] = "stored"
    return options


def _publish(operations: frozenset[str]) -> str:
    return f"'{', '.join(operation for operation in OPERATIONS if operation in operations)}'"


def _boolean(value: bool) -> str:  # noqa: FBT001 - it is the value
    return "true" if value else "false"


def _with(options: Mapping[str, str]) -> str:
    return ", ".join(f"{option} = {value}" for option, value in options.items())
