"""
From a SQLSTATE to an error of ours: one table for each moment at which the server may refuse.

Codes decide; what the server said is quoted for the reader, never read. The same code means different things at
different moments: 42704 is a missing slot when streaming starts, and a missing publication once it has started.
"""

from __future__ import annotations

from typing import Final

from bridge.errors import (
    SlotInUse,
    SlotLost,
    SourceCredentialsRefused,
    SourceError,
    SourceMisconfigured,
    SourceUnavailable,
    TableBusy,
)
from bridge.lsn import LSN
from bridge.secret import redact

_GAP: Final = (
    "changes may have been missed: see what pgbridge check says; to begin anew without them run: pgbridge init"
    " --accept-gap, then have their rows sent again by an UPDATE that touches them"
)

# Codes are tried whole, then by their class (the first two characters). What is in no table is worth another try.
_CONNECTING: Final[dict[str, tuple[type[SourceError], str]]] = {
    "28P01": (SourceCredentialsRefused, "check the user and the password in source.dsn"),
    "28": (
        SourceCredentialsRefused,
        "check the user in source.dsn, and that pg_hba.conf lets it into this database from here",
    ),
    "3D000": (SourceMisconfigured, "check the database name in source.dsn"),
    "42501": (
        SourceMisconfigured,
        "let the role replicate (ALTER ROLE … REPLICATION) and connect (GRANT CONNECT ON DATABASE … TO …)",
    ),
    "55000": (SourceMisconfigured, "allow connections to the database (ALTER DATABASE … ALLOW_CONNECTIONS true)"),
    "53300": (
        SourceUnavailable,
        "raise max_connections or max_wal_senders, the role's connection limit, or end what uses them up",
    ),
    "57P03": (SourceUnavailable, "wait until the server is up; it is starting, stopping or recovering"),
    "08P01": (
        SourceMisconfigured,
        "connect to PostgreSQL itself: a pooler such as PgBouncer does not pass on what a replication connection needs",
    ),
    "42704": (SourceMisconfigured, "check the options in source.dsn"),
    "22": (SourceMisconfigured, "check the options in source.dsn"),
}

_STARTING: Final[dict[str, tuple[type[SourceError], str]]] = {
    "42704": (SlotLost, _GAP),
    "55000": (SlotLost, _GAP),
    "58P01": (SlotLost, _GAP),
    "55006": (SlotInUse, "stop the other reader, or let it be: this one takes over when it ends"),
    "42501": (SourceMisconfigured, "give the role the right to replicate: ALTER ROLE … REPLICATION"),
    "42": (SourceMisconfigured, "see `pgbridge check`"),
    "22": (SourceMisconfigured, "see `pgbridge check`"),
    "0A": (SourceMisconfigured, "see `pgbridge check`"),
}

_NO_PUBLICATION: Final = "42704"
_NEED_PUBLICATION: Final = (
    "make it again. What was committed while there was none can't be read: to go on after it, drop the slot and run"
    " `pgbridge init --accept-gap`"
)

_STREAMING: Final[dict[str, tuple[type[SourceError], str]]] = {
    _NO_PUBLICATION: (SourceMisconfigured, _NEED_PUBLICATION),
    "55000": (SlotLost, _GAP),
    "58P01": (SlotLost, _GAP),
    "42": (SourceMisconfigured, "see `pgbridge check`"),
    "22": (SourceMisconfigured, "mend the value that the database's encoding does not allow, or its encoding"),
    "0A": (SourceMisconfigured, "see `pgbridge check`"),
}

_QUERYING: Final[dict[str, tuple[type[SourceError], str]]] = {
    "42501": (SourceMisconfigured, "let a DBA run what `pgbridge init --print-sql` prints"),
    "42704": (SourceMisconfigured, "see `pgbridge check`"),
    "42710": (SourceMisconfigured, "it is there already; see `pgbridge check`"),
    "53400": (SourceMisconfigured, "raise max_replication_slots, or drop a slot that nobody reads"),
    "55006": (SlotInUse, "stop whoever uses it first"),
    "55P03": (TableBusy, "wait until the transactions that write to it have ended"),
    "55000": (SourceMisconfigured, "see `pgbridge check`"),
    "42": (SourceMisconfigured, "see `pgbridge check`"),
    "22": (SourceMisconfigured, "see `pgbridge check`"),
    "0A": (SourceMisconfigured, "see `pgbridge check`"),
}


def while_connecting(server: str, sqlstate: str | None, said: str) -> SourceError:
    """The server, or libpq (then there is no code), refused the connection. `server` names it without a password."""
    if sqlstate is None:
        return SourceUnavailable(
            f"can't connect to {server}: {redact(said.strip().partition(chr(10))[0])}",
            remedy="check the host and the port in source.dsn, and that the server is up",
        )
    return _error(_CONNECTING, f"can't connect to {server}", sqlstate, said)


def while_starting(slot: str, sqlstate: str | None, said: str, *, holder: int | None = None) -> SourceError:
    """START_REPLICATION was refused. `holder` is the process on the server that reads the slot."""
    what = f'can\'t read slot "{slot}"'
    if sqlstate == "55006" and holder is not None:
        what = f'slot "{slot}" is in use by server process {holder}'
    return _error(_STARTING, what, sqlstate, said)


def while_streaming(slot: str, position: LSN | None, sqlstate: str | None, said: str) -> SourceError:
    """The stream ended. `position` is where it had been started."""
    return _error(_STREAMING, f'the stream of slot "{slot}" ended', sqlstate, said, position)


def publication_skipped(slot: str, position: LSN | None, said: str) -> SourceError:
    """As `while_streaming`, where the server only warns that it leaves changes out."""
    return while_streaming(slot, position, _NO_PUBLICATION, said)


def while_querying(doing: str, sqlstate: str | None, said: str) -> SourceError:
    """A statement was refused; `doing` is what it was for: "create the publication"."""
    return _error(_QUERYING, f"can't {doing}", sqlstate, said)


def _error(
    table: dict[str, tuple[type[SourceError], str]],
    what: str,
    sqlstate: str | None,
    said: str,
    position: LSN | None = None,
) -> SourceError:
    kind, remedy = table.get(sqlstate or "") or table.get((sqlstate or "")[:2]) or (SourceUnavailable, "")
    reason = redact(" ".join(said.split()))
    code = f" ({sqlstate})" if sqlstate else ""
    return kind(f"{what}: {reason}{code}" if reason else f"{what}{code}", remedy=remedy or None, position=position)
