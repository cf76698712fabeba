"""
The slot as the service looks at it, and the records that let its restart_lsn follow what is confirmed.

Looks are made every few seconds, over a session of their own. In between, the positions of the stream tell for nothing
when the slot must have come to retain much; then a look comes sooner, and the session is kept for the next. Which
record is written when, and when none is any use, is decided in `progress/restart.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from bridge.clock import Clock
from bridge.config import Settings
from bridge.errors import SourceError
from bridge.observe import log as events
from bridge.observe.status import SlotStatus
from bridge.progress.restart import RestartPace
from bridge.source import running_xacts, slot
from bridge.source.libpq import Wire
from bridge.source.lingering import LingeringSession
from bridge.source.session import connected
from bridge.source.slot import SlotState

TICK_SECONDS: Final = 0.5
"""Between two comparisons of the stream's positions: half a step, where a server writes 8 MB of WAL a second."""
_LINGER_SECONDS: Final = 3.0

Positions = Callable[[], tuple[int, int] | None]
"""How far the server has sent, and what it was told is confirmed; None while we don't read the slot."""

log = structlog.get_logger("pgbridge.source")


class SlotWatch:
    """
    Args:
        settings: of the process.
        dsn: the source's, asked for at each connection.
        positions: of the stream.
        clock: the time.
    """

    def __init__(
        self, settings: Settings, dsn: Callable[[], Awaitable[str]], positions: Positions, *, clock: Clock
    ) -> None:
        self.records = 0
        """Written by this process."""
        self._name = settings.source.slot
        self._positions = positions
        self._clock = clock
        self._pace = RestartPace(most_wal_bytes(settings))
        self._refused = False
        self._session = LingeringSession(dsn, application_name="pgbridge status", linger_seconds=_LINGER_SECONDS)

    async def look(self) -> SlotStatus | None:
        """
        The slot as it stands; None where there is none. Has a record written where it helps, and we read the slot.

        Raises:
            SourceError: the server is out of reach, or refused.
        """
        records = self.records
        try:
            return await self._session.ask(self._look)
        finally:
            if self.records == records:
                self._session.close()
                if self._seems_due():
                    self._pace.postpone(self._clock.monotonic())

    async def rest(self, until: float) -> bool:
        """Wait for the next look; True where it is due before that time, for a record."""
        while (left := until - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(left, TICK_SECONDS))
            if self._seems_due():
                return True
        return False

    def close(self) -> None:
        """Leave the server."""
        self._session.close()

    async def _look(self, wire: Wire) -> SlotStatus | None:
        state = await slot.inspect(wire, self._name)
        if state is None:
            return None
        if state.restart_lsn is None or state.confirmed_flush_lsn is None:
            return status_of(state)
        self._pace.seen(self._clock.monotonic(), restart_lsn=state.restart_lsn, confirmed_lsn=state.confirmed_flush_lsn)
        positions = self._positions()
        if positions is not None and state.retained_bytes is not None:
            _, told = positions  # which may not have arrived yet
            written = state.restart_lsn + state.retained_bytes
            if self._record_is_due(written, max(told, state.confirmed_flush_lsn)):
                await self._have_a_record_written(wire)
        held_by = None
        if self._pace.is_held(self._clock.monotonic()):
            held_by = await running_xacts.oldest_open(wire)
        return status_of(state, held_by=held_by)

    def _seems_due(self) -> bool:
        """By what the stream tells, which is behind where it has to wait."""
        positions = self._positions()
        return positions is not None and self._record_is_due(*positions)

    def _record_is_due(self, written_lsn: int, confirmed_lsn: int) -> bool:
        return self._pace.is_due(self._clock.monotonic(), written_lsn=written_lsn, confirmed_lsn=confirmed_lsn)

    async def _have_a_record_written(self, wire: Wire) -> None:
        """Or learn that it can't be: `check` says so, and what it takes; a log would, again and again."""
        if not await running_xacts.may_write(wire):
            self._pace.refused(self._clock.monotonic())
            return
        try:
            record = await running_xacts.write(wire)
        except SourceError as error:
            self._pace.refused(self._clock.monotonic())
            if not self._refused:
                log.warning(events.RECORD_REFUSED, error=str(error))
            self._refused = True
            return
        self._refused = False
        self.records += 1
        self._pace.wrote(self._clock.monotonic(), record)
        log.debug(events.RECORD_WRITTEN, lsn=str(record))


async def look_once(dsn: str, settings: Settings) -> SlotStatus | None:
    """
    The slot as it stands, for who does not read it.

    Raises:
        SourceError: the server is out of reach, or refused.
    """
    async with connected(dsn, application_name="pgbridge status") as session:
        state = await slot.inspect(session, settings.source.slot)
        if state is None:
            return None
        behind = state.bytes_behind_confirmed
        held = behind is not None and behind > most_wal_bytes(settings)
        return status_of(state, held_by=await running_xacts.oldest_open(session) if held else None)


def most_wal_bytes(settings: Settings) -> int:
    """What the slot may come to retain because of a trigger: the smallest of the bounds."""
    bounds = [settings.backlog_of(name).after_wal_bytes for name, each in settings.triggers.items() if each.enabled]
    return min(bounds, default=settings.backlog.after_wal_bytes)


def status_of(state: SlotState, *, held_by: running_xacts.OpenTransaction | None = None) -> SlotStatus:
    """For status and metrics."""
    return SlotStatus(
        name=state.name,
        active=state.active_pid is not None,
        wal_status=state.wal_status,
        retained_bytes=state.retained_bytes,
        safe_wal_bytes=state.safe_wal_bytes,
        confirmed_flush_lsn=state.confirmed_flush_lsn,
        restart_lsn=state.restart_lsn,
        held_by=None if held_by is None else str(held_by),
    )
