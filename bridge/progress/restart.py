"""
When to ask for a record of the running transactions, so that restart_lsn follows what is confirmed. Pure.

The server keeps WAL from a slot's restart_lsn, not from what is confirmed: decoding has to begin again where it can
learn which transactions were running. It can at an `xl_running_xacts` record, which the background writer writes every
15 seconds, however much WAL that is. On a server of 5 MB/s a slot that is confirmed to the last byte retains 75 to 150
MB. `pg_log_standby_snapshot()`, which came with 16, writes such a record at once.

How it moves (snapbuild.c, SnapBuildProcessRunningXacts; logical.c, LogicalIncreaseRestartDecodingForSlot and
LogicalConfirmReceivedLocation): a decoded record at D makes a *candidate*, the record before the start of the oldest
transaction open at D; where transactions come one after another, the record before D. The candidate is taken once D is
confirmed, and until then records that are decoded make no other. So with U bytes not confirmed, and a record every S
bytes, the slot retains at most

    S   from the candidate to its record D
  + U   until D is confirmed; what was decoded meanwhile made no candidate
  + S   to the next record
  + U   until that is confirmed, and the next candidate taken
  = 2 U + 2 S

Triggers keep U under half of backlog.after_wal_bytes (`delivery/parking.py`), and S is half a segment: together, the
configured bound and one segment.
"""

from __future__ import annotations

from collections import deque
from typing import Final

STEP_BYTES: Final = 8 << 20
"""
Half a segment of the usual size. A record is some 100 bytes, and costs each logical slot of the server a file as small,
until a checkpoint removes it.
"""
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 15.0
"""While restart_lsn does not move for our records, the server's own do as well (LOG_SNAPSHOT_INTERVAL_MS)."""
POSTPONED_SECONDS: Final = 2.0
"""Until the next look, where a record seemed due and was not, or the server could not be asked."""
REFUSED_PAUSE_SECONDS: Final = 60.0
"""Until the right to write records is asked for again."""
IN_VAIN: Final = 2
"""
So many confirmed records without a move, and the oldest open transaction is older than they are: the first one may
stand where a stream began, before which there is none to go to.
"""
STILL_SECONDS: Final = 60.0
"""Four of the server's own records, where we write none."""


class RestartPace:
    """
    Positions are the server's, in bytes; times are monotonic seconds, given by the caller.

    Args:
        most_wal_bytes: what the slot may retain.
    """

    def __init__(self, most_wal_bytes: int) -> None:
        self._most_unconfirmed_bytes = most_wal_bytes
        # The server's own records are enough for a slot that retains less. Ours would only add to those of other slots.
        self._least_retained_bytes = most_wal_bytes // 4
        self._restart_lsn: int | None = None
        self._moved_at = 0.0
        self._behind = False
        self._newest_lsn = 0
        self._unconfirmed: deque[int] = deque()
        self._in_vain = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._next = float("-inf")

    def seen(self, now: float, *, restart_lsn: int, confirmed_lsn: int) -> None:
        """Somebody looked at the slot."""
        if restart_lsn != self._restart_lsn:
            self._restart_lsn, self._moved_at = restart_lsn, now
            # Those may have been decoded while another candidate waited, and say nothing.
            self._unconfirmed.clear()
            self._in_vain = 0
            self._pause = FIRST_PAUSE_SECONDS
        self._behind = confirmed_lsn - restart_lsn >= self._least_retained_bytes
        if not self._behind:
            self._moved_at = now
        while self._unconfirmed and self._unconfirmed[0] <= confirmed_lsn:
            self._unconfirmed.popleft()
            self._in_vain += 1
            if self.is_held(now):
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def is_due(self, now: float, *, written_lsn: int, confirmed_lsn: int) -> bool:
        """
        Whether a record would help.

        Args:
            now: the time.
            written_lsn: as far as the server has written; less, where it is not known exactly, is no harm.
            confirmed_lsn: what the slot is confirmed to. While that is what holds it back, no record helps.
        """
        if self._restart_lsn is None or now < self._next:
            return False
        return (
            written_lsn - self._restart_lsn >= self._least_retained_bytes
            # A record is a hundred bytes: on an idle server it is not followed by another.
            and written_lsn - self._newest_lsn >= STEP_BYTES
            and written_lsn - confirmed_lsn <= self._most_unconfirmed_bytes
        )

    def wrote(self, now: float, record_lsn: int) -> None:
        """The server has written a record up to here."""
        self._newest_lsn = record_lsn
        self._unconfirmed.append(record_lsn)
        self._next = now + self._pause

    def refused(self, now: float) -> None:
        """The role may not write records, or the server can't."""
        self._next = now + REFUSED_PAUSE_SECONDS

    def postpone(self, now: float) -> None:
        """It seemed due by what the caller knew; on a closer look it was not, or there could be none."""
        self._next = max(self._next, now + POSTPONED_SECONDS)

    def is_held(self, now: float) -> bool:
        """Whether something else than a missing record keeps restart_lsn back: an old transaction."""
        return self._behind and (self._in_vain >= IN_VAIN or now - self._moved_at >= STILL_SECONDS)
