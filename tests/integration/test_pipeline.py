"""The data path on a real server, with a target in memory: what is committed arrives, in order, and is then confirmed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest

from bridge.batching.lanes import Window
from bridge.change import Position
from bridge.clock import SystemClock
from bridge.delivery.decide import Policy
from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.outcome import Delivered, Evidence, Failed
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pipeline import Pipeline
from bridge.source.connection import ReplicationConnection
from bridge.store.memory import MemoryStore
from bridge.store.protocol import SourceIdentity
from bridge.testing import MemoryTarget
from bridge.triggers.envelope import Envelope
from bridge.triggers.shape import Shape

OPERATIONS = frozenset({"insert", "update", "delete", "truncate"})


class Rig:
    """One trigger on every table of a database, as the service wires it."""

    def __init__(self, dsn: str, slot: str) -> None:
        self.dsn = dsn
        self.slot = slot
        self.store = MemoryStore()
        self.target = MemoryTarget()
        self.dispatcher: Dispatcher | None = None
        self.pipeline: Pipeline | None = None
        self.moves = asyncio.Event()

    def _moved(self) -> None:
        self.moves.set()
        if self.pipeline is not None:
            self.pipeline.progress_moved()

    @asynccontextmanager
    async def session(self, *, max_buffered_bytes: int = 1 << 26, batch_size: int = 100):
        connection = await ReplicationConnection.open(self.dsn)
        identity = SourceIdentity(self.slot, connection.identity.system_identifier, 1, connection.identity.database)
        await self.store.open()
        progress = await self.store.claim(identity)
        start = progress.confirmed_lsn or LSN(0)
        envelope = Envelope("t", identity.system_identifier)
        if self.dispatcher is None:
            self.dispatcher = Dispatcher(
                "t",
                target=self.target,
                envelope=envelope,
                batched=True,
                window=Window(batch_size, 0.0, 1 << 20, envelope.event_overhead_bytes),
                policy=Policy(1, -1, True),
                parallelization_factor=4,
                checkpoint=progress.checkpoints.get("t", Position(start, -1)),
                clock=SystemClock(),
                moved=self._moved,
                failed=lambda error: pytest.fail(repr(error)),
            )
        dispatcher = self.dispatcher
        assembler = Assembler(
            database=identity.database,
            system_identifier=identity.system_identifier,
            start_lsn=start,
            routes=lambda relation: [Route("t", Shape(), OPERATIONS, dispatcher.inbox, dispatcher.tracker.received)],
            message_routes=lambda prefix: [],
        )
        await connection.start(self.slot, "everything", start)
        self.pipeline = Pipeline(
            connection,
            assembler,
            {"t": dispatcher},
            self.store,
            saved_lsn=start,
            status_interval_seconds=1.0,
            max_buffered_bytes=max_buffered_bytes,
            clock=SystemClock(),
        )
        running = asyncio.create_task(self.pipeline.run())
        try:
            yield self.pipeline
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await connection.close()
            self.pipeline = None
        if not running.cancelled():
            running.result()

    async def settled(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.dispatcher is None or self.dispatcher.settled_total < count:
                await self.moves.wait()
                self.moves.clear()

    async def confirmed_beyond(self, lsn: str) -> None:
        async with asyncio.timeout(30), await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
            while not (await (await connection.execute(query, (lsn, self.slot))).fetchone())[0]:
                await asyncio.sleep(0.05)


@pytest.fixture
def rig(database):
    with psycopg.connect(database, autocommit=True) as connection:
        slot = "pipeline_" + connection.execute("SELECT current_database()").fetchone()[0]
        connection.execute("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)")
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    return Rig(database, slot)


def run(dsn: str, *statements: str) -> str:
    """Each statement in a transaction of its own; returns where the WAL ends then."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()[0]


async def test_committed_rows_arrive_in_order_and_are_confirmed(rig):
    async with rig.session():
        end = run(
            rig.dsn,
            "INSERT INTO account SELECT g, 0 FROM generate_series(1, 500) g",
            "UPDATE account SET balance = balance + 1",
            "DELETE FROM account WHERE id <= 100",
        )
        await rig.settled(1100)
        await rig.confirmed_beyond(end)
    events = rig.target.events()
    assert len(events) == len({event["id"] for event in events}) == 1100
    for key in range(1, 501):
        mine = [event for event in events if event["metadata"]["keys"] == {"id": key}]
        assert [event["action"] for event in mine] == ["insert", "update", "delete"][: 3 if key <= 100 else 2]


async def test_what_is_in_hand_is_not_taken_twice_when_the_connection_breaks(rig):
    held = asyncio.get_running_loop().create_future()
    async with rig.session():
        rig.target.answer(held)
        run(rig.dsn, "INSERT INTO account SELECT g, 0 FROM generate_series(1, 50) g")
        await rig.target.called(1)
    async with rig.session():
        run(rig.dsn, "INSERT INTO account VALUES (51, 0)")
        await rig.target.called(2)
        held.set_result(Failed(Evidence("HTTP 500")))
        await rig.settled(51)
    delivered = rig.target.delivered
    assert len(delivered) == len(set(delivered)) == 51


async def test_a_new_process_goes_on_where_the_store_says(rig):
    async with rig.session():
        end = run(rig.dsn, "INSERT INTO account SELECT g, 0 FROM generate_series(1, 50) g")
        await rig.settled(50)
        await rig.confirmed_beyond(end)
    another = Rig(rig.dsn, rig.slot)
    another.store = rig.store
    async with another.session():
        run(rig.dsn, "INSERT INTO account VALUES (51, 0)")
        await another.settled(1)
    assert [event["record"]["id"] for event in another.target.events()] == [51]


async def test_reading_stops_at_the_memory_bound_and_goes_on_when_there_is_room(rig):
    gate = [asyncio.get_running_loop().create_future() for _ in range(4)]
    rig.target.answer(*gate)
    async with rig.session(max_buffered_bytes=200_000, batch_size=10) as pipeline:
        run(rig.dsn, "INSERT INTO account SELECT g, 0 FROM generate_series(1, 30000) g")
        async with asyncio.timeout(30):
            while pipeline.reading:
                await asyncio.sleep(0.01)
        assert pipeline.buffered_bytes >= 200_000
        # One burst of frames comes on top of the bound, and no more.
        assert pipeline.buffered_bytes < 200_000 + 4096 * 1000
        for answer in gate:
            answer.set_result(Delivered())
        await rig.settled(30000)
    assert len(rig.target.delivered) == 30000


async def test_a_quiet_publication_follows_the_busy_cluster(rig):
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        connection.execute("DROP PUBLICATION everything")
        connection.execute("CREATE PUBLICATION everything FOR TABLE account")
        connection.execute("CREATE TABLE noise (payload text)")
    async with rig.session():
        end = run(rig.dsn, "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
        await rig.confirmed_beyond(end)
    assert rig.target.invocations == []


async def test_a_stop_under_load_always_ends(rig):
    run(rig.dsn, "INSERT INTO account SELECT g, 0 FROM generate_series(1, 20000) g")
    async with asyncio.timeout(60):
        for stops in range(1, 16):
            before = 0 if rig.dispatcher is None else rig.dispatcher.settled_total
            async with rig.session(batch_size=10):
                await rig.settled(min(before + 100 * stops, 20000))
        async with rig.session():
            await rig.settled(20000)
    assert len(rig.target.delivered) == len(set(rig.target.delivered)) == 20000
