"""Events too large for their target: to S3 and back, behind the real SDK."""

from __future__ import annotations

import asyncio
import json

import boto3
import pytest

from bridge.delivery.claim_check import ClaimCheckTarget
from bridge.delivery.outcome import Busy, Delivered, Evidence, Misconfigured, TooLarge
from bridge.delivery.target import Invocation
from bridge.handlers import ClaimCheckMismatch, Event, claim_check, fetch_claim_checks, process_changes
from bridge.testing import MemoryTarget

LIMIT = 5_000


@pytest.fixture
def s3(aws):
    claim_check._s3.cache_clear()
    client = boto3.client("s3")
    client.create_bucket(Bucket="large-events")
    yield client
    for each in client.list_objects_v2(Bucket="large-events").get("Contents", ()):
        client.delete_object(Bucket="large-events", Key=each["Key"])
    client.delete_bucket(Bucket="large-events")
    claim_check._s3.cache_clear()


def event(size: int, number: int = 1) -> bytes:
    return json.dumps(
        {
            "id": f"0000000001A2B3C0-{number:010d}",
            "action": "update",
            "record": {"id": number, "text": "ä" * size},
            "changes": {"text": "old" * size},
            "metadata": {"source": "pgbridge", "table_schema": "public", "table_name": "docs", "database": "shop",
                         "commit_lsn": 1, "commit_idx": 1, "keys": {"id": number}, "trigger": "t",
                         "idempotency_key": "k"},
        },
        ensure_ascii=False,
    ).encode()  # fmt: skip


def invocation(*events: bytes, batched: bool = True, attempt: int = 1) -> Invocation:
    return Invocation(
        trigger="t",
        ids=[json.loads(each)["id"] for each in events],
        body=b'{"Records":[%b]}' % b",".join(events) if batched else events[0],
        batched=batched,
        attempt=attempt,
        message_id=f"7-t-{json.loads(events[0])['id']}",
    )


class Small(MemoryTarget):
    """Takes no more than 2 kB."""

    async def deliver(self, invocation):
        await super().deliver(invocation)
        return TooLarge(Evidence("HTTP 413")) if len(invocation.body) > 2_000 else Delivered()


@pytest.fixture
def inner():
    return Small()


def target(inner, bucket: str = "large-events") -> ClaimCheckTarget:
    return ClaimCheckTarget(inner, bucket=bucket, prefix="claims/", most_bytes=LIMIT)


async def test_what_fits_goes_as_it_is(s3, inner):
    small = event(10)
    assert await target(inner).deliver(invocation(small)) == Delivered()
    assert inner.invocations[0].body == b'{"Records":[%b]}' % small
    assert "Contents" not in s3.list_objects_v2(Bucket="large-events")


@pytest.mark.parametrize("batched", [True, False])
async def test_an_event_above_the_limit_goes_to_s3_and_its_pointer_to_the_target(s3, inner, batched):
    large = event(10_000)
    assert await target(inner).deliver(invocation(large, batched=batched)) == Delivered()
    (sent,) = inner.invocations
    document = json.loads(sent.body)
    document = document["Records"][0] if batched else document
    pointer = document["record"]["claim_check"]
    stored = s3.get_object(Bucket=pointer["bucket"], Key=pointer["key"])
    assert stored["Body"].read() == large
    assert stored["ContentType"] == "application/json"
    assert pointer["key"] == "claims/7-t-0000000001A2B3C0-0000000001.json"
    assert pointer["bytes"] == len(large)
    assert document["changes"] is None
    assert document["metadata"]["claim_check"] is True
    assert document["metadata"]["keys"] == {"id": 1}


async def test_whatever_a_json_column_holds_can_be_claimed(s3, inner):
    large = event(10_000).replace(b'"record": {', rb'"record": {"odd": {"\ud800": 1e400}, ')
    large = large.replace(b'"commit_lsn": 1', b'"context":{"n":1.10},"commit_lsn": 9223372036854775807')
    assert await target(inner).deliver(invocation(large, batched=False)) == Delivered()
    (sent,) = inner.invocations
    pointer = json.loads(sent.body)["record"]["claim_check"]
    assert s3.get_object(Bucket=pointer["bucket"], Key=pointer["key"])["Body"].read() == large
    assert b'"context":{"n":1.10}' in sent.body
    assert b'"commit_lsn":9223372036854775807' in sent.body


async def test_an_event_that_the_target_refuses_below_the_limit_goes_the_same_way(s3, inner):
    assert await target(inner).deliver(invocation(event(600))) == Delivered()
    assert len(inner.invocations) == 2
    assert b"claim_check" in inner.invocations[1].body


async def test_every_attempt_sends_the_same_bytes(s3, inner):
    subject, large = target(inner), event(10_000)
    for attempt in (1, 2):
        await subject.deliver(invocation(large, attempt=attempt))
    assert inner.invocations[0].body == inner.invocations[1].body


async def test_a_batch_that_is_too_large_is_left_to_be_divided(s3, inner):
    outcome = await target(inner).deliver(invocation(event(10_000), event(10_000, 2)))
    assert isinstance(outcome, TooLarge)
    assert "Contents" not in s3.list_objects_v2(Bucket="large-events")


async def test_a_bucket_that_does_not_exist_is_a_fault_of_configuration(s3, inner):
    outcome = await target(inner, "nobodys-bucket").deliver(invocation(event(10_000)))
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error == "claim check: S3 NoSuchBucket"
    assert inner.invocations == []
    findings = await target(inner, "nobodys-bucket").check()
    assert [finding.ok for finding in findings] == [True, False]
    assert all(finding.ok for finding in await target(inner).check())


async def test_s3_out_of_reach_costs_the_event_nothing(aws, inner, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert isinstance(await target(inner).deliver(invocation(event(10_000))), Busy)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_the_handlers_batch_processor_fetches_the_event(s3, inner, asynchronous):
    await target(inner).deliver(invocation(event(10_000)))
    seen = []

    async def handle_later(change):
        seen.append(change)

    # Powertools runs a loop of its own for coroutines, so not in this one's thread.
    handler = handle_later if asynchronous else seen.append
    answer = await asyncio.to_thread(process_changes, json.loads(inner.invocations[0].body), handler, model=dict)
    assert answer == {"batchItemFailures": []}
    (change,) = seen
    assert change.record["text"] == "ä" * 10_000
    assert change.changes["text"].startswith("old")


async def test_an_event_that_is_gone_or_replaced_fails_by_itself(s3, inner):
    await target(inner).deliver(invocation(event(10_000)))
    sent = json.loads(inner.invocations[0].body)
    small = json.loads(event(10, 2))
    key = sent["Records"][0]["record"]["claim_check"]["key"]
    s3.put_object(Bucket="large-events", Key=key, Body=b"{}")
    with pytest.raises(ClaimCheckMismatch):
        fetch_claim_checks(sent)
    s3.delete_object(Bucket="large-events", Key=key)
    answer = process_changes({"Records": [*sent["Records"], small]}, lambda change: None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": sent["Records"][0]["id"]}]}


async def test_parser_models_read_what_was_fetched(s3, inner):
    await target(inner).deliver(invocation(event(10_000)))
    fetched = fetch_claim_checks(json.loads(inner.invocations[0].body))
    assert Event.model_validate(fetched["Records"][0]).record["id"] == 1


def test_a_row_with_a_column_of_that_name_is_no_claim_check():
    row = {"record": {"claim_check": {"bucket": "b", "key": "k", "sha256": "x"}}, "metadata": {"trigger": "t"}}
    assert fetch_claim_checks({"Records": [row]}) == {"Records": [row]}
