"""
The triggers of one process: a dispatcher for each, which relations go to it, and how it stands.

Dispatchers are made when the first stream starts, since their checkpoints depend on it, and outlive each stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import structlog

from bridge.batching.groups import by_group, wider
from bridge.batching.held import HeldKeys
from bridge.batching.lanes import Window
from bridge.change import Position
from bridge.clock import Clock
from bridge.config import Settings, TriggerSettings
from bridge.delivery.backlog import Backlog, Bounds
from bridge.delivery.circuit import Circuit, Limits
from bridge.delivery.decide import Policy
from bridge.delivery.descriptors import connections_allowed
from bridge.delivery.dispatch import Dispatcher, Observer
from bridge.delivery.factory import build_form, is_batched, load_transform
from bridge.delivery.failure_record import Reporting
from bridge.delivery.limits import Gate, fair_shares
from bridge.delivery.loop_guard import LoopGuard
from bridge.delivery.parking import ReadBacklog
from bridge.delivery.target import Target
from bridge.delivery.tenant import tenant_reader
from bridge.lsn import LSN
from bridge.observe import log as log_events
from bridge.observe.status import TriggerMode, TriggerState, TriggerStatus
from bridge.pgoutput.assembler import Route
from bridge.pgoutput.messages import RelationMessage
from bridge.pgoutput.schema_guard import SchemaGuard
from bridge.secret import SecretResolver
from bridge.store.protocol import NO_BACKLOGS, NO_LETTER_KEYS, BacklogSize, LetterKeys, Progress
from bridge.triggers.envelope import Envelope
from bridge.triggers.shape import Shape

OWN_MESSAGES = "pgbridge."
"""Logical messages with such a prefix are our own: they are never events."""


log = structlog.get_logger("pgbridge.roster")


class Roster:
    """
    Args:
        settings: of all triggers; disabled ones get no dispatcher.
        targets: by trigger, of the enabled ones.
        clock: the time.
        moved: called when something settled.
        failed: called with a bug of ours.
        observer: told of each invocation.
        read_backlog: reads a page of a trigger's backlog.
        pause_changed: called when a trigger began or ceased to wait for somebody to resume it.
    """

    def __init__(
        self,
        settings: Settings,
        targets: Mapping[str, Target],
        *,
        clock: Clock,
        moved: Callable[[], None],
        failed: Callable[[BaseException], None],
        observer: Observer,
        read_backlog: ReadBacklog | None = None,
        pause_changed: Callable[[], None] | None = None,
    ) -> None:
        self.dispatchers: dict[str, Dispatcher] = {}
        self._settings = settings
        self._targets = targets
        self._clock = clock
        self._moved = moved
        self._failed = failed
        self._observer = observer
        self._pause_changed = pause_changed
        self._shares: dict[str, int] = {}
        self.gates = {
            name: Gate(trigger.maximum_concurrency, trigger.maximum_invocations_per_second)
            for name, trigger in settings.triggers.items()
        }
        """By trigger, the limits of its target, for whoever else calls it."""
        self.guards = {
            name: SchemaGuard()
            for name, trigger in settings.triggers.items()
            if trigger.enabled and trigger.on_schema_change == "pause"
        }
        """Of the triggers that stop at schema changes."""
        self._read_backlog = read_backlog
        self._shapes: dict[str, Shape] = {}
        self._transforms = {
            name: load_transform(trigger.transform, trigger=name)
            for name, trigger in settings.triggers.items()
            if trigger.enabled
        }
        self._selections = {
            name: selection.of(name)
            for name, trigger in settings.triggers.items()
            if (selection := trigger.selection) is not None
        }

    async def fetch_keys(self, secrets: SecretResolver) -> None:
        """Read what masks hash with; before the first stream starts."""
        for name, trigger in self._settings.triggers.items():
            if trigger.enabled and name not in self._shapes:
                self._shapes[name] = trigger.shape(await secrets.fetch_all(trigger.mask_keys))

    def restore_guards(self, items: Mapping[str, Mapping[str, str]]) -> None:
        """Give the guards what was stored of them, by trigger; before the first stream starts."""
        for name in self.guards:
            self.guards[name] = SchemaGuard.restore(items.get(name, {}))

    def start(
        self,
        progress: Progress,
        start_lsn: LSN,
        system_identifier: str,
        backlogs: Mapping[str, BacklogSize] = NO_BACKLOGS,
        letter_keys: Mapping[str, LetterKeys] = NO_LETTER_KEYS,
    ) -> None:
        """
        On the first stream make the dispatchers; on later ones they stay, with what they have in hand.

        Args:
            progress: as claimed.
            start_lsn: where the stream starts.
            system_identifier: of the source's cluster.
            backlogs: by trigger, what is in the table; of the first stream alone.
            letter_keys: of the triggers that hold back the keys of their dead letters; of the first stream alone.
        """
        if not self._shares:
            self._share_out()
        for name, target in self._targets.items():
            if name not in self.dispatchers:
                checkpoint = progress.checkpoints.get(name, Position(start_lsn, -1))
                self.dispatchers[name] = self._dispatcher(
                    name,
                    target,
                    checkpoint,
                    system_identifier,
                    stored=backlogs.get(name),
                    letters=letter_keys.get(name),
                )

    @property
    def received(self) -> Position | None:
        """The newest change that any trigger has in hand or has settled; None before the first stream."""
        return max((dispatcher.tracker.received for dispatcher in self.dispatchers.values()), default=None)

    def _share_out(self) -> None:
        """The calls at once of each trigger: as its settings say, less where the system has no connections for all."""
        wanted = {
            name: min(trigger.parallelization_factor, trigger.maximum_concurrency or trigger.parallelization_factor)
            for name in self._targets
            for trigger in [self._settings.triggers[name]]
        }
        allowed = connections_allowed(sum(wanted.values()))
        self._shares = fair_shares(wanted, allowed)
        for name, share in self._shares.items():
            if share < wanted[name]:
                log.warning(
                    log_events.FEWER_CONNECTIONS,
                    trigger=name,
                    calls_at_once=share,
                    wanted=wanted[name],
                    remedy="raise the process's limit of open files (ulimit -n, LimitNOFILE, nofile)",
                )

    def holding_keys(self) -> list[str]:
        """The enabled triggers with `on_dead_letter: hold_key`."""
        return [name for name in self._targets if self._settings.triggers[name].on_dead_letter == "hold_key"]

    def _dispatcher(
        self,
        name: str,
        target: Target,
        checkpoint: Position,
        system_identifier: str,
        *,
        stored: BacklogSize | None,
        letters: LetterKeys | None,
    ) -> Dispatcher:
        trigger = self._settings.triggers[name]
        batched = is_batched(trigger)
        envelope = Envelope(
            name,
            system_identifier,
            form=build_form(name, system_identifier, trigger.target.envelope),
            transform=self._transforms[name],
        )
        window = Window(
            batch_size=trigger.batch_size if batched else 1,
            seconds=trigger.maximum_batching_window_in_seconds,
            max_bytes=int(trigger.maximum_batch_bytes / envelope.growth),
            event_overhead_bytes=envelope.event_overhead_bytes,
        )
        column = None if trigger.target.lambda_ is None else trigger.target.lambda_.tenant_id_column
        grouping = None if column is None else by_group(tenant_reader(column, envelope.event), window)
        return Dispatcher(
            name,
            target=target,
            envelope=envelope,
            batched=batched,
            window=window if grouping is None else wider(window),
            policy=Policy(
                maximum_retry_attempts=trigger.maximum_retry_attempts,
                maximum_record_age_seconds=trigger.maximum_record_age_in_seconds,
                bisect_on_error=trigger.bisect_batch_on_function_error,
            ),
            parallelization_factor=self._shares[name],
            checkpoint=checkpoint,
            clock=self._clock,
            moved=self._moved,
            failed=self._failed,
            observer=self._observer,
            circuit=Circuit(
                Limits(
                    failure_rate=trigger.circuit_breaker.failure_rate,
                    minimum_invocations=trigger.circuit_breaker.minimum_invocations,
                    window_seconds=trigger.circuit_breaker.window_in_seconds,
                )
            ),
            grouping=grouping,
            gate=self.gates[name],
            loop_guard=LoopGuard(trigger.loop_guard),
            guard=self.guards.get(name),
            held=HeldKeys(letters.keys, barrier=letters.barrier) if letters is not None else None,
            reporting=None if trigger.on_failure is None else Reporting(trigger.target.display_name),
            backlog=None if self._read_backlog is None else Backlog(self._bounds(name), stored),
            read_backlog=self._read_backlog,
            pause_changed=self._pause_changed,
        )

    def _bounds(self, name: str) -> Bounds:
        bounds = self._settings.backlog_of(name)
        return Bounds(bounds.after_bytes, bounds.after_wal_bytes, bounds.after_seconds)

    # -- routes --------------------------------------------------------------------------------------------------------

    def routes(self, relation: RelationMessage) -> list[Route]:
        """Which triggers want changes of a relation, and in what shape."""
        return [
            self._route(name, trigger, frozenset(trigger.operations) - {"message"})
            for name, trigger in self._at_work()
            if trigger.table_selection.matches(relation.namespace, relation.name)
        ]

    def message_routes(self, prefix: str) -> list[Route]:
        """Which triggers want logical messages with a prefix."""
        if prefix.startswith(OWN_MESSAGES):
            return []
        return [
            self._route(name, trigger, frozenset({"message"}))
            for name, trigger in self._at_work()
            if "message" in trigger.operations
        ]

    def _at_work(self) -> Iterator[tuple[str, TriggerSettings]]:
        return ((name, self._settings.triggers[name]) for name in self.dispatchers)

    def _route(self, name: str, trigger: TriggerSettings, operations: frozenset[str]) -> Route:
        dispatcher = self.dispatchers[name]
        return Route(
            trigger=name,
            shape=self._shapes[name],
            operations=operations,
            inbox=dispatcher.inbox,
            received=dispatcher.tracker.received,
            selection=self._selections.get(name),
            guard=self.guards.get(name),
        )

    # -- how they stand ------------------------------------------------------------------------------------------------

    def status(
        self, received_lsn: LSN | None, filtered: Mapping[str, int], letters: Mapping[str, int] | None
    ) -> tuple[TriggerStatus, ...]:
        """
        Every trigger of the settings.

        Args:
            received_lsn: as far as the server has sent.
            filtered: by trigger, changes that its filter refused.
            letters: by trigger, dead letters in the table; None where that is not known.
        """
        return tuple(
            self._status(name, received_lsn, filtered.get(name, 0), None if letters is None else letters.get(name, 0))
            for name in self._settings.triggers
        )

    def _status(self, name: str, received_lsn: LSN | None, filtered: int, letters: int | None) -> TriggerStatus:
        trigger = self._settings.triggers[name]
        status = TriggerStatus(
            name=name,
            target=trigger.target.display_name,
            state=TriggerState.RUNNING if trigger.enabled else TriggerState.DISABLED,
            filtered=filtered,
            dead_letters=letters,
        )
        dispatcher = self.dispatchers.get(name)
        if dispatcher is None:
            return status
        oldest, counters, pause = dispatcher.tracker.oldest, dispatcher.counters, dispatcher.pause_reason
        backlog = dispatcher.backlog
        waits_since = [] if oldest is None else [oldest.transaction.committed_at]
        if backlog is not None and backlog.oldest_committed_at is not None:
            waits_since.append(backlog.oldest_committed_at)
        lag_bytes = 0 if oldest is None or received_lsn is None else received_lsn - oldest.transaction.previous_end_lsn
        return replace(
            status,
            state=TriggerState.PAUSED if pause else status.state,
            paused_reason=f"{pause.reason}; {pause.remedy}" if pause else None,
            mode=None if backlog is None else TriggerMode.LIVE if backlog.is_live else TriggerMode.BACKLOG,
            lag_seconds=max([0.0, *(self._clock.now() - since for since in waits_since)]),
            lag_bytes=lag_bytes,
            waiting=len(dispatcher.tracker) + (0 if backlog is None else backlog.in_memory),
            waiting_bytes=dispatcher.buffered_bytes,
            backlog_events=None if backlog is None else backlog.stored.events,
            backlog_bytes=None if backlog is None else backlog.stored.body_bytes,
            in_flight=dispatcher.in_flight,
            retrying=dispatcher.retrying_events,
            filtered=filtered + counters.filtered,
            delivered=counters.delivered,
            dead_lettered=counters.dead_lettered,
            failed_invocations=counters.failed_invocations,
            last_error=counters.last_error or None,
            last_error_at=counters.last_error_at,
        )
