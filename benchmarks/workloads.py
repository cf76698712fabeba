"""The workloads: what is in the slot when the readers start."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql


@dataclass(frozen=True, slots=True)
class Workload:
    """
    Attributes:
        name: as in the tables.
        rows: changes that a reader has to deliver.
        prepare: statements before the slots are made.
        transactions: statement run by a procedure, once for each transaction.
        rows_per_transaction: changes each of them makes.
    """

    name: str
    title: str
    rows: int
    prepare: tuple[str, ...]
    statement: str
    rows_per_transaction: int

    def scaled(self, rows: int) -> Workload:
        """The same with another number of rows."""
        return Workload(self.name, self.title, rows, self.prepare, self.statement, self.rows_per_transaction)


_SMALL = (
    "CREATE TABLE bench (id bigint PRIMARY KEY, customer int NOT NULL, status text, amount numeric(12,2),"
    " flag boolean, created_at timestamptz, note text)"
)
_SMALL_ROW = (
    "SELECT g, (g % 10000)::int, CASE g % 3 WHEN 0 THEN 'new' WHEN 1 THEN 'paid' ELSE 'shipped' END,"
    " (g % 100000) / 100.0, g % 2 = 0, timestamptz '2026-01-01 00:00:00+00' + g * interval '1 second', 'note ' || g"
)

WORKLOADS = {
    "W1": Workload(
        "W1",
        "inserts of 7 small columns, 10 a transaction",
        1_000_000,
        (_SMALL,),
        f"INSERT INTO bench {_SMALL_ROW} FROM generate_series(i * 10 + 1, i * 10 + 10) g",  # noqa: S608
        10,
    ),
    "W2": Workload(
        "W2",
        "inserts of 1 kB, one a transaction",
        300_000,
        ("CREATE TABLE bench (id bigint PRIMARY KEY, payload text NOT NULL)",),
        "INSERT INTO bench VALUES (i, repeat('0123456789abcdef', 64))",
        1,
    ),
    "W3": Workload(
        "W3",
        "updates under REPLICA IDENTITY FULL, 10 a transaction",
        300_000,
        (
            _SMALL,
            "ALTER TABLE bench REPLICA IDENTITY FULL",
            f"INSERT INTO bench {_SMALL_ROW} FROM generate_series(1, 300000) g",  # noqa: S608
        ),
        "UPDATE bench SET status = 'done', amount = amount + 1 WHERE id BETWEEN i * 10 + 1 AND i * 10 + 10",
        10,
    ),
}
SERVER_SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "64",
    "max_wal_senders": "64",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "512MB",
}


def prepare(dsn: str, workload: Workload, slots: list[str], publication: str) -> None:
    """Create the tables, the publication and one slot for each run, then fill the slots."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in workload.prepare:
            connection.execute(statement)
        connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE bench").format(sql.Identifier(publication)))
        for slot in slots:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        # A procedure may commit: one round trip for all transactions.
        connection.execute(
            "CREATE PROCEDURE fill(first bigint, last bigint) LANGUAGE plpgsql AS $$"
            f" BEGIN FOR i IN first..last LOOP {workload.statement}; COMMIT; END LOOP; END $$"
        )
        connection.execute("CALL fill(%s, %s)", (0, workload.rows // workload.rows_per_transaction - 1))
        connection.execute("SELECT pg_logical_emit_message(false, 'bench', 'end')")
        connection.execute("CHECKPOINT")


def end_lsn(dsn: str) -> str:
    """The WAL position at which a reader has everything."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        if row is None:
            raise RuntimeError("the server did not say where its WAL ends")
        return str(row[0])
