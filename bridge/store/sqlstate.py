"""From PostgreSQL's error codes to ours: the one place where the store's driver errors are translated."""

from __future__ import annotations

from typing import Final

import psycopg

from bridge.errors import BridgeError, InvariantBroken, StoreError, StoreFenced, StoreMisconfigured

# Raised by our own functions (`sql/`), in a class that neither the standard nor PostgreSQL uses.
FENCED: Final = "PB001"
MOVED_BACK: Final = "PB002"

# Transactions that lost against another and may be repeated whole: the manual's "Serialization Failure Handling".
REPEATABLE: Final = frozenset({"40001", "40P01"})

_NOT_MIGRATED: Final = frozenset(
    {
        "3F000",  # invalid_schema_name
        "42P01",  # undefined_table
        "42703",  # undefined_column
        "42883",  # undefined_function
    }
)

# By code, then by class: the thing's state in our words, and the next step.
_REMEDIES: Final = {
    "25006": ("is read only", "point store.dsn at the primary (target_session_attrs=read-write)"),
    "53100": ("has no disk space left", "free some: nothing is confirmed until it can save"),
    "53300": ("has no connection left", "raise max_connections, or close others"),
    "55P03": ("is kept waiting by another session's lock", "find it in pg_locks"),
    "57014": ("was stopped in a statement, which took too long or was cancelled", "look for locks and load there"),
    "53": ("is short of a resource", "look at the server's log"),
    "57P": ("is shutting down or starting", "it is tried again"),
    "08": ("lost the connection", "it is tried again"),
}


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection, rather than the statement, failed."""
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    # Terminated by an administrator, by a crash elsewhere, or refused: the session is over.
    return code.startswith("08") or code in {"57P01", "57P02", "57P03", "57P05", "25P03"}


def translate(error: psycopg.Error, schema: str) -> BridgeError:
    """
    One of ours for an error that a statement met.

    The server's own sentence is only repeated where it can't hold a value out of a row.
    """
    code = error.sqlstate
    said = error.diag.message_primary or ""
    if code is None and not is_lost(error):
        return InvariantBroken(f"the store's driver refused a statement of ours ({type(error).__name__})")
    if code is None:
        return StoreError(f"the store can't be reached: {_one_line(error)}", remedy="it is tried again")
    if code == FENCED:
        return StoreFenced(said, remedy="stop one of the two processes")
    if code == MOVED_BACK:
        return InvariantBroken(said)
    if code in _NOT_MIGRATED:
        return not_migrated(schema)
    if code == "42501":
        return StoreMisconfigured(
            f"the store refuses its role a right: {said}",
            remedy="grant what `pgbridge init --print-sql` shows, or run `pgbridge init` as the owner",
        )
    for prefix in (code, code[:3], code[:2]):
        if prefix in _REMEDIES:
            state, remedy = _REMEDIES[prefix]
            return StoreError(f"the store {state} (SQLSTATE {code})", remedy=remedy)
    return StoreError(f"the store refused a statement (SQLSTATE {code})", remedy="the server's log has the reason")


def translate_connecting(error: psycopg.Error) -> BridgeError:
    """One of ours for a connection that did not come about."""
    remedy = "check store.dsn (or source.dsn), and that the server is up"
    return StoreError(f"the store can't be reached: {_one_line(error)}", remedy=remedy)


def not_migrated(schema: str) -> StoreMisconfigured:
    return StoreMisconfigured(f'the store has no tables in schema "{schema}", or old ones', remedy="run: pgbridge init")


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
