"""`pgbridge init` on real servers: what it makes, what it refuses, and what a DBA gets to run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from bridge.cli import init
from bridge.cli import main as pgbridge
from bridge.config import Settings, parse
from bridge.errors import ConfigError, SlotInUse, SlotLost, SourceMisconfigured
from bridge.lsn import LSN
from bridge.source import publication, running_xacts
from bridge.source.connection import ReplicationConnection
from bridge.source.session import connected
from bridge.store.postgres import PostgresStore
from bridge.store.protocol import SourceIdentity


class Site:
    """A database, its server's programs, and a configuration for it."""

    def __init__(self, server, dsn: str) -> None:
        self.server = server
        self.dsn = dsn
        self.admin = psycopg.connect(dsn, autocommit=True)
        self.slot = f"slot_{self.admin.info.dbname}"
        self.admin.execute("CREATE TABLE public.users (id int PRIMARY KEY, name text)")
        self.admin.execute("CREATE TABLE public.log (line text)")

    def settings(
        self, tables: str = "[public.users, public.log]", *, dsn: str | None = None, more: str = ""
    ) -> Settings:
        return parse(self.text(tables, dsn=dsn, more=more), {})

    def text(self, tables: str = "[public.users, public.log]", *, dsn: str | None = None, more: str = "") -> str:
        return (
            f"source: {{dsn: '{dsn or self.dsn}', slot: {self.slot}, publication: feed}}\n{more}\n"
            f"triggers:\n  t:\n    tables: {tables}\n    target: {{lambda: {{function_name: f}}}}\n"
        )

    def run_script(self, text: str) -> None:
        subprocess.run(
            [self.server.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn],
            input=text, text=True, check=True, capture_output=True,
        )  # fmt: skip

    def rows(self, query: str, *arguments: object) -> list[tuple]:
        return self.admin.execute(query, arguments).fetchall()


@pytest.fixture(params=["embedded", "system"])
def site(request: pytest.FixtureRequest):
    server = request.getfixturevalue("postgres" if request.param == "embedded" else "system_postgres")
    site = Site(server, request.getfixturevalue("database" if request.param == "embedded" else "system_database"))
    yield site
    site.admin.close()


@pytest.fixture
def role(site: Site):
    """The name of a role that the script makes."""
    name = f"reader {site.admin.info.dbname}"
    yield name
    if site.rows("SELECT 1 FROM pg_roles WHERE rolname = %s", name):
        site.admin.execute(f'DROP OWNED BY "{name}"')
        site.admin.execute(f'DROP ROLE "{name}"')


async def test_init_makes_publication_tables_and_slot(site: Site):
    await init._run(site.settings(), accept_gap=False)
    assert site.rows("SELECT pubname FROM pg_publication ORDER BY 1") == [("feed",), ("feed_inserts",)]
    assert site.rows("SELECT plugin, slot_type FROM pg_replication_slots WHERE slot_name = %s", site.slot) == [
        ("pgoutput", "logical")
    ]
    store = PostgresStore(lambda: _value(site.dsn), "pgbridge")
    await store.open()
    await store.close()


async def test_init_again_changes_nothing_and_says_so(site: Site):
    await init._run(site.settings("[public.users]"), accept_gap=False)
    before = site.rows(
        "SELECT confirmed_flush_lsn, restart_lsn FROM pg_replication_slots WHERE slot_name = %s", site.slot
    )
    lines = await init._run(site.settings("[public.users]"), accept_gap=False)
    assert lines == [
        'publication "feed": already there',
        'tables in schema "pgbridge": already there',
        f'slot "{site.slot}": already there',
    ]
    assert before == site.rows(
        "SELECT confirmed_flush_lsn, restart_lsn FROM pg_replication_slots WHERE slot_name = %s", site.slot
    )


async def test_printed_script_is_all_that_the_bridge_needs(site: Site, role: str):
    """Least privilege: what a DBA ran is enough for every step of the bridge, and for no more."""
    site.run_script(await init.script(site.settings(), role))
    dsn = f"{site.dsn}?user={role.replace(' ', '%20')}"
    settings = site.settings(dsn=dsn)
    connection = await ReplicationConnection.open(dsn)
    store = PostgresStore(lambda: _value(dsn), "pgbridge")
    try:
        await publication.prepare(connection, settings)
        await store.open()
        identity = connection.identity
        await connection.start(site.slot, "feed", LSN(0))
        await store.claim(SourceIdentity(site.slot, identity.system_identifier, identity.timeline, identity.database))
        site.admin.execute("INSERT INTO users VALUES (1, 'Jane')")
        site.admin.execute("INSERT INTO log VALUES ('a line of the log')")
        seen = b""
        while b"Jane" not in seen or b"a line of the log" not in seen:
            seen += b"".join(bytes(frame) for frame in await connection.frames())
        await store.save(LSN(1), {})
        connection.send_status(1, 1, 1, now=time.time())
        # init as the role itself finds nothing left to do, and may migrate later
        lines = await init._run(settings, accept_gap=False)
        assert [line for line in lines if "already there" not in line and "warning" not in line] == []
    finally:
        await connection.close()
        await store.close()
    async with connected(dsn) as session:
        may = await running_xacts.may_write(session)
    assert may is (site.admin.info.server_version >= running_xacts.OLDEST_SERVER)
    attributes = "rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication, rolcanlogin"
    assert site.rows(f"SELECT {attributes} FROM pg_roles WHERE rolname = %s", role) == [
        (False, False, False, False, True, True)
    ]
    owned = "SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relowner = %s::regrole AND n.nspname <> 'pg_toast'"
    assert site.rows(owned, f'"{role}"') == [("pgbridge",)]
    with psycopg.connect(dsn, autocommit=True) as as_role:
        assert as_role.execute("SELECT id FROM users").fetchall() == [(1,)]
        for statement in ("UPDATE users SET id = 2", "CREATE SCHEMA theirs", "DROP PUBLICATION feed"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                as_role.execute(statement)


async def test_printed_script_runs_as_one_request_too(site: Site, role: str):
    site.admin.execute(await init.script(site.settings(), role))
    assert site.rows("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", site.slot) == [(1,)]


async def test_printed_script_is_what_init_runs(site: Site, role: str):
    script = await init.script(site.settings(), role)
    lines = await init._run(site.settings(), accept_gap=False)
    run = [line.partition(": ")[2] for line in lines if line.startswith(("publication", "slot"))]
    assert len(run) == 3
    for statement in run:
        assert f"{statement};\n" in script


async def test_printed_script_ends_with_what_may_be_left_out(site: Site, role: str):
    """Whoever may not grant it has run everything else by then."""
    script = await init.script(site.settings(), role)
    grant = f"{running_xacts.grant(role)};\n"
    if site.admin.info.server_version < running_xacts.OLDEST_SERVER:
        assert "pg_log_standby_snapshot" not in script
        return
    assert script.endswith(grant)
    site.run_script(script.removesuffix(grant))
    assert site.rows("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", site.slot) == [(1,)]


async def test_printed_script_of_a_prepared_database_makes_nothing(site: Site, role: str):
    site.run_script(await init.script(site.settings(), role))
    script = await init.script(site.settings(), role)
    assert "CREATE" not in script
    site.run_script(script)


def test_script_is_printed_and_nothing_run(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "pgbridge.yaml"
    config.write_text(site.text())
    assert pgbridge(["init", "--print-sql", "-c", str(config)], standalone_mode=False) == 0
    assert 'CREATE ROLE "pgbridge" LOGIN REPLICATION;' in capsys.readouterr().out
    assert site.rows("SELECT 1 FROM pg_publication") == []
    assert site.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'pgbridge'") == []


def test_one_sentence_and_an_exit_code_for_what_is_wrong(site: Site, tmp_path: Path):
    config = tmp_path / "pgbridge.yaml"
    config.write_text(site.text("[public.user]"))
    result = subprocess.run(
        [Path(sys.executable).parent / "pgbridge", "init", "-c", config], capture_output=True, text=True, check=False
    )
    assert result.returncode == ConfigError.exit_code
    assert result.stderr == (
        "pgbridge: triggers.t.tables: public.user matches no table of the database; the nearest are public.users\n"
    )
    assert result.stdout == ""
    assert site.rows("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", site.slot) == []


async def test_store_elsewhere_gets_its_own_part_of_the_script(site: Site, role: str, make_postgres: Callable):
    other = make_postgres()
    settings = site.settings(more=f"store: {{dsn: '{other.dsn()}'}}")
    script = await init.script(settings, role)
    here, _, there = script.partition("-- The store is database postgres of 127.0.0.1: run what follows there.")
    site.run_script(here)
    with psycopg.connect(other.dsn(), autocommit=True) as admin:
        admin.execute(there)
        assert admin.execute("SELECT rolreplication FROM pg_roles WHERE rolname = %s", (role,)).fetchone() == (False,)
    store = PostgresStore(lambda: _value(other.dsn(user=role)), "pgbridge")
    await store.open()
    await store.close()
    assert site.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'pgbridge'") == []


async def test_slot_that_vanished_is_not_silently_made_anew(site: Site):
    """Promise of design: never recreate silently."""
    await init._run(site.settings(), accept_gap=False)
    store = PostgresStore(lambda: _value(site.dsn), "pgbridge")
    await store.open()
    await store.claim(SourceIdentity(site.slot, "1", 1, "d"))
    await store.save(LSN(0x10), {})
    site.admin.execute("SELECT pg_drop_replication_slot(%s)", (site.slot,))
    with pytest.raises(SlotLost, match=r"changes since 0/10.*--accept-gap"):
        await init._run(site.settings(), accept_gap=False)
    assert site.rows("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", site.slot) == []
    await init._run(site.settings(), accept_gap=True)
    assert site.rows("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", site.slot) == [(1,)]
    assert (await store.read(site.slot)).confirmed_lsn is None
    await store.close()


async def test_slot_that_was_invalidated_is_replaced_only_when_told(make_postgres: Callable):
    server = make_postgres(settings={"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB"})
    site = Site(server, server.dsn())
    try:
        await init._run(site.settings(), accept_gap=False)
        lost = "SELECT wal_status = 'lost' FROM pg_replication_slots"
        while site.rows(lost) != [(True,)]:
            site.admin.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000))")
            site.admin.execute("SELECT pg_switch_wal()")
            site.admin.execute("CHECKPOINT")
        with pytest.raises(SlotLost, match=r"invalidated.*--accept-gap"):
            await init._run(site.settings(), accept_gap=False)
        assert site.rows(lost) == [(True,)]
        await init._run(site.settings(), accept_gap=True)
        assert site.rows(lost) == [(False,)]
    finally:
        site.admin.close()


async def test_slot_that_is_being_read_is_not_taken_away(site: Site):
    await init._run(site.settings(), accept_gap=False)
    connection = await ReplicationConnection.open(site.dsn)
    try:
        await connection.start(site.slot, "feed", LSN(0))
        with pytest.raises(SlotInUse, match=str(connection.backend_pid)):
            await init._run(site.settings(), accept_gap=True)
    finally:
        await connection.close()


async def test_slot_of_another_plugin_is_refused(site: Site):
    site.admin.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (site.slot,))
    with pytest.raises(SourceMisconfigured, match=r"source\.slot"):
        await init._run(site.settings(), accept_gap=False)


async def test_wal_level_is_told_before_anything_is_made(make_postgres: Callable):
    server = make_postgres(settings={"wal_level": "replica"})
    site = Site(server, server.dsn())
    try:
        with pytest.raises(SourceMisconfigured, match="ALTER SYSTEM SET wal_level = logical"):
            await init._run(site.settings(), accept_gap=False)
        assert site.rows("SELECT 1 FROM pg_publication") == []
        assert "-- First: wal_level is replica" in await init.script(site.settings())
    finally:
        site.admin.close()


async def test_slot_survives_a_promotion_where_the_server_can(site: Site):
    if site.admin.info.server_version < 170000:
        pytest.skip("failover slots came with 17")
    await init._run(site.settings(), accept_gap=False)
    assert site.rows("SELECT failover FROM pg_replication_slots WHERE slot_name = %s", site.slot) == [(True,)]


async def _value(text: str) -> str:
    await asyncio.sleep(0)
    return text
