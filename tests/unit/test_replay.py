"""What becomes of dead letters that are sent again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.change import Event, Position, Transaction
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
from bridge.errors import StoreError
from bridge.lsn import LSN
from bridge.replay import BUSY_CALLS, SILENT_CALLS, Pace, Replay, ReplayPlan
from bridge.store.memory import MemoryStore
from bridge.store.protocol import DeadLetter, LetterFilter, SourceIdentity
from bridge.testing import ManualClock, MemoryTarget
from bridge.triggers.envelope import Envelope

NOON = datetime(2023, 11, 14, 12, tzinfo=UTC)
PLAN = ReplayPlan(
    batched=True,
    batch_size=100,
    maximum_batch_bytes=1_000_000,
    parallelization_factor=1,
    bisect_on_error=True,
    hold_key=False,
)
SINGLE = replace(PLAN, batched=False, batch_size=1)
ANSWERED = Evidence("HTTP 500", "its words", 500, "r-1", "log")
EVERYTHING = LetterFilter()


def letter(number: int, key: bytes | None = None, **changes) -> DeadLetter:
    given = DeadLetter(
        trigger="t",
        event_id=event_id(number),
        table="public.users",
        event=b'{ "n":%d }' % number,
        error="old reason",
        detail="",
        status=400,
        attempts=9,
        first_failed_at=NOON,
        last_failed_at=NOON,
        ordering_key=b"%d" % number if key is None else key,
    )
    return replace(given, **changes)


def event_id(number: int) -> str:
    return Position(LSN(number), 0).event_id


def number_of(event_id: str) -> int:
    return Position.parse(event_id).commit_lsn


def numbers(invocation) -> list[int]:
    return [number_of(each) for each in invocation.ids]


class Bench:
    """A store with letters, a target, and time that passes when somebody sleeps."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.clock = ManualClock()
        self.store = store or MemoryStore(clock=self.clock)
        self.target = MemoryTarget()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def set_aside(self, *letters: DeadLetter) -> None:
        if (await self.store.read("s")).epoch == 0:
            await self.store.claim(SourceIdentity("s", "758", 1, "shop"))
        await self.store.save(None, {}, letters)

    def replay(self, plan: ReplayPlan = PLAN, *, rate: float | None = None, target=None) -> Replay:
        pace = Pace(rate, self.clock, self.sleep)
        return Replay(
            self.store, "s", "t", plan, target or self.target, clock=self.clock, pace=pace, sleep=self.sleep
        )  # fmt: skip

    async def left(self) -> list[int]:
        return [number_of(each.event_id) for each in await self.store.letters(EVERYTHING)]

    def calls(self) -> list[list[int]]:
        return [numbers(invocation) for invocation in self.target.invocations]


@pytest.fixture
def bench():
    return Bench()


class TestWhatIsSent:
    async def test_a_batch_carries_the_stored_bytes_in_event_order(self, bench):
        await bench.set_aside(letter(2), letter(1), letter(3))
        result = await bench.replay().run(EVERYTHING)
        (call,) = bench.target.invocations
        assert call.body == b'{"Records":[{ "n":1 },{ "n":2 },{ "n":3 }]}'
        assert (call.trigger, call.batched, call.attempt) == ("t", True, 1)
        assert list(call.ids) == [event_id(1), event_id(2), event_id(3)]
        assert (result.delivered, result.complete) == (3, True)

    async def test_a_target_of_single_events_gets_them_as_stored_one_by_one(self, bench):
        await bench.set_aside(letter(1), letter(2))
        await bench.replay(SINGLE).run(EVERYTHING)
        assert [(call.body, call.batched) for call in bench.target.invocations] == [
            (b'{ "n":1 }', False),
            (b'{ "n":2 }', False),
        ]

    async def test_a_call_is_named_as_the_live_one_was(self, bench):
        """So that a receiver that did handle it knows it again (promise 5)."""
        await bench.set_aside(letter(1), letter(2))
        await bench.replay(SINGLE).run(LetterFilter(ids=[1]))
        await bench.set_aside(letter(1))
        await bench.replay().run(EVERYTHING)
        live = Envelope("t", "758")
        event = [Event(event_id(n).encode(), Transaction(n, 0, 0, 0), 0, None, None, "", "", b"") for n in (1, 2)]
        assert [call.message_id for call in bench.target.invocations] == [
            live.message_id(event[:1]),
            live.message_id(event),
        ]

    async def test_batches_keep_to_the_triggers_limits(self, bench):
        await bench.set_aside(*(letter(number) for number in range(7)))
        await bench.replay(replace(PLAN, batch_size=3)).run(EVERYTHING)
        assert bench.calls() == [[0, 1, 2], [3, 4, 5], [6]]

        bench = Bench()
        await bench.set_aside(*(letter(number, event=b"x" * 400) for number in range(5)))
        await bench.replay(replace(PLAN, maximum_batch_bytes=1024)).run(EVERYTHING)
        assert bench.calls() == [[0, 1], [2, 3], [4]]

    async def test_only_the_chosen_letters_of_this_slot_and_trigger_are_sent(self, bench):
        await bench.set_aside(letter(1), letter(2, error="other"), letter(3, trigger="u"))
        await bench.store.claim(SourceIdentity("elsewhere", "1", 1, "d"))
        await bench.set_aside(letter(4))
        await bench.replay().run(LetterFilter(error="OLD"))
        assert bench.calls() == [[1]]
        assert await bench.left() == [2, 3, 4]

    async def test_nothing_chosen_is_nothing_done(self, bench):
        result = await bench.replay().run(EVERYTHING)
        assert (bench.target.invocations, result.delivered, result.complete) == ([], 0, True)

    async def test_letters_that_come_while_it_works_wait_for_the_next_replay(self, bench):
        """Else a target that fails everything would keep a replay busy for ever."""
        answer = asyncio.get_running_loop().create_future()
        bench.target.answer(answer)
        await bench.set_aside(letter(1))
        running = asyncio.create_task(bench.replay(SINGLE).run(EVERYTHING))
        await bench.target.called(1)
        await bench.set_aside(letter(2))
        answer.set_result(Delivered())
        assert (await running).complete
        assert await bench.left() == [2]


class TestWhatBecomesOfThem:
    @pytest.mark.parametrize("outcome", [Delivered(), Accepted()])
    async def test_what_is_delivered_leaves(self, bench, outcome):
        bench.target.answer(outcome)
        await bench.set_aside(letter(1), letter(2))
        result = await bench.replay().run(EVERYTHING)
        assert (await bench.left(), result.delivered, result.complete) == ([], 2, True)

    async def test_a_failure_stays_with_one_more_attempt_and_the_new_reason(self, bench):
        bench.target.answer(Partial(frozenset({event_id(2)}), ANSWERED))
        await bench.set_aside(letter(1), letter(2), letter(3))
        result = await bench.replay().run(EVERYTHING)
        (kept,) = await bench.store.letters(EVERYTHING)
        now = datetime.fromtimestamp(bench.clock.now(), UTC)
        assert kept == letter(
            2, id=kept.id, attempts=10, error="HTTP 500", detail="its words", status=500, request_id="r-1",
            log_tail="log", last_failed_at=now,
        )  # fmt: skip
        assert (result.delivered, result.failed, result.left, result.complete) == (2, 1, 0, False)

    @pytest.mark.parametrize("outcome", [Failed(ANSWERED), Rejected(ANSWERED), TooLarge(ANSWERED)])
    async def test_one_bad_letter_does_not_keep_the_good_ones(self, bench, outcome):
        target = Picky({5}, outcome)
        await bench.set_aside(*(letter(number) for number in range(16)))
        result = await bench.replay(target=target).run(EVERYTHING)
        assert await bench.left() == [5]
        assert (result.delivered, result.failed) == (15, 1)
        assert (await bench.store.letters(EVERYTHING))[0].attempts == 10

    async def test_without_bisecting_all_of_a_failed_batch_stay_charged_once(self, bench):
        await bench.set_aside(*(letter(number) for number in range(4)))
        target = Picky({2}, Failed(ANSWERED))
        result = await bench.replay(replace(PLAN, bisect_on_error=False), target=target).run(EVERYTHING)
        assert [each.attempts for each in await bench.store.letters(EVERYTHING)] == [10] * 4
        assert (result.failed, len(target.calls)) == (4, 1)

    async def test_a_failing_letter_does_not_hold_back_younger_ones_of_its_key(self, bench):
        await bench.set_aside(*(letter(number, b"k") for number in range(3)))
        await bench.replay(SINGLE, target=Picky({0}, Failed(ANSWERED))).run(EVERYTHING)
        assert await bench.left() == [0]

    async def test_a_bug_of_the_target_fails_its_letters_and_no_others(self, bench, monkeypatch):
        monkeypatch.setattr("bridge.delivery.call.log.error", lambda *_, **__: None)

        def raises(_):
            raise KeyError("a secret value")

        bench.target.answer(raises)
        await bench.set_aside(letter(1), letter(2))
        await bench.replay(SINGLE).run(EVERYTHING)
        (kept,) = await bench.store.letters(EVERYTHING)
        assert (kept.event_id, kept.error) == (event_id(1), "pgbridge failed inside the target: KeyError")


class TestHoldKey:
    PLAN = replace(PLAN, hold_key=True)
    SINGLE = replace(SINGLE, hold_key=True)

    async def test_younger_letters_of_the_key_stay_untouched(self, bench):
        await bench.set_aside(letter(0, b"k"), letter(1, b"k"), letter(2, b"free"), letter(3, b"k"))
        result = await bench.replay(self.SINGLE, target=Picky({1}, Failed(ANSWERED))).run(EVERYTHING)
        kept = await bench.store.letters(EVERYTHING)
        assert [(number_of(each.event_id), each.attempts) for each in kept] == [(1, 10), (3, 9)]
        assert (result.delivered, result.failed, result.left) == (2, 1, 1)

    async def test_younger_ones_that_succeeded_in_the_same_call_stay_to_come_again_after_it(self, bench):
        bench.target.answer(Partial(frozenset({event_id(1)}), ANSWERED))
        await bench.set_aside(letter(0, b"k"), letter(1, b"k"), letter(2, b"free"), letter(3, b"k"))
        await bench.replay(self.PLAN).run(EVERYTHING)
        assert await bench.left() == [1, 3]

    async def test_a_held_change_of_key_holds_the_new_key_too(self, bench):
        await bench.set_aside(
            letter(0, b"a"), letter(1, b"b", old_ordering_key=b"a"), letter(2, b"b"), letter(3, b"c")
        )  # fmt: skip
        await bench.replay(self.SINGLE, target=Picky({0}, Failed(ANSWERED))).run(EVERYTHING)
        assert await bench.left() == [0, 1, 2]

    async def test_a_barrier_stays_behind_any_letter_that_failed_and_holds_all_that_follow(self, bench):
        barrier = letter(2, ordering_key=None, barrier=True)
        await bench.set_aside(letter(0, b"a"), letter(1, b"b"), barrier, letter(3, b"c"))
        result = await bench.replay(self.SINGLE, target=Picky({0}, Failed(ANSWERED))).run(EVERYTHING)
        assert await bench.left() == [0, 2, 3]
        assert (result.delivered, result.failed, result.left) == (1, 1, 2)

    async def test_a_barrier_that_fails_holds_every_key(self, bench):
        barrier = letter(1, ordering_key=None, barrier=True)
        await bench.set_aside(letter(0, b"a"), barrier, letter(2, b"a"), letter(3, b"b"))
        await bench.replay(self.SINGLE, target=Picky({1}, Failed(ANSWERED))).run(EVERYTHING)
        assert await bench.left() == [1, 2, 3]

    async def test_many_held_letters_do_not_stop_the_others(self, bench, monkeypatch):
        """More than is read ahead."""
        monkeypatch.setattr("bridge.replay.MOST_BUFFERED_BYTES", 5_000)
        await bench.set_aside(*(letter(number, b"k") for number in range(100)), letter(100))
        result = await bench.replay(self.SINGLE, target=Picky({0}, Failed(ANSWERED))).run(EVERYTHING)
        assert await bench.left() == list(range(100))
        assert (result.delivered, result.failed, result.left) == (1, 1, 99)


class TestTargetsThatSayNothingAboutLetters:
    async def test_a_busy_target_is_waited_for_and_nothing_is_charged(self, bench):
        bench.target.answer(Busy(ANSWERED, 7.0), Busy(ANSWERED))
        await bench.set_aside(letter(1))
        result = await bench.replay().run(EVERYTHING)
        assert (result.delivered, result.complete) == (1, True)
        assert [call.attempt for call in bench.target.invocations] == [1, 2, 3]
        assert 7.0 <= bench.slept[0] < 8.0

    async def test_a_target_that_stays_busy_ends_it_with_the_letters_as_they_were(self, bench):
        await bench.set_aside(letter(1), letter(2))
        before = await bench.store.letters(EVERYTHING)
        result = await bench.replay(target=Always(Busy(ANSWERED))).run(EVERYTHING)
        assert await bench.store.letters(EVERYTHING) == before
        assert (result.left, result.stopped) == (
            2,
            "the target is busy (HTTP 500); replay again when it has room",
        )
        assert len(bench.slept) <= BUSY_CALLS

    async def test_a_misconfigured_target_ends_it_with_the_remedy_and_the_letters_as_they_were(self, bench):
        await bench.set_aside(*(letter(number) for number in range(3)))
        before = await bench.store.letters(EVERYTHING)
        target = Always(Misconfigured(ANSWERED, "create the function"))
        result = await bench.replay(SINGLE, target=target).run(EVERYTHING)
        assert await bench.store.letters(EVERYTHING) == before
        assert (result.left, result.stopped, target.calls) == (3, "HTTP 500; create the function", 1)

    async def test_a_target_that_never_answers_ends_it_before_all_are_charged(self, bench):
        await bench.set_aside(*(letter(number) for number in range(100)))
        target = Always(Failed(Evidence("connection refused")))
        result = await bench.replay(SINGLE, target=target).run(EVERYTHING)
        assert (target.calls, result.failed, result.left) == (SILENT_CALLS, SILENT_CALLS, 100 - SILENT_CALLS)
        assert "has not answered" in result.stopped

    async def test_one_that_answers_with_failures_is_asked_for_every_letter(self, bench):
        await bench.set_aside(*(letter(number) for number in range(100)))
        result = await bench.replay(SINGLE, target=Picky(set(range(99)), Failed(ANSWERED))).run(EVERYTHING)
        assert (result.delivered, result.failed, result.stopped) == (1, 99, None)


class TestStopping:
    async def test_stop_lets_calls_under_way_end_and_sends_no_more(self, bench):
        answer = asyncio.get_running_loop().create_future()
        bench.target.answer(answer)
        await bench.set_aside(letter(1), letter(2))
        replay = bench.replay(SINGLE)
        running = asyncio.create_task(replay.run(EVERYTHING))
        await bench.target.called(1)
        replay.stop("interrupted")
        await asyncio.sleep(0)
        answer.set_result(Delivered())
        result = await running
        assert (result.delivered, result.left, result.stopped) == (1, 1, "interrupted")
        assert await bench.left() == [2]

    async def test_stop_ends_the_wait_for_another_replay(self, bench):
        await bench.set_aside(letter(1))
        waits = asyncio.Event()
        replay = bench.replay()
        async with bench.store.replaying("s", "t"):
            running = asyncio.create_task(replay.run(EVERYTHING, on_wait=waits.set))
            await waits.wait()
            replay.stop("interrupted")
            result = await running
        assert (result.left, bench.target.invocations) == (1, [])
        assert (await bench.replay().run(EVERYTHING)).complete

    async def test_stop_ends_the_wait_that_a_rate_asks_for(self, bench):
        await bench.set_aside(letter(1), letter(2))
        slept = asyncio.Event()

        async def for_ever(seconds: float) -> None:
            slept.set()
            await asyncio.Event().wait()

        pace = Pace(0.001, bench.clock, for_ever)
        replay = Replay(bench.store, "s", "t", SINGLE, bench.target, clock=bench.clock, pace=pace)
        running = asyncio.create_task(replay.run(EVERYTHING))
        await slept.wait()
        replay.stop("interrupted")
        assert (await running).left == 1
        assert bench.calls() == [[1]]

    async def test_a_call_cut_short_keeps_its_letter(self, bench):
        bench.target.answer(asyncio.get_running_loop().create_future())
        await bench.set_aside(letter(1))
        running = asyncio.create_task(bench.replay().run(EVERYTHING))
        await bench.target.called(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await bench.left() == [1]
        assert (await bench.replay().run(EVERYTHING)).complete


class TestStoreFaults:
    async def test_a_store_away_for_a_moment_does_not_make_a_letter_go_out_twice(self):
        bench = Bench(Flaky(2))
        await bench.set_aside(letter(1))
        result = await bench.replay().run(EVERYTHING)
        assert (bench.calls(), result.complete, await bench.left()) == ([[1]], True, [])

    async def test_a_store_away_for_good_ends_it_and_forgets_nothing(self):
        bench = Bench(Flaky(10**6))
        await bench.set_aside(letter(1), letter(2))
        with pytest.raises(StoreError):
            await bench.replay(SINGLE).run(EVERYTHING)
        assert await bench.left() == [1, 2]

    async def test_a_claim_that_was_lost_ends_it_before_the_next_call(self, bench, monkeypatch):
        await bench.set_aside(letter(1), letter(2))
        checks = iter([None, StoreError("the claim was lost")])

        async def check(_) -> None:
            if (error := next(checks)) is not None:
                raise error

        monkeypatch.setattr("bridge.store.memory._MemoryReplayClaim.check", check)
        with pytest.raises(StoreError, match="the claim was lost"):
            await bench.replay(SINGLE).run(EVERYTHING)
        assert bench.calls() == [[1]]
        assert await bench.left() == [2]


class TestPace:
    async def test_no_more_letters_a_second_than_asked_for(self, bench):
        await bench.set_aside(*(letter(number) for number in range(25)))
        sent: list[tuple[float, int]] = []

        class Timed(MemoryTarget):
            async def deliver(self, invocation):
                sent.append((bench.clock.monotonic(), len(invocation.ids)))
                return Delivered()

        start = bench.clock.monotonic()
        await bench.replay(replace(PLAN, parallelization_factor=10), rate=10, target=Timed()).run(EVERYTHING)
        assert [count for _, count in sent] == [10, 10, 5]
        assert [at - start for at, _ in sent] == pytest.approx([0, 1, 2])

    async def test_less_than_one_a_second_is_one_at_a_time(self, bench):
        await bench.set_aside(letter(1), letter(2))
        await bench.replay(rate=0.5).run(EVERYTHING)
        assert bench.calls() == [[1], [2]]
        assert bench.slept == [2.0]


class TestOrder:
    async def test_two_replays_at_once_send_each_letter_once(self, bench):
        await bench.set_aside(*(letter(number, b"%d" % (number % 3)) for number in range(60)))
        plan = replace(PLAN, batch_size=4, parallelization_factor=3)
        results = await asyncio.gather(*(bench.replay(plan).run(EVERYTHING) for _ in range(3)))
        assert Counter(number for call in bench.calls() for number in call) == Counter(range(60))
        assert sorted(result.delivered for result in results) == [0, 0, 60]
        assert all(result.complete for result in results)

    async def test_a_truncate_waits_for_what_was_before_and_younger_ones_for_it(self, bench):
        await bench.set_aside(letter(1), letter(2, barrier=True, ordering_key=None), letter(3))
        await bench.replay(replace(PLAN, parallelization_factor=10)).run(EVERYTHING)
        assert bench.calls() == [[1], [2], [3]]

    @given(
        keys=st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 3)), max_size=40),
        batch_size=st.integers(1, 7),
        parallel=st.integers(1, 4),
        hold=st.booleans(),
        seed=st.integers(0, 2**32),
    )
    def test_letters_of_a_key_never_overtake_each_other_and_each_ends_once(
        self, keys, batch_size, parallel, hold, seed
    ):
        asyncio.run(check_order(keys, batch_size, parallel, hold, seed))


async def check_order(keys, batch_size, parallel, hold, seed) -> None:
    bench = Bench()
    target = Chaotic(random.Random(seed))
    letters = [
        letter(number, b"%d" % key, old_ordering_key=None if old is None or old == key else b"%d" % old)
        for number, (key, old) in enumerate(keys)
    ]
    for each in letters:
        target.keys[each.event_id] = {each.ordering_key, each.old_ordering_key} - {None}
    await bench.set_aside(*letters)
    plan = replace(PLAN, batch_size=batch_size, parallelization_factor=parallel, hold_key=hold)
    result = await bench.replay(plan, target=target).run(EVERYTHING)
    assert target.broken == []
    assert result.stopped is None
    left = await bench.store.letters(EVERYTHING)
    assert result.delivered + result.failed + result.left == len(letters)
    assert len(left) == result.failed + result.left
    assert [each.attempts for each in left].count(10) == result.failed
    assert {each.event_id for each in letters} - {each.event_id for each in left} <= target.succeeded
    if not hold:
        assert result.left == 0
        assert {each.event_id for each in left} == {each.event_id for each in letters} - target.succeeded
    else:
        behind: set[bytes] = set()
        stayed = {each.event_id for each in left}
        for each in letters:
            own = target.keys[each.event_id]
            if each.event_id in stayed:
                behind |= own
            else:
                assert not own & behind


class Picky:
    """Fails each call that carries a bad letter."""

    def __init__(self, bad: set[int], outcome) -> None:
        self.bad, self.outcome, self.calls = bad, outcome, []

    async def deliver(self, invocation):
        self.calls.append(numbers(invocation))
        return self.outcome if self.bad & set(numbers(invocation)) else Delivered()


class Always:
    """One answer for all."""

    def __init__(self, outcome) -> None:
        self.outcome, self.calls = outcome, 0

    async def deliver(self, _):
        self.calls += 1
        return self.outcome


class Flaky(MemoryStore):
    """Fails the first few attempts to record what became of a letter."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def discard_letters(self, ids):
        self.times -= 1
        if self.times >= 0:
            raise StoreError("away")
        return await super().discard_letters(ids)


class Chaotic:
    """Answers late and in any way, and watches the order of keys."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.keys: dict[str, set[bytes]] = {}
        self.in_flight: set[bytes] = set()
        self.newest: dict[bytes, str] = defaultdict(str)
        self.succeeded: set[str] = set()
        self.broken: list[str] = []
        self.settled: set[str] = set()

    async def deliver(self, invocation):
        keys = set().union(*(self.keys[each] for each in invocation.ids))
        if keys & self.in_flight:
            self.broken.append(f"two calls with one key at once: {invocation.ids}")
        if list(invocation.ids) != sorted(invocation.ids):
            self.broken.append(f"not in event order: {invocation.ids}")
        for each in invocation.ids:
            if each in self.settled:
                self.broken.append(f"sent again: {each}")
            for key in self.keys[each]:
                if each < self.newest[key]:
                    self.broken.append(f"overtaken: {each}")
        self.in_flight |= keys
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        self.in_flight -= keys
        match self.random.randrange(5):
            case 0:
                failed = frozenset(
                    self.random.sample(list(invocation.ids), self.random.randint(1, len(invocation.ids)))
                )
                outcome = Partial(failed, ANSWERED)
                done = self._over(invocation.ids, failed)
                self.succeeded |= done - failed
            case 1:
                outcome = self.random.choice([Failed(ANSWERED), Rejected(ANSWERED), TooLarge(ANSWERED)])
                done = set(invocation.ids) if len(invocation.ids) == 1 else set()
            case 2 if invocation.attempt < BUSY_CALLS - 1:
                outcome, done = Busy(ANSWERED), set()
            case _:
                outcome = Delivered()
                done = set(invocation.ids)
                self.succeeded |= done
        self.settled |= done
        for each in done:
            for key in self.keys[each]:
                self.newest[key] = max(self.newest[key], each)
        return outcome

    def _over(self, ids, failed):
        """The first named letter of a key has failed; later ones of it that were named are held back, and go again."""
        blamed, again, over = set(), set(), set()
        for each in ids:
            keys = self.keys[each]
            if not keys & again and not (each in failed and keys & blamed):
                over.add(each)
                blamed |= keys if each in failed else set()
            else:
                again |= keys
        return over
