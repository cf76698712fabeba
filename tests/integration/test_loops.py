"""Ways to keep a function's own writes from triggering it, each on a real server."""

from __future__ import annotations

import json
import struct

import psycopg
import pytest

from bridge.errors import SourceMisconfigured
from bridge.lsn import LSN
from bridge.source.connection import ReplicationConnection

MINE = "SELECT pg_logical_emit_message(true, 'pgbridge.context', '{\"written_by\": \"greeter\"}')"
NOT_MINE = [{"metadata": {"context": {"written_by": [{"exists": False}]}}}]


async def test_writes_that_are_marked_by_a_message_are_filtered_out(database, run_service):
    async with run_service(database, {"t": {"filter_criteria": NOT_MINE}}) as bridge:
        await bridge.execute(
            f"BEGIN; {MINE}; INSERT INTO at_the_start VALUES (1); COMMIT",
            "INSERT INTO at_the_start VALUES (2)",
        )
        events = await bridge.events(1)
        assert [event["record"]["id"] for event in events] == [2]
        await bridge.execute(
            "BEGIN; SELECT pg_logical_emit_message(true, 'pgbridge.context', '{\"written_by\": null}');"
            " INSERT INTO at_the_start VALUES (3); COMMIT",
            "INSERT INTO at_the_start VALUES (4)",
        )
        events = await bridge.events(2)
    assert [event["record"]["id"] for event in events] == [2, 4]


async def test_a_loop_pauses_its_trigger_and_says_why(database, run_service):
    async with run_service(database, {"t": {"loop_guard": 10, "batch_size": 1}}) as bridge:
        target = bridge.targets["t"]
        deliver = target.deliver

        async def writing_back(invocation):
            outcome = await deliver(invocation)
            if json.loads(invocation.body)["Records"][0]["action"] == "update":
                waiting = len(bridge.service._roster.dispatchers["t"].tracker)
                await bridge.execute("UPDATE counter SET n = n + 1 WHERE id = 1")
                await bridge.until(lambda: len(bridge.service._roster.dispatchers["t"].tracker) > waiting)
            return outcome

        target.deliver = writing_back
        await bridge.execute(
            "CREATE TABLE counter (id int PRIMARY KEY, n int)",
            "INSERT INTO counter VALUES (1, 0)",
            "UPDATE counter SET n = 1",
        )
        status = lambda: bridge.service.snapshot().triggers[0]  # noqa: E731
        await bridge.until(lambda: status().paused_reason is not None)
        calls = len(target.invocations)
    assert "public.counter" in status().paused_reason
    assert "Loops" in status().paused_reason
    assert calls < 20


@pytest.fixture(params=["database", "system_database"])
def site(request):
    dsn = request.getfixturevalue(request.param)
    with psycopg.connect(dsn, autocommit=True) as admin:
        slot = "origin_" + admin.execute("SELECT current_database()").fetchone()[0]
        admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
        admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        admin.execute("SELECT pg_replication_origin_create(%s)", (slot,))
        with psycopg.connect(dsn, autocommit=True) as function:
            function.execute("SELECT pg_replication_origin_session_setup(%s)", (slot,))
            function.execute("INSERT INTO t VALUES (1)")
        admin.execute("INSERT INTO t VALUES (2)")
        yield dsn, slot, admin.info.server_version
        admin.execute("SELECT pg_replication_origin_drop(%s)", (slot,))


async def inserted(connection: ReplicationConnection) -> list[int]:
    """The ids of inserted rows, up to the one that no session with an origin wrote."""
    ids: list[int] = []
    while 2 not in ids:
        for frame in await connection.frames():
            message = bytes(frame[25:]) if frame[0] == ord("w") else b""
            if message[:1] == b"I":
                (length,) = struct.unpack_from(">i", message, 9)
                ids.append(int(message[13 : 13 + length]))
    return ids


@pytest.mark.parametrize("local_only", [False, True])
async def test_without_other_origins_a_session_that_has_one_is_not_heard(site, local_only):
    dsn, slot, version = site
    connection = await ReplicationConnection.open(dsn)
    try:
        if local_only and version < 160000:
            with pytest.raises(SourceMisconfigured, match=r"source.origin is none, and PostgreSQL 15 can't"):
                await connection.start(slot, "everything", LSN(0), local_only=True)
            return
        await connection.start(slot, "everything", LSN(0), local_only=local_only)
        assert await inserted(connection) == ([2] if local_only else [1, 2])
    finally:
        await connection.close()
