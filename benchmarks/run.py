"""`pgbridge run` as its users start it, and how to tell when it streams."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.processes import BenchmarkError, Child, Cpu, cpu_of, peak_rss_bytes_of
from benchmarks.results import Measurement
from benchmarks.stage import PUBLICATION, STORE_DATABASE, Stage, Transport
from benchmarks.walsender import WalsenderSampler
from bridge.observe import log as events

STOP_SECONDS = 60.0

# Nobody checks them, but calls are signed with them, as they are at home.
_AWS_KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_REGION": "us-east-1"}


class Run:
    """
    A `pgbridge run` that is on its way.

    Attributes:
        child: the process.
        streaming_cpu: what it had used when it said that it streams.
    """

    def __init__(self, config: Path, *, environ: Mapping[str, str] | None = None) -> None:
        self._streaming = threading.Event()
        self.streaming_cpu = Cpu()
        self.child = Child(
            [sys.executable, "-c", "from bridge.cli import main; main()", "run", "--config", config],
            name="pgbridge run",
            environ={"PGBRIDGE_LOG_LEVEL": "info", **_AWS_KEYS, **(environ or {})},
            on_stderr=self._read_log,
        )

    def wait_until_streaming(self) -> None:
        """
        Wait until it reads the slot.

        Raises:
            BenchmarkError: it ended before.
        """
        while not self._streaming.wait(0.2):
            if self.child.ended:
                self.child.wait()
                raise BenchmarkError("pgbridge run ended before it streamed")

    def _read_log(self, line: str) -> None:
        """Called in the thread that reads stderr, as soon as a line is there."""
        if not self._streaming.is_set() and _event(line) == events.STREAMING:
            self.streaming_cpu = cpu_of(self.child.pid) or Cpu()
            self._streaming.set()


@contextmanager
def running(settings: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> Iterator[Run]:
    """
    `pgbridge run` with these settings; stopped as an operator stops it.

    Raises:
        BenchmarkError: it did not end with code 0.
    """
    with tempfile.TemporaryDirectory(prefix="pgbridge-bench-") as folder:
        config = Path(folder) / "pgbridge.yaml"
        config.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        run = Run(config, environ=environ)
        with run.child:
            yield run
            run.child.ask_to_stop()
            run.child.wait(STOP_SECONDS)


def settings(stage: Stage, transport: Transport, slot: str, trigger: Mapping[str, Any]) -> dict[str, Any]:
    """What pgbridge.yaml holds; the publication is the benchmark's own, and nobody asks the admin port anything."""
    return {
        "source": {"dsn": stage.dsn(transport), "slot": slot, "publication": PUBLICATION, "manage": False},
        "store": {"dsn": stage.dsn(transport, STORE_DATABASE)},
        "admin": {"listen": None},
        "triggers": {"bench": {"tables": ["public.bench"], **trigger}},
    }


def drain(
    stage: Stage,
    transport: Transport,
    slot: str,
    trigger: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
) -> Measurement:
    """
    Let one trigger's target have everything that the slot holds.

    Raises:
        BenchmarkError: something else came than what was written.
    """
    receiver_before = cpu_of(stage.receiver.pid) or Cpu()
    with (
        WalsenderSampler(stage.monitor, slot) as walsender,
        running(settings(stage, transport, slot, trigger), environ=environ) as run,
    ):
        run.wait_until_streaming()
        done = json.loads(stage.receiver.line(while_running=run.child))
        client = (cpu_of(run.child.pid) or Cpu()) - run.streaming_cpu
        receiver = (cpu_of(stage.receiver.pid) or Cpu()) - receiver_before
        peak_rss_bytes = peak_rss_bytes_of(run.child.pid) or 0
        walsender.look()
        walsender_cpu = walsender.cpu
    began_at = walsender.began()
    return Measurement(
        rows=stage.delivered(done, "pgbridge run"),
        seconds=done["last_at"] - began_at,
        client=client,
        walsender=walsender_cpu,
        peak_rss_bytes=peak_rss_bytes,
        receiver=receiver,
        startup_seconds=began_at - run.child.started_at,
        requests=done["requests"],
        first_seconds=done["first_at"] - began_at,
    )


def _event(line: str) -> str | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document.get("event") if isinstance(document, dict) else None
