"""
Which rows of a table its triggers want, as a publication can say it. Pure.

Only for a table of which inserts alone are published (`alterations.py` sees to that), for two reasons. A row filter
turns an update into an insert or a delete when the row matches on one side alone, which is another event than the
trigger asked for. And a filter that does not cover the replica identity, as it is today or after somebody's ALTER
TABLE, makes the application's UPDATE and DELETE fail; of inserts the server asks no such thing.

The condition sent to the server is never the filter itself but something that holds wherever the filter does: what SQL
would not say in exactly the same way is left out of it, and the bridge asks its own filters of what comes. So a mistake
of omission costs bytes, not events. What is said is what cannot fail on any row and is written in the server's own
spelling, so that a publication can be compared with it (`pg_get_expr`): comparisons of built-in types with constants.

Lists of columns are not pushed down, for no list is as good as the table: the server would describe the table by it, so
that the events' schema_version and what triggers learn of schema changes were another, and a primary key that somebody
makes of other columns would stand in the events by half, in every row up to the day the list is mended.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bridge.config import TriggerSettings
from bridge.source.published import SLICES, Server
from bridge.source.tables import Column, Table
from bridge.triggers.filter.language import Affix, AnythingBut, Between, Conjunction, Equals, Test
from bridge.triggers.filter.values import Number

_MOST_COMPARISONS: Final = 64
"""In one condition. The server evaluates it for each row, one after the other; more would cost it more than sending."""
_MOST_DIGITS: Final = 40

_BOOLEAN: Final = 16
_UUID: Final = 2950
_NUMERIC: Final = 1700
_TEXTS: Final = {25: "{}", 1043: "({})::text"}
"""Type OIDs (`pg_type.dat`) to how the column is compared as text."""
_INTEGERS: Final = {21: ("smallint", 1 << 15), 23: ("integer", 1 << 31), 20: ("bigint", 1 << 63)}
_NUMBERS: Final = frozenset({*_INTEGERS, _NUMERIC})
_COMPARABLE: Final = frozenset({*_TEXTS, *_NUMBERS, _BOOLEAN, _UUID})
_CANONICAL_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class _All:
    """Every one of these conditions; none of them holds everywhere."""

    of: tuple[_Condition, ...]


@dataclass(frozen=True, slots=True)
class _Any:
    """One of these conditions."""

    of: tuple[_Condition, ...]


_Value = str | Number | bool | None
_Condition = str | _All | _Any
_EVERYWHERE: Final = _All(())


def row_filter(table: Table, triggers: Iterable[TriggerSettings], server: Server) -> str:
    """
    The condition on inserted rows that does for all of these triggers; empty where every row is wanted.

    Args:
        table: that all of them name.
        triggers: enabled ones.
        server: what it can, and what text can be sent to it.
    """
    inserting = [trigger for trigger in triggers if "insert" in trigger.operations]
    if server.version < SLICES:
        return ""
    columns = {column.name: column for column in table.details if not column.generated}
    condition = _any([_wanted_by(trigger, columns, server) for trigger in inserting])
    return "" if condition == _EVERYWHERE or _size(condition) > _MOST_COMPARISONS else _written(condition)


def _wanted_by(trigger: TriggerSettings, columns: dict[str, Column], server: Server) -> _Condition:
    matcher = None if trigger.selection is None else trigger.selection.matcher
    if matcher is None or not matcher.conjunctions:
        return _EVERYWHERE
    return _any([_conjunction(conjunction.tests, columns, server) for conjunction in matcher.conjunctions])


def _conjunction(fields: Conjunction, columns: dict[str, Column], server: Server) -> _Condition:
    conditions = []
    for name, tests in fields.items():
        row, _, column = name.partition(".")
        # A name with a further dot is a member of a document, or a column whose name has one.
        # And what a document holds may be null without being SQL's.
        if row == "record" and "." not in column and column in columns and columns[column].type_oid in _COMPARABLE:
            conditions.append(_any([_test(columns[column], test, server) for test in tests]))
    return _all(conditions)


def _test(column: Column, test: Test, server: Server) -> _Condition:
    """What holds of every row whose event this test accepts."""
    match test:
        case Equals(None):
            return f"({column.quoted} IS NULL)"
        case Equals(value):
            return _compared(column, "=", value, server)
        case Affix(text, at_end=False, ignore_case=False) if column.type_oid in _TEXTS and text:
            subject, constant = _operands(column, text, server) or ("", "")
            return f"starts_with({subject}, {constant})" if constant else _EVERYWHERE
        case Between():
            low = _limit(column, test.low, ">" if test.low_open else ">=", server)
            high = _limit(column, test.high, "<" if test.high_open else "<=", server)
            return _all([low, high])
        case AnythingBut(tests):
            # Null is something else than any value, and so IS DISTINCT FROM says.
            excluded = [inner.value for inner in tests if isinstance(inner, Equals)]
            return _all([_compared(column, "IS DISTINCT FROM", value, server) for value in excluded])
        case _:
            return _EVERYWHERE


def _limit(column: Column, limit: Number | None, sign: str, server: Server) -> _Condition:
    if limit is None or not Decimal(limit).is_finite() or column.type_oid not in _NUMBERS:
        return _EVERYWHERE
    if column.type_oid in _INTEGERS and limit != int(limit):
        # No integer lies between a fraction and the next one.
        limit, sign = (math.ceil(limit), ">=") if sign[0] == ">" else (math.floor(limit), "<=")
    return _compared(column, sign, limit, server)


def _compared(column: Column, sign: str, value: _Value, server: Server) -> _Condition:
    operands = _operands(column, value, server)
    return _EVERYWHERE if operands is None else f"({operands[0]} {sign} {operands[1]})"


def _operands(column: Column, value: _Value, server: Server) -> tuple[str, str] | None:
    """Both sides of a comparison as the server writes them; None where it would not mean the same."""
    if column.type_oid in _TEXTS:
        if isinstance(value, str) and column.plainly_collated and _can_be_sent(value, server):
            return _TEXTS[column.type_oid].format(column.quoted), f"'{value.replace(chr(39), chr(39) * 2)}'::text"
        return None
    constant = _constant(column.type_oid, value)
    return None if constant is None else (column.quoted, constant)


def _constant(type_oid: int, value: _Value) -> str | None:
    if isinstance(value, bool):
        return str(value).lower() if type_oid == _BOOLEAN else None
    if isinstance(value, str):
        return f"'{value}'::uuid" if type_oid == _UUID and _CANONICAL_UUID.fullmatch(value) else None
    if value is None or not Decimal(value).is_finite():
        return None
    if type_oid in _INTEGERS:
        name, beyond = _INTEGERS[type_oid]
        if value != int(value) or not -beyond <= value < beyond:
            return None
        return str(int(value)) if name == "integer" and value >= 0 else f"'{int(value)}'::{name}"
    if type_oid == _NUMERIC:
        text = f"{Decimal(value):f}"
        if len(text) > _MOST_DIGITS:
            return None
        return text if "." in text and value >= 0 else f"'{text}'::numeric"
    return None


def _can_be_sent(text: str, server: Server) -> bool:
    """A backslash is written in one way or another as the session is set; other encodings lack some characters."""
    return text.isprintable() and "\\" not in text and (server.utf8 or text.isascii())


def _all(conditions: Iterable[_Condition]) -> _Condition:
    parts: list[_Condition] = []
    for condition in conditions:
        parts += condition.of if isinstance(condition, _All) else (condition,)
    parts = list(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else _All(tuple(parts))


def _any(conditions: Sequence[_Condition]) -> _Condition:
    if not conditions or _EVERYWHERE in conditions:
        return _EVERYWHERE
    parts: list[_Condition] = []
    for condition in conditions:
        parts += condition.of if isinstance(condition, _Any) else (condition,)
    parts = list(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else _Any(tuple(parts))


def _size(condition: _Condition) -> int:
    return 1 if isinstance(condition, str) else sum(map(_size, condition.of))


def _written(condition: _Condition) -> str:
    if isinstance(condition, str):
        return condition
    word = " AND " if isinstance(condition, _All) else " OR "
    return f"({word.join(map(_written, condition.of))})"
