"""
Versions of a relation: an id for each description, and what one has that the other had not.

The id is made from the description alone: schema and name, replica identity, and of each column in order the name, the
type, its modifier (`varchar(20)`), and whether it is part of the key. So it is the same on every attempt, after every
restart, and on a server that was restored from a dump: types that are not built in enter by name, since their OIDs
differ there. (A domain enters by its OID, for the stream does not say its name.) An altered table that is altered back
has its old id again. What the stream does not show makes no version: constraints, defaults, indexes that identify no
rows, columns outside of a column list, labels added to an enum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from bridge.change import Position
from bridge.pgoutput.messages import Column, RelationMessage, TypeMessage
from bridge.pgoutput.values import BUILT_IN_NAMES, FIRST_OID_AFTER_BUILT_IN

_DIGITS: Final = 16
"""64 bits: two versions of the same table never share an id by chance."""

_IDENTITIES: Final = {"d": "default", "f": "full", "i": "an index", "n": "nothing"}


@dataclass(frozen=True, slots=True)
class Description:
    """One version of a relation, in values that can be kept and compared after a restart."""

    oid: int
    table: str
    """`schema.table`."""
    identity: str
    """`d`, `n`, `f` or `i`."""
    columns: tuple[tuple[str, str, int, bool], ...]
    """Name, type, modifier (-1 for none), part of the key."""

    @classmethod
    def of(cls, message: RelationMessage, announced: Mapping[int, TypeMessage]) -> Description:
        """What a Relation message says; `announced` are the Type messages before it, by OID."""
        columns = tuple((c.name, _type_id(c, announced), c.type_modifier, c.is_key) for c in message.columns)
        namespace, name = _quoted(message.namespace), _quoted(message.name)
        return cls(message.oid, f"{namespace}.{name}", message.replica_identity, columns)

    @property
    def schema_version(self) -> str:
        """The id, in lower-case hexadecimal digits."""
        content = orjson.dumps([self.table, self.identity, self.columns])
        return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _type_id(column: Column, announced: Mapping[int, TypeMessage]) -> str:
    if column.type_oid < FIRST_OID_AFTER_BUILT_IN:
        return BUILT_IN_NAMES.get(column.type_oid) or f"type {column.type_oid}"
    message = announced.get(column.type_oid)
    if message is None:
        return f"type {column.type_oid}"
    if message.namespace == "pg_catalog":
        return f"domain {column.type_oid} over {message.name}"
    return f"{_quoted(message.namespace)}.{_quoted(message.name)}"


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A relation that was described anew, differently."""

    table: str
    schema_version: str
    previous_version: str
    what: tuple[str, ...]
    """In words, one for each difference; never empty."""
    position: Position
    """Of the first change that can be of the new version."""
    committed_at: float
    """When the transaction with that change was committed, in seconds since 1970."""


class RelationHistory:
    """
    What each relation was last, for one process, across streams.

    A stream that is begun again describes relations as they were then; positions tell that from something new.
    """

    def __init__(self) -> None:
        self.total = 0
        """Changes noted since the start."""
        self.last: dict[str, SchemaChange] = {}
        """By table, the last change."""
        self._known: dict[int, tuple[Description, Position]] = {}
        self._by_table: dict[str, int] = {}

    def note(self, description: Description, position: Position, committed_at: float) -> SchemaChange | None:
        """
        Take a description in that holds from a position on.

        Returns:
            What has changed, if the relation (or one of that name before it) was described differently, earlier in the
            stream.
        """
        oid = description.oid
        before = self._known.get(oid)
        if before is None:  # dropped and made again, perhaps
            before = self._known.get(self._by_table.get(description.table, oid))
        if before is not None and position < before[1]:
            return None
        if before is not None and before[0].table != description.table:
            self._by_table.pop(before[0].table, None)
            self.last.pop(before[0].table, None)
        self._known[oid] = description, position
        self._by_table[description.table] = oid
        if before is None:
            return None
        what = differences(before[0], description)
        if not what:
            return None
        change = SchemaChange(
            description.table,
            description.schema_version,
            before[0].schema_version,
            what,
            position,
            committed_at,
        )
        self.total += 1
        self.last[description.table] = change
        return change


def differences(before: Description, after: Description) -> tuple[str, ...]:
    """What a table has become, in words; empty where both have one id."""
    found: list[str] = []
    if before.table != after.table:
        found.append(f"renamed from {before.table}")
    old = {name: (kind, modifier) for name, kind, modifier, _ in before.columns}
    new = {name: (kind, modifier) for name, kind, modifier, _ in after.columns}
    renamed = _renamed(before, after)
    for name, (kind, modifier) in new.items():
        if name in renamed:
            found.append(f"column {renamed[name]} renamed to {name}")
        elif name not in old:
            found.append(f"column {name} added ({_type_text(kind, modifier)})")
        elif old[name] != (kind, modifier):
            found.append(f"column {name} changed from {_type_text(*old[name])} to {_type_text(kind, modifier)}")
    gone = [name for name in old if name not in new and name not in renamed.values()]
    found.extend(f"column {name} dropped" for name in gone)
    if before.identity != after.identity:
        found.append(
            f"replica identity changed from {_IDENTITIES.get(before.identity, before.identity)}"
            f" to {_IDENTITIES.get(after.identity, after.identity)}"
        )
    elif before.identity != "f":
        keys_before = [_new_name(renamed, name) for name, _, _, key in before.columns if key]
        keys_after = [name for name, _, _, key in after.columns if key]
        if keys_before != keys_after:
            found.append(f"key changed from ({', '.join(keys_before)}) to ({', '.join(keys_after)})")
    if not found and before.columns != after.columns:
        found.append("columns in another order")
    return tuple(found)


def _new_name(renamed: Mapping[str, str], name: str) -> str:
    """A column's new name, by the mapping of new names to old ones."""
    return next((new for new, old in renamed.items() if old == name), name)


def _renamed(before: Description, after: Description) -> dict[str, str]:
    """New names to old ones: a column of a new name in the place of one of the same type whose name is gone."""
    old_names, new_names = {c[0] for c in before.columns}, {c[0] for c in after.columns}
    return {
        new[0]: old[0]
        for old, new in zip(before.columns, after.columns, strict=False)
        if old[0] != new[0] and old[0] not in new_names and new[0] not in old_names and old[1:3] == new[1:3]
    }


def _type_text(kind: str, modifier: int) -> str:
    """As SQL writes it, where the modifier's meaning is known."""
    if modifier < 0:
        return kind
    if kind in {"varchar", "bpchar"}:
        return f"{kind}({modifier - 4})"
    if kind == "numeric":
        precision, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
        # Scales are 11 bits with a sign since 15.
        return f"numeric({precision},{(scale ^ 1024) - 1024})"
    if kind in {"bit", "varbit", "time", "timetz", "timestamp", "timestamptz"}:
        return f"{kind}({modifier})"
    return f"{kind} with modifier {modifier}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name
