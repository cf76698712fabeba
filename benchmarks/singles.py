"""One event a call: `pgbridge run` beside a bare loop of the library that makes the call."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import report, run
from benchmarks.processes import Child, Cpu, cpu_of
from benchmarks.results import Figure, Measurement, Spread
from benchmarks.stage import Stage, staged
from benchmarks.workloads import WORKLOADS
from bridge.local.postgres import EmbeddedPostgres

CONCURRENCY: Final = 10
GROUP: Final = "One event a call, 10 calls in flight, W1's rows"

# An event of W1 as it is sent, so that the bare loops send as many bytes, and the receiver finds what it counts.
_EVENT: Final = (
    b'{"id":"0000000001F35D08-0000000000","action":"insert","record":{"id":4711,"customer":4711,"status":"paid",'
    b'"amount":"47.11","flag":false,"created_at":"2026-01-01T01:18:31Z","note":"note 4711"},"changes":null,"metadata":'
    b'{"source":"pgbridge","database":"bench_w1","table_schema":"public","table_name":"bench","commit_lsn":32726280,'
    b'"commit_idx":0,"commit_timestamp":"2026-11-22T05:37:00.123456Z","transaction_id":4711,"keys":{"id":4711},'
    b'"old_keys":null,"unavailable":[],"trigger":"bench","idempotency_key":"0123456789abcdef0123456789abcdef"}}'
)


@dataclass(slots=True)
class _Line:
    title: str
    measure: Callable[[Stage, str], Measurement]
    against: str | None = None


def measure(server: EmbeddedPostgres, calls: int, runs: int) -> list[Figure]:
    """Webhooks and Lambda invocations, each beside its bare loop; they take turns."""
    lines = [
        _Line("aiohttp alone", lambda stage, _: _bare(stage, "aiohttp", _EVENT)),
        _Line("pgbridge run, webhook", lambda stage, slot: _ours(stage, slot, _webhook(stage)), "aiohttp alone"),
        _Line("boto3 invoke alone", lambda stage, _: _bare(stage, "boto3", b'{"Records":[' + _EVENT + b"]}")),
        _Line("pgbridge run, Lambda", lambda stage, slot: _ours(stage, slot, _lambda(stage)), "boto3 invoke alone"),
    ]
    progress = report.console(stderr=True)
    measured: dict[str, list[Measurement]] = {line.title: [] for line in lines}
    slots = [f"c{turn}_{number}" for turn in range(runs) for number in range(len(lines))]
    with staged(server, WORKLOADS["W1"].scaled(calls), slots) as stage:
        names = iter(slots)
        for turn in range(1, runs + 1):
            for line in lines:
                slot = next(names)
                one = line.measure(stage, slot)
                measured[line.title].append(one)
                stage.drop(slot)
                progress.print(f"calls round {turn} of {runs}: {line.title}: {one.rate:,.0f}/s")
    return [_figure(line, measured) for line in lines]


def _figure(line: _Line, measured: Mapping[str, list[Measurement]]) -> Figure:
    rates = Spread.of([one.rate for one in measured[line.title]])
    bare = None if line.against is None else Spread.of([one.rate for one in measured[line.against]])
    return Figure(
        GROUP,
        line.title,
        "calls/s",
        rates,
        against=line.against,
        ratio=None if bare is None else rates.middle / bare.middle,
        client_us=Spread.of([one.client_us for one in measured[line.title]]).middle,
        notes="" if line.against is None else f"beside {line.against}",
    )


def _webhook(stage: Stage) -> dict[str, Any]:
    return {"target": {"http": {"url": stage.receiver_url}}, "parallelization_factor": CONCURRENCY}


def _lambda(stage: Stage) -> dict[str, Any]:
    # The receiver answers `{}` to whatever is posted, as a function without a batch response does.
    function = {"function_name": "bench", "endpoint_url": stage.receiver_url, "timeout_in_seconds": 30}
    return {"target": {"lambda": function}, "batch_size": 1, "parallelization_factor": CONCURRENCY}


def _ours(stage: Stage, slot: str, trigger: Mapping[str, Any]) -> Measurement:
    return run.drain(stage, "tcp", slot, trigger)


def _bare(stage: Stage, library: str, body: bytes) -> Measurement:
    receiver_before = cpu_of(stage.receiver.pid) or Cpu()
    arguments = [library, stage.receiver_url, str(stage.rows), str(CONCURRENCY)]
    with Child([sys.executable, "-m", "benchmarks.calls", *arguments], name=library, stdin=body) as child:
        received = json.loads(stage.receiver.line())
        done = json.loads(child.line())
        child.wait()
    return Measurement(
        rows=stage.delivered(received, library),
        seconds=received["last_at"] - done["began_at"],
        client=Cpu(done["user_seconds"], done["system_seconds"]),
        walsender=Cpu(),
        peak_rss_bytes=0,
        receiver=(cpu_of(stage.receiver.pid) or Cpu()) - receiver_before,
        requests=received["requests"],
    )
