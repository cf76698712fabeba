"""Commit to receipt under a steady load: the commit's own timestamp against the clock of the receiver."""

from __future__ import annotations

import json
from typing import Any, Final

from benchmarks import report, run
from benchmarks.processes import BenchmarkError, Child
from benchmarks.results import Figure, Spread
from benchmarks.stage import staged
from benchmarks.workloads import WORKLOADS
from bridge.local.postgres import EmbeddedPostgres

COMMITS_PER_SECOND: Final = 1000
GROUP: Final = f"Commit to receipt, {COMMITS_PER_SECOND:,} single-row commits/s"
# Connections are made and code is loaded with the first events.
_WARM_UP: Final = COMMITS_PER_SECOND

_SHARES: Final = (("p50", 0.50), ("p99", 0.99), ("max", 1.0))


def measure(server: EmbeddedPostgres, events: int, runs: int) -> list[Figure]:
    """In ms, for batches and for one event a request; the first second comes besides, and is left out."""
    progress = report.console(stderr=True)
    commits = events + _WARM_UP
    figures = []
    for title, trigger in (
        ("pgbridge run, batches", {"batch_size": 100, "http": {"batch": True}}),
        ("pgbridge run, one event a request", {"http": {"batch": False}}),
    ):
        measured: dict[str, list[float]] = {name: [] for name, _ in _SHARES}
        rates = []
        for turn in range(1, runs + 1):
            rate, latencies = _one(server, commits, dict(trigger))
            rates.append(rate)
            for name, share in _SHARES:
                measured[name].append(latencies[min(int(len(latencies) * share), len(latencies) - 1)])
            progress.print(
                f"latency round {turn} of {runs}: {title}: "
                + ", ".join(f"{name} {values[-1]:.2f} ms" for name, values in measured.items())
                + f", {rate:,.0f} commits/s"
            )
        notes = f"{commits - _WARM_UP:,} commits at {min(rates):,.0f}/s or more"
        figures += [Figure(GROUP, f"{title}, {name}", "ms", Spread.of(measured[name]), notes) for name, _ in _SHARES]
    return figures


def _one(server: EmbeddedPostgres, commits: int, trigger: dict[str, Any]) -> tuple[float, list[float]]:
    """Commits per second as reached, and the latencies in ms in ascending order."""
    workload = WORKLOADS["W1"].scaled(commits)
    with staged(server, workload, ["latency"], filled=False, receiver_arguments=["--latency"]) as stage:
        trigger["target"] = {"http": {"url": stage.receiver_url, **trigger.pop("http")}}
        with run.running(run.settings(stage, "tcp", "latency", trigger)) as running:
            running.wait_until_streaming()
            with Child.module("benchmarks.writer", stage.dsn(), str(COMMITS_PER_SECOND), str(workload.rows)) as writer:
                done = json.loads(stage.receiver.line(while_running=running.child))
                written = json.loads(writer.line())
                writer.wait()
    latencies = done["latencies_ms"][_WARM_UP:]
    if not latencies:
        raise BenchmarkError("nothing is left to measure after the warm-up")
    return written["commits_per_second"], sorted(latencies)
