"""
Logical messages (`pg_logical_emit_message`) as events of action `message`.

    "record": {"prefix": …, "content": …, "encoding": "json" | "text" | "base64"}

Content that is a JSON object or array is embedded as it was written; other UTF-8 is a string, other bytes are base64.
A lone number or word stays a string even where it is JSON too, so that the type of `content` does not hang on what
somebody happened to write. `metadata` names no table, and ends with `"message": {"lsn": …, "transactional": …}`.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Final

import orjson

from bridge.change import Event, Transaction
from bridge.pgoutput.messages import LogicalMessage
from bridge.pgoutput.plan import Stamp
from bridge.triggers.shape import Shape

_MEMBERS: Final = frozenset({"prefix", "content", "encoding"})


def stamp_outside(transaction: Transaction) -> Stamp:
    """What stands in the event of a message outside of transactions: it has neither commit time nor xid."""
    return (
        transaction,
        b"%016X-" % transaction.commit_lsn,
        b'%d,"commit_idx":' % transaction.commit_lsn,
        b',"commit_timestamp":null,"transaction_id":null,"keys":',
    )


def encode_message(message: LogicalMessage, database: str, shape: Shape, ordinal: int, stamp: Stamp) -> Event:
    """One message as an event; messages of one prefix are in order, unless the shape wants none."""
    transaction, id_prefix, lsn, times = stamp
    event_id = id_prefix + b"%010d" % ordinal
    content, encoding = _content(message.content)
    body = b"".join(
        [
            b'{"id":"%b","action":"message","record":{%b"prefix":%b,"content":'
            % (event_id, shape.static_members(but=_MEMBERS), orjson.dumps(message.prefix)),
            content,
            b',"encoding":"%b"},"changes":null,' % encoding,
            b'"metadata":{"source":"pgbridge","database":%b,"table_schema":null,"table_name":null,'
            b'"schema_version":null,"commit_lsn":' % orjson.dumps(database),
            lsn,
            b"%d" % ordinal,
            times,
            b'{},"old_keys":null,"unavailable":[],"message":{"lsn":%d,"transactional":%b},'
            % (message.lsn, b"true" if message.transactional else b"false"),
        ]
    )
    # No table's name begins with NUL, so no row has this key.
    key = None if shape.order_by == "none" else b"\0" + message.prefix.encode()
    return Event(event_id, transaction, ordinal, key, None, message.prefix, "message", body)


def _content(content: bytes) -> tuple[bytes, bytes]:
    if content.lstrip(b" \t\r\n")[:1] in {b"{", b"["}:
        try:
            orjson.loads(content)
        except orjson.JSONDecodeError:
            pass  # text, then, or not even that
        else:
            return content, b"json"
    try:
        return orjson.dumps(content.decode()), b"text"
    except UnicodeDecodeError:
        return b'"%b"' % b2a_base64(content, newline=False), b"base64"
