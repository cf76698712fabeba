"""Health: lost slots and dead streams fail it, targets never do."""

from __future__ import annotations

import pytest

from bridge.observe.health import RECONNECTING_SECONDS, STREAM_SILENT_SECONDS, judge
from bridge.observe.status import ServiceState, ServiceStatus, SlotStatus, TriggerState, TriggerStatus

NOW = 1_000_000.0


def status(state: ServiceState = ServiceState.STREAMING, **fields: object) -> ServiceStatus:
    return ServiceStatus(state, **{"last_message_at": NOW - 1, "since": NOW - 1, **fields})


def test_a_streaming_process_is_live_and_ready():
    health = judge(status(), NOW)
    assert (health.live, health.ready) == (True, True)


def test_a_target_that_is_down_changes_nothing():
    paused = TriggerStatus("t", "lambda:f", TriggerState.PAUSED, "access denied", lag_seconds=86_400, dead_letters=9999)
    assert judge(status(triggers=(paused,)), NOW).ready


@pytest.mark.parametrize("state", list(ServiceState))
def test_a_lost_slot_is_neither_live_nor_ready_whatever_the_state(state):
    health = judge(status(state, slot=SlotStatus("s", wal_status="lost")), NOW)
    assert (health.live, health.ready) == (False, False)
    assert "slot s is lost" in health.not_live[0]


@pytest.mark.parametrize("wal_status", ["reserved", "extended", "unreserved", None])
def test_a_slot_that_is_only_in_danger_is_live(wal_status):
    assert judge(status(slot=SlotStatus("s", wal_status=wal_status)), NOW).live


def test_a_silent_stream_is_dead():
    assert judge(status(last_message_at=NOW - STREAM_SILENT_SECONDS), NOW).live
    health = judge(status(last_message_at=NOW - STREAM_SILENT_SECONDS - 1), NOW)
    assert (health.live, health.ready) == (False, False)
    assert health.not_live == ("the stream has been silent for 91 s",)


def test_a_stream_that_nobody_reads_just_now_is_not_called_silent():
    assert judge(status(last_message_at=None), NOW).ready


def test_reconnecting_is_live_for_a_while_and_never_ready():
    short = judge(status(ServiceState.RECONNECTING, reason="connection refused", since=NOW - 5), NOW)
    assert (short.live, short.not_ready) == (True, ("reconnecting: connection refused",))
    long = judge(status(ServiceState.RECONNECTING, since=NOW - RECONNECTING_SECONDS - 1), NOW)
    assert not long.live


@pytest.mark.parametrize("state", [ServiceState.STARTING, ServiceState.STANDING_BY, ServiceState.DRAINING])
def test_a_process_on_its_way_is_live_but_not_ready(state):
    health = judge(status(state), NOW)
    assert (health.live, health.ready) == (True, False)


def test_a_stopped_process_is_dead_and_says_why_once():
    health = judge(status(ServiceState.STOPPED, reason="slot s is lost", slot=SlotStatus("s", wal_status="lost")), NOW)
    assert health.not_live == health.not_ready == ("stopped: slot s is lost",)
    assert judge(status(ServiceState.STOPPED), NOW).not_live == ("stopped",)
