"""The server's side of a run: when it began to stream, and what its walsender used."""

from __future__ import annotations

import psycopg

from benchmarks.processes import BenchmarkError, Cpu, Sampler, cpu_of

_WHO = """
SELECT activity.pid, extract(epoch FROM activity.query_start)::float8
FROM pg_replication_slots AS slot JOIN pg_stat_activity AS activity ON activity.pid = slot.active_pid
WHERE slot.slot_name = %s AND activity.query LIKE 'START_REPLICATION%%'
"""


class WalsenderSampler(Sampler):
    """
    Follows the walsender of one slot, from when the slot is taken to the walsender's end.

    Args:
        client_pid: whose CPU to note at the moment when the walsender is first seen.

    Attributes:
        client_cpu: what that process had used by then.
    """

    def __init__(self, connection: psycopg.Connection, slot: str, *, client_pid: int | None = None) -> None:
        super().__init__()
        self.client_cpu = Cpu()
        self._began_at: float | None = None
        self._connection = connection
        self._slot = slot
        self._client_pid = client_pid

    def began(self) -> float:
        """
        When the walsender was told to stream, in seconds since 1970, by its own clock.

        Raises:
            BenchmarkError: it was never seen.
        """
        if self._began_at is None:
            raise BenchmarkError(f"the reader of {self._slot} was through before it was seen; take more rows")
        return self._began_at

    def find(self) -> int | None:
        """Ask the server who reads the slot."""
        row = self._connection.execute(_WHO, (self._slot,)).fetchone()
        if row is None:
            return None
        if self._client_pid is not None:
            self.client_cpu = cpu_of(self._client_pid) or Cpu()
        pid, self._began_at = row
        return int(pid)
