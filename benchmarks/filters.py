"""What filters cost: rows from the walsender's bytes to the triggers' inboxes, without a network or a target."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.results import Figure, Spread
from bridge.change import Event, Position
from bridge.local.postgres import EmbeddedPostgres
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.testing import wire
from bridge.triggers.filter import compile_patterns
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

GROUP = "filters"
TENANTS = 100
OID, INT4, TEXT = 16384, 23, 25
COLUMNS = [("id", INT4, True), ("tenant", INT4, False), *((f"c{number}", TEXT, False) for number in range(8))]
NO_FILTER = "no filter"
ONE = "one equality filter that matches 1 %"
RANGE = "one range filter that matches 1 %"
MANY = "100 triggers with different equality filters"
REFUSED = "100 triggers with different prefix filters that match nothing"


def measure(_server: EmbeddedPostgres, rows: int, runs: int) -> list[Figure]:
    """Rows/s of one core, for each set of triggers; they take turns."""
    frames = [
        wire.xlog_data(wire.begin(0x1000)),
        wire.xlog_data(wire.relation(OID, "public", "t", COLUMNS)),
        *(wire.xlog_data(wire.insert(OID, (str(row), str(row % TENANTS), *["some text"] * 8))) for row in range(rows)),
    ]
    sets: dict[str, list[Selection | None]] = {
        NO_FILTER: [None],
        ONE: [_wants(tenant=[1])],
        RANGE: [_wants(tenant=[{"numeric": ["<", 1]}])],
        MANY: [_wants(tenant=[tenant]) for tenant in range(TENANTS)],
        REFUSED: [_wants(c7=[{"prefix": f"other {number}"}]) for number in range(TENANTS)],
    }
    rates: dict[str, list[float]] = {title: [] for title in sets}
    for _ in range(runs):
        for title, selections in sets.items():
            rates[title].append(rows / _seconds(frames, selections))
    middle = Spread.of(rates[ONE]).middle
    return [
        Figure(
            GROUP,
            title,
            "rows/s",
            Spread.of(each),
            notes="all rows wanted by one of them" if title == MANY else "",
            against=ONE if title == MANY else None,
            ratio=Spread.of(each).middle / middle if title == MANY else None,
            client_us=1e6 / Spread.of(each).middle,
        )
        for title, each in rates.items()
    ]


def _wants(**columns: list[Any]) -> Selection:
    return Selection(compile_patterns([{"action": ["insert"], "record": columns}]))


def _seconds(frames: list[bytes], selections: list[Selection | None]) -> float:
    inboxes: list[list[Event]] = [[] for _ in selections]
    routes = [
        Route(f"t{number}", Shape(), frozenset({"insert"}), inbox, Position(LSN(0), -1), selection)
        for number, (inbox, selection) in enumerate(zip(inboxes, selections, strict=True))
    ]
    assembler = Assembler(
        database="bench", system_identifier="1", start_lsn=0x100, routes=lambda _: routes, message_routes=lambda _: []
    )
    began = time.process_time()
    assembler.consume(frames)
    return time.process_time() - began
