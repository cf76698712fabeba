"""
The metrics at `/metrics`. Names use ESM's words where it has them.

Nothing is counted here change by change: the service hands over a snapshot's totals when somebody scrapes, and only
what no snapshot has (durations, classes of retries) is recorded, once for each invocation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from bridge.observe.status import ServiceState, ServiceStatus, TriggerMode, TriggerState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

ITERATOR_AGE: Final = "pgbridge_iterator_age_seconds"
INVOKED_EVENTS: Final = "pgbridge_invoked_events_total"
FAILED_INVOCATIONS: Final = "pgbridge_failed_invocations_total"
DROPPED_EVENTS: Final = "pgbridge_dropped_events_total"
FILTERED_OUT_EVENTS: Final = "pgbridge_filtered_out_events_total"
POLLED_CHANGES: Final = "pgbridge_polled_changes_total"
IN_FLIGHT_BATCHES: Final = "pgbridge_in_flight_batches"
WAITING_CHANGES: Final = "pgbridge_waiting_changes"
WAITING_BYTES: Final = "pgbridge_waiting_bytes"
RETRYING_CHANGES: Final = "pgbridge_retrying_changes"
BACKLOG_EVENTS: Final = "pgbridge_backlog_events"
BACKLOG_BYTES: Final = "pgbridge_backlog_bytes"
TRIGGER_IN_BACKLOG: Final = "pgbridge_trigger_in_backlog"
DEAD_LETTERS: Final = "pgbridge_dead_letters"
TRIGGER_PAUSED: Final = "pgbridge_trigger_paused"
RETRIES: Final = "pgbridge_retries_total"
INVOCATION_DURATION: Final = "pgbridge_invocation_duration_seconds"
BUFFERED_BYTES: Final = "pgbridge_buffered_bytes"
SLOT_RETAINED_BYTES: Final = "pgbridge_slot_retained_bytes"
SLOT_SAFE_WAL_BYTES: Final = "pgbridge_slot_safe_wal_bytes"
CONFIRMED_LSN: Final = "pgbridge_confirmed_lsn"
RECEIVED_LSN: Final = "pgbridge_received_lsn"
IGNORED_CONTEXTS: Final = "pgbridge_ignored_contexts_total"
SCHEMA_CHANGES: Final = "pgbridge_schema_changes_total"
RECONNECTS: Final = "pgbridge_reconnects_total"
STREAMING: Final = "pgbridge_streaming"
INFO: Final = "pgbridge_info"

# A series of its own for when each counter was made, which nobody reads in this format.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client left this one bare

DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""Seconds; from a warm function to the longest that Lambda runs."""


class Metrics:
    """
    All metrics of one process, in a registry of their own.

    Attributes:
        invocation_duration: seconds that an invocation took; label trigger. Observe once per invocation.
        failed_invocations: invocations that did not succeed whole; labels trigger and class (failed, busy, partial,
            misconfigured, too_large, rejected). Add once per invocation.
        retries: changes put back for another attempt; the same labels. Add their number once per invocation.
    """

    def __init__(self, snapshot: Callable[[], ServiceStatus] | None = None) -> None:
        registry = CollectorRegistry(auto_describe=True)
        labels = ["trigger", "class"]
        self.invocation_duration = Histogram(
            INVOCATION_DURATION,
            "Seconds that an invocation took.",
            ["trigger"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.failed_invocations = Counter(
            FAILED_INVOCATIONS, "Invocations that failed in whole or in part.", labels, registry=registry
        )
        self.retries = Counter(RETRIES, "Changes put back for another attempt.", labels, registry=registry)
        self._registry = registry
        if snapshot is not None:
            self.watch(snapshot)

    def watch(self, snapshot: Callable[[], ServiceStatus]) -> None:
        """Take the rest from this snapshot, at each scrape."""
        self._registry.register(_FromSnapshot(snapshot))

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)


class _FromSnapshot(Collector):
    """Turns a snapshot into samples when Prometheus scrapes."""

    def __init__(self, snapshot: Callable[[], ServiceStatus]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        # Without it the registry would take a snapshot while the service is still being built.
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        status = self._snapshot()
        yield from _of_service(status)
        yield from _of_triggers(status)


def _gauge(name: str, help_text: str, value: float | None) -> Iterable[GaugeMetricFamily]:
    """A gauge; absent where the value is not known, for 0 would be a claim."""
    if value is not None:
        yield GaugeMetricFamily(name, help_text, value=value)


def _of_service(status: ServiceStatus) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
    info = GaugeMetricFamily(INFO, "1, with the version.", labels=["version"])
    info.add_metric([status.version], 1)
    yield info
    yield CounterMetricFamily(POLLED_CHANGES, "Changes read from the slot.", value=status.polled_changes)
    yield CounterMetricFamily(RECONNECTS, "Connections to the source after the first.", value=status.reconnects)
    yield CounterMetricFamily(
        IGNORED_CONTEXTS,
        "Messages with the prefix pgbridge.context that were no context.",
        value=status.ignored_contexts,
    )
    yield CounterMetricFamily(SCHEMA_CHANGES, "Tables described differently from before.", value=status.schema_changes)
    yield from _gauge(STREAMING, "1 while the slot is being read.", status.state is ServiceState.STREAMING)
    yield from _gauge(BUFFERED_BYTES, "Bytes of changes held in memory.", status.buffered_bytes)
    yield from _gauge(RECEIVED_LSN, "Position read from the slot, in bytes of WAL.", status.received_lsn)
    yield from _gauge(CONFIRMED_LSN, "Position confirmed to the slot, in bytes of WAL.", status.confirmed_lsn)
    if status.slot is not None:
        yield from _gauge(SLOT_RETAINED_BYTES, "WAL that the server keeps for the slot.", status.slot.retained_bytes)
        yield from _gauge(
            SLOT_SAFE_WAL_BYTES, "WAL that may be written before the slot is in danger.", status.slot.safe_wal_bytes
        )


def _of_triggers(status: ServiceStatus) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
    label = ["trigger"]
    age = GaugeMetricFamily(ITERATOR_AGE, "Age of the oldest unsettled change, from its commit.", labels=label)
    invoked = CounterMetricFamily(INVOKED_EVENTS, "Changes delivered.", labels=label)
    dropped = CounterMetricFamily(DROPPED_EVENTS, "Changes put among the dead letters.", labels=label)
    filtered = CounterMetricFamily(FILTERED_OUT_EVENTS, "Changes that the filter criteria left out.", labels=label)
    in_flight = GaugeMetricFamily(IN_FLIGHT_BATCHES, "Batches in flight.", labels=label)
    waiting = GaugeMetricFamily(WAITING_CHANGES, "Changes in memory.", labels=label)
    waiting_bytes = GaugeMetricFamily(WAITING_BYTES, "Bytes of changes in memory.", labels=label)
    retrying = GaugeMetricFamily(RETRYING_CHANGES, "Changes that wait for another attempt.", labels=label)
    parked = GaugeMetricFamily(BACKLOG_EVENTS, "Changes in the backlog table.", labels=label)
    parked_bytes = GaugeMetricFamily(BACKLOG_BYTES, "Bytes of changes in the backlog table.", labels=label)
    away = GaugeMetricFamily(TRIGGER_IN_BACKLOG, "1 while the trigger delivers from the backlog table.", labels=label)
    letters = GaugeMetricFamily(DEAD_LETTERS, "Dead letters in the table.", labels=label)
    paused = GaugeMetricFamily(TRIGGER_PAUSED, "1 while the trigger is paused.", labels=label)
    for trigger in status.triggers:
        name = [trigger.name]
        if trigger.lag_seconds is not None:
            age.add_metric(name, trigger.lag_seconds)
        invoked.add_metric(name, trigger.delivered)
        dropped.add_metric(name, trigger.dead_lettered)
        filtered.add_metric(name, trigger.filtered)
        in_flight.add_metric(name, trigger.in_flight)
        waiting.add_metric(name, trigger.waiting)
        waiting_bytes.add_metric(name, trigger.waiting_bytes)
        retrying.add_metric(name, trigger.retrying)
        if trigger.backlog_events is not None:
            parked.add_metric(name, trigger.backlog_events)
        if trigger.backlog_bytes is not None:
            parked_bytes.add_metric(name, trigger.backlog_bytes)
        if trigger.mode is not None:
            away.add_metric(name, trigger.mode is TriggerMode.BACKLOG)
        if trigger.dead_letters is not None:
            letters.add_metric(name, trigger.dead_letters)
        paused.add_metric(name, trigger.state is TriggerState.PAUSED)
    yield from (age, invoked, dropped, filtered, in_flight, waiting, waiting_bytes, retrying)
    yield from (parked, parked_bytes, away, letters, paused)
