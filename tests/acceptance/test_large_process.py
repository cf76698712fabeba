"""
`pgbridge run` under large things, as a process whose memory is measured: everything arrives, in order, in bounded memory.

One cheap form runs always, the others (and those of `tests/integration/test_large.py`) show what is bounded in small. The
dear forms, with their peaks: `make test-long ARGS="tests/acceptance/test_large_process.py -rP"`.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
import yaml

from bridge.local.counter import CountingProtocol
from bridge.store.postgres import PostgresStore

sys.path.insert(0, str(Path(__file__).parent))
from bridge_process import COMMAND

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")

BOUND_BYTES = 150_000_000
"""The most that the process may ever have resident, while no row is large and tables are no thousands."""

EVENT = re.compile(rb'\{"id":"([0-9A-F]{16})-(\d{10})","action":')
"""No row of these tests holds such text."""


class Arrivals(CountingProtocol):
    """A connection to the receiver; all of them add to one list."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(CountingProtocol.Totals())
        self._ledger = ledger

    def _count(self, buffer: bytearray, length: int) -> None:
        self._ledger.took(buffer, length)


class Ledger:
    """
    What came, in the order of its coming.

    Attributes:
        events: commit LSN and ordinal of each.
        bodies: the requests' bodies, where they are kept.
        body_bytes: of all requests.
    """

    def __init__(self, wanted: int, *, keep: bool) -> None:
        self.events: list[tuple[int, int]] = []
        self.bodies: list[bytes] = []
        self.body_bytes = 0
        self.full = asyncio.Event()
        self._wanted = wanted
        self._keep = keep

    def took(self, buffer: bytearray, length: int) -> None:
        self.events += [(int(lsn, 16), int(ordinal)) for lsn, ordinal in EVENT.findall(buffer, 0, length)]
        self.body_bytes += length
        if self._keep:
            self.bodies.append(bytes(memoryview(buffer)[:length]))
        if len(self.events) >= self._wanted:
            self.full.set()


class Bridge:
    """`pgbridge run` on a slot that holds what was committed before, and its receiver."""

    def __init__(self, process: asyncio.subprocess.Process, ledger: Ledger, log: Path) -> None:
        self.ledger = ledger
        self._process = process
        self._log = log

    def peak_bytes(self) -> int:
        """The most that was ever resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    async def everything(self, seconds: float) -> None:
        """Wait until as many events came as are expected."""
        full = asyncio.ensure_future(self.ledger.full.wait())
        ended = asyncio.ensure_future(self._process.wait())
        await asyncio.wait([full, ended], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        came = full.done() and not ended.done()
        full.cancel()
        ended.cancel()
        assert came, f"{len(self.ledger.events)} events came in {seconds} s\n{self._log.read_text()[-4000:]}"


@pytest.fixture
async def backlog(database):
    """A database with a slot and our tables, and a way to fill it while nobody reads."""

    async def dsn() -> str:
        return database

    store = PostgresStore(dsn, "pgbridge")
    await store.migrate()
    await store.close()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot('slot_' || current_database(), 'pgoutput')")
        yield connection


@pytest.fixture
def start(database, backlog, tmp_path):
    """Starts the process on that backlog."""

    @asynccontextmanager
    async def start(expected: int, *, keep: bool = False, **trigger: object) -> AsyncIterator[Bridge]:
        ledger = Ledger(expected, keep=keep)
        server = await asyncio.get_running_loop().create_server(lambda: Arrivals(ledger), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        settings = {
            "source": {
                "dsn": database,
                "slot": f"slot_{backlog.info.dbname}",
                "publication": "everything",
                "manage": False,
            },
            "admin": {"listen": None},
            "triggers": {
                "all": {
                    "tables": ["*.*"],
                    "batch_size": 1000,
                    "target": {"http": {"url": url, "batch": True, "timeout_in_seconds": 120}},
                    **trigger,
                }
            },
        }
        configuration, log = tmp_path / "pgbridge.yaml", tmp_path / "bridge.log"
        configuration.write_text(yaml.safe_dump(settings))
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                "run",
                "--config",
                str(configuration),
                stdout=output,
                stderr=output,
                env=os.environ | {"PGBRIDGE_LOG_LEVEL": "info"},
            )
        bridge = Bridge(process, ledger, log)
        try:
            yield bridge
            print(f"{len(ledger.events)} events, {ledger.body_bytes} bytes, at most {bridge.peak_bytes()} resident")  # noqa: T201 - a figure to look up
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 60) == 0, log.read_text()[-4000:]
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            server.close()

    return start


def assert_one_transaction(events: list[tuple[int, int]], count: int, *, in_order: bool) -> None:
    ordinals = [ordinal for _, ordinal in events]
    assert len({lsn for lsn, _ in events}) == 1
    assert (ordinals if in_order else sorted(ordinals)) == list(range(count))


@pytest.mark.parametrize(
    ("rows", "order_by"),
    [
        (50_000, "table"),
        pytest.param(1_000_000, "table", marks=(pytest.mark.long, pytest.mark.timeout(900))),
        pytest.param(1_000_000, "primary_key", marks=(pytest.mark.long, pytest.mark.timeout(900))),
    ],
)
async def test_a_transaction_of_many_rows(backlog, start, rows, order_by):
    backlog.execute(f"INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, {rows}) g")
    async with start(rows, order_by=order_by) as bridge:
        await bridge.everything(600)
        assert_one_transaction(bridge.ledger.events, rows, in_order=order_by == "table")
        assert bridge.peak_bytes() < BOUND_BYTES


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("rows", "row_bytes"), [(1_000_000, 992), (10_000, 100_000)])
async def test_a_transaction_of_a_gigabyte(backlog, start, rows, row_bytes):
    backlog.execute(
        f"INSERT INTO t SELECT g, repeat(md5(g::text), {row_bytes // 32}) FROM generate_series(1, {rows}) g"
    )
    async with start(rows) as bridge:
        await bridge.everything(600)
        assert_one_transaction(bridge.ledger.events, rows, in_order=False)
        assert bridge.ledger.body_bytes > rows * row_bytes
        assert bridge.peak_bytes() < BOUND_BYTES


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_row_of_200_megabytes(backlog, start):
    """It is held four times: in libpq's buffer, as a message, as the event in the making, and as the event."""
    size = 200_000_000
    backlog.execute("INSERT INTO t VALUES (1, 'before')")
    backlog.execute(f"INSERT INTO t VALUES (2, repeat('0123456789', {size // 10}))")
    backlog.execute("INSERT INTO t VALUES (3, 'after')")
    async with start(3, keep=True) as bridge:
        await bridge.everything(300)
        assert len({lsn for lsn, _ in bridge.ledger.events}) == len(bridge.ledger.events) == 3
        (large,) = [body for body in bridge.ledger.bodies if len(body) > size]
        assert b'"v":"' + b"0123456789" * (size // 10) + b'"' in large
        assert bridge.peak_bytes() < BOUND_BYTES + 4 * size


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_rows_of_1_600_columns(backlog, start):
    columns, rows = 1599, 20_000
    backlog.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {', '.join(f'c{n} int' for n in range(columns))})")
    backlog.execute(f"INSERT INTO wide SELECT g, {', '.join('g' * columns)} FROM generate_series(1, {rows}) g")
    async with start(rows) as bridge:
        await bridge.everything(300)
        assert_one_transaction(bridge.ledger.events, rows, in_order=False)
        assert bridge.peak_bytes() < BOUND_BYTES


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_10_000_relations(backlog, start):
    """A table that changes costs some kilobytes for as long as the process reads."""
    tables = 10_000
    for statement in ("CREATE TABLE t%s (id int PRIMARY KEY, v text, n numeric)",
                      *(f"INSERT INTO t%s VALUES ({number}, 'x', 1.5)" for number in range(3))):  # fmt: skip
        backlog.execute(
            f"DO $$ BEGIN FOR n IN 0..{tables - 1} LOOP EXECUTE format($f${statement}$f$, n);"
            " IF n % 200 = 199 THEN COMMIT; END IF; END LOOP; END $$"
        )
    async with start(3 * tables) as bridge:
        await bridge.everything(600)
        assert len(set(bridge.ledger.events)) == len(bridge.ledger.events) == 3 * tables
        assert bridge.peak_bytes() < BOUND_BYTES + tables * 4000


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_1_000_partitions(backlog, start):
    partitions, rows = 1000, 100_000
    backlog.execute("CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY HASH (id)")
    backlog.execute(
        f"DO $$ BEGIN FOR n IN 0..{partitions - 1} LOOP EXECUTE format('CREATE TABLE part%s PARTITION OF parts FOR VALUES"
        f" WITH (MODULUS {partitions}, REMAINDER %s)', n, n); IF n % 100 = 99 THEN COMMIT; END IF; END LOOP; END $$"
    )
    backlog.execute(f"INSERT INTO parts SELECT g, 'v' FROM generate_series(1, {rows}) g")
    async with start(rows) as bridge:
        await bridge.everything(300)
        assert_one_transaction(bridge.ledger.events, rows, in_order=False)
        assert bridge.peak_bytes() < BOUND_BYTES
