"""Bounds-checked reads over one message. Every read names what it wanted when the bytes run out."""

from __future__ import annotations

import struct

from bridge.errors import MalformedMessage
from bridge.lsn import LSN

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_U32 = struct.Struct(">I")
_I64 = struct.Struct(">q")
_U64 = struct.Struct(">Q")


class Cursor:
    """
    Reads one message from front to back, in network byte order.

    Attributes:
        offset: of the next byte, counted from the message's tag byte.

    Every method raises `MalformedMessage` with tag, offset and LSN where the bytes end early.
    """

    __slots__ = ("_data", "_position", "_tag", "offset")

    def __init__(self, data: bytes, *, tag: int | None = None, position: LSN | None = None) -> None:
        self._data = data
        self._tag = tag
        self._position = position
        self.offset = 0

    def malformed(self, what: str) -> MalformedMessage:
        """An error that says where this cursor stands."""
        return MalformedMessage(what, tag=self._tag, offset=self.offset, position=self._position)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count < 0:
            raise self.malformed(f"the length {count} is negative")
        end = self.offset + count
        if end > len(self._data):
            raise self.malformed(f"wanted {count} bytes, {len(self._data) - self.offset} are left")
        value = self._data[self.offset : end]
        self.offset = end
        return value

    def u8(self) -> int:
        return self.take(1)[0]

    def i16(self) -> int:
        value: int = _I16.unpack(self.take(2))[0]
        return value

    def i32(self) -> int:
        value: int = _I32.unpack(self.take(4))[0]
        return value

    def u32(self) -> int:
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def i64(self) -> int:
        value: int = _I64.unpack(self.take(8))[0]
        return value

    def lsn(self) -> LSN:
        return LSN(_U64.unpack(self.take(8))[0])

    def cstring(self) -> str:
        """
        A name: bytes up to a NUL.

        Names of an SQL_ASCII database need not be UTF-8; such a name is read as Latin-1, so that none stops the stream.
        """
        end = self._data.find(b"\0", self.offset)
        if end < 0:
            raise self.malformed("a string has no end")
        raw = self.take(end - self.offset)
        self.offset += 1
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def finished(self) -> None:
        """Nothing may be left."""
        if self.offset != len(self._data):
            raise self.malformed(f"{len(self._data) - self.offset} bytes are left over")
