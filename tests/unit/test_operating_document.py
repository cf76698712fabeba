"""docs/operating.md beside the code: exit codes, metrics, log events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bridge import cli
from bridge.errors import BridgeError
from bridge.observe import health, log, metrics
from bridge.service import DRAIN_SECONDS

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")


def kinds(of: type[BridgeError]) -> Iterator[type[BridgeError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


def constants(module: object) -> set[str]:
    return {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


def test_each_exit_code_is_there_and_no_other():
    told = {
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \| .* \| .* \|$", PAGE, re.MULTILINE)
        for code in row.split(", ")
    }
    codes = {kind.exit_code for kind in kinds(BridgeError) if kind.__module__ == "bridge.errors"} - {1}
    assert told == codes | {0, cli.INTERRUPTED, cli.PIPE_CLOSED}


def test_the_metrics_are_such():
    told = set(re.findall(r"`(pgbridge_\w+)", PAGE))
    assert len(told) > 20
    assert told <= constants(metrics)


def test_the_log_events_are_such():
    table = PAGE.partition("| `event` in the log | level |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`([a-z ]+)`", table.replace("`times`", "")))
    assert len(told) >= 7
    assert told <= constants(log)


def test_the_times_are_those_of_the_code():
    assert f"calls in\nflight get {DRAIN_SECONDS:.0f} seconds" in PAGE
    assert f"stream silent for {health.STREAM_SILENT_SECONDS:.0f} s" in PAGE
    assert f"out of reach for {health.RECONNECTING_SECONDS / 60:.0f} min" in PAGE
