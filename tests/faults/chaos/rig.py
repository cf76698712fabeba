"""Everything of one run: database, proxies, receiver, bridge processes, load, and the reconciliation at its end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from bridge.local.postgres import EmbeddedPostgres
from bridge.testing.proxy import FaultProxy
from chaos import workload
from chaos.ledger import Arrivals
from chaos.receiver import STUCK_FILE
from chaos.reconcile import Report, reconcile
from chaos.truth import Change, Truth
from chaos.watch import Watch

FAULTS = Path(__file__).parents[1]
PGBRIDGE = ("-c", "from bridge.cli import main; main()")
LAUNCHER = ("-m", "chaos.launcher")

LIMIT_SECONDS = 300.0
"""Of every wait; far above what anything takes on a busy machine."""

PATIENT_SECONDS = 60.0
"""Of a call: one that only a busy machine delays is not to be repeated."""

SERVER_SETTINGS = {
    # A half-open link is found after this long, by the server and by us.
    "wal_sender_timeout": "3s",
    "max_connections": "100",
    "max_replication_slots": "40",
    "max_wal_senders": "40",
}

BATCH = 50
FACTOR = 4
SINGLES_FACTOR = 10
IN_FLIGHT = FACTOR * BATCH + SINGLES_FACTOR
LEAST_UNSAVED = 1000
"""What a dispatcher lets settle before it waits for a save (`delivery/dispatch.py`), with batches as small as ours."""
LOST_WITH_A_PROCESS = IN_FLIGHT + 2 * LEAST_UNSAVED
"""What a kill may repeat: what was in flight, and what had settled and was not saved, of both triggers."""

AFTER_BYTES = 64 << 20
"""The default."""

CONFIGURATION = """\
source: {{dsn: "{source}", slot: {slot}, publication: {slot}}}
store: {{dsn: "{store}"}}
admin: {{listen: null}}
backlog: {{after_seconds: {after_seconds}, after_bytes: {after_bytes}}}
triggers:
  everything:
    tables: ["chaos.*"]
    target: {{http: {{url: "http://127.0.0.1:{port}/", batch: true, timeout_in_seconds: {timeout}}}}}
    batch_size: {batch}
    parallelization_factor: {factor}
    maximum_retry_attempts: -1
  singles:
    tables: [chaos.account]
    target: {{http: {{url: "http://127.0.0.1:{port}/", batch: false, timeout_in_seconds: {timeout}}}}}
    parallelization_factor: {singles}
    maximum_retry_attempts: -1
"""
WANTED = {
    "everything": frozenset(f"chaos.{table}" for table in workload.TABLES),
    "singles": frozenset({"chaos.account"}),
}

MOST_UNCONFIRMED_BYTES = 8 << 20
MOST_PARKED_ROWS = 10_000
"""The load waits above these: about as many changes are in so much WAL."""

POLL_SECONDS = 0.02
CHECKPOINT = "SELECT commit_lsn - '0/0'::pg_lsn, ordinal FROM pgbridge.checkpoints WHERE trigger = %s"


class Lost(AssertionError):
    """The slot is confirmed, nothing is parked, and what was waited for has not come."""


@dataclass(slots=True)
class Tally:
    """What one run did and found."""

    report: Report
    kills: int
    recovery_seconds: list[float]
    adjacent_commits: int


class Rig:
    """
    One run; an async context manager. Faults act on its parts.

    Args:
        server: shared by runs; each has a database of its own.
        folder: for ledger, log and configuration.
        seed: of the fault's choices.
        rate: transactions a second.
        poison: the load has rows that the receiver refuses for good.
        after_seconds: how long a change may wait before it moves to the backlog.
        after_bytes: how much of a trigger's may wait in memory before all of it does.
        timeout_seconds: how long a call may take.
        lie: a fault planted in every bridge process (`lies.py`).

    Attributes:
        source: between the bridge and the server, for the replication connection.
        store: the same, for the store's connections.
        target: between the bridge and the receiver.
        kills: processes that were killed or died at a point.
        random: for the fault's own choices.
    """

    def __init__(
        self,
        server: EmbeddedPostgres,
        folder: Path,
        *,
        seed: int,
        rate: int,
        poison: bool = False,
        after_seconds: float = 2,
        after_bytes: int = AFTER_BYTES,
        timeout_seconds: float = PATIENT_SECONDS,
        lie: str | None = None,
    ) -> None:
        self.server = server
        self._after_seconds = after_seconds
        self._after_bytes = after_bytes
        self._timeout_seconds = timeout_seconds
        self._lie = {} if lie is None else {"lie": lie}
        self.folder = folder
        self.random = random.Random(seed)
        self.name = f"chaos_{secrets.token_hex(4)}"
        self.dsn = server.dsn(self.name)
        self.ledger = folder / "ledger.jsonl"
        self.log = folder / "bridge.log"
        self.configuration = folder / "pgbridge.yaml"
        self.arrivals = Arrivals(self.ledger)
        self.truth = Truth(self.dsn, f"{self.name}_truth")
        self.watch = Watch(self.dsn, self.name, self.ledger)
        self.workload = workload.Workload(
            self.dsn,
            server.bin / "pgbench",
            folder,
            seed=seed,
            rate=rate,
            poison=poison,
            has_enough=lambda: (
                self.watch.unconfirmed_bytes > MOST_UNCONFIRMED_BYTES or self.watch.parked > MOST_PARKED_ROWS
            ),
        )
        self.source = self.store = FaultProxy(server.port)
        self.target = FaultProxy(0)
        self.processes: list[asyncio.subprocess.Process] = []
        self.kills = 0
        self.recovery_seconds: list[float] = []
        self.two_at_once = False
        self._receiver: asyncio.subprocess.Process | None = None
        self._receiver_port = _free_port()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _set_up(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger.touch()
        with psycopg.connect(self.server.dsn(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.name)))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(workload.SCHEMA)
        self.source = await self._stack.enter_async_context(FaultProxy(self.server.port))
        self.store = await self._stack.enter_async_context(FaultProxy(self.server.port))
        self.target = await self._stack.enter_async_context(FaultProxy(self._receiver_port))
        self.configuration.write_text(
            CONFIGURATION.format(
                source=self._through(self.source), store=self._through(self.store), slot=self.name,
                port=self.target.port, batch=BATCH, factor=FACTOR, singles=SINGLES_FACTOR,
                after_seconds=self._after_seconds, after_bytes=self._after_bytes, timeout=self._timeout_seconds,
            )
        )  # fmt: skip
        await self.start_receiver()
        init = await self._spawn(PGBRIDGE, "init")
        assert await init.wait() == 0, self.log.read_text()
        self.truth.create()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in workload.ROWS:
                connection.execute(statement)
        self.watch.start()

    async def __aexit__(self, *exception: object) -> None:
        await self.workload.stop()
        await self.watch.stop()
        for process in self.processes:
            await _end(process)
        await self._stack.aclose()
        if self._receiver is not None:
            await _end(self._receiver)
        if self.server.running:
            with psycopg.connect(self.server.dsn(), autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (self.name,)
                )
                admin.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s",
                    (self.name,),
                )
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))

    # -- processes -----------------------------------------------------------------------------------------------------

    async def start(self, **plan: object) -> asyncio.subprocess.Process:
        """`pgbridge run`, as it is or with something wrong with it (`launcher.py`); returns at once."""
        plan |= self._lie
        process = await self._spawn(LAUNCHER if plan else PGBRIDGE, "run", plan=plan)
        self.processes.append(process)
        return process

    async def start_streaming(self, **plan: object) -> asyncio.subprocess.Process:
        """As `start`, and wait until it reads the slot: before that SIGTERM just ends it."""
        since = self.log.stat().st_size
        process = await self.start(**plan)
        await self.logged("streaming", since=since)
        return process

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        process.kill()
        await process.wait()
        self.kills += 1

    async def dies(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the death that was planned for it."""
        async with asyncio.timeout(LIMIT_SECONDS):
            code = await process.wait()
        assert code == -signal.SIGKILL, f"it ended with {code} and never came to the point\n{self.log_tail()}"
        self.kills += 1

    async def stop(self, process: asyncio.subprocess.Process) -> None:
        """A clean stop."""
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_SECONDS):
            code = await process.wait()
        # A process with a fault planted in it may have noticed.
        assert code == 0 or self._lie, f"a clean stop ended with {code}\n{self.log_tail()}"

    async def start_receiver(self) -> None:
        self._receiver = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chaos.receiver", str(self.ledger), str(self._receiver_port),
            env=self._environment(), stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await self._receiver.stdout.readline(), "the receiver ended at once"

    async def kill_receiver(self) -> None:
        self._receiver.kill()
        await self._receiver.wait()

    async def _spawn(
        self, program: Sequence[str], command: str, *, plan: dict[str, object] | None = None
    ) -> asyncio.subprocess.Process:
        environment = self._environment() | ({"CHAOS": json.dumps(plan)} if plan else {})
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, *program, command, "--config", str(self.configuration),
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(FAULTS)}

    # -- waiting for things ------------------------------------------------------------------------------------------

    async def arrives(self, count: int = 1) -> None:
        """Wait until so many more events have come, of those that had not come before."""
        self.arrivals.read()
        wanted = len(self.arrivals.first) + count
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.arrivals.first) < wanted:
                self._must_live()
                await asyncio.sleep(POLL_SECONDS)
                self.arrivals.read()

    async def recovers(self) -> None:
        """Commit something now, and take the time until it arrives."""
        started = time.monotonic()
        row, lsn = await asyncio.to_thread(workload.probe, self.dsn)

        def came() -> bool:
            return any(
                event["metadata"]["table_name"] == "probe" and event["record"]["id"] == row
                for _, event in self.arrivals.read()
            )

        async with asyncio.timeout(LIMIT_SECONDS):
            while not came():
                self._must_live()
                if self.watch.has_passed(lsn) and not came():
                    raise Lost(f"the row committed before {lsn:X} is lost\n{self.log_tail()}")
                await asyncio.sleep(POLL_SECONDS)
        self.recovery_seconds.append(time.monotonic() - started)

    async def delivers(self, change: Change, trigger: str = "everything") -> None:
        """Wait until a change arrives."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while (trigger, change.id) not in self.arrivals.first:
                self._must_live()
                await asyncio.sleep(POLL_SECONDS)
                self.arrivals.read()

    async def confirms(self, lsn: int) -> None:
        """Wait until everything up to this position is seen to be confirmed."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.watch.confirmed_lsn < lsn:
                self._must_live()
                await asyncio.sleep(POLL_SECONDS)

    async def stores(self, position: tuple[int, int], trigger: str = "everything") -> None:
        """Wait until a trigger's checkpoint is at least at this commit LSN and ordinal."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            async with asyncio.timeout(LIMIT_SECONDS):
                while True:
                    row = connection.execute(CHECKPOINT, (trigger,)).fetchone()
                    if row is not None and (int(row[0]), row[1]) >= position:
                        return
                    self._must_live()
                    await asyncio.sleep(POLL_SECONDS)

    async def logged(self, event: str, *, since: int = 0, trigger: str | None = None) -> dict[str, Any]:
        """Wait until a log event of that name was written, after the first `since` bytes of the log; what it says."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                for line in self.log.read_bytes()[since:].decode().splitlines(keepends=True):
                    if f'"event": "{event}"' in line and line.endswith("\n"):
                        said = json.loads(line)
                        if trigger is None or trigger == said.get("trigger"):
                            return said
                self._must_live(all_of_them=True)
                await asyncio.sleep(POLL_SECONDS)

    def refuse_stuck_rows(self) -> None:
        """From now on the receiver fails with what is called stuck."""
        self.ledger.with_name(STUCK_FILE).touch()

    def take_stuck_rows(self) -> None:
        self.ledger.with_name(STUCK_FILE).unlink(missing_ok=True)

    def _must_live(self, *, all_of_them: bool = False) -> None:
        """Of those that nobody has killed or stopped, at least one, or all."""
        ended = [process.returncode for process in self.processes if process.returncode is not None]
        assert len(ended) < len(self.processes), f"every process has ended: {ended}\n{self.log_tail()}"
        by_itself = [code for code in ended if code not in (0, -signal.SIGKILL)]
        assert not (all_of_them and by_itself), f"a process has ended by itself: {by_itself}\n{self.log_tail()}"

    def log_tail(self) -> str:
        return self.log.read_bytes()[-4000:].decode(errors="replace")

    # -- the end -------------------------------------------------------------------------------------------------------

    async def finish(self) -> Tally:
        """End the load, wait for what was committed, stop cleanly, and compare."""
        await self.workload.stop()
        await asyncio.to_thread(self.truth.read)
        await self._all_arrive()
        for process in self.processes:
            if process.returncode is None:
                await self.stop(process)
        await self.watch.stop()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            self.watch.look(connection)
            self.arrivals.read()
            self.watch.look(connection)
        report = reconcile(
            self.truth.changes,
            self.arrivals,
            WANTED,
            letters=self.watch.letters,
            glances=self.watch.glances,
            most_repeats=self._most_repeats(),
            torn_repeats=self.two_at_once,
        )
        return Tally(report, self.kills, self.recovery_seconds, len(self.truth.adjacent_commits))

    async def _all_arrive(self) -> None:
        """Or nothing more can come: then the reconciliation will say what is missing."""
        end = max((change.end_lsn for change in self.truth.changes), default=0)
        due = {
            (trigger, change.id)
            for trigger, tables in WANTED.items()
            for change in self.truth.changes
            if change.table in tables
        }
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            nothing_comes = self.watch.has_passed(end) or all(each.returncode is not None for each in self.processes)
            if self.arrivals.read():
                deadline = time.monotonic() + LIMIT_SECONDS
            due = {name for name in due if name not in self.arrivals.first and name not in self.watch.letters}
            if nothing_comes or not due:
                return
            await asyncio.sleep(POLL_SECONDS)

    def _most_repeats(self) -> int:
        calls = self.target.lost_answers + self.target.links_cut
        return (self.kills + self.two_at_once) * LOST_WITH_A_PROCESS + calls * BATCH

    def _through(self, proxy: FaultProxy) -> str:
        return psycopg.conninfo.make_conninfo(self.dsn, host="127.0.0.1", port=proxy.port)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
