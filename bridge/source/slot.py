"""The replication slot: whether it is there, how it stands, and what it makes the server keep."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.lsn import LSN
from bridge.source.commands import PLUGIN, quote_literal
from bridge.source.queries import Queries


@dataclass(frozen=True, slots=True)
class SlotState:
    """A row of `pg_replication_slots`; None where the server's version has no such column, or says nothing."""

    name: str
    slot_type: str
    plugin: str | None
    database: str | None
    temporary: bool
    active_pid: int | None
    confirmed_flush_lsn: LSN | None
    restart_lsn: LSN | None
    wal_status: str | None
    """reserved, extended, unreserved or lost."""
    safe_wal_bytes: int | None
    """WAL that may still be written before the slot is in danger."""
    retained_bytes: int | None
    """WAL that the server keeps because of the slot."""
    catalog_xmin_age: int | None
    """Transactions since the oldest whose catalog rows vacuum may not remove because of the slot."""
    invalidation_reason: str | None
    """17 and later; before, `lost` in `wal_status` says as much."""
    failover: bool | None
    two_phase: bool
    """Prepared transactions are sent at PREPARE, in messages that come with no protocol version of ours."""

    def misfit(self, database: str) -> tuple[str, str] | None:
        """Why this slot can't be read from a database, as the end of a sentence, and what would do; None if it can."""
        other = "name another one in source.slot, and create it with: pgbridge init"
        if self.slot_type != "logical":
            return f"is a {self.slot_type} slot, not a logical one", other
        if self.plugin != PLUGIN:
            return f"decodes with {self.plugin}, not with {PLUGIN}", other
        if self.database != database:
            return (
                f'belongs to database "{self.database}", and source.dsn names "{database}"',
                "name the right database in source.dsn, or another slot in source.slot",
            )
        if self.temporary:
            return "is a temporary slot of another session", other
        if self.two_phase:
            return "was made with two_phase, and sends transactions before they are committed", other
        return None

    @property
    def bytes_behind_confirmed(self) -> int | None:
        """WAL that is retained although it is confirmed; None where the view does not say."""
        if self.restart_lsn is None or self.confirmed_flush_lsn is None:
            return None
        return max(0, self.confirmed_flush_lsn - self.restart_lsn)


_STATE = """
SELECT s.slot_name, s.slot_type, s.plugin, s.database, s.temporary, s.active_pid, s.confirmed_flush_lsn, s.restart_lsn,
       s.wal_status, s.safe_wal_size,
       pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn),
       pg_catalog.age(s.catalog_xmin),
       pg_catalog.to_jsonb(s) ->> 'invalidation_reason', pg_catalog.to_jsonb(s) ->> 'failover', s.two_phase
  FROM pg_catalog.pg_replication_slots s
 WHERE s.slot_name =
"""


async def inspect(session: Queries, name: str) -> SlotState | None:
    """
    The slot as it stands; None where there is none of that name.

    Raises:
        SourceError: the server refused.
    """
    for row in await session.query(_STATE + quote_literal(name)):
        (
            slot_name, slot_type, plugin, database, temporary, active_pid, confirmed, restart, wal_status, safe,
            retained, age, invalidation_reason, failover, two_phase,
        ) = row  # fmt: skip
        return SlotState(
            name=slot_name or name,
            slot_type=slot_type or "",
            plugin=plugin,
            database=database,
            temporary=temporary == "t",
            active_pid=_number(active_pid),
            confirmed_flush_lsn=None if confirmed is None else LSN.parse(confirmed),
            restart_lsn=None if restart is None else LSN.parse(restart),
            wal_status=wal_status,
            safe_wal_bytes=_number(safe),
            retained_bytes=_number(retained),
            catalog_xmin_age=_number(age),
            invalidation_reason=invalidation_reason,
            failover=None if failover is None else failover == "true",
            two_phase=two_phase == "t",
        )
    return None


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
