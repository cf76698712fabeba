"""A target behind the gate that its trigger's deliveries pass as well, for whoever else calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge.clock import Clock
from bridge.delivery.limits import Gate
from bridge.delivery.outcome import Outcome
from bridge.delivery.target import Invocation, Target, TargetFinding


class GatedTarget:
    """Keeps `Target`; waits until a call may begin."""

    def __init__(self, inner: Target, gate: Gate, clock: Clock) -> None:
        self._inner = inner
        self._gate = gate
        self._clock = clock

    async def deliver(self, invocation: Invocation) -> Outcome:
        await self._turn()
        self._gate.begin(self._clock.monotonic())
        try:
            return await self._inner.deliver(invocation)
        finally:
            self._gate.end()

    async def check(self) -> Sequence[TargetFinding]:
        return await self._inner.check()

    async def close(self) -> None:
        await self._inner.close()

    async def _turn(self) -> None:
        while True:
            now = self._clock.monotonic()
            ready_at = self._gate.ready_at(now)
            if ready_at == now:
                return
            if ready_at is None:
                freed = asyncio.Event()
                self._gate.when_one_ends(freed.set)
                await freed.wait()
            else:
                await asyncio.sleep(ready_at - now)
