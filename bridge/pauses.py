"""
Keeps which triggers wait until somebody resumes them, over restarts and for the process that takes over.

Only such pauses: one that ends by itself is found again by the first calls, and a stop for an altered table is kept by
its guard. What a target asked for is kept together with which target that was, and is over once its trigger calls
another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from bridge.config import Settings
from bridge.delivery.dispatch import Dispatcher
from bridge.errors import StoreError, StoreFenced, StoreMisconfigured
from bridge.observe import log as log_events
from bridge.store.protocol import KeptPause, Store

RETRY_SECONDS: Final = 1.0

log = structlog.get_logger("pgbridge.pauses")


class PauseKeeper:
    """
    Args:
        settings: the triggers'.
        store: claimed by this process while `run` does.
        dispatchers: by trigger; those made later are seen too.
    """

    def __init__(self, settings: Settings, store: Store, dispatchers: Mapping[str, Dispatcher]) -> None:
        self._store = store
        self._dispatchers = dispatchers
        self._targets = {name: trigger.target.fingerprint for name, trigger in settings.triggers.items()}
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
            here, there = self._lasting(name), kept.get(name)
            if there is not None and not there.holds_for(self._targets[name]):
                log.info(log_events.TRIGGER_RESUMED, trigger=name, reason="its target is another one now")
                there = None
                self._changed.set()  # for whoever comes next
            if here != self._kept.get(name):
                self._changed.set()
            elif there is None and here is not None:
                dispatcher.resume()
            elif there is not None and there != here:
                dispatcher.pause(there.reason, there.remedy, asked_by_target=there.target is not None)
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
            now = {name: self._lasting(name) for name in self._dispatchers}
            changes = {name: pause for name, pause in now.items() if pause != self._kept.get(name)}
            if not changes:
                return
            await self._store.save_pauses(changes)
            for name, pause in changes.items():
                if pause is None:
                    self._kept.pop(name, None)
                else:
                    self._kept[name] = pause

    def _lasting(self, name: str) -> KeptPause | None:
        pause = self._dispatchers[name].lasting_pause
        if pause is None:
            return None
        return KeptPause(pause.reason, pause.remedy, self._targets[name] if pause.asked_by_target else None)
