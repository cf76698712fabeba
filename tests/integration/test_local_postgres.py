"""The embedded server against what its users rely on."""

from __future__ import annotations

import psycopg


def test_the_shared_server_decodes_logically(database):
    with psycopg.connect(database, autocommit=True) as connection:
        assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
        connection.execute("CREATE PUBLICATION p FOR TABLE t")
        connection.execute("SELECT pg_create_logical_replication_slot('local_check', 'pgoutput')")
        connection.execute("INSERT INTO t VALUES (1)")
        changes = connection.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes('local_check', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
        ).fetchall()
        assert [bytes(data[:1]) for (data,) in changes] == [b"B", b"R", b"I", b"C"]


def test_a_database_starts_without_the_slots_of_the_test_before(database):
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
