"""Metrics: taken from a snapshot when asked, in the format that Prometheus reads."""

from __future__ import annotations

import dataclasses

from prometheus_client.parser import text_string_to_metric_families

from bridge.lsn import LSN
from bridge.observe import metrics as names
from bridge.observe.metrics import Metrics
from bridge.observe.status import ServiceState, ServiceStatus, SlotStatus, TriggerState, TriggerStatus

STATUS = ServiceStatus(
    ServiceState.STREAMING,
    version="0.1.0",
    slot=SlotStatus("s", retained_bytes=4096, safe_wal_bytes=None),
    received_lsn=LSN(200),
    confirmed_lsn=LSN(100),
    buffered_bytes=7,
    polled_changes=11,
    reconnects=2,
    schema_changes=4,
    triggers=(
        TriggerStatus("a", "lambda:a", lag_seconds=1.5, delivered=5, dead_lettered=1, filtered=3, in_flight=2, waiting=4,
                      waiting_bytes=90, retrying=1, dead_letters=6),
        TriggerStatus("b", "lambda:b", TriggerState.PAUSED, lag_seconds=None, dead_letters=None),
    ),
)  # fmt: skip


def samples(metrics: Metrics) -> dict[tuple[str, str | None], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, s.labels.get("trigger")): s.value for family in families for s in family.samples}


def test_totals_and_gauges_come_from_the_snapshot():
    found = samples(Metrics(lambda: STATUS))
    assert {name: found[name, "a"] for name, trigger in found if trigger == "a"} == {
        names.ITERATOR_AGE: 1.5,
        names.INVOKED_EVENTS: 5,
        names.DROPPED_EVENTS: 1,
        names.FILTERED_OUT_EVENTS: 3,
        names.IN_FLIGHT_BATCHES: 2,
        names.WAITING_CHANGES: 4,
        names.WAITING_BYTES: 90,
        names.RETRYING_CHANGES: 1,
        names.DEAD_LETTERS: 6,
        names.TRIGGER_PAUSED: 0,
    }
    assert found[names.TRIGGER_PAUSED, "b"] == 1
    assert {name: found[name, None] for name in (names.POLLED_CHANGES, names.RECONNECTS, names.BUFFERED_BYTES)} == {
        names.POLLED_CHANGES: 11,
        names.RECONNECTS: 2,
        names.BUFFERED_BYTES: 7,
    }
    assert (found[names.RECEIVED_LSN, None], found[names.CONFIRMED_LSN, None]) == (200, 100)
    assert (found[names.STREAMING, None], found[names.INFO, None]) == (1, 1)
    assert found[names.SCHEMA_CHANGES, None] == 4


def test_what_is_not_known_is_absent_and_not_zero():
    found = samples(Metrics(lambda: dataclasses.replace(STATUS, received_lsn=None, slot=None)))
    assert (names.ITERATOR_AGE, "b") not in found
    assert (names.DEAD_LETTERS, "b") not in found
    assert (names.RECEIVED_LSN, None) not in found
    assert (names.SLOT_RETAINED_BYTES, None) not in found
    assert (names.SLOT_SAFE_WAL_BYTES, None) not in samples(Metrics(lambda: STATUS))


def test_a_scrape_takes_one_fresh_snapshot():
    taken = []

    def snapshot() -> ServiceStatus:
        taken.append(len(taken))
        return dataclasses.replace(STATUS, polled_changes=len(taken))

    metrics = Metrics(snapshot)
    assert taken == []
    assert samples(metrics)[names.POLLED_CHANGES, None] == 1
    assert samples(metrics)[names.POLLED_CHANGES, None] == 2


def test_what_no_snapshot_has_is_recorded_per_invocation():
    metrics = Metrics(lambda: STATUS)
    metrics.invocation_duration.labels("a").observe(0.3)
    metrics.failed_invocations.labels("a", "busy").inc()
    metrics.retries.labels("a", "busy").inc(40)
    found = samples(metrics)
    assert found[f"{names.INVOCATION_DURATION}_count", "a"] == 1
    assert (found[names.FAILED_INVOCATIONS, "a"], found[names.RETRIES, "a"]) == (1, 40)


def test_two_processes_in_one_do_not_share_a_registry():
    one, other = Metrics(lambda: STATUS), Metrics(lambda: STATUS)
    one.retries.labels("a", "failed").inc()
    assert (names.RETRIES, "a") not in samples(other)


def test_a_metric_without_a_service_behind_it_renders():
    assert b"pgbridge_retries_total" in Metrics().render()
