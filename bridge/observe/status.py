"""
The status of the service at one moment, as values that go into JSON as they are. Pure.

The service makes a snapshot when somebody asks: the console, `/metrics`, `/readyz`. Names are those of design 7 and of
`pg_replication_slots`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from bridge.lsn import LSN


class ServiceState(StrEnum):
    """What the process is doing."""

    STARTING = "starting"
    STANDING_BY = "standing_by"
    """Another process reads the slot; this one takes over when it ends."""
    STREAMING = "streaming"
    RECONNECTING = "reconnecting"
    DRAINING = "draining"
    STOPPED = "stopped"
    """Ended for good, with a reason: slot lost, misconfigured source, broken protocol."""
    NOT_RUNNING = "not_running"
    """Nobody reads the slot: said by `pgbridge status` from the database alone."""
    UNKNOWN = "unknown"
    """Somebody reads the slot, but could not be asked: said as above."""


class TriggerState(StrEnum):
    """What a trigger is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    """Nothing is sent until its target is mended or somebody resumes it; `paused_reason` says why."""
    DISABLED = "disabled"
    """By its setting `enabled`."""
    UNKNOWN = "unknown"
    """No process could be asked."""


class TriggerMode(StrEnum):
    """Where a trigger takes its changes from."""

    LIVE = "live"
    BACKLOG = "backlog"
    """The table, where they went because they waited too long or took too much memory."""


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """The slot as the server sees it; None where not known (yet)."""

    name: str
    active: bool | None = None
    wal_status: str | None = None
    """reserved, extended, unreserved or lost; see `pg_replication_slots`."""
    retained_bytes: int | None = None
    """WAL that the server keeps because of the slot: current position less restart_lsn."""
    safe_wal_bytes: int | None = None
    """WAL that may still be written before the slot is in danger; None where there is no limit."""
    confirmed_flush_lsn: LSN | None = None
    restart_lsn: LSN | None = None
    held_by: str | None = None
    """The oldest open transaction, where restart_lsn stands still for it: decoding has to begin before it did."""
    server_version: int | None = None
    """As PostgreSQL numbers it: 180006."""


@dataclass(frozen=True, slots=True)
class TriggerStatus:
    """One trigger."""

    name: str
    target: str
    """What is called, as `TargetSettings.display_name`: never a URL's path, which may be a secret."""
    state: TriggerState = TriggerState.RUNNING
    paused_reason: str | None = None
    lag_seconds: float | None = None
    """Age of the oldest unsettled change, from its commit; 0 when nothing waits, None when not known."""
    checkpoint_lsn: LSN | None = None
    """Everything at or below is settled, as stored; only where no process could be asked."""
    lag_bytes: int | None = None
    """WAL between the trigger's watermark and what was received."""
    waiting: int = 0
    """Changes in memory, in flight or not."""
    waiting_bytes: int = 0
    mode: TriggerMode | None = None
    """None where no process could be asked."""
    backlog_events: int | None = None
    """Changes in the backlog table; None while that is not known."""
    backlog_bytes: int | None = None
    in_flight: int = 0
    """Batches."""
    retrying: int = 0
    """Changes whose last attempt failed and that wait for another."""
    delivered: int = 0
    filtered: int = 0
    dead_lettered: int = 0
    """By this process, since it started."""
    dead_letters: int | None = None
    """In the table now; None while the store does not answer."""
    failed_invocations: int = 0
    last_error: str | None = None
    """The last failure, in our words (`Evidence.error`); never the target's, which may hold row values."""
    last_error_at: float | None = None
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class SchemaChangeStatus:
    """The last time that a table was described differently from before."""

    table: str
    schema_version: str
    """As in the metadata of its events since then."""
    previous_version: str
    what: tuple[str, ...]
    """In words: `column age added (int4)`."""
    commit_lsn: LSN
    """Of the transaction with the first change of the new version."""
    committed_at: float
    """When that was committed, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The whole process."""

    state: ServiceState
    reason: str | None = None
    """Why it is in that state, with the next step where there is one."""
    since: float | None = None
    """When it came into that state, in seconds since 1970."""
    version: str = ""
    started_at: float | None = None
    slot: SlotStatus | None = None
    received_lsn: LSN | None = None
    """Read from the socket."""
    confirmed_lsn: LSN | None = None
    """Told to PostgreSQL."""
    buffered_bytes: int = 0
    """Held in memory for all triggers."""
    buffer_limit_bytes: int | None = None
    polled_changes: int = 0
    """Changes read from the slot by this process, before any filter."""
    reconnects: int = 0
    """Connections to the source after the first."""
    last_message_at: float | None = None
    """When the server was last heard, in seconds since 1970."""
    triggers: tuple[TriggerStatus, ...] = field(default=())
    schema_changes: int = 0
    """Tables' descriptions that differed from the one before, noticed by this process."""
    ignored_contexts: int = 0
    """Messages with the prefix pgbridge.context that were no context, noticed by this process."""
    changed_tables: tuple[SchemaChangeStatus, ...] = field(default=())
    """The last change of each table that changed while this process ran, the newest first, at most 100."""

    def to_json(self) -> dict[str, Any]:
        """Plain values: LSNs as text, states as their names."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """
        Read `to_json` back; members that are not known are left out, so that an older `pgbridge status` reads a newer
        process.

        Raises:
            ValueError: it is not a status.
        """
        try:
            slot = document.get("slot")
            return cls(
                **{
                    **_known(cls, document),
                    "state": ServiceState(document["state"]),
                    "received_lsn": _lsn(document.get("received_lsn")),
                    "confirmed_lsn": _lsn(document.get("confirmed_lsn")),
                    "slot": slot
                    and SlotStatus(
                        **{
                            **_known(SlotStatus, slot),
                            "confirmed_flush_lsn": _lsn(slot.get("confirmed_flush_lsn")),
                            "restart_lsn": _lsn(slot.get("restart_lsn")),
                        }
                    ),
                    "triggers": tuple(
                        TriggerStatus(
                            **{
                                **_known(TriggerStatus, trigger),
                                "state": TriggerState(trigger["state"]),
                                "mode": trigger.get("mode") and TriggerMode(trigger["mode"]),
                                "checkpoint_lsn": _lsn(trigger.get("checkpoint_lsn")),
                            }
                        )
                        for trigger in document.get("triggers", ())
                    ),
                    "changed_tables": tuple(
                        SchemaChangeStatus(
                            **{
                                **_known(SchemaChangeStatus, change),
                                "what": tuple(change["what"]),
                                "commit_lsn": LSN.parse(change["commit_lsn"]),
                            }
                        )
                        for change in document.get("changed_tables", ())
                    ),
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not the status of a pgbridge process") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, LSN | StrEnum) else value


def _known(kind: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    names = {member.name for member in dataclasses.fields(kind)}
    return {name: value for name, value in document.items() if name in names}


def _lsn(text: str | None) -> LSN | None:
    return None if text is None else LSN.parse(text)
