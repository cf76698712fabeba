"""
Plausible values for columns, as PostgreSQL's text. Pure: whether the server takes one is asked elsewhere.

Each type has several candidates, the likeliest first, because a domain's check, a length or a scale may refuse some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bridge.pgoutput.values import CatalogType

MAXIMUM_DEPTH: Final = 8
"""Domains over arrays over domains: deeper than anybody nests them."""


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """One row of `pg_type`, with what samples need beside it."""

    oid: int
    name: str
    kind: str
    """`typtype`."""
    base: int
    base_modifier: int
    element: int
    """0 where it is no true array."""
    delimiter: str
    """The element's `typdelim`."""
    label: str | None
    """First label of an enum."""
    members: int
    """Columns of a composite type."""

    @property
    def in_catalog(self) -> CatalogType:
        """As the encoders want it."""
        from bridge.pgoutput.values import CatalogType  # noqa: PLC0415 - --help needs none of it

        return CatalogType(self.kind, self.base, self.element, self.delimiter)


_BY_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "bool": ("t",),
    "int2": ("7", "1", "0", "42", "1000", "-1"),
    "int4": ("7", "1", "0", "42", "1000", "1000000", "-1"),
    "int8": ("7", "1", "0", "42", "1000", "1000000", "-1"),
    "numeric": ("12.50", "1", "0.5", "0", "1000", "-1"),
    "float4": ("1.5", "0"),
    "float8": ("1.5", "0"),
    "money": ("12.50",),
    "uuid": ("7f3c0e5e-2c41-4b8e-9a55-0d9b1a6c2f10",),
    "date": ("2026-11-22",),
    "time": ("05:37:00",),
    "timetz": ("05:37:00+00",),
    "timestamp": ("2026-11-22 05:37:00.123456",),
    "timestamptz": ("2026-11-22 05:37:00.123456+00",),
    "interval": ("1 day 02:03:04",),
    "json": ('{"key": "value"}', "[]", "1"),
    "jsonb": ('{"key": "value"}', "[]", "1"),
    "jsonpath": ("$.key",),
    "bytea": ("\\x68656c6c6f",),
    "inet": ("192.0.2.7",),
    "cidr": ("192.0.2.0/24",),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "bit": ("1",),
    "varbit": ("101", "1"),
    "point": ("(1,2)",),
    "line": ("{1,-1,0}",),
    "lseg": ("[(0,0),(1,1)]",),
    "box": ("(1,1),(0,0)",),
    "path": ("[(0,0),(1,1)]",),
    "polygon": ("((0,0),(1,0),(1,1))",),
    "circle": ("<(0,0),1>",),
    "tsvector": ("'sample'",),
    "tsquery": ("'sample'",),
    "xml": ("<note>sample</note>",),
    "char": ("a",),
    "oid": ("1",),
    "pg_lsn": ("0/1A2B3C0",),
    "int4range": ("[1,10)",),
    "int8range": ("[1,10)",),
    "numrange": ("[1.5,2.5)",),
    "daterange": ("[2026-11-22,2026-11-29)",),
    "tsrange": ('["2026-11-22 05:37:00","2026-11-22 06:37:00")',),
    "tstzrange": ('["2026-11-22 05:37:00+00","2026-11-22 06:37:00+00")',),
    "int4multirange": ("{[1,10)}",),
    "int8multirange": ("{[1,10)}",),
    "nummultirange": ("{[1.5,2.5)}",),
    "datemultirange": ("{[2026-11-22,2026-11-29)}",),
    "hstore": ('"key"=>"value"',),
    "ltree": ("top.next",),
}

_BY_NAME: Final = (
    # The column's name in lower case, and what a text column of that name is likely to hold.
    (re.compile(r"e?mail"), "jane.doe@example.com"),
    (re.compile(r"url|link|website"), "https://example.com/jane"),
    (re.compile(r"phone|mobile|fax"), "+441632960123"),
    (re.compile(r"first.?name|given"), "Jane"),
    (re.compile(r"last.?name|surname|family"), "Doe"),
    (re.compile(r"user.?name|login|slug|handle"), "jane-doe"),
    (re.compile(r"name"), "Jane Doe"),
    (re.compile(r"country"), "GB"),
    (re.compile(r"currency"), "EUR"),
    (re.compile(r"lang|locale"), "en"),
    (re.compile(r"city|town"), "London"),
    (re.compile(r"zip|postal|postcode"), "10115"),
    (re.compile(r"plan|tier"), "pro"),
    (re.compile(r"status|state"), "active"),
    (re.compile(r"colou?r"), "#336791"),
)
_ANY_TEXT: Final = ("sample", "a", "A", "1", "AB", "ABC", "abc-123", "jane.doe@example.com", "https://example.com", "")
"""For text of which nothing is known but what a check on it lets through."""

_LAST_RESORT: Final = ("sample", "1", "{}", "[1,10)", "(1,2)")


def candidates(types: Mapping[int, TypeFacts], oid: int, modifier: int, column: str, depth: int = 0) -> list[str]:
    """
    Texts to try for a column, best first; empty where none is known.

    Args:
        types: of the column, and of what it is made of.
        oid: the column's type.
        modifier: `atttypmod`, or -1.
        column: its name, which says more than its type when that is text.
        depth: of nested types.
    """
    facts = types.get(oid)
    if facts is None or depth > MAXIMUM_DEPTH:
        return []
    if facts.kind == "d":
        return candidates(types, facts.base, facts.base_modifier, column, depth + 1)
    if facts.element:
        inner = candidates(types, facts.element, modifier, column, depth + 1)
        return ["{" + _quoted(text) + "}" for text in inner] or ["{}"]
    if facts.kind == "e":
        return [] if facts.label is None else [facts.label]
    if facts.kind == "c":
        return ["(" + "," * (facts.members - 1) + ")"]
    if facts.name == "vector" and modifier > 0:
        return ["[" + ",".join(str(index % 3) for index in range(1, modifier + 1)) + "]"]
    if facts.name == "bit" and modifier > 0:
        return ["10" * (modifier // 2) + "1" * (modifier % 2)]
    if facts.name in _BY_TYPE:
        return list(_BY_TYPE[facts.name])
    if facts.name in ("text", "varchar", "bpchar", "name", "citext"):
        return _texts(column)
    return [] if facts.kind == "p" else list(_LAST_RESORT)


def another(texts: list[str], used: str | None) -> list[str]:
    """Candidates for the other row of an update: those that differ from the value already in use come first."""
    return [text for text in _SECOND.get(used or "", ()) if text != used] + [text for text in texts if text != used]


_SECOND: Final[dict[str, tuple[str, ...]]] = {
    "Jane Doe": ("John Doe",),
    "Jane": ("John",),
    "pro": ("free",),
    "active": ("new",),
    "jane.doe@example.com": ("john.doe@example.com",),
    "t": ("f",),
    "sample": ("example",),
    "12.50": ("10.00",),
    "7": ("6",),
}


def _texts(column: str) -> list[str]:
    name = column.lower()
    likely = [text for pattern, text in _BY_NAME if pattern.search(name)][:1]
    return [*likely, *(text for text in _ANY_TEXT if text not in likely)]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
