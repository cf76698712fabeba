"""
What a transaction says about itself: who did it, for which request.

    SELECT pg_logical_emit_message(true, 'pgbridge.context', '{"user": 7, "trace_id": "4bf92f35…"}');

The object stands in `metadata.context` of every later change of that transaction; changes without one have no such
member. Several messages add up: a member that comes again is replaced. Values are embedded as they were written.

What can't be used (no JSON object, too large, outside of a transaction) is left out and counted, and never stops the
stream: whoever may write a row may write such a message. A savepoint that is rolled back takes its messages along.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # missing in typeshed
from typing import Final

import orjson

from bridge.pgoutput.plan import Stamp

PREFIX: Final = "pgbridge.context"

MOST_BYTES: Final = 16_384
"""Of one transaction's context as a whole; it is repeated in each of its events. Twice what W3C's baggage may have."""

Members = dict[str, bytes]
"""Name to JSON value, as it was written."""


class ContextRefusedError(ValueError):
    """The message can't be used; says why, without its content."""


_SPACE: Final = re.compile(r"[ \t\n\r]*")
# Numbers are cut out, not read.
_VALUES: Final = json.JSONDecoder(parse_float=str, parse_int=str)


def parse(content: bytes) -> Members:
    """
    Take a JSON object apart, one level deep.

    Raises:
        ContextRefusedError: it is none, or has more than `MOST_BYTES`.
    """
    if len(content) > MOST_BYTES:
        raise ContextRefusedError(f"its {len(content)} bytes are more than {MOST_BYTES}")
    try:
        # Strict where the standard library is not: what some parsers refuse (NaN, 1e400, a lone surrogate) would cost
        # every event of the transaction.
        whole = orjson.loads(content)
        return _members(content.decode()) if isinstance(whole, dict) else _refuse()
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise ContextRefusedError("it is not JSON") from error


def _refuse() -> Members:
    raise ContextRefusedError("it is JSON, but no object")


def _members(text: str) -> Members:
    """Of a text that is known to be a JSON object."""

    def skip(at: int) -> int:
        found = _SPACE.match(text, at)
        return at if found is None else found.end()

    members: Members = {}
    at = skip(skip(0) + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1, True)  # noqa: FBT003 - json's own order: strict
        start = skip(skip(at) + 1)
        at = _VALUES.raw_decode(text, start)[1]
        members.pop(name, None)
        members[name] = text[start:at].encode()
        at = skip(at)
        if text[at] == ",":
            at = skip(at + 1)
    return members


def write(members: Members) -> bytes:
    """
    One object of these members.

    Raises:
        ContextRefusedError: it would have more than `MOST_BYTES`.
    """
    written = b"{%b}" % b",".join([orjson.dumps(name) + b":" + value for name, value in members.items()])
    if len(written) > MOST_BYTES:
        raise ContextRefusedError(f"with those before it, it has {len(written)} bytes, more than {MOST_BYTES}")
    return written


_KEYS: Final = b'"keys":'


def with_context(stamp: Stamp, context: bytes) -> Stamp:
    """A transaction's stamp (one without context) with its context in it."""
    transaction, event_id, lsn, times = stamp
    return transaction, event_id, lsn, b'%b"context":%b,%b' % (times.removesuffix(_KEYS), context, _KEYS)
