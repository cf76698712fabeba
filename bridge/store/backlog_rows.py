"""
Parked changes as rows: into COPY's binary format, and back from a page. Pure.

Written by hand, for a backlog is written when there is more to do than can be done: per row it is one `pack` and a few
bytes joined. Source: manual, COPY, "Binary Format": a signature, then each row as `Int16` number of fields and each
field as `Int32` length (-1: null) and bytes, in network order; the end is an `Int16` of -1.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from bridge.change import Event, Transaction
from bridge.store.protocol import Parked

# Large enough that few calls are made, small enough that others have their turn on the loop in between.
BLOCK_BYTES: Final = 256 * 1024

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
_END: Final = struct.pack("!h", -1)
_FIELDS: Final = 11
_NULL: Final = struct.pack("!i", -1)
_LENGTH: Final = struct.Struct("!i")
_TIME: Final = struct.Struct("!iq")
# barrier as Byte1, attempts as Int32, each behind its length
_STATE: Final = struct.Struct("!i?ii")
_EPOCH_2000: Final = 946_684_800


def copy_data(trigger: str, parked: Sequence[Parked], outgoing: Callable[[str], str]) -> Iterator[bytes]:
    """
    What COPY is to be given, in blocks.

    Args:
        trigger: the rows' trigger.
        parked: the changes.
        outgoing: makes a text one that the database can hold.
    """
    first = struct.pack("!h", _FIELDS) + _field(trigger.encode())
    names: dict[tuple[str, str], bytes] = {}
    block: list[bytes] = [_SIGNATURE]
    size = 0
    for each in parked:
        event = each.event
        what = (event.table, event.action)
        name = names.get(what)
        if name is None:
            name = names[what] = _field(outgoing(event.table).encode()) + _field(event.action.encode())
        body = event.body
        block += (
            first,
            _field(event.id),
            _time(event.transaction.committed_at),
            name,
            _NULL if event.key is None else _field(event.key),
            _NULL if event.old_key is None else _field(event.old_key),
            _STATE.pack(1, event.barrier, 4, each.attempts),
            _time(each.first_failed_at) if each.attempts else _NULL,
            _LENGTH.pack(len(body)),
            body,
        )
        size += len(body)
        if size >= BLOCK_BYTES:
            yield b"".join(block)
            block.clear()
            size = 0
    block.append(_END)
    yield b"".join(block)


def read_rows(rows: Sequence[Sequence[Any]], incoming: Callable[[str], str]) -> list[Parked]:
    """The changes of a page's rows; those of one transaction share it, as they did when they were received."""
    found: list[Parked] = []
    transaction = Transaction(0, 0, 0.0, 0)
    for event_id, committed_at, table, action, key, old_key, barrier, attempts, first_failed_at, body in rows:
        commit_lsn, ordinal = int(event_id[:16], 16), int(event_id[17:])
        if commit_lsn != transaction.commit_lsn:
            transaction = Transaction(commit_lsn, commit_lsn, committed_at, 0)
        event = Event(
            event_id.encode("ascii"), transaction, ordinal, key, old_key, incoming(table), action, body, barrier
        )
        found.append(Parked(event, attempts, first_failed_at))
    return found


def _field(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _time(seconds: float) -> bytes:
    """`timestamptz`: microseconds since 2000, from seconds since 1970."""
    return _TIME.pack(8, round((seconds - _EPOCH_2000) * 1_000_000))
