"""When a target counts as down, what that costs its records, and what becomes of those whose attempts are spent."""

from __future__ import annotations

import math

import pytest

from bridge.change import Event, Position, Transaction
from bridge.delivery.circuit import Circuit, Limits, Sign, Turn, sign_of
from bridge.delivery.decide import Charge, Condition, GivenUp
from bridge.delivery.outcome import (
    Accepted,
    Busy,
    Delivered,
    Evidence,
    Failed,
    Misconfigured,
    Partial,
    Rejected,
    TooLarge,
)
from bridge.lsn import LSN

EVIDENCE = Evidence("HTTP 500", status=500)
FAILED = Failed(EVIDENCE)
WALL = 1_700_000_000.0
"""What the wall clock shows at monotonic time 0."""


def event(number: int) -> Event:
    transaction = Transaction(1000 + number, 900, 0.0, number)
    return Event(Position(LSN(1000 + number), 0).event_id.encode(), transaction, 0, None, None, "t", "insert", b"{")


def given_up(number: int, failed_first: float, *, certain: bool = False) -> GivenUp:
    return GivenUp(event(number), EVIDENCE, Charge(9, WALL + failed_first), certain)


class Bench:
    def __init__(self, **limits) -> None:
        self.circuit = Circuit(Limits(**limits))

    def call(self, now: float, outcome=FAILED, numbers=(1,), *, began: float | None = None, **more) -> Turn:
        began = now if began is None else began
        events = [event(n) for n in numbers]
        return self.circuit.observe(outcome, events, began_at=WALL + began, began=began, now=now, **more)

    def calls(self, count: int, now: float, outcome=FAILED) -> list[Turn]:
        return [self.call(now, outcome, (n,)) for n in range(count)]


@pytest.mark.parametrize(
    ("outcome", "sign"),
    [
        (Delivered(), Sign.WORKS),
        (Accepted(), Sign.WORKS),
        (Partial(frozenset("a"), EVIDENCE), Sign.WORKS),
        (Partial(frozenset("abc"), EVIDENCE), Sign.FAILS),
        (FAILED, Sign.FAILS),
        (Rejected(EVIDENCE), Sign.FAILS),
        (Rejected(EVIDENCE, final=True), Sign.NOTHING),
        (Busy(EVIDENCE), Sign.NOTHING),
        (Misconfigured(EVIDENCE, "grant it"), Sign.NOTHING),
        (TooLarge(EVIDENCE), Sign.NOTHING),
    ],
)
def test_what_an_outcome_says_about_the_target(outcome, sign):
    assert sign_of(outcome, 3) is sign


def test_it_opens_at_the_minimum_of_calls_and_not_before():
    bench = Bench()
    assert bench.calls(20, 0.0) == [Turn.NONE] * 19 + [Turn.OPENED]
    assert bench.circuit.reason == "the circuit is open: 20 of 20 invocations failed within 60 s"


def test_it_opens_at_the_failure_rate_and_not_below():
    below, at = Bench(), Bench()
    for bench, successes in ((below, 3), (at, 2)):
        bench.calls(successes, 0.0, Delivered())
    assert Turn.OPENED not in below.calls(18, 0.0)
    assert at.calls(18, 0.0)[-1] is Turn.OPENED


def test_what_is_older_than_the_window_does_not_count():
    bench = Bench()
    bench.calls(1000, 0.0, Delivered())
    assert Turn.OPENED not in bench.calls(100, 30.0)
    assert bench.call(61.5, numbers=(1000,)) is Turn.OPENED
    late = Bench()
    late.calls(19, 0.0)
    assert late.call(61.5, numbers=(1000,)) is Turn.NONE


def test_busy_and_misconfigured_calls_count_for_nothing():
    bench = Bench()
    assert bench.calls(100, 0.0, Busy(EVIDENCE)) == [Turn.NONE] * 100
    assert bench.calls(100, 0.0, Misconfigured(EVIDENCE, "grant it")) == [Turn.NONE] * 100
    assert bench.calls(19, 0.0)[-1] is Turn.NONE


def test_one_record_alone_never_opens_it_however_often_it_fails():
    bench = Bench()
    assert bench.call(0.0, numbers=range(100)) is Turn.NONE
    for _ in range(50):
        assert bench.call(1.0, numbers=(7,)) is Turn.NONE
    assert bench.call(2.0, numbers=(8,)) is Turn.OPENED


def test_probes_come_after_pauses_that_grow_to_a_minute():
    bench = Bench()
    bench.calls(20, 0.0)
    pauses, now = [], 0.0
    for _ in range(8):
        pauses.append(bench.circuit.probe_pause(now))
        now += pauses[-1]
        bench.call(now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_what_was_in_flight_when_it_opened_is_no_probe():
    bench = Bench()
    bench.calls(20, 10.0)
    bench.call(10.5, began=9.0)
    assert bench.circuit.probe_pause(10.5) == 0.5


def test_a_probe_waits_as_long_as_the_target_asks():
    bench = Bench()
    bench.calls(19, 0.0)
    bench.call(0.0, Failed(EVIDENCE, retry_after_seconds=30.0), (50,))
    assert bench.circuit.probe_pause(0.0) == 30.0


def test_one_success_closes_it_and_what_failed_before_is_forgotten():
    bench = Bench()
    bench.calls(20, 0.0)
    assert bench.call(1.0, Delivered()) is Turn.CLOSED
    assert not bench.circuit.is_open
    assert bench.calls(20, 1.0) == [Turn.NONE] * 19 + [Turn.OPENED]


def test_a_record_that_others_passed_by_is_given_up_at_once():
    circuit_bench = Bench()
    circuit_bench.call(5.0, Delivered())
    record = given_up(1, failed_first=4.0)
    assert circuit_bench.circuit.examine([record]) == [record]


def test_a_success_of_before_its_first_failure_does_not_convict_a_record():
    bench = Bench()
    bench.call(5.0, Delivered(), began=3.0)
    assert bench.circuit.examine([given_up(1, failed_first=4.0)]) == []
    assert bench.circuit.settle_doubts(idle=False) == []
    bench.call(7.0, Delivered(), began=6.5)
    assert [record.event.id for record in bench.circuit.settle_doubts(idle=False)] == [event(1).id]
    assert bench.circuit.doubted == 0


def test_what_is_certain_is_given_up_whatever_the_target_does():
    bench = Bench()
    record = given_up(1, failed_first=4.0, certain=True)
    assert bench.circuit.examine([record]) == [record]


def test_a_doubt_ends_when_nothing_else_is_left_to_try():
    bench = Bench()
    bench.circuit.examine([given_up(1, failed_first=0.0)])
    assert bench.circuit.settle_doubts(idle=False) == []
    assert len(bench.circuit.settle_doubts(idle=True)) == 1
    assert bench.circuit.doubted == 0


def test_with_doubted_records_enough_failures_in_a_row_open_it_whatever_came_before():
    bench = Bench()
    bench.calls(1000, 0.0, Delivered())
    bench.calls(20, 1.0)
    assert not bench.circuit.is_open
    bench.circuit.examine([given_up(1, failed_first=1.0)])
    assert bench.circuit.reconsider(1.0) is Turn.OPENED
    assert bench.circuit.reason == "the circuit is open: the last 20 invocations failed"
    assert bench.circuit.reconsider(1.0) is Turn.NONE


def test_failures_of_a_quiet_trigger_are_in_a_row_however_far_apart_they_are():
    bench = Bench()
    for number in range(19):
        bench.call(number * 3600.0, numbers=(number,))
        bench.circuit.examine([given_up(number, failed_first=number * 3600.0)])
        assert bench.circuit.reconsider(number * 3600.0) is Turn.NONE
        assert len(bench.circuit.settle_doubts(idle=True)) == 1
    bench.circuit.examine([given_up(19, failed_first=19 * 3600.0)])
    assert bench.call(19 * 3600.0, numbers=(19,)) is Turn.OPENED
    assert bench.circuit.reason == "the circuit is open: the last 20 invocations failed"


def test_a_success_ends_the_row():
    bench = Bench()
    bench.calls(19, 0.0)
    bench.call(100.0, Delivered())
    bench.circuit.examine([given_up(1, failed_first=200.0)])
    assert bench.calls(19, 200.0) == [Turn.NONE] * 19


def test_failures_of_records_that_others_have_passed_by_say_nothing_about_the_target():
    bench = Bench()
    bench.call(5.0, Delivered())
    suspects = {event(number).id: Charge(1, WALL + 4.0) for number in range(1, 30)}
    for number in range(1, 30):
        assert bench.call(6.0, numbers=(number, number + 100), charges=suspects) is Turn.NONE
    # What failed first after that success is no suspect.
    fresh = {event(number).id: Charge(1, WALL + 5.5) for number in range(1, 30)}
    assert Turn.OPENED in [bench.call(7.0, numbers=(number,), charges=fresh) for number in range(1, 30)]


def test_after_a_probe_batches_that_fail_for_the_first_time_say_nothing_until_one_succeeds():
    bench = Bench()
    bench.calls(20, 0.0)
    assert bench.call(1.0, Delivered(), (1,)) is Turn.CLOSED
    pairs = [(number, number + 100) for number in range(2, 40)]
    assert {bench.call(2.0, numbers=pair) for pair in pairs} == {Turn.NONE}
    # Of one event each, or failing again, they do.
    single = Bench()
    single.calls(20, 0.0)
    single.call(1.0, Delivered(), (1,))
    assert Turn.OPENED in [single.call(2.0, numbers=(number,)) for number in range(2, 40)]
    charges = {event(number).id: Charge(1, WALL + 1.5) for number in range(2, 40)}
    assert Turn.OPENED in [bench.call(3.0, numbers=pair, charges=charges) for pair in pairs]


REFUSED = Rejected(EVIDENCE)


def refused(number: int, at: float) -> GivenUp:
    return GivenUp(event(number), EVIDENCE, Charge(1, WALL + at), condition=Condition.RECORD_REJECTED)


def test_what_a_target_refuses_that_accepts_others_is_given_up_at_once():
    bench = Bench()
    bench.call(0.0, Delivered())
    assert {bench.call(59.0, REFUSED, (number,)) for number in range(100)} == {Turn.NONE}
    record = refused(1, at=59.0)
    assert bench.circuit.examine([record]) == [record]


def test_so_is_what_is_refused_in_the_first_calls_of_all():
    bench = Bench()
    assert {bench.call(5.0, REFUSED, (number,)) for number in range(100)} == {Turn.NONE}
    record = refused(1, at=5.0)
    assert bench.circuit.examine([record]) == [record]


def test_a_target_that_has_accepted_nothing_for_the_window_and_refuses_all_is_down():
    bench = Bench()
    bench.call(0.0, Delivered())
    assert bench.call(61.0, REFUSED, (100,)) is Turn.NONE
    assert bench.circuit.examine([refused(100, at=61.0)]) == []
    assert Turn.OPENED in [bench.call(61.0, REFUSED, (number,)) for number in range(20)]


def test_so_is_one_that_refuses_very_many_in_a_row():
    bench = Bench()
    bench.call(0.0, Delivered())
    turns = [bench.call(1.0, REFUSED, (number,)) for number in range(300)]
    # Ten times the minimum of calls, and then as many, with the success among them.
    assert turns.index(Turn.OPENED) == 218


def test_after_a_batch_has_succeeded_batches_count_again():
    bench = Bench()
    bench.calls(20, 0.0)
    bench.call(1.0, Delivered(), (1,))
    bench.call(1.0, Delivered(), (2, 3))
    assert Turn.OPENED in [bench.call(2.0, numbers=(number, number + 100)) for number in range(2, 40)]


def test_a_call_that_never_reached_the_target_is_explained_by_no_record():
    bench = Bench()
    suspects = {event(1).id: Charge(1, WALL - 1.0)}
    bench.call(0.0, Delivered())
    unsent = Failed(EVIDENCE, unsent=True)
    turns = [bench.call(1.0, unsent, (1,), charges=suspects) for _ in range(20)]
    assert Turn.OPENED in turns


def test_doubted_records_are_sent_again_when_it_opens():
    bench = Bench()
    bench.circuit.examine([given_up(1, failed_first=0.0)])
    assert bench.circuit.take_back() == []
    bench.calls(20, 1.0)
    assert bench.circuit.settle_doubts(idle=True) == []
    assert [record.event.id for record in bench.circuit.take_back()] == [event(1).id]
    assert bench.circuit.take_back() == []


def test_closed_by_hand_it_stays_closed_and_gives_up_as_configured_until_a_success():
    bench = Bench()
    bench.calls(20, 0.0)
    bench.circuit.reset()
    assert Turn.OPENED not in bench.calls(50, 1.0)
    record = given_up(1, failed_first=0.0)
    assert bench.circuit.examine([record]) == [record]
    bench.call(70.0, Delivered())
    assert bench.calls(20, 200.0)[-1] is Turn.OPENED


def test_it_starts_without_a_success_to_convict_anyone():
    assert Circuit().alive_at == -math.inf
    assert Circuit().examine([given_up(1, failed_first=0.0)]) == []


def test_a_fast_trigger_costs_no_memory_for_each_call():
    bench = Bench()
    for call in range(20_000):
        bench.call(call / 100, Delivered())
    assert len(bench.circuit._slices) <= 60
    assert bench.circuit._calls == sum(calls for _, calls, _ in bench.circuit._slices) <= 6000
