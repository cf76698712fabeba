"""The server's side of a run: when it began to stream, and what its walsender used."""

from __future__ import annotations

import psycopg

from benchmarks.processes import Sampler

_WHO = """
SELECT activity.pid, extract(epoch FROM activity.query_start)::float8
FROM pg_replication_slots AS slot JOIN pg_stat_activity AS activity ON activity.pid = slot.active_pid
WHERE slot.slot_name = %s AND activity.query LIKE 'START_REPLICATION%%'
"""


class WalsenderSampler(Sampler):
    """
    Follows the walsender of one slot, from when the slot is taken to the walsender's end.

    Attributes:
        began_at: when it was told to stream, in seconds since 1970; None while it was not seen.
    """

    def __init__(self, connection: psycopg.Connection, slot: str) -> None:
        super().__init__()
        self.began_at: float | None = None
        self._connection = connection
        self._slot = slot

    def find(self) -> int | None:
        """Ask the server who reads the slot."""
        row = self._connection.execute(_WHO, (self._slot,)).fetchone()
        if row is None:
            return None
        pid, self.began_at = row
        return int(pid)
