"""What a walsender sends, written by hand: copy-both frames and pgoutput messages for tests without a server."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from bridge.change import Unchanged

Value = str | bytes | Unchanged | None
"""A column on the wire: text, null, or unchanged TOAST."""

COMMITTED_AT = 848_659_521_123_456
"""2026-11-22T10:45:21.123456Z in microseconds since 2000-01-01."""


def xlog_data(message: bytes, *, start: int = 0, wal_end: int = 0, clock: int = 0) -> bytes:
    return b"w" + struct.pack(">QQq", start, wal_end, clock) + message


def keepalive(wal_end: int, *, clock: int = 0, reply: bool = False) -> bytes:
    return struct.pack(">cQqB", b"k", wal_end, clock, reply)


def begin(final_lsn: int, *, committed_at: int = COMMITTED_AT, xid: int = 743) -> bytes:
    return struct.pack(">cQqI", b"B", final_lsn, committed_at, xid)


def commit(commit_lsn: int, end_lsn: int | None = None, *, committed_at: int = COMMITTED_AT, flags: int = 0) -> bytes:
    end = commit_lsn + 0x30 if end_lsn is None else end_lsn
    return struct.pack(">cBQQq", b"C", flags, commit_lsn, end, committed_at)


def origin(lsn: int, name: str) -> bytes:
    return struct.pack(">cQ", b"O", lsn) + _string(name)


def relation(
    oid: int, namespace: str, name: str, columns: Sequence[tuple[str, int, bool]], *, identity: str = "d"
) -> bytes:
    """Columns are (name, type OID, part of the replica identity)."""
    described = [
        struct.pack(">B", key) + _string(column) + struct.pack(">Ii", type_oid, -1) for column, type_oid, key in columns
    ]
    head = struct.pack(">cI", b"R", oid) + _string(namespace) + _string(name) + identity.encode()
    return head + struct.pack(">h", len(described)) + b"".join(described)


def type_(oid: int, namespace: str, name: str) -> bytes:
    return struct.pack(">cI", b"Y", oid) + _string(namespace) + _string(name)


def insert(oid: int, new: Iterable[Value]) -> bytes:
    return struct.pack(">cI", b"I", oid) + _tuple("N", new)


def update(
    oid: int, new: Iterable[Value], *, key: Iterable[Value] | None = None, old: Iterable[Value] | None = None
) -> bytes:
    before = b"" if key is None else _tuple("K", key)
    before += b"" if old is None else _tuple("O", old)
    return struct.pack(">cI", b"U", oid) + before + _tuple("N", new)


def delete(oid: int, *, key: Iterable[Value] | None = None, old: Iterable[Value] | None = None) -> bytes:
    before = b"" if key is None else _tuple("K", key)
    before += b"" if old is None else _tuple("O", old)
    return struct.pack(">cI", b"D", oid) + before


def truncate(*oids: int, cascade: bool = False, restart_identity: bool = False) -> bytes:
    options = cascade | restart_identity << 1
    return struct.pack(f">ciB{len(oids)}I", b"T", len(oids), options, *oids)


def logical_message(lsn: int, prefix: str, content: bytes, *, transactional: bool) -> bytes:
    head = struct.pack(">cBQ", b"M", transactional, lsn)
    return head + _string(prefix) + struct.pack(">i", len(content)) + content


def _string(text: str) -> bytes:
    return text.encode() + b"\0"


def _tuple(kind: str, values: Iterable[Value]) -> bytes:
    written = [_value(value) for value in values]
    return kind.encode() + struct.pack(">h", len(written)) + b"".join(written)


def _value(value: Value) -> bytes:
    if value is None:
        return b"n"
    if isinstance(value, Unchanged):
        return b"u"
    text = value.encode() if isinstance(value, str) else value
    return b"t" + struct.pack(">i", len(text)) + text
