"""Each way to drain a slot, measured the same way."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

import psycopg
import yaml

from benchmarks.processes import BenchmarkError, Child, Cpu, Sampler, cpu_of, peak_rss_bytes_of
from benchmarks.results import REFERENCE, Measurement
from benchmarks.walsender import WalsenderSampler
from bridge.local.postgres import EmbeddedPostgres
from bridge.observe import log as events

Transport = Literal["tcp", "unix"]

PUBLICATION: Final = "bench"
STORE_DATABASE: Final = "store"
"""Of the same server, but not the source: the store's own WAL is not decoded, and is on the same machine."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the readers of one workload share."""

    server: EmbeddedPostgres
    database: str
    end_lsn: str
    rows: int
    monitor: psycopg.Connection
    """To look at slots and walsenders."""
    receiver: Child
    receiver_url: str

    def dsn(self, transport: Transport, database: str | None = None) -> str:
        server, database = self.server, database or self.database
        if transport == "tcp":
            return server.dsn(database)
        return (
            f"postgresql:///{database}?host={quote(str(server.socket_dir), safe='')}&port={server.port}&user=postgres"
        )


class Reader(Protocol):
    """One way to drain a slot."""

    name: str
    title: str
    transport: Transport

    def skip(self) -> str | None:
        """Why it can't run here, or None."""

    def drain(self, stage: Stage, slot: str) -> Measurement:
        """
        Read the slot to its end.

        Raises:
            BenchmarkError: not everything came.
        """


class PgRecvlogical:
    """PostgreSQL's own client; writes to the null device."""

    name = REFERENCE

    def __init__(self, transport: Transport) -> None:
        self.transport: Transport = transport
        self.title = "pg_recvlogical to the null device"

    def skip(self) -> str | None:
        return None

    def drain(self, stage: Stage, slot: str) -> Measurement:
        options = {"proto_version": "1", "publication_names": PUBLICATION, "messages": "true"}
        command: list[str | Path] = [
            *(stage.server.bin / "pg_recvlogical", "-d", stage.dsn(self.transport), "-S", slot, "--start"),
            *("--no-loop", "-f", os.devnull, "-F", "0", "-s", "5", "--endpos", stage.end_lsn),
        ]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        with (
            WalsenderSampler(stage.monitor, slot) as walsender,
            Child(command, name="pg_recvlogical") as child,
            Sampler(child.pid) as client,
        ):
            ended_at = child.wait_forever()
            child.wait()
        began_at = _began(walsender, self)
        return Measurement(
            rows=stage.rows,
            seconds=ended_at - began_at,
            client=client.cpu,
            walsender=walsender.cpu,
            peak_rss_bytes=client.peak_rss_bytes,
            startup_seconds=began_at - child.started_at,
        )


class OurReader:
    """The connection alone (`frames`), or with the assembler (`events`)."""

    def __init__(self, mode: Literal["frames", "events"], transport: Transport) -> None:
        self.name: str = mode
        self._mode = mode
        self.transport: Transport = transport
        self.title = {"frames": "our connection alone", "events": "connection and plan, to event bytes"}[mode]

    def skip(self) -> str | None:
        return None

    def drain(self, stage: Stage, slot: str) -> Measurement:
        arguments = (self._mode, stage.dsn(self.transport), slot, PUBLICATION, stage.end_lsn)
        with (
            WalsenderSampler(stage.monitor, slot) as walsender,
            Child.module("benchmarks.drain", *arguments) as child,
            Sampler(child.pid) as client,
        ):
            done = json.loads(child.line())
            child.wait()
        if self._mode == "events" and done["changes"] != stage.rows:
            raise BenchmarkError(f"{self.title} made {done['changes']} events of {stage.rows} changes")
        began_at = _began(walsender, self)
        return Measurement(
            rows=stage.rows,
            seconds=done["ended_at"] - began_at,
            client=Cpu(done["user_seconds"], done["system_seconds"]),
            walsender=walsender.cpu,
            peak_rss_bytes=client.peak_rss_bytes,
            startup_seconds=began_at - child.started_at,
        )


class PgbridgeRun:
    """The product as its users start it, to a local HTTP receiver in another process."""

    def __init__(self, batch_size: int, transport: Transport) -> None:
        self.name = f"run-{batch_size}"
        self.title = f"pgbridge run, {batch_size} events a request"
        self.transport: Transport = transport
        self._batch_size = batch_size

    def skip(self) -> str | None:
        return None

    def drain(self, stage: Stage, slot: str) -> Measurement:
        target = {"http": {"url": stage.receiver_url, "batch": True}}
        trigger = {"tables": ["public.bench"], "batch_size": self._batch_size, "target": target}
        settings = run_settings(
            stage.dsn(self.transport), stage.dsn(self.transport, STORE_DATABASE), slot, {"bench": trigger}
        )
        receiver_before = cpu_of(stage.receiver.pid) or Cpu()
        with WalsenderSampler(stage.monitor, slot) as walsender, running(settings) as run:
            cpu_before = run.streaming()
            done = json.loads(stage.receiver.line())
            cpu_after = cpu_of(run.child.pid) or Cpu()
            peak_rss_bytes = peak_rss_bytes_of(run.child.pid) or 0
            receiver_after = cpu_of(stage.receiver.pid) or Cpu()
            walsender.look()
            walsender_cpu = walsender.cpu
        if done["events"] != stage.rows:
            raise BenchmarkError(f"{self.title} delivered {done['events']} events of {stage.rows} changes")
        began_at = _began(walsender, self)
        return Measurement(
            rows=stage.rows,
            seconds=done["last_at"] - began_at,
            client=cpu_after - cpu_before,
            walsender=walsender_cpu,
            peak_rss_bytes=peak_rss_bytes,
            receiver=receiver_after - receiver_before,
            startup_seconds=began_at - run.child.started_at,
            requests=done["requests"],
        )


class Run:
    """A `pgbridge run` that is on its way."""

    def __init__(self, config: Path) -> None:
        self._streaming = threading.Event()
        self._cpu = Cpu()
        self.streaming_at = 0.0
        self.child = Child(
            [sys.executable, "-c", "from bridge.cli import main; main()", "run", "--config", config],
            name="pgbridge run",
            environ={"PGBRIDGE_LOG_LEVEL": "info"},
            on_stderr=self._read_log,
        )

    def streaming(self) -> Cpu:
        """Wait until it streams; gives the CPU that it had used by then."""
        while not self._streaming.wait(0.2):
            if cpu_of(self.child.pid) is None or self.child.ended:
                self.child.wait()
                raise BenchmarkError("pgbridge run ended before it streamed")
        return self._cpu

    def _read_log(self, line: str) -> None:
        """Called in the thread that reads stderr, as soon as a line is there."""
        if not self._streaming.is_set() and _event(line) == events.STREAMING:
            self._cpu, self.streaming_at = cpu_of(self.child.pid) or Cpu(), time.time()
            self._streaming.set()


@contextmanager
def running(settings: Mapping[str, Any]) -> Iterator[Run]:
    """
    `pgbridge run` with these settings; stopped as an operator stops it.

    Raises:
        BenchmarkError: it did not end with code 0.
    """
    with tempfile.TemporaryDirectory(prefix="pgbridge-bench-") as folder:
        config = Path(folder) / "pgbridge.yaml"
        config.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        run = Run(config)
        with run.child:
            yield run
            run.child.ask_to_stop()
            run.child.wait(60)


def run_settings(dsn: str, store_dsn: str, slot: str, triggers: Mapping[str, Any]) -> dict[str, Any]:
    """What pgbridge.yaml holds. No admin port: several may run one after the other, and nobody asks it anything."""
    return {
        "source": {"dsn": dsn, "slot": slot, "publication": PUBLICATION, "manage": False},
        "store": {"dsn": store_dsn},
        "admin": {"listen": None},
        "triggers": dict(triggers),
    }


def _event(line: str) -> str | None:
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document.get("event") if isinstance(document, dict) else None


def _began(walsender: WalsenderSampler, reader: Reader) -> float:
    if walsender.began_at is None:
        raise BenchmarkError(f"{reader.title} was through before its walsender was seen; take more rows")
    return walsender.began_at


def readers(*, unix: bool) -> list[Reader]:
    """All of them, in the order in which they take turns."""
    transports: list[Transport] = ["tcp", "unix"] if unix else ["tcp"]
    found: list[Reader] = []
    for transport in transports:
        found += [
            PgRecvlogical(transport),
            OurReader("frames", transport),
            OurReader("events", transport),
            PgbridgeRun(1000, transport),
            PgbridgeRun(100, transport),
        ]
    return found if unix else [*found, PgRecvlogical("unix")]
