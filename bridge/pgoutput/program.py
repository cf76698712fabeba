"""
The rows of one kind, taken apart before the first of them comes: what a plan wants of each column, and what is fixed.

A program is executed in two ways that give the same events: by Python code generated from it (`compiled.py`), and by
an extension module (`_rows.pyx`), where that was built. What both do stands here once; they differ in speed alone.

What they read, counted from the frame's first byte (`frames.py` has the first 25):

    25 Byte1 tag   26 Int32 relation OID   30 Byte1 'N', 'K' or 'O'   31 Int16 number of columns   33 columns … each
    column: Byte1 'n' | 'u' | 't' Int32 length, text      after an 'O' tuple of an Update: Byte1 'N' Int16 columns …

Whoever executes one gives an event, or gives up on the row (`GAVE_UP`) and has changed nothing; the plain way
(`Plan.encode`) then makes the event or the exact error. That is how rare rows are handled: text that is not UTF-8, a
key column sent as unchanged, bytes that do not parse.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bridge.change import Event
from bridge.errors import ProtocolError
from bridge.pgoutput.frames import XLOG_DATA_HEADER_BYTES
from bridge.pgoutput.plan import ColumnPlan, Plan, Stamp

RowEncoder = Callable[[bytes, int, Stamp], Event]
"""(frame, ordinal, stamp) to event. Raises any of `GAVE_UP`, having changed nothing."""

RowKey = bytes

ROW_KEY: Final = slice(XLOG_DATA_HEADER_BYTES, XLOG_DATA_HEADER_BYTES + 8)
"""Tag, relation OID, tuple kind and number of columns of a row message in an XLogData frame."""

FIRST_COLUMN: Final = ROW_KEY.stop
"""Where a row's first column begins."""

KINDS: Final = (b"IN", b"UN", b"UO", b"DK", b"DO")
"""Tag and first tuple's kind of what has a program. `UK`, a key change, is rare and goes the plain way."""

OPERATIONS: Final = {b"I": "insert", b"U": "update", b"D": "delete"}


class NotHereError(Exception):
    """This row is left to the plain way."""


GAVE_UP: Final = (NotHereError, IndexError, KeyError, ValueError, struct.error, ProtocolError)
"""What is raised for bytes that can't or won't be read (UnicodeDecodeError is a ValueError)."""


def row_key(kind: bytes, relation_oid: int, columns: int) -> RowKey:
    """What `ROW_KEY` cuts out of a frame with such a row."""
    return struct.pack(">cIcH", kind[:1], relation_oid, kind[1:], columns)


def compilable(plan: Plan, kind: bytes) -> bool:
    """Whether this kind of message has a program; the plain way alone makes barriers."""
    if plan.insert_only and kind[:1] != b"I":
        return False
    if kind == b"DK" and not all(plan.columns[i].flagged for i in (*plan.identity, *plan.ordering)):
        return False
    # Static members bring their commas with them, so another member has to follow.
    return not plan.shape.static or any(step.in_record and not step.may_be_absent for step in Program(plan, kind).steps)


@dataclass(frozen=True, slots=True)
class Step:
    """What one column of a row is good for."""

    column: ColumnPlan
    sent: bool
    """A key-only delete sends just the identity's columns."""
    in_record: bool
    """Sent, and shown in `record`."""
    in_keys: bool
    orders: bool
    """Part of the ordering key."""
    may_be_absent: bool
    """It may be an unchanged TOASTed value whose old one was not sent (a key like that goes the plain way)."""

    @property
    def wanted(self) -> bool:
        """Its value is read at all."""
        return self.sent and (self.in_record or self.in_keys or self.orders)


class Program:
    """
    Attributes:
        plan: what is executed.
        kind: of `KINDS`.
        action: as it stands in the event.
        steps: one for each column, in the order of the wire.
        before_record: JSON from after the id's value up to the record's first member.
        unavailable: JSON names of the columns that such a row never brings, with commas between.
    """

    def __init__(self, plan: Plan, kind: bytes) -> None:
        self.plan = plan
        self.kind = kind
        self.action = OPERATIONS[kind[:1]]
        self.steps = tuple(self._step(column) for column in plan.columns)
        self.before_record = b'","action":"%b","record":{%b' % (self.action.encode(), plan.shape.static_members())
        self.unavailable = b",".join(
            [step.column.json_name for step in self.steps if step.column.in_record and not step.sent]
        )

    @property
    def key(self) -> RowKey:
        """What `ROW_KEY` cuts out of each frame that this program is for."""
        return row_key(self.kind, self.plan.relation.oid, len(self.steps))

    @property
    def has_old_row(self) -> bool:
        """An update under FULL: two tuples, `changes` and `old_keys`."""
        return self.kind == b"UO"

    @property
    def ordering(self) -> tuple[Step, ...]:
        """The columns that make the ordering key, in its order; empty: `Plan.table_key` is the key."""
        return tuple(self.steps[index] for index in self.plan.ordering)

    def _step(self, column: ColumnPlan) -> Step:
        sent = self.kind != b"DK" or column.flagged
        orders = column.index in self.plan.ordering
        fixed = column.value_type.fixed_length or column.in_keys or orders
        return Step(
            column=column,
            sent=sent,
            in_record=sent and column.in_record,
            in_keys=column.in_keys,
            orders=orders,
            may_be_absent=self.kind == b"UN" and not fixed,
        )
