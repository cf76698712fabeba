"""Dead letters as text for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click

from bridge.cli.output import printable
from bridge.store.protocol import DeadLetter

# Where nobody's eyes limit the width, every letter is one line, for grep.
_UNLIMITED_WIDTH: Final = 10_000


def print_table(letters: Sequence[DeadLetter]) -> None:
    from rich.console import Console  # noqa: PLC0415 - --help needs none of it
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "attempts", "status"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("trigger", "table", "event", "last failed"):
        table.add_column(name, no_wrap=True)
    table.add_column("error", overflow="fold")
    for letter in letters:
        cells = (
            str(letter.id),
            str(letter.attempts),
            "" if letter.status is None else str(letter.status),
            letter.trigger,
            letter.table,
            letter.event_id,
            _moment(letter.last_failed_at),
            letter.error,
        )
        table.add_row(*(Text(" ".join(printable(cell).split())) for cell in cells))
    Console(width=None if sys.stdout.isatty() else _UNLIMITED_WIDTH).print(table)


def print_letter(letter: DeadLetter) -> None:
    lines = {
        "dead letter": letter.id,
        "trigger": letter.trigger,
        "event id": letter.event_id,
        "table": letter.table,
        "error": letter.error,
        "status": letter.status,
        "request id": letter.request_id,
        "attempts": letter.attempts,
        "first failed": _moment(letter.first_failed_at),
        "last failed": _moment(letter.last_failed_at),
    }
    for name, value in lines.items():
        if value is not None:
            click.echo(f"{name + ':':<14}{printable(str(value))}")
    blocks = {"answer": letter.detail, "log tail": letter.log_tail, "event": letter.event.decode(errors="replace")}
    for name, text in blocks.items():
        if text:
            click.echo(f"{name}:")
            for line in printable(text).splitlines():
                click.echo(f"  {line}")


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
