"""The counting receiver's HTTP, byte by byte."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from bridge.local.counter import CountingProtocol

EVENT = b'{"id":"a","metadata":{"idempotency_key":"s-t-a"}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    abort = close


@pytest.fixture
def connection():
    totals = CountingProtocol.Totals()
    protocol = CountingProtocol(totals)
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport, totals


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_requests_are_counted_however_they_are_cut(connection, step):
    protocol, transport, totals = connection
    data = post(EVENT) + post(b'{"Records":[' + EVENT + b"," + EVENT + b"]}") + post(b"")
    for start in range(0, len(data), step):
        protocol.data_received(data[start : start + step])
    assert transport.written == OK * 3
    assert (totals.requests, totals.events) == (3, 3)
    assert totals.body_bytes == 3 * len(EVENT) + len(b'{"Records":[,]}')


def test_a_value_that_looks_like_the_marker_is_not_counted(connection):
    protocol, _, totals = connection
    protocol.data_received(post(orjson.dumps({"record": {"text": '"idempotency_key":"'}})))
    assert totals.events == 0


def test_the_totals_can_be_asked_for(connection):
    protocol, transport, _ = connection
    protocol.data_received(post(EVENT) + b"GET /count HTTP/1.1\r\nHost: x\r\n\r\n")
    document = orjson.loads(transport.written.rpartition(b"\r\n\r\n")[2])
    assert (document["requests"], document["events"]) == (1, 1)


def test_a_client_that_waits_to_continue_is_told_to(connection):
    protocol, transport, totals = connection
    protocol.data_received(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    protocol.data_received(b"{}")
    assert totals.requests == 1


@pytest.mark.parametrize("data", [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"x" * 70_000])
def test_what_it_does_not_understand_ends_the_connection(connection, data):
    protocol, transport, totals = connection
    protocol.data_received(data)
    assert transport.closed
    assert totals.requests == 0
