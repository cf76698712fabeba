"""The command line: what to measure, how often, on how many rows."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg import sql

from benchmarks import report
from benchmarks.processes import ROOT, BenchmarkError, Child
from benchmarks.readers import PUBLICATION, STORE_DATABASE, Reader, Stage, readers
from benchmarks.results import ReaderResult, WorkloadResult, environment
from benchmarks.workloads import SERVER_SETTINGS, WORKLOADS, Workload, prepare
from bridge.errors import BridgeError
from bridge.local.postgres import EmbeddedPostgres
from bridge.store.postgres import PostgresStore

RESULTS = ROOT / "benchmarks" / "results"
QUICK_ROWS = 100_000


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


async def migrate(dsn: str) -> None:
    """The store's tables."""

    async def where() -> str:
        return dsn

    store = PostgresStore(where, "pgbridge")
    try:
        await store.migrate()
    finally:
        await store.close()


def measure(server: EmbeddedPostgres, workload: Workload, chosen: Sequence[Reader], runs: int) -> WorkloadResult:
    """Fill a slot for each run of each reader, then let them take turns."""
    progress = report.console(stderr=True)
    database = f"bench_{workload.name.lower()}"
    results = [ReaderResult(reader.name, reader.title, reader.transport, skipped=reader.skip()) for reader in chosen]
    slots = [[f"r{reader}_{turn}" for reader in range(len(chosen))] for turn in range(runs)]
    with (
        fresh_database(server, database) as dsn,
        fresh_database(server, STORE_DATABASE) as store_dsn,
        psycopg.connect(server.dsn(), autocommit=True) as monitor,
        Child.module("benchmarks.receiver", str(workload.rows)) as receiver,
    ):
        asyncio.run(migrate(store_dsn))
        receiver_url = receiver.line()
        progress.print(f"{workload.name}: writing {workload.rows:,} changes")
        end = prepare(dsn, workload, [slot for turn in slots for slot in turn], PUBLICATION)
        stage = Stage(server, database, end, workload.rows, monitor, receiver, receiver_url)
        for turn, names in enumerate(slots, 1):
            for reader, result, slot in zip(chosen, results, names, strict=True):
                if result.skipped is None:
                    run = reader.drain(stage, slot)
                    result.runs.append(run)
                    progress.print(
                        f"{workload.name} round {turn} of {runs}: {reader.title} over {reader.transport}:"
                        f" {run.rate:,.0f} rows/s, {run.client_us:.2f} µs/change"
                    )
                monitor.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    return WorkloadResult(workload.name, workload.title, workload.rows, results)


def choose(only: Sequence[str], *, unix: bool) -> list[Reader]:
    """The readers that the command line asks for; the reference is always among them."""
    found = readers(unix=unix)
    names = list(dict.fromkeys(reader.name for reader in found))
    for name in only:
        if name not in names:
            raise click.BadParameter(f"{name} is none of {', '.join(names)}", param_hint="--only")
    return [reader for reader in found if not only or reader.name in (*only, "recvlogical")]


@click.command()
@click.option("--workload", "workloads", multiple=True, help=f"One of {', '.join(WORKLOADS)}; may be repeated.")
@click.option("--rows", type=click.IntRange(min=1000), help="Changes of each workload; default: the workload's own.")
@click.option("--runs", type=click.IntRange(min=1), help="Runs of each reader; default: 5, with --quick 3.")
@click.option("--quick", is_flag=True, help=f"{QUICK_ROWS:,} changes each, 3 runs, over TCP.")
@click.option("--only", multiple=True, help="Readers by name; may be repeated. pg_recvlogical always runs.")
@click.option("--unix/--no-unix", default=None, help="Our readers over the unix socket too; default: unless --quick.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="JSON file; default: a new one.")
def main(
    *,
    workloads: tuple[str, ...],
    rows: int | None,
    runs: int | None,
    only: tuple[str, ...],
    unix: bool | None,
    output: Path | None,
    quick: bool,
) -> None:
    """Measure how fast a backlog drains, beside pg_recvlogical on the same backlog."""
    if sys.platform != "linux":
        raise click.ClickException("the benchmarks read CPU and memory from /proc, so they run on Linux alone")
    for name in workloads:
        if name not in WORKLOADS:
            raise click.BadParameter(f"{name} is none of {', '.join(WORKLOADS)}", param_hint="--workload")
    chosen = choose(only, unix=not quick if unix is None else unix)
    runs = runs or (3 if quick else 5)
    rows = rows or (QUICK_ROWS if quick else None)
    document: dict[str, Any] = {"drains": []}
    console = report.console()
    output = output or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with EmbeddedPostgres(settings=SERVER_SETTINGS) as server:
            with psycopg.connect(server.dsn()) as connection:
                document = {"environment": environment(connection, SERVER_SETTINGS), "runs": runs, **document}
            for name in workloads or ("W1", "W2", "W3"):
                workload = WORKLOADS[name]
                result = measure(server, workload if rows is None else workload.scaled(rows), chosen, runs)
                console.print(report.workload_table(result))
                document["drains"].append(result.document())
                # After each workload: what was measured stays, should a later one fail.
                output.write_text(json.dumps(document, indent=1), encoding="utf-8")
    except (BenchmarkError, BridgeError) as error:
        raise click.ClickException(str(error)) from error
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
