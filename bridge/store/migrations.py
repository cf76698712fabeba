"""
The store's tables through time: numbered files in `sql/`, applied in order, in one transaction.

What has been released is never edited; a change is a new file. A process of the version before may still be running
when a migration is applied, so a function that it calls keeps its signature, or stays beside the new one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache

from psycopg import sql

from bridge.errors import ConfigError
from bridge.store.statements import folder_names, folder_text

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")

# NAMEDATALEN - 1: a longer name would be cut by the server, and then be another schema's.
_LONGEST_NAME_BYTES = 63


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the tables; `name` is its file's, without the suffix."""

    version: int
    name: str
    text: str

    def statement(self, schema: str) -> sql.Composed:
        """The SQL, several statements, with the schema's name in it."""
        # The text is a file of this package, not anybody's input.
        return sql.SQL(self.text).format(schema=sql.Identifier(schema))


@cache
def migrations() -> tuple[Migration, ...]:
    """All that this program knows, by version from 1."""
    matches = [match for name in folder_names() if (match := _FILE_NAME.fullmatch(name))]
    return tuple(Migration(int(match[1]), match[0].removesuffix(".sql"), folder_text(match[0])) for match in matches)


def latest_version() -> int:
    """The version of the tables that this program works with."""
    return migrations()[-1].version


def check_schema_name(schema: str) -> str:
    """
    The name as given.

    Raises:
        ConfigError: PostgreSQL would not take it as the name of a schema, or not whole.
    """
    reason = None
    if not schema:
        reason = "is empty"
    elif "\0" in schema:
        reason = "holds a NUL"
    elif len(schema.encode("utf-8", "surrogatepass")) > _LONGEST_NAME_BYTES:
        reason = f"is longer than {_LONGEST_NAME_BYTES} bytes"
    elif schema.startswith("pg_"):
        reason = "begins with pg_, which PostgreSQL keeps for itself"
    if reason is not None:
        raise ConfigError(f"store.schema {schema!r} {reason}", remedy="choose another name, such as pgbridge")
    return schema


def lock_key(*words: str) -> int:
    """
    A key for PostgreSQL's advisory locks, which are numbers of 64 bits and shared with everybody in the database.

    A hash of what is locked: a collision is as unlikely as one can make it, and only makes somebody wait.
    """
    digest = hashlib.blake2b("\0".join(("pgbridge", *words)).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), signed=True)


def version_table(schema: str) -> sql.Composed:
    """What keeps count of the migrations, itself not one of them."""
    return sql.SQL(
        "CREATE TABLE {schema}.schema_version (\n"
        "    version integer PRIMARY KEY,\n"
        "    name text NOT NULL,\n"
        "    applied_at timestamptz NOT NULL DEFAULT now()\n"
        ");\n"
    ).format(schema=sql.Identifier(schema))


def record_version(schema: str, migration: Migration) -> sql.Composed:
    """The row of a migration that was applied."""
    return sql.SQL("INSERT INTO {schema}.schema_version (version, name) VALUES ({version}, {name});\n").format(
        schema=sql.Identifier(schema), version=sql.Literal(migration.version), name=sql.Literal(migration.name)
    )


def migration_sql(schema: str, *, installed: int = 0, role: str | None = None) -> str:
    """
    What `migrate` would do, for a DBA to run by hand: one transaction, ready for psql.

    Args:
        schema: of the store's tables.
        installed: the version that is there already.
        role: who runs the bridge, if the tables are to belong to somebody else; it is granted what it needs.
    """
    identifier = sql.Identifier(check_schema_name(schema))
    parts: list[sql.Composable] = [sql.SQL("BEGIN;\n")]
    if not installed:
        parts += [sql.SQL("CREATE SCHEMA IF NOT EXISTS {};\n").format(identifier), version_table(schema)]
    for migration in migrations():
        if migration.version > installed:
            parts += [sql.SQL("\n"), migration.statement(schema), sql.SQL("\n"), record_version(schema, migration)]
    if role is not None:
        parts.append(_grants(identifier, sql.Identifier(role)))
    return sql.Composed([*parts, sql.SQL("COMMIT;\n")]).as_string(None)


def _grants(schema: sql.Identifier, role: sql.Identifier) -> sql.Composed:
    return sql.SQL(
        "\nGRANT USAGE ON SCHEMA {schema} TO {role};\n"
        "GRANT SELECT ON {schema}.schema_version TO {role};\n"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.slots, {schema}.checkpoints, {schema}.dead_letters,\n"
        "    {schema}.backlog, {schema}.backlog_segments, {schema}.schema_guards, {schema}.pauses TO {role};\n"
        "GRANT EXECUTE ON FUNCTION {schema}.open_backlog_segment, {schema}.close_backlog_segment TO {role};\n"
    ).format(schema=schema, role=role)
