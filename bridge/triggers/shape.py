"""What makes two triggers' events the same bytes. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Literal

import orjson

OrderBy = Literal["primary_key", "table", "none"] | tuple[str, ...]

REDACTED = b'"***"'


@dataclass(frozen=True, slots=True)
class Mask:
    """
    What stands in a value's place. Null stays null: that there is no value is not covered.

    Attributes:
        key: hash with HMAC-SHA256 under this key, so that equal values stay equal and nobody without the key can try
            values out.
        length: keep that many characters of the beginning.
    Neither: redact, to a text that is the same for every value.
    """

    key: bytes | None = field(default=None, repr=False)
    length: int | None = None

    def encode(self, text: bytes) -> bytes:
        """
        PostgreSQL's text of a value to JSON.

        Raises:
            UnicodeDecodeError: not UTF-8, as the encoders of all types do.
        """
        characters = text.decode()
        if self.key is not None:
            return b'"%b"' % hmac.new(self.key, text, hashlib.sha256).hexdigest().encode("ascii")
        return REDACTED if self.length is None else orjson.dumps(characters[: self.length])


@dataclass(frozen=True, slots=True)
class Shape:
    """
    How rows become events: triggers of one shape share each event's bytes, so a row is encoded once for all of them.

    Column names are exact, and those of the table. `include` None means every column. `order_by` names what must stay
    in order: the replica identity's key, the whole table, nothing, or the listed columns. A column whose name another
    one takes, by `rename` or `static`, is left out.
    """

    include: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    order_by: OrderBy = "primary_key"
    rename: tuple[tuple[str, str], ...] = ()
    """Name in the table, name in the event."""
    masks: tuple[tuple[str, Mask], ...] = ()
    """By name in the table; also in `changes`, `keys` and `old_keys`."""
    static: tuple[tuple[str, bytes], ...] = ()
    """Name and JSON of members that are added to each record."""

    def name_of(self, column: str) -> str:
        """What a column is called in events."""
        return dict(self.rename).get(column, column)

    def shows(self, column: str) -> bool:
        """Whether a column may stand anywhere in an event."""
        if column in self.exclude:
            return False
        renamed = dict(self.rename)
        taken = {name for name, _ in self.static} | {new for old, new in self.rename if old != column}
        return renamed.get(column, column) not in taken

    def mask_of(self, column: str) -> Mask | None:
        """What covers a column's values."""
        return dict(self.masks).get(column)

    def static_members(self, *, but: frozenset[str] = frozenset()) -> bytes:
        """The static members as they stand first in a record, each with a comma behind it."""
        return b"".join([b"%b:%b," % (orjson.dumps(name), value) for name, value in self.static if name not in but])
