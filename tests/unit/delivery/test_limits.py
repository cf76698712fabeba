"""Limits of calls: at once, in a second, and of connections among triggers."""

from __future__ import annotations

import asyncio
import random

import pytest

from bridge.clock import SystemClock
from bridge.delivery import descriptors
from bridge.delivery.descriptors import FEWEST, RESERVED, connections_allowed
from bridge.delivery.gated import GatedTarget
from bridge.delivery.limits import Gate, fair_shares
from bridge.delivery.outcome import Delivered
from bridge.delivery.target import Invocation
from bridge.testing import MemoryTarget


@pytest.mark.parametrize("per_second", [1, 3, 10, 0.5, 2.5])
def test_no_more_calls_begin_in_a_second_than_the_limit_and_no_fewer_than_it_allows(per_second):
    gate, now, begun = Gate(per_second=per_second), 0.0, []
    rng = random.Random(1)
    while now < 60:
        if gate.may_begin(now):
            gate.begin(now)
            begun.append(now)
            gate.end()
        else:
            now = gate.ready_at(now) if rng.random() < 0.5 else now + rng.random() / 20
    assert len(begun) >= 60 * per_second * 0.9
    period = max(1.0, 1 / per_second) if per_second != 2.5 else 1.2
    for start in begun:
        assert sum(start <= other < start + period - 1e-9 for other in begun) <= period * per_second + 1e-9


def test_a_gate_without_limits_is_always_open():
    gate = Gate()
    for _ in range(5000):
        assert gate.may_begin(1.0)
        gate.begin(1.0)


def test_calls_at_once_are_limited_and_whoever_waits_is_told_of_an_end():
    gate, told = Gate(at_once=2), []
    gate.begin(0.0)
    gate.begin(0.0)
    assert gate.ready_at(0.0) is None
    wake = lambda: told.append(1)  # noqa: E731
    gate.when_one_ends(wake)
    gate.when_one_ends(wake)
    gate.end()
    assert told == [1]
    assert gate.may_begin(0.0)
    gate.end()
    assert told == [1]


@pytest.mark.parametrize(
    ("wanted", "total", "shares"),
    [
        ({"a": 10, "b": 10}, 100, {"a": 10, "b": 10}),
        ({"a": 1000, "b": 1000}, 100, {"a": 50, "b": 50}),
        ({"a": 10, "b": 1000}, 100, {"a": 10, "b": 90}),
        ({"a": 10, "b": 40, "c": 1000}, 100, {"a": 10, "b": 40, "c": 50}),
        ({"a": 5, "b": 5, "c": 5}, 2, {"a": 1, "b": 1, "c": 1}),
        ({}, 10, {}),
    ],
)
def test_connections_are_shared_out_fairly(wanted, total, shares):
    assert fair_shares(wanted, total) == shares


async def test_a_gated_target_waits_for_its_turn():
    inner, gate = MemoryTarget(), Gate(at_once=1)
    target = GatedTarget(inner, gate, SystemClock())
    held = asyncio.get_running_loop().create_future()
    inner.answer(held)
    invocation = Invocation("t", ["1"], b"{}", batched=False)
    first = asyncio.create_task(target.deliver(invocation))
    await inner.called(1)
    second = asyncio.create_task(target.deliver(invocation))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(inner.invocations) == 1
    held.set_result(Delivered())
    assert await first == await second == Delivered()


async def test_a_gated_target_keeps_the_rate():
    inner, clock = MemoryTarget(), SystemClock()
    target = GatedTarget(inner, Gate(per_second=20), clock)
    started = clock.monotonic()
    for _ in range(21):
        await target.deliver(Invocation("t", ["1"], b"{}", batched=False))
    assert clock.monotonic() - started >= 1.0


class Limits:
    RLIMIT_NOFILE, RLIM_INFINITY = 7, -1

    def __init__(self, soft, hard, *, refuses=False):
        self.soft, self.hard, self.refuses = soft, hard, refuses

    def getrlimit(self, _):
        return self.soft, self.hard

    def setrlimit(self, _, limits):
        if self.refuses:
            raise ValueError("current limit exceeds maximum limit")
        self.soft, self.hard = limits


@pytest.mark.parametrize(
    ("soft", "hard", "refuses", "wanted", "allowed", "soft_after"),
    [
        (1024, 4096, False, 100, 100, 1024),
        (1024, 4096, False, 2000, 2000, 2000 + RESERVED),
        (1024, 4096, False, 9000, 4096 - RESERVED, 4096),
        (1024, -1, False, 9000, 9000, 9000 + RESERVED),
        (1024, -1, True, 9000, 1024 - RESERVED, 1024),
        (-1, -1, False, 9000, 9000, -1),
        (64, 64, False, 100, FEWEST, 64),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_is_wanted_and_allowed(
    monkeypatch, soft, hard, refuses, wanted, allowed, soft_after
):
    limits = Limits(soft, hard, refuses=refuses)
    monkeypatch.setattr(descriptors, "resource", limits)
    assert connections_allowed(wanted) == allowed
    assert limits.soft == soft_after
