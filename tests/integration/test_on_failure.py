"""On-failure destinations, behind the real SDK: what they are told, and what a refusal costs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime

import boto3
import pytest
from botocore.client import BaseClient
from botocore.credentials import InstanceMetadataProvider
from botocore.exceptions import ClientError

from bridge.change import Position
from bridge.delivery.failure_record import failure_record
from bridge.delivery.on_failure import AwsDestination, Bucket, Reporter, Unsent
from bridge.delivery.outcome import Evidence, Rejected
from bridge.letters import LetterWatch
from bridge.lsn import LSN
from bridge.store.memory import MemoryStore
from bridge.store.protocol import DeadLetter, LetterFilter, SourceIdentity
from bridge.testing import ManualClock

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
ACCOUNT = "123456789012"
FUNCTION = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:welcome"


class Queue:
    def __init__(self, name: str) -> None:
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        self.client = boto3.client("sqs")
        self.url = self.client.create_queue(QueueName=name, Attributes=fifo)["QueueUrl"]
        attributes = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.arn = attributes["Attributes"]["QueueArn"]

    def messages(self) -> list[dict]:
        got = self.client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0, MessageSystemAttributeNames=["All"]
        )
        return got.get("Messages", [])

    def records(self) -> list[dict]:
        return [json.loads(message["Body"]) for message in self.messages()]

    def close(self) -> None:
        self.client.delete_queue(QueueUrl=self.url)


@pytest.fixture(params=["letters", "letters.fifo"])
def queue(aws, request):
    queue = Queue(request.param)
    yield queue
    queue.close()


@pytest.fixture
def bucket(aws):
    client = boto3.client("s3")
    client.create_bucket(Bucket="letters")
    yield client
    for each in client.list_objects_v2(Bucket="letters").get("Contents", ()):
        client.delete_object(Bucket="letters", Key=each["Key"])
    client.delete_bucket(Bucket="letters")


def letter(number: int = 1, *, size: int = 1, trigger: str = "welcome", **changes) -> DeadLetter:
    event = {
        "id": Position(LSN(number * 256), 3).event_id,
        "record": {"id": number, "text": "x" * size},
        "metadata": {"database": "shop", "commit_timestamp": "2026-11-22T11:59:00.000001Z", "trigger": trigger},
    }
    given = {
        "trigger": trigger,
        "event_id": event["id"],
        "table": "public.users",
        "event": json.dumps(event).encode(),
        "error": "Lambda Unhandled ValueError",
        "detail": "a row value",
        "status": 200,
        "attempts": 9,
        "first_failed_at": NOON,
        "last_failed_at": NOON,
        "request_id": "c9b8fa9f-5a7f",
        "report": json.dumps(
            {
                "functionArn": FUNCTION,
                "condition": "RetryAttemptsExhausted",
                "executedVersion": "7",
                "functionError": "Unhandled",
            }
        ),
        "id": number,
    }
    return DeadLetter(**{**given, **changes})


RECORD = {
    "requestContext": {
        "requestId": "c9b8fa9f-5a7f",
        "functionArn": FUNCTION,
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 9,
    },
    "responseContext": {"statusCode": 200, "executedVersion": "7", "functionError": "Unhandled"},
    "version": "1.0",
    "timestamp": "2026-11-22T12:00:00.123Z",
    "PostgresBatchInfo": {
        "slot": "pgbridge",
        "trigger": "welcome",
        "database": "shop",
        "table": "public.users",
        "deadLetterId": 1,
        "error": "Lambda Unhandled ValueError",
        "startEventId": "0000000000000100-0000000003",
        "endEventId": "0000000000000100-0000000003",
        "startLsn": "0/100",
        "endLsn": "0/100",
        "approximateArrivalOfFirstRecord": "2026-11-22T11:59:00.000001Z",
        "approximateArrivalOfLastRecord": "2026-11-22T11:59:00.000001Z",
        "batchSize": 1,
    },
    "payload": f'{{"Records":[{letter().event.decode()}]}}',
}


def test_the_record_has_the_form_of_an_event_source_mapping_and_the_whole_event():
    assert json.loads(failure_record(letter(), "pgbridge")) == RECORD


@pytest.mark.parametrize("odd", [r'"\ud800"', "1e400", "[" * 3000 + "]" * 3000], ids=["surrogate", "number", "deep"])
def test_whatever_a_json_column_holds_is_in_the_record(odd):
    plain = letter()
    text = plain.event.decode().replace('"record": {', f'"record": {{"odd": {odd}, ')
    record = json.loads(failure_record(letter(event=text.encode()), "pgbridge"))
    assert record == {**RECORD, "payload": f'{{"Records":[{text}]}}'}


def test_a_letter_of_an_endpoint_has_no_function_and_says_so():
    record = json.loads(failure_record(letter(request_id=None, status=None, report="{}"), "pgbridge"))
    assert record["requestContext"]["functionArn"] is None
    assert record["responseContext"] == {"statusCode": None, "executedVersion": None, "functionError": None}


async def test_a_queue_gets_the_record(queue):
    await AwsDestination(queue.arn).send(letter(), "pgbridge")
    assert queue.records() == [RECORD]
    if queue.arn.endswith(".fifo"):
        attributes = queue.messages()[0]["Attributes"]
        assert attributes["MessageGroupId"] == "welcome"
        assert attributes["MessageDeduplicationId"] == f"{letter().event_id}-9"


async def test_a_topic_gets_the_record(aws):
    topic = boto3.client("sns").create_topic(Name="letters")["TopicArn"]
    queue = Queue("subscriber")
    boto3.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn)
    await AwsDestination(topic).send(letter(), "pgbridge")
    (notice,) = queue.records()
    assert json.loads(notice["Message"]) == RECORD
    queue.close()


@pytest.mark.parametrize(("suffix", "prefix"), [("", "pgbridge/on-failure/"), ("/mine/", "mine/")])
async def test_a_bucket_gets_the_record_once_however_often_it_is_sent(bucket, suffix, prefix):
    destination = AwsDestination(f"arn:aws:s3:::letters{suffix}")
    large = letter(size=2_000_000)
    await destination.send(large, "pgbridge")
    await destination.send(large, "pgbridge")
    (found,) = bucket.list_objects_v2(Bucket="letters")["Contents"]
    assert found["Key"] == f"{prefix}welcome/2026/11/22/{large.event_id}.json"
    record = json.loads(bucket.get_object(Bucket="letters", Key=found["Key"])["Body"].read())
    assert json.loads(record["payload"])["Records"] == [json.loads(large.event)]


async def test_an_event_too_large_for_a_message_goes_to_s3_and_the_record_points_to_it(queue, bucket):
    large = letter(size=300_000)
    await AwsDestination(queue.arn, overflow=Bucket("letters", "claims/")).send(large, "pgbridge")
    (record,) = queue.records()
    assert "payload" not in record
    pointer = record["payloadLocation"]["s3"]
    stored = bucket.get_object(Bucket=pointer["bucket"], Key=pointer["key"])["Body"].read()
    assert json.loads(stored) == {"Records": [json.loads(large.event)]}
    assert pointer["key"] == f"claims/on-failure/welcome/2026/11/22/{large.event_id}.json"


async def test_without_a_bucket_the_record_points_to_the_table(queue):
    await AwsDestination(queue.arn).send(letter(size=300_000), "pgbridge")
    (record,) = queue.records()
    assert record["payloadLocation"] == {"deadLetterId": 1, "bytes": len(letter(size=300_000).event)}


async def test_a_destination_that_does_not_exist_is_named_by_its_code(aws):
    with pytest.raises(Unsent, match=r"NonExistentQueue|QueueDoesNotExist"):
        await AwsDestination(f"arn:aws:sqs:us-east-1:{ACCOUNT}:nobody").send(letter(), "pgbridge")
    with pytest.raises(Unsent, match="NotFound"):
        await AwsDestination(f"arn:aws:sns:us-east-1:{ACCOUNT}:nobody").send(letter(), "pgbridge")
    with pytest.raises(Unsent, match="NoSuchBucket"):
        await AwsDestination("arn:aws:s3:::nobodys-letters").send(letter(), "pgbridge")


@pytest.fixture
def nobody(aws, monkeypatch, tmp_path):
    """Without anything that says who this is; metadata services are not asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    asked = []
    monkeypatch.setattr(InstanceMetadataProvider, "load", lambda provider: asked.append("metadata"))
    return asked


async def test_stand_ins_on_this_machine_are_told_without_credentials(queue, nobody):
    destination = AwsDestination(queue.arn)
    await destination.send(letter(), "pgbridge")
    await destination.send(replace(letter(), event_id="00000000000000AB-0000000007"), "pgbridge")
    assert len(queue.records()) == 2
    assert nobody == []


async def test_credentials_that_come_later_are_found_without_a_restart(queue, nobody, monkeypatch):
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # nothing is sent to AWS: without credentials there is no client
    destination = AwsDestination(queue.arn)
    with pytest.raises(Unsent, match="there are no AWS credentials; give the process a role"):
        await destination.send(letter(), "pgbridge")
    assert nobody == ["metadata"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    await destination.send(letter(), "pgbridge")
    assert len(queue.records()) == 1


async def test_aws_out_of_reach_is_no_bug_of_ours(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unsent, match="EndpointConnectionError"):
        await AwsDestination("arn:aws:s3:::letters").send(letter(), "pgbridge")


# What `pgbridge check` says of one


async def test_a_destination_that_is_there_is_told_of(queue, bucket):
    topic = boto3.client("sns").create_topic(Name="letters")["TopicArn"]
    for arn, thing in (
        (queue.arn, f"queue {queue.arn.split(':')[-1]}"),
        (topic, "topic letters"),
        ("arn:aws:s3:::letters/mine/", "bucket letters"),
    ):
        (finding,) = await AwsDestination(arn).check()
        assert (finding.ok, finding.what) == (True, f"on_failure: {thing} is there")
    assert queue.messages() == []


@pytest.mark.parametrize(
    ("arn", "right"),
    [
        (f"arn:aws:sqs:us-east-1:{ACCOUNT}:nobodys", "sqs:SendMessage"),
        (f"arn:aws:sns:us-east-1:{ACCOUNT}:nobodys", "sns:Publish"),
        ("arn:aws:s3:::nobodys", "s3:PutObject"),
    ],
)
async def test_a_destination_that_is_missing_is_an_error_with_its_fix(aws, arn, right):
    (finding,) = await AwsDestination(arn).check()
    assert not finding.ok
    assert finding.what.endswith(" nobodys does not exist")
    assert finding.remedy == (
        f"create it, or correct on_failure.destination; then let this process call {right} on {arn}"
    )


async def test_a_queue_that_takes_no_whole_record_is_an_error(queue):
    queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"MaximumMessageSize": "1024"})
    (finding,) = await AwsDestination(queue.arn).check()
    assert not finding.ok
    assert "takes messages of 1024 bytes" in finding.what
    assert finding.remedy == "set its MaximumMessageSize to 262144 or more"


@pytest.mark.parametrize(
    ("code", "ok", "remedy"),
    [
        ("AccessDenied", True, "let this process call sqs:SendMessage on "),
        ("InvalidClientTokenId", False, "renew the AWS credentials of this process"),
        ("KmsDisabled", False, "let this process call sqs:SendMessage on "),
    ],
)
async def test_a_destination_that_may_not_be_looked_at_may_be_sent_to(queue, monkeypatch, code, ok, remedy):
    def refuse(client, method, arguments):
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, method)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    (finding,) = await AwsDestination(queue.arn).check()
    monkeypatch.undo()
    assert finding.ok is ok
    assert code in finding.what
    assert finding.remedy.startswith(remedy)


async def test_a_destination_out_of_reach_or_without_credentials_is_an_error_with_its_fix(aws, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (finding,) = await AwsDestination("arn:aws:s3:::letters").check()
    assert (finding.ok, finding.what) == (
        False,
        "on_failure: bucket letters can't be reached: EndpointConnectionError",
    )
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    (finding,) = await AwsDestination("arn:aws:s3:::letters").check()
    assert (finding.ok, finding.what) == (False, "on_failure: the AWS profile does not exist")
    assert finding.remedy == "correct AWS_PROFILE"


# The reporter


class Taking:
    """A destination in memory that refuses as often as told."""

    def __init__(self, *refused: str, times: int = 10**9) -> None:
        self.refused = set(refused)
        self.times = times
        self.taken: list[str] = []
        self.asked = 0

    async def send(self, letter, slot):
        self.asked += 1
        if (letter.event_id in self.refused or "all" in self.refused) and self.times:
            self.times -= 1
            raise Unsent("AccessDenied")
        self.taken.append(letter.event_id)


class Bench:
    def __init__(self, **destinations):
        self.store = MemoryStore()
        self.clock = ManualClock()
        self.made = 0
        self.unsaved = False
        self.destinations = destinations or {"welcome": Taking()}
        self.reporter = self.new_reporter()

    def new_reporter(self):
        return Reporter(
            self.store,
            "pgbridge",
            self.destinations,
            set_aside=lambda: self.made,
            unsaved=lambda: self.unsaved,
            clock=self.clock,
        )

    async def save(self, *letters: DeadLetter) -> None:
        if not self.made:
            await self.store.claim(SourceIdentity("pgbridge", "7", 1, "shop"))
        self.made += len(letters)
        await self.store.save(None, {}, letters)

    async def untold(self) -> list[int]:
        return [each.id for each in await self.store.letters(LetterFilter(unreported=True))]


async def test_each_letter_is_told_once_and_stays_in_the_table():
    bench = Bench()
    await bench.save(*[letter(n) for n in range(1, 30)])
    for _ in range(3):
        await bench.reporter.look()
    assert bench.destinations["welcome"].taken == [letter(n).event_id for n in range(1, 30)]
    assert await bench.untold() == []
    assert len(await bench.store.letters(LetterFilter())) == 29


async def test_what_was_not_told_is_told_after_a_restart():
    bench = Bench()
    await bench.save(letter())
    await bench.new_reporter().look()
    assert len(bench.destinations["welcome"].taken) == 1


async def test_a_letter_that_was_not_saved_when_it_was_looked_for_is_looked_for_again():
    bench = Bench()
    await bench.reporter.look()
    bench.made, bench.unsaved = 1, True
    await bench.reporter.look()
    await bench.store.claim(SourceIdentity("pgbridge", "7", 1, "shop"))
    await bench.store.save(None, {}, [letter()])
    bench.unsaved = False
    await bench.reporter.look()
    assert len(bench.destinations["welcome"].taken) == 1


async def test_nothing_is_asked_of_the_store_while_nothing_was_set_aside():
    bench = Bench()
    await bench.reporter.look()
    asked = []
    bench.store.iterate_letters = lambda *arguments, **more: asked.append(arguments)
    await bench.reporter.look()
    assert asked == []


async def test_a_destination_that_refuses_is_asked_again_later_and_holds_up_no_other():
    refusing, taking = Taking("all", times=1), Taking()
    bench = Bench(welcome=refusing, other=taking)
    await bench.save(letter(1), letter(2, trigger="other"))
    await bench.reporter.look()
    assert (refusing.taken, taking.taken) == ([], [letter(2).event_id])
    await bench.reporter.look()
    assert refusing.asked == 1
    bench.clock.advance(61)
    await bench.reporter.look()
    assert refusing.taken == [letter(1).event_id]
    assert await bench.untold() == []


async def test_what_was_taken_beside_a_refusal_is_not_sent_again():
    destination = Taking(letter(3).event_id, times=1)
    bench = Bench(welcome=destination)
    await bench.save(*[letter(n) for n in range(1, 6)])
    await bench.reporter.look()
    assert len(await bench.untold()) == 1
    bench.clock.advance(61)
    await bench.reporter.look()
    assert sorted(destination.taken) == [letter(n).event_id for n in range(1, 6)]


async def test_letters_of_a_trigger_without_a_destination_are_left_alone():
    bench = Bench()
    await bench.save(letter(1, trigger="nobody", report=None), letter(2))
    await bench.reporter.look()
    assert bench.destinations["welcome"].taken == [letter(2).event_id]


async def test_a_bug_of_ours_ends_the_process():
    class Broken:
        async def send(self, letter, slot):
            raise ZeroDivisionError

    bench = Bench(welcome=Broken())
    await bench.save(letter())
    bugs = []
    watch = LetterWatch(bench.store, "pgbridge", {}, bench.destinations, clock=bench.clock, failed=bugs.append)
    await watch.run()
    assert isinstance(bugs[0], ZeroDivisionError)


# With the service


async def test_the_service_tells_the_queue_of_a_dead_letter(aws, database, run_service):
    queue = Queue("service-letters")
    trigger = {"on_failure": {"destination": queue.arn}}
    async with run_service(database, {"t": trigger}) as bridge:
        bridge.targets["t"].answer(Rejected(Evidence("HTTP 422", status=422), final=True))
        await bridge.execute("INSERT INTO at_the_start VALUES (1)")
        await bridge.until(lambda: bool(queue.records()))
    (record,) = queue.records()
    assert record["requestContext"]["condition"] == "RecordRejected"
    assert record["requestContext"]["functionArn"] == "http://127.0.0.1:9"
    assert json.loads(record["payload"])["Records"][0]["record"] == {"id": 1}
    assert record["PostgresBatchInfo"]["table"] == "public.at_the_start"
    queue.close()
