"""
A server takes over that had not received everything: what it wrote instead must not be taken for what was read.

The promoted server is a copy of the cluster as it was at some moment, which recovers, and so begins a timeline of its
own. It listens where the first one did, as a DNS name or a list of hosts would have it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from bridge.config import Settings
from bridge.errors import SlotLost
from bridge.local.postgres import EmbeddedPostgres
from bridge.observe.status import ServiceState
from bridge.service import Service
from bridge.store.memory import MemoryStore
from bridge.store.postgres import PostgresStore
from bridge.store.protocol import Store
from bridge.testing import MemoryTarget

LIMIT_SECONDS = 60
RECOVERY = {"restore_command": "false"}
"""There is no archive: recovery ends with the WAL that is there."""


class Pair:
    """A primary, later the server that was promoted in its place, and services that read from whoever is there."""

    def __init__(self, make_postgres: Callable[..., EmbeddedPostgres]) -> None:
        self._make = make_postgres
        self.server = make_postgres()
        self._copy = Path(f"{self.server.data_dir}.copy")
        self.target = MemoryTarget()
        self.running: dict[Service, asyncio.Task[None]] = {}
        target = {"http": {"url": "http://127.0.0.1:9/", "batch": True, "allow_plain_http": True}}
        self.settings = Settings.model_validate(
            {
                "source": {"dsn": self.server.dsn(), "slot": "pgbridge", "publication": "feed", "manage": False},
                "admin": {"listen": None},
                "triggers": {"t": {"tables": ["public.thing"], "target": target}},
            }
        )
        self.execute(
            "CREATE TABLE thing (id int PRIMARY KEY)",
            "CREATE PUBLICATION feed FOR TABLE thing",
            "SELECT pg_create_logical_replication_slot('pgbridge', 'pgoutput')",
        )

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    async def copy(self) -> None:
        """What the standby has received; the rest it will not have."""
        await asyncio.to_thread(self.server.stop)
        shutil.copytree(self.server.data_dir, self._copy)
        await asyncio.to_thread(self.server.start)

    async def promote(self) -> None:
        """The copy takes the primary's place."""
        port = self.server.port
        await asyncio.to_thread(self.server.stop)  # it waits for its walsender, hence for us
        (self._copy / "recovery.signal").touch()
        self.server = await asyncio.to_thread(self._make, data_dir=self._copy, port=port, settings=RECOVERY)
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            async with asyncio.timeout(LIMIT_SECONDS):
                while connection.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
                    await asyncio.sleep(0.01)

    async def postgres_store(self) -> Store:
        async def dsn() -> str:
            return self.server.dsn()

        store = PostgresStore(dsn, "pgbridge")
        await store.migrate()
        return store

    async def start(self, store: Store) -> Service:
        service = Service(self.settings, store=store, build=lambda *_: self.target)
        self.running[service] = asyncio.create_task(service.run())
        await self.until(service, lambda: service.snapshot().state is ServiceState.STREAMING)
        return service

    async def until(self, service: Service, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not holds():
                if self.running[service].done():
                    self.running[service].result()
                await asyncio.sleep(0.01)

    async def arrive(self, service: Service, ids: range) -> None:
        await self.until(service, lambda: set(ids) <= {event["record"]["id"] for event in self.target.events()})

    async def stop(self, service: Service) -> None:
        service.stop()
        await asyncio.wait_for(self.running.pop(service), LIMIT_SECONDS)


@pytest.fixture
async def pair(make_postgres):
    made = Pair(make_postgres)
    yield made
    for service, task in made.running.items():
        service.stop()
        await asyncio.wait([task], timeout=LIMIT_SECONDS)


async def test_what_the_promoted_server_wrote_in_the_place_of_what_was_read_is_delivered(pair: Pair):
    """
    Given a process that reads on through the promotion, and its progress in the source, hence gone back with it: then
    it begins again from there, and takes no position for one that it knows.
    """
    store = await pair.postgres_store()
    await pair.stop(await pair.start(store))
    await pair.copy()
    service = await pair.start(store)
    pair.execute(*(f"INSERT INTO thing VALUES ({number})" for number in range(20)))
    await pair.arrive(service, range(20))
    await pair.promote()
    pair.execute(*(f"INSERT INTO thing VALUES ({number})" for number in range(100, 140)))
    await pair.arrive(service, range(100, 140))
    order = [event["record"]["id"] for event in pair.target.events() if event["record"]["id"] >= 100]
    assert list(dict.fromkeys(order)) == list(range(100, 140))
    await pair.stop(service)


async def test_a_promoted_server_that_lacks_what_was_delivered_is_refused_by_whoever_starts_there(pair: Pair):
    """Given progress in a store elsewhere, and writers that were back first, then positions alone would not show it."""
    store = MemoryStore()
    await pair.copy()
    service = await pair.start(store)
    pair.execute(*(f"INSERT INTO thing VALUES ({number})" for number in range(20)))
    await pair.arrive(service, range(20))
    await pair.stop(service)
    await pair.promote()
    pair.execute(*(f"INSERT INTO thing VALUES ({number})" for number in range(100, 200)))
    with pytest.raises(SlotLost, match="promoted from timeline 1") as refusal:
        await pair.start(store)
    assert "init --accept-gap" in str(refusal.value)


async def test_a_promoted_server_that_has_everything_is_followed(pair: Pair):
    store = MemoryStore()
    service = await pair.start(store)
    pair.execute("INSERT INTO thing VALUES (1)")
    await pair.arrive(service, range(1, 2))
    await pair.copy()
    await pair.promote()
    pair.execute("INSERT INTO thing VALUES (2)")
    await pair.arrive(service, range(1, 3))
    await pair.stop(service)
    assert [event["record"]["id"] for event in pair.target.events()] == [1, 2]
