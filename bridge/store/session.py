"""A connection to the store that is made when it is needed, and again when it was lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from bridge.dsn import complete
from bridge.errors import InvariantBroken, StoreError
from bridge.store.sqlstate import REPEATABLE, is_lost, translate, translate_connecting
from bridge.store.statements import Statements
from bridge.store.text import escape, storable, unescape

DsnSupplier = Callable[[], Awaitable[str]]
T = TypeVar("T")

APPLICATION_NAME: Final = "pgbridge store"

# libpq itself would wait for a silent host as long as the system lets it.
_CONNECT_TIMEOUT: Final = "10"
# A save that waits longer is better told as a fault: delivery stops at its bound either way.
STATEMENT_TIMEOUT_SECONDS: Final = 30
_LOCK_TIMEOUT: Final = "20s"
# The server keeps the statement timeout. One that is stopped or starved does not, and its kernel still acknowledges
# what we send, so no TCP timeout notices: that long after the statement timeout we hang up ourselves.
_HANG_UP_AFTER_SECONDS = 10.0
# A client that hangs in a transaction holds the slot's row, and with it the one that took over.
_IDLE_IN_TRANSACTION_TIMEOUT: Final = "20s"

# Losing three times against other transactions is no accident any more.
_ATTEMPTS: Final = 3

# Databases in these encodings take any UTF-8 text; SQL_ASCII stores bytes as they come.
_TAKES_ANY_TEXT: Final = frozenset({"UTF8", "SQL_ASCII"})


class Session:
    """
    One connection, used by one caller at a time, reconnecting at the next call.

    Server-side prepared statements are off: what is called often is a function whose plans the server keeps anyway, and
    so a pooler may stand in between.
    """

    def __init__(
        self,
        dsn: DsnSupplier,
        schema: str,
        statements: Statements,
        *,
        statement_timeout_seconds: int = STATEMENT_TIMEOUT_SECONDS,
    ) -> None:
        self._dsn = dsn
        self._schema = schema
        self._statements = statements
        self._statement_timeout_seconds = statement_timeout_seconds
        self._connection: AsyncConnection[Any] | None = None
        self._takes_any_text = True
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]], *, repeatable: bool = True) -> T:
        """
        Do one transaction's work, each statement of it its own unless `work` says otherwise.

        Args:
            work: called again when the transaction lost against another, so without effects of its own.
            repeatable: doing it twice changes no more than doing it once. Then a connection that turns out to have died
                since it was last used is replaced at once; otherwise its caller is told.

        Raises:
            BridgeError: translated from the driver's.
        """
        async with self._turn:
            fresh = self._connection is None or self._connection.closed
            attempt = 1
            while True:
                connection = await self._connected()
                try:
                    async with asyncio.timeout(self._patience_seconds()):
                        return await work(connection)
                except TimeoutError as error:
                    await self._drop()
                    raise StoreError("the store does not answer", remedy="it is tried again") from error
                except psycopg.Error as error:
                    lost = connection.closed or is_lost(error)
                    if lost:
                        await self._drop()
                    if lost and repeatable and not fresh:
                        fresh = True
                        continue
                    if error.sqlstate in REPEATABLE and attempt < _ATTEMPTS:
                        attempt += 1
                        continue
                    raise translate(error, self._schema) from error
                except BaseException:
                    # Cancelled, or a fault of ours: what the connection is in the middle of is not known.
                    await self._drop()
                    raise

    async def close(self) -> None:
        async with self._turn:
            await self._drop()

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def outgoing(self, text: str) -> str:
        """A text as this database can hold it; only once connected."""
        return storable(text) if self._takes_any_text else escape(text)

    def incoming(self, text: str) -> str:
        """The inverse of `outgoing`, as far as there is one."""
        return text if self._takes_any_text else unescape(text)

    def _patience_seconds(self) -> float | None:
        limit = self._statement_timeout_seconds
        return limit + _HANG_UP_AFTER_SECONDS if limit else None

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        await self._drop()
        parameters = complete(await self._dsn(), application_name=APPLICATION_NAME, setting="store.dsn")
        parameters.setdefault("connect_timeout", _CONNECT_TIMEOUT)
        parameters["client_encoding"] = "UTF8"
        try:
            connection = await AsyncConnection.connect(
                make_conninfo(**parameters), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            raise translate_connecting(error) from error
        try:
            await connection.execute(
                self._statements["prepare_session"],
                {
                    "statement_timeout": f"{self._statement_timeout_seconds}s",
                    "lock_timeout": _LOCK_TIMEOUT,
                    "idle_in_transaction_timeout": _IDLE_IN_TRANSACTION_TIMEOUT,
                },
            )
        except psycopg.Error as error:
            await connection.close()
            raise translate_connecting(error) from error
        except BaseException:
            await connection.close()
            raise
        self._takes_any_text = connection.info.parameter_status("server_encoding") in _TAKES_ANY_TEXT
        self._connection = connection
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):  # it is done with either way
                await connection.close()


async def one_value(
    connection: AsyncConnection[Any], query: sql.Composed, parameters: Mapping[str, object] | None = None
) -> Any:
    """The one value of a query that answers one."""
    row = await (await connection.execute(query, parameters or {})).fetchone()
    if row is None:
        raise InvariantBroken("a query for one value answered none")
    return row[0]
