"""
Two ways to see what a real server sends: a slot read over SQL and fed to an assembler, which is the stream's content
without the streaming; and the whole service, with its targets and store in memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psycopg
import pytest

from bridge.change import Event, Position
from bridge.config import Settings
from bridge.lsn import LSN
from bridge.observe.status import ServiceState
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.values import CatalogType
from bridge.roster import OWN_MESSAGES
from bridge.secret import SecretResolver
from bridge.service import Service
from bridge.store.factory import build_store
from bridge.store.memory import MemoryStore
from bridge.store.protocol import Store
from bridge.testing import MemoryTarget, wire
from bridge.triggers.shape import Shape

SETTINGS = (
    "SET DateStyle = ISO",
    "SET IntervalStyle = postgres",
    "SET TimeZone = UTC",
    "SET extra_float_digits = 3",
    "SET bytea_output = hex",
)


class DecodedSlot:
    """One slot of a database, with every table published; `take` returns what was committed since the last call."""

    def __init__(self, dsn: str, *, client_encoding: str = "UTF8", shape: Shape | None = None) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, client_encoding=client_encoding)
        self.execute = self.connection.execute
        for setting in SETTINGS:
            self.execute(setting)
        self.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        self.name = f"decoded_{self.connection.info.dbname}"
        self.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.name,))
        self.inbox: list[Event] = []
        self.assembler = self.new_assembler(shape)

    def close(self) -> None:
        """Drop the slot and leave the database."""
        self.execute("SELECT pg_drop_replication_slot(%s)", (self.name,))
        self.connection.close()

    def new_assembler(self, shape: Shape | None = None) -> Assembler:
        def route(_: object) -> list[Route]:
            operations = frozenset({"insert", "update", "delete", "truncate"})
            return [Route("t", shape or Shape(), operations, self.inbox, Position(LSN(0), 0))]

        return Assembler(
            database=self.connection.info.dbname,
            system_identifier="1",
            start_lsn=0,
            routes=route,
            message_routes=lambda prefix: [] if prefix.startswith(OWN_MESSAGES) else route(prefix),
            primary_keys=self.primary_key,
            types=self.type_of,
        )

    def frames(self) -> list[bytes]:
        """What the slot holds, without moving it."""
        rows = self.execute(
            "SELECT lsn - '0/0', data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'everything', 'messages', 'true')",
            (self.name,),
        ).fetchall()
        return [wire.xlog_data(bytes(data), start=int(lsn)) for lsn, data in rows]

    def take(self) -> list[Event]:
        self.assembler.consume(self.frames())
        self.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (self.name,))
        events, self.inbox[:] = list(self.inbox), []
        return events

    def documents(self) -> list[dict]:
        return [json.loads(event.body[:-1] + b"}}") for event in self.take()]

    def primary_key(self, oid: int) -> tuple[str, ...] | None:
        rows = self.execute(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
            " WHERE i.indrelid = %s AND i.indisprimary",
            (oid,),
        ).fetchall()
        return tuple(name for (name,) in rows) or None

    def type_of(self, oid: int) -> CatalogType | None:
        row = self.execute(
            "SELECT t.typtype::text, t.typbasetype::bigint, CASE WHEN t.typcategory = 'A' THEN t.typelem::bigint ELSE 0 END, t.typdelim::text"
            " FROM pg_type t WHERE t.oid = %s",
            (oid,),
        ).fetchone()
        return None if row is None else CatalogType(*row)


@pytest.fixture(scope="session")
def decode_slot() -> type[DecodedSlot]:
    """Makes slots that are read over SQL; whoever makes one closes it."""
    return DecodedSlot


@pytest.fixture(params=["database", "system_database"])
def slot(request: pytest.FixtureRequest) -> Iterator[DecodedSlot]:
    """A slot on the newest major that we carry, and on the machine's own."""
    decoded = DecodedSlot(request.getfixturevalue(request.param))
    yield decoded
    decoded.close()


class RunningService:
    """The bridge as `pgbridge run` wires it, on a slot of every table; what its triggers send is kept here."""

    def __init__(self, dsn: str, triggers: dict[str, dict], store: Store) -> None:
        self.dsn = dsn
        self.store = store
        self.targets = {name: MemoryTarget() for name in triggers}
        target = {"http": {"url": "http://127.0.0.1:9/", "batch": True, "allow_plain_http": True}}
        self.settings = Settings.model_validate(
            {
                "source": {"dsn": dsn, "slot": slot_of(dsn), "publication": "everything", "manage": False},
                "admin": {"listen": None},
                "triggers": {
                    name: {"tables": ["*.*"], "target": target, **trigger} for name, trigger in triggers.items()
                },
            }
        )
        self.service = Service(self.settings, store=store, build=lambda name, *_: self.targets[name])
        self.running: asyncio.Task[None] | None = None

    async def execute(self, *statements: str) -> None:
        """Each in a transaction of its own, unless it says otherwise."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def events(self, count: int, trigger: str | None = None) -> list[dict]:
        """Wait until a trigger (the only one) has sent this many events, and give them all."""
        target = self.targets[trigger or next(iter(self.targets))]
        async with asyncio.timeout(30):
            while len(target.events()) < count:
                called = asyncio.ensure_future(target.called(len(target.invocations) + 1))
                await asyncio.wait([called, self.running], return_when=asyncio.FIRST_COMPLETED)
                called.cancel()
                if self.running.done():
                    self.running.result()
        return target.events()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that shows in the status or a counter."""
        async with asyncio.timeout(30):
            while not holds():
                assert not self.running.done(), self.running.result()
                await asyncio.sleep(0.01)


def slot_of(dsn: str) -> str:
    return "service_" + psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]


@asynccontextmanager
async def _run_service(
    dsn: str, triggers: dict[str, dict] | None = None, *, store: Store | None = None
) -> AsyncIterator[RunningService]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_publication WHERE pubname = 'everything'").fetchone():
            connection.execute("CREATE TABLE at_the_start (id int PRIMARY KEY)")  # patterns must match something
            connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot_of(dsn),))
    running = RunningService(dsn, triggers or {"t": {}}, store or MemoryStore())
    running.running = asyncio.create_task(running.service.run())
    try:
        await running.until(lambda: running.service.snapshot().state is ServiceState.STREAMING)
        yield running
    finally:
        running.service.stop()
        await running.running


@pytest.fixture
def run_service() -> Callable[..., AbstractAsyncContextManager[RunningService]]:
    """Runs the service on a database, with settings by trigger; on one database a second run goes on after the first."""
    return _run_service


@pytest.fixture(params=["memory", "postgres"])
async def make_store(request: pytest.FixtureRequest, database: str) -> Callable[[], Store]:
    """Makes the store of each process that a test runs on one database, of either kind."""
    if request.param == "memory":
        tables = MemoryStore().tables
        return lambda: MemoryStore(tables)
    settings = Settings.model_validate(
        {
            "source": {"dsn": database},
            "triggers": {"t": {"tables": ["a.b"], "target": {"http": {"url": "https://x.example/"}}}},
        }
    )
    first = build_store(settings, SecretResolver())
    await first.migrate()
    await first.close()
    return lambda: build_store(settings, SecretResolver())
