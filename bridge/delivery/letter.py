"""A record that is given up, as the dead letter that is stored of it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from bridge.delivery.decide import NO_CHARGE, GivenUp
from bridge.delivery.failure_record import Reporting
from bridge.store.protocol import DeadLetter
from bridge.triggers.envelope import Envelope


def letter_of(
    record: GivenUp, *, trigger: str, envelope: Envelope, reporting: Reporting | None, now: float
) -> DeadLetter:
    """
    The letter, with the whole event in our own form whatever the trigger's envelope.

    Args:
        record: with what there is against it.
        trigger: its name.
        envelope: the trigger's.
        reporting: makes what an on-failure destination is told; None where there is none.
        now: seconds since 1970.
    """
    event, evidence, charge = record.event, record.evidence, record.charge
    last_failed_at = datetime.fromtimestamp(now, UTC)
    first_failed_at = last_failed_at if charge == NO_CHARGE else datetime.fromtimestamp(charge.first_failed_at, UTC)
    return DeadLetter(
        trigger=trigger,
        event_id=event.id.decode("ascii"),
        table=event.table,
        event=envelope.event(event),
        error=evidence.error,
        detail=evidence.detail,
        status=evidence.status,
        attempts=charge.attempts,
        first_failed_at=first_failed_at,
        last_failed_at=last_failed_at,
        request_id=evidence.request_id,
        log_tail=evidence.log_tail,
        ordering_key=event.key,
        old_ordering_key=event.old_key,
        barrier=event.barrier,
        report=None if reporting is None else reporting.report(record),
    )
