"""
The receiver of a run: a process of its own, which keeps its ledger on disk before it answers.

It refuses for good what is called poison, and for as long as a file beside the ledger says so what is called stuck.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.local.receiver import Receiver
from bridge.testing import Faults

POISON = "poison"
STUCK = "stuck"
STUCK_FILE = "stuck"


def says(event: Mapping[str, Any], payload: str) -> bool:
    return (event["record"] or {}).get("payload") == payload


async def serve(ledger: Path, port: int) -> None:
    faults = Faults()
    stuck = ledger.with_name(STUCK_FILE)
    faults.refuse(400, times=None, matching=lambda event: says(event, POISON))
    faults.refuse(500, times=None, matching=lambda event: says(event, STUCK) and stuck.exists())
    async with Receiver(ledger=ledger, faults=faults, port=port) as receiver:
        print(receiver.url, flush=True)  # noqa: T201 - how the run learns that it listens
        while True:
            await asyncio.sleep(1)
            # The ledger has them; a run of an hour would not fit into memory.
            receiver.received.clear()
            receiver.calls.clear()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
