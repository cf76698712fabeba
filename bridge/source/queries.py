"""Something that answers SQL: a replication connection that does not stream yet, or an ordinary one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from bridge.errors import SourceError, TableBusy
from bridge.source.commands import Statement
from bridge.source.libpq import Row

_LOCK_SECONDS: Final = 1
"""While we wait for a table's writers, new ones wait behind us."""


class Queries(Protocol):
    """Runs one statement; every value comes as text."""

    async def query(self, statement: str) -> Sequence[Row]: ...


async def run(session: Queries, statement: Statement) -> None:
    """
    Run it, as a whole or not at all.

    Where tables are to be locked and somebody writes to them for longer than a second, a needed statement runs without
    the lock, which is no less safe than every other change of a publication.

    Raises:
        TableBusy: the tables could not be locked, and the statement is not needed; a later try may do.
        SourceError: the server refused.
    """
    if statement.commands == (statement.sql,):
        await session.query(statement.sql)
        return
    try:
        limit = [f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"] if statement.locked else []
        await _run_together(session, [*limit, *statement.commands])
    except TableBusy:
        if not statement.needed:
            raise
        await _run_together(session, [statement.sql, *statement.together])


async def _run_together(session: Queries, commands: Sequence[str]) -> None:
    # One by one: walsenders before 15 take no two statements at once.
    await session.query("BEGIN")
    try:
        for command in commands:
            await session.query(command)
    except BaseException:
        with suppress(SourceError):  # then the connection is gone, and the transaction with it
            await session.query("ROLLBACK")
        raise
    await session.query("COMMIT")
