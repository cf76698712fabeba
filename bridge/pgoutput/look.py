"""
Glances executed in Python: from a frame's bytes to the conjunctions that a row meets, or may meet.

`_rows.pyx` does the same in compiled code. What either reads, `program.py` draws.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, Final

from bridge.change import UNCHANGED, Unchanged
from bridge.pgoutput.glance import Bits, Glance, Look, Reading
from bridge.pgoutput.program import FIRST_COLUMN, ROW_KEY, NotHereError
from bridge.triggers.filter.matcher import ABSENT


def compile_glance(glance: Glance) -> Look:
    """The function for one kind of row."""
    questions = [
        (each, each.asked_by, each.convert or _READ[each.reading], each.answers, each.otherwise)
        for each in glance.questions
    ]

    def look(frame: bytes) -> Bits:
        if frame[ROW_KEY] != glance.key:
            raise NotHereError
        at, before = FIRST_COLUMN, None
        if glance.has_old_row:
            before, at = _columns(frame, at, glance.columns)
            if frame[at : at + 3] != b"N" + frame[31:33]:
                raise NotHereError
            at += 3
        row, at = _columns(frame, at, glance.columns)
        if at != len(frame):
            raise NotHereError
        if before is not None:
            if UNCHANGED in before:
                raise NotHereError
            row = [old if new is UNCHANGED else new for new, old in zip(row, before, strict=True)]
        elif not glance.takes_unchanged and UNCHANGED in row:
            raise NotHereError
        left = glance.everything
        for question, asked_by, read, answers, otherwise in questions:
            if not left & asked_by:
                continue
            value: Any = row[question.index]
            if question.of_changes:
                old = None if before is None else before[question.index]
                value = ABSENT if old == value else old
            if value is None or value is ABSENT or value is UNCHANGED:
                left &= answers[ABSENT if value is UNCHANGED else value]
                continue
            value = read(value)
            answer = answers.get(value, otherwise)
            for accepts, bits in question.predicates:
                if bits & left and accepts(value):
                    answer |= bits
            for table, bits in question.tables:
                if bits & left:
                    answer |= table(value)
            left &= answer
        return left

    return look


_size = struct.Struct(">I").unpack_from
_TEXT, _NULL, _UNCHANGED = b"tnu"
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_UNESCAPED = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7f]*")


def _read_digits(text: bytes) -> int:
    """An int8 as the server writes it. What else digits can be, JSON's readers take for a float or for no number."""
    if _INTEGER.fullmatch(text) and -(2**63) <= (value := int(text)) < 2**63:
        return value
    raise NotHereError


def _read_plain(text: bytes) -> str:
    if _UNESCAPED.fullmatch(text):
        return text.decode("ascii")
    raise NotHereError


_READ: Final[dict[Reading, Callable[[bytes], Any]]] = {
    Reading.TEXT: bytes.decode,
    Reading.PLAIN: _read_plain,
    Reading.DIGITS: _read_digits,
    Reading.TRUTH: {b"t": True, b"f": False}.__getitem__,
    Reading.PRESENCE: lambda _: True,
}


def _columns(frame: bytes, at: int, columns: int) -> tuple[list[bytes | Unchanged | None], int]:
    found: list[bytes | Unchanged | None] = []
    for _ in range(columns):
        kind = frame[at]
        if kind == _TEXT:
            start = at + 5
            at = start + _size(frame, at + 1)[0]
            found.append(frame[start:at])
        elif kind == _NULL:
            found.append(None)
            at += 1
        elif kind == _UNCHANGED:
            found.append(UNCHANGED)
            at += 1
        else:
            raise NotHereError
    return found, at
