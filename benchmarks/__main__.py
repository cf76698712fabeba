"""The command line: what to measure, how often, on how many rows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psycopg

from benchmarks import debezium, filters, latency, report, singles
from benchmarks.processes import ROOT, BenchmarkError
from benchmarks.readers import PgbridgeRun, PgRecvlogical, Reader, readers
from benchmarks.results import Figure, ReaderResult, WorkloadResult, environment
from benchmarks.stage import staged
from benchmarks.workloads import SERVER_SETTINGS, WORKLOADS, Workload
from bridge.errors import BridgeError
from bridge.local.postgres import EmbeddedPostgres

RESULTS = ROOT / "benchmarks" / "results"
QUICK_ROWS = 100_000


def measure(server: EmbeddedPostgres, workload: Workload, chosen: Sequence[Reader], runs: int) -> WorkloadResult:
    """Fill a slot for each run of each reader, then let them take turns."""
    progress = report.console(stderr=True)
    results = [ReaderResult(reader.name, reader.title, reader.transport, skipped=reader.skip()) for reader in chosen]
    slots = [[f"r{reader}_{turn}" for reader in range(len(chosen))] for turn in range(runs)]
    progress.print(f"{workload.name}: writing {workload.rows:,} changes")
    also = ["--also", debezium.MARKER] if any(one.name == "debezium" and not one.skipped for one in results) else []
    with staged(server, workload, [slot for turn in slots for slot in turn], receiver_arguments=also) as stage:
        for turn, names in enumerate(slots, 1):
            for reader, result, slot in zip(chosen, results, names, strict=True):
                if result.skipped is None:
                    run = reader.drain(stage, slot)
                    result.runs.append(run)
                    progress.print(
                        f"{workload.name} round {turn} of {runs}: {reader.title} over {reader.transport}:"
                        f" {run.rate:,.0f} rows/s, {run.client_us:.2f} µs/change"
                    )
                stage.drop(slot)
    return WorkloadResult(workload.name, workload.title, workload.rows, results)


@dataclass(frozen=True, slots=True)
class Smaller:
    """A measurement that is no drain."""

    measure: Callable[[EmbeddedPostgres, int, int], list[Figure]]
    """Server, how many events, how often."""
    events: int
    quick_events: int


SMALLER = {
    "latency": Smaller(latency.measure, 8_000, 2_000),
    "calls": Smaller(singles.measure, 10_000, 2_000),
    "filters": Smaller(filters.measure, 200_000, 20_000),
}


def _essential(reader: Reader) -> bool:
    return reader.transport == "tcp" and isinstance(reader, (PgRecvlogical, PgbridgeRun)) and not reader.pure


def choose(only: Sequence[str], *, unix: bool, with_debezium: bool) -> list[Reader]:
    """The readers that the command line asks for; the reference is always among them."""
    found = readers(unix=unix, with_debezium=with_debezium)
    names = list(dict.fromkeys(reader.name for reader in found))
    for name in only:
        if name not in names:
            raise click.BadParameter(f"{name} is none of {', '.join(names)}", param_hint="--only")
    return [reader for reader in found if not only or reader.name in (*only, "recvlogical")]


@click.command()
@click.option(
    "--workload", "workloads", multiple=True, help=f"One of {', '.join([*WORKLOADS, *SMALLER])}; may be repeated."
)
@click.option("--rows", type=click.IntRange(min=1000), help="Changes of each workload; default: the workload's own.")
@click.option("--runs", type=click.IntRange(min=1), help="Runs of each reader; default: 5, with --quick 3.")
@click.option("--quick", is_flag=True, help=f"{QUICK_ROWS:,} changes each, 3 runs, over TCP.")
@click.option("--only", multiple=True, help="Readers by name; may be repeated. pg_recvlogical always runs.")
@click.option("--unix/--no-unix", default=None, help="Our readers over the unix socket too; default: unless --quick.")
@click.option("--debezium", "with_debezium", is_flag=True, help="Debezium too; installs it into .venv-debezium.")
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
    with_debezium: bool,
) -> None:
    """Measure how fast a backlog drains, beside pg_recvlogical on the same backlog."""
    if sys.platform != "linux":
        raise click.ClickException("the benchmarks read CPU and memory from /proc, so they run on Linux alone")
    names = [*WORKLOADS, *SMALLER]
    for name in workloads:
        if name not in names:
            raise click.BadParameter(f"{name} is none of {', '.join(names)}", param_hint="--workload")
    chosen = choose(only, unix=not quick if unix is None else unix, with_debezium=with_debezium)
    runs = runs or (3 if quick else 5)
    quick_rows = QUICK_ROWS if quick and rows is None else None
    document: dict[str, Any] = {"drains": [], "figures": []}
    console = report.console()
    output = output or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with EmbeddedPostgres(settings=SERVER_SETTINGS) as server:
            with psycopg.connect(server.dsn()) as connection:
                document = {"environment": environment(connection, SERVER_SETTINGS), "runs": runs, **document}
            for name in workloads or (*WORKLOADS, *SMALLER):
                if name in WORKLOADS:
                    workload = WORKLOADS[name]
                    some = chosen if workload.every_reader or only else [one for one in chosen if _essential(one)]
                    result = measure(server, workload.scaled(rows or quick_rows or workload.rows), some, runs)
                    console.print(report.workload_table(result))
                    document["drains"].append(result.document())
                else:
                    smaller = SMALLER[name]
                    events = rows if quick_rows is None else smaller.quick_events
                    figures = smaller.measure(server, events or smaller.events, runs)
                    console.print(report.figure_table(figures[0].group, figures))
                    document["figures"] += [figure.document() for figure in figures]
                # After each of them: what was measured stays, should a later one fail.
                output.write_text(json.dumps(document, indent=1), encoding="utf-8")
    except (BenchmarkError, BridgeError) as error:
        raise click.ClickException(str(error)) from error
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
