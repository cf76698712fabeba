"""What a server says of itself, read in one go for `preflight.py`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from bridge.clock import Clock
from bridge.source import running_xacts
from bridge.source.queries import Queries

# pg_settings has no row for a setting that this version does not have, or that the role may not see.
_FACTS: Final = f"""
SELECT pg_catalog.current_setting('server_version_num'),
       pg_catalog.current_setting('server_version'),
       pg_catalog.current_user(),
       pg_catalog.current_database(),
       pg_catalog.current_setting('server_encoding'),
       pg_catalog.current_setting('wal_level'),
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('max_replication_slots'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
       pg_catalog.current_setting('max_wal_senders'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'idle_replication_slot_timeout'),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'output_plugin_libraries'),
       {running_xacts.MAY_WRITE},
       extract(epoch FROM pg_catalog.clock_timestamp())
"""  # noqa: S608 - an expression of ours


@dataclass(frozen=True, slots=True)
class Facts:
    """Settings and state of a server that replication depends on."""

    version: int
    version_text: str
    user: str
    database: str
    encoding: str
    wal_level: str
    in_recovery: bool
    slots: int
    slots_used: int
    senders: int
    senders_used: int
    slot_wal_limit_mb: int
    """max_slot_wal_keep_size; -1 for no limit."""
    idle_slot_timeout: int
    """idle_replication_slot_timeout, which came with 18; 0 where it is off or unknown."""
    plugins: str | None
    """output_plugin_libraries; None where the server has no such setting, or the role may not see it."""
    may_write_records: bool
    """Of running transactions: see `running_xacts.py`."""
    clock_ahead_seconds: float
    """The server's clock less ours."""
    round_trip_seconds: float
    """How far the difference of the clocks may be wrong, at most."""


async def read(session: Queries, clock: Clock) -> Facts:
    """
    Ask the server.

    Raises:
        SourceError: it refused, or did not answer.
    """
    before, started = clock.now(), time.monotonic()
    (row,) = await session.query(_FACTS)
    round_trip = time.monotonic() - started
    text = [value or "" for value in row]
    return Facts(
        version=int(text[0]),
        version_text=text[1],
        user=text[2],
        database=text[3],
        encoding=text[4],
        wal_level=text[5],
        in_recovery=text[6] == "t",
        slots=int(text[7]),
        slots_used=int(text[8]),
        senders=int(text[9]),
        senders_used=int(text[10]),
        slot_wal_limit_mb=int(text[11]),
        idle_slot_timeout=int(text[12] or 0),
        plugins=row[13],
        may_write_records=text[14] == "t",
        clock_ahead_seconds=float(text[15]) - (before + round_trip / 2),
        round_trip_seconds=round_trip,
    )
