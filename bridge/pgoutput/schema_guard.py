"""
For one trigger with `on_schema_change: pause`: which description of each relation it takes, and where it stops. Pure.

A relation's first description is taken as it is. When it is described differently later, the trigger stops before its
next event of that relation (a *stop*, named by the event's id); that event is a barrier, so everything before it is
delivered first and everything after it waits. Opening the stop lets it go on. Versions follow each other: a third
one while the second is still waited for is a stop of its own, further on.

A stream that is begun again describes relations as they were then, so what is known holds from a position on, and
descriptions before that are history. What is known has to outlive the process: `changes` are items to be stored before
any event that came with them is handed over, and `restore` takes them in again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.change import Position
from bridge.pgoutput.schema_version import Description, differences

_RELATION: Final = "relation:"
_STOP: Final = "stop:"


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a trigger waits, and for what."""

    event_id: str
    relation_oid: int
    table: str
    what: tuple[str, ...]
    """What has changed, in words."""


class SchemaGuard:
    """What one trigger knows; see above."""

    def __init__(self) -> None:
        self.stops: dict[bytes, Stop] = {}
        """By event id; in the order of events."""
        self._known: dict[int, tuple[Description, Position]] = {}
        self._by_table: dict[str, int] = {}
        self._changes: dict[str, str | None] = {}

    @classmethod
    def restore(cls, items: Mapping[str, str]) -> SchemaGuard:
        """From what was stored: item to its content."""
        guard = cls()
        stops = []
        for item, content in items.items():
            members = json.loads(content)
            if item.startswith(_STOP):
                stops.append(_read_stop(item.removeprefix(_STOP), members))
            else:
                guard._know(*_read_known(int(item.removeprefix(_RELATION)), members))
        guard.stops = {stop.event_id.encode(): stop for stop in sorted(stops, key=lambda stop: stop.event_id)}
        return guard

    # -- what the assembler asks and says ------------------------------------------------------------------------------

    def differs(self, description: Description, position: Position) -> tuple[str, ...]:
        """
        Take a description in that holds from a position on.

        Returns:
            What is different from what the trigger takes, in words; empty where it may go on.
        """
        known = self._known.get(description.oid)
        if known is None:  # dropped and made again, perhaps
            known = self._known.get(self._by_table.get(description.table, description.oid))
        if known is None:
            self._learn(description, position)
            return ()
        before, since = known
        if position < since:
            return ()
        what = differences(before, description)
        if not what and before.oid != description.oid:
            self._learn(description, position)
        return what

    def stop_before(self, position: Position, description: Description, what: tuple[str, ...]) -> None:
        """The event at this position is the trigger's first of a description that differs."""
        stop = Stop(position.event_id, description.oid, description.table, what)
        self.stops[stop.event_id.encode()] = stop
        self._changes[_STOP + stop.event_id] = _write_stop(stop)
        self._learn(description, position)

    def has_stop_in(self, relation_oid: int) -> bool:
        """Whether one of the relation's events is a stop."""
        return any(stop.relation_oid == relation_oid for stop in self.stops.values())

    # -- what the dispatcher says --------------------------------------------------------------------------------------

    def open(self, event_id: bytes) -> None:
        """Somebody has seen to it: the trigger takes what comes from this stop on."""
        del self.stops[event_id]
        self._changes[_STOP + event_id.decode()] = None

    # -- what has to be stored -----------------------------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        return bool(self._changes)

    def changes(self) -> dict[str, str | None]:
        """Item to content, or None where it is gone, since `stored` was called last."""
        return dict(self._changes)

    def stored(self, changes: Mapping[str, str | None]) -> None:
        """These are stored."""
        self._changes = {item: content for item, content in self._changes.items() if changes.get(item, "") != content}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _learn(self, description: Description, position: Position) -> None:
        replaced = self._by_table.get(description.table)
        if replaced is not None and replaced != description.oid:
            self._forget(replaced)
        known = self._known.get(description.oid)
        if known is not None and known[0].table != description.table:
            self._by_table.pop(known[0].table, None)
        self._know(description, position)
        self._changes[f"{_RELATION}{description.oid}"] = _write_known(description, position)

    def _know(self, description: Description, position: Position) -> None:
        self._known[description.oid] = description, position
        self._by_table[description.table] = description.oid

    def _forget(self, oid: int) -> None:
        del self._known[oid]
        self._changes[f"{_RELATION}{oid}"] = None


# -- as text -----------------------------------------------------------------------------------------------------------


def _write_known(description: Description, position: Position) -> str:
    return _dumps(
        {
            "table": description.table,
            "identity": description.identity,
            "columns": description.columns,
            "since": position.event_id,
        }
    )


def _read_known(oid: int, members: Mapping[str, Any]) -> tuple[Description, Position]:
    columns = tuple((name, kind, modifier, key) for name, kind, modifier, key in members["columns"])
    return Description(oid, members["table"], members["identity"], columns), Position.parse(members["since"])


def _write_stop(stop: Stop) -> str:
    return _dumps({"relation": stop.relation_oid, "table": stop.table, "what": stop.what})


def _read_stop(event_id: str, members: Mapping[str, Any]) -> Stop:
    return Stop(event_id, members["relation"], members["table"], tuple(members["what"]))


def _dumps(members: Mapping[str, Any]) -> str:
    """ASCII, which a database of any encoding takes."""
    return json.dumps(members, separators=(",", ":"))
