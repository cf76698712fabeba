"""Looks at the slot while things go wrong, past every proxy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import psycopg

from chaos.reconcile import Glance

PAUSE_SECONDS = 0.04

# First the position; then the backlog, the letters and the ledger, in the order in which changes move on. What was
# confirmed must be in one of them.
LOOK = """
SELECT s.confirmed_flush_lsn - '0/0'::pg_lsn, coalesce(p.confirmed_lsn - '0/0'::pg_lsn, 0), coalesce(p.epoch, 0),
       pg_current_wal_insert_lsn() - s.confirmed_flush_lsn
FROM pg_replication_slots s LEFT JOIN pgbridge.slots p ON p.slot = s.slot_name
WHERE s.slot_name = %s
"""
BACKLOG = "SELECT trigger, event_id FROM pgbridge.backlog"
LETTERS = "SELECT id, trigger, event_id FROM pgbridge.dead_letters WHERE id > %s ORDER BY id"


class Watch:
    """Runs in a thread, from `start` to `stop`."""

    def __init__(self, dsn: str, slot: str, ledger: Path) -> None:
        self._dsn = dsn
        self._slot = slot
        self._ledger = ledger
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_letter = 0
        self.glances: list[Glance] = []
        self.letters: set[tuple[str, str]] = set()
        self._parked: set[tuple[str, str]] = set()
        self.confirmed_lsn = 0
        """Where the slot stood when it was last looked at."""
        self._passed_lsn = 0
        self.unconfirmed_bytes = 0
        """Of WAL, when it was last looked at."""
        self.parked = 0
        """Rows of the backlog, then."""

    def start(self) -> None:
        self._task = asyncio.create_task(asyncio.to_thread(self._watch))

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task

    def has_passed(self, lsn: int) -> bool:
        """Whether nobody will send anything of before this position any more: it is confirmed, and nothing is parked."""
        return self._passed_lsn >= lsn

    def _watch(self) -> None:
        while not self._stop.is_set():
            # The server may be the one that something is wrong with.
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self._dsn, autocommit=True) as connection,
            ):
                while not self._stop.is_set():
                    self.look(connection)
                    self._stop.wait(PAUSE_SECONDS)
            self._stop.wait(PAUSE_SECONDS)

    def look(self, connection: psycopg.Connection) -> None:
        row = connection.execute(LOOK, (self._slot,)).fetchone()
        if row is None or row[0] is None:
            return
        self.confirmed_lsn, self.unconfirmed_bytes = int(row[0]), int(row[3])
        rows = set(connection.execute(BACKLOG).fetchall())
        self.parked = len(rows)
        if not rows:
            self._passed_lsn = self.confirmed_lsn
        parked = rows - self._parked
        self._parked |= parked
        letters = connection.execute(LETTERS, (self._last_letter,)).fetchall()
        if letters:
            self._last_letter = letters[-1][0]
        new = {(trigger, event_id) for _, trigger, event_id in letters}
        self.letters |= new
        size = self._ledger.stat().st_size
        self.glances.append(Glance(int(row[0]), int(row[1]), row[2], size, frozenset(new | parked)))
