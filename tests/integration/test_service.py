"""The life of the process: it comes back, stands by, refuses, and ends as it should. Processes and servers are real."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from bridge.local.receiver import Receiver

COMMAND = [sys.executable, "-c", "from bridge.cli import main; main()"]


class Bridge:
    """One configuration for one trigger to a receiver; processes of it come and go."""

    def __init__(self, dsn: str, url: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        with psycopg.connect(dsn, autocommit=True) as connection:
            self.slot = "service_" + connection.execute("SELECT current_database()").fetchone()[0]
        self.configuration = folder / "pgbridge.yaml"
        self.configuration.write_text(
            f'source: {{dsn: "{dsn}", slot: {self.slot}}}\nadmin: {{listen: null}}\n'
            f"triggers: {{t: {{tables: [public.thing], target: {{http: {{url: {url}, batch: true}}}}}}}}\n"
        )
        self.processes: list[asyncio.subprocess.Process] = []

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Runs to its end; gives the exit code and stderr."""
        process = await self.spawn(*arguments)
        return await self.end_of(process)

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, "--config", str(self.configuration),
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.processes.append(process)
        return process

    async def run(self) -> asyncio.subprocess.Process:
        """`pgbridge run`, reading the slot."""
        process = await self.spawn("run")
        await self.says(process, "streaming")
        return process

    async def says(self, process: asyncio.subprocess.Process, event: str) -> str:
        """Waits for a log event; gives its line."""
        async with asyncio.timeout(30):
            while line := (await process.stderr.readline()).decode():
                if f'"event": "{event}"' in line:
                    return line
        pytest.fail(f"it ended with {await process.wait()} and never logged {event!r}")

    async def end_of(self, process: asyncio.subprocess.Process) -> tuple[int, str]:
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, errors.decode()

    async def stop(self, process: asyncio.subprocess.Process) -> tuple[int, str]:
        process.send_signal(signal.SIGTERM)
        return await self.end_of(process)

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@asynccontextmanager
async def a_bridge(dsn: str, folder: Path):
    async with Receiver() as receiver:
        bridge = Bridge(dsn, receiver.url, folder)
        bridge.execute("CREATE TABLE thing (id int PRIMARY KEY, name text)")
        code, errors = await bridge.command("init")
        assert code == 0, errors
        try:
            yield bridge, receiver
        finally:
            for process in bridge.processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def wait_for(receiver: Receiver, count: int) -> None:
    async with asyncio.timeout(45):
        await receiver.wait_for(count)


async def test_a_killed_walsender_and_a_restarted_server_cost_nothing(make_postgres, tmp_path):
    server = make_postgres()
    async with a_bridge(server.dsn(), tmp_path) as (bridge, receiver):
        process = await bridge.run()
        bridge.execute("INSERT INTO thing SELECT g FROM generate_series(1, 100) g")
        await wait_for(receiver, 100)
        bridge.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        bridge.execute("INSERT INTO thing SELECT g FROM generate_series(101, 200) g")
        await wait_for(receiver, 200)
        for mode in ("fast", "immediate"):
            await asyncio.to_thread(server.restart, mode)
            low = 200 if mode == "fast" else 300
            bridge.execute(f"INSERT INTO thing SELECT g FROM generate_series({low + 1}, {low + 100}) g")
            await wait_for(receiver, low + 100)
        code, _ = await bridge.stop(process)
        assert code == 0
        assert {received.event["record"]["id"] for received in receiver.received} == set(range(1, 401))


async def test_the_second_process_stands_by_and_takes_over(database, tmp_path):
    async with a_bridge(database, tmp_path) as (bridge, receiver):
        first = await bridge.run()
        second = await bridge.spawn("run")
        await bridge.says(second, "standing by")
        bridge.execute("INSERT INTO thing VALUES (1)")
        await wait_for(receiver, 1)
        first.kill()
        await first.wait()
        await bridge.says(second, "streaming")
        bridge.execute("INSERT INTO thing VALUES (2)")
        await wait_for(receiver, 2)
        code, _ = await bridge.stop(second)
        assert code == 0


async def test_a_slot_that_is_gone_is_refused_and_explained(database, tmp_path):
    async with a_bridge(database, tmp_path) as (bridge, receiver):
        process = await bridge.run()
        bridge.execute("INSERT INTO thing VALUES (1)")
        await wait_for(receiver, 1)
        await bridge.stop(process)
        bridge.execute(f"SELECT pg_drop_replication_slot('{bridge.slot}')")
        code, errors = await bridge.command("run")
        assert code == 5
        assert "is gone" in errors
        assert "--accept-gap" in errors
        assert "Traceback" not in errors


async def test_a_slot_made_anew_is_refused_and_nothing_is_skipped_silently(database, tmp_path):
    async with a_bridge(database, tmp_path) as (bridge, receiver):
        process = await bridge.run()
        bridge.execute("INSERT INTO thing VALUES (1)")
        await wait_for(receiver, 1)
        await bridge.stop(process)
        bridge.execute(
            f"SELECT pg_drop_replication_slot('{bridge.slot}')",
            "INSERT INTO thing VALUES (2)",
            f"SELECT pg_create_logical_replication_slot('{bridge.slot}', 'pgoutput')",
        )
        code, errors = await bridge.command("run")
        assert code == 5
        assert "ahead of" in errors


async def test_a_slot_that_somebody_else_read_is_refused(database, tmp_path):
    async with a_bridge(database, tmp_path) as (bridge, receiver):
        process = await bridge.run()
        bridge.execute("INSERT INTO thing VALUES (1)")
        await wait_for(receiver, 1)
        process.kill()
        await process.wait()
        bridge.execute("INSERT INTO thing VALUES (2)")
        with psycopg.connect(database, autocommit=True) as connection:
            async with asyncio.timeout(30):
                advance = "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())"
                while True:
                    try:
                        connection.execute(advance, (bridge.slot,))
                    except psycopg.errors.ObjectInUse:
                        await asyncio.sleep(0.1)
                    else:
                        break
        code, errors = await bridge.command("run")
        assert code == 5
        assert "somebody else read from it" in errors


async def test_another_kind_of_slot_in_the_place_of_ours_is_called_what_it_is(database, tmp_path):
    """Before what the store knows is compared with it: nothing was missed, and no gap is to be accepted."""
    others = {
        "pg_create_physical_replication_slot('{}')": "is a physical slot",
        "pg_create_logical_replication_slot('{}', 'test_decoding')": "decodes with test_decoding",
        "pg_create_logical_replication_slot('{}', 'pgoutput', false, true)": "made with two_phase",
    }
    async with a_bridge(database, tmp_path) as (bridge, receiver):
        process = await bridge.run()
        bridge.execute("INSERT INTO thing VALUES (1)")
        await wait_for(receiver, 1)
        await bridge.stop(process)
        for made, says in others.items():
            bridge.execute(f"SELECT pg_drop_replication_slot('{bridge.slot}')", f"SELECT {made.format(bridge.slot)}")
            code, errors = await bridge.command("run")
            assert (code, says in errors) == (4, True), errors
        code, errors = await bridge.command("init")
        assert (code, "two_phase" in errors) == (4, True), errors


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"password": "wrong"}, 4, "password"),
        ({"dbname": "nowhere"}, 4, "nowhere"),
        ({"port": "1"}, 3, "refused"),
    ],
)
async def test_a_wrong_dsn_ends_in_one_sentence(make_postgres, tmp_path, change, code, says):
    server = make_postgres(auth="scram-sha-256")
    async with a_bridge(server.dsn(), tmp_path) as (bridge, _):
        wrong = psycopg.conninfo.make_conninfo(server.dsn(), **change)
        bridge.configuration.write_text(bridge.configuration.read_text().replace(server.dsn(), wrong))
        got, errors = await bridge.command("run")
        assert got == code, errors
        last = errors.strip().splitlines()[-1]
        assert last.startswith("pgbridge: ")
        assert says in last
        assert "Traceback" not in errors
        assert "wrong" not in errors.replace("wrong password", "")


async def test_run_without_init_says_so(database, tmp_path):
    async with Receiver() as receiver:
        bridge = Bridge(database, receiver.url, tmp_path)
        bridge.execute("CREATE TABLE thing (id int PRIMARY KEY)")
        code, errors = await bridge.command("run")
        assert code != 0
        assert "pgbridge init" in errors


async def test_a_server_stops_at_once_although_a_target_is_down(make_postgres, tmp_path):
    """A walsender waits at shutdown until all that it sent is confirmed; what can't be confirmed must not hold it up."""
    server = make_postgres()
    async with a_bridge(server.dsn(), tmp_path) as (bridge, receiver):
        await bridge.run()
        receiver.faults.refuse(times=None)
        bridge.execute("INSERT INTO thing VALUES (1)")
        async with asyncio.timeout(30):
            await receiver.wait_until(lambda r: len(r.calls) > 0)
        async with asyncio.timeout(30):
            await asyncio.to_thread(server.stop, "fast")
