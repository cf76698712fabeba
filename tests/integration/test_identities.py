"""Replica identities through the whole service: what old values there are, and that a start says which will lack."""

from __future__ import annotations

import psycopg
import pytest
from structlog.testing import capture_logs

from bridge.observe import log as log_events
from bridge.source.identity_warnings import identity_warnings
from bridge.source.session import connected
from bridge.source.tables import list_tables

TABLES = (
    "CREATE TABLE by_default (id int PRIMARY KEY, other int NOT NULL, name text)",
    "CREATE TABLE by_index (id int PRIMARY KEY, other int NOT NULL, name text, CONSTRAINT by_index_other UNIQUE (other))",
    "ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_other",
    "CREATE TABLE by_full (id int PRIMARY KEY, other int NOT NULL, name text)",
    "ALTER TABLE by_full REPLICA IDENTITY FULL",
    "CREATE TABLE by_nothing (id int PRIMARY KEY, other int NOT NULL, name text)",
    "ALTER TABLE by_nothing REPLICA IDENTITY NOTHING",
)


@pytest.fixture
def tables(database):
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in TABLES:
            connection.execute(statement)
    return database


@pytest.mark.parametrize(
    ("identity", "keys", "changes", "old_keys", "deleted"),
    [
        ("default", ({"id": 1}, {"id": 2}), (None, None), {"id": 1}, {"id": 2}),
        ("index", ({"other": 10}, {"other": 20}), (None, None), {"other": 10}, {"other": 20}),
        ("full", ({"id": 1}, {"id": 2}), ({"name": "a"}, {"id": 1, "other": 10}), {"id": 1}, {"id": 2, "other": 20, "name": "b"}),
    ],
)  # fmt: skip
async def test_updates_key_changes_and_deletes(tables, run_service, identity, keys, changes, old_keys, deleted):
    async with run_service(tables) as running:
        await running.execute(
            f"INSERT INTO by_{identity} VALUES (1, 10, 'a')",
            f"UPDATE by_{identity} SET name = 'b'",
            f"UPDATE by_{identity} SET id = 2, other = 20",
            f"DELETE FROM by_{identity}",
        )
        inserted, renamed, moved, gone = await running.events(4)
    assert [event["metadata"]["keys"] for event in (inserted, renamed, moved, gone)] == [keys[0], keys[0], keys[1], keys[1]]  # fmt: skip
    assert (renamed["changes"], moved["changes"]) == changes
    assert [event["metadata"]["old_keys"] for event in (inserted, renamed, moved, gone)] == [None, None, old_keys, None]  # fmt: skip
    assert gone["record"] == deleted
    assert set(gone["metadata"]["unavailable"]) == {"id", "other", "name"} - deleted.keys()


async def test_under_nothing_rows_come_in_and_the_server_refuses_the_rest(tables, run_service):
    async with run_service(tables) as running:
        await running.execute("INSERT INTO by_nothing VALUES (1, 10, 'a')")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            await running.execute("UPDATE by_nothing SET name = 'b'")
        (event,) = await running.events(1)
    assert event["metadata"]["keys"] == {"id": 1}


async def test_an_identity_changed_while_streaming_holds_from_the_next_row_on(tables, run_service):
    async with run_service(tables) as running:
        await running.execute(
            "INSERT INTO by_default VALUES (1, 10, 'a')",
            "UPDATE by_default SET name = 'b'",
            "BEGIN; ALTER TABLE by_default REPLICA IDENTITY FULL; UPDATE by_default SET name = 'c'; COMMIT",
            "ALTER TABLE by_default REPLICA IDENTITY DEFAULT",
            "UPDATE by_default SET name = 'd'",
        )
        events = await running.events(4)
    assert [event["changes"] for event in events] == [None, None, {"name": "b"}, None]
    assert len({event["metadata"]["schema_version"] for event in events}) == 2


async def test_a_start_says_which_triggers_will_lack_old_values(tables, run_service):
    triggers = {
        "all": {"tables": ["public.by_*"], "filter_criteria": [{"changes": {"name": [{"exists": True}]}}]},
        "full": {"tables": ["public.by_full"]},
        "inserts": {"tables": ["public.*"], "operations": ["insert"]},
    }
    with capture_logs() as lines:
        async with run_service(tables, triggers) as running, connected(tables) as wire:
            expected = identity_warnings(running.settings, await list_tables(wire))
    said = [line for line in lines if line["event"] == log_events.OLD_VALUES_LACKING]
    assert [(line["log_level"], line["reason"]) for line in said] == [("warning", one.what) for one in expected]
    assert said[0]["reason"].startswith("trigger all: of public.by_default, public.by_index")
    assert said[0]["reason"].endswith("and the trigger's filter asks for more")
    assert len(said) == 1


# Settings of others


async def test_settings_of_role_and_database_change_no_value(database, run_service):
    """Given a role and a database that set everything that alters how values look, then the values look as always."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    hostile = {
        "DateStyle": "SQL, DMY",
        "IntervalStyle": "sql_standard",
        "TimeZone": "'Asia/Kathmandu'",
        "extra_float_digits": "-15",
        "bytea_output": "escape",
        "xmlbinary": "hex",
        "search_path": "strange, public",
        "quote_all_identifiers": "on",
        "statement_timeout": "'300ms'",
        "idle_session_timeout": "'300ms'",
        "standard_conforming_strings": "off",
        "default_transaction_isolation": "serializable",
    }
    async with run_service(database):
        pass  # makes publication and slot while that is easy
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA strange; CREATE TABLE strange.t (n int)")
        admin.execute(
            "CREATE TABLE t (id int PRIMARY KEY, d date, ts timestamptz, i interval, f float8, b bytea, m money, c regclass)"
        )
        for setting, value in hostile.items():
            admin.execute(f"ALTER DATABASE {name} SET {setting} TO {value}")
        admin.execute(f"CREATE ROLE hostile_{name} LOGIN SUPERUSER")
        try:
            for setting, value in hostile.items():
                admin.execute(f"ALTER ROLE hostile_{name} SET {setting} TO {value}")
            dsn = psycopg.conninfo.make_conninfo(database, user=f"hostile_{name}")
            async with run_service(dsn, {"t": {"tables": ["public.t"]}}) as running:
                admin.execute(
                    "INSERT INTO t VALUES (1, '2026-11-22', '2026-11-22 05:37+00', '1 year -2 days 3 hours', 0.1, '\\x00ff',"
                    " 1234.5, 'strange.t')"
                )
                (event,) = await running.events(1)
        finally:
            admin.execute(f"DROP ROLE hostile_{name}")
    assert event["record"] == {
        "id": 1, "d": "2026-11-22", "ts": "2026-11-22T05:37:00Z", "i": "1 year -2 days +03:00:00", "f": 0.1, "b": "AP8=",
        "m": "$1,234.50", "c": "strange.t",
    }  # fmt: skip
