"""
Which triggers will lack old values, or the columns of deleted rows, given the tables' replica identities. Pure.

Under FULL the server sends the old row with every update and delete. Under any other identity `changes` is null, and a
delete's `record` has the identity's columns alone. That is PostgreSQL's default and often enough; whoever expected more
should hear of it before the first event, and whoever asks for more by a pattern waits for events that never match.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.config import Settings, TriggerSettings
from bridge.source.tables import Table, leaves

_MOST_NAMED: Final = 3
"""Tables that a sentence lists; the others are counted."""


@dataclass(frozen=True, slots=True)
class IdentityWarning:
    """What the events of one trigger will lack."""

    trigger: str
    tables: tuple[Table, ...]
    """Of which they lack it."""
    old_values: bool
    """`changes` of updates will be null."""
    deleted_columns: bool
    """`record` of deletes will hold just the key."""
    asked_for: bool
    """A pattern of the trigger reads what is not there, so it will not match, or match what it should not."""

    @property
    def what(self) -> str:
        """The finding in a sentence."""
        lacking = []
        if self.old_values:
            lacking.append("updates come without old values (changes is null)")
        if self.deleted_columns:
            lacking.append("deletes with the key alone")
        asked = ", and the trigger's filter asks for more" if self.asked_for else ""
        return f"trigger {self.trigger}: of {_named(self.tables)}, {' and '.join(lacking)}{asked}"

    @property
    def remedy(self) -> str:
        """What mends it, where it is not as it should be."""
        of_each = "; the same for the others" if len(self.tables) > 1 else ""
        return (
            f"if that is not enough, run: ALTER TABLE {self.tables[0].quoted} REPLICA IDENTITY FULL{of_each}"
            " (updates and deletes then write the whole old row to the WAL)"
        )


def identity_warnings(settings: Settings, tables: Sequence[Table]) -> list[IdentityWarning]:
    """
    What the enabled triggers will lack, of the tables that there are.

    Args:
        settings: of the process.
        tables: all of the database (`list_tables`).
    """
    found = []
    for name, trigger in settings.triggers.items():
        if not trigger.enabled:
            continue
        selection = trigger.table_selection
        lacking = tuple(
            table
            for table in tables
            if table.unpublishable is None
            and table.schema != settings.store.schema_
            and selection.matches(table.schema, table.name)
            and not _sends_old_rows(table, tables)
        )
        # Under a published root a partition's rows come as the root's: one of them is named.
        lacking = tuple(table for table in lacking if not table.ancestors & {other.oid for other in lacking})
        old_values = "update" in trigger.operations
        deleted_columns = "delete" in trigger.operations and any(_has_more_than_a_key(table) for table in lacking)
        if lacking and (old_values or deleted_columns):
            asked = _asks(trigger, lacking)
            found.append(IdentityWarning(name, lacking, old_values, deleted_columns, asked))
    return found


def _sends_old_rows(table: Table, tables: Iterable[Table]) -> bool:
    """Both have to be FULL, root and partition: the one says what is sent, the other what there is to send."""
    return table.identity == "full" and all(leaf.identity == "full" for leaf in leaves(table, tables))


def _has_more_than_a_key(table: Table) -> bool:
    return not table.columns or bool(table.columns - table.key)


def _asks(trigger: TriggerSettings, tables: Iterable[Table]) -> bool:
    """Whether its filter reads old values, or of a deleted row more than the key; `needs.py` looks at `changed`."""
    matcher = None if trigger.selection is None else trigger.selection.matcher
    if matcher is None:
        return False
    if "update" in trigger.operations and matcher.reads("changes"):
        return True
    if "delete" not in trigger.operations:
        return False
    return any(matcher.reads("record", column) for table in tables for column in table.columns - table.key)


def _named(tables: Sequence[Table]) -> str:
    named = ", ".join(table.full_name for table in tables[:_MOST_NAMED])
    more = len(tables) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
