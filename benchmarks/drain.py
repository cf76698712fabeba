"""
Our own reader as a process of its own: the connection alone, or connection and assembler, to event bytes.

    python -m benchmarks.drain frames|events DSN SLOT PUBLICATION END_LSN

Prints one line of JSON when it has everything: changes, when that was, and the CPU used since the stream began.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from bridge.change import Event, Position
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.messages import RelationMessage
from bridge.source import catalog
from bridge.source.connection import ReplicationConnection
from bridge.triggers.shape import Shape


async def drain(dsn: str, slot: str, publication: str, end: LSN, *, decode: bool) -> dict[str, float]:
    """Read the slot to `end`; gives changes, `ended_at`, `user_seconds` and `system_seconds`."""
    connection = await ReplicationConnection.open(dsn)
    facts = await catalog.load(connection)
    inbox: list[Event] = []

    def routes(_relation: RelationMessage) -> list[Route]:
        operations = frozenset({"insert", "update", "delete"})
        return [Route("bench", Shape(), operations, inbox, Position(LSN(0), -1))]

    assembler = Assembler(
        database=connection.identity.database,
        system_identifier=connection.identity.system_identifier,
        start_lsn=LSN(0),
        routes=routes,
        message_routes=lambda _prefix: [],
        primary_keys=facts.primary_key,
        types=facts.type_of,
    )
    before = resource.getrusage(resource.RUSAGE_SELF)
    changes = 0
    try:
        await connection.start(slot, publication, LSN(0))
        while True:
            frames = await connection.frames()
            if decode:
                assembler.consume(frames)
                changes += len(inbox)
                inbox.clear()
            # XLogData has its start there, a keepalive the end of the WAL: either shows how far the server is.
            if int.from_bytes(frames[-1][1:9], "big") >= end:
                break
        ended_at, after = time.time(), resource.getrusage(resource.RUSAGE_SELF)
    finally:
        await connection.close()
    return {
        "changes": changes,
        "ended_at": ended_at,
        "user_seconds": after.ru_utime - before.ru_utime,
        "system_seconds": after.ru_stime - before.ru_stime,
    }


def main() -> None:
    mode, dsn, slot, publication, end = sys.argv[1:]
    print(json.dumps(asyncio.run(drain(dsn, slot, publication, LSN.parse(end), decode=mode == "events"))))


if __name__ == "__main__":
    main()
