"""
Triggers with few events: what a target that is down costs them, and what becomes of a record that is bad.

A dispatcher with an event now and then, under a clock of ours that goes from one moment at which something is due to the
next: outages of a day take milliseconds.
"""

from __future__ import annotations

import asyncio
import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.batching.lanes import Window
from bridge.change import Event, Position, Transaction
from bridge.delivery.circuit import Circuit, Limits
from bridge.delivery.decide import Policy
from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.outcome import Delivered, Evidence, Failed
from bridge.lsn import LSN
from bridge.testing import ManualClock
from bridge.triggers.envelope import Envelope

HOUR = 3600.0
DOWN = Failed(Evidence("HTTP 500", status=500))
OUT_OF_REACH = Failed(Evidence("no connection"), unsent=True)


class QuietTrigger:
    """One event at each of some times; the target is `down` between two others and fails at what is poisoned."""

    def __init__(self, arrivals, *, down=(0.0, 0.0), failure=DOWN, poisoned=(), attempts=8, minimum=20):
        self.clock = ManualClock()
        self.start = self.clock.monotonic()
        self.arrivals = list(arrivals)
        self.down = down
        self.failure = failure
        self.poisoned = set(poisoned)
        self.calls: list[tuple[float, list[int], bool]] = []
        self.errors: list[BaseException] = []
        self.dispatcher = Dispatcher(
            "t",
            target=self,
            envelope=Envelope("t", "7"),
            batched=True,
            window=Window(100, 0.0, 1 << 20, 60),
            policy=Policy(attempts, -1, bisect_on_error=True),
            parallelization_factor=10,
            checkpoint=Position(LSN(1), 0),
            clock=self.clock,
            moved=lambda: None,
            failed=self.errors.append,
            circuit=Circuit(Limits(minimum_invocations=minimum)),
        )

    @property
    def now(self) -> float:
        return self.clock.monotonic() - self.start

    @property
    def delivered(self) -> list[int]:
        return sorted(number for _, numbers, worked in self.calls if worked for number in numbers)

    @property
    def letters(self) -> list[int]:
        return sorted(Position.parse(letter.event_id).commit_lsn - 10 for letter in self.dispatcher.letters)

    async def deliver(self, invocation):
        numbers = [Position.parse(event_id).commit_lsn - 10 for event_id in invocation.ids]
        is_down = self.down[0] <= self.now < self.down[1]
        worked = not is_down and self.poisoned.isdisjoint(numbers)
        self.calls.append((self.now, numbers, worked))
        return Delivered() if worked else self.failure if is_down else DOWN

    async def run(self, *, until: float = math.inf) -> None:
        """Until nothing is due any more, or the time is over."""
        while True:
            for _ in range(6):
                await asyncio.sleep(0)
            assert not self.errors
            timers = [at for at in [self.dispatcher._timer_at - self.start] if at > self.now]  # else it is an old one
            due = min([*timers, *self.arrivals[:1]], default=math.inf)
            if due > until or due == math.inf:
                break
            self.clock.advance(max(1e-6, due - self.now))  # the least that floats of this size can tell apart
            if self.arrivals and self.arrivals[0] <= self.now:
                self.arrive(self.arrivals.pop(0))
            self.dispatcher.pump()
        await self.dispatcher.drain(0)

    def arrive(self, at: float) -> None:
        number = self.dispatcher.counters.admitted + 10
        transaction = Transaction(number, number - 1, at, number)
        key = b"k%d" % number
        event_id = Position(LSN(number), 0).event_id.encode()
        self.dispatcher.inbox.append(Event(event_id, transaction, 0, key, None, "public.t", "insert", b"{"))
        self.dispatcher.admit()


def played(*arguments, until: float = math.inf, **settings) -> QuietTrigger:
    async def play() -> QuietTrigger:
        trigger = QuietTrigger(*arguments, **settings)
        await trigger.run(until=until)
        return trigger

    return asyncio.run(play())


times = st.lists(st.floats(min_value=60.0, max_value=2 * HOUR), min_size=1, max_size=30).map(
    lambda gaps: [sum(gaps[: number + 1]) for number in range(len(gaps))]
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(times, st.floats(min_value=600.0, max_value=24 * HOUR), st.integers(0, 10), st.integers(1, 30), st.randoms())
def test_a_target_out_of_reach_costs_no_record_anything_however_few_there_are(
    arrivals, seconds, attempts, minimum, dice
):
    random.seed(dice.random())
    end = arrivals[0] + seconds
    # One more when it is back, lest a test of nothing but the outage should pass.
    trigger = played(
        [*[at for at in arrivals if at < end], end + 1.0],
        down=(0.0, end),
        failure=OUT_OF_REACH,
        attempts=attempts,
        minimum=minimum,
    )
    assert trigger.letters == []
    assert trigger.delivered == list(range(trigger.dispatcher.counters.admitted))
    assert trigger.now < end + 70.0  # the longest pause between two probes, and its jitter


@settings(max_examples=25, deadline=None, derandomize=True)
@given(times, st.floats(min_value=600.0, max_value=24 * HOUR), st.integers(0, 10), st.integers(2, 30), st.randoms())
def test_a_target_that_fails_for_all_makes_no_more_letters_than_it_takes_to_tell(
    arrivals, seconds, attempts, minimum, dice
):
    """However long it lasts: the letters' calls are below the minimum of a verdict, but for the last letter's own."""
    random.seed(dice.random())
    end = arrivals[0] + seconds
    trigger = played(
        [*[at for at in arrivals if at < end], end + 1.0], down=(0.0, end), attempts=attempts, minimum=minimum
    )
    letters = trigger.letters
    assert len(letters) * (attempts + 1) < max(minimum, 2 * (attempts + 1))
    everything = range(trigger.dispatcher.counters.admitted)
    assert trigger.delivered == [number for number in everything if number not in letters]
    assert {letter.attempts for letter in trigger.dispatcher.letters} <= {attempts + 1}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10), st.integers(2, 30), st.integers(0, 3), st.integers(0, 3), st.randoms())
def test_a_poisoned_record_alone_is_a_dead_letter_after_its_attempts(attempts, minimum, before, after, dice):
    """With or without good ones an hour before and after it."""
    random.seed(dice.random())
    trigger = played(
        [HOUR * number for number in range(before + 1 + after)],
        poisoned=[before],
        attempts=attempts,
        minimum=minimum,
        until=HOUR * (before + 1) - 1.0,
    )
    assert trigger.letters == [before]
    assert sum(numbers == [before] for _, numbers, _ in trigger.calls) == attempts + 1


def test_many_poisoned_records_that_others_have_passed_by_all_end_as_letters():
    """Given that the last good record is delivered before most of them have spent their attempts."""
    random.seed(1)
    trigger = played([float(number) for number in range(40)], poisoned=range(0, 40, 2), until=HOUR)
    assert trigger.letters == list(range(0, 40, 2))
    assert trigger.delivered == list(range(1, 40, 2))


def test_a_target_out_of_reach_is_asked_for_every_minute_at_least_and_charges_nothing():
    random.seed(1)
    trigger = played([0.0], down=(0.0, 2 * HOUR), failure=OUT_OF_REACH, minimum=5, until=HOUR)
    assert trigger.dispatcher.retrying_events == 0
    assert trigger.dispatcher.books.charges == {}
    pauses = [later - at for (at, *_), (later, *_) in zip(trigger.calls, trigger.calls[1:], strict=False)]
    assert max(pauses) < 60.01
    assert len(trigger.calls) < 400
