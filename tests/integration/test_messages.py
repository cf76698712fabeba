"""Logical messages through the whole service: the outbox pattern without a table, and what a transaction says of itself."""

from __future__ import annotations

import json


def emit(prefix: str, content: object, *, transactional: bool = True) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    return f"SELECT pg_logical_emit_message({str(transactional).lower()}, '{prefix}', '{text}')"


async def test_an_outbox_needs_no_table(database, run_service):
    """Given a trigger for messages, when a transaction writes rows and a message, then both or none are sent."""
    triggers = {
        "rows": {},
        "outbox": {
            "tables": [],
            "operations": ["message"],
            "filter_criteria": [{"record": {"prefix": [{"prefix": "order"}], "content": {"total": [{"numeric": [">", 10]}]}}}],
        },
    }  # fmt: skip
    async with run_service(database, triggers) as running:
        await running.execute(
            "CREATE TABLE orders (id int PRIMARY KEY)",
            f"BEGIN; INSERT INTO orders VALUES (1); {emit('order.placed', {'order': 1, 'total': 12.5})}; COMMIT",
            f"BEGIN; INSERT INTO orders VALUES (2); {emit('order.placed', {'order': 2, 'total': 99})}; ROLLBACK",
            f"BEGIN; {emit('order.placed', {'order': 3, 'total': 9})}; {emit('invoice', {'total': 50})}; COMMIT",
            emit("order.seen", {"order": 4, "total": 11}, transactional=False),
        )
        messages = await running.events(2, "outbox")
        rows = await running.events(1, "rows")
    assert [(m["action"], m["record"]["prefix"], m["record"]["content"]) for m in messages] == [
        ("message", "order.placed", {"order": 1, "total": 12.5}),
        ("message", "order.seen", {"order": 4, "total": 11}),
    ]
    placed, seen = (m["metadata"] for m in messages)
    assert placed["commit_lsn"] == rows[0]["metadata"]["commit_lsn"]
    assert (placed["commit_idx"], rows[0]["metadata"]["commit_idx"]) == (1, 0)
    assert (placed["message"]["transactional"], seen["message"]["transactional"]) == (True, False)
    assert placed["table_name"] is placed["schema_version"] is None
    assert [row["record"] for row in rows] == [{"id": 1}]


async def test_a_transaction_says_who_did_it_and_for_what(database, run_service):
    async with run_service(database, {"t": {"operations": ["insert", "update", "delete", "message"]}}) as running:
        await running.execute(
            "CREATE TABLE t (id int PRIMARY KEY)",
            "BEGIN;"
            " INSERT INTO t VALUES (1);"
            f" {emit('pgbridge.context', {'user': 'jane', 'trace': 'a'})};"
            " INSERT INTO t VALUES (2);"
            " SAVEPOINT s;"
            f" {emit('pgbridge.context', {'user': 'rolled back'})};"
            " INSERT INTO t VALUES (3);"
            " ROLLBACK TO s;"
            f" {emit('pgbridge.context', {'trace': 'b'})};"
            " DELETE FROM t WHERE id = 1;"
            f" {emit('outbox', 'x')};"
            " COMMIT",
            "INSERT INTO t VALUES (4)",
        )
        events = await running.events(5)
    assert [(event["action"], event["metadata"].get("context")) for event in events] == [
        ("insert", None),
        ("insert", {"user": "jane", "trace": "a"}),
        ("delete", {"user": "jane", "trace": "b"}),
        ("message", {"user": "jane", "trace": "b"}),
        ("insert", None),
    ]


async def test_a_context_that_is_none_is_counted_and_stops_nothing(database, run_service):
    async with run_service(database) as running:
        await running.execute(
            "CREATE TABLE t (id int PRIMARY KEY)",
            f"BEGIN; {emit('pgbridge.context', 'user=jane')}; INSERT INTO t VALUES (1); COMMIT",
            emit("pgbridge.context", {"user": "jane"}, transactional=False),
            "INSERT INTO t VALUES (2)",
        )
        events = await running.events(2)
        assert [event["metadata"].get("context") for event in events] == [None, None]
        assert running.service.snapshot().ignored_contexts == 2
