"""What a call brought back, before it is judged: an answer, or the reason why there is none. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Looked up without regard to case; of a repeated header the first."""
    body: bytes = field(repr=False)
    """Up to the caller's limit, after any content encoding was undone."""
    whole: bool = True
    """False where the body went on past the limit, or broke off behind a status that says enough by itself."""


class Fault(Enum):
    """Why there is no answer."""

    ADDRESS_REFUSED = "address refused"
    """The name stands for addresses that are never called."""
    NAME_UNKNOWN = "name unknown"
    """The resolver says that there is no such host."""
    NOT_VERIFIED = "not verified"
    """The peer's certificate does not prove the name."""
    NO_TLS = "no TLS"
    """The handshake failed for another reason: no common version, a client certificate wanted, not a TLS port."""
    UNREACHABLE = "unreachable"
    """No connection came about, so nothing was sent: refused, no route, cut off while TLS began, no resolver."""
    TIMEOUT = "timeout"
    """The time limit passed; whether the target did the work is unknown."""
    DROPPED = "dropped"
    """The connection ended before the answer was complete; whether the target did the work is unknown."""
    GARBLED = "garbled"
    """What came back is not HTTP, or breaks its rules."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A call without an answer."""

    fault: Fault
    error: str
    """One clause, safe to log: hosts, ports and limits, nothing that the target said."""
