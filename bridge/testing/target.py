"""A target in memory: it keeps what it was sent and answers as told."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from bridge.delivery.outcome import Delivered, Outcome
from bridge.delivery.target import Invocation, TargetFinding

Answer = Outcome | Callable[[Invocation], Outcome] | asyncio.Future[Outcome]


class MemoryTarget:
    """
    Answers `Delivered` unless answers are queued with `answer`; a future as an answer holds the call until it is done.

    Attributes:
        invocations: every call made, in the order of their start.
        delivered: ids of events in calls that succeeded, in the order of their answers.
    """

    def __init__(self) -> None:
        self.invocations: list[Invocation] = []
        self.delivered: list[str] = []
        self.closed = False
        self._answers: deque[Answer] = deque()
        self._called = asyncio.Condition()

    def answer(self, *answers: Answer) -> None:
        """Queue answers for the next calls."""
        self._answers.extend(answers)

    async def deliver(self, invocation: Invocation) -> Outcome:
        self.invocations.append(invocation)
        async with self._called:
            self._called.notify_all()
        answer: Answer = self._answers.popleft() if self._answers else Delivered()
        if isinstance(answer, asyncio.Future):
            outcome = await answer
        elif callable(answer):
            outcome = answer(invocation)
        else:
            outcome = answer
        if isinstance(outcome, Delivered):
            self.delivered.extend(invocation.ids)
        return outcome

    async def called(self, times: int) -> None:
        """Wait until this many calls were made in all."""
        async with self._called:
            await self._called.wait_for(lambda: len(self.invocations) >= times)

    def events(self) -> list[dict[str, object]]:
        """The events of all calls, parsed."""
        events: list[dict[str, object]] = []
        for invocation in self.invocations:
            document = _parsed(invocation.body)
            events.extend(document["Records"] if invocation.batched else [document])
        return events

    async def check(self) -> Sequence[TargetFinding]:
        return [TargetFinding(ok=True, what="in memory")]

    async def close(self) -> None:
        self.closed = True


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # it is stricter than PostgreSQL's json type: lone surrogates, 1e400
        return json.loads(body)
