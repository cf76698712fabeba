"""
The publication: what the triggers need of it, what it has, and the statements that bring it there.

How it is made, and why:

- Tables are listed one by one, `ONLY` themselves, as the triggers' patterns name them now. A pattern `schema.*` becomes
  TABLES IN SCHEMA where it can (15 and later, a superuser, no table in it that could not be published), because then a
  table made tomorrow is published from its first row on. In every other case a new table is added when the bridge
  starts or `init` runs.
- `publish_via_partition_root = true`: a partitioned table is one table to its users, so its changes come under its own
  name whatever partition holds the row, and attaching or detaching partitions changes nothing. The price: a trigger on
  a single partition of a published table never fires, and a TRUNCATE of a partition is not sent.
- A publication says for all of its tables at once what is published, and a table without a replica identity whose
  updates are published refuses UPDATE and DELETE to the application. So there are two: the named one, and a companion
  (`<name>_inserts`) that publishes no more than inserts and truncates, for tables whose updates could not be sent
  anyway. Nothing that can be captured is left out, and nobody's writes fail. `init` makes both before the slot, the
  companion even if it is empty: the server looks publications up as they were when a change was made, so that one
  made later could not be named in a stream that begins before it.
- Stored generated columns are published where the server can (18 and later): a record has all of its row.
- Our own tables are never published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from bridge.config import Settings
from bridge.errors import BridgeError, ConfigError, SourceMisconfigured
from bridge.source import commands
from bridge.source.commands import Statement, quote_identifier, quote_literal, quote_qualified
from bridge.source.queries import Queries
from bridge.source.tables import Table, leaves, list_tables
from bridge.triggers.tables import TablePattern, TableSelection

OPERATIONS: Final = ("insert", "update", "delete", "truncate")
"""What a publication can publish, in the order of the manual."""

_NEED_IDENTITY: Final = frozenset({"update", "delete"})

_TABLES_IN_SCHEMA: Final = 150000
_GENERATED_COLUMNS: Final = 180000

_STATE: Final = """
SELECT p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
       pg_catalog.to_jsonb(p) ->> 'pubgencols', pg_catalog.pg_has_role(p.pubowner, 'USAGE')
  FROM pg_catalog.pg_publication p WHERE p.pubname =
"""
# prqual and prattrs (row filter, column list) exist from 15 on.
_STATE_TABLES: Final = """
SELECT n.nspname, c.relname,
       pg_catalog.to_jsonb(r) ->> 'prqual' IS NOT NULL, pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname =
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
    " pg_catalog.current_user(), pg_catalog.current_database()"
)


@dataclass(frozen=True, slots=True)
class Server:
    """Whom we talk to, and as whom."""

    version: int
    superuser: bool
    user: str
    database: str


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
    row_filters: frozenset[tuple[str, str]]
    """Tables of which only some rows are published."""
    column_lists: frozenset[tuple[str, str]]
    """Tables of which only some columns are published."""

    def names(self, table: Table) -> bool:
        """Whether it publishes this table by itself, whatever its partitioned parents do."""
        return self.all_tables or table.schema in self.schemas or (table.schema, table.name) in self.tables


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


async def ask_server(session: Queries) -> Server:
    """Raises SourceError if the server does not answer."""
    ((version, superuser, user, database),) = await session.query(_SERVER)
    return Server(int(version or 0), superuser == "on", user or "", database or "")


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
    tables = [
        ((schema or "", table or ""), filtered == "t", listed == "t")
        for schema, table, filtered, listed in await session.query(_STATE_TABLES + literal)
    ]
    server = await ask_server(session)
    schemas = await session.query(_STATE_SCHEMAS + literal) if server.version >= _TABLES_IN_SCHEMA else ()
    return PublicationState(
        name=name,
        all_tables=all_tables == "t",
        operations=frozenset(operation for operation, flag in published if flag == "t"),
        via_root=via_root == "t",
        generated_columns=None if generated is None else generated == "s",
        owned=owned == "t",
        tables=frozenset(table for table, _, _ in tables),
        schemas=frozenset(schema or "" for (schema,) in schemas),
        row_filters=frozenset(table for table, filtered, _ in tables if filtered),
        column_lists=frozenset(table for table, _, listed in tables if listed),
    )


def wanted(
    settings: Settings, tables: Sequence[Table], server: Server, *, published_schemas: frozenset[str] = frozenset()
) -> Wanted:
    """
    What the enabled triggers need, of the tables that there are. Pure.

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
    identity_needed = bool(operations & _NEED_IDENTITY)

    def refuses_writes(table: Table) -> bool:
        return identity_needed and not all(leaf.identifies_rows for leaf in leaves(table, tables))

    matched: dict[int, Table] = {}
    by_trigger: dict[str, tuple[Table, ...]] = {}
    faults: list[ConfigError] = []
    untold: list[ConfigError] = []
    whole: set[str] = set()
    updated: set[int] = set()
    named: set[int] = set()
    for name, trigger in triggers.items():
        if not set(trigger.operations) - {"message"}:
            continue
        selection = trigger.table_selection
        mine = [table for table in published if selection.matches(table.schema, table.name)]
        by_trigger[name] = tuple(mine)
        if _NEED_IDENTITY & set(trigger.operations):
            updated |= {table.oid for table in mine}
            exact = {pattern.exact for pattern in selection.patterns}
            named |= {table.oid for table in mine if (table.schema, table.name) in exact}
        matched |= {table.oid: table for table in mine}
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
    may_add = server.version >= _TABLES_IN_SCHEMA and server.superuser
    whole = (whole - risky if may_add else whole & published_schemas) - {own}
    unidentified = tuple(table for table in topmost if refuses_writes(table))
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
    )


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
    What brings the publication and its companion to what is needed; empty where they are there. Pure.

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
        safe = needs.operations - _NEED_IDENTITY
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is needed, what is there, and what to run."""

    server: Server
    needs: Wanted
    state: PublicationState | None
    companion: PublicationState | None
    todo: tuple[Statement, ...]
    """Empty where nothing is to be done, and where the publication is the user's own."""
    with_companion: bool
    """Whether there is a companion once it was done."""

    @property
    def warnings(self) -> list[str]:
        """Sentences about what will not be sent, each with what would do."""
        shadows = [*(shadow_warning(table) for table in self.needs.shadowed), *map(str, self.needs.untold)]
        if self.with_companion:
            return [*map(inserts_alone, self.needs.unsent), *shadows]
        published = self.state.names if self.state is not None else lambda _: False
        return [*(left_out(table) for table in self.needs.unidentified if not published(table)), *shadows]


async def plan(session: Queries, settings: Settings, *, make_companion: bool = False) -> Plan:
    """
    Compare the publication with the triggers; `make_companion` as for `statements`.

    Raises:
        SourceError: the server refused a question.
    """
    name = settings.source.publication
    server = await ask_server(session)
    state = await inspect(session, name)
    companion = await inspect(session, commands.companion_name(name))
    schemas = state.schemas if state is not None else frozenset()
    needs = wanted(settings, await list_tables(session), server, published_schemas=schemas)
    todo: list[Statement] = []
    if settings.source.manage:
        todo = statements(name, state, companion, needs, server, make_companion=make_companion)
    with_companion = settings.source.manage and (companion is not None or state is None or make_companion)
    return Plan(server, needs, state, companion, tuple(todo), with_companion)


async def prepare(session: Queries, settings: Settings, *, strict: bool = True) -> list[str]:
    """
    Bring an existing publication in step with the triggers, before the stream starts.

    One that is missing is not made here: changes from before it could never be read. Only `init` makes it, before it
    makes the slot.

    Args:
        session: a connection that is not streaming.
        settings: of the process.
        strict: whether a pattern that matches nothing is an error; False at a reconnect, when a table that somebody
            dropped must not stop the triggers of all others.

    Returns:
        Sentences to warn with: what will not be sent, and what would do.

    Raises:
        ConfigError: a pattern matches nothing, or what PostgreSQL does not publish.
        SourceMisconfigured: the publication is missing, or is out of step and we may not change it.
    """
    name = settings.source.publication
    found = await plan(session, settings)
    if found.state is None:
        raise SourceMisconfigured(
            f'publication "{name}" does not exist',
            remedy="create it with: pgbridge init"
            if settings.source.manage
            else "create it before the slot, or set source.manage to true and run: pgbridge init",
        )
    if found.needs.faults and strict:
        raise combined(found.needs.faults)
    warnings = [*map(str, found.needs.faults), *found.warnings]
    for statement in found.todo:
        try:
            await session.query(statement.sql)
        except SourceMisconfigured as error:
            refused = SourceMisconfigured(
                f'publication "{name}" is out of step with the triggers, and this role may not change it:'
                f" {error.message}",
                remedy=f"let a DBA run: {statement.sql}",
            )
            if statement.needed:
                raise refused from error
            warnings.append(str(refused))
    return warnings


def combined(faults: Sequence[BridgeError]) -> BridgeError:
    """One error for several; each keeps its line."""
    first, *others = faults
    if not others:
        return first
    error = type(first)("\n".join(str(fault) for fault in faults))
    error.__cause__ = first
    return error


def inserts_alone(table: Table) -> str:
    """A table whose updates and deletes can't be sent."""
    return (
        f"updates and deletes of {table.full_name} are not sent: it has no replica identity; {give_identity(table)};"
        " or let its trigger have operations: [insert]"
    )


def left_out(table: Table) -> str:
    """A table that can't be published as things are."""
    return (
        f"{table.full_name} is not published: it has no replica identity, so its UPDATE and DELETE would fail;"
        f" {give_identity(table)}"
    )


def give_identity(table: Table) -> str:
    """The remedy for a table that does not identify its rows."""
    return f"add a primary key, or run: ALTER TABLE {table.quoted} REPLICA IDENTITY FULL"


def shadow_warning(table: Table) -> str:
    """A partition whose changes come under another name."""
    return (
        f"changes of partition {table.full_name} come under the name of its published parent,"
        " so a trigger on the partition alone never fires"
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
