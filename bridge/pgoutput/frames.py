"""
The copy-both envelope: what walsender and client wrap around everything they say.

Manual, "Streaming Replication Protocol":

    XLogData           Byte1 'w'  Int64 start LSN  Int64 end of WAL on the server  Int64 server clock  Byten data
    keepalive          Byte1 'k'  Int64 end of WAL on the server  Int64 server clock  Byte1 reply wanted
    status update      Byte1 'r'  Int64 written  Int64 flushed  Int64 applied  Int64 client clock  Byte1 reply wanted

Clocks count microseconds since 2000-01-01 UTC.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from bridge.errors import MalformedMessage, UnexpectedMessage
from bridge.lsn import LSN

XLOG_DATA: Final = ord("w")
KEEPALIVE: Final = ord("k")

XLOG_DATA_HEADER_BYTES: Final = 25
"""The pgoutput message starts here in an XLogData frame."""

POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_SECONDS: Final = 946_684_800  # 2000-01-01 in seconds since 1970

_XLOG_DATA = struct.Struct(">BQQq")
_KEEPALIVE = struct.Struct(">BQqB")
_STATUS_UPDATE = struct.Struct(">cQQQqB")


@dataclass(frozen=True, slots=True)
class XLogData:
    """One message of the output plugin."""

    start: LSN
    """Where the change stands in the WAL; 0 for messages that belong to none (Relation, Type)."""
    wal_end: LSN
    server_clock: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Sent when idle, and when the server wants to hear from us."""

    wal_end: LSN
    """Everything before it that concerns us was sent already."""
    server_clock: int
    reply_requested: bool


def decode_frame(frame: memoryview | bytes) -> XLogData | Keepalive:
    """
    Read one payload of the copy-both stream.

    Raises:
        MalformedMessage: too short, or a keepalive of another length than the manual's.
        UnexpectedMessage: neither XLogData nor keepalive.
    """
    data = bytes(frame)
    if not data:
        raise MalformedMessage("an empty frame", offset=0)
    tag = data[0]
    if tag == XLOG_DATA:
        if len(data) <= XLOG_DATA_HEADER_BYTES:
            raise MalformedMessage(
                f"an XLogData frame of {len(data)} bytes carries no message", tag=tag, offset=len(data)
            )
        _, start, wal_end, clock = _XLOG_DATA.unpack_from(data)
        return XLogData(LSN(start), LSN(wal_end), clock, data[XLOG_DATA_HEADER_BYTES:])
    if tag == KEEPALIVE:
        if len(data) != _KEEPALIVE.size:
            raise MalformedMessage(
                f"a keepalive has {_KEEPALIVE.size} bytes, not {len(data)}",
                tag=tag,
                offset=min(len(data), _KEEPALIVE.size),
            )
        _, wal_end, clock, reply = _KEEPALIVE.unpack(data)
        return Keepalive(LSN(wal_end), clock, bool(reply))
    raise UnexpectedMessage("neither XLogData nor keepalive", tag=tag, offset=0)


def encode_status_update(
    *, written: int, flushed: int, applied: int, client_clock: int, reply_requested: bool = False
) -> bytes:
    """
    Write a standby status update. Only `flushed` moves a logical slot (`LogicalConfirmReceivedLocation`).

    Args:
        written: end of what was received.
        flushed: end of what is settled and saved.
        applied: as `flushed`; the server shows it in `pg_stat_replication`.
        client_clock: microseconds since 2000-01-01 UTC.
        reply_requested: asks the server for a keepalive at once.
    """
    return _STATUS_UPDATE.pack(b"r", written, flushed, applied, client_clock, reply_requested)


def to_postgres_clock(seconds_since_1970: float) -> int:
    """Seconds since 1970 as the protocol's microseconds since 2000."""
    return round((seconds_since_1970 - _EPOCH_SECONDS) * 1_000_000)


def to_unix_seconds(postgres_clock: int) -> float:
    """The protocol's microseconds since 2000 as seconds since 1970."""
    return postgres_clock / 1_000_000 + _EPOCH_SECONDS


def clock_text(postgres_clock: int) -> str:
    """
    ISO 8601 in UTC with microseconds and `Z`.

    Raises:
        OverflowError: outside of the years 1 to 9999, where no commit can be.
    """
    seconds, microseconds = divmod(postgres_clock, 1_000_000)
    return f"{_second_text(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=64)
def _second_text(postgres_seconds: int) -> str:
    """Many transactions commit in one second."""
    return (POSTGRES_EPOCH + timedelta(seconds=postgres_seconds)).replace(tzinfo=None).isoformat()
