"""A trigger at work: what it sends, when, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from structlog.testing import capture_logs

from bridge.batching.groups import Grouping
from bridge.batching.held import HeldKeys
from bridge.batching.lanes import Window
from bridge.change import Event, Position, Transaction
from bridge.clock import SystemClock
from bridge.delivery.decide import Policy
from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.failure_record import Reporting
from bridge.delivery.limits import Gate
from bridge.delivery.loop_guard import LoopGuard
from bridge.delivery.outcome import (
    Busy,
    Delivered,
    Evidence,
    Failed,
    Misconfigured,
    Outcome,
    Partial,
    Rejected,
    TooLarge,
)
from bridge.lsn import LSN
from bridge.testing import ManualClock, MemoryTarget
from bridge.triggers.envelope import Envelope

EVIDENCE = Evidence("HTTP 500", status=500)


def event(number: int, key: bytes | None = None) -> Event:
    transaction = Transaction(1000 + number, 900, 0.0, number)
    event_id = Position(LSN(transaction.commit_lsn), 0).event_id.encode()
    return Event(event_id, transaction, 0, key, None, "public.t", "insert", b'{"id":"%b","metadata":{' % event_id)


class Rig:
    def __init__(self, **changes):
        self.target = MemoryTarget()
        self.moves = asyncio.Event()
        self.errors: list[BaseException] = []
        settings = {
            "batch_size": 10,
            "parallel": 2,
            "attempts": 1,
            "bisect": False,
            "batched": True,
            "wait": 0.0,
            "clock": SystemClock(),
            "grouping": None,
            "held": None,
            "reporting": None,
            "gate": None,
            "loop_guard": None,
        } | changes
        self.dispatcher = Dispatcher(
            "t",
            target=self.target,
            envelope=Envelope("t", "7"),
            batched=settings["batched"],
            window=Window(settings["batch_size"], settings["wait"], 1 << 20, 60),
            policy=Policy(settings["attempts"], -1, settings["bisect"]),
            parallelization_factor=settings["parallel"],
            checkpoint=Position(LSN(1), 0),
            clock=settings["clock"],
            moved=self.moves.set,
            failed=self.errors.append,
            grouping=settings["grouping"],
            held=settings["held"],
            reporting=settings["reporting"],
            gate=settings["gate"],
            loop_guard=settings["loop_guard"],
        )

    def admit(self, *events: Event) -> None:
        self.dispatcher.inbox.extend(events)
        self.dispatcher.admit()

    async def settled(self, count: int) -> None:
        while self.dispatcher.settled_total < count:
            await self.moves.wait()
            self.moves.clear()


async def test_events_arrive_as_records_with_the_triggers_tail():
    rig = Rig()
    rig.admit(event(1), event(2))
    await rig.settled(2)
    (invocation,) = rig.target.invocations
    assert list(invocation.ids) == ["00000000000003E9-0000000000", "00000000000003EA-0000000000"]
    first, _second = rig.target.events()
    assert first["metadata"] == {"trigger": "t", "idempotency_key": "7-t-00000000000003E9-0000000000"}
    assert rig.dispatcher.buffered_bytes == 0
    assert rig.dispatcher.tracker.checkpoint == event(2).position


async def test_no_more_calls_are_in_flight_than_the_parallelization_factor():
    rig = Rig(batch_size=1, parallel=2)
    held = [asyncio.get_running_loop().create_future() for _ in range(3)]
    rig.target.answer(*held)
    rig.admit(event(1), event(2), event(3))
    await rig.target.called(2)
    assert rig.dispatcher.in_flight == 2
    assert len(rig.target.invocations) == 2
    held[0].set_result(Delivered())
    await rig.target.called(3)
    for rest in held[1:]:
        rest.set_result(Delivered())
    await rig.settled(3)


async def test_a_record_that_keeps_failing_becomes_a_dead_letter_with_the_same_event():
    rig = Rig(attempts=1)
    one = event(1)
    rig.target.answer(
        Failed(EVIDENCE),
        Failed(Evidence("HTTP 502", detail="bad gateway", status=502, request_id="r", log_tail="tail")),
    )
    rig.admit(one)
    await rig.settled(1)
    (letter,) = rig.dispatcher.letters
    assert (letter.event_id, letter.error, letter.status, letter.attempts, letter.detail) == (
        one.id.decode(),
        "HTTP 502",
        502,
        2,
        "bad gateway",
    )
    assert letter.event == Envelope("t", "7").event(one)
    assert (letter.request_id, letter.log_tail) == ("r", "tail")
    assert letter.first_failed_at <= letter.last_failed_at
    assert {tuple(invocation.ids) for invocation in rig.target.invocations} == {(one.id.decode(),)}


async def test_what_succeeded_is_never_sent_again():
    rig = Rig(attempts=3)
    events = [event(n, b"%d" % n) for n in range(5)]
    rig.target.answer(lambda invocation: Partial(frozenset({invocation.ids[2]}), EVIDENCE))
    rig.admit(*events)
    await rig.settled(5)
    assert [list(invocation.ids) for invocation in rig.target.invocations][1:] == [[events[2].id.decode()]]


async def test_a_rejected_record_is_isolated_and_set_aside_without_another_try():
    rig = Rig(attempts=5)
    events = [event(n, b"%d" % n) for n in range(4)]
    bad = events[2].id.decode()

    def answer(invocation):
        return Rejected(Evidence("HTTP 422", status=422)) if bad in invocation.ids else Delivered()

    rig.target.answer(*[answer] * 20)
    rig.admit(*events)
    await rig.settled(4)
    assert [letter.event_id for letter in rig.dispatcher.letters] == [bad]
    assert sum(1 for invocation in rig.target.invocations if list(invocation.ids) == [bad]) == 1


async def test_a_misconfigured_target_pauses_the_trigger_and_charges_nothing():
    rig = Rig(parallel=5, batch_size=1)
    rig.target.answer(Misconfigured(Evidence("HTTP 403", status=403), "grant the right"))
    rig.admit(event(1), event(2))
    await rig.target.called(2)
    await rig.settled(1)
    assert rig.dispatcher.letters == []
    assert len(rig.target.invocations) <= 2


async def test_an_operators_pause_holds_until_resumed():
    rig = Rig()
    rig.dispatcher.pause()
    rig.admit(event(1))
    assert rig.dispatcher.in_flight == 0
    rig.dispatcher.resume()
    await rig.settled(1)


async def test_a_full_window_of_unsaved_events_waits_for_the_store():
    rig = Rig(batch_size=100, parallel=1)
    rig.admit(*[event(n) for n in range(3000)])
    await rig.settled(1000)
    await asyncio.sleep(0)
    assert rig.dispatcher.in_flight == 0
    assert rig.dispatcher.unsaved == 1000
    assert rig.dispatcher.save_is_pressing
    rig.dispatcher.saved(rig.dispatcher.settled_total)
    await rig.settled(2000)


async def test_draining_finishes_what_is_in_flight_and_sends_no_more():
    rig = Rig(batch_size=1, parallel=1)
    held = asyncio.get_running_loop().create_future()
    rig.target.answer(held)
    rig.admit(event(1), event(2))
    await rig.target.called(1)
    drained = asyncio.create_task(rig.dispatcher.drain(30))
    held.set_result(Delivered())
    assert await drained == 0
    assert len(rig.target.invocations) == 1
    assert rig.dispatcher.tracker.checkpoint == Position(LSN(1002), -1)


async def test_draining_abandons_a_call_that_takes_too_long():
    rig = Rig()
    rig.target.answer(asyncio.get_running_loop().create_future())
    rig.admit(event(1))
    await rig.target.called(1)
    assert await rig.dispatcher.drain(0.01) == 1
    assert len(rig.dispatcher.tracker) == 1
    assert rig.errors == []


@pytest.mark.parametrize("batched", [True, False])
async def test_a_call_names_its_content_the_same_on_every_attempt(batched):
    rig = Rig(attempts=3, batched=batched, batch_size=5 if batched else 1)
    rig.target.answer(Failed(EVIDENCE))
    rig.admit(*[event(n) for n in range(2 if batched else 1)])
    await rig.settled(1)
    first, second = rig.target.invocations
    assert first.message_id == second.message_id
    assert first.body == second.body
    assert (first.attempt, second.attempt) == (1, 2)


async def test_a_bug_in_a_target_costs_its_batch_an_attempt_and_nothing_else():
    rig = Rig(attempts=0)

    def bug(_invocation):
        raise KeyError("row value")

    rig.target.answer(bug)
    rig.admit(event(1))
    await rig.settled(1)
    (letter,) = rig.dispatcher.letters
    assert "KeyError" in letter.error
    assert "row value" not in letter.error + letter.detail


class Outage:
    """A trigger under a clock of ours, with a target that is down or up as told, and bad records in any case."""

    def __init__(self, **changes):
        self.clock = ManualClock()
        self.rig = Rig(clock=self.clock, **changes)
        self.down = True
        self.bad: set[str] = set()
        self.refusal: Outcome = Failed(EVIDENCE)
        self.successes_left = 0
        """Calls that succeed although the target is down."""
        self.seen: list[list[str]] = []
        self.rig.target.deliver = self.deliver

    async def deliver(self, invocation):
        self.seen.append(list(invocation.ids))
        if self.down and self.successes_left:
            self.successes_left -= 1
        elif self.down or self.bad & set(invocation.ids):
            return self.refusal
        self.rig.target.delivered.extend(invocation.ids)
        return Delivered()

    @property
    def dispatcher(self):
        return self.rig.dispatcher

    @property
    def letters(self) -> list[str]:
        return [letter.event_id for letter in self.dispatcher.letters]

    async def pass_time(self, seconds: float) -> None:
        """In steps; what is due in each is sent and answered."""
        for _ in range(int(seconds / 0.5)):
            self.clock.advance(0.5)
            self.dispatcher.saved(self.dispatcher.settled_total)
            while True:
                self.dispatcher.pump()
                if not self.dispatcher.in_flight:
                    break
                await asyncio.sleep(0)


@pytest.mark.parametrize("bisect", [True, False])
@pytest.mark.parametrize("attempts", [0, 1, 8])
@pytest.mark.parametrize("key", [b"one", None], ids=["one key", "no keys"])
async def test_a_target_that_is_down_for_everyone_costs_no_record_and_breaks_no_order(attempts, bisect, key):
    outage = Outage(attempts=attempts, bisect=bisect, batch_size=4, parallel=3)
    events = [event(n, key) for n in range(300)]
    outage.rig.admit(*events)
    await outage.pass_time(200)
    assert outage.letters == []
    assert "the circuit is open" in outage.dispatcher.pause_reason.reason
    sent_while_open = len(outage.seen)
    await outage.pass_time(600)
    assert len(outage.seen) - sent_while_open <= 11
    outage.down = False
    await outage.pass_time(400)
    assert outage.letters == []
    assert outage.dispatcher.pause_reason is None
    assert sorted(outage.rig.target.delivered) == [each.id.decode() for each in events]
    if key is not None:
        assert outage.rig.target.delivered == sorted(outage.rig.target.delivered)
    assert len(outage.dispatcher.tracker) == 0
    assert outage.dispatcher.retrying_events == 0


async def test_a_target_that_goes_down_after_many_successes_costs_no_record_either():
    outage = Outage(attempts=1, batch_size=1, parallel=5)
    outage.down = False
    outage.rig.admit(*[event(n, b"%d" % n) for n in range(900)])
    await outage.pass_time(20)
    outage.down = True
    outage.rig.admit(*[event(n, b"%d" % n) for n in range(900, 1300)])
    await outage.pass_time(300)
    outage.down = False
    await outage.pass_time(200)
    assert outage.letters == []
    assert len(set(outage.rig.target.delivered)) == 1300


@pytest.mark.parametrize("key", [b"one", None], ids=["one key", "no keys"])
async def test_bad_records_among_good_ones_are_isolated_and_set_aside(key):
    outage = Outage(attempts=2, bisect=True, batch_size=50, parallel=2)
    events = [event(n, key) for n in range(200)]
    outage.bad = {events[n].id.decode() for n in (0, 1, 57, 120)}
    outage.down = False
    outage.rig.admit(*events)
    await outage.pass_time(60)
    assert set(outage.letters) == outage.bad
    assert len(outage.rig.target.delivered) == 196
    assert all(letter.attempts == 3 for letter in outage.dispatcher.letters)


async def test_many_records_that_are_refused_side_by_side_do_not_pass_for_a_target_that_is_down():
    outage = Outage(attempts=1, bisect=True, batch_size=50, parallel=10)
    outage.refusal = Rejected(EVIDENCE)
    events = [event(n, b"%d" % n) for n in range(190)]
    outage.bad = {each.id.decode() for each in events}
    outage.down = False
    outage.rig.admit(*events)
    await outage.pass_time(10)
    assert set(outage.letters) == outage.bad


@pytest.mark.parametrize("batch_size", [1, 50])
async def test_many_records_that_fail_side_by_side_are_set_aside_though_little_else_succeeds(batch_size):
    # As a process finds them that starts after the good ones among them were delivered.
    random.seed(1)  # which events probe
    outage = Outage(attempts=1, bisect=True, batch_size=batch_size, parallel=10)
    events = [event(n, b"%d" % n) for n in range(400)]
    outage.bad = {each.id.decode() for each in events[:100]}
    outage.down = False
    outage.rig.admit(*events[:100])
    for good in events[100:]:
        outage.rig.admit(good)
        await outage.pass_time(5)
    assert set(outage.letters) == outage.bad
    assert len(outage.rig.target.delivered) == 300


async def test_a_target_that_recovers_in_fits_and_starts_costs_no_record():
    outage = Outage(attempts=3, bisect=True, batch_size=10, parallel=3)
    events = [event(n, b"%d" % n) for n in range(300)]
    outage.rig.admit(*events)
    for _ in range(3):
        await outage.pass_time(130)
        outage.successes_left = 1
    await outage.pass_time(300)
    outage.down = False
    await outage.pass_time(300)
    assert outage.letters == []
    assert len(outage.rig.target.delivered) == 300


async def test_a_single_record_of_a_target_that_only_fails_becomes_a_dead_letter_as_configured():
    outage = Outage(attempts=3)
    outage.rig.admit(event(1))
    await outage.pass_time(30)
    assert outage.letters == [event(1).id.decode()]
    assert len(outage.seen) == 4


async def test_with_too_few_calls_for_a_verdict_records_become_dead_letters_as_configured():
    outage = Outage(attempts=1, batch_size=1)
    outage.rig.admit(*[event(n, b"%d" % n) for n in range(5)])
    await outage.pass_time(30)
    assert len(outage.letters) == 5
    assert len(outage.seen) == 10


async def test_resumed_by_hand_an_open_circuit_lets_records_be_given_up():
    outage = Outage(attempts=0, batch_size=1, parallel=1)
    outage.rig.admit(*[event(n, b"%d" % n) for n in range(40)])
    await outage.pass_time(100)
    assert outage.letters == []
    outage.dispatcher.resume()
    await outage.pass_time(100)
    assert len(outage.letters) == 40


async def test_a_target_that_is_busy_for_all_is_a_few_lines_in_the_log_and_so_is_that_it_works_again():
    rig = Rig(batch_size=1, parallel=10, attempts=-1, clock=ManualClock())
    rig.target.answer(*[Busy(EVIDENCE)] * 50, *[Busy(Evidence("timeout"))] * 50)
    with capture_logs() as lines:
        rig.admit(*[event(n, b"%d" % n) for n in range(50)])
        while len(rig.dispatcher.tracker):
            rig.dispatcher._clock.advance(0.05)
            rig.dispatcher.pump()
            await asyncio.sleep(0)
    failures = [line for line in lines if line["event"] == "delivery failed"]
    assert rig.dispatcher.counters.failed_invocations == 100
    assert {line["error"] for line in failures} == {EVIDENCE.error, "timeout"}
    assert len(failures) < 20
    (works,) = [line for line in lines if line["event"] == "delivery works again"]
    assert works["failures"] == 100


async def test_a_pause_by_hand_is_no_error_in_the_log_and_one_for_the_target_is():
    rig = Rig()
    with capture_logs() as lines:
        rig.dispatcher.pause()
        rig.dispatcher.resume()
        rig.target.answer(Misconfigured(EVIDENCE, "grant the right"))
        rig.admit(event(1))
        await rig.target.called(1)
        while rig.dispatcher.pause_reason is None:
            await asyncio.sleep(0)
    assert [line["log_level"] for line in lines if line["event"] == "trigger paused"] == ["warning", "error"]
    await rig.dispatcher.drain(0)


async def test_a_pause_by_hand_outlasts_what_was_in_flight():
    rig = Rig(batch_size=1, parallel=1)
    held = asyncio.get_running_loop().create_future()
    rig.target.answer(held)
    rig.admit(event(1))
    await rig.target.called(1)
    rig.dispatcher.pause()
    held.set_result(Misconfigured(EVIDENCE, "grant the right"))
    while rig.dispatcher.in_flight:
        await asyncio.sleep(0)
    assert rig.dispatcher.pause_reason.reason == "paused by an operator"


async def test_a_target_that_refuses_a_batch_for_its_size_is_sent_smaller_ones_from_then_on():
    rig = Rig(batch_size=8, parallel=1)

    def answer(invocation):
        return TooLarge(EVIDENCE) if len(invocation.ids) > 2 else Delivered()

    rig.target.answer(*[answer] * 100)
    rig.admit(*[event(n, b"%d" % n) for n in range(40)])
    await rig.settled(40)
    sizes = [len(invocation.ids) for invocation in rig.target.invocations]
    assert sizes[0] == 8
    assert max(sizes[-10:]) == 2
    assert sum(size > 2 for size in sizes) <= 4
    assert rig.dispatcher.letters == []


async def test_an_event_too_large_by_itself_lowers_no_limit_and_becomes_a_dead_letter():
    rig = Rig(batch_size=4, parallel=1)
    large = event(0, b"large").id.decode()

    def answer(invocation):
        return TooLarge(EVIDENCE) if large in invocation.ids else Delivered()

    rig.target.answer(*[answer] * 100)
    rig.admit(event(0, b"large"))
    await rig.settled(1)
    assert [letter.event_id for letter in rig.dispatcher.letters] == [large]
    rig.admit(*[event(n, b"%d" % n) for n in range(1, 5)])
    await rig.settled(5)
    assert len(rig.target.invocations[-1].ids) == 4


async def test_a_call_carries_the_events_of_one_tenant_and_names_it():
    rig = Rig(batch_size=100, grouping=Grouping(lambda one: one.key.decode()[:1], 3, 1 << 20, 60))
    rig.admit(*[event(n, b"ab"[n % 2 : n % 2 + 1] + b"%d" % n) for n in range(10)])
    await rig.settled(10)
    sent = [(invocation.tenant, len(invocation.ids)) for invocation in rig.target.invocations]
    assert sorted(sent) == [("a", 2), ("a", 3), ("b", 2), ("b", 3)]
    assert len(set(rig.target.delivered)) == 10


async def test_waiting_for_the_store_with_a_retry_due_sets_no_timer():
    rig = Rig(batch_size=1000, parallel=2)
    held = asyncio.get_running_loop().create_future()
    rig.target.answer(held)
    rig.admit(event(0, b"slow"))
    await rig.target.called(1)
    rig.admit(*[event(n) for n in range(1, 8001)])
    while rig.dispatcher.unsaved < 8000:
        await asyncio.sleep(0)
    held.set_result(Failed(EVIDENCE))
    while rig.dispatcher.in_flight:
        await asyncio.sleep(0)
    assert rig.dispatcher.backing_off == 1
    assert rig.dispatcher._timer is None
    rig.dispatcher.saved(rig.dispatcher.settled_total)
    await rig.settled(8001)


def bad(*numbers):
    names = {event(n).id.decode() for n in numbers}

    def answer(invocation):
        failed = names & set(invocation.ids)
        return Partial(frozenset(failed), EVIDENCE) if failed else Delivered()

    return answer


async def test_with_hold_key_later_changes_wait_until_the_letter_is_gone():
    rig = Rig(attempts=0, held=HeldKeys())
    rig.target.answer(*[bad(1)] * 100)
    rig.admit(event(1, b"a"), event(2, b"b"))
    await rig.settled(2)
    rig.admit(event(3, b"a"), event(4, b"b"), event(5, b"a"))
    await rig.settled(3)
    assert rig.target.delivered == [event(4).id.decode()]  # the second settled in a call that failed in part
    assert len(rig.dispatcher.tracker) == 2
    assert rig.dispatcher.tracker.checkpoint == Position(event(3).position.commit_lsn, -1)
    rig.dispatcher.letters_are([b"a"], barrier=False, version=rig.dispatcher.held.version)
    while rig.dispatcher.in_flight:
        await asyncio.sleep(0)
    assert len(rig.target.invocations) == 2
    rig.dispatcher.letters_are([], barrier=False, version=rig.dispatcher.held.version)
    await rig.settled(5)
    assert list(rig.target.invocations[-1].ids) == [event(3).id.decode(), event(5).id.decode()]


async def test_with_hold_key_what_was_in_the_same_batch_waits_too():
    rig = Rig(attempts=0, bisect=True, held=HeldKeys())
    first = event(1, b"a").id.decode()

    def answer(invocation):
        return Failed(EVIDENCE) if first in invocation.ids else Delivered()

    rig.target.answer(*[answer] * 100)
    rig.admit(event(1, b"a"), event(2, b"a"), event(3, b"a"), event(4, b"b"))
    await rig.settled(2)
    while rig.dispatcher.in_flight:
        await asyncio.sleep(0)
    assert [letter.event_id for letter in rig.dispatcher.letters] == [first]
    assert rig.dispatcher.held.events == 2
    rig.dispatcher.letters_are([], barrier=False, version=rig.dispatcher.held.version)
    await rig.settled(4)
    assert rig.dispatcher.letters_to_come() == ({b"a"}, False)


async def test_a_key_held_at_the_start_is_held_before_its_first_event_comes():
    rig = Rig(held=HeldKeys([b"a"]))
    rig.admit(event(1, b"a"), event(2, b"b"))
    await rig.settled(1)
    assert rig.target.delivered == [event(2).id.decode()]


async def test_without_hold_key_later_changes_go_on():
    rig = Rig(attempts=0)
    rig.target.answer(bad(1))
    rig.admit(event(1, b"a"))
    await rig.settled(1)
    rig.admit(event(2, b"a"))
    await rig.settled(2)
    assert rig.dispatcher.held.is_empty


async def test_a_target_that_is_down_frees_the_keys_that_its_failures_held():
    outage = Outage(attempts=0, batch_size=1, parallel=2, held=HeldKeys())
    events = [event(n, b"%d" % (n % 40)) for n in range(120)]
    outage.rig.admit(*events)
    await outage.pass_time(100)
    outage.down = False
    await outage.pass_time(200)
    assert outage.letters == []
    assert sorted(outage.rig.target.delivered) == [each.id.decode() for each in events]
    assert outage.dispatcher.held.is_empty


async def test_a_letter_carries_what_its_destination_is_to_be_told():
    rig = Rig(attempts=0, reporting=Reporting("lambda:greet"))
    rig.target.answer(Failed(Evidence("x", function_error="Unhandled", executed_version="7")))
    rig.admit(event(1))
    await rig.settled(1)
    assert json.loads(rig.dispatcher.letters[0].report) == {
        "functionArn": "lambda:greet",
        "condition": "RetryAttemptsExhausted",
        "executedVersion": "7",
        "functionError": "Unhandled",
    }


async def test_no_more_calls_are_made_in_a_second_than_the_limit():
    outage = Outage(batch_size=1, parallel=10, gate=Gate(per_second=4))
    outage.down = False
    outage.rig.admit(*[event(n, b"%d" % n) for n in range(100)])
    await outage.pass_time(10)
    assert 40 <= len(outage.seen) <= 44


async def test_a_limited_rate_sends_what_waits_without_being_pushed():
    rig = Rig(batch_size=1, parallel=10, gate=Gate(per_second=50))
    rig.admit(*[event(n, b"%d" % n) for n in range(60)])
    await rig.settled(60)
    assert len(rig.target.invocations) == 60


async def test_calls_of_others_to_the_same_target_count_and_their_end_lets_it_go_on():
    gate = Gate(at_once=1)
    gate.begin(0.0)
    rig = Rig(gate=gate)
    rig.admit(event(1))
    assert rig.dispatcher.in_flight == 0
    gate.end()
    await rig.settled(1)


async def test_a_target_that_writes_to_what_triggers_it_pauses_its_trigger_until_resumed():
    rig = Rig(loop_guard=LoopGuard(10))
    numbers = iter(range(1, 100))

    async def deliver(invocation):
        rig.target.invocations.append(invocation)
        rig.admit(event(next(numbers), b"row"))
        return Delivered()

    rig.target.deliver = deliver
    rig.admit(event(0, b"row"))
    while rig.dispatcher.pause_reason is None or rig.dispatcher.in_flight:
        await asyncio.sleep(0)
    assert "public.t" in rig.dispatcher.pause_reason.reason
    assert "docs/delivery.md" in rig.dispatcher.pause_reason.remedy
    assert 12 <= len(rig.target.invocations) <= 14
    assert len(rig.dispatcher.tracker) == 1
    before = len(rig.target.invocations)
    rig.dispatcher.resume()
    while rig.dispatcher.pause_reason is None or rig.dispatcher.in_flight:
        await asyncio.sleep(0)
    assert len(rig.target.invocations) > before + 5
