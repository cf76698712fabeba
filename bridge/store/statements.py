"""The SQL of the store: named queries of `sql/queries.sql`, each read once."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from psycopg import sql

_HEADER = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_COMMENT_LINE = re.compile(r"^\s*--.*\n", re.MULTILINE)


def folder_text(name: str) -> str:
    """The text of a file of `sql/`."""
    return (files("bridge.store") / "sql" / name).read_text(encoding="utf-8")


def folder_names() -> list[str]:
    """The files of `sql/`, in order."""
    return sorted(entry.name for entry in (files("bridge.store") / "sql").iterdir() if entry.name.endswith(".sql"))


@cache
def _queries() -> dict[str, str]:
    _, *parts = _HEADER.split(folder_text("queries.sql"))
    return {name: _COMMENT_LINE.sub("", text).strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


class Statements:
    """The queries, with one schema's name in them; to be executed with parameters, were it an empty set."""

    def __init__(self, schema: str) -> None:
        # Doubled, because what is executed with parameters is searched for placeholders, names included.
        self._schema = sql.Identifier(schema.replace("%", "%%"))
        self._composed: dict[str, sql.Composed] = {}

    def __getitem__(self, name: str) -> sql.Composed:
        """A query that needs nothing but the schema."""
        composed = self._composed.get(name)
        if composed is None:
            composed = self._composed[name] = self.fill(name)
        return composed

    def fill(self, name: str, **parts: sql.Composable) -> sql.Composed:
        """A query with the parts that depend on the question."""
        # The text is a file of this package, not anybody's input.
        return sql.SQL(_queries()[name]).format(schema=self._schema, **parts)
