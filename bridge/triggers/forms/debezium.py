"""
Debezium's change events, as its PostgreSQL connector and the JSON converter without schemas write them.

    {"before": {…} | null, "after": {…} | null, "source": {…}, "transaction": null, "op": …, "ts_ms": …, …}

`op` is c, u, d, r (read), t (truncate) or m (message, with `"message": {"prefix", "content"}`, content in base64).
Differences that a consumer may meet:

- Values are those of our events: Debezium's depend on its settings (`time.precision.mode`, `decimal.handling.mode`).
- `ts_ms` is the commit's time, as in `source`, not that of processing: repeated, an event is the same.
- A change of the primary key is one `u` with the old key in `before`, not a `d` and a `c`.
- `source` has one member more, `event_id`: what a handler names a failed record by.

As in Debezium, a TOASTed value that was not sent is `__debezium_unavailable_value` in `after`, and what a `before`
lacks is absent or null.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, ClassVar, Final

import msgspec

from bridge import __version__
from bridge.change import Event
from bridge.triggers.forms.form import Form
from bridge.triggers.forms.members import NULL, Members, Parts, dump, scalar_text, take_apart

_OPERATIONS: Final = {"insert": "c", "update": "u", "delete": "d", "read": "r", "truncate": "t", "message": "m"}
_UNAVAILABLE: Final = msgspec.Raw(b'"__debezium_unavailable_value"')


class Debezium(Form):
    """A handler names a failed record by `source.event_id`."""

    growth: ClassVar[float] = 1.5

    def element(self, event: Event, document: bytes) -> bytes:
        parts = take_apart(document)
        moment = _times(parts.committed_us)
        lsn = parts.raw("commit_lsn")
        source = {
            "version": __version__,
            "connector": "postgresql",
            "name": "pgbridge",
            "ts_ms": moment["ts_ms"],
            "snapshot": "true" if parts.action == "read" else "false",
            "db": parts.raw("database"),
            "sequence": f'[null,"{scalar_text(lsn)}"]',
            "ts_us": moment["ts_us"],
            "ts_ns": moment["ts_ns"],
            "schema": parts.text("table_schema") or "",
            "table": parts.text("table_name") or "",
            "txId": parts.raw("transaction_id"),
            "lsn": lsn,
            "xmin": None,
            "event_id": self.identifier(event),
        }
        operation = _OPERATIONS.get(parts.action, parts.action)
        if operation == "m":
            return dump({"op": "m", **moment, "source": source, "message": _message(parts.record or {})})
        before, after = _rows(parts)
        return dump(
            {"before": before, "after": after, "source": source, "transaction": None, "op": operation, **moment}
        )


def _rows(parts: Parts) -> tuple[Members | None, Members | None]:
    match parts.action:
        case "delete":
            return {**(parts.record or {}), **dict.fromkeys(parts.unavailable, NULL)}, None
        case "update":
            return parts.before, {**(parts.record or {}), **dict.fromkeys(parts.unavailable, _UNAVAILABLE)}
        case "truncate":
            return None, None
        case _:
            return None, parts.record


def _message(record: Members) -> dict[str, Any]:
    encoding = record.get("encoding", NULL)
    content = record.get("content", NULL)
    if bytes(encoding) == b'"base64"':
        return {"prefix": record.get("prefix", NULL), "content": content}
    text = scalar_text(content).encode()
    return {"prefix": record.get("prefix", NULL), "content": b64encode(text).decode("ascii")}


def _times(microseconds: int | None) -> dict[str, int | None]:
    if microseconds is None:
        return {"ts_ms": None, "ts_us": None, "ts_ns": None}
    return {"ts_ms": microseconds // 1000, "ts_us": microseconds, "ts_ns": microseconds * 1000}
