"""Dead letters as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import click

from bridge.cli.output import on_one_line, printable, terminal_width
from bridge.store.protocol import DeadLetter

_HEADER: Final = ("id", "attempts", "status", "trigger", "table", "event", "last failed", "error")
_NUMBERS: Final = 3
"""So many columns stand to the right."""

_ROOM_FOR_ERROR: Final = 24
"""Characters that an error needs for a column of its own to be readable."""


def print_table(letters: Sequence[DeadLetter]) -> None:
    """A line for each letter, for eyes and for grep; where the terminal is too narrow for it, a paragraph."""
    for line in table_lines(letters, terminal_width()):
        click.echo(line)


def table_lines(letters: Sequence[DeadLetter], width: int | None) -> Iterator[str]:
    """The lines of a table of letters; `width` in characters, None where nobody's eyes limit it."""
    from rich.cells import cell_len  # noqa: PLC0415 - --help needs none of it

    rows = [_cells(letter) for letter in letters]
    table = [_HEADER, *rows]
    widths = [max(cell_len(row[index]) for row in table) for index in range(len(_HEADER) - 1)]
    before = sum(widths) + 2 * len(widths)
    if width is not None and width < before + _ROOM_FOR_ERROR:
        for row in rows:
            yield from _paragraph(row, width)
        return
    for row in table:
        cells = []
        for index, (cell, column) in enumerate(zip(row[:-1], widths, strict=True)):
            room = " " * (column - cell_len(cell))
            cells.append(room + cell if index < _NUMBERS else cell + room)
        first, *rest = [row[-1]] if width is None else textwrap.wrap(row[-1], width - before) or [""]
        yield f"{'  '.join(cells)}  {first}".rstrip()
        yield from (" " * before + line for line in rest)


def _cells(letter: DeadLetter) -> tuple[str, ...]:
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
    return tuple(on_one_line(" ".join(printable(cell).split())) for cell in cells)


def _paragraph(cells: Sequence[str], width: int) -> Iterator[str]:
    """Who and what; how it went; why: each from a line of its own on."""
    number, attempts, status, trigger, table, event_id, moment, error = cells
    times = f"{attempts} attempt{'' if attempts == '1' else 's'}"
    went = ", ".join(filter(None, (times, f"status {status}" if status else "", f"last failed {moment}")))
    indent = " " * (len(number) + 2)
    first = f"{number}  "
    for text in (f"{trigger}  {table}", event_id, went, error):
        lines = textwrap.wrap(text, max(width - len(indent), 20), break_on_hyphens=False) or [""]
        for line in lines:
            yield (first + line).rstrip()
            first = indent


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
