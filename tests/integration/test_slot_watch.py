"""
The slot while the service looks at it: restart_lsn follows what is confirmed, and nobody is bothered where it can't.

On a server whose background writer sleeps, as it writes the same records every 15 seconds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psycopg
import pytest
from structlog.testing import capture_logs

from bridge import service
from bridge.config import Settings
from bridge.errors import SourceMisconfigured, SourceUnavailable
from bridge.local.postgres import EmbeddedPostgres
from bridge.lsn import LSN
from bridge.observe import log as events
from bridge.observe.status import SlotStatus
from bridge.progress.restart import LONGEST_PAUSE_SECONDS, POSTPONED_SECONDS
from bridge.secret import SecretResolver
from bridge.source import running_xacts, slot_watch
from bridge.source.findings import Finding
from bridge.source.preflight import examine
from bridge.source.session import connected
from bridge.source.slot_watch import SlotWatch, look_once
from bridge.store.memory import MemoryStore
from bridge.testing import ManualClock

BOUND = SEGMENT = 16 << 20
SETTINGS = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_prepared_transactions": "10"}


@pytest.fixture(scope="module")
def quiet_postgres() -> Iterator[EmbeddedPostgres]:
    """Writes no WAL by itself, once its background writer sleeps."""
    with EmbeddedPostgres(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def quiet_database(quiet_postgres: EmbeddedPostgres, fresh) -> Iterator[str]:
    with fresh(quiet_postgres) as dsn:
        with psycopg.connect(dsn) as connection:
            query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'"
            (background_writer,) = connection.execute(query).fetchone()
        os.kill(background_writer, signal.SIGSTOP)
        try:
            yield dsn
        finally:
            os.kill(background_writer, signal.SIGCONT)  # to drop a database, the server waits for each of its processes


class Site:
    """A slot that is read over SQL, and somebody who watches it."""

    def __init__(self, dsn: str, *, role: str | None = None) -> None:
        self.admin = psycopg.connect(dsn, autocommit=True)
        self.one = lambda query, *arguments: self.admin.execute(query, arguments).fetchone()[0]
        self.name = f"watched_{self.admin.info.dbname}"
        self.one("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')::text", self.name)
        target = {"http": {"url": "http://127.0.0.1:9/", "allow_plain_http": True}}
        self.dsn = f"{dsn}?user={role}" if role else dsn
        self.settings = Settings.model_validate(
            {
                "source": {"dsn": self.dsn, "slot": self.name},
                "backlog": {"after_wal_bytes": BOUND},
                "triggers": {"t": {"tables": ["public.t"], "target": target}},
            }
        )
        self.clock = ManualClock()
        self.reading = True
        self.watch = SlotWatch(self.settings, self._dsn, self.positions, clock=self.clock)

    async def _dsn(self) -> str:
        return self.dsn

    def close(self) -> None:
        self.watch.close()
        self.admin.close()

    def positions(self) -> tuple[int, int] | None:
        """As a reader that keeps up knows them."""
        return (self.written, self.confirmed) if self.reading else None

    @property
    def written(self) -> LSN:
        return LSN.parse(self.one("SELECT pg_current_wal_insert_lsn()::text"))

    @property
    def confirmed(self) -> LSN:
        return self._position("confirmed_flush_lsn")

    @property
    def restart(self) -> LSN:
        return self._position("restart_lsn")

    def _position(self, column: str) -> LSN:
        return LSN.parse(self.one(f"SELECT {column}::text FROM pg_replication_slots WHERE slot_name = %s", self.name))

    def write_a_segment(self) -> None:
        for _ in range(2):
            self.commit()
            self.one("SELECT pg_switch_wal()::text")
        self.commit()

    def commit(self) -> None:
        """What was written before is on disk then."""
        self.one("SELECT pg_logical_emit_message(true, 'x', 'x')::text")

    def confirm(self) -> None:
        """Decode and confirm everything."""
        self.commit()
        self.one("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())::text", self.name)

    async def look(self, seconds_later: float = LONGEST_PAUSE_SECONDS) -> SlotStatus:
        self.clock.advance(seconds_later)
        status = await self.watch.look()
        assert status is not None
        return status

    async def findings(self, words: str) -> list[Finding]:
        """Of `pgbridge check`."""
        findings = await examine(self.settings, SecretResolver(), self.clock, MemoryStore())
        return [finding for finding in findings if words in finding.what]

    async def go_on(self) -> SlotStatus:
        """More is written and confirmed, and looked at; if there is a record then, it is confirmed as well."""
        self.write_a_segment()
        self.confirm()
        status = await self.look()
        self.confirm()
        return status


class Sleeps:
    """Time passes by the sleeps."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture
def site(quiet_database: str) -> Iterator[Site]:
    site = Site(quiet_database)
    yield site
    site.close()


@pytest.fixture
def weak_role(quiet_database: str) -> Iterator[str]:
    with psycopg.connect(quiet_database, autocommit=True) as admin:
        name = f"weak_{admin.info.dbname}"
        admin.execute(f"CREATE ROLE {name} LOGIN REPLICATION")
        yield name
        admin.execute(f"DROP OWNED BY {name}")
        admin.execute(f"DROP ROLE {name}")


async def test_restart_lsn_follows_what_is_confirmed(site: Site):
    for count in range(1, 5):
        site.write_a_segment()
        site.confirm()
        before = site.written
        assert before - site.restart >= SEGMENT, "nobody else sees to it"
        await site.look()
        assert site.watch.records == count
        site.confirm()
        assert site.restart >= before


async def test_an_idle_server_gets_no_wal_from_us(site: Site):
    site.write_a_segment()
    site.confirm()
    await site.look()
    assert site.watch.records == 1
    idle_since = site.written
    for _ in range(50):
        await site.look(3600)
    assert site.written == idle_since
    site.confirm()
    idle_since = site.written
    for _ in range(50):
        await site.look(3600)
    assert site.written == idle_since


async def test_who_does_not_read_the_slot_writes_nothing(site: Site):
    site.reading = False
    site.write_a_segment()
    site.confirm()
    before = site.written
    await site.look()
    assert site.written == before
    site.reading = True
    await site.look()
    assert site.written > before


async def test_a_role_that_may_not_is_left_in_peace(quiet_database: str, weak_role: str, monkeypatch):
    site = Site(quiet_database, role=weak_role)
    before = site.restart
    with capture_logs() as lines:
        for _ in range(3):
            site.write_a_segment()
            site.confirm()
            written = site.written
            status = await site.look(3600)
            assert (status.restart_lsn, site.written) == (before, written)
    with monkeypatch.context() as patched:
        patched.setattr(slot_watch.asyncio, "sleep", Sleeps(site.clock).sleep)
        assert not await site.watch.rest(site.clock.monotonic() + 30), "it looks no sooner for it"
    assert lines == []
    site.admin.execute(running_xacts.grant(weak_role))
    await site.look(3600)
    site.confirm()
    assert site.restart > before, "the right takes effect while it runs"
    site.close()


async def test_before_16_nothing_is_tried(system_database: str):
    site = Site(system_database)
    if site.admin.info.server_version >= running_xacts.OLDEST_SERVER:
        pytest.skip("this machine's own PostgreSQL has the function")
    with capture_logs() as lines:
        for _ in range(3):
            site.write_a_segment()
            site.confirm()
            assert await site.look(3600)
    assert (site.watch.records, lines) == (0, [])
    site.close()


async def test_on_a_standby_nothing_is_tried():
    with EmbeddedPostgres(settings=SETTINGS) as server:
        server.stop()
        (server.data_dir / "standby.signal").touch()
        server.start()
        async with connected(server.dsn()) as session:
            assert not await running_xacts.may_write(session)
            with pytest.raises(SourceMisconfigured, match="55000"):
                await running_xacts.write(session)


async def test_a_refusal_is_logged_once(quiet_database: str, weak_role: str, monkeypatch):
    """Given a right that goes between the question and the deed."""

    async def may_write(_: object) -> bool:
        return True

    monkeypatch.setattr(running_xacts, "may_write", may_write)
    site = Site(quiet_database, role=weak_role)
    site.write_a_segment()
    site.confirm()
    with capture_logs() as lines:
        for _ in range(3):
            assert await site.look(3600)
    assert [line["event"] for line in lines] == [events.RECORD_REFUSED]
    assert "42501" in lines[0]["error"]
    site.close()


@pytest.mark.parametrize("prepared", [False, True])
async def test_an_old_transaction_that_holds_the_slot_is_named(site: Site, quiet_database: str, *, prepared: bool):
    site.admin.execute("CREATE TABLE t (id int)")
    await site.go_on()
    with psycopg.connect(quiet_database) as old, psycopg.connect(quiet_database) as younger:
        old.execute("INSERT INTO t VALUES (1)")
        who = f"server process {old.info.backend_pid}"
        if prepared:
            old.execute(f"PREPARE TRANSACTION '{site.name}'")
            who = f"prepared transaction '{site.name}'"
        younger.execute("INSERT INTO t VALUES (2)")
        began_before = site.written
        assert await site.findings("oldest open transaction") == []
        assert (await site.go_on()).held_by is None
        await site.go_on()
        status = await site.go_on()
        assert site.watch.records == 4
        assert site.restart < began_before
        assert status.held_by.startswith(f'{who} in database "{site.admin.info.dbname}", open for ')
        assert (await look_once(site.dsn, site.settings)).held_by.startswith(who)
        (finding,) = await site.findings("oldest open transaction")
        assert (finding.severity, finding.details["holder"]) == ("warning", who)
        old.rollback()
        younger.rollback()
    if prepared:
        site.admin.execute(f"ROLLBACK PREPARED '{site.name}'")
    await site.go_on()
    assert (await site.look()).held_by is None
    assert site.restart > began_before
    assert (await look_once(site.dsn, site.settings)).held_by is None
    assert await site.findings("oldest open transaction") == []


async def test_the_next_look_comes_early_once_the_stream_has_gone_far_ahead(site: Site, monkeypatch):
    await site.look()
    monkeypatch.setattr(slot_watch.asyncio, "sleep", Sleeps(site.clock).sleep)
    until = site.clock.monotonic() + 10
    assert not await site.watch.rest(until)
    assert site.clock.monotonic() == until
    site.write_a_segment()
    site.confirm()
    until = site.clock.monotonic() + 10
    assert await site.watch.rest(until)
    assert site.clock.monotonic() == until - 10 + slot_watch.TICK_SECONDS


async def test_a_server_that_takes_no_connection_is_not_asked_again_at_once(site: Site, monkeypatch):
    await site.look()
    site.write_a_segment()
    site.confirm()
    site.dsn = "host=127.0.0.1 port=1 dbname=x"
    assert await site.watch.rest(site.clock.monotonic() + 10)
    with pytest.raises(SourceUnavailable):
        await site.watch.look()
    monkeypatch.setattr(slot_watch.asyncio, "sleep", Sleeps(site.clock).sleep)
    failed_at = site.clock.monotonic()
    assert await site.watch.rest(failed_at + 10)
    assert site.clock.monotonic() == failed_at + POSTPONED_SECONDS


async def test_a_running_service_keeps_its_slot_from_retaining_what_is_confirmed(
    quiet_database: str, run_service, monkeypatch
):
    """Of its own accord: the looks that it makes now and then are not waited for."""
    monkeypatch.setattr(service, "WATCH_PAUSE_SECONDS", 3600)
    async with run_service(quiet_database, {"t": {"backlog": {"after_wal_bytes": 4 * SEGMENT}}}) as running:
        watch = running.service._slot_watch
        with psycopg.connect(quiet_database, autocommit=True) as admin:
            admin.execute("CREATE TABLE t (id int PRIMARY KEY)")
            for number in range(3):
                records = watch.records
                for each in (2 * number, 2 * number + 1):
                    admin.execute("INSERT INTO t VALUES (%s)", (each,))
                    admin.execute("SELECT pg_switch_wal()")
                await running.until(lambda records=records: watch.records > records)
            query = "SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = %s"
            slot_name = running.settings.source.slot
            await running.until(lambda: admin.execute(query, (slot_name,)).fetchone()[0] < SEGMENT)
        await running.events(6)
