"""The values that travel from the decoder to the targets. No I/O, no clock; row data never in a repr."""

from __future__ import annotations

from typing import Final, NamedTuple

from bridge.lsn import LSN


class Unchanged:
    """The type of `UNCHANGED`: a TOASTed value that the server did not send; never the same as null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()


class Position(NamedTuple):
    """
    Where a change stands in the stream: orders, names and de-duplicates it.

    The change's own LSN would not do: rows of one COPY share it, and interleaved transactions go backwards.
    """

    commit_lsn: LSN
    ordinal: int
    """Index of the change in its transaction, from 0, counted before any filter."""

    @property
    def event_id(self) -> str:
        """Sorts as text in commit order; the same on every attempt and after every restart."""
        return f"{self.commit_lsn:016X}-{self.ordinal:010d}"

    @classmethod
    def parse(cls, event_id: str) -> Position:
        """Read an event id back; the inverse of `event_id`."""
        commit_lsn, _, ordinal = event_id.partition("-")
        return cls(LSN(int(commit_lsn, 16)), int(ordinal))


class Transaction:
    """
    One transaction as announced by its Begin message; shared by all of its events.

    Attributes:
        commit_lsn: where the commit record starts (Begin's `final_lsn`).
        previous_end_lsn: `end_lsn` of the transaction received before this one, or where the stream started. While a
            change of this transaction is unsettled, this is as far as the slot may be confirmed (promise 3).
        committed_at: commit time in seconds since 1970, UTC.
        xid: transaction id.
    """

    __slots__ = ("commit_lsn", "committed_at", "previous_end_lsn", "xid")

    def __init__(self, commit_lsn: int, previous_end_lsn: int, committed_at: float, xid: int) -> None:
        self.commit_lsn = commit_lsn
        self.previous_end_lsn = previous_end_lsn
        self.committed_at = committed_at
        self.xid = xid

    def __repr__(self) -> str:
        return f"Transaction({LSN(self.commit_lsn)}, xid={self.xid})"


class Event(NamedTuple):
    """
    What is delivered about one change, ready to send but for the trigger's own tail (`triggers/envelope.py`).

    A tuple, because one is made for each change on the hot path.
    """

    id: bytes
    """`Position.event_id` as ASCII; bytes order is commit order."""
    transaction: Transaction
    ordinal: int
    key: bytes | None
    """Ordering key; None where nothing has to stay in order."""
    old_key: bytes | None
    """The ordering key before this change, where the change altered it; it waits for both."""
    table: str
    """`schema.table`, or the prefix of a logical message."""
    action: str
    """insert, update, delete, truncate, read or message."""
    body: bytes
    """The event's JSON up to the trigger's tail. UTF-8."""
    barrier: bool = False
    """It waits for everything before it in its trigger, and everything after waits for it (truncate)."""

    @property
    def keys(self) -> list[bytes]:
        """What it has to stay in order with: one key as a rule, two where the change altered it, or none."""
        return [key for key in (self.key, self.old_key) if key is not None]

    @property
    def position(self) -> Position:
        return Position(LSN(self.transaction.commit_lsn), self.ordinal)

    def __repr__(self) -> str:
        return f"Event({self.id.decode()}, {self.action} {self.table}, {len(self.body)} bytes)"
