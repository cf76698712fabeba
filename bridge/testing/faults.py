"""
A plan of what goes wrong, for whatever plays the target's part.

A fault says for which events, how often, and what happens: refuse before any work, fail after the work was done, drop
the connection, hold the answer until released, answer late, or name single records as failed. What carries the plan out
(`bridge.local.receiver`) asks it for each call. A fault that was never used is a test that tests nothing:
`assert_used` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Matching = Callable[[Mapping[str, Any]], bool]
"""Takes one event, parsed."""


@dataclass(slots=True, eq=False)
class Fault:
    """One planned misfortune; made by the methods of `Faults`."""

    what: str
    matching: Matching | None
    times: int | None
    """How many calls it happens to; None for all."""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after_work: bool = False
    """The events are taken before it goes wrong, so that the next attempt repeats them."""
    drop: bool = False
    delay_seconds: float = 0.0
    fail_items: bool = False
    """Answer with `batchItemFailures` that name the matching events."""
    used: int = 0
    gate: asyncio.Event | None = field(default=None, repr=False)
    """Holds the answer until it is set."""
    _reached: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def matches(self, event: Mapping[str, Any]) -> bool:
        return self.matching is None or self.matching(event)

    async def reached(self) -> None:
        """Wait until it has happened to a call, or a call is held by it."""
        await self._reached.wait()

    def release(self) -> None:
        """Let the calls go on that it holds, and those to come."""
        if self.gate is not None:
            self.gate.set()

    async def pause(self) -> None:
        """Hold or delay the answer, as planned."""
        if self.gate is not None:
            await self.gate.wait()
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)

    def use(self) -> None:
        self.used += 1
        self._reached.set()


class Faults:
    """Planned faults, the first one that fits first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def refuse(
        self,
        status: int = 503,
        *,
        times: int | None = 1,
        matching: Matching | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Fault:
        """Answer with this status and take nothing."""
        return self._plan(Fault(f"refuse with {status}", matching, times, status, headers=headers or {}, body=body))

    def fail_after_work(
        self, status: int = 500, *, times: int | None = 1, matching: Matching | None = None, body: bytes = b""
    ) -> Fault:
        """Take the events and answer with this status all the same."""
        what = f"fail with {status} after the work"
        return self._plan(Fault(what, matching, times, status, body=body, after_work=True))

    def drop(self, *, times: int | None = 1, matching: Matching | None = None, after_work: bool = False) -> Fault:
        """Cut the connection instead of answering."""
        return self._plan(Fault("drop the connection", matching, times, after_work=after_work, drop=True))

    def hold(self, *, times: int | None = 1, matching: Matching | None = None) -> Fault:
        """Take the events, and answer well once released."""
        return self._plan(Fault("hold the answer", matching, times, after_work=True, gate=asyncio.Event()))

    def delay(self, seconds: float, *, times: int | None = 1, matching: Matching | None = None) -> Fault:
        """Take the events, and answer well after this time."""
        return self._plan(Fault("answer late", matching, times, after_work=True, delay_seconds=seconds))

    def fail_items(self, matching: Matching, *, times: int | None = None) -> Fault:
        """Take all but the matching events, and name those in `batchItemFailures`; None: until `mend`."""
        return self._plan(Fault("fail items", matching, times, after_work=True, fail_items=True))

    def mend(self, fault: Fault) -> None:
        """It does not happen any more."""
        self._faults.remove(fault)
        fault.release()

    def next_for(self, events: Sequence[Mapping[str, Any]]) -> Fault | None:
        """The fault that happens to a call with these events; it counts as used."""
        for fault in self._faults:
            if fault.times is not None and fault.used >= fault.times:
                continue
            if fault.matching is None or any(fault.matching(event) for event in events):
                fault.use()
                return fault
        return None

    def assert_used(self) -> None:
        """
        Each fault has happened as often as planned, or at least once where no number was given.

        Raises:
            AssertionError: the faults that have not.
        """
        missed = [
            f"{fault.what}: {fault.used} of {fault.times if fault.times is not None else 'at least 1'}"
            for fault in self._faults
            if fault.used < (fault.times if fault.times is not None else 1)
        ]
        if missed:
            raise AssertionError(f"planned faults that did not happen: {'; '.join(missed)}")

    def _plan(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault
