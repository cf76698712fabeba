"""An event's JSON taken apart, its values unread."""

from __future__ import annotations

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
    except msgspec.MsgspecError as error:
        raise UnfitEvent("it is not built like an event") from error


def scalar_text(raw: msgspec.Raw) -> str:
    """A scalar as text: a string's characters, anything else as it is written."""
    text = bytes(raw)
    return str(msgspec.json.decode(text)) if text.startswith(b'"') else text.decode()


def dump(value: Any) -> bytes:
    """JSON; `msgspec.Raw` is put in as it is."""
    return msgspec.json.encode(value)
