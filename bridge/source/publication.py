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
- With `push_down: auto` the companion also takes the tables of which no trigger wants updates or deletes, and wherever
  inserts alone are published a table may have a row filter (`push_down.py`): only there can neither change what an
  event says, or make anybody's writes fail. The server keeps columns that a row filter reads from being dropped or
  given another type.
- An ordinal counts what the server sends, and it sends each change as the publication was then, so a resend numbers
  the same. One case is different: of a transaction that wrote to a table before *and* committed after the table's
  part in a publication was altered, the server may send another choice of rows the next time, as it keeps what it
  looked up for one transaction into the next. So a table's filter changes, and it moves from one publication to the
  other, only under a lock that waits for its writers. Where the lock is not had soon a filter waits for the next
  start; what the triggers can't do without is done all the same, like everything else here that needs no lock.
- Stored generated columns are published where the server can (18 and later): a record has all of its row.
- Our own tables are never published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.config import Settings
from bridge.errors import BridgeError, SourceMisconfigured, TableBusy
from bridge.source import commands
from bridge.source.alterations import statements
from bridge.source.commands import Statement
from bridge.source.needs import Wanted, wanted
from bridge.source.published import PublicationState, Server, ask_server, inspect
from bridge.source.queries import Queries, run
from bridge.source.tables import Table, list_tables


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
    found = await plan(session, settings)
    if found.state is None:
        raise SourceMisconfigured(
            f'publication "{settings.source.publication}" does not exist',
            remedy="create it with: pgbridge init"
            if settings.source.manage
            else "create it before the slot, or set source.manage to true and run: pgbridge init",
        )
    if found.needs.faults and strict:
        raise combined(found.needs.faults)
    warnings = [*map(str, found.needs.faults), *found.warnings]
    refused = await _alter(session, found)
    if found.todo and not refused:
        # One that published updates until now may have row filters from here on.
        refused = await _alter(session, await plan(session, settings))
    return [*warnings, *refused]


async def _alter(session: Queries, found: Plan) -> list[str]:
    """Run what is to be done; returns what could not be, and can wait."""
    warnings = []
    for statement in found.todo:
        try:
            await run(session, statement)
        except TableBusy as error:
            warnings.append(f"the publication can't be narrowed now, and will be at the next start: {error.message}")
        except SourceMisconfigured as error:
            name = "" if found.state is None else found.state.name
            refused = SourceMisconfigured(
                f'publication "{name}" is out of step with the triggers, and this role may not change it:'
                f" {error.message}",
                remedy=f"let a DBA run: {statement.text}",
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
