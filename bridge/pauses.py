"""
Keeps which triggers wait until somebody resumes them, over restarts and for the process that takes over.

Only such pauses: one that ends by itself is found again by the first calls, and a stop for an altered table is kept by
its guard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from bridge.delivery.dispatch import Dispatcher
from bridge.errors import StoreError, StoreFenced, StoreMisconfigured
from bridge.store.protocol import KeptPause, Store

RETRY_SECONDS: Final = 1.0


class PauseKeeper:
    """
    Args:
        store: claimed by this process while `run` does.
        dispatchers: by trigger; those made later are seen too.
    """

    def __init__(self, store: Store, dispatchers: Mapping[str, Dispatcher]) -> None:
        self._store = store
        self._dispatchers = dispatchers
        self._kept: dict[str, KeptPause] = {}
        self._changed = asyncio.Event()
        self._saving = asyncio.Lock()

    def changed(self) -> None:
        """A trigger was paused or resumed."""
        self._changed.set()

    def restore(self, kept: Mapping[str, KeptPause]) -> None:
        """
        Pause and resume the triggers as the store says, before they deliver anything.

        What happened here and could not be saved yet counts for more: it is the younger.
        """
        for name, dispatcher in self._dispatchers.items():
            here, there = _lasting(dispatcher), kept.get(name)
            if here != self._kept.get(name):
                self._changed.set()
            elif there is None and here is not None:
                dispatcher.resume()
            elif there is not None and there != here:
                dispatcher.pause(there.reason, there.remedy)
        self._kept = dict(kept)

    async def run(self) -> None:
        """Save what changes, until cancelled; a store that is away is asked again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._save()
            except (StoreFenced, StoreMisconfigured):
                return  # saving progress meets the same, and ends the session
            except StoreError:
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def save(self) -> bool:
        """Save what has changed. Returns whether it is safe in the store; if not, `run` tries again."""
        try:
            await self._save()
        except StoreError:
            self._changed.set()
            return False
        return True

    async def _save(self) -> None:
        async with self._saving:
            now = {name: _lasting(dispatcher) for name, dispatcher in self._dispatchers.items()}
            changes = {name: pause for name, pause in now.items() if pause != self._kept.get(name)}
            if not changes:
                return
            await self._store.save_pauses(changes)
            for name, pause in changes.items():
                if pause is None:
                    self._kept.pop(name, None)
                else:
                    self._kept[name] = pause


def _lasting(dispatcher: Dispatcher) -> KeptPause | None:
    pause = dispatcher.lasting_pause
    return None if pause is None else KeptPause(pause.reason, pause.remedy)
