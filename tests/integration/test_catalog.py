"""The catalog beside the stream: what DDL changes is known from the first row on that needs it."""

from __future__ import annotations

import psycopg
import pytest

from bridge.errors import SourceUnavailable
from bridge.pgoutput.lookup import Lookup
from bridge.pgoutput.values import CatalogType
from bridge.source import catalog, lingering
from bridge.source.libpq import Wire
from bridge.source.session import connected


async def load(dsn: str) -> catalog.Catalog:
    async with connected(dsn) as wire:
        return await catalog.load(wire)


def one(dsn: str, question: str):
    with psycopg.connect(dsn) as connection:
        return connection.execute(question).fetchone()[0]


async def test_every_type_that_may_be_a_columns_is_known_but_not_the_row_types_of_tables(database):
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('ok'); CREATE TYPE pair AS (a int, b mood)")
        connection.execute("CREATE DOMAIN positive AS int4; CREATE DOMAIN positives AS positive[]")
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, b int, UNIQUE (b))")
        oid = dict(connection.execute("SELECT typname, oid::int8 FROM pg_type").fetchall())
    known = await load(database)
    assert known.type_of(oid["mood"]) == CatalogType("e")
    assert known.type_of(oid["_mood"]) == CatalogType("b", element=oid["mood"])
    assert known.type_of(oid["pair"]) == CatalogType("c")
    assert known.type_of(oid["_pair"]) == CatalogType("b", element=oid["pair"])
    assert known.type_of(oid["positive"]) == CatalogType("d", base=23)
    assert known.type_of(oid["positives"]) == CatalogType("d", base=oid["_positive"])
    assert known.type_of(oid["t"]) is known.type_of(oid["_t"]) is None
    assert known.primary_key(one(database, "SELECT 't'::regclass::oid::int8")) == ("id",)


async def test_a_catalog_lacks_what_was_made_after_it_was_read(database):
    known = await load(database)
    with psycopg.connect(database, autocommit=True) as connection:
        xid = connection.execute(
            "WITH made AS (SELECT pg_current_xact_id() AS xid) SELECT xid::text::int8 FROM made"
        ).fetchone()[0]
        connection.execute("CREATE DOMAIN inner_one AS int4; CREATE DOMAIN outer_ones AS inner_one[]")
        connection.execute("CREATE TABLE t (id int, at int, PRIMARY KEY (at, id))")
        domain = connection.execute("SELECT 'outer_ones'::regtype::oid::int8").fetchone()[0]
        table = connection.execute("SELECT 't'::regclass::oid::int8").fetchone()[0]
        newest = connection.execute("SELECT pg_current_xact_id()::text::int8").fetchone()[0]
    types, key = Lookup("t", None, frozenset({domain}), newest), Lookup("t", table, frozenset(), newest)
    gone = Lookup("t", None, frozenset({domain, 4_000_000_000}), newest)
    assert known.lacks(types)
    assert known.lacks(key)
    assert known.lacks(Lookup("t", table, frozenset(), xid))
    assert not known.lacks(Lookup("t", table, frozenset(), xid - 1))
    async with connected(database) as wire:
        await known.look_up(wire, gone)
        assert known.lacks(key)
        await known.look_up(wire, key)
    assert not known.lacks(types)
    assert not known.lacks(gone)  # there is no such type: asking again would not help
    assert not known.lacks(key)
    assert known.lacks(Lookup("t", table, frozenset(), newest + 1))
    assert known.primary_key(table) == ("at", "id")
    array = known.type_of(domain).base
    assert known.type_of(known.type_of(array).element) == CatalogType("d", base=23)


@pytest.fixture
def asking(database):
    async def dsn() -> str:
        return database

    return dsn


async def test_a_reader_waits_until_the_transaction_can_be_seen(database, asking):
    known = await load(database)
    with psycopg.connect(database) as altering:
        altering.execute("CREATE TABLE t (id int PRIMARY KEY)")
        table, xid = altering.execute("SELECT 't'::regclass::oid::int8, pg_current_xact_id()::text::int8").fetchone()
        lookup = Lookup("public.t", table, frozenset(), xid)
        reader = catalog.CatalogReader(known, asking)
        pauses = []

        async def commit_at_the_third(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                altering.commit()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(catalog.asyncio, "sleep", commit_at_the_third)
            await reader.look_up(lookup)
        reader.close()
    assert len(pauses) == 3
    assert known.primary_key(table) == ("id",)


async def test_a_reader_goes_on_without_what_stays_invisible(database, asking):
    known = await load(database)
    reader = catalog.CatalogReader(known, asking, lookup_seconds=0.02)
    never = Lookup("public.t", 16384, frozenset(), one(database, "SELECT pg_current_xact_id()::text::int8 + 1000"))
    await reader.look_up(never)
    assert not known.lacks(never)
    reader.close()


async def test_a_reader_keeps_its_connection_and_replaces_a_dead_one(database, asking):
    known = await load(database)
    with psycopg.connect(database, autocommit=True) as admin:
        reader = catalog.CatalogReader(known, asking)
        sessions = (
            "SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = 'pgbridge catalog'"
            " AND datname = current_database()"
        )
        for _ in range(2):
            xid = admin.execute("SELECT pg_current_xact_id()::text::int8").fetchone()[0]
            await reader.look_up(Lookup("public.t", 16384, frozenset(), xid))
        ((first,),) = admin.execute(sessions).fetchone()
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", (first,))
        xid = admin.execute("SELECT pg_current_xact_id()::text::int8").fetchone()[0]
        await reader.look_up(Lookup("public.t", 16384, frozenset(), xid))
        ((second,),) = admin.execute(sessions).fetchone()
        assert second != first
        reader.close()
        reader.close()


async def test_a_catalog_out_of_reach_ends_the_stream_which_is_then_begun_anew(database):
    known = await load(database)

    async def nowhere() -> str:
        return "host=127.0.0.1 port=1 dbname=x"

    with pytest.raises(SourceUnavailable, match=r"catalog could not be read for public\.t"):
        await catalog.CatalogReader(known, nowhere).look_up(Lookup("public.t", 16384, frozenset(), 3))


# Through the whole service


async def test_types_made_while_streaming_are_encoded_as_if_they_had_always_been_there(database, run_service):
    async with run_service(database) as running:
        await running.execute("CREATE TABLE before (id int PRIMARY KEY)", "INSERT INTO before VALUES (1)")
        await running.events(1)
        await running.execute(
            "CREATE DOMAIN positive AS int4; CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN inner_tags AS text[];"
            "CREATE TABLE t (id int PRIMARY KEY, ps positive[], ms mood[], tags inner_tags, rows_ before[], one before);"
            "INSERT INTO t VALUES (1, '{1,2}', '{ok}', '{a,b}', ARRAY[ROW(7)::before], ROW(8))",
        )
        event = (await running.events(2))[1]
    assert event["record"] == {"id": 1, "ps": [1, 2], "ms": ["ok"], "tags": ["a", "b"], "rows_": ["(7)"], "one": "(8)"}


async def test_under_full_a_key_altered_while_streaming_is_known_from_the_next_row_on(database, run_service):
    async with run_service(database) as running:
        await running.execute(
            "CREATE TABLE t (id int, other int NOT NULL, CONSTRAINT k PRIMARY KEY (id))",
            "ALTER TABLE t REPLICA IDENTITY FULL",
        )
        keys = []
        # A backlog is read with the catalog of now, so each row is waited for.
        for statement in (
            "INSERT INTO t VALUES (1, 10)",
            "ALTER TABLE t DROP CONSTRAINT k; INSERT INTO t VALUES (2, 20)",
            "ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY (other)",
            "INSERT INTO t VALUES (3, 30)",
            "ALTER TABLE t DROP CONSTRAINT k, ADD CONSTRAINT k PRIMARY KEY (id, other); INSERT INTO t VALUES (4, 40)",
            "ALTER TABLE t RENAME other TO another; INSERT INTO t VALUES (5, 50)",
        ):
            await running.execute(statement)
            if "INSERT" in statement:
                keys.append((await running.events(len(keys) + 1))[-1]["metadata"]["keys"])
    assert keys == [{"id": 1}, {}, {"other": 30}, {"id": 4, "other": 40}, {"id": 5, "another": 50}]


async def test_the_catalog_is_read_again_only_where_it_may_have_changed(database, run_service):
    async with run_service(database) as running:
        await running.execute("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE u (id int PRIMARY KEY)")
        await running.execute("ALTER TABLE u REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1)")
        await running.events(1)
        assert running.service._catalog.lookups == 0
        for number in range(3):
            await running.execute(f"INSERT INTO u VALUES ({number})")
        await running.events(4)
        assert running.service._catalog.lookups == 1


async def test_where_no_connection_is_to_be_had_the_stream_is_begun_anew_and_loses_nothing(
    database, run_service, monkeypatch
):
    """Given a server that takes no more connections, when a table needs the catalog, then reconnecting reads it."""
    refused = []

    connect = lingering.open_session

    async def refuse(dsn: str, *, application_name: str) -> Wire:
        if application_name != "pgbridge catalog":
            return await connect(dsn, application_name=application_name)
        refused.append(1)
        raise SourceUnavailable("too many connections")

    monkeypatch.setattr(lingering, "open_session", refuse)
    async with run_service(database) as running:
        await running.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        await running.events(1)
        await running.execute(
            "INSERT INTO t VALUES (2); CREATE DOMAIN positive AS int4; CREATE TABLE u (id int PRIMARY KEY, ps positive[]);"
            " INSERT INTO u VALUES (1, '{1,2}')"
        )
        events = await running.events(3)
    assert [event["record"] for event in events] == [{"id": 1}, {"id": 2}, {"id": 1, "ps": [1, 2]}]
    assert len(refused) == 1
    assert running.service.snapshot().reconnects == 1
