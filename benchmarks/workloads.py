"""The workloads: what is in the slot when the readers start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql


@dataclass(frozen=True, slots=True)
class Workload:
    """
    Attributes:
        name: as in the tables.
        rows: changes that a reader has to deliver.
        before: statements run before the slots are made; `{rows}` stands for the number of rows.
        phases: one after the other, each a statement that is a transaction, run for i = 0, 1, … with the same number
            of transactions in each phase. All together make `rows` changes.
        rows_per_transaction: changes that each transaction makes; None: a phase is one transaction.
        every_reader: whether all readers drain it; else, unless some are chosen, pg_recvlogical and `pgbridge run`.
    """

    name: str
    title: str
    rows: int
    before: tuple[str, ...]
    phases: tuple[str, ...]
    rows_per_transaction: int | None
    every_reader: bool = False

    def scaled(self, rows: int) -> Workload:
        """The same with another number of rows, rounded down to whole transactions in each phase."""
        unit = len(self.phases) * (self.rows_per_transaction or 1)
        return replace(self, rows=max(rows // unit, 1) * unit)

    @property
    def rows_per_phase(self) -> int:
        return self.rows // len(self.phases)


_SMALL = (
    "CREATE TABLE bench (id bigint PRIMARY KEY, customer int NOT NULL, status text, amount numeric(12,2),"
    " flag boolean, created_at timestamptz, note text)"
)
_SMALL_ROW = (
    "SELECT g, (g % 10000)::int, CASE g % 3 WHEN 0 THEN 'new' WHEN 1 THEN 'paid' ELSE 'shipped' END,"
    " (g % 100000) / 100.0, g % 2 = 0, timestamptz '2026-01-01 00:00:00+00' + g * interval '1 second', 'note ' || g"
)
_PAYLOAD = "CREATE TABLE bench (id bigint PRIMARY KEY, payload text NOT NULL)"


def _insert_update_delete(payload_bytes: int) -> Workload:
    rows, chosen = "generate_series(i * 10 + 1, i * 10 + 10) g", "id BETWEEN i * 10 + 1 AND i * 10 + 10"
    return Workload(
        f"S{payload_bytes}",
        f"insert, update and delete as many rows of {payload_bytes} B, 10 a transaction",
        300_000,
        (_PAYLOAD,),
        (
            f"INSERT INTO bench SELECT g, repeat('0123456789', {payload_bytes // 10}) FROM {rows}",
            f"UPDATE bench SET payload = repeat('9876543210', {payload_bytes // 10}) WHERE {chosen}",
            f"DELETE FROM bench WHERE {chosen}",
        ),
        10,
    )


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "W1",
            "inserts of 7 small columns, 10 a transaction",
            1_000_000,
            (_SMALL,),
            (f"INSERT INTO bench {_SMALL_ROW} FROM generate_series(i * 10 + 1, i * 10 + 10) g",),
            10,
            every_reader=True,
        ),
        Workload(
            "W2",
            "inserts of 1 kB, one a transaction",
            300_000,
            (_PAYLOAD,),
            ("INSERT INTO bench VALUES (i, repeat('0123456789abcdef', 64))",),
            1,
            every_reader=True,
        ),
        Workload(
            "W3",
            "updates under REPLICA IDENTITY FULL, 10 a transaction",
            300_000,
            (
                _SMALL,
                "ALTER TABLE bench REPLICA IDENTITY FULL",
                f"INSERT INTO bench {_SMALL_ROW} FROM generate_series(1, {{rows}}) g",
            ),
            ("UPDATE bench SET status = 'done', amount = amount + 1 WHERE id BETWEEN i * 10 + 1 AND i * 10 + 10",),
            10,
            every_reader=True,
        ),
        *(_insert_update_delete(payload_bytes) for payload_bytes in (100, 200, 400, 1600)),
        Workload(
            "BIG",
            "inserts of 7 small columns, all in one transaction",
            1_000_000,
            (_SMALL,),
            (f"INSERT INTO bench {_SMALL_ROW} FROM generate_series(1, {{rows}}) g",),
            None,
        ),
        Workload(
            "HOT",
            "updates of one and the same row, one a transaction",
            200_000,
            (_PAYLOAD, "INSERT INTO bench VALUES (1, '')"),
            ("UPDATE bench SET payload = 'version ' || i WHERE id = 1",),
            1,
        ),
    )
}

SERVER_SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "200",
    "max_wal_senders": "20",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "512MB",
}


def create_publication(dsn: str, workload: Workload, slots: Sequence[str], publication: str) -> None:
    """Create the tables as they are before the workload, the publication, and the slots."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in workload.before:
            connection.execute(statement.replace("{rows}", str(workload.rows)))
        connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE bench").format(sql.Identifier(publication)))
        for slot in slots:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))


def prepare(dsn: str, workload: Workload, slots: Sequence[str], publication: str) -> str:
    """
    Create tables, publication and one slot for each run, then fill the slots.

    Returns:
        The LSN at which a reader has every change. One more message stands behind it, so that each reader is sent
        something that shows it.
    """
    create_publication(dsn, workload, slots, publication)
    transactions = workload.rows_per_phase // (workload.rows_per_transaction or workload.rows_per_phase)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number, statement in enumerate(workload.phases):
            # A procedure may commit: one round trip for all transactions of a phase.
            connection.execute(
                f"CREATE PROCEDURE fill_{number}(transactions bigint) LANGUAGE plpgsql AS $$ BEGIN"
                f" FOR i IN 0..transactions - 1 LOOP {statement.replace('{rows}', str(workload.rows))}; COMMIT;"
                " END LOOP; END $$"
            )
            connection.execute(f"CALL fill_{number}({transactions})")
        connection.execute("CHECKPOINT")
        end = end_lsn(dsn)
        connection.execute("SELECT pg_logical_emit_message(false, 'bench', 'past the end')")
        connection.execute("CHECKPOINT")
    return end


def end_lsn(dsn: str) -> str:
    """The WAL position at which a reader has everything that was flushed so far."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        if row is None:
            raise RuntimeError("the server did not say where its WAL ends")
        return str(row[0])
