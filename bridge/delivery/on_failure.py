"""
Telling an on-failure destination of dead letters: SQS, SNS or S3.

The table is the queue. A letter is saved with what has to be told of it, in the transaction of the checkpoint that
passes it; whatever was not told is found again after a restart, in event order. A letter is marked as told after the
destination has taken the record, so a record is sent at least once. Nothing here holds delivery up: a destination that
refuses is asked again later, and its letters stay in the table as they would without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from bridge.clock import Clock
from bridge.delivery.aws import AwsUnusable, service_client
from bridge.delivery.failure_record import failure_record, object_name, payload
from bridge.delivery.lambda_errors import CREDENTIALS_REFUSED
from bridge.delivery.retry import ceiling_seconds
from bridge.delivery.target import TargetFinding
from bridge.errors import StoreError
from bridge.observe import log as log_events
from bridge.store.protocol import DeadLetter, LetterFilter, Store

MESSAGE_BYTES: Final = 262_144
"""SNS takes 256 KiB. SQS takes 1 MiB by now, but queues made before that, and what reads from them, may not."""

LOOK_SECONDS: Final = 1.0
"""How soon a letter is told of after it was saved."""

_AT_ONCE: Final = 8
_OBJECT_PREFIX: Final = "pgbridge/on-failure/"

_THINGS: Final = {"s3": "bucket", "sns": "topic", "sqs": "queue"}
_SENDING_RIGHTS: Final = {"s3": "s3:PutObject", "sns": "sns:Publish", "sqs": "sqs:SendMessage"}
_MISSING: Final = frozenset(
    {"404", "NoSuchBucket", "NotFound", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
)
_DENIED: Final = frozenset(
    {"403", "AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"}
)

log = structlog.get_logger("pgbridge.on_failure")


class Unsent(Exception):
    """A destination did not take a record; the message says why and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where events go that a message can't hold."""

    name: str
    prefix: str = ""


class Destination(Protocol):
    """Something that takes records of dead letters."""

    async def send(self, letter: DeadLetter, slot: str) -> None:
        """
        Hand a record over; it is safe there when this returns.

        Raises:
            Unsent: it is not.
        """
        ...


class AwsDestination:
    """One queue, topic or bucket; blocking calls run in threads."""

    def __init__(self, arn: str, *, overflow: Bucket | None = None) -> None:
        """
        Make the destination without connecting.

        Args:
            arn: of an SQS queue, an SNS topic or an S3 bucket.
            overflow: takes the events that are too large for a message; None leaves them in the dead-letter table, and
                the record says so.
        """
        self._arn = arn
        _, _, self._service, self._region, self._account, self._name = arn.split(":", 5)
        self._overflow = overflow
        self._clients: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def send(self, letter: DeadLetter, slot: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded when it is needed

        try:
            if self._service == "s3":
                # ARNs of buckets may go on with a path.
                bucket, _, prefix = self._name.partition("/")
                name = f"{prefix or _OBJECT_PREFIX}{object_name(letter)}"
                await self._put(Bucket(bucket), name, failure_record(letter, slot))
                return
            record = failure_record(letter, slot)
            if len(record) > MESSAGE_BYTES:
                record = failure_record(letter, slot, location=await self._elsewhere(letter))
            if self._service == "sqs":
                await self._call("send_message", self._message(record, letter), QueueUrl=await self._queue_url())
            else:
                message = self._message(record, letter, body="Message")
                await self._call("publish", {**message, "TopicArn": self._arn})
        except AwsUnusable as unusable:
            raise Unsent(f"{unusable.error}; {unusable.remedy}") from unusable
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code") or type(error).__name__)
            if code in CREDENTIALS_REFUSED:
                self._clients.clear()  # the next attempt looks for credentials anew: they may have been replaced
            raise Unsent(code) from error
        except BotoCoreError as error:
            raise Unsent(type(error).__name__) from error

    async def check(self) -> Sequence[TargetFinding]:
        """Find out without sending anything whether a record could be sent."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded when it is needed

        try:
            found = await self._look()
        except AwsUnusable as unusable:
            return [TargetFinding(ok=False, what=f"on_failure: {unusable.error}", remedy=unusable.remedy)]
        except ClientError as error:
            return [self._judge(str(error.response.get("Error", {}).get("Code") or type(error).__name__))]
        except BotoCoreError as error:
            what = f"on_failure: {self._thing} can't be reached: {type(error).__name__}"
            return [TargetFinding(ok=False, what=what, remedy="see whether this machine reaches its endpoint")]
        most_bytes = int(found.get("MaximumMessageSize", MESSAGE_BYTES))
        if most_bytes < MESSAGE_BYTES:
            what = f"on_failure: {self._thing} takes messages of {most_bytes} bytes, records have up to {MESSAGE_BYTES}"
            return [TargetFinding(ok=False, what=what, remedy=f"set its MaximumMessageSize to {MESSAGE_BYTES} or more")]
        return [TargetFinding(ok=True, what=f"on_failure: {self._thing} is there")]

    async def _look(self) -> Mapping[str, Any]:
        """What can be known of it; raises as the SDK does."""
        if self._service == "s3":
            client = await self._client("s3", None)
            await asyncio.to_thread(client.head_bucket, Bucket=self._name.partition("/")[0])
            return {}
        client = await self._client(self._service, self._region)
        if self._service == "sns":
            await asyncio.to_thread(client.get_topic_attributes, TopicArn=self._arn)
            return {}
        url = await self._queue_url()
        got = await asyncio.to_thread(client.get_queue_attributes, QueueUrl=url, AttributeNames=["MaximumMessageSize"])
        attributes: Mapping[str, Any] = got.get("Attributes", {})
        return attributes

    def _judge(self, code: str) -> TargetFinding:
        """What a refusal to be looked at means."""
        allow = f"let this process call {_SENDING_RIGHTS[self._service]} on {self._arn}"
        if code in _MISSING:
            remedy = f"create it, or correct on_failure.destination; then {allow}"
            return TargetFinding(ok=False, what=f"on_failure: {self._thing} does not exist", remedy=remedy)
        if code in _DENIED:
            # Sending takes another right than looking, so this proves nothing.
            return TargetFinding(ok=True, what=f"on_failure: {self._thing} can't be looked at ({code})", remedy=allow)
        if code in CREDENTIALS_REFUSED:
            remedy = "renew the AWS credentials of this process; what they are now is refused"
            return TargetFinding(ok=False, what=f"on_failure: {self._thing} can't be looked at: {code}", remedy=remedy)
        return TargetFinding(ok=False, what=f"on_failure: {self._thing} can't be looked at: {code}", remedy=allow)

    @property
    def _thing(self) -> str:
        return f"{_THINGS[self._service]} {self._name.partition('/')[0]}"

    def _message(self, record: bytes, letter: DeadLetter, *, body: str = "MessageBody") -> dict[str, Any]:
        message: dict[str, Any] = {body: record.decode()}
        if self._arn.endswith(".fifo"):
            message["MessageGroupId"] = letter.trigger
            message["MessageDeduplicationId"] = f"{letter.event_id}-{letter.attempts}"
        return message

    async def _elsewhere(self, letter: DeadLetter) -> dict[str, Any]:
        """Put an event where a record can point to it."""
        if self._overflow is None:
            return {"deadLetterId": letter.id, "bytes": len(letter.event)}
        name = f"{self._overflow.prefix}on-failure/{object_name(letter)}"
        await self._put(self._overflow, name, payload(letter))
        return {"s3": {"bucket": self._overflow.name, "key": name}, "bytes": len(letter.event)}

    async def _put(self, bucket: Bucket, name: str, body: bytes) -> None:
        client = await self._client("s3", None)
        await asyncio.to_thread(
            client.put_object, Bucket=bucket.name, Key=name, Body=body, ContentType="application/json"
        )

    async def _queue_url(self) -> str:
        # As AWS makes them: asking for it would take a right that sending does not.
        client = await self._client(self._service, self._region)
        return f"{client.meta.endpoint_url.rstrip('/')}/{self._account}/{self._name}"

    async def _call(self, method: str, arguments: Mapping[str, Any], **more: Any) -> None:
        client = await self._client(self._service, self._region)
        await asyncio.to_thread(getattr(client, method), **arguments, **more)

    async def _client(self, service: str, region: str | None) -> Any:
        async with self._lock:
            if service not in self._clients:
                self._clients[service] = await asyncio.to_thread(service_client, service, region=region)
            return self._clients[service]


class Reporter:
    """Tells the destinations of the letters in the table, for as long as the process runs."""

    def __init__(
        self,
        store: Store,
        slot: str,
        destinations: Mapping[str, Destination],
        *,
        set_aside: Callable[[], int],
        unsaved: Callable[[], bool],
        clock: Clock,
    ) -> None:
        """
        Make it; `run` does the work.

        Args:
            store: where the letters are.
            slot: whose letters.
            destinations: by trigger.
            set_aside: counts the letters that this process has made, saved or not.
            unsaved: whether some of them are not saved yet.
            clock: the time.
        """
        self._store = store
        self._slot = slot
        self._destinations = destinations
        self._set_aside = set_aside
        self._unsaved = unsaved
        self._clock = clock
        self._seen: int | None = None  # None: look, whatever this process has made
        self._failures: dict[str, int] = {}
        self._again_at: dict[str, float] = {}

    async def run(self) -> None:
        """Look for letters to tell of, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Tell of what is due now; what goes wrong is logged, and tried again later."""
        made, unsaved = self._set_aside(), self._unsaved()
        now = self._clock.monotonic()
        fresh = made != self._seen
        for trigger in self._destinations:
            again_at = self._again_at.get(trigger)
            if (fresh and again_at is None) or (again_at is not None and again_at <= now):
                await self._tell(trigger)
        # What was not saved when we looked is looked for again.
        self._seen = None if unsaved else made

    async def _tell(self, trigger: str) -> None:
        where = LetterFilter(slot=self._slot, trigger=trigger, unreported=True)
        told = 0
        try:
            page: list[DeadLetter] = []
            async for letter in self._store.iterate_letters(where):
                page.append(letter)
                if len(page) == _AT_ONCE:
                    told += await self._send(trigger, page)
                    page = []
            told += await self._send(trigger, page)
        except (Unsent, StoreError) as error:
            failures = self._failures[trigger] = self._failures.get(trigger, 0) + 1
            self._again_at[trigger] = self._clock.monotonic() + max(1.0, ceiling_seconds(min(failures + 2, 32)))
            if failures == 1:
                log.error(  # noqa: TRY400 - the sentence is the message
                    log_events.ON_FAILURE_UNSENT,
                    trigger=trigger,
                    error=str(error),
                    remedy="the letters stay in the table",
                )
            return
        self._again_at.pop(trigger, None)
        if self._failures.pop(trigger, 0):
            log.info(log_events.ON_FAILURE_SENT, trigger=trigger, letters=told)

    async def _send(self, trigger: str, letters: Sequence[DeadLetter]) -> int:
        """Send some at once; those that were taken are marked, whatever became of the others."""
        if not letters:
            return 0
        destination = self._destinations[trigger]
        sends = [destination.send(letter, self._slot) for letter in letters]
        sent = await asyncio.gather(*sends, return_exceptions=True)
        taken = [letter.id for letter, error in zip(letters, sent, strict=True) if error is None and letter.id]
        if taken:
            await self._store.mark_reported(taken)
        for error in sent:
            if error is not None:
                raise error
        return len(taken)
