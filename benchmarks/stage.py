"""What the readers of one workload share: a database, slots that hold its changes, and a receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from benchmarks.processes import BenchmarkError, Child
from benchmarks.workloads import Workload, create_publication, end_lsn, prepare
from bridge.local.postgres import EmbeddedPostgres
from bridge.store.postgres import PostgresStore

Transport = Literal["tcp", "unix"]

PUBLICATION: Final = "bench"
STORE_DATABASE: Final = "store"
"""Of the same server, but not the source: the store's own WAL is not decoded, and is on the same machine."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one workload is measured."""

    server: EmbeddedPostgres
    database: str
    end_lsn: str
    rows: int
    monitor: psycopg.Connection
    """To look at slots and walsenders."""
    receiver: Child
    """Says when `rows` events have come (`receiver.py`)."""
    receiver_url: str

    def dsn(self, transport: Transport = "tcp", database: str | None = None) -> str:
        server, database = self.server, database or self.database
        if transport == "tcp":
            return server.dsn(database)
        return (
            f"postgresql:///{database}?host={quote(str(server.socket_dir), safe='')}&port={server.port}&user=postgres"
        )

    def delivered(self, done: Mapping[str, Any], sender: str) -> int:
        """
        What the receiver says, held against what was written.

        Raises:
            BenchmarkError: there was more.
        """
        if done["events"] != self.rows:
            raise BenchmarkError(f"{sender} delivered {done['events']} events of {self.rows} changes")
        return self.rows

    def drop(self, slot: str) -> None:
        """Let its WAL go. A walsender whose client was killed may not have noticed yet."""
        find = "FROM pg_replication_slots WHERE slot_name = %s"
        self.monitor.execute(f"SELECT pg_terminate_backend(active_pid, 10000) {find} AND active", (slot,))
        self.monitor.execute(f"SELECT pg_drop_replication_slot(slot_name) {find}", (slot,))


@contextmanager
def staged(
    server: EmbeddedPostgres,
    workload: Workload,
    slots: Sequence[str],
    *,
    filled: bool = True,
    receiver_arguments: Sequence[str] = (),
) -> Iterator[Stage]:
    """
    Databases for the workload and the store, slots with all of its changes, and a receiver; all gone afterwards.

    `filled` false leaves the slots empty.
    """
    with (
        fresh_database(server, f"bench_{workload.name.lower()}") as dsn,
        fresh_database(server, STORE_DATABASE) as store_dsn,
        psycopg.connect(server.dsn(), autocommit=True) as monitor,
        Child.module("benchmarks.receiver", str(workload.rows), *receiver_arguments) as receiver,
    ):
        asyncio.run(_migrate(store_dsn))
        url = receiver.line()
        if filled:
            end = prepare(dsn, workload, slots, PUBLICATION)
        else:
            create_publication(dsn, workload, slots, PUBLICATION)
            end = end_lsn(dsn)
        yield Stage(server, f"bench_{workload.name.lower()}", end, workload.rows, monitor, receiver, url)


@contextmanager
def fresh_database(server: EmbeddedPostgres, name: str) -> Iterator[str]:
    """A database, and its end with all of its slots: their WAL is gone before the next workload's is written."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield server.dsn(name)
        finally:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE database = %s AND NOT active",
                (name,),
            )
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            connection.execute("CHECKPOINT")


async def _migrate(dsn: str) -> None:
    async def where() -> str:
        return dsn

    store = PostgresStore(where, "pgbridge")
    try:
        await store.migrate()
    finally:
        await store.close()
