"""
From what came of a call to what happens to its records: the last two columns of the delivery table. Pure.

The only place where an attempt is charged, a batch divided after a failure, or a record given up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bridge.batching.batch import Batch, bisect, part_of
from bridge.change import Event
from bridge.delivery import retry
from bridge.delivery.outcome import (
    Accepted,
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
from bridge.triggers.envelope import Unsent

FIRST_PROBE_SECONDS = 5.0
LONGEST_PROBE_SECONDS = 60.0
FOREVER = -1


@dataclass(frozen=True, slots=True)
class Policy:
    """A trigger's settings for records that fail, with ESM's meaning; -1 is without limit."""

    maximum_retry_attempts: int
    maximum_record_age_seconds: float
    bisect_on_error: bool


@dataclass(frozen=True, slots=True)
class Charge:
    """What a record has against it: failed attempts, and when the first was (seconds since 1970)."""

    attempts: int
    first_failed_at: float


NO_CHARGE = Charge(0, 0.0)


class Condition(StrEnum):
    """Why a record is set aside: an event source mapping's own words where it has them."""

    RETRY_ATTEMPTS_EXHAUSTED = "RetryAttemptsExhausted"
    RECORD_AGE_EXCEEDED = "RecordAgeExceeded"
    RECORD_TOO_LARGE = "RecordTooLarge"
    RECORD_REJECTED = "RecordRejected"


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A record to set aside, with its reason."""

    event: Event
    evidence: Evidence
    charge: Charge
    certain: bool = False
    """The reason lies in the record whatever the target does: too old, too large, aborted, or failed among others."""
    condition: Condition = Condition.RETRY_ATTEMPTS_EXHAUSTED


@dataclass(frozen=True, slots=True)
class Pause:
    """The whole trigger waits: for `seconds`, or until resumed by hand."""

    reason: str
    remedy: str
    seconds: float | None
    asked_by_target: bool = False
    """The target wants to be left alone; another one has not said so."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Every event of the batch is in exactly one of `settled`, `given_up` and the parts' own events."""

    settled: Sequence[Event] = ()
    given_up: Sequence[GivenUp] = ()
    parts: Sequence[tuple[Batch, float]] = ()
    """Batches to send again, each with the seconds to wait first; the batch's followers hang behind one of them."""
    charged: Mapping[bytes, Charge] = field(default_factory=dict)
    """New charges, by event id."""
    pause: Pause | None = None


def decide(
    batch: Batch,
    outcome: Outcome,
    charges: Mapping[bytes, Charge],
    policy: Policy,
    *,
    now: float,
    random: Callable[[], float],
    charging: bool = True,
) -> Decision:
    """
    Args:
        batch: as it was sent.
        outcome: what came of it.
        charges: what the trigger's records have against them already, by event id.
        policy: the trigger's settings.
        now: seconds since 1970.
        random: answers a number in [0, 1), for the jitter.
        charging: False while the target is down for everyone (`circuit.py`): nothing is charged or given up for it.
    """
    match outcome:
        case Delivered() | Accepted():
            return Decision(settled=batch.events)
        case Partial():
            return _partial(batch, outcome, charges, policy, now=now, random=random, charging=charging)
        case Busy(_, retry_after_seconds) | Failed(_, retry_after_seconds, unsent=True):
            wait = retry.wait_seconds(batch.attempt, random, retry_after_seconds)
            return Decision(parts=[(_again(batch), wait)])
        case Failed(evidence, retry_after_seconds):
            if policy.bisect_on_error and len(batch.events) > 1 and not outcome.joins:
                wait = retry.wait_seconds(1, random, retry_after_seconds)
                return Decision(parts=[(part, wait) for part in bisect(batch)])
            if not charging:
                return Decision(parts=[(_again(batch), retry.wait_seconds(1, random, retry_after_seconds))])
            return _charge(
                batch, batch.events, evidence, charges, policy, now=now, random=random, asked=retry_after_seconds
            )
        case Misconfigured(evidence, remedy, disable):
            probe = min(LONGEST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(batch.attempt - 1, 16))
            pause = Pause(evidence.error, remedy, None if disable else probe, asked_by_target=disable)
            return Decision(parts=[(_again(batch), 0.0)], pause=pause)
        case TooLarge(evidence) | Rejected(evidence):
            if len(batch.events) > 1:
                return Decision(parts=[(part, 0.0) for part in bisect(batch)])
            certain = isinstance(outcome, TooLarge) or outcome.final
            condition = Condition.RECORD_TOO_LARGE if isinstance(outcome, TooLarge) else Condition.RECORD_REJECTED
            if not charging and not certain:
                return Decision(parts=[(_again(batch), 0.0)])
            (event,) = batch.events
            return Decision(given_up=[GivenUp(event, evidence, _charged(event, charges, now), certain, condition)])


def expired(batch: Batch, charges: Mapping[bytes, Charge], policy: Policy, *, now: float) -> Decision | None:
    """What becomes of a batch in which records have grown too old to be sent; None where none has."""
    limit = policy.maximum_record_age_seconds
    if limit == FOREVER:
        return None
    old = [event for event in batch.events if now - event.transaction.committed_at > limit]
    if not old:
        return None
    evidence = Evidence(f"older than maximum_record_age_in_seconds ({limit:g} s)")
    return _without(batch, (), [_unsent(event, evidence, charges, Condition.RECORD_AGE_EXCEEDED, now) for event in old])


def left_out(batch: Batch, unsent: Unsent, charges: Mapping[bytes, Charge], *, now: float) -> Decision:
    """What the trigger's transform wants nothing of is settled, what it failed at is given up, and the rest is left."""
    given_up = [
        _unsent(event, Evidence(error.error, error.detail), charges, Condition.RECORD_REJECTED, now)
        for event, error in unsent.failed
    ]
    return _without(batch, unsent.dropped, given_up)


def _unsent(
    event: Event, evidence: Evidence, charges: Mapping[bytes, Charge], condition: Condition, now: float
) -> GivenUp:
    """A record given up without a further attempt, for a reason of its own."""
    charge = charges.get(event.id, Charge(0, now))
    return GivenUp(event, evidence, charge, certain=True, condition=condition)


def _without(batch: Batch, settled: Sequence[Event], given_up: Sequence[GivenUp]) -> Decision:
    """These are done with, and the rest of the batch may be sent at once."""
    gone = {event.id for event in settled} | {record.event.id for record in given_up}
    rest = [event for event in batch.events if event.id not in gone]
    parts = [(part_of(batch, rest, then=batch.then), 0.0)] if rest else []
    return Decision(settled=settled, given_up=given_up, parts=parts)


def _partial(
    batch: Batch,
    outcome: Partial,
    charges: Mapping[bytes, Charge],
    policy: Policy,
    *,
    now: float,
    random: Callable[[], float],
    charging: bool,
) -> Decision:
    """
    The first named record of each key is charged; later changes of that key go again with it, uncharged.

    A handler that keeps the order of a key names the later changes too, because it held them back: not their fault.
    """
    charged: dict[bytes, Charge] = {}
    settled: list[Event] = []
    given_up: list[GivenUp] = []
    again: list[Event] = []
    blamed: set[bytes] = set()
    keys_again: set[bytes] = set()
    for event in batch.events:
        keys = set(event.keys)
        name = event.id.decode("ascii")
        named = name in outcome.failed_ids
        blamable = named and name not in outcome.untried_ids
        if blamable and blamed.isdisjoint(keys) and keys_again.isdisjoint(keys):
            blamed |= keys
            charge = _charged(event, charges, now)
            if charging and _exhausted(charge, policy):
                # A call that delivered others shows that the target works.
                certain = len(outcome.failed_ids) < len(batch.events)
                given_up.append(GivenUp(event, outcome.evidence, charge, certain))
                continue
            if charging:
                charged[event.id] = charge
        elif not named and keys_again.isdisjoint(keys):
            settled.append(event)
            continue
        again.append(event)
        keys_again |= keys
    if not again:
        return Decision(settled=settled, given_up=given_up)
    part = part_of(batch, again, then=batch.then)
    part.attempt += 1
    wait = retry.wait_seconds(max((charge.attempts for charge in charged.values()), default=1), random)
    return Decision(settled=settled, given_up=given_up, parts=[(part, wait)], charged=charged)


def _charge(
    batch: Batch,
    events: Sequence[Event],
    evidence: Evidence,
    charges: Mapping[bytes, Charge],
    policy: Policy,
    *,
    now: float,
    random: Callable[[], float],
    asked: float | None,
) -> Decision:
    """Every record failed."""
    charged = {event.id: _charged(event, charges, now) for event in events}
    given_up = [
        GivenUp(event, evidence, charged[event.id]) for event in events if _exhausted(charged[event.id], policy)
    ]
    for record in given_up:
        del charged[record.event.id]
    if not charged:
        return Decision(given_up=given_up)
    part = part_of(batch, [event for event in events if event.id in charged], then=batch.then)
    part.attempt += 1
    wait = retry.wait_seconds(max(charge.attempts for charge in charged.values()), random, asked)
    return Decision(given_up=given_up, parts=[(part, wait)], charged=charged)


def _charged(event: Event, charges: Mapping[bytes, Charge], now: float) -> Charge:
    before = charges.get(event.id)
    return Charge(1, now) if before is None else Charge(before.attempts + 1, before.first_failed_at)


def _exhausted(charge: Charge, policy: Policy) -> bool:
    return policy.maximum_retry_attempts != FOREVER and charge.attempts > policy.maximum_retry_attempts


def _again(batch: Batch) -> Batch:
    return Batch(batch.events, batch.size, attempt=batch.attempt + 1, then=batch.then, group=batch.group)
