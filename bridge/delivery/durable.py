"""
Names of durable executions: what lets Lambda tell a repetition of a call from a new one. Pure.

An execution is named for the bytes it was started with. A call whose outcome is unknown (a timeout, a dropped
connection, a throttle) is made again under its name, and Lambda joins it to the execution that may be running already.
An execution that is known to have failed would only answer with the same failure again, so the next attempt is given
another name. Lambda's own event source mappings give none, and start a new execution with every retry.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

KEPT: Final = 4096
"""Batches whose failures are remembered. A forgotten one costs an attempt: the old failure is answered once more."""

_TRIGGER_CHARACTERS: Final = 24  # of 64 that a name may have


class DurableNames:
    """Those of one trigger's batches."""

    def __init__(self) -> None:
        self._failures: OrderedDict[bytes, int] = OrderedDict()

    def name(self, trigger: str, body: bytes) -> str:
        """For the next call with this body: letters, digits, `-` and `_`, at most 64."""
        digest = hashlib.sha256(body).digest()
        return f"{trigger[:_TRIGGER_CHARACTERS]}-{digest[:14].hex()}-{self._failures.get(digest, 0)}"

    def failed(self, body: bytes) -> None:
        """The execution ran, and failed."""
        digest = hashlib.sha256(body).digest()
        self._failures[digest] = self._failures.pop(digest, 0) + 1
        if len(self._failures) > KEPT:
            self._failures.popitem(last=False)

    def ended(self, body: bytes) -> None:
        """The execution succeeded; its name is not needed again."""
        if self._failures:
            self._failures.pop(hashlib.sha256(body).digest(), None)
