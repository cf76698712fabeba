r"""
Which tables a trigger wants: `schema.table` with globs. Pure.

    pattern  = ["!"] name "." name
    name     = 1*(quoted / bare)
    quoted   = '"' text '"'        a doubled quote stands for one; no globs inside
    bare     = anything but . " and white space; * is any run of characters, ? is any one

Names are compared exactly, with no folding to lower case: a publication, `pg_class` and the stream spell a table in
one way, and a pattern that matches nothing is better than one that matches the neighbour. A pattern with `!` takes
tables away again, wherever in the list it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self


class PatternSyntaxError(ValueError):
    """The text is not a table pattern; the message says what would do."""


@dataclass(frozen=True, slots=True)
class TablePattern:
    """One pattern. Equal where the text is."""

    text: str
    excludes: bool = field(compare=False)
    exact: tuple[str, str] | None = field(compare=False)
    """Schema and table where the pattern has no glob, so names one table."""
    _schema: re.Pattern[str] = field(compare=False, repr=False)
    _table: re.Pattern[str] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read a pattern.

        Raises:
            PatternSyntaxError: it has no schema, too many dots, an open quote, or an empty name.
        """
        excludes = text.startswith("!")
        names = _names(text[1:] if excludes else text)
        if len(names) == 1:
            raise PatternSyntaxError(f"{text!r} names no schema; write schema.table, such as public.{text.lstrip('!')}")
        if len(names) > 2:
            raise PatternSyntaxError(
                f"{text!r} has more than one dot; write schema.table, and put a name with a dot in it in double quotes"
            )
        schema, table = names
        exact = None
        if schema.exact is not None and table.exact is not None:
            exact = (schema.exact, table.exact)
        return cls(text, excludes, exact, schema.regex, table.regex)

    def matches(self, schema: str, table: str) -> bool:
        """Whether the pattern covers this table; of a pattern with `!`, whether it is taken away."""
        return self._schema.fullmatch(schema) is not None and self._table.fullmatch(table) is not None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class TableSelection:
    """The patterns of one trigger: a table is wanted if one includes it and none excludes it."""

    patterns: tuple[TablePattern, ...]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Read a list of patterns; see `TablePattern.parse`."""
        return cls(tuple(TablePattern.parse(text) for text in texts))

    def matches(self, schema: str, table: str) -> bool:
        wanted = False
        for pattern in self.patterns:
            if pattern.matches(schema, table):
                if pattern.excludes:
                    return False
                wanted = True
        return wanted


@dataclass(frozen=True, slots=True)
class _Name:
    regex: re.Pattern[str]
    exact: str | None


# Quoted text (closed or not), a dot, or a run of bare characters; what fits none of them is white space.
_TOKEN = re.compile(r'"(?P<quoted>(?:[^"]|"")*)(?P<closed>"?)|(?P<dot>\.)|(?P<bare>[^."\s]+)')


def _names(text: str) -> list[_Name]:
    names: list[_Name] = []
    regex, exact, globs = "", "", False

    def close() -> None:
        nonlocal regex, exact, globs
        if not regex:
            raise PatternSyntaxError(f"{text!r} has an empty name; write schema.table, such as public.users")
        names.append(_Name(re.compile(regex, re.DOTALL), None if globs else exact))
        regex, exact, globs = "", "", False

    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise PatternSyntaxError(f"{text!r} holds white space; put such a name in double quotes")
        at = token.end()
        if token["dot"]:
            close()
        elif (bare := token["bare"]) is not None:
            regex += "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in bare)
            globs = globs or "*" in bare or "?" in bare
            exact += bare
        else:
            if not token["closed"]:
                raise PatternSyntaxError(f"{text!r} opens a double quote and does not close it")
            name = token["quoted"].replace('""', '"')
            regex += re.escape(name)
            exact += name
    close()
    return names
