"""Results as tables on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.results import REFERENCE, Figure, Spread, WorkloadResult

_MIB = 1 << 20


def workload_table(result: WorkloadResult) -> Table:
    """One row for each reader."""
    table = Table(
        title=f"{result.name}: {result.title} ({result.rows:,} changes)", title_justify="left", caption_justify="left"
    )
    table.add_column("reader", no_wrap=True)
    table.add_column("over")
    for heading in (
        "rows/s, median [min-max]",
        "of pg_recvlogical",
        "client CPU µs/change",
        "walsender CPU µs/change",
        "peak RSS MiB",
    ):
        table.add_column(heading, justify="right")
    for reader in result.readers:
        if reader.skipped is not None:
            continue
        reference = result.reference(reader.transport)
        table.add_row(
            reader.title,
            reader.transport,
            rate_text(reader.spread("rate")),
            "" if reference is None else ratio_text(reader.ratio(reference), is_reference=reader.name == REFERENCE),
            number_text(reader.spread("client_us")),
            number_text(reader.spread("walsender_us")),
            f"{reader.spread('peak_rss_bytes').high / _MIB:,.0f}",
        )
    table.caption = "\n".join(skipped_lines(result)) or None
    return table


def skipped_lines(result: WorkloadResult) -> list[str]:
    """What was not measured, and why."""
    return [f"skipped: {reader.title}: {reader.skipped}" for reader in result.readers if reader.skipped is not None]


def figure_table(group: str, figures: list[Figure]) -> Table:
    """The smaller measurements of one kind."""
    table = Table(title=group, title_justify="left")
    table.add_column("what")
    for heading in ("median [min-max]", "", "ratio", "client CPU µs/event"):
        table.add_column(heading, justify="right")
    table.add_column("notes")
    for figure in figures:
        table.add_row(
            figure.title,
            figure_text(figure.spread),
            figure.unit,
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            "" if figure.client_us is None else f"{figure.client_us:,.1f}",
            figure.notes,
        )
    return table


def rate_text(spread: Spread) -> str:
    return f"{spread.middle:,.0f} [{spread.low:,.0f}-{spread.high:,.0f}]"


def number_text(spread: Spread) -> str:
    return f"{spread.middle:.2f} [{spread.low:.2f}-{spread.high:.2f}]"


def figure_text(spread: Spread) -> str:
    return rate_text(spread) if spread.middle >= 100 else number_text(spread)


def ratio_text(spread: Spread, *, is_reference: bool = False) -> str:
    return "1" if is_reference else f"{spread.middle:.2f} [{spread.low:.2f}-{spread.high:.2f}]"


def console(*, stderr: bool = False) -> Console:
    """Wide enough for the tables where it goes to no terminal."""
    made = Console(stderr=stderr)
    return made if made.is_terminal else Console(stderr=stderr, width=190)
