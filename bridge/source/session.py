"""
Sessions: what a connection of ours must be set to, and ordinary SQL beside the stream.

Settings are given at connection start, where they win over `ALTER ROLE … SET` and `ALTER DATABASE … SET`, and asked for
afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from bridge import dsn as dsns
from bridge.errors import SourceMisconfigured
from bridge.source import commands
from bridge.source.libpq import Wire

# What column values look like must not hang on the role, the database or our own environment. The upper part decides
# the text of values (search_path and quote_all_identifiers that of the reg… types), the lower what may end the session.
PINNED: Final[Mapping[str, str]] = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "search_path": "",
    "quote_all_identifiers": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # From 18 on the server only warns that it leaves out changes of a missing publication: we have to hear it.
    "client_min_messages": "warning",
    # The publication may have to be altered, and a standby allows no serializable transactions.
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
}

# The version that brought transaction_timeout.
_TRANSACTION_TIMEOUT: Final = 170000

# Sessions of plain SQL: a statement of ours that takes a minute is stuck behind a lock, and to be told is better.
_SQL_SESSION: Final[Mapping[str, str]] = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "timezone": "UTC",
    "search_path": "",
    "statement_timeout": "60000",
    "lock_timeout": "30000",
    "default_transaction_read_only": "off",
}


async def open_session(
    dsn: str, *, connect_timeout_seconds: float = 10, application_name: str = "pgbridge", setting: str = "source.dsn"
) -> Wire:
    """
    An ordinary session for plain SQL, with an empty search_path and a time limit on statements; the caller closes it.

    Args:
        dsn: connection string or URI.
        connect_timeout_seconds: for each address that is tried, unless the DSN has its own.
        application_name: unless the DSN has its own.
        setting: the name of the setting that holds the DSN, for the error.

    Raises:
        ConfigError: the DSN can't be read.
        SourceUnavailable, SourceMisconfigured: as for `ReplicationConnection.open`.
    """
    parameters = dsns.complete(dsn, application_name=application_name, options=_SQL_SESSION, setting=setting)
    return await Wire.open(parameters, connect_timeout_seconds)


@asynccontextmanager
async def connected(
    dsn: str, *, connect_timeout_seconds: float = 10, application_name: str = "pgbridge", setting: str = "source.dsn"
) -> AsyncIterator[Wire]:
    """`open_session`, closed at the end."""
    wire = await open_session(
        dsn, connect_timeout_seconds=connect_timeout_seconds, application_name=application_name, setting=setting
    )
    try:
        yield wire
    finally:
        wire.close()


async def pin(wire: Wire) -> dict[str, str]:
    """
    See that the session is as `PINNED` says, and make it so where a variable of ours (PGTZ, PGDATESTYLE) was stronger.

    Returns:
        The settings in force, with `wal_sender_timeout` in milliseconds and `server_encoding`.

    Raises:
        SourceMisconfigured: the server keeps another value.
    """
    expected = dict(PINNED)
    if wire.server_version >= _TRANSACTION_TIMEOUT:
        # It would end a walsender in the middle of decoding a large transaction. Older servers refuse a connection that
        # names it, so it can't be among the options; it comes first, as it may end our own questions too.
        expected["transaction_timeout"] = "0"
        await wire.query("SET transaction_timeout = 0")
    facts = await _settings(wire)
    if facts["server_encoding"] == "SQL_ASCII":
        # Such a database converts nothing, but the server would check that what it sends is UTF-8, and stop where it
        # is not. Asked for no encoding it sends the bytes as they are.
        expected["client_encoding"] = "SQL_ASCII"
    strays = {name: value for name, value in expected.items() if facts.get(name, value) != value}
    if strays:
        for name, value in strays.items():
            # A list of names is quoted name by name, and the empty one is an empty string.
            await wire.query(f"SET {name} = {commands.quote_literal(value)}")
        facts = await _settings(wire)
        for name in strays:
            if facts[name] != expected[name]:
                raise SourceMisconfigured(
                    f"the server keeps {name} at {facts[name]!r} for this session, and it has to be {expected[name]!r}",
                    remedy="look for what sets it: an extension, or a pooler in between",
                )
    return facts


async def _settings(wire: Wire) -> dict[str, str]:
    names = [*PINNED, "transaction_timeout", "wal_sender_timeout", "server_encoding"]
    rows = await wire.query(commands.settings(names))
    return {str(name): _plain(str(setting)) for name, setting in rows}


def _plain(setting: str) -> str:
    # An empty search_path shows as "" in quotes when it came as a list of one empty name.
    return "" if setting == '""' else setting
