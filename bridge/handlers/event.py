"""The event as pydantic models: typed by the row's own model, and silent about row values when printed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from typing_extensions import TypeVar  # PEP 696 defaults came with Python 3.13

Action = Literal["insert", "update", "delete", "truncate", "read", "message"]

RecordT = TypeVar("RecordT", default=Any)


class _Quiet(BaseModel):
    """
    Frozen, open to members that later versions add, and printable without giving row values away.

    `hide_input_in_errors` also covers the row model inside: pydantic reads it from the outermost model.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True, populate_by_name=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, getattr(self, name)) for name, field in type(self).model_fields.items() if field.repr]


class Metadata(_Quiet):
    """Where a change comes from."""

    source: str
    """`pgbridge`."""
    database: str
    table_schema: str | None = None
    """None for logical messages, which belong to no table; likewise `table_name`."""
    table_name: str | None = None
    schema_version: str | None = None
    """The same as long as the table is described in the same way. None for logical messages."""
    commit_lsn: int
    """Where the commit record starts, as a number; never above 2**64 - 1."""
    commit_idx: int
    """Index of the change in its transaction, from 0."""
    commit_timestamp: AwareDatetime | None = None
    """Of the server's clock, UTC. None for a message that was sent outside of a transaction."""
    transaction_id: int | None = None
    context: dict[str, Any] | None = Field(default=None, repr=False)
    """What the transaction said of itself before this change, by messages of the prefix `pgbridge.context`."""
    keys: dict[str, Any] | None = Field(default=None, repr=False)
    """The replica identity's columns and values; None where the table has none."""
    old_keys: dict[str, Any] | None = Field(default=None, repr=False)
    """The keys before an update that changed them, else None."""
    unavailable: tuple[str, ...] = ()
    """Columns that the server did not send, absent from `record`: unchanged TOAST, all but the key of a delete."""
    trigger: str
    idempotency_key: str
    """The same on every attempt at this change by this trigger, and of no other change."""

    @property
    def table(self) -> str | None:
        """`schema.table`."""
        return None if self.table_name is None else f"{self.table_schema}.{self.table_name}"


class Event(_Quiet, Generic[RecordT]):
    """
    One change; `Event[User]` checks and types the row, a bare `Event` leaves `record` as parsed JSON.

    A trigger that also sends deletes of tables without REPLICA IDENTITY FULL, or truncates, delivers less than a row:
    the key's columns, or None. Say so in the type: `Event[User | UserKey | None]`.
    """

    id: str
    """Sorts in commit order; the same on every attempt and after every restart of the bridge."""
    action: Action
    record: RecordT = Field(repr=False)
    """The row; for a delete the old row, as far as the replica identity gives it."""
    changes: dict[str, Any] | None = Field(default=None, repr=False)
    """Old values of the columns that an update changed; None when unknown (needs REPLICA IDENTITY FULL)."""
    metadata: Metadata


class EventBatch(_Quiet, Generic[RecordT]):
    """What a trigger invokes a function with: `@event_parser(model=EventBatch[User])`."""

    records: tuple[Event[RecordT], ...] = Field(alias="Records", repr=False)
