"""Slots as the server shows them, on real servers of both ages."""

from __future__ import annotations

import psycopg
import pytest

from bridge.errors import SourceMisconfigured
from bridge.lsn import LSN
from bridge.source import slot
from bridge.source.connection import ReplicationConnection
from bridge.source.session import connected


@pytest.fixture(params=["embedded", "system"])
def dsn(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("database" if request.param == "embedded" else "system_database")


@pytest.fixture
def admin(dsn: str):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE PUBLICATION feed")
        yield connection


@pytest.fixture
def name(admin: psycopg.Connection) -> str:
    return f"slot_{admin.info.dbname}"


async def look(dsn: str, name: str) -> slot.SlotState | None:
    async with connected(dsn) as session:
        return await slot.inspect(session, name)


async def test_missing_slot_is_none(dsn: str):
    assert await look(dsn, "nothing_here") is None


async def test_slot_is_told_as_the_view_has_it(dsn: str, admin: psycopg.Connection, name: str):
    admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    state = await look(dsn, name)
    confirmed, restart = admin.execute(
        "SELECT confirmed_flush_lsn::text, restart_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (name,)
    ).fetchone()
    assert state.name == name
    assert (state.slot_type, state.plugin, state.database) == ("logical", "pgoutput", admin.info.dbname)
    assert (state.confirmed_flush_lsn, state.restart_lsn) == (LSN.parse(confirmed), LSN.parse(restart))
    assert (state.temporary, state.active_pid, state.wal_status) == (False, None, "reserved")
    assert state.invalidation_reason is None
    assert state.catalog_xmin_age is not None
    assert state.failover is (False if admin.info.server_version >= 170000 else None)


async def test_retained_wal_grows_with_what_is_written(dsn: str, admin: psycopg.Connection, name: str):
    admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    before = (await look(dsn, name)).retained_bytes
    admin.execute("SELECT pg_logical_emit_message(true, 'x', repeat('x', 100000))")
    assert (await look(dsn, name)).retained_bytes >= before + 100_000


async def test_reader_of_a_slot_is_named(dsn: str, admin: psycopg.Connection, name: str):
    connection = await ReplicationConnection.open(dsn)
    try:
        start = await connection.create_slot(name)
        assert (await slot.inspect(connection, name)).confirmed_flush_lsn == start
        await connection.start(name, "feed", start)
        state = await look(dsn, name)
        assert state.active_pid == connection.backend_pid
    finally:
        await connection.close()


async def test_temporary_slot_goes_with_its_connection(dsn: str, name: str):
    connection = await ReplicationConnection.open(dsn)
    await connection.create_slot(name, temporary=True)
    assert (await look(dsn, name)).temporary
    await connection.close()
    async with connected(dsn) as session:
        while await slot.inspect(session, name) is not None:
            pass


async def test_slot_that_exists_is_not_made_again(dsn: str, admin: psycopg.Connection, name: str):
    admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    connection = await ReplicationConnection.open(dsn)
    try:
        with pytest.raises(SourceMisconfigured, match="42710"):
            await connection.create_slot(name)
    finally:
        await connection.close()


async def test_slot_can_be_made_to_survive_a_promotion(dsn: str, admin: psycopg.Connection, name: str):
    if admin.info.server_version < 170000:
        pytest.skip("failover slots came with 17")
    connection = await ReplicationConnection.open(dsn)
    try:
        await connection.create_slot(name, failover=True)
    finally:
        await connection.close()
    assert (await look(dsn, name)).failover is True
