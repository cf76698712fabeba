"""What a handler calls failed records, back to the events that they are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bridge.change import Event
from bridge.delivery.outcome import Outcome, Partial


def by_event_id(outcome: Outcome, names: Sequence[str], events: Sequence[Event], *, in_order: bool) -> Outcome:
    """
    The same outcome with event ids for names.

    Args:
        outcome: of a call.
        names: what its records were called, in order.
        events: what they are.
        in_order: whether a handler stops at the first failure and names everything behind it too. Then nothing is held
            against what it has not tried; otherwise a bad record at the front would take the good ones with it.
    """
    if not isinstance(outcome, Partial):
        return outcome
    ids = [event.id.decode("ascii") for event in events]
    failed = [place for place, name in enumerate(names) if name in outcome.failed_ids]
    stopped = in_order and failed == list(range(failed[0], len(ids)))
    return replace(
        outcome,
        failed_ids=frozenset(ids[place] for place in failed),
        untried_ids=frozenset(ids[failed[0] + 1 :]) if stopped else frozenset(),
    )
