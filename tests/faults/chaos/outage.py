"""
One of two triggers is down for the whole of a load, then its target returns: `make chaos ARGS='--outage 500000'`.

The load is run twice: for one trigger alone, then beside the one that is down. What is told: the first one's throughput
in both, how much WAL was held back by what was not confirmed, and how much the slot retained, at the most, the process's
memory at the most, and whether everything arrived, per key in commit order, at both.

The bridge runs as the role that `init --print-sql` makes. What the server retains, from the slot's restart_lsn, is
judged from 16 on, where that role may have it follow what is confirmed (`bridge/progress/restart.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from array import array
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import orjson
import psycopg

from bridge.local.postgres import EmbeddedPostgres
from bridge.source import running_xacts
from chaos.rig import FAULTS, LIMIT_SECONDS, PGBRIDGE

ROLE = "outage_reader"
KEYS = 5000
ROWS_A_TRANSACTION = 50
SEGMENT_BYTES = 16 << 20
AFTER_WAL_BYTES = 64 << 20
MOST_RSS_BYTES = 250 << 20
LEAST_SHARE = 0.95
POLL_SECONDS = 0.05
SETTINGS = {"max_wal_size": "1GB", "wal_sender_timeout": "30s"}

CONFIGURATION = {
    "admin": {"listen": None},
    "backlog": {"after_bytes": 16 << 20, "after_wal_bytes": AFTER_WAL_BYTES, "after_seconds": 10},
}


@dataclass(slots=True)
class Figures:
    """Of one load."""

    changes: int
    seconds: float
    most_unconfirmed_bytes: int
    most_retained_bytes: int
    most_rss_bytes: int
    restart_follows: bool
    """Whether the server is one where restart_lsn can follow what is confirmed."""
    seconds_to_catch_up: float = 0.0

    @property
    def rate(self) -> float:
        return self.changes / self.seconds


class Load:
    """
    A database, a receiver and a `pgbridge run`; an async context manager.

    Args:
        server: where the database is made.
        folder: for ledgers, log and configuration.
        triggers: their names; the receiver refuses the one called "down" until `mend`.
    """

    def __init__(self, server: EmbeddedPostgres, folder: Path, triggers: list[str]) -> None:
        self._server = server
        self._folder = folder
        self._triggers = triggers
        self._name = "outage_" + "_".join(triggers)
        self._dsn = server.dsn(self._name)
        self._processes: list[asyncio.subprocess.Process] = []
        self._stack = AsyncExitStack()
        self.most_unconfirmed = self.most_retained = self.most_rss = 0

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _set_up(self) -> None:
        self._folder.mkdir(parents=True)
        with psycopg.connect(self._server.dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self._name}")
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE item (n int PRIMARY KEY, k int NOT NULL, payload text)")
        for trigger in self._triggers:
            self._ledger(trigger).touch()
        receiver = await self._spawn("-m", "chaos.outage", str(self._folder), stdout=asyncio.subprocess.PIPE)
        port = int(await receiver.stdout.readline())
        triggers = {
            trigger: {
                "tables": ["public.item"],
                "order_by": ["k"],
                "maximum_retry_attempts": -1,
                "target": {"http": {"url": f"http://127.0.0.1:{port}/{trigger}", "batch": True}},
            }
            for trigger in self._triggers
        }
        self._configure(self._dsn, triggers)
        with (self._folder / "init.sql").open("wb") as script:
            init = await self._bridge("init", "--print-sql", "--role", ROLE, stdout=script)
            assert await init.wait() == 0, self._log()
        psql = await asyncio.create_subprocess_exec(
            *(self._server.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script.name, "-d", self._dsn),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await psql.wait() == 0
        self._configure(f"{self._dsn}?user={ROLE}", triggers)
        self.bridge = await self._bridge("run")

    def _configure(self, dsn: str, triggers: Mapping[str, object]) -> None:
        source = {"dsn": dsn, "slot": self._name, "publication": self._name}
        # JSON is YAML.
        text = json.dumps({**CONFIGURATION, "source": source, "triggers": triggers})
        (self._folder / "pgbridge.yaml").write_text(text)

    async def __aexit__(self, *exception: object) -> None:
        for process in reversed(self._processes):
            if process.returncode is None:
                process.kill()
            await process.wait()
        with psycopg.connect(self._server.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active")
            admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            admin.execute(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")

    async def run(self, changes: int, rate: int) -> Figures:
        """Commit so many, as many a second (0: as fast as it goes), and wait until all have arrived at "up"."""
        self._changes = changes
        started = time.monotonic()
        loading = asyncio.create_task(asyncio.to_thread(self._insert, changes, rate))
        await self._watch_until(loading.done)
        await loading
        await self._watch_until(lambda: self._has_all("up"))
        seconds = time.monotonic() - started
        with psycopg.connect(self._dsn) as connection:
            restart_follows = connection.info.server_version >= running_xacts.OLDEST_SERVER
        return Figures(changes, seconds, self.most_unconfirmed, self.most_retained, self.most_rss, restart_follows)

    async def mend(self) -> float:
        """The target that was down returns; seconds until it had everything."""
        started = time.monotonic()
        self._processes[0].send_signal(signal.SIGUSR1)
        await self._watch_until(lambda: self._has_all("down"))
        return time.monotonic() - started

    async def stop(self) -> None:
        self.bridge.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await self.bridge.wait() == 0, self._log()

    def check(self, trigger: str) -> tuple[int, int]:
        """What is missing, and what came before an older one of its key."""
        newest: dict[int, int] = {}
        seen: set[int] = set()
        reordered = 0
        for number in self._arrived(trigger):
            if number not in seen:
                seen.add(number)
                reordered += newest.get(number % KEYS, -1) > number
                newest[number % KEYS] = number
        return len(set(range(self._changes)) - seen), reordered

    # -- inside --------------------------------------------------------------------------------------------------------

    def _insert(self, changes: int, rate: int) -> None:
        started = time.monotonic()
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            for first in range(0, changes, ROWS_A_TRANSACTION):
                connection.execute(
                    "INSERT INTO item SELECT n, n %% %s, repeat('x', 150) FROM generate_series(%s::int, %s::int) n",
                    (KEYS, first, min(first + ROWS_A_TRANSACTION, changes) - 1),
                )
                if rate:
                    time.sleep(max(0.0, started + (first + ROWS_A_TRANSACTION) / rate - time.monotonic()))

    async def _watch_until(self, holds: Callable[[], bool]) -> None:
        """Looks at memory and slot meanwhile; gives up when nothing has arrived for long."""
        query = (
            "SELECT pg_current_wal_lsn() - confirmed_flush_lsn, pg_current_wal_lsn() - restart_lsn "
            "FROM pg_replication_slots WHERE slot_name = %s"
        )
        size, deadline = -1, 0.0
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not holds():
                assert self.bridge.returncode is None, self._log()
                unconfirmed, retained = connection.execute(query, (self._name,)).fetchone()
                self.most_unconfirmed = max(self.most_unconfirmed, int(unconfirmed))
                self.most_retained = max(self.most_retained, int(retained))
                self.most_rss = max(self.most_rss, _peak_rss(self.bridge.pid))
                now = sum(self._ledger(trigger).stat().st_size for trigger in self._triggers)
                if now != size:
                    size, deadline = now, time.monotonic() + LIMIT_SECONDS
                assert time.monotonic() < deadline, f"nothing arrives any more\n{self._log()}"
                await asyncio.sleep(POLL_SECONDS)

    def _has_all(self, trigger: str) -> bool:
        # Repeats are longer than what is missing only while something is; then the numbers are looked at.
        return self._ledger(trigger).stat().st_size >= 4 * self._changes and not self.check(trigger)[0]

    def _ledger(self, trigger: str) -> Path:
        return self._folder / trigger

    def _arrived(self, trigger: str) -> array[int]:
        data = self._ledger(trigger).read_bytes()
        return array("I", data[: len(data) // 4 * 4])

    def _log(self) -> str:
        return (self._folder / "bridge.log").read_bytes()[-4000:].decode(errors="replace")

    async def _bridge(self, *arguments: str, stdout: BinaryIO | None = None) -> asyncio.subprocess.Process:
        with (self._folder / "bridge.log").open("ab") as log:
            configuration = str(self._folder / "pgbridge.yaml")
            return await self._spawn(*PGBRIDGE, *arguments, "--config", configuration, stdout=stdout or log, stderr=log)

    async def _spawn(self, *arguments: str, **streams: object) -> asyncio.subprocess.Process:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "PYTHONPATH": str(FAULTS)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, start_new_session=True, **streams
        )
        self._processes.append(process)
        return process


def _peak_rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def measure(changes: int, rate: int, folder: Path) -> Mapping[str, Figures]:
    """Both loads; the order of what arrived is asserted."""
    figures = {}
    with EmbeddedPostgres(settings=SETTINGS) as server:
        async with Load(server, folder / "alone", ["up"]) as load:
            figures["alone"] = await load.run(changes, rate)
            await load.stop()
            assert load.check("up") == (0, 0), "missing and reordered, of the trigger alone"
        async with Load(server, folder / "beside", ["up", "down"]) as load:
            figures["beside"] = await load.run(changes, rate)
            figures["beside"].seconds_to_catch_up = await load.mend()
            figures["beside"].most_rss_bytes = load.most_rss
            await load.stop()
            for trigger in ("up", "down"):
                assert load.check(trigger) == (0, 0), f"missing and reordered, of the trigger {trigger!r}"
    return figures


def table(figures: Mapping[str, Figures]) -> tuple[str, bool]:
    """What was found, and whether it is what is promised."""
    alone, beside = figures["alone"], figures["beside"]
    share = beside.rate / alone.rate
    most = AFTER_WAL_BYTES + SEGMENT_BYTES
    retained, retained_alone = (f"{each.most_retained_bytes / 2**20:.0f}" for each in (beside, alone))
    rows = [
        ("throughput alone", f"{alone.rate:,.0f} changes/s", True),
        ("throughput beside one that is down", f"{beside.rate:,.0f} changes/s, {share:.1%}", share >= LEAST_SHARE),
        (
            "WAL held back unconfirmed, most",
            f"{beside.most_unconfirmed_bytes / 2**20:.0f} of {most / 2**20:.0f} MiB",
            beside.most_unconfirmed_bytes <= most,
        ),
        (
            "WAL retained from restart_lsn, most",
            f"{retained} of {most / 2**20:.0f} MiB; {retained_alone} MiB alone",
            beside.most_retained_bytes <= most or not beside.restart_follows,
        ),
        ("memory, most", f"{beside.most_rss_bytes / 2**20:.0f} MiB", beside.most_rss_bytes < MOST_RSS_BYTES),
        ("arrived at both, in order", f"{beside.changes:,} of {beside.changes:,}", True),
        ("after the return", f"{beside.seconds_to_catch_up:.1f} s", True),
    ]
    text = "\n".join(f"{name:<36}{value}{'' if good else '  MISSED'}" for name, value, good in rows)
    return text, all(good for _, _, good in rows)


# -- the receiver, a process of its own --------------------------------------------------------------------------------


async def receive(folder: Path) -> None:
    """Answers on a port that it prints; writes the number of each row that it took into the ledger of its trigger."""
    down = {"down"}
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, down.clear)
    ledgers = {trigger: open(folder / trigger, "ab", buffering=0) for trigger in ("up", "down")}  # noqa: ASYNC230, PTH123, SIM115 - before anybody calls

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split()[0])
                body = await reader.readexactly(length)
                trigger = head.split()[1].strip("/")
                if trigger in down:
                    writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
                    continue
                numbers = array("I", [event["record"]["n"] for event in orjson.loads(body)["Records"]])
                ledgers[trigger].write(numbers.tobytes())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - how the run learns where it listens
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(receive(Path(sys.argv[1])))
