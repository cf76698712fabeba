"""
A claim check: an event that is too large for its target goes to S3, and the target gets a pointer in its `record`.

    {"id": …, "action": …, "record": {"claim_check": {"bucket": …, "key": …, "bytes": …, "sha256": …}},
     "changes": null, "metadata": {…, "claim_check": true}}

The mark in the metadata is what tells such an event: a table may have a column of that name. The object is the whole
event as it would have been sent. Its name and so the pointer depend on the event alone: every attempt sends the same
bytes, and a repetition replaces the object by itself. Objects are never deleted by us, since a dead letter may be
replayed long after; the bucket's lifecycle rules do that.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from bridge.delivery.aws import AwsUnusable, service_client
from bridge.delivery.lambda_errors import CREDENTIALS_REFUSED
from bridge.delivery.outcome import Busy, Evidence, Misconfigured, Outcome, TooLarge
from bridge.delivery.target import Invocation, Target, TargetFinding
from bridge.triggers.forms.members import dump, members

MEMBER: Final = "claim_check"

_DENIED: Final = frozenset({"AllAccessDisabled", "NoSuchBucket", "403", "404"})
_REMEDY: Final = "check claim_check.bucket, and let this process write to it (s3:PutObject)"


class ClaimCheckTarget:
    """
    Keeps `Target`: another one, with a claim check for single events that it can't take.

    Args:
        inner: what is called.
        bucket: of S3.
        prefix: what object names begin with.
        most_bytes: a body above this is not even tried.
    """

    def __init__(self, inner: Target, *, bucket: str, prefix: str, most_bytes: int) -> None:
        self._inner = inner
        self._bucket = bucket
        self._prefix = prefix
        self._most_bytes = most_bytes
        self._client: Any = None
        self._lock = asyncio.Lock()

    async def deliver(self, invocation: Invocation) -> Outcome:
        alone = len(invocation.ids) == 1
        if not alone or len(invocation.body) <= self._most_bytes:
            outcome = await self._inner.deliver(invocation)
            if not alone or not isinstance(outcome, TooLarge):
                return outcome
        event = invocation.body
        if invocation.batched:
            event = event.removeprefix(b'{"Records":[').removesuffix(b"]}")
        name = f"{self._prefix}{invocation.message_id or invocation.ids[0]}.json"
        failed = await self._store(name, event)
        if failed is not None:
            return failed
        return await self._inner.deliver(
            replace(invocation, body=self._pointing(event, name, batched=invocation.batched))
        )

    async def check(self) -> Sequence[TargetFinding]:
        return [*await self._inner.check(), await self._check_bucket()]

    async def close(self) -> None:
        await self._inner.close()

    def _pointing(self, event: bytes, name: str, *, batched: bool) -> bytes:
        document = members(event)
        digest = hashlib.sha256(event).hexdigest()
        pointer = {"bucket": self._bucket, "key": name, "bytes": len(event), "sha256": digest}
        metadata = {**members(bytes(document["metadata"])), MEMBER: True}
        small = dump({**document, "record": {MEMBER: pointer}, "changes": None, "metadata": metadata})
        return b'{"Records":[%b]}' % small if batched else small

    async def _store(self, name: str, event: bytes) -> Outcome | None:
        """Put the event into the bucket; what came in the way, as an outcome that charges nothing."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded when it is needed

        try:
            client = await self._s3()
            await asyncio.to_thread(
                client.put_object, Bucket=self._bucket, Key=name, Body=event, ContentType="application/json"
            )
        except AwsUnusable as unusable:
            evidence = Evidence(f"claim check: {unusable.error}")
            return Misconfigured(evidence, unusable.remedy) if unusable.lasting else Busy(evidence)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            evidence = Evidence(f"claim check: S3 {code}")
            if code in CREDENTIALS_REFUSED:
                self._client = None  # the next attempt looks for credentials anew: they may have been replaced
                return Misconfigured(evidence, _REMEDY)
            return Misconfigured(evidence, _REMEDY) if code in _DENIED else Busy(evidence)
        except BotoCoreError as error:
            return Busy(Evidence(f"claim check: {type(error).__name__}"))
        return None

    async def _check_bucket(self) -> TargetFinding:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded when it is needed

        try:
            client = await self._s3()
            await asyncio.to_thread(client.head_bucket, Bucket=self._bucket)
        except AwsUnusable as unusable:
            return TargetFinding(ok=False, what=f"claim check: {unusable.error}", remedy=unusable.remedy)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "403":
                # Writing takes another right than looking, so this proves nothing.
                return TargetFinding(ok=True, what=f"bucket {self._bucket} can't be looked at (403)", remedy=_REMEDY)
            return TargetFinding(ok=False, what=f"bucket {self._bucket} can't be used: {code}", remedy=_REMEDY)
        except BotoCoreError as error:
            return TargetFinding(
                ok=False, what=f"bucket {self._bucket} can't be reached: {type(error).__name__}", remedy=_REMEDY
            )
        return TargetFinding(ok=True, what=f"bucket {self._bucket} takes events that are too large")

    async def _s3(self) -> Any:
        async with self._lock:
            if self._client is None:
                self._client = await asyncio.to_thread(service_client, "s3", region=None)
            return self._client
