"""Events as the bridge sends them, after Lambda has parsed their JSON."""

import json

import pytest

_EVENT = """
{"id": "%(id)s",
 "action": "update",
 "record": {"id": 7, "name": "Jane", "balance": "12.50"},
 "changes": {"name": "John"},
 "metadata": {"source": "pgbridge", "database": "shop", "table_schema": "public", "table_name": "users",
   "commit_lsn": 27440064, "commit_idx": 3, "commit_timestamp": "2026-11-22T05:37:00.123456Z", "transaction_id": 743,
   "keys": {"id": 7}, "old_keys": null, "unavailable": [], "trigger": "welcome-email",
   "idempotency_key": "7390000000000000001-welcome-email-%(id)s"}}
"""


@pytest.fixture
def make_event():
    """`make_event(3, key=7, name="Jane")`: the fourth change of a transaction, an update of user 7."""

    def make(ordinal=0, *, key=7, action="update", old_key=None, table="users", record=..., changes=None, **columns):
        event = json.loads(_EVENT % {"id": f"0000000001A2B3C0-{ordinal:010d}"})
        metadata = event["metadata"]
        event["action"] = action
        event["changes"] = changes
        event["record"] = {"id": key, "name": "Jane", "balance": "12.50"} | columns if record is ... else record
        metadata["commit_idx"] = ordinal
        metadata["table_name"] = table
        metadata["keys"] = None if key is None else {"id": key}
        metadata["old_keys"] = None if old_key is None else {"id": old_key}
        return event

    return make
