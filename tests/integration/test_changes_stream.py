"""Replica identities, TOAST, schema changes, truncates and messages, as real servers send them."""

from __future__ import annotations

import json

import pytest

from bridge.change import Position

LONG = (
    "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 500) g"  # does not compress, so it is TOASTed outside
)


def with_table(slot, identity: str = "DEFAULT", columns: str = "id int PRIMARY KEY, name text, long text") -> None:
    slot.execute(f"CREATE TABLE t ({columns})")
    slot.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")


def parsed(event) -> dict:
    return json.loads(event.body[:-1] + b"}}")


def test_under_default_an_unchanged_toasted_value_is_listed_as_unavailable(slot):
    with_table(slot)
    slot.execute(f"INSERT INTO t VALUES (1, 'a', ({LONG}))")
    slot.execute("UPDATE t SET name = 'b'")
    slot.execute("UPDATE t SET long = 'short'")
    inserted, updated, shortened = slot.documents()
    assert len(inserted["record"]["long"]) == 16000
    assert updated["record"] == {"id": 1, "name": "b"}
    assert updated["metadata"]["unavailable"] == ["long"]
    assert updated["changes"] is None
    assert shortened["record"]["long"] == "short"


def test_under_full_an_unchanged_toasted_value_is_there_and_did_not_change(slot):
    with_table(slot, "FULL")
    slot.execute(f"INSERT INTO t VALUES (1, 'a', ({LONG}))")
    slot.execute("UPDATE t SET name = 'b'")
    slot.execute("DELETE FROM t")
    inserted, updated, deleted = slot.documents()
    assert updated["record"]["long"] == inserted["record"]["long"]
    assert updated["changes"] == {"name": "a"}
    assert updated["metadata"]["unavailable"] == []
    assert deleted["record"] == updated["record"]
    assert deleted["metadata"]["keys"] == {"id": 1}


def test_a_key_change_is_told_under_every_identity_that_has_a_key(slot):
    for identity in ("DEFAULT", "FULL", "USING INDEX t_other"):
        slot.execute("DROP TABLE IF EXISTS t")
        slot.execute("CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL, CONSTRAINT t_other UNIQUE (other))")
        slot.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
        slot.execute("INSERT INTO t VALUES (1, 10)")
        slot.execute("UPDATE t SET id = 2, other = 20")
        slot.execute("DELETE FROM t")
        inserted, updated, deleted = slot.take()
        key = "other" if "INDEX" in identity else "id"
        old, new = (10, 20) if "INDEX" in identity else (1, 2)
        assert updated.old_key == inserted.key
        assert updated.key == deleted.key
        assert parsed(updated)["metadata"]["old_keys"] == {key: old}
        assert parsed(updated)["metadata"]["keys"] == parsed(deleted)["metadata"]["keys"] == {key: new}


def test_a_toasted_key_is_known_although_it_is_sent_as_unchanged(slot):
    slot.execute("CREATE TABLE t (name text PRIMARY KEY, n int)")
    slot.execute("ALTER TABLE t ALTER name SET STORAGE EXTERNAL")
    slot.execute("INSERT INTO t VALUES (repeat('k', 2600), 1)")
    slot.execute("UPDATE t SET n = 2")
    inserted, updated = slot.take()
    assert updated.key == inserted.key
    assert updated.old_key is None
    assert parsed(updated)["record"] == {"name": "k" * 2600, "n": 2}
    assert not updated.barrier


def test_a_table_without_key_streams_inserts_and_orders_nothing(slot):
    slot.execute("CREATE TABLE t (n int)")
    slot.execute("INSERT INTO t VALUES (1), (2)")
    assert [(event.key, event.barrier) for event in slot.take()] == [(None, False)] * 2


def test_identity_nothing_with_a_primary_key_orders_by_it(slot):
    with_table(slot, "NOTHING")
    slot.execute("INSERT INTO t VALUES (1, 'a', 'b')")
    (event,) = slot.take()
    assert event.key == b"public.t\0v1"


def test_copied_rows_have_an_ordinal_each_and_a_second_reading_numbers_the_same(slot):
    with_table(slot)
    with slot.connection.cursor().copy("COPY t (id) FROM STDIN") as copy:
        for number in range(1000):
            copy.write_row((number,))
    slot.execute(
        "BEGIN; INSERT INTO t VALUES (5000); UPDATE t SET name = 'x' WHERE id < 3; DELETE FROM t WHERE id = 5; COMMIT"
    )
    frames = slot.frames()
    first, again = slot.new_assembler(), slot.new_assembler()
    first.consume(frames)
    events = [(e.id, e.body) for e in slot.inbox]
    slot.inbox.clear()
    for frame in slot.frames():
        again.consume([frame])
    assert events == [(e.id, e.body) for e in slot.inbox]
    assert [Position.parse(id_.decode()).ordinal for id_, _ in events] == [*range(1000), *range(5)]
    assert len({id_ for id_, _ in events}) == 1005
    assert first.received_end_lsn == again.received_end_lsn > events_commit_lsn(slot)


def events_commit_lsn(slot) -> int:
    return slot.inbox[-1].transaction.commit_lsn


def test_the_schema_changes_in_the_middle_of_a_transaction(slot):
    with_table(slot, columns="id int PRIMARY KEY, name text")
    with slot.connection.transaction():
        slot.execute("INSERT INTO t VALUES (1, 'a')")
        slot.execute("ALTER TABLE t ADD age int DEFAULT 30")
        slot.execute("INSERT INTO t VALUES (2, 'b')")
        slot.execute("ALTER TABLE t RENAME name TO label")
        slot.execute("ALTER TABLE t ALTER age TYPE text USING 'n' || age")
        slot.execute("INSERT INTO t VALUES (3, 'c', 'x')")
        slot.execute("ALTER TABLE t DROP age")
        slot.execute("ALTER TABLE t RENAME TO u")
        slot.execute("CREATE SCHEMA s; ALTER TABLE u SET SCHEMA s")
        slot.execute("INSERT INTO s.u VALUES (4, 'd')")
    documents = [d for d in slot.documents() if not d["metadata"]["table_name"].startswith("pg_temp")]
    assert [d["record"] for d in documents] == [
        {"id": 1, "name": "a"},
        {"id": 2, "name": "b", "age": 30},
        {"id": 3, "label": "c", "age": "x"},
        {"id": 4, "label": "d"},
    ]
    assert [d["metadata"]["table_schema"] + "." + d["metadata"]["table_name"] for d in documents] == [
        "public.t"
    ] * 3 + ["s.u"]


def test_a_changed_identity_raises_one_barrier(slot):
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL, CONSTRAINT t_other UNIQUE (other))")
    slot.execute("INSERT INTO t VALUES (1, 10)")
    slot.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX t_other")
    slot.execute("INSERT INTO t VALUES (2, 20), (3, 30)")
    assert [(event.key, event.barrier) for event in slot.take()] == [
        (b"public.t\0v1", False),
        (b"public.t\0v20", True),
        (b"public.t\0v30", False),
    ]


def test_a_table_dropped_and_made_again_goes_on(slot):
    with_table(slot, columns="id int PRIMARY KEY, name text")
    slot.execute("INSERT INTO t VALUES (1, 'a')")
    slot.execute("DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, other bool)")
    slot.execute("INSERT INTO t VALUES (1, true)")
    assert [d["record"] for d in slot.documents()] == [{"id": 1, "name": "a"}, {"id": 1, "other": True}]


def test_an_enum_value_added_is_streamed(slot):
    slot.execute("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[])")
    slot.execute("INSERT INTO t VALUES (1, 'ok', '{ok}')")
    slot.execute("ALTER TYPE mood ADD VALUE 'great'")
    slot.execute("INSERT INTO t VALUES (2, 'great', '{great,NULL}')")
    assert [(d["record"]["m"], d["record"]["ms"]) for d in slot.documents()] == [
        ("ok", ["ok"]),
        ("great", ["great", None]),
    ]


def test_partitions_stream_under_their_own_names(slot):
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    slot.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)")
    slot.execute("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20)")
    slot.execute("INSERT INTO t VALUES (1, 'a'), (11, 'b')")
    slot.execute("UPDATE t SET id = 12 WHERE id = 1")  # moves the row: a delete and an insert
    slot.execute("ALTER TABLE t DETACH PARTITION t2")
    slot.execute("INSERT INTO t2 VALUES (13, 'c')")
    documents = slot.documents()
    assert [(d["action"], d["metadata"]["table_name"]) for d in documents] == [
        ("insert", "t1"), ("insert", "t2"), ("delete", "t1"), ("insert", "t2"), ("insert", "t2"),
    ]  # fmt: skip


def test_through_their_root_partitions_stream_under_its_name_whatever_their_identity(slot):
    slot.execute(
        "DROP PUBLICATION everything; CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root)"
    )
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
    slot.execute("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)")
    slot.execute("ALTER TABLE t1 REPLICA IDENTITY FULL")
    slot.execute("INSERT INTO t VALUES (1, 'a')")
    slot.execute("UPDATE t SET v = 'b'")
    slot.execute("DELETE FROM t")
    inserted, updated, deleted = slot.take()
    assert {inserted.table, updated.table, deleted.table} == {"public.t"}
    assert inserted.key == updated.key == deleted.key == b"public.t\0v1"
    # The server sends the old row as a key, since the root's identity names one: only the key can be relied on.
    assert updated.old_key is None
    assert parsed(updated)["changes"] is None
    assert parsed(deleted)["record"] == {"id": 1}


def test_a_truncate_of_several_tables_is_an_event_for_each(slot):
    slot.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a)")
    with slot.connection.transaction():
        slot.execute("INSERT INTO a VALUES (1)")
        slot.execute("TRUNCATE a RESTART IDENTITY CASCADE")
        slot.execute("INSERT INTO a VALUES (2)")
    events = slot.take()
    assert [event.ordinal for event in events] == [0, 1, 2, 3]
    assert {event.table for event in events[1:3]} == {"public.a", "public.b"}
    assert [event.barrier for event in events] == [False, True, True, False]
    assert parsed(events[1])["metadata"]["truncate"] == {"cascade": True, "restart_identity": True}


def test_messages_in_and_out_of_transactions_keep_unique_ids_in_stream_order(slot):
    with_table(slot, columns="id int PRIMARY KEY")
    with slot.connection.transaction():
        slot.execute("INSERT INTO t VALUES (1)")
        slot.execute("SELECT pg_logical_emit_message(true, 'in', '{\"n\": 1}')")
        (lsn,) = slot.execute("SELECT pg_logical_emit_message(false, 'out', 'at once') - '0/0'").fetchone()
        slot.execute("INSERT INTO t VALUES (2)")
    slot.execute("SELECT pg_logical_emit_message(false, 'out', %s)", (b"\xff",))
    slot.execute("INSERT INTO t VALUES (3)")
    events = slot.take()
    assert [(event.action, event.ordinal) for event in events] == [
        ("message", 0), ("insert", 0), ("message", 1), ("insert", 2), ("message", 0), ("insert", 0),
    ]  # fmt: skip
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))
    assert parsed(events[0])["metadata"]["message"] == {"lsn": int(lsn), "transactional": False}
    assert parsed(events[0])["metadata"]["commit_lsn"] == int(lsn) - 1
    assert parsed(events[2])["record"]["content"] == {"n": 1}
    assert parsed(events[4])["record"] == {"prefix": "out", "content": "/w==", "encoding": "base64"}


def test_a_message_whose_record_ends_where_a_commit_begins_has_an_id_of_its_own(slot):
    """No record between the two: pg_logical_emit_message is the last of its transaction's work."""
    with_table(slot, columns="id int PRIMARY KEY")
    with slot.connection.transaction():
        slot.execute("INSERT INTO t VALUES (1)")
        slot.execute("SELECT pg_logical_emit_message(false, 'p', '')")
    message, inserted = slot.take()
    assert inserted.transaction.commit_lsn == message.transaction.commit_lsn + 1
    assert message.id < inserted.id


def test_column_lists_and_row_filters_give_what_they_publish(slot):
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, open text, secret text)")
    slot.execute("DROP PUBLICATION everything; CREATE PUBLICATION everything FOR TABLE t (id, open) WHERE (id > 1)")
    slot.execute("INSERT INTO t VALUES (1, 'a', 's'), (2, 'b', 's')")
    assert [d["record"] for d in slot.documents()] == [{"id": 2, "open": "b"}]


def test_changes_from_another_origin_are_read(slot):
    with_table(slot, columns="id int PRIMARY KEY")
    slot.execute(f"SELECT pg_replication_origin_create('o_{slot.name}')")
    try:
        slot.execute(f"SELECT pg_replication_origin_session_setup('o_{slot.name}')")
        with slot.connection.transaction():
            slot.execute("SELECT pg_replication_origin_xact_setup('0/1234', now())")
            slot.execute("INSERT INTO t VALUES (1)")
        slot.execute("SELECT pg_replication_origin_session_reset()")
        assert [d["record"] for d in slot.documents()] == [{"id": 1}]
    finally:
        slot.execute(f"SELECT pg_replication_origin_drop('o_{slot.name}')")


def test_generated_columns_are_streamed_where_they_are_published(database, decode_slot):
    slot = decode_slot(database)
    slot.execute(
        "DROP PUBLICATION everything; CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_generated_columns = stored)"
    )
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)")
    slot.execute("INSERT INTO t VALUES (2)")
    documents = slot.documents()
    slot.close()
    assert [d["record"] for d in documents] == [{"id": 2, "twice": 4}]


@pytest.mark.parametrize("columns", [1600])
def test_a_table_of_as_many_columns_as_there_can_be(slot, columns):
    slot.execute(f"CREATE TABLE t ({', '.join(f'c{n} int' for n in range(columns))})")
    slot.execute(f"INSERT INTO t VALUES ({', '.join(map(str, range(columns)))})")
    assert [d["record"] for d in slot.documents()] == [{f"c{n}": n for n in range(columns)}]
