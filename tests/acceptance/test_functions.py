"""The functions of template.yaml, in processes of their own under AWS's runtime client, invoked by boto3."""

import asyncio
import base64
import dataclasses
import json
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from bridge.local.lambda_api import LocalLambda
from bridge.local.template import read_template

TEMPLATE = Path(__file__).parents[2] / "template.yaml"


def insert(ordinal, user_id, name):
    event_id = f"0000000001A2B3C0-{ordinal:010d}"
    return {
        "id": event_id,
        "action": "insert",
        "record": {"id": user_id, "name": name, "email": "who@example.com", "plan": "free"},
        "changes": None,
        "metadata": {
            "source": "pgbridge",
            "database": "shop",
            "table_schema": "public",
            "table_name": "users",
            "commit_lsn": 27440064,
            "commit_idx": ordinal,
            "commit_timestamp": "2026-11-22T05:37:00.123456Z",
            "transaction_id": 743,
            "keys": {"id": user_id},
            "old_keys": None,
            "unavailable": [],
            "trigger": "welcome-user",
            "idempotency_key": f"7390000000000000001-welcome-user-{event_id}",
        },
    }


async def invoke(endpoint, function, *records):
    client = boto3.client(
        "lambda",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        answer = await asyncio.to_thread(
            client.invoke,
            FunctionName=function,
            Qualifier="live",
            LogType="Tail",
            Payload=json.dumps({"Records": records}),
        )
        assert "FunctionError" not in answer, answer["Payload"].read()
        return json.load(answer["Payload"]), base64.b64decode(answer["LogResult"]).decode()
    finally:
        client.close()


@pytest.fixture
def functions():
    return {spec.name: spec for spec in read_template(TEMPLATE).functions}


async def test_a_new_user_is_greeted(functions):
    async with LocalLambda([functions["welcome-user"]]) as api:
        answer, log = await invoke(api.endpoint_url, "welcome-user", insert(0, 7, "John Doe"))

    assert answer == {"batchItemFailures": []}
    assert "Hello John Doe" in log


async def test_one_bad_record_is_reported_with_its_reason_in_the_log_tail_until_the_function_is_mended(functions):
    bad = insert(1, 8, " ")
    spec = functions["welcome-user"]
    async with LocalLambda([spec]) as api:
        answer, log = await invoke(api.endpoint_url, "welcome-user", insert(0, 7, "Ada"), bad, insert(2, 9, "John"))

    assert answer == {"batchItemFailures": [{"itemIdentifier": bad["id"]}]}
    assert "ValueError: user 8 has no name to be greeted by" in log

    mended = dataclasses.replace(spec, environment={**spec.environment, "WELCOME_ALLOW_MISSING_NAME": "1"})
    async with LocalLambda([mended]) as api:
        answer, log = await invoke(api.endpoint_url, "welcome-user", bad)

    assert answer == {"batchItemFailures": []}
    assert "Hello there" in log


async def test_without_a_connected_app_each_contact_fails_with_what_to_set(functions):
    async with LocalLambda([functions["crm-contact"]]) as api:
        answer, log = await invoke(api.endpoint_url, "crm-contact", insert(0, 7, "John Doe"))

    assert answer == {"batchItemFailures": [{"itemIdentifier": "0000000001A2B3C0-0000000000"}]}
    assert "set SALESFORCE_SECRET_ARN" in log
