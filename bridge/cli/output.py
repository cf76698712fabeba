"""What commands print for people: aligned columns, sizes, durations, text that a terminal may see."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Final

import click
import orjson

UNKNOWN: Final = "-"

# Characters that a terminal would act on instead of showing, line breaks included, and those that no output can hold.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def print_json(document: Any) -> None:
    """One JSON document on one line, for other programs."""
    click.echo(orjson.dumps(document, option=orjson.OPT_UTC_Z))


def say(message: str) -> None:
    """One line on stderr, for people, in the words that errors begin with."""
    click.echo(f"pgbridge: {message}", err=True)


def printable(text: str) -> str:
    """Text of foreign origin, safe for a terminal; it keeps its lines and tabs, and nothing else of what moves one."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\t\n" else _shown(match), text)


def on_one_line(text: str, width: int | None = None) -> str:
    """The same, its lines and tabs spelled out too, and cut to a width."""
    shown = _CONTROL.sub(_shown, text)
    if width is not None and len(shown) > width:
        return shown[: max(width - 1, 0)] + "…"
    return shown


def size(value: int | None) -> str:
    """Bytes, as `87.0 MiB`."""
    if value is None:
        return UNKNOWN
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or abs(amount) >= 100 else f"{amount:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds, as `12 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.05:
        return "0 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"


def number(value: int | None) -> str:
    """A count, as `10,277`."""
    return UNKNOWN if value is None else f"{value:,}"


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Rows aligned under their header, two spaces apart; `right` holds the indexes of columns of numbers."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(header))]
    lines = []
    for row in table:
        cells = (
            cell.rjust(widths[index]) if index in right else cell.ljust(widths[index]) for index, cell in enumerate(row)
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def _shown(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]


def terminal_width() -> int | None:
    """Characters in a line of the terminal; None where stdout is none, so that nobody's eyes limit it."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitting(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int], width: int | None
) -> list[str]:
    """As `columns`; where that is wider than the terminal, a paragraph for each row that names every cell."""
    lines = columns(header, rows, right=right)
    if width is None or max(map(len, lines)) <= width:
        return lines
    paragraphs: list[str] = []
    for first, *rest in rows:
        cells = ", ".join(f"{name} {cell}" for name, cell in zip(header[1:], rest, strict=True))
        paragraphs += [
            first,
            *textwrap.wrap(cells, max(width, 24), initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False),
        ]
    return paragraphs
