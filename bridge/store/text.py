"""
What PostgreSQL can keep of a text. Pure.

Names and error texts come from anywhere; `text` columns can hold neither NUL nor half a surrogate pair, and in a
database whose encoding is not UTF-8 most of Unicode is missing. A store that refuses a dead letter for that would stop
the trigger, so the text gives way. (The event itself is bytes, in a `bytea`, and never does.)
"""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD, the replacement character, for what no `text` column takes."""
    return _UNSTORABLE.sub("\ufffd", text)


def escape(text: str) -> str:
    r"""ASCII for a database without all characters: `\xe9`, `\u20ac`, a backslash doubled, so that it reads back."""
    return text.encode("unicode_escape").decode("ascii")


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    return text.encode("ascii").decode("unicode_escape")
