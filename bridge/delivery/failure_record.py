"""
What an on-failure destination is told of a dead letter: an event source mapping's record, and the event itself. Pure.

The form is that of ESM's invocation records for streams, so what reads those from a queue reads these too. Where ESM
has `KinesisBatchInfo` or `DDBStreamBatchInfo` this has `PostgresBatchInfo`; and `payload`, which ESM puts only into S3,
is always there, or a pointer to it where the destination does not take that much. One record is one event: a batch that
fails has been divided by then.

A record is written in two steps. When the event is given up, what only the failed call knew becomes the letter's
`report`, which the store keeps until the destination has taken the record; the rest is read from the letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from bridge.change import Position
from bridge.delivery.decide import GivenUp
from bridge.store.protocol import DeadLetter
from bridge.triggers.forms.members import take_apart

VERSION: Final = "1.0"


@dataclass(frozen=True, slots=True)
class Reporting:
    """`on_failure` of a trigger's settings."""

    function: str
    """The function's ARN or name, or the endpoint; never a URL's path, which may be a secret."""

    def report(self, record: GivenUp) -> str:
        """What has to be remembered of the failed call, as JSON; holds no row value."""
        evidence = record.evidence
        return orjson.dumps(
            {
                "functionArn": self.function,
                "condition": record.condition,
                "executedVersion": evidence.executed_version,
                "functionError": evidence.function_error,
            }
        ).decode()


def failure_record(letter: DeadLetter, slot: str, *, location: Mapping[str, Any] | None = None) -> bytes:
    """
    The record as JSON.

    Args:
        letter: with its report.
        slot: that it was read from.
        location: where the event is; given in place of an event that is too large.
    """
    call = orjson.loads(letter.report or "{}")
    position = Position.parse(letter.event_id)
    parts = take_apart(letter.event)
    committed = parts.text("commit_timestamp") or _iso(letter.first_failed_at)
    record: dict[str, Any] = {
        "requestContext": {
            "requestId": letter.request_id,
            "functionArn": call.get("functionArn"),
            "condition": call.get("condition"),
            "approximateInvokeCount": letter.attempts,
        },
        "responseContext": {
            "statusCode": letter.status,
            "executedVersion": call.get("executedVersion"),
            "functionError": call.get("functionError"),
        },
        "version": VERSION,
        "timestamp": _iso(letter.last_failed_at),
        "PostgresBatchInfo": {
            "slot": slot,
            "trigger": letter.trigger,
            "database": parts.text("database"),
            "table": letter.table,
            "deadLetterId": letter.id,
            "error": letter.error,
            "startEventId": letter.event_id,
            "endEventId": letter.event_id,
            "startLsn": str(position.commit_lsn),
            "endLsn": str(position.commit_lsn),
            "approximateArrivalOfFirstRecord": committed,
            "approximateArrivalOfLastRecord": committed,
            "batchSize": 1,
        },
    }
    if location is None:
        record["payload"] = payload(letter).decode()
    else:
        record["payloadLocation"] = dict(location)
    return orjson.dumps(record)


def payload(letter: DeadLetter) -> bytes:
    """What the function would have been called with, had the event been alone in its batch."""
    return b'{"Records":[%b]}' % letter.event


def object_name(letter: DeadLetter) -> str:
    """Of the record in a bucket: the same for the same letter, so that a repetition replaces it."""
    day = letter.last_failed_at.astimezone(UTC)
    return f"{letter.trigger}/{day:%Y/%m/%d}/{letter.event_id}.json"


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
