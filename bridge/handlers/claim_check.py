"""
Events that were too large for the call: what came is a pointer, and here the event is fetched from S3.

`process_changes` and `ChangeBatchProcessor` do it by themselves, record by record. With Powertools' parser or data
classes, `fetch_claim_checks` goes first:

    def lambda_handler(event, context):
        batch = EventBatch[User].model_validate(fetch_claim_checks(event))

The function needs s3:GetObject on the bucket of the trigger's `claim_check`. boto3, which Lambda brings along, is
imported when the first pointer is met.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, cast


class ClaimCheckMismatch(Exception):
    """The object is not what the pointer speaks of: somebody replaced it, or it is of another event."""


def is_claim_check(record: Mapping[str, Any]) -> bool:
    """Whether an event is a pointer to the real one."""
    metadata = record.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("claim_check") is True


def fetch_claim_check(record: Mapping[str, Any]) -> dict[str, Any]:
    """
    The whole event that a pointer stands for; any other event as it is.

    Raises:
        ClaimCheckMismatch: the object is another one.
        botocore.exceptions.ClientError: S3 does not give it out, as when the lifecycle rule has deleted it.
    """
    if not is_claim_check(record):
        return cast("dict[str, Any]", record)
    pointer = record["record"]["claim_check"]
    body: bytes = _s3().get_object(Bucket=pointer["bucket"], Key=pointer["key"])["Body"].read()
    if hashlib.sha256(body).hexdigest() != pointer["sha256"]:
        raise ClaimCheckMismatch(f"s3://{pointer['bucket']}/{pointer['key']} is not the object that the event names")
    event: dict[str, Any] = json.loads(body)
    return event


def fetch_claim_checks(event: Mapping[str, Any]) -> dict[str, Any]:
    """An invocation with all pointers in its `Records` replaced by the events; raises as `fetch_claim_check` does."""
    return {**event, "Records": [fetch_claim_check(record) for record in event["Records"]]}


@cache
def _s3() -> Any:
    import boto3  # noqa: PLC0415  # functions without large events never load it

    return boto3.client("s3")
