"""Schema changes while streaming, each on a real server through the whole service."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg
import pytest

START = ("CREATE TABLE t (id int PRIMARY KEY, name text, n int)", "INSERT INTO t VALUES (1, 'a', 10)")


@dataclass(frozen=True)
class Change:
    name: str
    statements: tuple[str, ...]
    record: dict
    """Of the last event."""
    what: tuple[str, ...]
    """As the status tells it; empty where the description stays the same."""
    table: str = "public.t"
    start: tuple[str, ...] = START
    events: int = 2
    also: dict = field(default_factory=dict)
    """Members of the last event's metadata."""


CHANGES = [
    Change("a column is added", ("ALTER TABLE t ADD age int DEFAULT 30", "INSERT INTO t VALUES (2, 'b', 20)"),
           {"id": 2, "name": "b", "n": 20, "age": 30}, ("column age added (int4)",)),
    Change("a column is dropped", ("ALTER TABLE t DROP name", "INSERT INTO t VALUES (2, 20)"), {"id": 2, "n": 20}, ("column name dropped",)),
    Change("a column is renamed", ("ALTER TABLE t RENAME name TO label", "INSERT INTO t VALUES (2, 'b', 20)"),
           {"id": 2, "label": "b", "n": 20}, ("column name renamed to label",)),
    Change("a column changes its type", ("ALTER TABLE t ALTER n TYPE numeric(8,2)", "INSERT INTO t VALUES (2, 'b', 20.5)"),
           {"id": 2, "name": "b", "n": "20.50"}, ("column n changed from int4 to numeric(8,2)",)),
    Change("a column grows", ("ALTER TABLE t ALTER name TYPE varchar(40)", "ALTER TABLE t ALTER name TYPE varchar(80)", "INSERT INTO t VALUES (2, 'b', 20)"),
           {"id": 2, "name": "b", "n": 20}, ("column name changed from text to varchar(80)",)),
    Change("the table is renamed", ("ALTER TABLE t RENAME TO u", "INSERT INTO u VALUES (2, 'b', 20)"),
           {"id": 2, "name": "b", "n": 20}, ("renamed from public.t",), "public.u", also={"table_name": "u"}),
    Change("the table moves to another schema", ("CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s", "INSERT INTO s.t VALUES (2, 'b', 20)"),
           {"id": 2, "name": "b", "n": 20}, ("renamed from public.t",), "s.t", also={"table_schema": "s"}),
    Change("the schema is renamed", ("CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s; ALTER SCHEMA s RENAME TO z", "INSERT INTO z.t VALUES (2, 'b', 20)"),
           {"id": 2, "name": "b", "n": 20}, ("renamed from public.t",), "z.t", also={"table_schema": "z"}),
    Change("the table is dropped and made anew", ("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, other bool)", "INSERT INTO t VALUES (1, true)"),
           {"id": 1, "other": True}, ("column other added (bool)", "column name dropped", "column n dropped")),
    Change("the table is made anew as it was", ("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, name text, n int)", "INSERT INTO t VALUES (2, 'b', 20)"),
           {"id": 2, "name": "b", "n": 20}, ()),
    Change("the identity changes", ("ALTER TABLE t REPLICA IDENTITY FULL", "UPDATE t SET name = 'b'"),
           {"id": 1, "name": "b", "n": 10}, ("replica identity changed from default to full",), also={"keys": {"id": 1}}),
    Change("an index becomes the identity", ("CREATE UNIQUE INDEX i ON t (n); ALTER TABLE t ALTER n SET NOT NULL, REPLICA IDENTITY USING INDEX i", "UPDATE t SET name = 'b'"),
           {"id": 1, "name": "b", "n": 10}, ("replica identity changed from default to an index",), also={"keys": {"n": 10}}),
    Change("the key changes", ("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (n)", "UPDATE t SET name = 'b'"),
           {"id": 1, "name": "b", "n": 10}, ("key changed from (id) to (n)",), also={"keys": {"n": 10}}),
    Change("an enum gets a label", ("ALTER TYPE mood ADD VALUE 'great'", "INSERT INTO t VALUES (2, 'great')"), {"id": 2, "m": "great"}, (),
           start=("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood)", "INSERT INTO t VALUES (1, 'ok')")),
    Change("a label of an enum is renamed", ("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'", "INSERT INTO t VALUES (2, 'fine')"), {"id": 2, "m": "fine"}, (),
           start=("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood)", "INSERT INTO t VALUES (1, 'ok')")),
    Change("a type is renamed", ("ALTER TYPE mood RENAME TO feeling", "ALTER TABLE t ADD n int; INSERT INTO t VALUES (2, 'ok', 20)"), {"id": 2, "m": "ok", "n": 20},
           ("column m changed from public.mood to public.feeling", "column n added (int4)"),
           start=("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood)", "INSERT INTO t VALUES (1, 'ok')")),
    Change("a column becomes of a type that was just made", ("CREATE DOMAIN whole AS int8; ALTER TABLE t ALTER n TYPE whole[] USING ARRAY[n]", "INSERT INTO t VALUES (2, 'b', '{20}')"),
           {"id": 2, "name": "b", "n": [20]}, ("column n changed from int4 to public._whole",)),
    Change("a partition is attached", ("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)", "INSERT INTO t VALUES (11, 'b')"), {"id": 11, "v": "b"}, (),
           table="public.t2", also={"table_name": "t2"},
           start=("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t2 (LIKE t INCLUDING ALL)", "INSERT INTO t2 VALUES (10, 'a')")),
    Change("a partition is detached", ("ALTER TABLE t DETACH PARTITION t2", "INSERT INTO t2 VALUES (99, 'b')"), {"id": 99, "v": "b"}, (),
           table="public.t2", also={"table_name": "t2"},
           start=("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20)", "INSERT INTO t VALUES (10, 'a')")),
    Change("all at once, in the middle of a transaction", (
           ("BEGIN; INSERT INTO t VALUES (2, 'b', 20); ALTER TABLE t ADD age int DEFAULT 30; INSERT INTO t VALUES (3, 'c', 30);"
            " ALTER TABLE t DROP n; INSERT INTO t VALUES (4, 'd', 40); ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (5, 'e', 50); COMMIT"),),
           {"id": 5, "name": "e", "age": 50}, ("renamed from public.t",), "public.u", events=5, also={"commit_idx": 3}),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
async def test_rows_are_written_as_the_table_was_when_they_were_made(database, run_service, change):
    async with run_service(database) as running:
        await running.execute(*change.start)
        await running.events(1)
        await running.execute(*change.statements)
        events = await running.events(change.events)
        status = running.service.snapshot()
    first, last = events[0]["metadata"], events[-1]["metadata"]
    assert events[-1]["record"] == change.record
    assert last.items() >= change.also.items()
    assert (first["schema_version"] != last["schema_version"]) == bool(change.what)
    told = {one.table: one for one in status.changed_tables}
    if change.what:
        assert told[change.table].what == change.what
        assert told[change.table].schema_version == last["schema_version"]
        assert status.schema_changes >= 1
    else:
        assert told == {}
        assert status.schema_changes == 0


async def test_the_version_of_a_table_outlives_the_process(database, run_service):
    async with run_service(database) as running:
        await running.execute("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[])")
        await running.execute("INSERT INTO t VALUES (1, 'ok', '{ok}')")
        (first,) = await running.events(1)
    async with run_service(database) as running:
        await running.execute("INSERT INTO t VALUES (2, 'ok', '{ok}')")
        second = (await running.events(1))[-1]
        assert running.service.snapshot().changed_tables == ()
    assert first["metadata"]["schema_version"] == second["metadata"]["schema_version"]


async def test_a_publication_altered_while_streaming_is_followed(database, run_service):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)")
        connection.execute("CREATE PUBLICATION everything FOR TABLE a")
        connection.execute("SELECT pg_create_logical_replication_slot('service_' || current_database(), 'pgoutput')")
    async with run_service(database) as running:
        await running.execute(
            "INSERT INTO a VALUES (1, 'sent')",
            "INSERT INTO b VALUES (1, 'not yet')",
            "ALTER PUBLICATION everything ADD TABLE b",
            "INSERT INTO b VALUES (2, 'sent')",
            "ALTER PUBLICATION everything SET TABLE b (id)",
            "INSERT INTO a VALUES (2, 'no more')",
            "INSERT INTO b VALUES (3, 'without v')",
            "ALTER PUBLICATION everything SET (publish = 'delete')",
            "INSERT INTO b VALUES (4, 'no more')",
            "DELETE FROM b WHERE id = 4",
        )
        events = await running.events(4)
        status = running.service.snapshot()
    assert [(event["metadata"]["table_name"], event["record"]) for event in events] == [
        ("a", {"id": 1, "v": "sent"}),
        ("b", {"id": 2, "v": "sent"}),
        ("b", {"id": 3}),
        ("b", {"id": 4}),
    ]
    assert [change.what for change in status.changed_tables] == [("column v dropped",)]


async def test_partitions_take_their_roots_name_and_their_own_again_as_publication_and_root_say(database, run_service):
    """A relation that was published under another name is the same relation: its rows keep their order and come once."""
    async with run_service(database) as running:
        await running.execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
            "CREATE TABLE t2 (v text, id int PRIMARY KEY)",
            "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)",
            "INSERT INTO t VALUES (11, 'its own')",
            "ALTER PUBLICATION everything SET (publish_via_partition_root = true)",
            "INSERT INTO t VALUES (12, 'its root''s')",
            "ALTER TABLE t DETACH PARTITION t2",
            "INSERT INTO t2 VALUES ('its own again', 13)",
            "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)",
            "UPDATE t SET v = 'its root''s again' WHERE id = 13",
        )
        events = await running.events(4)
    assert [(event["metadata"]["table_name"], list(event["record"].items())) for event in events] == [
        ("t2", [("v", "its own"), ("id", 11)]),
        ("t", [("id", 12), ("v", "its root's")]),
        ("t2", [("v", "its own again"), ("id", 13)]),
        ("t", [("id", 13), ("v", "its root's again")]),
    ]
