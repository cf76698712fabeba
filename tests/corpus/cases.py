"""
The corpus: what was done to a server, and what has to come of it, written by hand.

Columns are of types whose JSON leaves no doubt, but for the case `types`, whose values the server itself writes as JSON
while the case is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LONG = "repeat('0123456789', 210)"
"""A text that, stored EXTERNAL, is kept beside its row."""
LONG_TEXT = "0123456789" * 210


@dataclass(frozen=True)
class Case:
    name: str
    about: str
    sql: list[str]
    """Each a transaction of its own, unless it says otherwise; the slot is made before the first."""
    events: list[dict[str, Any]]
    """In order; a member that is not named is not compared. `at` is the ordinal."""
    publication: str = "FOR ALL TABLES"
    since: int = 14
    before: list[str] = field(default_factory=list)
    """Done before the slot is made."""
    encoding: str = "UTF8"
    compared: bool = True
    """Whether test_decoding sees the same changes: it knows no publications and shows all columns."""


def insert(table: str, record: Any, **more: Any) -> dict[str, Any]:
    return {"action": "insert", "table": table, "record": record, **more}


def update(table: str, record: Any, **more: Any) -> dict[str, Any]:
    return {"action": "update", "table": table, "record": record, **more}


def delete(table: str, record: Any, **more: Any) -> dict[str, Any]:
    return {"action": "delete", "table": table, "record": record, **more}


def truncate(table: str, **more: Any) -> dict[str, Any]:
    return {"action": "truncate", "table": table, "record": None, **more}


def message(prefix: str, content: Any, encoding: str, **more: Any) -> dict[str, Any]:
    record = {"prefix": prefix, "content": content, "encoding": encoding}
    return {"action": "message", "table": None, "record": record, **more}


CASES = [
    Case(
        "identity_default",
        "The key names the row; old values are not sent, and a changed key is.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, name text)",
            "INSERT INTO t VALUES (1, 'a'), (2, NULL)",
            "UPDATE t SET name = 'b' WHERE id = 1",
            "UPDATE t SET id = 10 WHERE id = 1",
            "DELETE FROM t",
        ],
        [
            insert("public.t", {"id": 1, "name": "a"}, keys={"id": 1}, at=0),
            insert("public.t", {"id": 2, "name": None}, keys={"id": 2}, at=1),
            update("public.t", {"id": 1, "name": "b"}, changes=None, old_keys=None),
            update("public.t", {"id": 10, "name": "b"}, changes=None, keys={"id": 10}, old_keys={"id": 1}),
            delete("public.t", {"id": 2}, keys={"id": 2}, unavailable=["name"]),
            delete("public.t", {"id": 10}, keys={"id": 10}, unavailable=["name"]),
        ],
    ),
    Case(
        "identity_full",
        "The whole old row is sent.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, name text, note text)",
            "ALTER TABLE t REPLICA IDENTITY FULL",
            "INSERT INTO t VALUES (1, 'a', NULL)",
            "UPDATE t SET name = 'b', note = 'n'",
            "UPDATE t SET name = name",
            "UPDATE t SET id = 10",
            "DELETE FROM t",
        ],
        [
            insert("public.t", {"id": 1, "name": "a", "note": None}, keys={"id": 1}),
            update("public.t", {"id": 1, "name": "b", "note": "n"}, changes={"name": "a", "note": None}, old_keys=None),
            update("public.t", {"id": 1, "name": "b", "note": "n"}, changes={}),
            update("public.t", {"id": 10, "name": "b", "note": "n"}, changes={"id": 1}, old_keys={"id": 1}),
            delete("public.t", {"id": 10, "name": "b", "note": "n"}, keys={"id": 10}, unavailable=[]),
        ],
    ),
    Case(
        "identity_index",
        "The columns of an index name the row, whatever the primary key is.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b text NOT NULL, name text, CONSTRAINT ab UNIQUE (b, a))",
            "ALTER TABLE t REPLICA IDENTITY USING INDEX ab",
            "INSERT INTO t VALUES (1, 7, 'x', 'n')",
            "UPDATE t SET id = 2",
            "UPDATE t SET a = 8",
            "DELETE FROM t",
        ],
        [
            insert("public.t", {"id": 1, "a": 7, "b": "x", "name": "n"}, keys={"a": 7, "b": "x"}),
            update("public.t", {"id": 2, "a": 7, "b": "x", "name": "n"}, old_keys=None),
            update("public.t", {"id": 2, "a": 8, "b": "x", "name": "n"}, old_keys={"a": 7, "b": "x"}),
            delete("public.t", {"a": 8, "b": "x"}, unavailable=["id", "name"]),
        ],
    ),
    Case(
        "identity_nothing",
        "Inserts alone; the key is the primary key's, which the catalog knows.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, name text)",
            "ALTER TABLE t REPLICA IDENTITY NOTHING",
            "INSERT INTO t VALUES (1, 'a')",
            "CREATE TABLE bare (n int)",
            "INSERT INTO bare VALUES (7)",
        ],
        [
            insert("public.t", {"id": 1, "name": "a"}, keys={"id": 1}),
            insert("public.bare", {"n": 7}, keys={}),
        ],
    ),
    Case(
        "toast",
        "A large value that was not touched is not sent, but for the old row under FULL.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, name text, long text)",
            "ALTER TABLE t ALTER long SET STORAGE EXTERNAL",
            f"INSERT INTO t VALUES (1, 'a', {LONG})",
            "UPDATE t SET name = 'b'",
            "UPDATE t SET long = 'short'",
            "CREATE TABLE f (id int PRIMARY KEY, name text, long text)",
            "ALTER TABLE f REPLICA IDENTITY FULL",
            "ALTER TABLE f ALTER long SET STORAGE EXTERNAL",
            f"INSERT INTO f VALUES (1, 'a', {LONG})",
            "UPDATE f SET name = 'b'",
        ],
        [
            insert("public.t", {"id": 1, "name": "a", "long": LONG_TEXT}),
            update("public.t", {"id": 1, "name": "b"}, unavailable=["long"]),
            update("public.t", {"id": 1, "name": "b", "long": "short"}, unavailable=[]),
            insert("public.f", {"id": 1, "name": "a", "long": LONG_TEXT}),
            update("public.f", {"id": 1, "name": "b", "long": LONG_TEXT}, changes={"name": "a"}, unavailable=[]),
        ],
    ),
    Case(
        "schema_changes",
        "The table changes its form, name, schema and identity, between transactions and within one.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, name text)",
            "INSERT INTO t VALUES (1, 'a')",
            "ALTER TABLE t ADD age int DEFAULT 30",
            "UPDATE t SET name = 'b'",
            (
                "BEGIN; INSERT INTO t VALUES (2, 'c', 31); ALTER TABLE t DROP name; INSERT INTO t VALUES (3, 32);"
                " ALTER TABLE t RENAME age TO years; ALTER TABLE t ALTER years TYPE text USING 'n' || years;"
                " INSERT INTO t VALUES (4, 'n33'); COMMIT"
            ),
            "ALTER TABLE t RENAME TO u",
            "CREATE SCHEMA s",
            "ALTER TABLE u SET SCHEMA s",
            "ALTER TABLE s.u REPLICA IDENTITY FULL",
            "DELETE FROM s.u WHERE id = 4",
            "DROP TABLE s.u",
            "CREATE TABLE s.u (id int PRIMARY KEY, other int)",
            "INSERT INTO s.u VALUES (5, 6)",
        ],
        [
            insert("public.t", {"id": 1, "name": "a"}),
            update("public.t", {"id": 1, "name": "b", "age": 30}),
            insert("public.t", {"id": 2, "name": "c", "age": 31}, at=0),
            insert("public.t", {"id": 3, "age": 32}, at=1),
            # A type change writes the table anew, under a name of its own.
            insert("public.t", {"id": 4, "years": "n33"}),
            # Under FULL the key is the catalog's, which knows nothing of a table that is gone when it is read.
            delete("s.u", {"id": 4, "years": "n33"}, keys={}),
            insert("s.u", {"id": 5, "other": 6}),
        ],
        compared=False,  # it shows the rows of the rewritten table
    ),
    Case(
        "truncate",
        "Several tables at once, with options, among rows.",
        [
            "CREATE TABLE a (id int PRIMARY KEY)",
            "CREATE TABLE b (id int PRIMARY KEY REFERENCES a)",
            "BEGIN; INSERT INTO a VALUES (1); TRUNCATE a RESTART IDENTITY CASCADE; INSERT INTO a VALUES (2); COMMIT",
            "TRUNCATE b",
        ],
        [
            insert("public.a", {"id": 1}, at=0),
            truncate("public.a", at=1, truncate={"cascade": True, "restart_identity": True}),
            truncate("public.b", at=2, truncate={"cascade": True, "restart_identity": True}),
            insert("public.a", {"id": 2}, at=3),
            truncate("public.b", at=0, truncate={"cascade": False, "restart_identity": False}),
        ],
    ),
    Case(
        "messages",
        "Logical messages in and out of transactions, of any content, and what a transaction says of itself.",
        [
            "CREATE TABLE t (id int PRIMARY KEY)",
            (
                "BEGIN; INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(true, 'in', '{\"n\": 1}');"
                " SELECT pg_logical_emit_message(false, 'out', 'at once'); SAVEPOINT s;"
                " SELECT pg_logical_emit_message(true, 'in', 'undone'); ROLLBACK TO s; INSERT INTO t VALUES (2); COMMIT"
            ),
            "BEGIN; SELECT pg_logical_emit_message(true, 'pgbridge.context', '{\"user\": 7}'); INSERT INTO t VALUES (3); COMMIT",
            "SELECT pg_logical_emit_message(true, 'bytes', '\\xff00'::bytea)",
            "SELECT pg_logical_emit_message(true, '', '')",
        ],
        [
            message("out", "at once", "text", at=0, message={"transactional": False}),
            insert("public.t", {"id": 1}, at=0),
            message("in", {"n": 1}, "json", at=1, message={"transactional": True}),
            insert("public.t", {"id": 2}, at=2),
            insert("public.t", {"id": 3}, at=1, context={"user": 7}),
            message("bytes", "/wA=", "base64"),
            message("", "", "text"),
        ],
    ),
    Case(
        "partitions",
        "Under their own names, moving between them, attached and detached.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE t2 (v text, id int PRIMARY KEY)",
            "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)",
            "INSERT INTO t VALUES (1, 'a'), (11, 'b')",
            "UPDATE t SET id = 12 WHERE id = 1",
            "ALTER TABLE t DETACH PARTITION t2",
            "INSERT INTO t2 VALUES ('c', 99)",
        ],
        [
            insert("public.t1", {"id": 1, "v": "a"}),
            insert("public.t2", {"v": "b", "id": 11}),
            delete("public.t1", {"id": 1}, at=0),
            insert("public.t2", {"v": "a", "id": 12}, at=1),
            insert("public.t2", {"v": "c", "id": 99}),
        ],
    ),
    Case(
        "partitions_via_root",
        "Under the name, columns and key of the partitioned table, whatever the partition's are.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE t2 (v text, id int PRIMARY KEY)",
            "ALTER TABLE t2 REPLICA IDENTITY FULL",
            "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)",
            "INSERT INTO t VALUES (1, 'a'), (11, 'b')",
            "UPDATE t SET v = 'c' WHERE id = 11",
            "DELETE FROM t WHERE id = 11",
        ],
        [
            insert("public.t", {"id": 1, "v": "a"}),
            insert("public.t", {"id": 11, "v": "b"}),
            update("public.t", {"id": 11, "v": "c"}, keys={"id": 11}, old_keys=None),
            delete("public.t", {"id": 11}, keys={"id": 11}),
        ],
        publication="FOR ALL TABLES WITH (publish_via_partition_root)",
        compared=False,
    ),
    Case(
        "partition_detached_via_root",
        "From then on it has its own name and columns; 14 notices when the stream is begun anew.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
            "CREATE TABLE t2 (v text, id int PRIMARY KEY)",
            "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)",
            "INSERT INTO t VALUES (11, 'b')",
            "ALTER TABLE t DETACH PARTITION t2",
            "INSERT INTO t2 VALUES ('d', 99)",
        ],
        [
            insert("public.t", {"id": 11, "v": "b"}),
            insert("public.t2", {"v": "d", "id": 99}),
        ],
        publication="FOR ALL TABLES WITH (publish_via_partition_root)",
        since=15,
        compared=False,
    ),
    Case(
        "row_filter_and_column_list",
        "A row that comes into the filter's sight is an insert, one that leaves it a delete.",
        [
            "INSERT INTO t VALUES (1, 'a', 's'), (2, 'b', 's')",
            "UPDATE t SET id = 3 WHERE id = 1",
            "UPDATE t SET id = 0 WHERE id = 2",
            "ALTER PUBLICATION everything SET TABLE t",
            "UPDATE t SET secret = 'told' WHERE id = 3",
        ],
        [
            insert("public.t", {"id": 2, "open": "b"}),
            insert("public.t", {"id": 3, "open": "a"}),
            delete("public.t", {"id": 2}),
            update("public.t", {"id": 3, "open": "a", "secret": "told"}),
        ],
        before=["CREATE TABLE t (id int PRIMARY KEY, open text, secret text)"],
        publication="FOR TABLE t (id, open) WHERE (id > 1)",
        since=15,
        compared=False,
    ),
    Case(
        "operations",
        "What the publication does not publish is not sent, and counts for nothing.",
        [
            "CREATE TABLE t (id int PRIMARY KEY)",
            "BEGIN; INSERT INTO t VALUES (1); UPDATE t SET id = 2; DELETE FROM t; COMMIT",
            "INSERT INTO t VALUES (3)",
        ],
        [delete("public.t", {"id": 2}, at=0)],
        publication="FOR ALL TABLES WITH (publish = 'delete')",
        compared=False,
    ),
    Case(
        "generated_columns",
        "Stored generated columns stay at home by default.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",
            "INSERT INTO t VALUES (2)",
        ],
        [insert("public.t", {"id": 2})],
        compared=False,
    ),
    Case(
        "generated_columns_published",
        "From 18 on a publication may send them.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)",
            "INSERT INTO t VALUES (2)",
        ],
        [insert("public.t", {"id": 2, "twice": 4})],
        publication="FOR ALL TABLES WITH (publish_generated_columns = stored)",
        since=18,
    ),
    Case(
        "transactions",
        "Savepoints, COPY, prepared transactions, and those that write nothing that is published.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, name text)",
            (
                "BEGIN; INSERT INTO t VALUES (1, 'kept'); SAVEPOINT s; INSERT INTO t VALUES (2, 'undone'); ROLLBACK TO s;"
                " SAVEPOINT s2; INSERT INTO t VALUES (3, 'kept'); RELEASE s2; COMMIT"
            ),
            "BEGIN; INSERT INTO t VALUES (4, 'undone'); ROLLBACK",
            "CREATE TEMP TABLE passing (id int)",
            "INSERT INTO passing VALUES (1)",
            "COPY t FROM PROGRAM 'echo 5,five; echo 6,six' WITH (FORMAT csv)",
            "BEGIN; INSERT INTO t VALUES (7, 'prepared'); PREPARE TRANSACTION 'corpus'",
            "INSERT INTO t VALUES (8, 'before it')",
            "COMMIT PREPARED 'corpus'",
        ],
        [
            insert("public.t", {"id": 1, "name": "kept"}, at=0),
            insert("public.t", {"id": 3, "name": "kept"}, at=1),
            insert("public.t", {"id": 5, "name": "five"}, at=0),
            insert("public.t", {"id": 6, "name": "six"}, at=1),
            insert("public.t", {"id": 8, "name": "before it"}),
            insert("public.t", {"id": 7, "name": "prepared"}),
        ],
    ),
    Case(
        "origin",
        "A transaction that was replicated from elsewhere.",
        [
            "CREATE TABLE t (id int PRIMARY KEY)",
            "SELECT pg_replication_origin_create('elsewhere')",
            "SELECT pg_replication_origin_session_setup('elsewhere')",
            "BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', '2026-11-22 05:37:00+00'); INSERT INTO t VALUES (1); COMMIT",
            "SELECT pg_replication_origin_session_reset()",
            "SELECT pg_replication_origin_drop('elsewhere')",
        ],
        [insert("public.t", {"id": 1})],
    ),
    Case(
        "names",
        "Names that have to be quoted, escaped or encoded.",
        [
            'CREATE SCHEMA "S.1"',
            'CREATE TABLE "S.1"."a ""table""" ("Id" int PRIMARY KEY, "with space" int, "\u017c\u00f3\u0142\u0107 \U0001f600" int, "\\" int)',
            'INSERT INTO "S.1"."a ""table""" VALUES (1, 2, 3, 4)',
        ],
        [insert('S.1.a "table"', {"Id": 1, "with space": 2, "\u017c\u00f3\u0142\u0107 \U0001f600": 3, "\\": 4}, keys={"Id": 1})],
    ),
    Case(
        "own_types",
        "Enums, domains, composites, ranges and their arrays, made and changed on the way.",
        [
            "CREATE TYPE mood AS ENUM ('ok')",
            "CREATE DOMAIN positive AS int4",
            "CREATE DOMAIN more AS positive",
            "CREATE TYPE pair AS (n int, t text)",
            "CREATE TABLE t (id more PRIMARY KEY, m mood, ms mood[], ps positive[], c pair, cs pair[])",
            "INSERT INTO t VALUES (1, 'ok', '{ok,NULL}', '{1,2}', ROW(1, 'a b'), ARRAY[ROW(2, NULL)::pair])",
            "ALTER TYPE mood ADD VALUE 'great'",
            "INSERT INTO t VALUES (2, 'great', NULL, NULL, NULL, NULL)",
        ],
        [
            insert("public.t", {"id": 1, "m": "ok", "ms": ["ok", None], "ps": [1, 2], "c": '(1,"a b")', "cs": ["(2,)"]}),
            insert("public.t", {"id": 2, "m": "great", "ms": None, "ps": None, "c": None, "cs": None}),
        ],
    ),
    Case(
        "not_utf8",
        "A database without an encoding, and bytes that are none.",
        [
            "CREATE TABLE t (id int PRIMARY KEY, v text, w text)",
            "INSERT INTO t VALUES (1, E'caf\\xe9', 'plain')",
        ],
        [insert("public.t", {"id": 1, "v": "caf\u00e9", "w": "plain"}, latin1=["v"])],
        encoding="SQL_ASCII",
    ),
]  # fmt: skip
