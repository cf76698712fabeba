"""The right to replay the letters of a trigger, in PostgreSQL: an advisory lock, and the session that it lives in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection

from bridge.errors import StoreError
from bridge.store.session import Session, one_value
from bridge.store.statements import Statements

# How soon a replay that waits for another one notices its end. Asked, not waited for in a lock queue, because a waiting
# statement holds back vacuum for as long as the other replay takes.
_REPLAY_POLL_SECONDS: Final = 0.5


class PostgresReplayClaim:
    """The lock of one replay, and the session that it lives in."""

    def __init__(self, session: Session, statements: Statements, key: int) -> None:
        self._session = session
        self._statements = statements
        self._key = key

    async def take(self) -> bool:
        """Whether the lock is ours now."""
        return bool(await self._ask("try_replay_lock"))

    async def check(self) -> None:
        """Find out whether the lock is still ours; see the protocol."""
        if not self._session.connected or not await self._ask("check_replay_lock"):
            raise StoreError(
                "the claim to replay was lost with its connection to the store",
                remedy="run the replay again; if that does not help, let store.dsn name PostgreSQL and not a pooler",
            )

    async def _ask(self, query: str) -> Any:
        async def work(connection: AsyncConnection[Any]) -> Any:
            return await one_value(connection, self._statements[query], {"key": self._key})

        # A new connection would answer without the lock.
        return await self._session.run(work, repeatable=False)


@asynccontextmanager
async def replaying(
    session: Session, statements: Statements, key: int, on_wait: Callable[[], None] | None = None
) -> AsyncIterator[PostgresReplayClaim]:
    """
    Hold a session advisory lock on the trigger's letters, in a connection of its own.

    It ends with the connection, so with the process, without a timeout to choose; no row is locked and no transaction
    open while targets take their time. It needs a session, so a pooler that lends connections by the transaction is
    found out and refused.

    Args:
        session: closed at the end.
        statements: with the schema's name in them.
        key: of the lock (`migrations.lock_key`).
        on_wait: called once where somebody else holds it.
    """
    claim = PostgresReplayClaim(session, statements, key)
    try:
        while not await claim.take():
            if on_wait is not None:
                on_wait()
                on_wait = None
            await asyncio.sleep(_REPLAY_POLL_SECONDS)
        await claim.check()
        yield claim
    finally:
        await session.close()
