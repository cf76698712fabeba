"""What was measured, as values: one run, all runs of a reader, all readers on a workload."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg

from benchmarks.processes import ROOT, Cpu
from bridge.pgoutput.execution import DEFAULT


class Spread(NamedTuple):
    """The median of several runs, and the range they were in."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    One run of one reader.

    Attributes:
        seconds: from the walsender's START_REPLICATION until the last change was where it should be.
        client: CPU of the reader's process within that time.
        walsender: CPU of the walsender, all its life.
        receiver: CPU of the HTTP receiver; None where there is none.
        startup_seconds: from the start of the process until it streamed; None where it was not told apart.
        requests: calls that the receiver took.
        first_seconds: from START_REPLICATION until the receiver had the first call.
    """

    rows: int
    seconds: float
    client: Cpu
    walsender: Cpu
    peak_rss_bytes: int
    receiver: Cpu | None = None
    startup_seconds: float | None = None
    requests: int | None = None
    first_seconds: float | None = None

    @property
    def rate(self) -> float:
        return self.rows / self.seconds

    @property
    def client_us(self) -> float:
        return self.client.seconds / self.rows * 1e6

    @property
    def walsender_us(self) -> float:
        return self.walsender.seconds / self.rows * 1e6

    def document(self) -> dict[str, Any]:
        cpus = {"client": self.client, "walsender": self.walsender, "receiver": self.receiver}
        return {
            "seconds": self.seconds,
            "rows_per_second": self.rate,
            "client_us_per_change": self.client_us,
            "walsender_us_per_change": self.walsender_us,
            "peak_rss_bytes": self.peak_rss_bytes,
            "startup_seconds": self.startup_seconds,
            "requests": self.requests,
            "first_seconds": self.first_seconds,
            "cpu_seconds": {
                name: None if cpu is None else {"user": cpu.user_seconds, "system": cpu.system_seconds}
                for name, cpu in cpus.items()
            },
        }


@dataclass(slots=True)
class ReaderResult:
    """All runs of one reader on one workload."""

    name: str
    title: str
    transport: str
    runs: list[Measurement] = field(default_factory=list)
    skipped: str | None = None
    """Why there are no runs."""

    def spread(self, attribute: str) -> Spread:
        return Spread.of([getattr(run, attribute) for run in self.runs])

    def ratio(self, reference: ReaderResult) -> Spread:
        """Of the rates' medians; the range is that of the rounds, each against the reference's run of that round."""
        rounds = [mine.rate / theirs.rate for mine, theirs in zip(self.runs, reference.runs, strict=False)]
        return Spread(self.spread("rate").middle / reference.spread("rate").middle, min(rounds), max(rounds))


REFERENCE = "recvlogical"
_PACKAGES = ("psycopg", "orjson", "aiohttp", "uvloop", "pgbridge")


@dataclass(slots=True)
class WorkloadResult:
    """All readers on one workload."""

    name: str
    title: str
    rows: int
    readers: list[ReaderResult]
    wal_bytes: int = 0

    def reference(self, transport: str) -> ReaderResult | None:
        """pg_recvlogical over that transport, where it ran."""
        found = (one for one in self.readers if one.name == REFERENCE and one.transport == transport and one.runs)
        return next(found, None)

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.name,
            "title": self.title,
            "rows": self.rows,
            "wal_bytes": self.wal_bytes,
            "readers": [self._reader_document(reader) for reader in self.readers],
        }

    def _reader_document(self, reader: ReaderResult) -> dict[str, Any]:
        document: dict[str, Any] = {"reader": reader.name, "title": reader.title, "transport": reader.transport}
        if reader.skipped is not None:
            return {**document, "skipped": reader.skipped}
        for attribute in ("rate", "client_us", "walsender_us", "peak_rss_bytes"):
            document[attribute] = reader.spread(attribute)._asdict()
        reference = self.reference(reader.transport)
        if reference is not None:
            document["ratio"] = reader.ratio(reference)._asdict()
        return {**document, "runs": [run.document() for run in reader.runs]}


@dataclass(slots=True)
class Figure:
    """One line of a smaller measurement: a rate beside its bare counterpart, or a latency."""

    group: str
    title: str
    unit: str
    spread: Spread
    notes: str = ""
    against: str | None = None
    """The title of the line that it is a ratio to."""
    ratio: float | None = None
    client_us: float | None = None
    """CPU of the client for each event."""

    def document(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "title": self.title,
            "unit": self.unit,
            **self.spread._asdict(),
            "notes": self.notes,
            "against": self.against,
            "ratio": self.ratio,
            "client_us": self.client_us,
        }


def environment(connection: psycopg.Connection, settings: dict[str, str]) -> dict[str, Any]:
    """What the figures depend on."""
    version = connection.execute("SELECT current_setting('server_version')").fetchone()
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgres": version[0] if version else None,
        "libpq": psycopg.pq.version(),
        "psycopg_implementation": psycopg.pq.__impl__,
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "decoder": DEFAULT.name,
        "commit": _commit(),
        "server_settings": settings,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None  # uvloop is not for every platform


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str | None:
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()
