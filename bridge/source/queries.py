"""Something that answers SQL: a replication connection that does not stream yet, or an ordinary one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.source.libpq import Row


class Queries(Protocol):
    """Runs one statement; every value comes as text."""

    async def query(self, statement: str) -> Sequence[Row]: ...
