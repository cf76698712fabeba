"""What PostgreSQL keeps of triggers besides their progress: what schema guards know, and which wait to be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

from bridge.store.claim import Claim
from bridge.store.protocol import KeptPause
from bridge.store.session import Session
from bridge.store.statements import Statements


class TriggerNotes:
    """
    Args:
        session: that progress is saved with.
        statements: with the schema's name in them.
    """

    def __init__(self, session: Session, statements: Statements) -> None:
        self._session = session
        self._statements = statements

    async def schema_guards(self, slot: str) -> Mapping[str, Mapping[str, str]]:
        """By trigger, its items; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> Mapping[str, Mapping[str, str]]:
            found: dict[str, dict[str, str]] = {}
            rows = await (await connection.execute(self._statements["schema_guards"], {"slot": slot})).fetchall()
            for trigger, item, content in rows:
                found.setdefault(trigger, {})[item] = content
            return found

        return await self._session.run(work)

    async def save_schema_guards(self, claim: Claim, changes: Mapping[str, Mapping[str, str | None]]) -> None:
        """Store items, or drop them; see the protocol."""
        rows = [
            {"slot": claim.slot, "trigger": trigger, "item": item, "content": content}
            for trigger, items in changes.items()
            for item, content in items.items()
        ]

        async def work(connection: AsyncConnection[Any]) -> bool:
            async with connection.transaction(), connection.cursor() as cursor:
                if not await claim.hold(cursor, self._statements):
                    return False
                kept = [row for row in rows if row["content"] is not None]
                await cursor.executemany(self._statements["keep_schema_item"], kept)
                gone = [row for row in rows if row["content"] is None]
                await cursor.executemany(self._statements["drop_schema_item"], gone)
                return True

        if not await self._session.run(work):
            raise claim.fenced()

    async def pauses(self, slot: str) -> Mapping[str, KeptPause]:
        """By trigger; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> Mapping[str, KeptPause]:
            text = self._session.incoming
            rows = await (await connection.execute(self._statements["pauses"], {"slot": slot})).fetchall()
            return {trigger: KeptPause(text(reason), text(remedy), target) for trigger, reason, remedy, target in rows}

        return await self._session.run(work)

    async def save_pauses(self, claim: Claim, changes: Mapping[str, KeptPause | None]) -> None:
        """Keep them, or drop them; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> bool:
            text = self._session.outgoing
            async with connection.transaction(), connection.cursor() as cursor:
                if not await claim.hold(cursor, self._statements):
                    return False
                for trigger, pause in changes.items():
                    row = {"slot": claim.slot, "trigger": trigger}
                    if pause is None:
                        await cursor.execute(self._statements["drop_pause"], row)
                    else:
                        kept = {"reason": text(pause.reason), "remedy": text(pause.remedy), "target": pause.target}
                        await cursor.execute(self._statements["keep_pause"], {**row, **kept})
                return True

        if not await self._session.run(work):
            raise claim.fenced()
