"""
The outer form of what is sent. Pure.

An event's body is shared by all triggers of one shape, so it stops before the two members that differ by trigger; the
envelope adds this tail and closes the object: `…"trigger":"t","idempotency_key":"…"}}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import orjson

from bridge.change import Event


class Envelope:
    """The pgbridge envelope of one trigger: `{"Records": [event, …]}`, or one event by itself."""

    def __init__(self, trigger: str, system_identifier: str) -> None:
        self._tail = b'"trigger":%b,"idempotency_key":"%b-%b-' % (
            orjson.dumps(trigger),
            system_identifier.encode("ascii"),
            trigger.encode("ascii"),
        )
        self._prefix = f"{system_identifier}-{trigger}"
        self.event_overhead_bytes = len(self._tail) + len("0000000001A2B3C0-0000000003") + len('"}},')

    def event(self, event: Event) -> bytes:
        """One event, complete."""
        return b'%b%b%b"}}' % (event.body, self._tail, event.id)

    def single(self, events: Sequence[Event]) -> bytes:
        """The body of a call that carries one event by itself."""
        (event,) = events
        return self.event(event)

    def records(self, events: Iterable[Event]) -> bytes:
        """The body of a call that carries a batch."""
        tail = self._tail
        return b'{"Records":[%b"}}]}' % b'"}},'.join([event.body + tail + event.id for event in events])

    def message_id(self, events: Sequence[Event]) -> str:
        """Names the content of a call for its receiver: the same events have the same name on every attempt."""
        if len(events) == 1:
            return f"{self._prefix}-{events[0].id.decode('ascii')}"
        digest = hashlib.sha256(b",".join([event.id for event in events])).hexdigest()[:32]
        return f"{self._prefix}-{len(events)}-{digest}"
