"""What is wrong with a slot, as it is and beside what the store holds of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from bridge.errors import BridgeError
from bridge.lsn import LSN
from bridge.source import provision, running_xacts
from bridge.source.connection import SystemIdentity
from bridge.source.facts import Facts
from bridge.source.findings import Finding
from bridge.source.resume import resume_at
from bridge.source.running_xacts import OpenTransaction
from bridge.source.slot import SlotState
from bridge.store.protocol import Progress, SourceIdentity

# Vacuum can remove no catalog row newer than the slot's catalog_xmin. At 200 million autovacuum_freeze_max_age forces
# vacuums of everything; a quarter of that is a slot that nobody has read for long.
_OLD_CATALOG_TRANSACTIONS: Final = 50_000_000

_MEGABYTE: Final = 1 << 20


def about_slot(name: str, state: SlotState | None, seen: Facts) -> Iterator[Finding]:
    """`state` is None where there is no slot of that name."""
    if state is None:
        yield Finding("error", f'slot "{name}" does not exist', "create it with: pgbridge init", {"slot": name})
        return
    details = {
        "slot": name,
        "wal_status": state.wal_status,
        "retained_bytes": state.retained_bytes,
        "safe_wal_bytes": state.safe_wal_bytes,
        "confirmed_flush_lsn": text_of(state.confirmed_flush_lsn),
        "restart_lsn": text_of(state.restart_lsn),
        "active_pid": state.active_pid,
        "catalog_xmin_age": state.catalog_xmin_age,
        "failover": state.failover,
    }
    if misfit := state.misfit(seen.database):
        what, remedy = misfit
        yield Finding("error", f'slot "{name}" {what}', remedy, details)
        return
    if provision.is_lost(state):
        reason = f" ({state.invalidation_reason})" if state.invalidation_reason else ""
        yield Finding(
            "error",
            f'slot "{name}" is lost{reason}: the server has removed WAL that was not read',
            "begin anew with: pgbridge init --accept-gap; then have rows sent again by an UPDATE that touches them",
            details,
        )
        return
    kept = _megabytes(state.retained_bytes)
    if state.wal_status == "unreserved":
        yield Finding(
            "error",
            f'slot "{name}" will be lost at the next checkpoint: it holds {kept} of WAL, more than the server allows',
            "start pgbridge now, or raise max_slot_wal_keep_size (ALTER SYSTEM SET, then reload)",
            details,
        )
    else:
        reader = f"read by server process {state.active_pid}" if state.active_pid is not None else "not being read"
        yield Finding("ok", f'slot "{name}" is healthy, {reader}, and holds {kept} of WAL', details=details)
    yield from _dangers(name, state, seen)


def _dangers(name: str, state: SlotState, seen: Facts) -> Iterator[Finding]:
    limit = seen.slot_wal_limit_mb * _MEGABYTE
    if seen.slot_wal_limit_mb >= 0 and state.retained_bytes is not None and state.retained_bytes * 2 > limit:
        yield Finding(
            "warning",
            f'slot "{name}" holds {_megabytes(state.retained_bytes)} of the {seen.slot_wal_limit_mb} MB of WAL that'
            " max_slot_wal_keep_size allows; above that it is lost",
            "find out what holds it back with: pgbridge status; or raise max_slot_wal_keep_size",
            {"slot": name, "max_slot_wal_keep_size_mb": seen.slot_wal_limit_mb},
        )
    if seen.idle_slot_timeout > 0:
        yield Finding(
            "warning",
            f'slot "{name}" is lost if nobody reads it for {seen.idle_slot_timeout} seconds'
            " (idle_replication_slot_timeout)",
            "set it to 0, or to more than the longest time pgbridge may be stopped",
            {"slot": name, "idle_replication_slot_timeout_seconds": seen.idle_slot_timeout},
        )
    if state.catalog_xmin_age is not None and state.catalog_xmin_age > _OLD_CATALOG_TRANSACTIONS:
        yield Finding(
            "warning",
            f'slot "{name}" keeps vacuum from catalog rows of the last {state.catalog_xmin_age} transactions',
            "start pgbridge, or drop the slot if it is not needed any more",
            {"slot": name, "catalog_xmin_age": state.catalog_xmin_age},
        )


def about_restart(name: str, seen: Facts, behind: int | None, holder: OpenTransaction | None) -> Iterator[Finding]:
    """
    Whether the slot can let go of what is confirmed.

    Args:
        name: of the slot.
        seen: of the server.
        behind: bytes of WAL that it retains although they are confirmed.
        holder: the oldest open transaction, where that is more than it should be.
    """
    if seen.version >= running_xacts.OLDEST_SERVER and not seen.in_recovery and not seen.may_write_records:
        yield Finding(
            "advice",
            f'role "{seen.user}" may not call pg_log_standby_snapshot(), so the slot lets go of WAL up to 30 seconds'
            " after it is confirmed, however much is written meanwhile",
            f"let a superuser run: {running_xacts.grant(seen.user)}",
            {"slot": name, "role": seen.user},
        )
    if holder is not None:
        yield Finding(
            "warning",
            f'slot "{name}" holds {_megabytes(behind)} of WAL that is confirmed: decoding would begin anew before the'
            f" oldest open transaction, that of {holder}",
            "end it, if nobody needs it any more",
            {"slot": name, "confirmed_bytes": behind, "holder": holder.who, "open_seconds": holder.open_seconds},
        )


def about_continuity(progress: Progress, identity: SystemIdentity, state: SlotState) -> Iterable[Finding]:
    """Whether slot and store are of one history, as a start would ask."""
    if state.confirmed_flush_lsn is None:
        return []
    ours = SourceIdentity(state.name, identity.system_identifier, identity.timeline, identity.database)
    # Whoever reads may have saved what was written since we looked.
    wal_end = identity.wal_flush_lsn if state.active_pid is None else None
    try:
        resume_at(progress, ours, slot_confirmed_lsn=state.confirmed_flush_lsn, server_lsn=wal_end)
    except BridgeError as error:
        return [Finding.of(error)]
    return []


def text_of(lsn: LSN | None) -> str | None:
    """An LSN for a program."""
    return None if lsn is None else str(lsn)


def _megabytes(amount: int | None) -> str:
    return "an unknown amount" if amount is None else f"{amount / _MEGABYTE:.1f} MB"
