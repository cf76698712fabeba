"""One call: a batch in the form that its target takes, and what came of it in the words of its events."""

from __future__ import annotations

import traceback

import structlog

from bridge.batching.batch import Batch
from bridge.delivery.naming import by_event_id
from bridge.delivery.outcome import Evidence, Failed, Outcome
from bridge.delivery.target import Invocation, Target
from bridge.observe import log as log_events
from bridge.triggers.envelope import Envelope

log = structlog.get_logger("pgbridge.delivery")


async def call(
    target: Target, batch: Batch, envelope: Envelope, *, trigger: str, batched: bool, tenant: str | None
) -> Outcome:
    """
    Make one attempt at a batch.

    Args:
        target: what is called.
        batch: of events that `envelope.prepare` has let through, every one.
        envelope: gives them their form.
        trigger: its name.
        batched: whether the form is that of several events; otherwise there is one.
        tenant: whom all of them belong to, where tenants are told apart.

    Returns:
        What came of it, by event id. A bug of the target's costs this batch an attempt, and nobody else anything.
    """
    events = batch.events
    invocation = Invocation(
        trigger=trigger,
        ids=envelope.identifiers(events),
        body=envelope.records(events) if batched else envelope.single(events),
        batched=batched,
        attempt=batch.attempt,
        content=envelope.content(events, batched=batched),
        message_id=envelope.message_id(events),
        tenant=tenant,
    )
    envelope.sent(events)
    try:
        outcome = await target.deliver(invocation)
    except Exception as error:  # noqa: BLE001 - whatever a target raises, see above
        # Not its message, which may hold row values.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error(log_events.TARGET_BUG, trigger=trigger, error=type(error).__name__, traceback=where)  # noqa: TRY400
        outcome = Failed(Evidence(f"pgbridge failed inside the target: {type(error).__name__}"))
    return by_event_id(outcome, invocation.ids, events, in_order=envelope.in_order)
