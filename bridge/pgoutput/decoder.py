"""
pgoutput bytes to messages: one short reader per tag, in the manual's order.

This is the readable way, taken by every message that is not a row, and by a row whenever the compiled way
(`compiled.py`) gave up on it: then the error comes from here, exact.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bridge.change import UNCHANGED, Unchanged
from bridge.errors import UnexpectedMessage
from bridge.lsn import LSN
from bridge.pgoutput.cursor import Cursor
from bridge.pgoutput.messages import (
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    RelationMessage,
    Truncate,
    TupleData,
    TypeMessage,
    Update,
)

# Known to newer protocol versions or to options that we do not ask for.
_NOT_ASKED_FOR = {
    ord("S"): "streaming",
    ord("E"): "streaming",
    ord("c"): "streaming",
    ord("A"): "streaming",
    ord("b"): "two_phase",
    ord("P"): "two_phase",
    ord("K"): "two_phase",
    ord("r"): "two_phase",
    ord("p"): "streaming and two_phase",
}


def decode(data: bytes, position: LSN | None = None) -> Message:
    """
    Read one message, all of it.

    Args:
        data: one pgoutput message, beginning with its tag.
        position: named in errors; the frame's start LSN.

    Raises:
        MalformedMessage: the bytes end early, or are left over, or hold a kind that the manual does not know.
        UnexpectedMessage: the tag is unknown, or belongs to an option that we do not ask for.
    """
    if not data:
        raise Cursor(data, position=position).malformed("an empty message")
    tag = data[0]
    reader = _READERS.get(tag)
    if reader is None:
        option = _NOT_ASKED_FOR.get(tag)
        what = f"a message of the option {option}, which is off" if option else "an unknown kind of message"
        raise UnexpectedMessage(what, tag=tag, offset=0, position=position)
    cursor = Cursor(data, tag=tag, position=position)
    cursor.take(1)
    message = reader(cursor)
    cursor.finished()
    return message


def _begin(cursor: Cursor) -> Begin:
    # Byte1 'B'  Int64 final LSN  Int64 commit time  Int32 xid
    return Begin(cursor.lsn(), cursor.i64(), cursor.u32())


def _commit(cursor: Cursor) -> Commit:
    # Byte1 'C'  Int8 flags  Int64 commit LSN  Int64 end LSN  Int64 commit time
    flags = cursor.u8()
    if flags:
        # As in logicalrep_read_commit: a flag that we do not know may change what a commit means.
        raise cursor.malformed(f"unknown flags {flags} in a Commit")
    return Commit(flags, cursor.lsn(), cursor.lsn(), cursor.i64())


def _origin(cursor: Cursor) -> Origin:
    # Byte1 'O'  Int64 commit LSN on the origin  String name
    return Origin(cursor.lsn(), cursor.cstring())


def _relation(cursor: Cursor) -> RelationMessage:
    # Byte1 'R'  Int32 OID  String namespace  String name  Int8 replica identity  Int16 number of columns, then each:
    #   Int8 flags  String name  Int32 type OID  Int32 type modifier
    oid = cursor.u32()
    namespace = sys.intern(cursor.cstring() or "pg_catalog")
    name = cursor.cstring()
    identity = chr(cursor.u8())
    if identity not in "dnfi":
        raise cursor.malformed("unknown replica identity")
    columns = tuple(_column(cursor) for _ in range(_count(cursor)))
    return RelationMessage(oid, namespace, name, identity, columns)


def _column(cursor: Cursor) -> Column:
    # Thousands of tables name their columns alike.
    return Column(cursor.u8(), sys.intern(cursor.cstring()), cursor.u32(), cursor.i32())


def _type(cursor: Cursor) -> TypeMessage:
    # Byte1 'Y'  Int32 OID  String namespace  String name
    return TypeMessage(cursor.u32(), cursor.cstring() or "pg_catalog", cursor.cstring())


def _insert(cursor: Cursor) -> Insert:
    # Byte1 'I'  Int32 relation OID  Byte1 'N'  TupleData
    oid = cursor.u32()
    _expect(cursor, "N")
    return Insert(oid, _tuple(cursor))


def _update(cursor: Cursor) -> Update:
    # Byte1 'U'  Int32 relation OID  [Byte1 'K' or 'O'  TupleData]  Byte1 'N'  TupleData
    oid = cursor.u32()
    kind = _expect(cursor, "KON")
    if kind == "N":
        return Update(oid, None, None, _tuple(cursor))
    before = _tuple(cursor)
    _expect(cursor, "N")
    after = _tuple(cursor)
    return Update(oid, before, None, after) if kind == "K" else Update(oid, None, before, after)


def _delete(cursor: Cursor) -> Delete:
    # Byte1 'D'  Int32 relation OID  Byte1 'K' or 'O'  TupleData
    oid = cursor.u32()
    kind = _expect(cursor, "KO")
    before = _tuple(cursor)
    return Delete(oid, before, None) if kind == "K" else Delete(oid, None, before)


def _truncate(cursor: Cursor) -> Truncate:
    # Byte1 'T'  Int32 number of relations  Int8 options  Int32 relation OID, each
    count = cursor.i32()
    if count < 0:
        raise cursor.malformed(f"{count} relations in a Truncate")
    options = cursor.u8()
    return Truncate(options, tuple(cursor.u32() for _ in range(count)))


def _message(cursor: Cursor) -> LogicalMessage:
    # Byte1 'M'  Int8 flags  Int64 LSN  String prefix  Int32 length  Byten content
    return LogicalMessage(cursor.u8(), cursor.lsn(), cursor.cstring(), cursor.take(cursor.i32()))


def _tuple(cursor: Cursor) -> TupleData:
    # Int16 number of columns, then each: Byte1 'n' | 'u' | 't'  Int32 length  Byten text
    return tuple(_value(cursor) for _ in range(_count(cursor)))


def _value(cursor: Cursor) -> bytes | Unchanged | None:
    kind = _expect(cursor, "tnu")
    if kind == "t":
        return cursor.take(cursor.i32())
    return None if kind == "n" else UNCHANGED


def _count(cursor: Cursor) -> int:
    count = cursor.i16()
    if count < 0:
        raise cursor.malformed(f"{count} columns")
    return count


def _expect(cursor: Cursor, kinds: str) -> str:
    kind = chr(cursor.take(1)[0])
    if kind not in kinds:
        cursor.offset -= 1
        raise cursor.malformed(f"wanted one of {', '.join(kinds)}, found another byte")
    return kind


_READERS: dict[int, Callable[[Cursor], Message]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("O"): _origin,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("M"): _message,
}
