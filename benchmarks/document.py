"""
The figures of one run into docs/performance.md, between its two marks, and the chart beside it.

    python -m benchmarks.document [RESULTS.json]        default: the newest under benchmarks/results/
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from benchmarks.chart import ratios
from benchmarks.processes import ROOT
from benchmarks.report import figure_text, number_text, rate_text, ratio_text
from benchmarks.results import REFERENCE, Spread

DOCUMENT: Final = ROOT / "docs" / "performance.md"
CHART: Final = ROOT / "docs" / "performance.svg"
BEGIN: Final = "<!-- figures: begin (written by python -m benchmarks.document) -->"
END: Final = "<!-- figures: end -->"

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


def figures(results: Mapping[str, Any]) -> str:
    """The environment and every table, as Markdown."""
    return "\n\n".join(
        [
            _environment(results),
            f"![Rates as ratios to pg_recvlogical over TCP]({CHART.name})",
            *(_drain(drain) for drain in results["drains"]),
            *(
                _smaller(group, list(members))
                for group, members in groupby(results["figures"], lambda one: str(one["group"]))
            ),
        ]
    )


def replaced(text: str, new: str) -> str:
    """
    A document with other figures.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs the two lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{after}"


def _environment(results: Mapping[str, Any]) -> str:
    facts = results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    load = facts["load_average"][0]
    busy = ""
    if load > facts["cores"] / 2:
        busy = (
            "\n\n**The machine was busy with other work.** It costs most where several processes have to run at once: "
            "`pgbridge run` shares the cores with walsender, store and receiver, `pg_recvlogical` with the walsender "
            "alone. Read the CPU per change rather than the rates."
        )
    return (
        f"Measured {facts['at']}: {facts['cores']} cores ({facts['processor']}), "
        f"{facts['memory_bytes'] / _GIB:.0f} GiB, Linux {facts['kernel']}, load average {load:.1f} at the start; "
        f"PostgreSQL {facts['postgres']}, Python {facts['python']}, {packages}, decoder: {facts['decoder']}; "
        f"{results['runs']} runs of each reader."
        f"{busy}"
    )


def _drain(drain: Mapping[str, Any]) -> str:
    lines = [
        f"### {drain['workload']}: {drain['title']} ({drain['rows']:,} changes)",
        "",
        "| reader | over | rows/s | of pg_recvlogical | client CPU µs/change | walsender CPU µs/change | peak RSS |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    skipped = []
    for reader in drain["readers"]:
        if "skipped" in reader:
            skipped.append(f"Skipped: {reader['title']}: {reader['skipped']}.")
            continue
        ratio = Spread(**reader["ratio"]) if "ratio" in reader else None
        cells = (
            reader["title"],
            reader["transport"],
            rate_text(Spread(**reader["rate"])),
            "" if ratio is None else ratio_text(ratio, is_reference=reader["reader"] == REFERENCE),
            number_text(Spread(**reader["client_us"])),
            number_text(Spread(**reader["walsender_us"])),
            f"{reader['peak_rss_bytes']['high'] / _MIB:,.0f} MiB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(["", *skipped] if skipped else [])])


def _smaller(group: str, members: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"### {group}",
        "",
        "| | median [min-max] | | ratio | client CPU µs/event | |",
        "| --- | ---: | --- | ---: | ---: | --- |",
    ]
    for one in members:
        cells = (
            one["title"],
            figure_text(Spread(one["middle"], one["low"], one["high"])),
            one["unit"],
            "" if one["ratio"] is None else f"{one['ratio']:.2f}",
            "" if one["client_us"] is None else f"{one['client_us']:,.{1 if one['client_us'] < 10 else 0}f}",
            one["notes"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    written = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    if len(sys.argv) < 2 and not written:
        sys.exit("there are no results yet; run: make bench")
    results = json.loads((Path(sys.argv[1]) if len(sys.argv) > 1 else written[-1]).read_text(encoding="utf-8"))
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(encoding="utf-8"), figures(results)), encoding="utf-8")
    CHART.write_text(ratios(results["drains"]), encoding="utf-8")


if __name__ == "__main__":
    main()
