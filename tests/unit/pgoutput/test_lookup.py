"""The assembler stops before a relation of which the catalog does not know enough, and nowhere else."""

from __future__ import annotations

import json

import pytest

from bridge.change import Event, Position
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.execution import DEFAULT, Execution
from bridge.pgoutput.lookup import Lookup
from bridge.pgoutput.messages import RelationMessage
from bridge.pgoutput.values import CatalogType
from bridge.testing import wire
from bridge.triggers.shape import Shape

INT4, ARRAY, ENUM = 23, 20001, 20002
PLAIN = wire.relation(16385, "public", "plain", [("id", INT4, True)])
FULL = wire.relation(16386, "public", "full_one", [("id", INT4, True)], identity="f")
NOTHING = wire.relation(16387, "public", "nothing", [("id", INT4, False)], identity="n")
TYPED = wire.relation(16388, "public", "typed", [("id", INT4, True), ("a", ARRAY, False), ("e", ENUM, False)])


class Bench:
    execution: Execution = DEFAULT

    def __init__(self, *, tables: tuple[str, ...] = ("plain", "full_one", "nothing", "typed")) -> None:
        self.inbox: list[Event] = []
        self.known: set[Lookup] = set()
        self.asked: list[Lookup] = []
        self.keys: dict[int, tuple[str, ...]] = {}
        self.types: dict[int, CatalogType] = {}
        self.tables = tables
        self.assembler = Assembler(
            database="shop",
            system_identifier="1234",
            start_lsn=0x800,
            routes=self.routes,
            message_routes=lambda _: (),
            excluded_schemas=frozenset({"ours"}),
            primary_keys=self.keys.get,
            types=self.types.get,
            lacks=self.lacks,
            execution=self.execution,
        )

    def routes(self, relation: RelationMessage) -> list[Route]:
        if relation.name not in self.tables:
            return []
        return [Route("t", Shape(), frozenset({"insert"}), self.inbox, Position(LSN(0), 0))]

    def lacks(self, lookup: Lookup) -> bool:
        self.asked.append(lookup)
        return lookup not in self.known


@pytest.fixture(scope="module", autouse=True)
def _both_ways(execution: Execution) -> None:
    Bench.execution = execution


def frames(*messages: bytes) -> list[bytes]:
    return [wire.xlog_data(message, start=0x900) for message in messages]


def row(oid: int, *values: str) -> bytes:
    return wire.insert(oid, values)


@pytest.mark.parametrize(
    ("relation", "lookup"),
    [
        (FULL, Lookup("public.full_one", 16386, frozenset(), 743)),
        (NOTHING, Lookup("public.nothing", 16387, frozenset(), 743)),
        (TYPED, Lookup("public.typed", None, frozenset({ARRAY, ENUM}), 743)),
    ],
)
def test_it_stops_before_the_relation_and_returns_what_it_did_not_take(relation, lookup):
    bench = Bench()
    given = frames(wire.begin(0x1000), PLAIN, row(16385, "1"), relation, row(16385, "2"), wire.commit(0x1000))
    rest = bench.assembler.consume(given)
    assert list(rest) == given[3:]
    assert bench.assembler.lookup == lookup
    assert [event.ordinal for event in bench.inbox] == [0]
    bench.known.add(lookup)
    assert not bench.assembler.consume(rest)
    assert bench.assembler.lookup is None
    assert [event.ordinal for event in bench.inbox] == [0, 1]


def test_what_was_read_meanwhile_is_what_the_rows_are_written_with():
    bench = Bench()
    rest = bench.assembler.consume(frames(wire.begin(0x1000), TYPED, row(16388, "1", "{1}", "ok"), wire.commit(0x1000)))
    bench.types |= {ARRAY: CatalogType("b", element=INT4), ENUM: CatalogType("e")}
    bench.known.add(bench.assembler.lookup)
    bench.assembler.consume(rest)
    (event,) = bench.inbox
    assert json.loads(event.body[:-1] + b"}}")["record"] == {"id": 1, "a": [1], "e": "ok"}


def test_it_stops_at_each_relation_that_needs_it():
    bench = Bench()
    rest = bench.assembler.consume(frames(wire.begin(0x1000), FULL, TYPED, NOTHING, wire.commit(0x1000)))
    stops = []
    while bench.assembler.lookup is not None:
        stops.append(bench.assembler.lookup.table)
        bench.known.add(bench.assembler.lookup)
        rest = bench.assembler.consume(rest)
    assert stops == ["public.full_one", "public.typed", "public.nothing"]
    assert bench.assembler.received_end_lsn == 0x1030


def test_it_does_not_stop_where_the_stream_says_all():
    bench = Bench()
    domain = wire.type_(ARRAY, "", "_int4"), wire.type_(ENUM, "pg_catalog", "text")
    bench.assembler.consume(frames(wire.begin(0x1000), PLAIN, *domain, TYPED, wire.commit(0x1000)))
    assert bench.assembler.lookup is None
    assert bench.asked == []


def test_it_does_not_stop_for_a_relation_that_nobody_wants():
    bench = Bench(tables=("plain",))
    ours = wire.relation(16389, "ours", "plain", [("id", INT4, True)], identity="f")
    assert not bench.assembler.consume(frames(wire.begin(0x1000), FULL, ours, wire.commit(0x1000)))


def test_the_same_description_in_a_later_transaction_is_asked_about_again():
    bench = Bench()
    bench.known.add(Lookup("public.full_one", 16386, frozenset(), 743))
    assert not bench.assembler.consume(frames(wire.begin(0x1000), FULL, row(16386, "1"), wire.commit(0x1000)))
    bench.keys[16386] = ("id",)
    rest = bench.assembler.consume(frames(wire.begin(0x2000, xid=744), FULL, row(16386, "2"), wire.commit(0x2000)))
    bench.known.add(bench.assembler.lookup)
    bench.assembler.consume(rest)
    assert [(event.key, event.barrier) for event in bench.inbox] == [
        (b"public.full_one", False),
        (b"public.full_one\0v2", True),
    ]
