"""One process stands by or takes over while the other is in the middle of its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from bridge.config import Settings
from bridge.errors import StoreFenced
from bridge.observe.status import ServiceState
from bridge.service import Service
from bridge.store.postgres import PostgresStore
from bridge.store.protocol import SourceIdentity
from bridge.testing import MemoryTarget

LIMIT_SECONDS = 60


class Processes:
    """Services of one configuration, each in a task of its own; all of them deliver to `target`."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.target = MemoryTarget()
        self.rows = 0
        self.running: dict[Service, asyncio.Task[None]] = {}
        slot = "takeover_" + psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        target = {"http": {"url": "http://127.0.0.1:9/", "batch": True, "allow_plain_http": True}}
        self.settings = Settings.model_validate(
            {
                "source": {"dsn": dsn, "slot": slot, "publication": "everything", "manage": False},
                "admin": {"listen": None},
                "triggers": {"t": {"tables": ["public.thing"], "target": target}},
            }
        )

    async def _dsn(self) -> str:
        return self.dsn

    def store(self) -> PostgresStore:
        return PostgresStore(self._dsn, "pgbridge")

    async def prepare(self) -> None:
        store = self.store()
        await store.migrate()
        await store.close()
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await connection.execute("CREATE TABLE thing (id int PRIMARY KEY)")
            await connection.execute("CREATE PUBLICATION everything FOR TABLE thing")
            await connection.execute(
                "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.settings.source.slot,)
            )

    def start(self) -> Service:
        service = Service(self.settings, store=self.store(), build=lambda *_: self.target)
        self.running[service] = asyncio.create_task(service.run())
        return service

    async def becomes(self, service: Service, state: ServiceState) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while service.snapshot().state is not state:
                if self.running[service].done():
                    pytest.fail(f"it ended with {self.running[service].exception()!r}")
                await asyncio.sleep(0.01)

    async def stop(self, service: Service) -> None:
        service.stop()
        await asyncio.wait_for(self.running.pop(service), LIMIT_SECONDS)

    async def deliver_a_row(self) -> None:
        """Commit something, and wait until it was delivered and that was saved."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            self.rows += 1
            await connection.execute("INSERT INTO thing VALUES (%s)", (self.rows,))
            row = await (await connection.execute("SELECT pg_current_wal_insert_lsn()")).fetchone()
            async with asyncio.timeout(LIMIT_SECONDS):
                while True:
                    saved = await (
                        await connection.execute("SELECT confirmed_lsn >= %s FROM pgbridge.slots", row)
                    ).fetchone()
                    if saved[0]:
                        return
                    await asyncio.sleep(0.01)


@pytest.fixture
async def processes(database):
    made = Processes(database)
    await made.prepare()
    yield made
    for service in list(made.running):
        await made.stop(service)


def first(act: Callable[[], Awaitable[None]], call):
    """The call, with something done before it the first time."""
    done = []

    async def wrapped(*arguments):
        if not done:
            done.append(True)
            await act()
        return await call(*arguments)

    return wrapped


@pytest.mark.parametrize("look", ["read", "open"])
async def test_whoever_stands_by_is_not_put_off_by_what_the_other_saves_meanwhile(processes, look):
    """
    Given a process at work, when a second one connects, and the first saves and confirms before it has looked at the
    slot and the store, then it stands by: nothing is missing, and no server went back in time.
    """
    active = processes.start()
    await processes.becomes(active, ServiceState.STREAMING)
    second = processes.start()
    setattr(second.store, look, first(processes.deliver_a_row, getattr(second.store, look)))
    await processes.becomes(second, ServiceState.STANDING_BY)


async def test_whoever_takes_over_goes_on_behind_what_was_saved_up_to_the_last_moment(processes):
    """Given a second process that has looked at everything, when the first saves more and stops, then it goes on."""
    active = processes.start()
    await processes.becomes(active, ServiceState.STREAMING)

    async def finish() -> None:
        await processes.deliver_a_row()
        await processes.stop(active)

    second = processes.start()
    second._roster.fetch_keys = first(finish, second._roster.fetch_keys)
    await processes.becomes(second, ServiceState.STREAMING)
    await processes.deliver_a_row()
    assert len(processes.target.delivered) == len(set(processes.target.delivered)) == 2


async def test_whoever_learns_that_it_was_replaced_sends_nothing_more(processes):
    """Given a call under way, when a save is refused because another process has claimed the slot, then it is given up."""
    held = asyncio.get_running_loop().create_future()
    active = processes.start()
    await processes.becomes(active, ServiceState.STREAMING)
    await processes.deliver_a_row()
    processes.target.answer(held)
    calls = len(processes.target.invocations)
    async with await psycopg.AsyncConnection.connect(processes.dsn, autocommit=True) as connection:
        await connection.execute("INSERT INTO thing VALUES (-1)")
        await processes.target.called(calls + 1)
        row = await (
            await connection.execute("SELECT slot, system_identifier, timeline, database FROM pgbridge.slots")
        ).fetchone()
        other = processes.store()
        await other.claim(SourceIdentity(row[0], str(row[1]), row[2], row[3]))
        await other.close()
        await connection.execute("INSERT INTO thing VALUES (-2)")
    running = processes.running.pop(active)
    with pytest.raises(StoreFenced):
        await asyncio.wait_for(running, LIMIT_SECONDS)
    (dispatcher,) = active._roster.dispatchers.values()
    assert dispatcher.in_flight == 0
    assert held.cancelled()
