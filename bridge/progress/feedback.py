"""
From the trackers and the stream's positions to what the server may be told, and when. Pure.

Sources: manual, "Streaming Replication Protocol", Standby status update; walsender.c, ProcessStandbyReplyMessage (only
the flush position moves a logical slot) and WalSndKeepalive (its `wal_end` is as far as this walsender has decoded).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bridge.change import Transaction
from bridge.errors import InvariantBroken
from bridge.lsn import LSN
from bridge.progress.tracker import Tracker

FIRST_IDLE_PAUSE_SECONDS = 0.5
LONGEST_IDLE_PAUSE_SECONDS = 3600.0
# More WAL than a save of ours writes, full page images included: whoever wrote it, it was not us.
FOREIGN_WAL_BYTES = 65536


def confirmable(
    trackers: Iterable[Tracker], *, received_end_lsn: int, server_wal_end: int, open_transaction: Transaction | None
) -> int:
    """
    The LSN up to which everything is settled for every trigger.

    While an event is unsettled that is the `end_lsn` of the transaction before its own, as received: transactions come
    in commit order, so all before it are settled. It is used as it came: `end_lsn` is exclusive already, and a
    commit record may start exactly there. With nothing open at all, a keepalive's `wal_end` may stand further.
    """
    oldest: Transaction | None = None
    for tracker in trackers:
        event = tracker.oldest
        if event is not None and (oldest is None or event.transaction.commit_lsn < oldest.commit_lsn):
            oldest = event.transaction
    if oldest is not None:
        return oldest.previous_end_lsn
    if open_transaction is not None:
        return received_end_lsn
    return max(received_end_lsn, server_wal_end)


@dataclass(frozen=True, slots=True)
class Status:
    """The three positions of a status update; only `flushed` moves the slot."""

    written: int
    flushed: int
    applied: int


class Feedback:
    """
    Remembers what was saved and told, and when the next status update is due.

    The server is told no more than what the store holds (`saved`), so that a slot ahead of the store is a sign that
    somebody else moved it.

    Args:
        saved_lsn: the confirmed position in the store.
        interval_seconds: between two status updates when nothing else causes one.
    """

    def __init__(self, saved_lsn: int, *, interval_seconds: float) -> None:
        self._saved = saved_lsn
        self._interval = interval_seconds
        self._next = 0.0

    @property
    def saved_lsn(self) -> int:
        return self._saved

    def saved(self, confirmed_lsn: int) -> None:
        """The store now holds this position: the next status update may say so, and is due at once."""
        if confirmed_lsn < self._saved:
            raise InvariantBroken(f"the saved position would go back from {LSN(self._saved)} to {LSN(confirmed_lsn)}")
        if confirmed_lsn > self._saved:
            self._saved = confirmed_lsn
            self._next = 0.0

    def due_at(self) -> float:
        """Monotonic time of the next status update."""
        return self._next

    def status(self, now: float, *, received_lsn: int) -> Status:
        """The status update to send at `now`; sets the next one's time."""
        self._next = now + self._interval
        return Status(written=max(received_lsn, self._saved), flushed=self._saved, applied=self._saved)


class IdlePace:
    """
    When progress that settles nothing is worth a write to the store.

    A quiet slot has to follow the cluster's WAL, or it holds the disk; but a store in the same cluster answers each
    save with WAL of its own, which would feed itself. So after each idle save whose gain could have been our own
    writing, the pause before the next doubles; more WAL than that, or a settled change, brings it back to the first.
    """

    def __init__(self) -> None:
        self._pause = FIRST_IDLE_PAUSE_SECONDS
        self._saved_at = float("-inf")

    def wake_at(self) -> float:
        """Monotonic time from which idle progress may be saved."""
        return self._saved_at + self._pause

    def saved(self, now: float, *, gained_bytes: int, settled: bool) -> None:
        """A save was made that moved the position by `gained_bytes`."""
        self._saved_at = now
        if settled or gained_bytes > FOREIGN_WAL_BYTES:
            self._pause = FIRST_IDLE_PAUSE_SECONDS
        else:
            self._pause = min(self._pause * 2, LONGEST_IDLE_PAUSE_SECONDS)
