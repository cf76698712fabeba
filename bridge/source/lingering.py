"""An ordinary session that is kept for a while after a question, as the next one may follow soon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bridge.errors import SourceError
from bridge.source.libpq import Wire
from bridge.source.session import open_session

_T = TypeVar("_T")


class LingeringSession:
    """
    One question at a time; whoever has it closes it.

    Args:
        dsn: the source's, asked for at each connection.
        application_name: unless the DSN has its own.
        linger_seconds: how long the connection is kept after an answer.
    """

    def __init__(self, dsn: Callable[[], Awaitable[str]], *, application_name: str, linger_seconds: float) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._linger_seconds = linger_seconds
        self._wire: Wire | None = None
        self._leave: asyncio.TimerHandle | None = None

    async def ask(self, question: Callable[[Wire], Awaitable[_T]]) -> _T:
        """
        Answer a question, which is put a second time where a connection that was kept turns out to be dead.

        Raises:
            SourceError: it could not be answered.
        """
        self._stay()
        kept = self._wire is not None
        try:
            try:
                answer = await question(await self._open())
            except SourceError:
                if not kept:
                    raise
                self.close()  # it may have ended while nobody used it
                answer = await question(await self._open())
        except BaseException:
            self.close()  # with a query under way, if this is a cancellation
            raise
        self._leave = asyncio.get_running_loop().call_later(self._linger_seconds, self.close)
        return answer

    def close(self) -> None:
        """Leave the server; a later question connects again."""
        self._stay()
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _stay(self) -> None:
        if self._leave is not None:
            self._leave.cancel()
            self._leave = None

    async def _open(self) -> Wire:
        if self._wire is None:
            self._wire = await open_session(await self._dsn(), application_name=self._application_name)
        return self._wire
