"""What an examination finds, one thing at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bridge.errors import BridgeError

Severity = Literal["ok", "advice", "warning", "error"]
"""
An `error` keeps the bridge from running, or from sending what a trigger asks for; a `warning` will hurt later; `advice`
would make it better, and may be left alone.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out."""

    severity: Severity
    what: str
    remedy: str = ""
    """What mends it; empty for `ok`."""
    details: Mapping[str, object] = field(default_factory=dict)
    """The numbers and names behind it, for programs."""

    @classmethod
    def of(cls, error: BridgeError, severity: Severity = "error", **details: object) -> Finding:
        """An error as a finding."""
        return cls(severity, error.message, error.remedy or "", details)
