"""Keeps what schema guards know: stored before any event that came with it is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bridge.pgoutput.schema_guard import SchemaGuard
from bridge.store.protocol import Store


class GuardKeeper:
    """
    Args:
        store: claimed by this process.
        guards: by trigger.
    """

    def __init__(self, store: Store, guards: Mapping[str, SchemaGuard]) -> None:
        self._store = store
        self._guards = guards
        self._saving = asyncio.Lock()

    @property
    def has_changes(self) -> bool:
        """Whether something is not stored yet."""
        return any(guard.has_changes for guard in self._guards.values())

    async def save(self) -> None:
        """
        Store what has changed; one save at a time, so that an older one never comes last.

        Raises:
            StoreError: the store refused or is out of reach; what is not stored is still to be.
        """
        async with self._saving:
            changes = {name: guard.changes() for name, guard in self._guards.items() if guard.has_changes}
            if not changes:
                return
            await self._store.save_schema_guards(changes)
            for name, items in changes.items():
                self._guards[name].stored(items)
