"""`make chaos`: every fault in turn, again and again with other seeds, until the time is over."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psycopg

from bridge.local.postgres import EmbeddedPostgres
from chaos import faults
from chaos import outage as outages
from chaos.rig import SERVER_SETTINGS, Rig, Tally


@dataclass(slots=True)
class Row:
    """What is known of one fault so far."""

    name: str
    tallies: list[Tally] = field(default_factory=list)
    failures: int = 0


async def run_once(server: EmbeddedPostgres, fault: faults.Fault, folder: Path, *, seed: int, rate: int) -> Tally:
    """One fault under load, and its reconciliation."""
    async with Rig(
        server,
        folder,
        seed=seed,
        rate=rate,
        poison=fault.poison,
        after_seconds=fault.after_seconds,
        after_bytes=fault.after_bytes,
        timeout_seconds=fault.timeout_seconds,
    ) as rig:
        rig.workload.start()
        await fault.act(rig, fault.times)
        return await rig.finish()


def table(rows: Sequence[Row]) -> str:
    """Fault, runs, changes, lost, reordered, repeated, time to recover."""
    head = ("fault", "runs", "kills", "changes", "lost", "reordered", "repeated", "other", "recovery, median", "worst")
    lines = [head]
    for row in rows:
        reports = [tally.report for tally in row.tallies]
        times = sorted(seconds for tally in row.tallies for seconds in tally.recovery_seconds)
        other = sum(sum(report.faults.values()) - len(report.lost) - len(report.reordered) for report in reports)
        lines.append(
            (
                row.name,
                str(len(reports) + row.failures),
                str(sum(tally.kills for tally in row.tallies)),
                f"{sum(report.changes for report in reports):,}",
                str(sum(len(report.lost) for report in reports)),
                str(sum(len(report.reordered) for report in reports)),
                f"{sum(report.repeated for report in reports):,}",
                str(other + row.failures),
                f"{times[len(times) // 2]:.2f} s" if times else "",
                f"{times[-1]:.2f} s" if times else "",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


async def storm(chosen: Sequence[faults.Fault], *, minutes: float, rounds: int, seed: int, rate: int) -> bool:
    """Whether all went well."""
    rows = {fault.name: Row(fault.name) for fault in chosen}
    deadline = time.monotonic() + 60 * minutes
    numbers = random.Random(seed)
    scratch = Path(tempfile.mkdtemp(prefix="pgbridge-chaos-"))
    number = 0
    try:
        with EmbeddedPostgres(settings=SERVER_SETTINGS) as server:
            while (number < rounds * len(chosen)) if rounds else (number == 0 or time.monotonic() < deadline):
                fault = chosen[number % len(chosen)]
                number += 1
                its_seed, folder = numbers.getrandbits(32), scratch / f"{number:04d}"
                started = time.monotonic()
                try:
                    tally = await run_once(server, fault, folder, seed=its_seed, rate=rate)
                except (AssertionError, TimeoutError, psycopg.Error) as error:
                    rows[fault.name].failures += 1
                    click.echo(f"FAILED {fault.name}: {type(error).__name__} {error}; logs are in {folder}", err=True)
                    server.start()
                    continue
                rows[fault.name].tallies.append(tally)
                seconds = time.monotonic() - started
                bad = bool(tally.report.faults)
                click.echo(f"{'FAILED ' if bad else ''}{fault.name}: {tally.report} in {seconds:.1f} s", err=True)
                if bad:
                    click.echo(f"logs and ledger are in {folder}", err=True)
                else:
                    shutil.rmtree(folder)
    finally:
        click.echo(table([row for row in rows.values() if row.tallies or row.failures]))
        tallies = [tally for row in rows.values() for tally in row.tallies]
        changes, kills = sum(tally.report.changes for tally in tallies), sum(tally.kills for tally in tallies)
        adjacent = sum(tally.adjacent_commits for tally in tallies)
        click.echo(f"{changes:,} changes, {kills} kills, {adjacent:,} pairs of adjacent commits, seed {seed}")
        good = not any(row.failures or any(tally.report.faults for tally in row.tallies) for row in rows.values())
        if good:
            shutil.rmtree(scratch)
    return good


@click.command(epilog="Example:  make chaos ARGS='--minutes 10 --only killed'")
@click.option("--minutes", default=20.0, show_default=True, help="How long; every fault has its turn in each round.")
@click.option("--rounds", default=0, help="That many rounds instead.")
@click.option("--seed", type=int, help="Of the faults' own choices; default: another one each time.")
@click.option("--rate", default=1500, show_default=True, help="Transactions committed a second; changes, of an outage.")
@click.option("--only", multiple=True, help="Faults whose name holds this; may be given more than once.")
@click.option("--short", is_flag=True, help="The faults of the short form.")
@click.option("--outage", type=int, help="So many changes instead, with one of two triggers down: `outage.py`.")
@click.option("--list", "listing", is_flag=True, help="Print the faults' names.")
def main(
    minutes: float,
    rounds: int,
    seed: int | None,
    rate: int,
    only: tuple[str, ...],
    *,
    short: bool,
    outage: int | None,
    listing: bool,
) -> None:
    """Let everything go wrong, and compare what was committed with what arrived."""
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # of links that were cut it has much to say
    if outage:
        sys.exit(asyncio.run(until_told(show_outage(outage, rate))))
    known = faults.short_form() if short else list(faults.ALL.values())
    chosen = [fault for fault in known if not only or any(part in fault.name for part in only)]
    if listing:
        click.echo("\n".join(fault.name for fault in chosen))
        return
    if not chosen:
        raise click.UsageError("no fault has such a name; see --list")
    seed = random.randrange(2**32) if seed is None else seed
    sys.exit(asyncio.run(until_told(storm(chosen, minutes=minutes, rounds=rounds, seed=seed, rate=rate))))


async def show_outage(changes: int, rate: int) -> bool:
    """Whether all was as promised."""
    with tempfile.TemporaryDirectory(prefix="pgbridge-outage-") as folder:
        text, good = outages.table(await outages.measure(changes, rate, Path(folder)))
    click.echo(text)
    return good


async def until_told(work: Coroutine[Any, Any, bool]) -> int:
    """
    The exit code: of the work, or of SIGINT or SIGTERM, which end it as an error would, with everything put away.

    The processes of a run have sessions of their own, so that what the terminal sends is for us alone.
    """
    loop, told = asyncio.get_running_loop(), []
    working = loop.create_task(work)

    def end(number: signal.Signals) -> None:
        if not told:
            click.echo("ending the processes of this run", err=True)
            working.cancel()
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    try:
        return 0 if await working else 1
    except asyncio.CancelledError:
        if not told:
            raise
        return 128 + told[0]


if __name__ == "__main__":
    main(prog_name="make chaos")
