"""The drains as a picture: rates as ratios to pg_recvlogical over the same transport, in SVG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

_WIDTH: Final = 940
_LEFT: Final = 345
_RIGHT: Final = 150
_ROW: Final = 22
_BAR: Final = 14
_HEADING: Final = 30
_TOP: Final = 44
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#111827}.heading{font-weight:600}.title{font-size:14px;font-weight:600}"
    ".end{text-anchor:end}.small{fill:#4b5563}"
)
_COLOURS: Final = {
    "recvlogical": "#6b7280",
    "frames": "#7dd3fc",
    "events": "#38bdf8",
    "run-1000": "#0369a1",
    "run-100": "#0284c7",
    "events-python": "#38bdf8",
    "run-1000-python": "#0369a1",
    "debezium": "#b45309",
}


def ratios(drains: Sequence[Mapping[str, Any]], *, transport: str = "tcp") -> str:
    """
    Bars for each reader of each workload, with the range of the rounds as a line; 1 is pg_recvlogical.

    Args:
        drains: as in the JSON of the results.
        transport: of the readers that are shown.
    """
    groups = [
        (drain, [one for one in drain["readers"] if one["transport"] == transport and "ratio" in one])
        for drain in drains
    ]
    groups = [(drain, readers) for drain, readers in groups if readers]
    most = max([1.0, *(one["ratio"]["high"] for _, readers in groups for one in readers)])
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts: list[str] = []
    y = _TOP
    for drain, readers in groups:
        y += _HEADING
        heading = escape(f"{drain['workload']}: {drain['title']}")
        parts.append(f'<text x="12" y="{y - 10}" class="heading">{heading}</text>')
        for reader in readers:
            parts += _bar(reader, y, scale)
            y += _ROW
    one = _LEFT + scale
    height = y + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="t">',
            f'<title id="t">Rates as ratios to pg_recvlogical over {transport}</title>',
            f"<style>{_STYLE}</style>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text x="12" y="24" class="title">Rates beside pg_recvlogical (1) over {transport}</text>',
            f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{_TOP}" y2="{y}" stroke="#9ca3af" stroke-dasharray="3 3"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _bar(reader: Mapping[str, Any], y: int, scale: float) -> list[str]:
    ratio = reader["ratio"]
    middle, low, high = (ratio[name] * scale for name in ("middle", "low", "high"))
    centre = y + _BAR / 2
    end = _LEFT + max(middle, high) + 8
    colour = _COLOURS.get(reader["reader"], "#0284c7")
    text = f"{ratio['middle']:.2f} ({reader['rate']['middle']:,.0f}/s)"
    return [
        f'<text x="{_LEFT - 8}" y="{y + _BAR - 2}" class="end">{escape(reader["title"])}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{middle:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line x1="{_LEFT + low:.1f}" x2="{_LEFT + high:.1f}" y1="{centre}" y2="{centre}" stroke="#111827"/>',
        f'<text x="{end:.1f}" y="{y + _BAR - 2}" class="small">{text}</text>',
    ]
