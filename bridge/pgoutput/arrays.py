r"""
PostgreSQL's array text to JSON arrays: any dimension, nulls, quoted elements.

Manual, "Array Input and Output Syntax"; `array_out` in `arrayfuncs.c` writes it:

    [2:3][0:1]={{1,NULL},{"a \"quoted\" one",x}}

Lower bounds other than 1 come first, up to the equals sign; JSON has no place for them, so they are dropped. Elements
are quoted when they are empty, spell NULL, or hold a brace, quote, backslash, delimiter or white space; within quotes
a backslash takes the next character as it is. The delimiter is the element type's (`box` has a semicolon).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from bridge.errors import MalformedMessage

_BOUNDS = re.compile(rb"(?:\[[+-]?[0-9]+:[+-]?[0-9]+\])+=")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


@cache
def _token(delimiter: bytes) -> re.Pattern[bytes]:
    """A quoted element (group 1), a brace or delimiter (group 2), or a bare element (group 3)."""
    escaped = re.escape(delimiter)
    return re.compile(
        rb'"([^"\\]*(?:\\.[^"\\]*)*)"|([{}' + escaped + rb"])|([^\"\\{}" + escaped + rb"]+)",
        re.DOTALL,
    )


def encode_array(text: bytes, element: Callable[[bytes], bytes], delimiter: bytes = b",") -> bytes:
    """
    One array as JSON; `element` encodes what is not null.

    Raises:
        MalformedMessage: not an array's text.
    """
    bounds = _BOUNDS.match(text)
    at = bounds.end() if bounds else 0
    if text[at : at + 1] != b"{":
        raise _malformed()
    token = _token(delimiter)
    pieces: list[bytes] = []
    depth = 0
    wants_item = True  # after an opening brace or a delimiter
    may_close = False  # directly after an opening brace: an empty array
    end = len(text)
    while at < end:
        found = token.match(text, at)
        if found is None:
            raise _malformed()
        at = found.end()
        mark = found[2]
        if mark is None:
            if not wants_item or not depth:
                raise _malformed()
            quoted = found[1]
            if quoted is not None:
                pieces.append(element(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted))
            elif found[3] == b"NULL":
                pieces.append(b"null")
            else:
                pieces.append(element(found[3]))
            wants_item = may_close = False
        elif mark == b"{":
            if not wants_item:
                raise _malformed()
            depth += 1
            pieces.append(b"[")
            may_close = True
        elif mark == b"}":
            if wants_item and not may_close:
                raise _malformed()
            depth -= 1
            pieces.append(b"]")
            wants_item = may_close = False
            if not depth:
                break
        else:
            if wants_item or not depth:
                raise _malformed()
            pieces.append(b",")
            wants_item, may_close = True, False
    if depth or at != end:
        raise _malformed()
    return b"".join(pieces)


def encode_vector(text: bytes, element: Callable[[bytes], bytes]) -> bytes:
    """`int2vector` and `oidvector`, whose text is elements with spaces between, as a JSON array."""
    return b"[" + b",".join([element(item) for item in text.split()]) + b"]"


def _malformed() -> MalformedMessage:
    return MalformedMessage("a value of an array type is not an array's text")
