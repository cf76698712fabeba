"""Large transactions, rows, tables and numbers of tables: everything arrives, in order, and memory stays bounded."""

from __future__ import annotations

import psycopg
import pytest

from bridge import service as service_module
from bridge.change import Position
from bridge.delivery.outcome import Delivered

MEGABYTE = 1 << 20


async def sent(running, count: int, *, trigger: str = "t") -> list[str]:
    """Wait until a trigger has delivered this many events; their ids, in their order."""
    target = running.targets[trigger]
    await running.until(lambda: len(target.delivered) >= count)
    assert len(target.delivered) == len(set(target.delivered)) == count
    return sorted(target.delivered)


async def test_a_transaction_of_200_000_rows_is_never_held_whole(database, run_service, monkeypatch):
    """Given a bound of 4 MiB and a transaction of about 80 MB, then no more than the bound and a burst is in hand."""
    monkeypatch.setattr(service_module, "MAX_BUFFERED_BYTES", 4 * MEGABYTE)
    held = []
    rows = 200_000
    async with run_service(database, {"t": {"batch_size": 1000}}) as running:

        def measure(invocation) -> Delivered:
            held.append(running.service.snapshot().buffered_bytes)
            return Delivered()

        running.targets["t"].answer(*[measure] * (rows // 100))
        await running.execute(
            "CREATE TABLE t (id int PRIMARY KEY, name text)",
            f"INSERT INTO t SELECT g, repeat('x', 50) FROM generate_series(0, {rows - 1}) g",
        )
        ids = await sent(running, rows)
        biggest = max(len(invocation.body) for invocation in running.targets["t"].invocations)
    positions = [Position.parse(event_id) for event_id in ids]
    assert [position.ordinal for position in positions] == list(range(rows))
    assert len({position.commit_lsn for position in positions}) == 1
    # What is read at one go comes on top: at most 4,096 frames, of 800 bytes each as events.
    assert max(held) < 4 * MEGABYTE + 4096 * 1000 + biggest
    assert sum(len(invocation.body) for invocation in running.targets["t"].invocations) > 15 * 4 * MEGABYTE


async def test_a_row_of_50_megabytes_is_one_event(database, run_service):
    async with run_service(database) as running:
        await running.execute(
            "CREATE TABLE t (id int PRIMARY KEY, long text, bytes bytea)",
            "INSERT INTO t VALUES (1, repeat('0123456789', 5000000), decode(repeat('ab', 1000000), 'hex'))",
            "UPDATE t SET id = 2",
            "INSERT INTO t VALUES (3, 'short', '')",
        )
        whole, moved, short = await running.events(3)
    assert whole["record"]["long"] == "0123456789" * 5_000_000
    assert len(whole["record"]["bytes"]) == 1_333_336
    assert moved["record"] == {"id": 2}
    assert moved["metadata"]["unavailable"] == ["long", "bytes"]
    assert short["record"] == {"id": 3, "long": "short", "bytes": ""}


async def test_a_table_of_1_600_columns(database, run_service):
    columns = [f"c{number}" for number in range(1599)]
    async with run_service(database) as running:
        await running.execute(
            f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'{column} int' for column in columns)})",
            "ALTER TABLE t REPLICA IDENTITY FULL",
            f"INSERT INTO t VALUES (0, {', '.join(map(str, range(1599)))})",
            "UPDATE t SET c1598 = NULL",
            "DELETE FROM t",
        )
        inserted, updated, deleted = await running.events(3)
    assert inserted["record"] == {"id": 0} | {column: number for number, column in enumerate(columns)}
    assert updated["changes"] == {"c1598": 1598}
    assert deleted["record"] == updated["record"] == inserted["record"] | {"c1598": None}


@pytest.mark.parametrize("via_root", [True, False])
async def test_200_partitions(database, run_service, via_root):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
        for number in range(200):
            connection.execute(
                f"CREATE TABLE t{number} PARTITION OF t FOR VALUES FROM ({number * 10}) TO ({number * 10 + 10})"
            )
        connection.execute(f"CREATE PUBLICATION everything FOR TABLE t WITH (publish_via_partition_root = {via_root})")
        connection.execute("SELECT pg_create_logical_replication_slot('service_' || current_database(), 'pgoutput')")
    async with run_service(database) as running:
        await running.execute(
            "INSERT INTO t SELECT g, 'a' FROM generate_series(0, 1899) g",
            "UPDATE t SET id = id + 100 WHERE id >= 1800",  # to other partitions: a delete and an insert each
        )
        await sent(running, 1900 + 2 * 100)
        events = running.targets["t"].events()
    names = {event["metadata"]["table_name"] for event in events}
    assert names == ({"t"} if via_root else {f"t{number}" for number in range(200)})


async def test_2_000_tables(database, run_service):
    """Each has a plan of its own; how many there are shows in no other table's order, and all are read from one backlog."""
    tables = 2000
    async with run_service(database) as running:
        await running.execute(
            f"DO $$ BEGIN FOR n IN 0..{tables - 1} LOOP"
            " EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', n);"
            " IF n % 500 = 499 THEN COMMIT; END IF; END LOOP; END $$"
        )
        await running.execute(
            f"DO $$ BEGIN FOR n IN 0..{tables - 1} LOOP"
            " EXECUTE format('INSERT INTO t%s VALUES (1, %L), (2, %L)', n, 'a', 'b'); END LOOP; END $$"
        )
        await sent(running, 2 * tables)
        events = running.targets["t"].events()
        assert len(running.service._pipeline.assembler.relations) == tables
    of_each: dict[str, list[int]] = {}
    for event in sorted(events, key=lambda event: event["id"]):
        of_each.setdefault(event["metadata"]["table_name"], []).append(event["record"]["id"])
    assert of_each == {f"t{number}": [1, 2] for number in range(tables)}
