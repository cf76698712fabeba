"""
A TCP proxy on which things go wrong as they do on networks.

It stands between a client and one server and forwards both ways, until it is told otherwise: links are cut, nothing is
let through any more although nobody hangs up (half-open), bytes trickle one at a time, answers are lost on their way
back or held. What goes wrong is set for all links together, and ends with `mend`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class _Link:
    """One client's connection and its counterpart to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    torn: bool = False
    """Something was withheld on it: it is cut, not resumed, when the fault ends."""

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class FaultProxy:
    """
    An async context manager.

    Args:
        port: of the server, on 127.0.0.1.

    Attributes:
        port: where clients connect, on 127.0.0.1.
        lost_answers: how many answers were lost on purpose.
        links_cut: how many links were ended by a fault.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.lost_answers = 0
        self.links_cut = 0
        self._server_port = port
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = asyncio.Event()
        self._answers = asyncio.Event()
        self._answers_to_lose = 0
        self._refusing = False
        self._trickling = False
        self._latency_seconds = 0.0
        self.mend()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK_BYTES)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.close()
        for link in self._links:
            link.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    # -- faults --------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every link; new ones are let through."""
        self.links_cut += len(self._links)
        for link in self._links:
            link.cut()

    def refuse(self) -> None:
        """Reset every link, and every new one at once."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Let nothing through any more, either way, and hang up on nobody: every link is half-open."""
        self._requests.clear()
        self._answers.clear()

    def hold_answers(self) -> None:
        """Let requests through, and no answers."""
        self._answers.clear()

    def lose_answers(self, times: int) -> None:
        """Let the next requests through, and reset their links in place of the answer."""
        self._answers_to_lose = times

    def slow_down(self, seconds: float) -> None:
        """Delay whatever comes, either way, by this much."""
        self._latency_seconds = seconds

    def trickle(self) -> None:
        """One byte at a time."""
        self._trickling = True

    def mend(self, *, late: bool = False) -> None:
        """
        Forward again. Links on which something was withheld are cut, as after a partition that lasted; `late` lets
        them go on, with what was withheld.
        """
        self._refusing = self._trickling = False
        self._latency_seconds = 0.0
        self._answers_to_lose = 0
        for link in self._links:
            if link.torn and not late:
                self.links_cut += 1
                link.cut()
            link.torn = False
        self._requests.set()
        self._answers.set()

    # -- forwarding ----------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio calls us in a task
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port, limit=_CHUNK_BYTES)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        try:
            ways = [
                asyncio.create_task(self._forward(link, reader, to_server, self._requests)),
                asyncio.create_task(self._forward(link, from_server, writer, self._answers, answers=True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._links.discard(link)
            for end in (writer, to_server):
                end.close()

    async def _forward(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        open_way: asyncio.Event,
        *,
        answers: bool = False,
    ) -> None:
        # A link that was reset ends like one that was closed.
        with contextlib.suppress(OSError):
            while True:
                data = await reader.read(_CHUNK_BYTES)
                if not open_way.is_set():
                    link.torn = True
                    await open_way.wait()
                if not data:
                    await writer.drain()
                    return
                if self._latency_seconds:
                    await asyncio.sleep(self._latency_seconds)
                if answers and self._answers_to_lose:
                    self._answers_to_lose -= 1
                    self.lost_answers += 1
                    link.cut()
                    return
                await self._write(writer, data)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not self._trickles():
            writer.write(data)
            await writer.drain()
            return
        at = 0
        while at < len(data):
            step = 1 if self._trickles() else len(data)
            writer.write(data[at : at + step])  # asyncio sets TCP_NODELAY: each is a segment of its own
            at += step
            await asyncio.sleep(0)
        await writer.drain()

    def _trickles(self) -> bool:
        return self._trickling
