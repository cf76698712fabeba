"""What the demo needs where there is no checkout beside it: a function of its own."""

from __future__ import annotations

import json
from dataclasses import replace

import aiohttp
import pytest

from bridge.local.demo import FUNCTION
from bridge.local.lambda_api import LocalLambda


def record(number: int, name: str) -> dict[str, object]:
    return {
        "id": f"0000000001A2B3C0-{number:010d}",
        "action": "insert",
        "record": {"id": number, "name": name},
        "changes": None,
        "metadata": {
            "source": "pgbridge",
            "database": "shop",
            "table_schema": "public",
            "table_name": "users",
            "commit_lsn": 1,
            "commit_idx": number,
            "keys": {"id": number},
            "trigger": "welcome",
            "idempotency_key": str(number),
        },
    }


async def invoke(function, said: list[str]) -> object:
    body = {"Records": [record(1, "Ann Lee"), record(2, "")]}
    async with LocalLambda([function], port=0, on_log=lambda _, line: said.append(line)) as api:
        url = f"{api.endpoint_url}/2015-03-31/functions/{function.name}:live/invocations"
        async with aiohttp.ClientSession() as session, session.post(url, data=json.dumps(body)) as response:
            assert response.status == 200
            assert "X-Amz-Function-Error" not in response.headers
            return await response.json(content_type=None)


@pytest.mark.timeout(120)
async def test_it_greets_and_fails_the_record_without_a_name():
    said: list[str] = []
    answer = await invoke(FUNCTION, said)
    assert answer == {"batchItemFailures": [{"itemIdentifier": record(2, "")["id"]}]}
    assert "Hello Ann Lee" in said


@pytest.mark.timeout(120)
async def test_mended_it_greets_everybody():
    said: list[str] = []
    answer = await invoke(replace(FUNCTION, environment={"WELCOME_ALLOW_MISSING_NAME": "1"}), said)
    assert answer == {"batchItemFailures": []}
    assert "Hello there" in said
