"""The event as Powertools data classes: attributes over the dictionary that Lambda hands over, nothing checked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast

from aws_lambda_powertools.utilities.data_classes.common import DictWrapper

from bridge.handlers.event import Action


class ChangeMetadata(DictWrapper):
    """Where a change comes from. Each member is described at `event.Metadata`."""

    _sensitive_properties = ("record_keys", "old_keys", "context")
    """Row values and what may be one, which Powertools then keeps out of `str()`."""

    @property
    def source(self) -> str:
        return cast("str", self["source"])

    @property
    def database(self) -> str:
        return cast("str", self["database"])

    @property
    def table_schema(self) -> str | None:
        return self.get("table_schema")

    @property
    def table_name(self) -> str | None:
        return self.get("table_name")

    @property
    def table(self) -> str | None:
        """`schema.table`."""
        return None if self.table_name is None else f"{self.table_schema}.{self.table_name}"

    @property
    def schema_version(self) -> str | None:
        return self.get("schema_version")

    @property
    def commit_lsn(self) -> int:
        return cast("int", self["commit_lsn"])

    @property
    def commit_idx(self) -> int:
        return cast("int", self["commit_idx"])

    @property
    def commit_timestamp(self) -> datetime | None:
        text = self.get("commit_timestamp")
        return None if text is None else datetime.fromisoformat(text)

    @property
    def transaction_id(self) -> int | None:
        return self.get("transaction_id")

    @property
    def context(self) -> dict[str, Any] | None:
        return self.get("context")

    @property
    def record_keys(self) -> dict[str, Any] | None:
        """The member `keys`; by that name it would hide `Mapping.keys`, and `dict(metadata)` would break."""
        return self.get("keys")

    @property
    def old_keys(self) -> dict[str, Any] | None:
        return self.get("old_keys")

    @property
    def unavailable(self) -> list[str]:
        return self.get("unavailable") or []

    @property
    def trigger(self) -> str:
        return cast("str", self["trigger"])

    @property
    def idempotency_key(self) -> str:
        return cast("str", self["idempotency_key"])


class ChangeEvent(DictWrapper):
    """One change. Each member is described at `event.Event`."""

    _sensitive_properties = ("record", "changes")

    @property
    def id(self) -> str:
        return cast("str", self["id"])

    @property
    def action(self) -> Action:
        return cast("Action", self["action"])

    @property
    def record(self) -> Any:
        return self.get("record")

    @property
    def changes(self) -> dict[str, Any] | None:
        return self.get("changes")

    @property
    def metadata(self) -> ChangeMetadata:
        return ChangeMetadata(self["metadata"])


class ChangeEventBatch(DictWrapper):
    """What a trigger invokes a function with: `@event_source(data_class=ChangeEventBatch)`."""

    @property
    def records(self) -> Iterator[ChangeEvent]:
        for record in self["Records"]:
            yield ChangeEvent(record)
