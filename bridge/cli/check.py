"""`pgbridge check`: what is wrong, and what mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bridge.cli.options import config_option, json_option, load_settings
from bridge.cli.output import on_one_line, print_json

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.source.findings import Finding

_MARKS: Final = {"ok": "✓ ok     ", "advice": "· advice ", "warning": "! warning", "error": "✗ error  "}
_COLORS: Final = {"ok": "green", "advice": "blue", "warning": "yellow", "error": "red"}


@click.command(epilog="Example:  pgbridge check --json | jq '.findings[] | select(.severity == \"error\")'")
@json_option
@config_option
def command(*, config: Path, as_json: bool) -> int:
    """
    Examine database, store and targets, and name each fault and its fix.

    Changes nothing and delivers nothing. Ends with exit code 1 if there is an error; warnings are no errors.
    """
    findings = asyncio.run(_examine(load_settings(config)))
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        print_json({"ok": errors == 0, "findings": [_as_document(finding) for finding in findings]})
    else:
        _print(findings)
    return 1 if errors else 0


async def _examine(settings: Settings) -> list[Finding]:
    from bridge.clock import SystemClock  # noqa: PLC0415 - --help needs none of it
    from bridge.secret import SecretResolver  # noqa: PLC0415 - as above
    from bridge.source.preflight import examine  # noqa: PLC0415 - as above
    from bridge.store.factory import build_store  # noqa: PLC0415 - as above

    secrets = SecretResolver()
    store = build_store(settings, secrets)
    try:
        return await examine(settings, secrets, SystemClock(), store)
    finally:
        await store.close()


def _as_document(finding: Finding) -> dict[str, object]:
    return {
        "severity": finding.severity,
        "what": finding.what,
        "remedy": finding.remedy,
        "details": dict(finding.details),
    }


def _print(findings: Sequence[Finding]) -> None:
    # Words beside the marks, and colour beside both: either may be lost on the way to a reader.
    for finding in findings:
        mark = click.style(_MARKS[finding.severity], fg=_COLORS[finding.severity])
        click.echo(f"{mark}  {on_one_line(finding.what)}")
        if finding.remedy:
            click.echo(f"             {on_one_line(finding.remedy)}")
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in ("error", "warning")}
    summary = ", ".join(f"{count} {word}{'s' if count != 1 else ''}" for word, count in counts.items() if count)
    click.echo(f"\n{summary or 'all is well'}")
