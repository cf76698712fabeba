"""
Records of SQS FIFO queues, Kinesis and DynamoDB streams, as event source mappings hand them to functions.

For handlers that are written against those, with stock Powertools: its data classes, parsers and batch processors take
them. What belongs to AWS alone (ARNs, receipt handles, senders) is filled in with the trigger's name and account
000000000000; nothing can be looked up by it.

| form | our event | a failed record is named by |
|---|---|---|
| sqs_fifo | `body`, as JSON text | `messageId` |
| kinesis | `kinesis.data`, in base64 | `kinesis.sequenceNumber` |
| dynamodb | `dynamodb.NewImage`, `OldImage`, `Keys` as attribute values | `dynamodb.SequenceNumber` |

Sequence numbers are the event's position as a decimal number: commit LSN times 10^10, plus ordinal.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from typing import Any, ClassVar, Final

from bridge.change import Event
from bridge.triggers.forms.form import Form
from bridge.triggers.forms.members import Members, Parts, dump, take_apart

_REGION: Final = "us-east-1"
_ACCOUNT: Final = "000000000000"
_ORDINALS: Final = 10_000_000_000
"""An event id has ten digits for the ordinal."""


def sequence_number(event: Event) -> str:
    """The position as one decimal number, larger for later events."""
    commit_lsn, _, ordinal = event.id.decode("ascii").partition("-")
    return str(int(commit_lsn, 16) * _ORDINALS + int(ordinal))


def group_of(event: Event) -> str:
    """What stays in order, in 128 characters of the alphabet that message groups and partition keys have."""
    if event.key is None:
        return event.id.decode("ascii")  # nothing has to be in order with it
    return hashlib.sha256(event.key).hexdigest()[:32]


class SqsFifo(Form):
    """A message of a FIFO queue; its group is the ordering key."""

    growth: ClassVar[float] = 1.8
    in_order: ClassVar[bool] = True

    def element(self, event: Event, document: bytes) -> bytes:
        parts = take_apart(document)
        sent = str((parts.committed_us or 0) // 1000)
        return dump(
            {
                "messageId": self.identifier(event),
                "receiptHandle": self.origin.idempotency_key(event),
                "body": document.decode(),
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": sent,
                    "SequenceNumber": sequence_number(event),
                    "MessageGroupId": group_of(event),
                    "SenderId": f"pgbridge:{self.origin.trigger}",
                    "MessageDeduplicationId": self.origin.idempotency_key(event),
                    "ApproximateFirstReceiveTimestamp": sent,
                },
                "messageAttributes": {},
                "md5OfBody": hashlib.md5(document, usedforsecurity=False).hexdigest(),
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:{self.origin.trigger}.fifo",
                "awsRegion": _REGION,
            }
        )

    def identifier(self, event: Event) -> str:
        return self.origin.uuid("message", self.origin.idempotency_key(event))


class Kinesis(Form):
    """A record of a stream; its partition key is the ordering key."""

    growth: ClassVar[float] = 2.0

    def element(self, event: Event, document: bytes) -> bytes:
        parts = take_apart(document)
        sequence = self.identifier(event)
        return dump(
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": group_of(event),
                    "sequenceNumber": sequence,
                    "data": b64encode(document).decode("ascii"),
                    "approximateArrivalTimestamp": (parts.committed_us or 0) / 1_000_000,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"shardId-000000000000:{sequence}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": f"arn:aws:iam::{_ACCOUNT}:role/pgbridge",
                "awsRegion": _REGION,
                "eventSourceARN": f"arn:aws:kinesis:{_REGION}:{_ACCOUNT}:stream/{self.origin.trigger}",
            }
        )

    def identifier(self, event: Event) -> str:
        return sequence_number(event)


_NAMES: Final = {"insert": "INSERT", "read": "INSERT", "update": "MODIFY", "delete": "REMOVE"}


class DynamoDb(Form):
    """
    A record of a table's stream.

    Columns become attributes by their JSON: numbers N, text S (so a `numeric` column is S, exact), true and false BOOL,
    null NULL, arrays L, objects M. `OldImage` holds what the server sent of the old row: all of it under REPLICA
    IDENTITY FULL, else the key if it changed; for REMOVE what there is of the row.
    """

    growth: ClassVar[float] = 2.5
    operations: ClassVar[frozenset[str] | None] = frozenset({"insert", "update", "delete", "read"})

    def element(self, event: Event, document: bytes) -> bytes:
        parts = take_apart(document)
        stream_record: dict[str, Any] = {
            "ApproximateCreationDateTime": (parts.committed_us or 0) // 1_000_000,
            "Keys": _attributes(parts.keys),
            **_images(parts),
            "SequenceNumber": self.identifier(event),
            "SizeBytes": len(document),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }
        table = f"{self.origin.trigger}/stream/1970-01-01T00:00:00.000"
        return _dump_any_text(
            {
                "eventID": self.origin.idempotency_key(event),
                "eventName": _NAMES.get(parts.action, parts.action),
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": _REGION,
                "dynamodb": stream_record,
                "eventSourceARN": f"arn:aws:dynamodb:{_REGION}:{_ACCOUNT}:table/{table}",
                "userIdentity": None,
            }
        )

    def identifier(self, event: Event) -> str:
        return sequence_number(event)


def _images(parts: Parts) -> dict[str, Any]:
    record = parts.record or {}
    if parts.action == "delete":
        return {"OldImage": _attributes(record)}
    old = parts.before if parts.action == "update" else None
    images = {"NewImage": _attributes(record)}
    return images if old is None else {**images, "OldImage": _attributes(old)}


def _dump_any_text(value: dict[str, Any]) -> bytes:
    try:
        return dump(value)
    except UnicodeEncodeError:  # a lone surrogate, from a json column: as an escape it can be written
        return json.dumps(value, separators=(",", ":")).encode()


class _Digits(str):
    """A number as it is written."""

    __slots__ = ()


def _attributes(members: Members) -> dict[str, Any]:
    return {
        name: _attribute(json.loads(bytes(value), parse_int=_Digits, parse_float=_Digits))
        for name, value in members.items()
    }


def _attribute(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case _Digits():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case list():
            return {"L": [_attribute(item) for item in value]}
        case _:
            return {"M": {name: _attribute(item) for name, item in value.items()}}
