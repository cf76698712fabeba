"""
As little HTTP as will do to receive at full speed: requests are cut at their Content-Length, events are counted.

A benchmark measures the sender; what the receiver costs on the same machine should not be the limit. So a body is not
parsed, only searched for what each of our events has once.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

import orjson

MARKER = b'"idempotency_key":"'
"""In each event of the pgbridge envelope once; in a string it would stand with its quotes escaped."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_MAX_HEAD_BYTES = 64 * 1024


class CountingProtocol(asyncio.Protocol):
    """One connection; all of them add to the same totals."""

    @dataclass(slots=True)
    class Totals:
        """What came so far."""

        requests: int = 0
        events: int = 0
        body_bytes: int = 0
        first_at: float | None = None
        """Seconds of the monotonic clock."""
        last_at: float | None = None

        def document(self) -> dict[str, float]:
            seconds = self.last_at - self.first_at if self.first_at is not None and self.last_at is not None else 0.0
            return {
                "requests": self.requests,
                "events": self.events,
                "body_bytes": self.body_bytes,
                "seconds": seconds,
            }

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._head: bytes | None = None
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream server makes
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take_request():
            pass

    def _take_request(self) -> bool:
        """Take one request off the buffer; False while it is not whole."""
        transport = self._transport
        assert transport is not None  # noqa: S101 - made before data comes
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    transport.abort()
                return False
            self._head = bytes(self._buffer[: end + 2])
            del self._buffer[: end + 4]
            length = _LENGTH.search(self._head)
            if length is None and self._head.startswith(b"POST"):
                transport.write(_LENGTH_REQUIRED)
                transport.close()
                return False
            self._missing = int(length.group(1)) if length else 0
            if b"100-continue" in self._head:
                transport.write(_CONTINUE)
        if len(self._buffer) < self._missing:
            return False
        if self._head.startswith(b"GET"):
            body = orjson.dumps(self._totals.document())
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            transport.write(head + body)
        else:
            self._count(self._buffer, self._missing)
            transport.write(_OK)
        del self._buffer[: self._missing]
        self._head = None
        return True

    def _count(self, buffer: bytearray, length: int) -> None:
        totals = self._totals
        # The clock of a measurement, not of the bridge: nothing is decided by it.
        now = time.monotonic()
        if totals.first_at is None:
            totals.first_at = now
        totals.last_at = now
        totals.requests += 1
        totals.events += buffer.count(MARKER, 0, length)
        totals.body_bytes += length
