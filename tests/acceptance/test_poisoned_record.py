"""One bad record of a batch: it alone becomes a dead letter, with its log; mended, its replay has the same id."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psycopg

from bridge.local.lambda_api import LocalLambda
from bridge.local.template import FunctionSpec

sys.path.insert(0, str(Path(__file__).parent))
from bridge_process import HERE, Rig

CONFIGURATION = """\
source: {{dsn: "{dsn}", slot: {slot}, publication: {slot}}}
admin: {{listen: null}}
triggers:
  greet:
    tables: [public.users]
    target:
      lambda: {{function_name: greeter}}
    maximum_retry_attempts: 1
"""


async def test_a_poisoned_record_is_set_aside_alone_and_replayed_once_the_handler_is_mended(database, tmp_path):
    greeted, mended = tmp_path / "greeted", tmp_path / "mended"
    greeted.touch()
    spec = FunctionSpec(
        "Greeter",
        "greeter",
        "handler.lambda_handler",
        HERE / "functions" / "greeter",
        timeout_seconds=30,
        environment={"GREETED": str(greeted), "MENDED": str(mended)},
    )
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    async with Rig(database, tmp_path) as rig, LocalLambda([spec]) as functions:
        rig.environment["AWS_ENDPOINT_URL_LAMBDA"] = functions.endpoint_url
        rig.write_configuration(CONFIGURATION)
        await rig.command("init")
        await rig.start()
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO users SELECT g, CASE WHEN g = 7 THEN '' ELSE 'user ' || g END FROM generate_series(1, 20) g"
            )
        letters = []
        async with asyncio.timeout(60):
            while not letters:
                letters = json.loads((await rig.command("dlq", "list", "--json"))[0])
        (letter,) = letters
        (shown,) = json.loads((await rig.command("dlq", "show", str(letter["id"]), "--json"))[0])
        assert shown["event"]["record"]["id"] == 7
        assert shown["event"]["id"] == letter["event_id"]
        assert letter["trigger"] == "greet"
        assert letter["table"] == "public.users"
        assert letter["attempts"] == 2
        assert "about to fail for user 7" in letter["log_tail"]
        async with asyncio.timeout(30):
            while len(set(greeted.read_text().split())) < 19:
                await asyncio.sleep(0.1)
        assert letter["event_id"] not in greeted.read_text()

        mended.touch()
        await rig.command("dlq", "replay", str(letter["id"]))
        assert letter["event_id"] in greeted.read_text()
        assert json.loads((await rig.command("dlq", "list", "--json"))[0]) == []
        assert await rig.stop() == 0
    assert len(greeted.read_text().split()) == 20
