"""
Every error that pgbridge raises, on one page, each with what is done about it.

`Disposition` is read by the service: STOP ends the process, RETRY reconnects with back-off, OPERATOR
ends it too, because only a person can mend the cause. Failures of a delivery are values, not exceptions
(`delivery/outcome.py`). Messages name the thing, what it held, and the next step; never a row value.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from bridge.lsn import LSN


class Disposition(Enum):
    """What the service does when an error of this kind reaches it."""

    STOP = "stop"
    RETRY = "retry"
    OPERATOR = "operator"


class BridgeError(Exception):
    """Base of the family; carries where it happened, as far as that is known."""

    disposition: ClassVar[Disposition] = Disposition.STOP
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        position: LSN | None = None,
        table: str | None = None,
        trigger: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.position = position
        self.table = table
        self.trigger = trigger

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class ConfigError(BridgeError):
    """A setting is wrong: the message names the setting, what it held, and what would do."""

    exit_code = 2


class SecretUnavailable(BridgeError):
    """The service that keeps a secret did not answer: worth another try."""

    disposition = Disposition.RETRY
    exit_code = 10


class SourceError(BridgeError):
    """Something about the source database."""


class SourceUnavailable(SourceError):
    """Refused, restarting, in recovery, timed out, connection lost: worth another try."""

    disposition = Disposition.RETRY
    exit_code = 3


class SourceMisconfigured(SourceError):
    """wal_level, privilege, publication, identity: an operator has to change the database."""

    disposition = Disposition.OPERATOR
    exit_code = 4


class SourceCredentialsRefused(SourceMisconfigured):
    """The server does not know us (SQLSTATE class 28): with a secret fetched afresh it may."""


class SlotLost(SourceError):
    """The slot is missing, invalidated or not the one we read: changes were missed, a backfill is needed."""

    disposition = Disposition.OPERATOR
    exit_code = 5


class TableBusy(SourceUnavailable):
    """Somebody holds a lock on a table for longer than we wait for it (SQLSTATE 55P03)."""


class SlotInUse(SourceUnavailable):
    """Another process reads the slot (SQLSTATE 55006): stand by and try again."""


class ProtocolError(BridgeError):
    """The replication stream broke its rules; carries tag, byte offset and LSN, never the bytes."""

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        tag: int | None = None,
        offset: int | None = None,
        position: LSN | None = None,
        table: str | None = None,
    ) -> None:
        where = "".join(
            [
                f", message {chr(tag)!r}" if tag is not None else "",
                f", byte {offset}" if offset is not None else "",
                f", at {position}" if position is not None else "",
            ]
        )
        super().__init__(message + where, position=position, table=table)
        self.tag = tag
        self.offset = offset


class MalformedMessage(ProtocolError):
    """The server's bytes do not parse."""


class UnexpectedMessage(ProtocolError):
    """Well formed, at a moment when it can't be."""


class StoreError(BridgeError):
    """The store refused or is out of reach; nothing is confirmed until it answers again."""

    disposition = Disposition.RETRY
    exit_code = 7


class StoreMisconfigured(StoreError):
    """Tables missing or newer than this program, a right missing: an operator has to change the store."""

    disposition = Disposition.OPERATOR


class StoreFenced(StoreError):
    """Another process claimed this slot's progress after us; we may no longer write it."""

    disposition = Disposition.STOP
    exit_code = 8


class TargetError(BridgeError):
    """A target can't be used as configured, found before any delivery (`check`, `dev`)."""

    exit_code = 9


class InvariantBroken(BridgeError):
    """A bug of ours. The process ends without confirming anything."""

    exit_code = 70
