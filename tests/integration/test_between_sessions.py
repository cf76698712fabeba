"""What happens while there is no session with the source: the server is away, silent, or has another password."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from bridge.config import Settings
from bridge.delivery.outcome import Delivered
from bridge.errors import InvariantBroken, SourceCredentialsRefused
from bridge.local.postgres import EmbeddedPostgres
from bridge.observe.status import ServiceState
from bridge.secret import Secret, SecretResolver
from bridge.service import FIRST_RECONNECT_PAUSE_SECONDS, STANDBY_PAUSE_SECONDS, Service
from bridge.store.memory import MemoryStore
from bridge.testing import MemoryTarget

LIMIT_SECONDS = 60
TARGET = {"http": {"url": "http://127.0.0.1:9/", "batch": True, "allow_plain_http": True}}


def settings_for(dsn: str) -> Settings:
    return Settings.model_validate(
        {
            "source": {"dsn": dsn, "slot": "pgbridge", "publication": "feed", "manage": False},
            "admin": {"listen": None},
            "triggers": {"t": {"tables": ["public.thing"], "target": TARGET}},
        }
    )


async def until(service: Service, state: ServiceState) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while service.snapshot().state is not state:
            await asyncio.sleep(0.01)


class TestStop:
    async def test_saves_what_was_delivered_while_the_source_was_away(self, make_postgres: Callable, run_service):
        server, store = make_postgres(), MemoryStore()
        async with run_service(server.dsn(), store=store) as running:
            answer = asyncio.get_running_loop().create_future()
            running.targets["t"].answer(answer)
            await running.execute("CREATE TABLE thing (id int PRIMARY KEY)", "INSERT INTO thing VALUES (1)")
            await running.targets["t"].called(1)
            await asyncio.to_thread(server.stop, "immediate")
            await until(running.service, ServiceState.RECONNECTING)
            answer.set_result(Delivered())
        await asyncio.to_thread(server.start)
        async with run_service(server.dsn(), store=store) as running:
            await running.execute("INSERT INTO thing VALUES (2)")
            assert [event["record"]["id"] for event in await running.events(1)] == [2]

    async def test_is_not_held_up_by_a_server_that_does_not_answer(self):
        connected = asyncio.Event()

        async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            await reader.read()
            writer.close()

        async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as silent:
            port = silent.sockets[0].getsockname()[1]
            dsn = f"host=127.0.0.1 port={port} user=u dbname=d connect_timeout=3600 sslmode=disable"
            service = Service(settings_for(dsn), store=MemoryStore(), build=lambda *_: MemoryTarget())
            running = asyncio.create_task(service.run())
            await asyncio.wait_for(connected.wait(), LIMIT_SECONDS)
            service.stop()
            await asyncio.wait_for(running, LIMIT_SECONDS)

    async def test_is_no_success_where_a_bug_asked_for_it(self, make_postgres: Callable, run_service):
        server = make_postgres()

        async def meet_a_bug() -> None:
            async with run_service(server.dsn()) as running:
                answer = asyncio.get_running_loop().create_future()
                running.targets["t"].answer(answer)
                await running.execute("CREATE TABLE thing (id int PRIMARY KEY)", "INSERT INTO thing VALUES (1)")
                await running.targets["t"].called(1)
                await asyncio.to_thread(server.stop, "immediate")
                await until(running.service, ServiceState.RECONNECTING)
                answer.set_result("no outcome at all")
                await asyncio.wait([running.running], timeout=LIMIT_SECONDS)

        with pytest.raises(InvariantBroken):
            await meet_a_bug()


async def test_a_session_that_worked_for_longer_than_the_next_pause_starts_the_back_off_anew(database, run_service):
    """Links that are cut every few seconds must not keep the bridge waiting for most of the time."""
    async with run_service(database) as running:
        await running.execute("CREATE TABLE thing (id int PRIMARY KEY)")
        paused = []

        async def pause(seconds: float) -> None:
            paused.append(seconds)

        running.service._pause = pause
        for number in range(1, 6):
            await running.execute(f"INSERT INTO thing VALUES ({number})")
            await running.events(number)
            await asyncio.sleep(FIRST_RECONNECT_PAUSE_SECONDS * 2.5)  # so long at least it has worked
            await running.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                " WHERE active AND database = current_database()"
            )
            await running.until(lambda number=number: running.service.snapshot().reconnects == number)
        # The slot may be released late, which is waited for in pauses of their own.
        backing_off = [seconds for seconds in paused if seconds != STANDBY_PAUSE_SECONDS]
        assert len(backing_off) >= 5
        assert max(backing_off) < 4 * FIRST_RECONNECT_PAUSE_SECONDS, "doubled each time it would be at least 8"


class CountingResolver(SecretResolver):
    """Knows how often a secret was fetched afresh."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched_afresh = 0

    async def fetch(self, secret: Secret, *, fresh: bool = False) -> str:
        self.fetched_afresh += fresh
        return await super().fetch(secret, fresh=fresh)


class TestRotation:
    @pytest.fixture
    def server(self, make_postgres: Callable) -> EmbeddedPostgres:
        server = make_postgres(auth="scram-sha-256")
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE TABLE thing (id int PRIMARY KEY)")
            admin.execute("CREATE PUBLICATION feed FOR TABLE thing")
            admin.execute("SELECT pg_create_logical_replication_slot('pgbridge', 'pgoutput')")
            admin.execute("CREATE ROLE reader LOGIN REPLICATION PASSWORD 'first'")
        return server

    async def test_a_secret_may_come_later_than_the_password_that_it_tells(
        self, server: EmbeddedPostgres, tmp_path: Path
    ):
        """The link is cut in between, and more than one try is refused."""
        secret, secrets, target = tmp_path / "dsn", CountingResolver(), MemoryTarget()
        dsn = server.dsn(user="reader").replace("reader@", "reader:{}@")
        secret.write_text(dsn.format("first"))
        settings = settings_for(f"file:{secret}")
        service = Service(settings, store=MemoryStore(), secrets=secrets, build=lambda *_: target)
        running = asyncio.create_task(service.run())
        try:
            await until(service, ServiceState.STREAMING)
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                admin.execute("ALTER ROLE reader PASSWORD 'second'")
                admin.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
                admin.execute("INSERT INTO thing VALUES (1)")
            async with asyncio.timeout(LIMIT_SECONDS):
                while secrets.fetched_afresh < 4 and not running.done():
                    await asyncio.sleep(0.01)
            secret.write_text(dsn.format("second"))
            delivered = asyncio.ensure_future(target.called(1))
            await asyncio.wait([running, delivered], return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT_SECONDS)
            assert [event["record"]["id"] for event in target.events()] == [1]
        finally:
            service.stop()
            await asyncio.wait_for(running, LIMIT_SECONDS)

    async def test_a_password_that_never_worked_is_told_at_once(self, server: EmbeddedPostgres):
        dsn = server.dsn(user="reader").replace("reader@", "reader:wrong@")
        secrets = CountingResolver()
        service = Service(settings_for(dsn), store=MemoryStore(), secrets=secrets, build=lambda *_: MemoryTarget())
        with pytest.raises(SourceCredentialsRefused):
            await asyncio.wait_for(service.run(), LIMIT_SECONDS)
        assert secrets.fetched_afresh == 1
