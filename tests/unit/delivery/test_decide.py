"""From an outcome to what happens to the records: each row of the delivery table, and what is charged for it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.batching.batch import Batch
from bridge.change import Event, Position, Transaction
from bridge.delivery.decide import Charge, Decision, Policy, decide, expired
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

NOW = 1_000_000.0
EVIDENCE = Evidence("HTTP 500", status=500)
PLAIN = Policy(maximum_retry_attempts=2, maximum_record_age_seconds=-1, bisect_on_error=False)
BISECTING = Policy(maximum_retry_attempts=2, maximum_record_age_seconds=-1, bisect_on_error=True)


def event(number: int, key: bytes | None = None, committed_at: float = NOW, old_key: bytes | None = None) -> Event:
    transaction = Transaction(1000 + number, 900, committed_at, number)
    return Event(
        Position(LSN(transaction.commit_lsn), 0).event_id.encode(),
        transaction,
        0,
        key,
        old_key,
        "public.t",
        "update",
        b"{}",
    )


def batch(*events: Event, **more) -> Batch:
    return Batch(list(events), sum(len(e.body) + 2 for e in events), **more)


def judge(subject, outcome, policy=PLAIN, charges=None, draw=0.5) -> Decision:
    return decide(subject, outcome, charges or {}, policy, now=NOW, random=lambda: draw)


def ids(events) -> list[bytes]:
    return [e.id for e in events]


def retried(decision: Decision) -> list[list[bytes]]:
    return [ids(part.events) for part, _ in decision.parts]


@pytest.mark.parametrize("outcome", [Delivered(), Accepted()])
def test_a_success_settles_the_batch(outcome):
    events = [event(1), event(2)]
    decision = judge(batch(*events), outcome)
    assert ids(decision.settled) == ids(events)
    assert not decision.parts
    assert not decision.given_up
    assert not decision.charged


@pytest.mark.parametrize("policy", [PLAIN, BISECTING])
def test_a_call_that_never_reached_the_target_charges_nothing_and_divides_nothing(policy):
    events = [event(1, b"a"), event(2, b"b")]
    spent = {each.id: Charge(99, 5.0) for each in events}
    decision = judge(batch(*events, attempt=3), Failed(EVIDENCE, 7.0, unsent=True), policy, spent)
    assert retried(decision) == [ids(events)]
    assert not decision.charged
    assert not decision.given_up
    ((part, wait),) = decision.parts
    assert part.attempt == 4
    assert 7.0 <= wait <= 7.7


def test_a_batch_that_may_be_worked_on_goes_again_as_it_is_though_division_is_on():
    events = [event(1, b"a"), event(2, b"b")]
    decision = judge(batch(*events), Failed(EVIDENCE, joins=True), BISECTING)
    assert retried(decision) == [ids(events)]
    assert decision.charged == {each.id: Charge(1, NOW) for each in events}
    last = judge(batch(*events), Failed(EVIDENCE, joins=True), BISECTING, {each.id: Charge(2, 5.0) for each in events})
    assert ids([record.event for record in last.given_up]) == ids(events)


def test_a_partial_failure_charges_and_retries_just_the_named_records():
    a, b, c = event(1, b"a"), event(2, b"b"), event(3, b"c")
    decision = judge(batch(a, b, c), Partial(frozenset({b.id.decode()}), EVIDENCE))
    assert ids(decision.settled) == [a.id, c.id]
    assert retried(decision) == [[b.id]]
    assert decision.charged == {b.id: Charge(1, NOW)}


def test_later_changes_of_a_failed_key_go_again_uncharged():
    a, b, c = event(1, b"k"), event(2, b"k"), event(3, b"other")
    decision = judge(batch(a, b, c), Partial(frozenset({a.id.decode()}), EVIDENCE))
    assert retried(decision) == [[a.id, b.id]]
    assert set(decision.charged) == {a.id}
    assert ids(decision.settled) == [c.id]


def test_of_one_keys_named_records_only_the_first_is_charged():
    """A handler that keeps the order of a key names what it held back, too."""
    a, b, c = event(1, b"k"), event(2, b"k"), event(3, b"other")
    named = Partial(frozenset({a.id.decode(), b.id.decode()}), EVIDENCE)
    first = judge(batch(a, b, c), named)
    assert retried(first) == [[a.id, b.id]]
    assert set(first.charged) == {a.id}
    last = judge(batch(a, b), named, charges={a.id: Charge(2, 5.0)})
    assert [g.event.id for g in last.given_up] == [a.id]
    assert retried(last) == [[b.id]]
    assert not last.charged


def test_a_change_of_key_behind_a_failure_of_either_key_goes_again():
    a, b = event(1, b"old"), event(2, b"new", old_key=b"old")
    decision = judge(batch(a, b), Partial(frozenset({a.id.decode()}), EVIDENCE))
    assert retried(decision) == [[a.id, b.id]]


def test_a_named_record_behind_one_that_goes_again_is_not_charged():
    """Between them stands a change of key, which was held back for the first record's failure."""
    a, b, c = event(1, b"old"), event(2, b"new", old_key=b"old"), event(3, b"new")
    decision = judge(batch(a, b, c), Partial(frozenset({a.id.decode(), c.id.decode()}), EVIDENCE))
    assert retried(decision) == [[a.id, b.id, c.id]]
    assert set(decision.charged) == {a.id}


def test_nothing_is_charged_or_given_up_while_the_target_is_down():
    a, b = event(1), event(2)
    charges = {a.id: Charge(9, 1.0), b.id: Charge(9, 1.0)}
    both = Partial(frozenset({a.id.decode(), b.id.decode()}), EVIDENCE)
    for subject, outcome in [
        (batch(a), Failed(EVIDENCE)),
        (batch(a), Rejected(EVIDENCE)),
        (batch(a, b), both),
        (batch(a, b), Failed(EVIDENCE)),
    ]:
        decision = decide(subject, outcome, charges, PLAIN, now=NOW, random=lambda: 0.5, charging=False)
        assert retried(decision) == [ids(subject.events)]
        assert not decision.charged
        assert not decision.given_up
    final = Rejected(EVIDENCE, final=True)
    decision = decide(batch(a), final, charges, PLAIN, now=NOW, random=lambda: 0.5, charging=False)
    assert [record.certain for record in decision.given_up] == [True]


def test_the_last_attempt_makes_a_dead_letter_and_frees_later_changes_of_its_key():
    a, b = event(1, b"k"), event(2, b"k")
    decision = judge(batch(a, b), Partial(frozenset({a.id.decode()}), EVIDENCE), charges={a.id: Charge(2, 5.0)})
    assert [(g.event.id, g.charge) for g in decision.given_up] == [(a.id, Charge(3, 5.0))]
    assert ids(decision.settled) == [b.id]
    assert not decision.parts


def test_a_failed_batch_is_charged_whole_and_backs_off():
    a, b = event(1), event(2)
    decision = judge(batch(a, b), Failed(EVIDENCE))
    assert retried(decision) == [[a.id, b.id]]
    assert decision.charged == {a.id: Charge(1, NOW), b.id: Charge(1, NOW)}
    assert decision.parts[0][0].attempt == 2
    assert 0 < decision.parts[0][1] <= 0.2


def test_a_failed_batch_with_bisect_is_divided_free_of_charge():
    events = [event(n, b"%d" % n) for n in range(4)]
    decision = judge(batch(*events), Failed(EVIDENCE), BISECTING)
    assert retried(decision) == [ids(events[:2]), ids(events[2:])]
    assert not decision.charged


def test_bisect_finds_one_bad_record_among_a_hundred_in_few_calls():
    events = [event(n, b"%d" % n) for n in range(100)]
    bad = events[37]
    open_batches, charges, calls, dead, settled = [batch(*events)], {}, 0, [], []
    while open_batches:
        subject = open_batches.pop()
        calls += 1
        outcome = Failed(EVIDENCE) if bad in subject.events else Delivered()
        decision = judge(subject, outcome, BISECTING, charges)
        charges.update(decision.charged)
        settled += decision.settled
        dead += [g.event for g in decision.given_up]
        open_batches += [part for part, _ in decision.parts]
    assert dead == [bad]
    assert len(settled) == 99
    assert calls <= 20
    assert charges == {bad.id: Charge(2, NOW)}


@pytest.mark.parametrize("limit", [0, 1, 8])
def test_a_record_is_tried_as_often_as_the_setting_says(limit):
    policy = Policy(maximum_retry_attempts=limit, maximum_record_age_seconds=-1, bisect_on_error=True)
    subject, charges, calls = batch(event(1)), {}, 0
    while True:
        calls += 1
        decision = judge(subject, Failed(EVIDENCE), policy, charges)
        charges.update(decision.charged)
        if decision.given_up:
            break
        subject = decision.parts[0][0]
    assert calls == limit + 1
    assert decision.given_up[0].charge.attempts == limit + 1


def test_without_a_limit_a_record_is_never_given_up():
    policy = Policy(maximum_retry_attempts=-1, maximum_record_age_seconds=-1, bisect_on_error=True)
    one = event(1)
    decision = judge(batch(one), Failed(EVIDENCE), policy, {one.id: Charge(10_000, 1.0)})
    assert not decision.given_up
    assert decision.charged[one.id].attempts == 10_001


@pytest.mark.parametrize(
    "outcome", [Busy(EVIDENCE), Busy(EVIDENCE, retry_after_seconds=30.0), Misconfigured(EVIDENCE, "grant it")]
)
def test_what_is_no_fault_of_the_records_costs_them_nothing(outcome):
    subject = batch(event(1), event(2))
    for _ in range(100):
        decision = judge(subject, outcome)
        assert not decision.charged
        assert not decision.given_up
        ((subject, wait),) = decision.parts
        assert len(subject.events) == 2
    if isinstance(outcome, Busy) and outcome.retry_after_seconds:
        assert wait >= 30.0


def test_a_misconfigured_target_pauses_the_trigger_and_is_probed_more_and_more_slowly():
    subject, pauses = batch(event(1)), []
    for _ in range(6):
        decision = judge(subject, Misconfigured(EVIDENCE, "grant it"))
        pauses.append(decision.pause.seconds)
        ((subject, _),) = decision.parts
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    left_alone = judge(subject, Misconfigured(EVIDENCE, "resume it", disable=True)).pause
    assert (left_alone.seconds, left_alone.asked_by_target) == (None, True)


@pytest.mark.parametrize("outcome", [TooLarge(EVIDENCE), Rejected(EVIDENCE)])
def test_a_refused_content_is_divided_down_to_the_event_and_then_set_aside_at_once(outcome):
    events = [event(n, b"%d" % n) for n in range(3)]
    decision = judge(batch(*events), outcome, PLAIN)
    assert len(decision.parts) == 2
    assert all(wait == 0.0 for _, wait in decision.parts)
    alone = judge(batch(events[0]), outcome, PLAIN)
    assert [g.event.id for g in alone.given_up] == [events[0].id]
    assert alone.given_up[0].charge.attempts == 1


def test_the_followers_of_a_batch_stay_behind_what_is_left_of_it():
    a, b, c = event(1, b"k"), event(2, b"k"), event(3, b"k")
    follower = batch(c)
    for outcome, policy in [
        (Failed(EVIDENCE), PLAIN),
        (Busy(EVIDENCE), PLAIN),
        (Partial(frozenset({a.id.decode()}), EVIDENCE), PLAIN),
        (Failed(EVIDENCE), BISECTING),
        (TooLarge(EVIDENCE), PLAIN),
    ]:
        decision = judge(batch(a, b, then=follower), outcome, policy)
        assert ids(e for part, _ in decision.parts for e in part.chain()) == ids([a, b, c])


def test_records_that_grew_too_old_are_named():
    policy = Policy(maximum_retry_attempts=2, maximum_record_age_seconds=60, bisect_on_error=True)
    old, fresh = event(1, committed_at=NOW - 61), event(2, committed_at=NOW - 59)
    decision = expired(batch(old, fresh), {}, policy, now=NOW)
    assert [record.event.id for record in decision.given_up] == [old.id]
    assert [(part.events, wait) for part, wait in decision.parts] == [([fresh], 0.0)]
    assert expired(batch(old, fresh), {}, PLAIN, now=NOW) is None
    assert expired(batch(fresh), {}, policy, now=NOW) is None


@given(st.integers(min_value=0, max_value=1 << 32))
def test_no_event_is_lost_or_doubled_by_any_decision(seed):
    rng = random.Random(seed)
    events = [event(n, rng.choice([None, b"a", b"b", b"c"])) for n in range(rng.randrange(1, 20))]
    follower = batch(event(50, b"a")) if rng.random() < 0.3 else None
    charges = {e.id: Charge(rng.randrange(1, 4), 1.0) for e in events if rng.random() < 0.4}
    failed = frozenset(e.id.decode() for e in events if rng.random() < 0.4) or frozenset({events[0].id.decode()})
    outcome = rng.choice(
        [
            Delivered(),
            Failed(EVIDENCE),
            Busy(EVIDENCE),
            TooLarge(EVIDENCE),
            Rejected(EVIDENCE),
            Misconfigured(EVIDENCE, "x"),
            Partial(failed, EVIDENCE),
        ]
    )
    subject = batch(*events, then=follower)
    decision = judge(subject, outcome, rng.choice([PLAIN, BISECTING]), charges)
    followers = list(follower.chain()) if follower else []
    again = [e for part, _ in decision.parts for e in part.chain() if e not in followers]
    everything = [*decision.settled, *(g.event for g in decision.given_up), *again]
    assert sorted(ids(everything)) == ids(events)
    if decision.parts and follower:
        assert [e for part, _ in decision.parts for e in part.chain()].count(followers[0]) == 1
    assert set(decision.charged) <= set(ids(again))
