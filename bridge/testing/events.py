"""Events as a function or an endpoint gets them, for the tests of handlers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

COMMIT_LSN: Final = 0x1A2B3C0


def change_event(
    record: Mapping[str, Any] | None,
    *,
    action: str = "insert",
    changes: Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] | None = None,
    old_keys: Mapping[str, Any] | None = None,
    table: str = "public.users",
    trigger: str = "trigger",
    ordinal: int = 0,
) -> dict[str, Any]:
    """
    One change, with all of its members, as it is after its JSON was parsed.

    Args:
        record: the row, in JSON's types: a numeric is text, a timestamp too.
        action: insert, update, delete, truncate, read or message.
        changes: the old values of the columns that an update changed; None where they are not known.
        keys: the replica identity's values; by default the row's `id`, where it has one.
        old_keys: the keys before an update that changed them.
        table: `schema.table`.
        trigger: the trigger's name.
        ordinal: the index in its transaction. Events of different ordinals have different ids, in that order.
    """
    schema, _, name = table.partition(".")
    row = None if record is None else dict(record)
    known = {"id": row["id"]} if keys is None and row is not None and "id" in row else dict(keys or {})
    event_id = f"{COMMIT_LSN:016X}-{ordinal:010d}"
    return {
        "id": event_id,
        "action": action,
        "record": row,
        "changes": None if changes is None else dict(changes),
        "metadata": {
            "source": "pgbridge",
            "database": "test",
            "table_schema": schema,
            "table_name": name,
            "schema_version": "0000000000000000",
            "commit_lsn": COMMIT_LSN,
            "commit_idx": ordinal,
            "commit_timestamp": "2026-11-22T05:37:00.123456Z",
            "transaction_id": 743,
            "keys": known,
            "old_keys": None if old_keys is None else dict(old_keys),
            "unavailable": [],
            "trigger": trigger,
            "idempotency_key": f"7390000000000000001-{trigger}-{event_id}",
        },
    }


def invocation(*events: Mapping[str, Any]) -> dict[str, Any]:
    """What a function is invoked with: `{"Records": [event, …]}`."""
    return {"Records": [dict(event) for event in events]}
