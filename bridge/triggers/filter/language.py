"""
The words of the language, as read: what an alternative can be, and how a pattern that has no such words is refused.

These are values. `grammar.py` and `operators.py` make them, `leaf.py` compiles them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from bridge.triggers.filter.values import Number


class PatternError(ValueError):
    """
    A pattern that the language does not have.

    Attributes:
        place: where in the pattern, `record.age[0].numeric`; empty for the pattern as a whole.
        reason: one sentence: what is wrong, and what would do.
        index: which of several patterns, from 0; None when there was one.
    """

    def __init__(self, place: str, reason: str, index: int | None = None) -> None:
        super().__init__(place, reason, index)
        self.place = place
        self.reason = reason
        self.index = index

    def __str__(self) -> str:
        which = "" if self.index is None else f"pattern {self.index + 1}: "
        where = f"{self.place}: " if self.place else ""
        return f"{which}{where}{self.reason}"


class Members:
    """A JSON object with its members in the order of the text, and with both where a name is written twice."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


Pattern = Mapping[str, Any] | Members | str
"""JSON text, or what it or YAML parses to."""


@dataclass(frozen=True, slots=True)
class Equals:
    """The value itself. A number equals every spelling of it."""

    value: str | Number | bool | None


@dataclass(frozen=True, slots=True)
class SameAddress:
    """A plain text that is an IP address: equals every spelling of that address."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Affix:
    """Text that begins, or ends, with this."""

    text: str
    at_end: bool
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class IgnoreCase:
    """Text that is this but for the case of its letters."""

    text: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Text made of these runs of characters, with anything between them; a single run is the whole text."""

    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """A number in this range; None is no limit on that side."""

    low: Number | None
    low_open: bool
    high: Number | None
    high_open: bool


@dataclass(frozen=True, slots=True)
class InNetwork:
    """Text that is an address in this block."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Exists:
    """Any value, null too (`wanted`), or none: absent, an object, an empty array."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class AnythingBut:
    """Any value that none of these tests accepts. All are of one kind."""

    tests: tuple[Equals | Affix | IgnoreCase | Wildcard, ...]


Test = Equals | SameAddress | Affix | IgnoreCase | Wildcard | Between | InNetwork | Exists | AnythingBut
Conjunction = dict[str, tuple[Test, ...]]
"""Flattened name, `record.age`, to alternatives, one of which has to accept."""


def reads_text(tests: Iterable[Test]) -> bool:
    """Whether any of the tests can tell one text from another."""
    return any(
        isinstance(test, SameAddress | Affix | IgnoreCase | Wildcard | InNetwork)
        or (isinstance(test, Equals) and isinstance(test.value, str))
        or (isinstance(test, AnythingBut) and reads_text(test.tests))
        for test in tests
    )


def members_of(content: Any) -> list[tuple[Any, Any]]:
    return content.pairs if isinstance(content, Members) else list(content.items())


def is_object(value: object) -> bool:
    return isinstance(value, Members | Mapping)


def is_array(value: object) -> bool:
    return isinstance(value, list | tuple)


def kind(value: object) -> str:
    """A value in the words of an error message: "text", "a list"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float | Decimal):
        return "a number"
    if is_array(value):
        return "a list"
    if is_object(value):
        return "an object"
    return f"a {type(value).__name__}"  # YAML makes dates of what looks like one


def refuse(place: str, reason: str) -> NoReturn:
    raise PatternError(place, reason)
