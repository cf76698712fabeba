"""
Sequin's change messages (its "Messages" reference; `ConsumerEventData` in its source), for receivers of its webhooks.

A batch is `{"data": [message, …]}`. Truncates and logical messages have no form there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bridge.change import Event
from bridge.triggers.forms.form import Form
from bridge.triggers.forms.members import dump, scalar_text, take_apart


class Sequin(Form):
    """A handler names a failed message by its `idempotency_key`."""

    growth: ClassVar[float] = 1.3
    operations: ClassVar[frozenset[str] | None] = frozenset({"insert", "update", "delete", "read"})

    def element(self, event: Event, document: bytes) -> bytes:
        parts = take_apart(document)
        database = parts.text("database") or ""
        return dump(
            {
                "record": parts.record,
                "changes": parts.changes,
                "action": parts.action,
                "metadata": {
                    "table_schema": parts.raw("table_schema"),
                    "table_name": parts.raw("table_name"),
                    "commit_timestamp": parts.raw("commit_timestamp"),
                    "commit_lsn": parts.raw("commit_lsn"),
                    "commit_idx": parts.raw("commit_idx"),
                    "database_name": database,
                    "transaction_annotations": parts.raw("context"),
                    "idempotency_key": self.identifier(event),
                    "record_pks": [scalar_text(value) for value in parts.keys.values()],
                    "enrichment": None,
                    "consumer": {
                        "id": self.origin.uuid("trigger", self.origin.trigger),
                        "name": self.origin.trigger,
                        "annotations": {},
                    },
                    "database": {
                        "id": self.origin.uuid("database", database),
                        "name": database,
                        "annotations": {},
                        "database": database,
                        "hostname": "",
                    },
                },
            }
        )

    def batch(self, elements: Sequence[bytes]) -> bytes:
        return b'{"data":[%b]}' % b",".join(elements)

    def identifier(self, event: Event) -> str:
        return self.origin.idempotency_key(event)
