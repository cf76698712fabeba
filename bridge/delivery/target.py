"""The contract between the pipeline and whatever is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bridge.delivery.outcome import Outcome
from bridge.triggers.envelope import PLAIN, Content


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call to make: the exact bytes and what is in them."""

    trigger: str
    ids: Sequence[str]
    """
    What its records are called, in the order in which they stand in the body: event ids, unless another envelope calls
    them otherwise. An outcome names failed records by these. Never empty.
    """
    body: bytes = field(repr=False)
    """UTF-8 JSON: one event, or `{"Records": [...]}` when `batched`."""
    batched: bool
    attempt: int = 1
    """1 on the first call."""
    message_id: str = ""
    """Names this content for the receiver (`webhook-id`); the same on each attempt at the same content."""
    content: Content = PLAIN
    """Its type, and headers that an HTTP target is to send with it."""
    tenant: str | None = None
    """Whom all of its events belong to, where the trigger tells tenants apart by a column."""


@dataclass(frozen=True, slots=True)
class TargetFinding:
    """One thing that `check` found out about a target."""

    ok: bool
    what: str
    remedy: str = ""


class Target(Protocol):
    """
    Something that can be called with events.

    Duties of a target: one call per `deliver`, no retries of its own, every failure returned as an `Outcome`
    (an exception is a bug), the time limit kept, `CancelledError` let through.
    Duties of the caller: no more than the configured number of calls at once, `close` when done.
    """

    async def deliver(self, invocation: Invocation) -> Outcome: ...

    async def check(self) -> Sequence[TargetFinding]:
        """Find out without delivering anything whether a delivery could work."""
        ...

    async def close(self) -> None: ...
