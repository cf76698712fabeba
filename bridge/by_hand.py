"""What an operator does by hand while the service runs: pause a trigger, resume it, send a dead letter again."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.clock import Clock
from bridge.config import Settings
from bridge.delivery.gated import GatedTarget
from bridge.delivery.target import Target
from bridge.pauses import PauseKeeper
from bridge.replay import Replay, ReplayPlan
from bridge.roster import Roster
from bridge.store.protocol import LetterFilter, Store


class ByHand:
    """
    Args:
        settings: of all triggers.
        store: where the letters are.
        roster: the triggers at work.
        targets: by trigger, of the enabled ones.
        pauses: keeps what was paused.
        clock: the time.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        roster: Roster,
        targets: Mapping[str, Target],
        pauses: PauseKeeper,
        *,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._store = store
        self._roster = roster
        self._targets = targets
        self._pauses = pauses
        self._clock = clock

    async def pause(self, name: str) -> None:
        """
        Send nothing for this trigger until resumed.

        It is in the store when this returns, so that a restart changes nothing; later where the store is away.
        """
        self._roster.dispatchers[name].pause()
        await self._pauses.save()

    async def resume(self, name: str) -> None:
        """Send again, whatever the pause was for; and in the store, as `pause`."""
        self._roster.dispatchers[name].resume()
        await self._pauses.save()

    async def replay_letter(self, letter_id: int) -> str | None:
        """Send one dead letter again; None once it is delivered and gone, else why it stays."""
        slot = self._settings.source.slot
        where = LetterFilter(slot=slot, ids=[letter_id])
        found = await self._store.letters(where, limit=1)
        if not found:
            return "it is no longer there"
        name = found[0].trigger
        if name not in self._targets:
            return f"its trigger {name} is not in the configuration, or disabled"
        plan = ReplayPlan.of(self._settings.triggers[name])
        target = GatedTarget(self._targets[name], self._roster.gates[name], self._clock)
        replay = Replay(self._store, slot, name, plan, target, clock=self._clock)
        result = await replay.run(where)
        if result.complete:
            return None
        if result.stopped:
            return result.stopped
        letters = await self._store.letters(where, limit=1)
        return letters[0].error if letters else "it is no longer there"
