"""One trigger's target is down during a load: the other doesn't notice, the slot moves on, and all arrives in order."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from bridge import pipeline
from bridge import service as services
from bridge.config import Settings
from bridge.delivery.outcome import Delivered, Evidence, Failed
from bridge.errors import StoreError
from bridge.observe.status import ServiceState, TriggerMode
from bridge.service import Service
from bridge.store import segments
from bridge.store.postgres import PostgresStore

KEYS = 500
MIB = 1 << 20


class Receiver:
    """Up or down; keeps the ids of what it took, in order, for it may be much."""

    def __init__(self) -> None:
        self.up = True
        self.taken: list[str] = []
        self.calls = 0

    async def deliver(self, invocation):
        self.calls += 1
        await asyncio.sleep(0)
        if not self.up:
            return Failed(Evidence("HTTP 503", status=503))
        self.taken += invocation.ids
        return Delivered()

    async def check(self):
        return []

    async def close(self) -> None: ...


class Rig:
    """Processes one after the other, on one slot and one store."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.slot = "backlog_" + psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        self.receivers = {"good": Receiver(), "bad": Receiver()}
        self.triggers: dict[str, dict] = {"good": {}, "bad": {}}
        self.backlog = {"after_bytes": 2 * MIB, "after_seconds": 5.0}
        self.service: Service | None = None
        self.most_buffered = 0

    def settings(self) -> Settings:
        target = {"http": {"url": "http://127.0.0.1:9/", "batch": True, "allow_plain_http": True}}
        common = {"tables": ["public.t"], "target": target, "order_by": ["k"], "backlog": self.backlog}
        return Settings.model_validate(
            {
                "source": {"dsn": self.dsn, "slot": self.slot, "publication": "everything", "manage": False},
                "admin": {"listen": None},
                "triggers": {name: {**common, **self.triggers[name]} for name in self.receivers},
            }
        )

    async def _dsn(self) -> str:
        return self.dsn

    @asynccontextmanager
    async def process(self, *, kill: bool = False):
        """The service at work; stopped at the end, or gone at once."""
        settings = self.settings()
        store = PostgresStore(self._dsn, "pgbridge")
        self.service = service = Service(settings, store=store, build=lambda name, *_: self.receivers[name])
        running = asyncio.create_task(service.run())
        watching = asyncio.create_task(self._watch_memory(service))
        try:
            await self.until(lambda: service.snapshot().state is ServiceState.STREAMING or running.done())
            yield service
            assert not running.done(), running.result()
        finally:
            watching.cancel()
            if kill:
                tasks = [running]
                for dispatcher in service._roster.dispatchers.values():
                    dispatcher.books.stopped = True
                    tasks += [
                        *dispatcher._flights,
                        *([dispatcher.parking.reading] if dispatcher.parking.reading else []),
                    ]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            else:
                service.stop()
                await running
            await asyncio.gather(watching, return_exceptions=True)
            self.service = None

    async def _watch_memory(self, service: Service) -> None:
        while True:
            self.most_buffered = max(self.most_buffered, service.snapshot().buffered_bytes)
            await asyncio.sleep(0.02)

    async def execute(self, *statements: str) -> str:
        """Each in a transaction of its own; returns where the WAL ends then."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                await connection.execute(statement)
            return (await (await connection.execute("SELECT pg_current_wal_lsn()::text")).fetchone())[0]

    async def ask(self, query: str, *parameters: object):
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            return (await (await connection.execute(query, parameters)).fetchone())[0]

    async def confirmed_beyond(self, lsn: str) -> None:
        query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
        async with asyncio.timeout(60):
            while not await self.ask(query, lsn, self.slot):
                await asyncio.sleep(0.1)

    async def until(self, holds, seconds: float = 90) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.02)

    def trigger(self, name: str):
        return next(each for each in self.service.snapshot().triggers if each.name == name)

    async def load(self, rows: int, *, per_transaction: int = 500, start: int = 0) -> str:
        insert = "INSERT INTO t SELECT n, n % {}, repeat('x', 150) FROM generate_series({}, {}) n"
        return await self.execute(
            *[
                insert.format(KEYS, first, min(first + per_transaction, start + rows) - 1)
                for first in range(start, start + rows, per_transaction)
            ]
        )

    def check_order(self, name: str) -> Counter[str]:
        """Commit order per key of what came first; returns how often each event came."""
        # Ids sort as the rows were inserted.
        key_of = {event_id: n % KEYS for n, event_id in enumerate(sorted(set(self.receivers["good"].taken)))}
        counts: Counter[str] = Counter()
        newest: dict[int, str] = defaultdict(str)
        for position, event_id in enumerate(self.receivers[name].taken):
            counts[event_id] += 1
            if counts[event_id] == 1:
                key = key_of[event_id]
                assert newest[key] < event_id, f"{event_id} came late, as number {position}"
                newest[key] = event_id
        return counts


@pytest.fixture
async def rig(database):
    rig = Rig(database)
    store = PostgresStore(rig._dsn, "pgbridge")
    await store.migrate()
    await store.close()
    await rig.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, k int NOT NULL, pad text)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        f"SELECT pg_create_logical_replication_slot('{rig.slot}', 'pgoutput')",
    )
    return rig


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.timeout(300)
async def test_one_of_two_targets_is_down_during_a_load(rig, monkeypatch):
    """
    Given a target that is down, when 50,000 changes are committed and the process is killed twice in the middle, then the
    other trigger gets all of them, the slot moves on, memory stays bounded, and in the end everything arrives in order.
    """
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 2 * MIB)
    monkeypatch.setattr(pipeline, "TIDY_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(services, "MAX_BUFFERED_BYTES", 16 * MIB)
    rows = 50_000
    rig.receivers["bad"].up = False
    before = resident_bytes()
    async with rig.process(kill=True):
        await rig.load(rows // 2)
        await rig.until(lambda: rig.trigger("bad").backlog_events > 5000)
    async with rig.process(kill=True):
        assert rig.trigger("bad").mode is TriggerMode.BACKLOG
        end = await rig.load(rows // 2, start=rows // 2)
        await rig.until(lambda: len(set(rig.receivers["good"].taken)) == rows)
        await rig.confirmed_beyond(end)
        assert await rig.ask("SELECT count(*) FROM pgbridge.backlog") >= rows - rig.trigger("bad").waiting
        assert resident_bytes() - before < 100 * MIB
    assert rig.receivers["bad"].taken == []
    rig.receivers["bad"].up = True
    async with rig.process(kill=True):
        await rig.until(lambda: len(rig.receivers["bad"].taken) > rows // 4)
    taken = len(rig.receivers["bad"].taken)
    async with rig.process():
        await rig.until(lambda: len(set(rig.receivers["bad"].taken)) == rows)
        await rig.until(lambda: rig.trigger("bad").mode is TriggerMode.LIVE)
        await rig.until(lambda: rig.trigger("bad").backlog_events == 0)
        segment_tables = "SELECT count(*) FROM pg_class WHERE relname ~ '^backlog_[0-9]+$' AND relkind = 'r'"
        async with asyncio.timeout(30):
            while await rig.ask(segment_tables):
                await asyncio.sleep(0.1)
        await rig.load(100, start=rows)
        await rig.until(lambda: len(set(rig.receivers["bad"].taken)) == rows + 100)
        await rig.until(lambda: len(set(rig.receivers["good"].taken)) == rows + 100)
        assert rig.trigger("bad").mode is TriggerMode.LIVE
    counts = rig.check_order("bad")
    repeated = sum(counts.values()) - len(counts)
    assert set(rig.receivers["bad"].taken) == set(rig.receivers["good"].taken)
    # What a kill may repeat: a window of what had settled since the last save, and what was in flight.
    assert repeated <= 4 * 10 * 100 + 10 * 100, f"{repeated} of {taken} were repeated"
    rig.check_order("good")
    assert await rig.ask("SELECT count(*) FROM pgbridge.dead_letters") == 0
    # One burst of frames, for two triggers, comes on top of the bound.
    assert rig.most_buffered < 16 * MIB + 2 * 4096 * 1000


async def test_a_clean_stop_repeats_nothing_although_one_key_is_stuck(rig):
    """Given a change that keeps failing while others go by, when the process is stopped and started, then none is repeated."""
    stuck = asyncio.Event()
    receiver = rig.receivers["bad"]
    deliver = receiver.deliver

    async def fail_the_first(invocation):
        first = min(rig.receivers["good"].taken, default="")
        if not stuck.is_set() and (not first or first in invocation.ids):
            return Failed(Evidence("HTTP 500", status=500))
        return await deliver(invocation)

    receiver.deliver = fail_the_first
    rig.backlog = {"after_seconds": 3600.0}
    rig.triggers["bad"] = {"maximum_retry_attempts": -1, "parallelization_factor": 4}
    rows = 2000
    async with rig.process():
        await rig.load(rows)
        await rig.until(lambda: len(set(receiver.taken)) >= rows - rows // KEYS)
        await rig.until(lambda: len(rig.receivers["good"].taken) == rows)
    assert (await rig.ask("SELECT max(attempts) FROM pgbridge.backlog")) > 0
    taken = len(receiver.taken)
    assert taken == len(set(receiver.taken))
    async with rig.process():
        await rig.load(100, start=rows)
        await rig.until(lambda: len(rig.receivers["good"].taken) == rows + 100)
        stuck.set()
        await rig.until(lambda: len(set(receiver.taken)) == rows + 100)
    assert len(receiver.taken) == len(rig.receivers["good"].taken) == rows + 100
    rig.check_order("bad")


async def test_a_change_that_waits_too_long_gets_a_row_and_disturbs_nobody(rig):
    """Given one call that takes for ever, when its change has waited for after_seconds, then the slot passes it."""
    rig.backlog = {"after_seconds": 0.5}
    receiver = rig.receivers["bad"]
    deliver, held = receiver.deliver, asyncio.Event()
    first: list[str] = []

    async def hold_the_first(invocation):
        if not first:
            first.extend(invocation.ids)
            await held.wait()
        return await deliver(invocation)

    receiver.deliver = hold_the_first
    async with rig.process():
        await rig.execute("INSERT INTO t VALUES (0, 0, '')")
        await rig.until(lambda: bool(first))
        end = await rig.load(1000, start=1)
        await rig.until(lambda: len(rig.receivers["good"].taken) == 1001)
        await rig.confirmed_beyond(end)
        # The same key's later changes wait for it and stand in the table too; the others have been delivered.
        assert await rig.ask("SELECT count(*) FROM pgbridge.backlog") == 1 + 1000 // KEYS
        assert len(receiver.taken) == 1000 - 1000 // KEYS
        assert rig.trigger("bad").mode is TriggerMode.LIVE
        held.set()
        await rig.until(lambda: len(receiver.taken) == 1001)
        await rig.until(lambda: rig.trigger("bad").backlog_events == 0)
    assert len(set(receiver.taken)) == 1001
    rig.check_order("bad")


async def test_a_store_that_is_down_stops_reading_at_the_bound_and_nothing_else(rig, monkeypatch):
    """Promise 7: given no store and no target, when changes keep coming, then we stop reading, and go on once it is back."""
    monkeypatch.setattr(services, "MAX_BUFFERED_BYTES", 4 * MIB)
    rig.receivers["bad"].up = False
    async with rig.process() as service:
        save, down = service.store.save, asyncio.Event()

        async def refuse(*arguments, **named) -> None:
            if not down.is_set():
                raise StoreError("the store can't be reached")
            await save(*arguments, **named)

        monkeypatch.setattr(service.store, "save", refuse)
        await rig.load(20_000)
        await rig.until(lambda: service._pipeline is not None and not service._pipeline.reading)
        assert service.snapshot().state is ServiceState.STREAMING
        # What was read at one go comes on top, once for each trigger.
        assert service._pipeline.buffered_bytes < 4 * MIB + 2 * 4096 * 1000
        down.set()
        await rig.until(lambda: len(set(rig.receivers["good"].taken)) == 20_000)
        rig.receivers["bad"].up = True
        await service.by_hand.resume("bad")
        await rig.until(lambda: len(set(rig.receivers["bad"].taken)) == 20_000)
    rig.check_order("bad")
