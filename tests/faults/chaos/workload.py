"""
What is committed while things go wrong.

Most of it is pgbench, 16 clients of it: C is cheap, and so many writers put commit records directly behind each other.
What pgbench can't do (COPY, commits one after the other on purpose) is done by connections of our own. A server that
goes away ends them; they begin again until they are told to stop. While too much of what they committed is still to be
delivered they wait, as users of a slow machine would: else a run on one never ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

WRITERS = 16
ACCOUNTS = 40
COPY_ROWS = 500
LATE_MILLISECONDS = 200
"""What pgbench could not begin within this of its time, it leaves out."""
PAUSE_SECONDS = 0.1

LIMIT_SECONDS = 300.0
"""For the sessions of what was ended to end as well."""
BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgbench'"

TABLES = ("account", "item", "renamed", "bulk", "journal", "probe")
SCHEMA = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.account (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE chaos.item (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text);
CREATE TABLE chaos.renamed (id int PRIMARY KEY, version int NOT NULL);
CREATE TABLE chaos.bulk (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text);
CREATE TABLE chaos.journal (account int, amount int);
CREATE TABLE chaos.probe (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text);
"""
ROWS = (
    f"INSERT INTO chaos.account SELECT g, 0 FROM generate_series(1, {ACCOUNTS}) g",
    "INSERT INTO chaos.renamed SELECT g, 0 FROM generate_series(1, 50) g",
)

# Weight and script. Rows are locked in the order of their keys, so that no two clients wait for each other.
SCRIPTS = {
    "insert": (8, "INSERT INTO chaos.item (payload) VALUES ('one of client ' || :client_id);"),
    "hot": (
        3,
        """\\set a random(1, 4)
        UPDATE chaos.account SET balance = balance + 1 WHERE id = :a;""",
    ),
    "transfer": (
        3,
        f"""\\set a random(1, {ACCOUNTS // 2})
        \\set b random({ACCOUNTS // 2 + 1}, {ACCOUNTS})
        BEGIN;
        UPDATE chaos.account SET balance = balance - 1 WHERE id = :a;
        UPDATE chaos.account SET balance = balance + 1 WHERE id = :b;
        INSERT INTO chaos.journal VALUES (:a, :b);
        COMMIT;""",
    ),
    "rename": (
        2,
        """\\set k random(1, 50)
        UPDATE chaos.renamed SET version = version + 1, id = (id + 1000) % 2000 WHERE id % 1000 = :k;""",
    ),
    "delete": (
        1,
        """\\set i random(1, 2000)
        DELETE FROM chaos.item WHERE id = :i;""",
    ),
    "savepoint": (
        1,
        """BEGIN;
        INSERT INTO chaos.item (payload) VALUES ('kept');
        SAVEPOINT s;
        INSERT INTO chaos.item (payload) VALUES ('undone');
        ROLLBACK TO s;
        INSERT INTO chaos.item (payload) VALUES ('kept too');
        COMMIT;""",
    ),
    "rollback": (
        1,
        """BEGIN;
        INSERT INTO chaos.item (payload) VALUES ('never');
        ROLLBACK;""",
    ),
    "wide": (1, "INSERT INTO chaos.bulk (payload) SELECT repeat('x', 500) FROM generate_series(1, 10);"),
}
POISON = (
    "\\set p random(1, 4)\nINSERT INTO chaos.item (payload) VALUES (CASE WHEN :p = 1 THEN 'poison' ELSE 'good' END);"
)


class Workload:
    """
    Args:
        dsn: straight to the server.
        pgbench: the program.
        folder: for its scripts.
        seed: of what it does; what is committed hangs on the clock as well.
        rate: transactions of pgbench a second.
        poison: some rows that the receiver refuses for good.
        has_enough: whether too much is still to be delivered.
    """

    def __init__(
        self,
        dsn: str,
        pgbench: Path,
        folder: Path,
        *,
        seed: int,
        rate: int,
        poison: bool = False,
        has_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._dsn = dsn
        self._has_enough = has_enough
        self._random = random.Random(seed)
        self._folder = folder
        self._scripts = {**SCRIPTS, "poison": (1, POISON)} if poison else SCRIPTS
        self._command = [str(pgbench), "-n", "-c", str(WRITERS), "-j", "2", "-T", "3600", "-R", str(rate)]
        self._command += ["-L", str(LATE_MILLISECONDS)]
        self._copy_pause_seconds = COPY_ROWS / rate  # as many rows by COPY as transactions of pgbench
        self._stop = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for name, (weight, text) in self._scripts.items():
            path = self._folder / f"{name}.sql"
            path.write_text(text + "\n")
            self._command += ["-f", f"{path}@{weight}"]
        self._tasks = [
            asyncio.create_task(self._pgbench()),
            asyncio.create_task(asyncio.to_thread(self._again_and_again, self._copy)),
            asyncio.create_task(asyncio.to_thread(self._again_and_again, self._commit_side_by_side)),
        ]

    async def stop(self) -> None:
        """End it; what was committed until now is all there is."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await asyncio.to_thread(self._outlast_backends)

    async def _pgbench(self) -> None:
        while not self._stop.is_set():
            process = await asyncio.create_subprocess_exec(
                *self._command, "--random-seed", str(self._random.getrandbits(30)), self._dsn,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            ended = asyncio.create_task(process.wait())
            paused = False
            while not self._stop.is_set() and not ended.done():
                if self._has_enough() is not paused:
                    paused = not paused
                    process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)
                await asyncio.wait([ended], timeout=PAUSE_SECONDS)
            if not ended.done():
                process.kill()
            await ended
            if not self._stop.is_set():
                await asyncio.sleep(0.2)  # the server is away; pgbench says so by ending

    def _outlast_backends(self) -> None:
        """Until the last of pgbench's sessions is gone: what the server had in hand when it was killed may commit yet."""
        deadline = time.monotonic() + LIMIT_SECONDS
        # Of a server that is away there are none.
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._dsn, autocommit=True) as connection:
            while connection.execute(BACKENDS).fetchone()[0]:
                assert time.monotonic() < deadline, "the load does not end"
                time.sleep(PAUSE_SECONDS)

    def _again_and_again(self, work: Callable[[psycopg.Connection], None]) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._dsn) as connection:
                while not self._stop.is_set():
                    if not self._has_enough():
                        work(connection)
                    self._stop.wait(PAUSE_SECONDS)
            self._stop.wait(0.2)

    def _copy(self, connection: psycopg.Connection) -> None:
        copy_rows(connection)
        self._stop.wait(self._copy_pause_seconds)

    def _commit_side_by_side(self, _: psycopg.Connection) -> None:
        commit_side_by_side(self._dsn, [f"side by side {number}" for number in range(WRITERS)])
        self._stop.wait(0.3)


def copy_rows(connection: psycopg.Connection, *, odd_one: str | None = None) -> None:
    """One COPY, whose rows share WAL records; `odd_one` stands in the middle of it."""
    statement = "COPY chaos.bulk (payload) FROM STDIN"
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
        for number in range(COPY_ROWS):
            copy.write_row([odd_one if odd_one and number == COPY_ROWS // 2 else f"row {number}"])


def commit_side_by_side(dsn: str, payloads: list[str]) -> None:
    """A transaction each, all open at once and committed one right after the other: their commit records touch."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(dsn)) for _ in payloads]
        for connection, payload in zip(connections, payloads, strict=True):
            connection.execute("INSERT INTO chaos.item (payload) VALUES (%s)", (payload,))
        for connection in connections:
            connection.commit()


def probe(dsn: str) -> tuple[int, int]:
    """Commit one row now; its id, and a position behind its commit."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        (row,) = connection.execute("INSERT INTO chaos.probe (payload) VALUES ('here') RETURNING id").fetchone()
        (lsn,) = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        return row, int(lsn)
