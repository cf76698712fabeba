"""
Faults planted in our own code, each of a kind that has lost data in somebody's product.

The reconciliation has to find every one of them (`test_lies.py`); one that it does not find could be in bridge/ now.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bridge.batching.batch import Batch
from bridge.batching.lanes import Lanes
from bridge.change import Event, Position
from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.http import HttpTarget
from bridge.delivery.outcome import Delivered, Failed
from bridge.pgoutput.assembler import Route
from bridge.pipeline import Pipeline
from bridge.progress.tracker import Tracker
from bridge.roster import Roster
from bridge.triggers.envelope import Envelope

FROM_MANY = 100
"""A burst, or a transaction, is a large one from here on."""


def confirm_what_was_received() -> None:
    """The slot is confirmed to what was read, whatever of it has settled."""
    Pipeline.confirmable = lambda pipeline: pipeline.assembler.received_end_lsn


def confirm_one_too_many() -> None:
    """`end_lsn` is taken for the last byte of a commit record, and 1 is added."""
    confirmable = Pipeline.confirmable
    Pipeline.confirmable = lambda pipeline: confirmable(pipeline) + 1


def skip_by_lsn_alone() -> None:
    """After a restart a transaction counts as delivered once any change of it was."""
    route = Roster._route

    def skipping(roster: Roster, *arguments: Any) -> Route:
        made = route(roster, *arguments)
        lsn, ordinal = made.received
        return Route(
            trigger=made.trigger, shape=made.shape, operations=made.operations, inbox=made.inbox,
            received=Position(lsn, 2**31) if ordinal >= 0 else made.received, selection=made.selection,
        )  # fmt: skip

    Roster._route = skipping


def forget_one_of_many() -> None:
    """One row of a COPY is dropped between decoder and lanes."""
    admit = Dispatcher.admit

    def forgetful(dispatcher: Dispatcher) -> None:
        if len(dispatcher.inbox) >= FROM_MANY:
            del dispatcher.inbox[FROM_MANY // 2]
        admit(dispatcher)

    Dispatcher.admit = forgetful


def reorder_on_retry() -> None:
    """What is sent again is sent youngest first."""
    retry = Lanes.retry

    def reordering(lanes: Lanes, batch: Batch, parts: Sequence[Batch]) -> None:
        for part in parts:
            part.events = list(reversed(part.events))
        retry(lanes, batch, parts)

    Lanes.retry = reordering


def overtake() -> None:
    """A key that is in flight holds nothing back."""
    gather = Lanes._gather

    def overtaking(lanes: Lanes) -> Batch | None:
        lanes._held.clear()
        return gather(lanes)

    Lanes._gather = overtaking


def save_checkpoints_ahead() -> None:
    """A checkpoint says what was received."""
    Tracker.checkpoint = property(lambda tracker: tracker.received)


def take_failure_for_success() -> None:
    """A call that failed settles its events all the same."""
    deliver = HttpTarget.deliver

    async def optimistic(target: HttpTarget, invocation: Any) -> Any:
        outcome = await deliver(target, invocation)
        return Delivered() if isinstance(outcome, Failed) else outcome

    HttpTarget.deliver = optimistic


def change_content_on_retry() -> None:
    """An event says how often it was sent."""
    sent = itertools.count()
    event = Envelope.event

    def counting(envelope: Envelope, one: Event) -> bytes:
        return event(envelope, one)[:-2] + b',"sent":%d}}' % next(sent)

    def records(envelope: Envelope, events: Iterable[Event]) -> bytes:
        return b'{"Records":[%b]}' % b",".join(counting(envelope, one) for one in events)

    Envelope.records = records
    Envelope.single = lambda envelope, events: counting(envelope, events[0])


LIES: dict[str, Callable[[], None]] = {
    "confirm what was received": confirm_what_was_received,
    "confirm one too many": confirm_one_too_many,
    "skip by LSN alone": skip_by_lsn_alone,
    "forget one row of a COPY": forget_one_of_many,
    "reorder on retry": reorder_on_retry,
    "overtake": overtake,
    "save checkpoints ahead": save_checkpoints_ahead,
    "take failure for success": take_failure_for_success,
    "change content on retry": change_content_on_retry,
}
"""Plants the fault."""
