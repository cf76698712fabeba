"""
The counting receiver as a process of its own, which says at once when it has all events of a run.

    python -m benchmarks.receiver EVENTS [--latency] [--also MARKER]

The first line on stdout is its URL. Then one line of JSON each time that EVENTS more have come: events, requests,
body_bytes, first_at and last_at in seconds since 1970; with --latency also the latencies, commit to receipt, in ms.
MARKER is what another sender's events have once each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from array import array
from datetime import datetime
from typing import Any

from bridge.local.counter import CountingProtocol

_COMMITTED = re.compile(rb'"commit_timestamp":"([^"]+)"')


class AnnouncingProtocol(CountingProtocol):
    """Counts, and tells when the count is full."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger.totals)
        self._ledger = ledger

    def _count(self, buffer: bytearray, length: int) -> None:
        super()._count(buffer, length)
        self._ledger.counted(buffer, length)


class Ledger:
    """What came since the last announcement, over all connections."""

    def __init__(self, wanted: int, *, latency: bool, also: bytes | None) -> None:
        self.totals = CountingProtocol.Totals()
        self._also = also
        self._wanted = wanted
        self._latencies: array[float] | None = array("d") if latency else None

    def counted(self, buffer: bytearray, length: int) -> None:
        """One more request was counted into the totals."""
        if self._latencies is not None:
            now = time.time()
            for committed in _COMMITTED.findall(buffer, 0, length):
                at = datetime.fromisoformat(committed.decode()).timestamp()
                self._latencies.append((now - at) * 1000)
        totals = self.totals
        if self._also is not None:
            totals.events += buffer.count(self._also, 0, length)
        if totals.events >= self._wanted:
            self._announce()
            # The same object: each connection holds it.
            totals.requests = totals.events = totals.body_bytes = 0
            totals.first_at = totals.last_at = None

    def _announce(self) -> None:
        totals = self.totals
        assert totals.first_at is not None  # a request was counted
        assert totals.last_at is not None
        offset = time.time() - time.monotonic()
        document: dict[str, Any] = {
            "events": totals.events,
            "requests": totals.requests,
            "body_bytes": totals.body_bytes,
            "first_at": totals.first_at + offset,
            "last_at": totals.last_at + offset,
        }
        if self._latencies is not None:
            document["latencies_ms"] = self._latencies.tolist()
            del self._latencies[:]
        print(json.dumps(document), flush=True)


async def serve(ledger: Ledger) -> None:
    """Receive until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: AnnouncingProtocol(ledger), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=int)
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--also")
    given = parser.parse_args()
    also = None if given.also is None else given.also.encode()
    asyncio.run(serve(Ledger(given.events, latency=given.latency, also=also)))


if __name__ == "__main__":
    main()
