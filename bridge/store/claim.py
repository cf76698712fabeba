"""The right to write for a slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncCursor

from bridge.errors import StoreFenced
from bridge.store.statements import Statements


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process may write with until another one claims the slot, which raises its epoch."""

    slot: str
    epoch: int

    async def hold(self, cursor: AsyncCursor[Any], statements: Statements) -> bool:
        """Whether it is valid still; then it stays so until the end of the cursor's transaction."""
        await cursor.execute(statements["hold_epoch"], {"slot": self.slot, "epoch": self.epoch})
        return cursor.rowcount > 0

    def fenced(self) -> StoreFenced:
        """The error where it is not valid any more."""
        return StoreFenced(
            f'slot "{self.slot}" was claimed by another process (our epoch is {self.epoch})',
            remedy="stop one of the two processes",
        )
