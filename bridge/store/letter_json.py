"""A dead letter as JSON: the one form that the commands print and the console's pages are given."""

from __future__ import annotations

import orjson

from bridge.store.protocol import DeadLetter


def outline(letter: DeadLetter) -> dict[str, object]:
    """All of it but what is large: the event, and what the target answered."""
    return {
        "id": letter.id,
        "trigger": letter.trigger,
        "event_id": letter.event_id,
        "table": letter.table,
        "error": letter.error,
        "status": letter.status,
        "attempts": letter.attempts,
        "first_failed_at": letter.first_failed_at,
        "last_failed_at": letter.last_failed_at,
        "request_id": letter.request_id,
        "log_tail": letter.log_tail,
    }


def encode_outline(letter: DeadLetter) -> bytes:
    return orjson.dumps(outline(letter), option=orjson.OPT_UTC_Z)


def encode_whole(letter: DeadLetter) -> bytes:
    """With the event as it is stored: parsing it would change how its numbers are written."""
    return orjson.dumps({**outline(letter), "event": orjson.Fragment(letter.event)}, option=orjson.OPT_UTC_Z)
