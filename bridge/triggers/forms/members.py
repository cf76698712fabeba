"""
An event's JSON taken apart, its values unread.

msgspec does it, but for two kinds of document that PostgreSQL's json type lets in and a strict reader refuses: escapes
of lone surrogates, and nesting deeper than its stack goes. Those are cut along their braces by hand.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Final

import msgspec

Members = dict[str, msgspec.Raw]

NULL: Final = msgspec.Raw(b"null")
_UNAVAILABLE: Final = msgspec.json.Decoder(list[str])
_TEXT: Final = msgspec.json.Decoder(str | None)
_OBJECT: Final = msgspec.json.Decoder(Members | None)
_MICROSECONDS: Final = 1_000_000


class UnfitEvent(ValueError):
    """What a transform made of an event can't be put into this form; the message quotes nothing of it."""


class Parts(msgspec.Struct):
    """An event; what a transform has taken away is empty."""

    action: str = ""
    record: Members | None = None
    changes: Members | None = None
    metadata: Members = {}

    @property
    def unavailable(self) -> list[str]:
        raw = self.metadata.get("unavailable")
        return [] if raw is None else _UNAVAILABLE.decode(raw)

    @property
    def keys(self) -> Members:
        return self.member("keys") or {}

    @property
    def old_keys(self) -> Members | None:
        return self.member("old_keys")

    @property
    def before(self) -> Members | None:
        """The row before an update as far as it was sent: all of it, or the key that was another."""
        if self.changes is not None and self.record is not None:
            return self.record | self.changes
        return self.old_keys

    @property
    def committed_us(self) -> int | None:
        """Microseconds since 1970; None for messages outside of transactions."""
        text = self.text("commit_timestamp")
        if text is None:
            return None
        moment = datetime.fromisoformat(text)
        return int(moment.timestamp()) * _MICROSECONDS + moment.microsecond

    def raw(self, name: str) -> msgspec.Raw:
        """A member of the metadata as it is."""
        return self.metadata.get(name, NULL)

    def text(self, name: str) -> str | None:
        """A member of the metadata that is text or null."""
        text: str | None = _TEXT.decode(self.raw(name))
        return text

    def member(self, name: str) -> Members | None:
        """A member of the metadata that is an object or null."""
        members: Members | None = _OBJECT.decode(self.raw(name))
        return members


_PARTS: Final = msgspec.json.Decoder(Parts)


def take_apart(document: bytes) -> Parts:
    """
    Raises:
        UnfitEvent: it is not built like an event.
    """
    try:
        return _PARTS.decode(document)
    except (msgspec.MsgspecError, RecursionError):
        return _take_apart_plainly(document)


_STRING: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_OPENING: Final = re.compile(rb"\s*\{\s*(\})?")
_NAME: Final = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*", re.DOTALL)
_SCALAR: Final = re.compile(_STRING + rb"|[-+.0-9A-Za-z]+", re.DOTALL)
_STRING_OR_BRACKET: Final = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_FOLLOWING: Final = re.compile(rb"\s*([,}])")


def members(text: bytes) -> Members:
    """
    The members of a JSON object, unread.

    Raises:
        UnfitEvent: it is no object.
    """
    try:
        found: Members | None = _OBJECT.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return _as_raw(_members(text))
    if found is None:
        raise _unfit()
    return found


def _take_apart_plainly(document: bytes) -> Parts:
    found = _members(document)
    try:
        action = json.loads(found.get("action", '""'))
    except ValueError as error:
        raise _unfit() from error
    if not isinstance(action, str):
        raise _unfit()
    return Parts(
        action,
        _members_or_none(found.get("record")),
        _members_or_none(found.get("changes")),
        _as_raw(_members(found["metadata"])) if "metadata" in found else {},
    )


def _members_or_none(text: bytes | None) -> Members | None:
    return None if text is None or text == b"null" else _as_raw(_members(text))


def _as_raw(members: dict[str, bytes]) -> Members:
    return {name: msgspec.Raw(text) for name, text in members.items()}


def _members(text: bytes) -> dict[str, bytes]:
    """The members of what is JSON already, and should be an object."""
    found: dict[str, bytes] = {}
    following = _OPENING.match(text)
    while following is not None:
        if following[1] == b"}":
            return found
        name = _NAME.match(text, following.end())
        if name is None:
            break
        end = _value_end(text, name.end())
        found[str(json.loads(name[1]))] = text[name.end() : end]
        following = _FOLLOWING.match(text, end)
    raise _unfit()


def _value_end(text: bytes, start: int) -> int:
    if text[start : start + 1] not in {b"{", b"["}:
        scalar = _SCALAR.match(text, start)
        if scalar is None:
            raise _unfit()
        return scalar.end()
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text, start):
        if token[0] in {b"{", b"["}:
            depth += 1
        elif token[0] in {b"}", b"]"}:
            depth -= 1
            if not depth:
                return token.end()
    raise _unfit()


def _unfit() -> UnfitEvent:
    return UnfitEvent("it is not built like an event")


def scalar_text(raw: msgspec.Raw) -> str:
    """A scalar as text: a string's characters, anything else as it is written."""
    text = bytes(raw)
    return str(msgspec.json.decode(text)) if text.startswith(b'"') else text.decode()


def dump(value: Any) -> bytes:
    """JSON; `msgspec.Raw` is put in as it is."""
    return msgspec.json.encode(value)
