"""From a publication as it is to one as it is needed, as statements. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from bridge.source import commands
from bridge.source.commands import Statement, quote_identifier, quote_qualified
from bridge.source.needs import NEED_IDENTITY, Wanted
from bridge.source.published import OPERATIONS, PublicationState, Server
from bridge.source.tables import Table

_GENERATED_COLUMNS: Final = 180000
"""The first server that can publish stored generated columns."""


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
    tables = needs.tables
    if not with_companion and state is not None:
        # Somebody put them there; without a companion it is the only way to have their inserts.
        tables += tuple(table for table in needs.unidentified if (table.schema, table.name) in state.tables)
    made = _statements(name, state, server, tables, needs.schemas, needs.operations or frozenset(OPERATIONS))
    if with_companion:
        safe = needs.operations - NEED_IDENTITY
        made += _statements(commands.companion_name(name), companion, server, needs.unidentified, frozenset(), safe)
    # First what is added: a table that is in neither for a moment would lose what is committed then.
    return sorted(made, key=lambda statement: not statement.needed)


def _statements(  # noqa: PLR0917 - called from one place, twice
    name: str,
    state: PublicationState | None,
    server: Server,
    tables: Iterable[Table],
    schemas: frozenset[str],
    operations: frozenset[str],
) -> list[Statement]:
    quoted = quote_identifier(name)
    listed = {(table.schema, table.name): table for table in tables if table.schema not in schemas}
    options = _options(operations, server)
    if state is None:
        parts = _parts(listed.values(), schemas)
        scope = f" FOR {parts}" if parts else ""
        return [
            Statement(
                f"CREATE PUBLICATION {quoted}{scope} WITH ({_with(options)})",
                "says which tables and operations the server sends",
            )
        ]
    made: list[Statement] = []
    if not state.all_tables:
        added = [table for key, table in listed.items() if key not in state.tables]
        new_schemas = schemas - state.schemas
        if added or new_schemas:
            made.append(
                Statement(
                    f"ALTER PUBLICATION {quoted} ADD {_parts(added, new_schemas)}", "tables that triggers name by now"
                )
            )
        gone = sorted(state.tables - listed.keys())
        old_schemas = sorted(state.schemas - schemas)
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
                needed=not (state.via_root and operations <= state.operations),
            )
        )
    return made


def _parts(tables: Iterable[Table], schemas: Iterable[str]) -> str:
    parts = []
    if named := ", ".join(f"ONLY {table.quoted}" for table in tables):
        parts.append(f"TABLE {named}")
    if whole := ", ".join(quote_identifier(schema) for schema in sorted(schemas)):
        parts.append(f"TABLES IN SCHEMA {whole}")
    return ", ".join(parts)


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
