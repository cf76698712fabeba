"""What arrived: the receiver's ledger, read while it grows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson


@dataclass(slots=True)
class Arrivals:
    """Everything of one ledger, in the order in which it was acknowledged."""

    path: Path
    order: dict[str, list[str]] = field(default_factory=dict)
    """By trigger, the event ids as they came, repeats included."""
    first: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """By trigger and id, the event as it came first."""
    offset: dict[tuple[str, str], int] = field(default_factory=dict)
    """By trigger and id, the size of the ledger from which on it is in there."""
    altered: list[str] = field(default_factory=list)
    """Ids that came again with other content."""
    size: int = 0
    _digests: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def read(self) -> list[tuple[str, dict[str, Any]]]:
        """Take in what has been added since the last call; gives the triggers and events that are new."""
        with self.path.open("rb") as file:
            file.seek(self.size)
            whole, newline, _ = file.read().rpartition(b"\n")
        return self.take((whole + newline).splitlines(keepends=True))

    def take(self, lines: Iterable[bytes]) -> list[tuple[str, dict[str, Any]]]:
        new = []
        for line in lines:
            self.size += len(line)
            entry = orjson.loads(line)
            event = entry["event"]
            trigger = event["metadata"]["trigger"]
            name = (trigger, entry["id"])
            digest = hashlib.blake2b(orjson.dumps(event), digest_size=16).digest()
            self.order.setdefault(trigger, []).append(entry["id"])
            known = self._digests.setdefault(name, digest)
            if name not in self.first:
                self.first[name] = event
                self.offset[name] = self.size
                new.append((trigger, event))
            elif known != digest:
                self.altered.append(entry["id"])
        return new

    @property
    def total(self) -> int:
        return sum(len(ids) for ids in self.order.values())
