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


async def test_a_new_user_is_greeted(functions, signup):
    async with LocalLambda([functions["welcome-user"]]) as api:
        answer, log = await invoke(api.endpoint_url, "welcome-user", signup(0, 7, name="John Doe"))

    assert answer == {"batchItemFailures": []}
    assert "Hello John Doe" in log


async def test_one_bad_record_is_reported_with_its_reason_in_the_log_tail_until_the_function_is_mended(
    functions, signup
):
    bad = signup(1, 8, name=" ")
    spec = functions["welcome-user"]
    async with LocalLambda([spec]) as api:
        answer, log = await invoke(
            api.endpoint_url, "welcome-user", signup(0, 7, name="Ada"), bad, signup(2, 9, name="John")
        )

    assert answer == {"batchItemFailures": [{"itemIdentifier": bad["id"]}]}
    assert "ValueError: user 8 has no name to be greeted by" in log

    mended = dataclasses.replace(spec, environment={**spec.environment, "WELCOME_ALLOW_MISSING_NAME": "1"})
    async with LocalLambda([mended]) as api:
        answer, log = await invoke(api.endpoint_url, "welcome-user", bad)

    assert answer == {"batchItemFailures": []}
    assert "Hello there" in log


async def test_without_a_connected_app_each_contact_fails_with_what_to_set(functions, signup):
    async with LocalLambda([functions["crm-contact"]]) as api:
        answer, log = await invoke(api.endpoint_url, "crm-contact", signup(0, 7, name="John Doe"))

    assert answer == {"batchItemFailures": [{"itemIdentifier": "0000000001A2B3C0-0000000000"}]}
    assert "set SALESFORCE_SECRET_ARN" in log
