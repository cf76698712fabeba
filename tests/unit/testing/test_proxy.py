"""The fault proxy: what it does to a link, and that it ends."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from bridge.testing.proxy import FaultProxy


class Upper:
    """A server that answers each line in capitals."""

    def __init__(self):
        self.heard = []
        self.lines = asyncio.Condition()

    async def serve(self, reader, writer):
        while line := await reader.readline():
            async with self.lines:
                self.heard.append(line)
                self.lines.notify_all()
            writer.write(line.upper())
        writer.close()

    async def hears(self, count):
        async with asyncio.timeout(10), self.lines:
            await self.lines.wait_for(lambda: len(self.heard) >= count)


@pytest.fixture
async def upper():
    return Upper()


@pytest.fixture
async def proxy(upper):
    server = await asyncio.start_server(upper.serve, "127.0.0.1", 0)
    async with FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


@pytest.fixture
async def connect(proxy):
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(reader, writer, line=b"line\n"):
    writer.write(line)
    async with asyncio.timeout(10):
        return await reader.readline()


async def ends(reader):
    """Whether the link was reset or closed."""
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def test_it_forwards_both_ways(proxy, connect):
    reader, writer = await connect()
    assert await ask(reader, writer) == b"LINE\n"


async def test_a_cut_ends_links_and_lets_new_ones_through(proxy, connect):
    reader, writer = await connect()
    await ask(reader, writer)
    proxy.cut()
    assert await ends(reader)
    assert proxy.links_cut == 1
    reader, writer = await connect()
    assert await ask(reader, writer) == b"LINE\n"


async def test_while_it_refuses_no_link_lasts(proxy, connect):
    proxy.refuse()
    reader, _ = await connect()
    assert await ends(reader)
    proxy.mend()
    assert await ask(*await connect()) == b"LINE\n"


async def test_a_lost_answer_is_one_to_a_request_that_was_heard(proxy, upper, connect):
    proxy.lose_answers(1)
    reader, writer = await connect()
    writer.write(b"line\n")
    assert await ends(reader)
    assert upper.heard == [b"line\n"]
    assert proxy.lost_answers == 1
    assert await ask(*await connect()) == b"LINE\n"


async def test_held_answers_come_late_or_not_at_all(proxy, upper, connect):
    for late in (True, False):
        heard = len(upper.heard)
        reader, writer = await connect()
        proxy.hold_answers()
        writer.write(b"line\n")
        await upper.hears(heard + 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.readline()
        proxy.mend(late=late)
        if late:
            async with asyncio.timeout(10):
                assert await reader.readline() == b"LINE\n"
        else:
            assert await ends(reader)


async def test_a_stalled_link_is_open_and_silent(proxy, upper, connect):
    reader, writer = await connect()
    await ask(reader, writer)
    proxy.stall()
    writer.write(b"more\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.readline()
    assert upper.heard == [b"line\n"]
    proxy.mend(late=True)
    await upper.hears(2)


async def test_what_trickles_arrives_whole(proxy, connect):
    proxy.trickle()
    proxy.slow_down(0.001)
    assert await ask(*await connect(), b"x" * 500 + b"\n") == b"X" * 500 + b"\n"
