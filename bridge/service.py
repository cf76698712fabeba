"""
The life of the process: start, read, reconnect, stand by, drain, stop.

A *session* is one replication connection, from connect to its end; `pipeline.py` is what happens in it. Between two
sessions the triggers keep what they have in hand and go on delivering; only reading stops. What ended a session decides
what comes next (`errors.Disposition`): another one after a pause, or the end of the process with the error's exit code.

The slot is the lock: a process that does not get it stands by and asks again every second. Whoever gets it raises the
epoch in the store, and from then on nobody who had it before can save anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from bridge import __version__
from bridge.by_hand import ByHand
from bridge.change import Position
from bridge.clock import Clock, SystemClock
from bridge.config import Settings, TriggerSettings
from bridge.delivery.factory import build_target
from bridge.delivery.outcome import Busy, Failed, Misconfigured, Outcome, Partial, Rejected, TooLarge
from bridge.delivery.target import Target
from bridge.errors import (
    BridgeError,
    Disposition,
    InvariantBroken,
    SlotInUse,
    SlotLost,
    SourceCredentialsRefused,
    SourceMisconfigured,
    SourceUnavailable,
    StoreError,
    StoreMisconfigured,
)
from bridge.letters import LetterWatch, destinations_of
from bridge.lsn import LSN
from bridge.observe import log as events
from bridge.observe.metrics import Metrics
from bridge.observe.status import SchemaChangeStatus, ServiceState, ServiceStatus, SlotStatus
from bridge.pauses import PauseKeeper
from bridge.pgoutput.assembler import Assembler
from bridge.pgoutput.plan import KeyLayout
from bridge.pgoutput.schema_version import RelationHistory
from bridge.pipeline import Pipeline
from bridge.rds import connection_string
from bridge.roster import Roster
from bridge.secret import SecretResolver
from bridge.source import catalog, publication, slot, timeline
from bridge.source.connection import ReplicationConnection
from bridge.source.identity_warnings import identity_warnings
from bridge.source.resume import ACCEPT_GAP, NOT_A_STANDBY, resume_at, standby_is_behind
from bridge.source.slot_watch import SlotWatch
from bridge.source.tables import list_tables
from bridge.store.factory import build_store
from bridge.store.guards import GuardKeeper
from bridge.store.protocol import Parked, Progress, SourceIdentity, Store

MAX_BUFFERED_BYTES = 128 << 20
DRAIN_SECONDS = 25.0
"""Under the 30 s that container runtimes give between SIGTERM and SIGKILL."""
STANDBY_PAUSE_SECONDS = 1.0
FIRST_CONTACT_SECONDS = 10.0
"""
How long a process that has never read anything tries to. After that, a wrong host is likelier than a server that is
just starting, and whoever started us should hear of it; one that has read, or has stood by, goes on trying for as long
as it takes.
"""
FIRST_RECONNECT_PAUSE_SECONDS = 0.2
LONGEST_RECONNECT_PAUSE_SECONDS = 15.0
ROTATION_SECONDS = 300.0
"""
How long a process that has read goes on trying with credentials that are refused: rotations change the password first
and tell of it afterwards, and a mounted secret is a minute or two late.
"""
MOST_STATUS_INTERVAL_SECONDS = 10.0
WATCH_PAUSE_SECONDS = 10.0
# While reading waits for a trigger, what the slot retains decides how long it may.
WAITING_WATCH_PAUSE_SECONDS = 2.0
MOST_CHANGED_TABLES = 100
"""That a status lists."""

log = structlog.get_logger("pgbridge.service")

_T = TypeVar("_T")
TargetBuilder = Callable[[str, TriggerSettings, SecretResolver], Target]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What was counted in the streams of all sessions."""

    changes: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    """By trigger."""
    ignored_contexts: int = 0

    def and_in(self, assembler: Assembler) -> _Decoded:
        """With what one more session has counted."""
        return _Decoded(
            self.changes + assembler.changes,
            self.filtered + Counter(assembler.filtered),
            self.ignored_contexts + assembler.ignored_contexts,
        )


@dataclass(slots=True)
class _Seen:
    """What the last look at the slot and the store showed."""

    slot: SlotStatus | None = None
    dead_letters: Mapping[str, int] | None = None


class Service:
    """
    Args:
        settings: validated.
        clock: the time.
        store: where progress is kept; default: PostgreSQL, by the settings.
        build: makes a trigger's target.
        drain_seconds: how long a stop waits for calls in flight.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        secrets: SecretResolver | None = None,
        store: Store | None = None,
        build: TargetBuilder = build_target,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.secrets = secrets or SecretResolver()
        self.store: Store = store or build_store(settings, self.secrets)
        self.metrics = Metrics(self.snapshot)
        self._build = build
        self._drain_seconds = drain_seconds
        self._destinations = destinations_of(settings)
        self._targets: dict[str, Target] = {}
        self._roster = Roster(
            settings,
            self._targets,
            clock=self.clock,
            moved=self._moved,
            failed=self._failed,
            observer=self,
            read_backlog=self._read_backlog,
            pause_changed=self._pause_changed,
        )
        self._pauses = PauseKeeper(settings, self.store, self._roster.dispatchers)
        self.by_hand = ByHand(settings, self.store, self._roster, self._targets, self._pauses, clock=self.clock)
        self._connection: ReplicationConnection | None = None
        self._catalog: catalog.CatalogReader | None = None
        self._pipeline: Pipeline | None = None
        self._key_layouts: dict[tuple[str, int], KeyLayout] = {}
        self._history = RelationHistory()
        self._stop = asyncio.Event()
        self._bug: BaseException | None = None
        self._state = ServiceState.STARTING
        self._reason: str | None = None
        self._since = self._started_at = self.clock.now()
        self._sessions = 0
        self._met = False
        """Whether the source has let us read, or said that another process does: then the settings are right."""
        self._past_sessions = _Decoded()
        self._ignored_contexts_told = 0
        self._refused_at: float | None = None
        """Since when the source refuses our credentials, by the monotonic clock."""
        self._at_work_since = 0.0
        self._at_work = False
        """Whether the session has come as far as its work, which sees a stop itself."""
        self._to_finish: Pipeline | None = None
        """The newest session's, until a stop has saved what settled in it and after it."""
        self._seen = _Seen()
        self._slot_watch = SlotWatch(settings, self._source_dsn, self._positions, clock=self.clock)

    # -- the life of the process ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for a clean stop; safe to call from a signal handler, and more than once."""
        self._stop.set()

    async def run(self) -> None:
        """
        Work until `stop` is called or an error ends the process.

        Raises:
            BridgeError: what ended it, with its exit code.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, self.stop)
        enabled = {name: trigger for name, trigger in self.settings.triggers.items() if trigger.enabled}
        self._targets.update({name: self._build(name, trigger, self.secrets) for name, trigger in enabled.items()})
        watcher = asyncio.create_task(self._watch(), name="watch")
        try:
            await self._sessions_until_stop()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            # Where an error ended it: nothing more is sent, and no call outlives its target.
            for dispatcher in self._roster.dispatchers.values():
                await dispatcher.drain(0)
            for target in self._targets.values():
                await target.close()
            await self.store.close()

    async def _sessions_until_stop(self) -> None:
        pause, began = FIRST_RECONNECT_PAUSE_SECONDS, self.clock.monotonic()
        while not self._stop.is_set():
            try:
                await self._session_or_stop()
            except BridgeError as error:
                self._met = self._met or isinstance(error, SlotInUse)
                too_long = self.clock.monotonic() - began > FIRST_CONTACT_SECONDS
                if not self._worth_another_try(error) or (too_long and not self._met):
                    self._become(ServiceState.STOPPED, str(error))
                    raise
                if isinstance(error, SlotInUse):
                    self._become(ServiceState.STANDING_BY, str(error))
                    await self._pause(STANDBY_PAUSE_SECONDS)
                    continue
                if self._at_work and self.clock.monotonic() - self._at_work_since > pause:
                    pause = FIRST_RECONNECT_PAUSE_SECONDS  # it worked for a while: a new trouble, not the same
                self._become(ServiceState.RECONNECTING, str(error))
                await self._pause(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, LONGEST_RECONNECT_PAUSE_SECONDS)
            else:
                pause = FIRST_RECONNECT_PAUSE_SECONDS
        if self._bug is not None:
            raise self._broken(self._bug)
        if self._to_finish is not None:
            # Stopped between two sessions, while the triggers delivered what they had in hand.
            with contextlib.suppress(StoreError):  # logged; where another process has taken over, it goes on from there
                await self._finish(self._to_finish)
        self._become(ServiceState.STOPPED, None)

    async def _session_or_stop(self) -> None:
        """A session; a stop cuts its beginning short, as a server that does not answer would hold it up."""
        session = asyncio.create_task(self._session(), name="session")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({session, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._at_work:
                await asyncio.wait({session})  # it stops by itself
        finally:
            stopping.cancel()
            session.cancel()
            await asyncio.gather(session, stopping, return_exceptions=True)
        if not session.cancelled():
            session.result()

    def _worth_another_try(self, error: BridgeError) -> bool:
        if isinstance(error, SourceCredentialsRefused):
            # Rotated, perhaps: the next session fetches the secret again. Where the password is changed before the
            # secret, what worked until now will work again soon.
            now = self.clock.monotonic()
            first = self._refused_at is None
            self._refused_at = now if self._refused_at is None else self._refused_at
            return first or (self._met and now - self._refused_at < ROTATION_SECONDS)
        if isinstance(error, StoreMisconfigured):
            return False
        return type(error).disposition is Disposition.RETRY

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def _become(self, state: ServiceState, reason: str | None) -> None:
        if state is self._state and reason == self._reason:
            return
        if state is not self._state:
            self._since = self.clock.now()
        self._state, self._reason = state, reason
        match state:
            case ServiceState.STREAMING:
                log.info(events.STREAMING)
            case ServiceState.STANDING_BY:
                log.info(events.STANDING_BY, reason=reason)
            case ServiceState.RECONNECTING:
                log.warning(events.RECONNECTING, reason=reason)
            case ServiceState.DRAINING:
                log.info(events.DRAINING)
            case ServiceState.STOPPED:
                (log.error if reason else log.info)(events.STOPPED, reason=reason)

    # -- one session ---------------------------------------------------------------------------------------------------

    async def _session(self) -> None:
        """Connect, take the slot, and read until the stop or an error."""
        self._at_work = False
        dsn = await self._source_dsn(fresh=self._refused_at is not None or self._sessions > 0)
        # The source first: where the store is in it too, its errors tell more of what is wrong.
        connection = await ReplicationConnection.open(dsn)
        watching: list[asyncio.Task[None]] = []
        try:
            await self.store.open()
            self._refused_at = None
            self._connection = connection
            pipeline = await self._start(connection)
            letters = self._letter_watch()
            watching = [
                asyncio.create_task(letters.run(), name="letters"),
                asyncio.create_task(self._pauses.run(), name="pauses"),
            ]
            self._become(ServiceState.STREAMING, None)
            self._at_work, self._at_work_since = True, self.clock.monotonic()
            self._sessions += 1
            await self._work(pipeline)
            await self._pauses.save()
            await connection.stop()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            if self._pipeline is not None:
                self._past_sessions = self._decoded()
            if self._catalog is not None:
                self._catalog.close()
            self._pipeline = self._connection = self._catalog = None
            await connection.close()

    def _letter_watch(self) -> LetterWatch:
        return LetterWatch(
            self.store,
            self.settings.source.slot,
            self._roster.dispatchers,
            self._destinations,
            clock=self.clock,
            failed=self._failed,
        )

    async def _source_dsn(self, *, fresh: bool = False) -> str:
        source = self.settings.source
        return await connection_string(source.dsn, self.secrets, iam_auth=source.iam_auth, fresh=fresh)

    async def _start(self, connection: ReplicationConnection) -> Pipeline:
        source = self.settings.source
        server = connection.identity
        identity = SourceIdentity(source.slot, server.system_identifier, server.timeline, server.database)
        # In this order, and the end of the WAL last: another process may be at work, which saves, then confirms.
        state = await slot.inspect(connection, source.slot)
        progress = await self.store.read(source.slot)
        wal_end = await connection.wal_end()
        in_recovery = await connection.in_recovery()
        if state is not None and (misfit := state.misfit(server.database)):
            what, remedy = misfit
            raise SourceMisconfigured(f'slot "{source.slot}" {what}', remedy=remedy)
        if state is None or state.confirmed_flush_lsn is None:
            raise _no_slot(source.slot, progress, in_recovery=in_recovery)
        for warning in await publication.prepare(connection, self.settings, strict=self._sessions == 0):
            log.warning(events.NOT_SENT, reason=warning)
        lacking = identity_warnings(self.settings, await list_tables(connection)) if self._sessions == 0 else ()
        await self._roster.fetch_keys(self.secrets)
        facts = await catalog.load(connection)
        branched_at = await timeline.branched_at(connection, progress.identity, identity.timeline)
        resume = partial(
            resume_at,
            slot_confirmed_lsn=state.confirmed_flush_lsn,
            branched_at=branched_at,
            in_recovery=in_recovery,
        )
        start = resume(progress, identity, server_lsn=wal_end)
        received = self._roster.received
        if in_recovery and received is not None and received > Position(wal_end, -1):
            raise standby_is_behind(received.commit_lsn)
        await connection.start(source.slot, source.publication, start, local_only=source.origin == "none")
        for lack in lacking:
            log.warning(events.OLD_VALUES_LACKING, reason=lack.what, remedy=lack.remedy)
        self._met = True
        # The slot is ours. Whoever had it before may have saved something since we read it, up to WAL of since then.
        progress = await self.store.claim(identity)
        start = resume(progress, identity, server_lsn=None)
        if branched_at is not None and received is not None and received > Position(branched_at, -1):
            await self._begin_anew(received.commit_lsn, branched_at)
        if progress.identity is not None and progress.identity.timeline != identity.timeline:
            await self.store.adopt(identity)
        if progress.confirmed_lsn is None:
            await self.store.save(start, {})
        backlogs = {} if self._roster.dispatchers else await self.store.backlogs(source.slot)
        holding = [] if self._roster.dispatchers else self._roster.holding_keys()
        letter_keys = {name: await self.store.letter_keys(source.slot, name) for name in holding}
        if self._roster.guards and not self._roster.dispatchers:
            self._roster.restore_guards(await self.store.schema_guards(source.slot))
        self._roster.start(progress, start, identity.system_identifier, backlogs, letter_keys)
        self._pauses.restore(await self.store.pauses(source.slot))
        assembler = Assembler(
            database=server.database,
            system_identifier=server.system_identifier,
            start_lsn=start,
            routes=self._roster.routes,
            message_routes=self._roster.message_routes,
            primary_keys=facts.primary_key,
            types=facts.type_of,
            lacks=facts.lacks,
            key_layouts=self._key_layouts,
            history=self._history,
            excluded_schemas=frozenset({self.settings.store.schema_}),
        )
        self._catalog = catalog.CatalogReader(facts, self._source_dsn)
        interval = connection.wal_sender_timeout_seconds / 3 or MOST_STATUS_INTERVAL_SECONDS
        self._pipeline = Pipeline(
            connection,
            assembler,
            self._roster.dispatchers,
            self.store,
            saved_lsn=start,
            status_interval_seconds=min(interval, MOST_STATUS_INTERVAL_SECONDS),
            max_buffered_bytes=MAX_BUFFERED_BYTES,
            clock=self.clock,
            look_up=self._catalog.look_up,
            guards=GuardKeeper(self.store, self._roster.guards),
        )
        log.info(
            events.SLOT_TAKEN,
            slot=source.slot,
            start_lsn=str(start),
            epoch=progress.epoch,
            database=server.database,
            server_version=server.server_version,
            rows=assembler.execution.name,
        )
        self._to_finish = self._pipeline
        return self._pipeline

    async def _begin_anew(self, received_lsn: LSN, branched_at: LSN) -> None:
        """
        Forget what is in hand, as a new process would, and go on from the store.

        The promoted server lacks the end of what we received, and what it wrote instead has the same positions.
        """
        log.warning(events.PROMOTED_BEHIND, received_lsn=str(received_lsn), promoted_at=str(branched_at))
        await self._pauses.save()
        for dispatcher in self._roster.dispatchers.values():
            await dispatcher.drain(0)
        self._roster.dispatchers.clear()
        self._to_finish = None
        self._pauses = PauseKeeper(self.settings, self.store, self._roster.dispatchers)

    async def _work(self, pipeline: Pipeline) -> None:
        """Run the pipeline until the stop, then drain."""
        running = asyncio.create_task(pipeline.run(), name="pipeline")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            running.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)
        if self._bug is not None:
            raise self._broken(self._bug)
        if not running.cancelled():
            running.result()
        await self._finish(pipeline)

    async def _finish(self, pipeline: Pipeline) -> None:
        """
        Wait for what is in flight, and save what has settled.

        Raises:
            StoreError: it is not saved.
        """
        self._to_finish = None
        self._become(ServiceState.DRAINING, None)
        late = await asyncio.gather(
            *(dispatcher.drain(self._drain_seconds) for dispatcher in self._roster.dispatchers.values())
        )
        if any(late):
            log.warning(events.ABANDONED, invocations=sum(late), waited_seconds=self._drain_seconds)
        await pipeline.finish()

    async def _read_backlog(self, trigger: str, after: bytes, events: int, body_bytes: int) -> Sequence[Parked]:
        return await self.store.read_backlog(trigger, after, events=events, body_bytes=body_bytes)

    # -- what the triggers tell ----------------------------------------------------------------------------------------

    def _moved(self) -> None:
        if self._pipeline is not None:
            self._pipeline.progress_moved()

    def _pause_changed(self) -> None:
        self._pauses.changed()

    @staticmethod
    def _broken(bug: BaseException) -> InvariantBroken:
        broken = InvariantBroken(f"a delivery ended in {type(bug).__name__}")
        broken.__cause__ = bug
        return broken

    def _failed(self, error: BaseException) -> None:
        """A bug of ours in a delivery: end without confirming anything."""
        self._bug = self._bug or error
        self._stop.set()

    # -- what others see -----------------------------------------------------------------------------------------------

    def invoked(self, trigger: str, outcome: Outcome, *, events: int, seconds: float) -> None:
        """One call ended (`delivery.dispatch.Observer`)."""
        self.metrics.invocation_duration.labels(trigger).observe(seconds)
        match outcome:
            case Failed() | Busy() | Misconfigured() | Partial() | TooLarge() | Rejected():
                kind = _CLASS_NAMES[type(outcome)]
                self.metrics.failed_invocations.labels(trigger, kind).inc()
                put_back = len(outcome.failed_ids) if isinstance(outcome, Partial) else events
                self.metrics.retries.labels(trigger, kind).inc(put_back)

    def snapshot(self) -> ServiceStatus:
        """Everything that status, metrics, health and console show, at this moment."""
        pipeline = self._pipeline
        received = None if pipeline is None else LSN(pipeline.received_lsn)
        decoded = self._decoded()
        last_message_at = None
        if pipeline is not None and pipeline.reading and self._connection is not None:
            last_message_at = self.clock.now() - self._connection.idle_seconds
        return ServiceStatus(
            state=self._state,
            reason=self._reason or (str(pipeline.store_error) if pipeline and pipeline.store_error else None),
            since=self._since,
            version=__version__,
            started_at=self._started_at,
            slot=self._seen.slot or SlotStatus(self.settings.source.slot),
            received_lsn=received,
            confirmed_lsn=None if pipeline is None else LSN(pipeline.feedback.saved_lsn),
            buffered_bytes=sum(dispatcher.buffered_bytes for dispatcher in self._roster.dispatchers.values()),
            buffer_limit_bytes=MAX_BUFFERED_BYTES,
            polled_changes=decoded.changes,
            reconnects=max(self._sessions - 1, 0),
            last_message_at=last_message_at,
            triggers=self._roster.status(received, decoded.filtered, self._seen.dead_letters),
            schema_changes=self._history.total,
            ignored_contexts=decoded.ignored_contexts,
            changed_tables=self._changed_tables(),
        )

    def _decoded(self) -> _Decoded:
        return self._past_sessions if self._pipeline is None else self._past_sessions.and_in(self._pipeline.assembler)

    def _tell_ignored_contexts(self) -> None:
        """Once in a while, not for each: whoever may write a row may send many."""
        ignored, pipeline = self._decoded().ignored_contexts, self._pipeline
        if ignored > self._ignored_contexts_told and pipeline is not None:
            reason = pipeline.assembler.last_ignored_context
            log.warning(events.CONTEXT_IGNORED, messages=ignored - self._ignored_contexts_told, last_reason=reason)
            self._ignored_contexts_told = ignored

    def _changed_tables(self) -> tuple[SchemaChangeStatus, ...]:
        newest = heapq.nlargest(MOST_CHANGED_TABLES, self._history.last.values(), key=lambda change: change.position)
        return tuple(
            SchemaChangeStatus(
                change.table,
                change.schema_version,
                change.previous_version,
                change.what,
                change.position.commit_lsn,
                change.committed_at,
            )
            for change in newest
        )

    async def _watch(self) -> None:
        """Look at the slot and at the dead letters now and then: for status and metrics, and for what may wait."""
        try:
            while True:
                self._seen.dead_letters = await _unless_it_fails(self.store.count_letters)
                self._tell_ignored_contexts()
                await self._look_at_slot()
                waits = self._pipeline is not None and not self._pipeline.reading
                until = self.clock.monotonic() + (WAITING_WATCH_PAUSE_SECONDS if waits else WATCH_PAUSE_SECONDS)
                while await self._slot_watch.rest(until):
                    await self._look_at_slot()
        finally:
            self._slot_watch.close()

    async def _look_at_slot(self) -> None:
        seen = self._seen.slot = await _unless_it_fails(self._slot_watch.look)
        if self._pipeline is not None and seen is not None and seen.restart_lsn is not None:
            self._pipeline.written_lsn = seen.restart_lsn + (seen.retained_bytes or 0)

    def _positions(self) -> tuple[int, int] | None:
        pipeline = self._pipeline
        return None if pipeline is None else (pipeline.received_lsn, pipeline.feedback.saved_lsn)


_CLASS_NAMES = {
    Failed: "failed",
    Busy: "busy",
    Misconfigured: "misconfigured",
    Partial: "partial",
    TooLarge: "too_large",
    Rejected: "rejected",
}


async def _unless_it_fails(look: Callable[[], Awaitable[_T]]) -> _T | None:
    """What is only shown must not end the process; that it can't be seen is shown as not known."""
    try:
        return await look()
    except BridgeError:
        return None


def _no_slot(name: str, progress: Progress, *, in_recovery: bool) -> BridgeError:
    if in_recovery:
        return SourceUnavailable(
            f'replication slot "{name}" is not on this server, which is a standby', remedy=NOT_A_STANDBY
        )
    if progress.confirmed_lsn is None:
        return SourceMisconfigured(f'replication slot "{name}" does not exist', remedy="create it with: pgbridge init")
    return SlotLost(
        f'replication slot "{name}" is gone, and with it the changes since {progress.confirmed_lsn}',
        position=progress.confirmed_lsn,
        remedy=ACCEPT_GAP,
    )
