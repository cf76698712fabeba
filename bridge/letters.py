"""
What has to follow from the dead letters in the table while the process runs: destinations are told of them, and keys
that wait for one go on when it was replayed or discarded, by whichever process.

Only who holds the slot does this. Two that told the same destination would tell it everything twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from bridge.clock import Clock
from bridge.config import Settings
from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.factory import build_destination
from bridge.delivery.on_failure import Destination, Reporter
from bridge.errors import StoreError
from bridge.store.protocol import Store

LOOK_SECONDS: Final = 1.0
_SHARE: Final = 20
"""Looking at letters takes at most this fraction of the time, however many there are."""


def destinations_of(settings: Settings) -> dict[str, Destination]:
    """By trigger, the on-failure destinations of the settings; connects to nothing."""
    built = {name: build_destination(trigger) for name, trigger in settings.triggers.items()}
    return {name: destination for name, destination in built.items() if destination is not None}


class LetterWatch:
    """
    Args:
        store: where the letters are.
        slot: whose letters.
        dispatchers: by trigger.
        destinations: by trigger, those that have one.
        clock: the time.
        failed: called with a bug of ours.
    """

    def __init__(
        self,
        store: Store,
        slot: str,
        dispatchers: Mapping[str, Dispatcher],
        destinations: Mapping[str, Destination],
        *,
        clock: Clock,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._slot = slot
        self._dispatchers = dispatchers
        self._clock = clock
        self._failed = failed
        self._reporter = Reporter(
            store,
            slot,
            destinations,
            set_aside=lambda: sum(each.counters.dead_lettered for each in dispatchers.values()),
            unsaved=lambda: any(each.letters for each in dispatchers.values()),
            clock=clock,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await asyncio.gather(self._reporter.run(), self._watch_keys())
        except Exception as error:  # noqa: BLE001 - a bug of ours ends the process, as it does elsewhere
            self._failed(error)

    async def _watch_keys(self) -> None:
        while True:
            started = self._clock.monotonic()
            await self.look_at_keys()
            took = self._clock.monotonic() - started
            await asyncio.sleep(max(LOOK_SECONDS, took * _SHARE))

    async def look_at_keys(self) -> None:
        """Free the keys whose letters are gone."""
        for name, dispatcher in self._dispatchers.items():
            if dispatcher.held.is_empty:
                continue
            version = dispatcher.held.version
            to_come, barrier = dispatcher.letters_to_come()
            try:
                stored = await self._store.letter_keys(self._slot, name)
            except StoreError:
                return  # saving says so, and keys wait for as long as nobody knows
            dispatcher.letters_are(stored.keys | to_come, barrier=stored.barrier or barrier, version=version)
