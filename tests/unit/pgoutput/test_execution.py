"""The extension held to the generated code over whole streams, and to the plain way over every character."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import native
from bridge.change import UNCHANGED, Event, Position, Transaction
from bridge.errors import ProtocolError
from bridge.lsn import LSN
from bridge.pgoutput import execution as ways
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.messages import Column, RelationMessage
from bridge.pgoutput.plan import Plan, make_stamp
from bridge.pgoutput.program import GAVE_UP
from bridge.testing import wire
from bridge.triggers.filter import compile_patterns
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

FUZZ_SECONDS = float(os.environ.get("PGBRIDGE_FUZZ_SECONDS", "0.5"))
"""`PGBRIDGE_FUZZ_SECONDS=60 make test` looks longer."""

INT4, TEXT, JSON, FLOAT8, TIMESTAMPTZ, INT4_ARRAY, BOOL = 23, 25, 114, 701, 1184, 1007, 16
KEYED, FULL, UNWANTED, FILTERED = 16385, 16386, 16387, 16388
COLUMNS = [("id", INT4), ("name", TEXT), ("doc", JSON), ("f", FLOAT8), ("at", TIMESTAMPTZ), ("a", INT4_ARRAY), ("b", BOOL)]  # fmt: skip
NAMES = {KEYED: "keyed", FULL: "full", UNWANTED: "unwanted", FILTERED: "filtered"}
STAMP = make_stamp(Transaction(0x1000, 0x800, 0.0, 743), wire.COMMITTED_AT)

compiled = pytest.mark.skipif(ways.NATIVE is None, reason="the extension was not built here")


def table(oid: int) -> bytes:
    full = oid == FULL
    columns = [(name, type_oid, full or name == "id") for name, type_oid in COLUMNS]
    return wire.relation(oid, "public", NAMES[oid], columns, identity="f" if full else "d")


ROWS = [
    ("1", "Jane", '{"a": 1}', "1.5", "2026-11-22 05:37:00.5+00", "{1,NULL}", "t"),
    ("-2", 'q"\\\n é 😀', '"é"', "NaN", "infinity", "{}", "f"),
    ("3", UNCHANGED, UNCHANGED, None, None, UNCHANGED, None),
    ("4", b"caf\xe9", None, "-1e+20", "12345-01-01 00:00:00+00", "[0:1]={{1},{2}}", "t"),
    ("x", "not a number", None, None, None, None, None),
    ("5", "long " * 40, "[1, 2]", "", "2026-11-22 05:37:00+05:30", "not an array", "t"),
]
KEY = ("9", None, None, None, None, None, None)
CHANGES = [
    message
    for oid in NAMES
    for row in ROWS
    for message in (
        wire.insert(oid, row),
        wire.update(oid, row),
        wire.update(oid, row, old=ROWS[0]),
        wire.update(oid, row, key=KEY),
        wire.delete(oid, old=row),
        wire.delete(oid, key=KEY),
    )
]
OTHERS = [
    wire.begin(0x1000), wire.begin(0x2000, committed_at=-1), wire.begin(0x3000, committed_at=2**62), wire.commit(0x1000),
    wire.commit(0x2000), wire.commit(0x1000, 0x1000), wire.commit(0x1000, flags=1), *map(table, NAMES),
    wire.truncate(KEYED, FULL), wire.origin(1, "o"), wire.type_(1, "", "int4"), wire.logical_message(5, "p", b"x", transactional=True),
]  # fmt: skip


class Stream:
    """An assembler with every kind of route, its inboxes, and what can be seen of it."""

    def __init__(self, execution: ways.Execution) -> None:
        self.inboxes: dict[str, list[Event]] = {name: [] for name in ("a", "b", "other shape", "filter", "received")}
        self.assembler = Assembler(
            database="shop",
            system_identifier="1",
            start_lsn=0x800,
            routes=self.routes,
            message_routes=lambda _: [self.route("a")],
            execution=execution,
        )

    def route(self, name: str, **settings: object) -> Route:
        operations = frozenset({"insert", "update", "delete", "truncate"})
        given = {"shape": Shape(), "operations": operations, "received": Position(LSN(0), 0), **settings}
        return Route(name, inbox=self.inboxes[name], **given)

    def routes(self, relation: RelationMessage) -> list[Route]:
        if relation.name == "unwanted":
            return []
        if relation.name == "filtered":
            return [
                self.route(
                    "filter", selection=Selection(compile_patterns([{"record": {"name": [{"wildcard": "*Jane*"}]}}]))
                ),
                self.route("other shape", shape=Shape(exclude=frozenset({"name", "id"}))),
            ]
        return [self.route("a"), self.route("b", received=Position(LSN(0x1000), 1))]

    def consume(self, frames: Sequence[bytes]) -> object:
        """Everything that can be told afterwards, errors included."""
        error = None
        try:
            self.assembler.consume(map(memoryview, frames))
        except ProtocolError as caught:
            error = (type(caught), str(caught), caught.tag, caught.offset, caught.position, caught.table)
        assembler = self.assembler
        transaction = assembler.transaction
        return (
            error,
            [[(event[0], facts(event.transaction), *event[2:]) for event in inbox] for inbox in self.inboxes.values()],
            None if transaction is None else facts(transaction),
            (assembler.changes, assembler.received_end_lsn, assembler.server_wal_end, assembler.filtered),
        )


def facts(transaction: Transaction) -> tuple[object, ...]:
    return tuple(getattr(transaction, name) for name in Transaction.__slots__)


def assert_same(bursts: Sequence[Sequence[bytes]], note: str = "") -> None:
    generated, extension = Stream(ways.GENERATED), Stream(ways.NATIVE)
    for burst in bursts:
        assert extension.consume(burst) == generated.consume(burst), note


@compiled
@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(CHANGES) | st.sampled_from(OTHERS), max_size=14), st.data())
def test_both_ways_give_the_same_events_errors_and_positions(messages, data):
    described = [wire.begin(0x1000), *map(table, NAMES)] if data.draw(st.booleans()) else []
    frames = [wire.xlog_data(message, start=0xABC) for message in [*described, *messages]]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frames)), max_size=3)))
    assert_same([frames[a:b] for a, b in itertools.pairwise([0, *cuts, len(frames)])])


@compiled
def test_both_ways_read_any_damaged_bytes_alike():
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    until = time.monotonic() + FUZZ_SECONDS
    while time.monotonic() < until:
        messages = choose.choices(CHANGES, k=6) + choose.choices(OTHERS, k=2)
        choose.shuffle(messages)
        frames = [wire.xlog_data(message) for message in [wire.begin(0x2000), *map(table, NAMES), *messages]]
        # The end of a stream is its first error, so mostly a late frame is damaged.
        for _ in range(choose.choice([0, 1, 1, 2])):
            at = choose.randrange(len(frames)) if choose.random() < 0.2 else len(frames) - choose.randint(1, 4)
            frames[at] = damaged(frames[at], choose)
        assert_same([frames], f"seed {seed}")


def damaged(frame: bytes, choose: random.Random) -> bytes:
    result = bytearray(frame)
    match choose.randrange(5):
        case 0:
            del result[choose.randrange(len(result) + 1) :]
        case 1:
            result += choose.randbytes(choose.randint(1, 9))
        case 2:  # another length, as lengths are where a reader goes astray
            at = choose.randrange(len(result))
            result[at : at + 4] = choose.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x05"])
        case 3:
            at = choose.randrange(len(result))
            del result[at : at + choose.randint(1, 5)]
        case _:
            for _ in range(choose.randint(1, 3)):
                result[choose.randrange(len(result))] = choose.randrange(256)
    return bytes(result)


class Watching(list):
    """An inbox that notes where the assembler stands when an event comes."""

    def __init__(self, assembler: Assembler) -> None:
        self.assembler = assembler
        self.seen: list[tuple[int, int, int]] = []

    def append(self, event: Event) -> None:
        assembler = self.assembler
        self.seen.append((assembler.transaction.commit_lsn, assembler.received_end_lsn, assembler.changes))
        super().append(event)


def test_the_assembler_stands_where_the_stream_does_when_its_own_code_runs(execution):
    stream = Stream(execution)
    inbox = stream.inboxes["other shape"] = Watching(stream.assembler)
    row = wire.insert(FILTERED, ROWS[0])
    messages = [wire.begin(0x1000), table(FILTERED), row, wire.commit(0x1000), wire.begin(0x2000), row, wire.commit(0x2000)]  # fmt: skip
    stream.consume([wire.xlog_data(message) for message in messages])
    assert inbox.seen == [(0x1000, 0x800, 0), (0x2000, 0x1030, 1)]


# Characters


def plan_of(type_oid: int) -> Plan:
    relation = RelationMessage(KEYED, "public", "t", "d", (Column(0, "c", type_oid, -1),))
    return Plan(relation, Shape(order_by="table"), database="shop")


def assert_written_plainly(plan: Plan, text: bytes, execution: ways.Execution) -> None:
    message = wire.insert(KEYED, (text,))
    event = execution.compile_row(plan, b"IN")(wire.xlog_data(message), 3, STAMP)
    assert event == plan.encode(decode(message), 3, STAMP)


@pytest.mark.parametrize("type_oid", [TEXT, JSON])
def test_every_character_is_written_as_the_plain_way_writes_it(type_oid, execution):
    characters = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
    assert_written_plainly(plan_of(type_oid), characters.encode(), execution)


@pytest.mark.parametrize("offset", range(9))
def test_every_ascii_character_is_found_wherever_it_stands(offset, execution):
    plan = plan_of(TEXT)
    for byte in range(128):
        assert_written_plainly(plan, b"x" * offset + bytes([byte]) + b"y" * (16 - offset), execution)


@pytest.mark.parametrize("before", [0, 5, 8])
@pytest.mark.parametrize("type_oid", [TEXT, JSON])
def test_what_is_not_utf8_is_given_up(type_oid, before, execution):
    """Each sequence of Unicode's table 3-7, and each that misses it by one step."""
    plan = plan_of(type_oid)
    write = execution.compile_row(plan, b"IN")
    edges = [0x20, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF]
    tails = [bytes(tail) for length in range(4) for tail in itertools.product(edges, repeat=length)]
    for first in [0x80, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]:  # fmt: skip
        for tail in tails:
            text = b"x" * before + bytes([first]) + tail
            frame = wire.xlog_data(wire.insert(KEYED, (text,)))
            try:
                text.decode()
            except UnicodeDecodeError:
                with pytest.raises(GAVE_UP):
                    write(frame, 3, STAMP)
            else:
                assert text in write(frame, 3, STAMP).body


# Rows of all sizes


@compiled
def test_a_large_row_leaves_the_next_ones_alone():
    plan = plan_of(TEXT)
    for size in (0, 1, 255, 256, 257, 10_000, 3_000_000, 7, 0):
        assert_written_plainly(plan, b'"' * size, ways.NATIVE)


@compiled
def test_an_encoder_may_write_rows_itself_meanwhile():
    """As another thread may, while an encoder in Python runs: the memory in use is nobody else's."""
    inner_plan = plan_of(TEXT)
    inner = ways.NATIVE.compile_row(inner_plan, b"IN")
    frame = wire.xlog_data(wire.insert(KEYED, ("inner",)))

    def encode(text: bytes) -> bytes:
        assert b'"inner"' in inner(frame, 0, STAMP).body
        return b'"%b"' % text

    plan = plan_of(INT4_ARRAY)
    column = plan.columns[0]
    plan.columns = (type(column)(column.index, column.name, column.json_name, column.value_type, encode, False, True, False),)  # fmt: skip
    assert (
        b'"record":{"c":"outer"}'
        in ways.NATIVE.compile_row(plan, b"IN")(wire.xlog_data(wire.insert(KEYED, ("outer",))), 0, STAMP).body
    )


@compiled
def test_a_bug_in_an_encoder_is_no_reason_to_give_up():
    plan = plan_of(INT4_ARRAY)
    column = plan.columns[0]

    def encode(_: bytes) -> bytes:
        raise ZeroDivisionError

    plan.columns = (type(column)(column.index, column.name, column.json_name, column.value_type, encode, False, True, False),)  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        ways.NATIVE.compile_row(plan, b"IN")(wire.xlog_data(wire.insert(KEYED, ("{}",))), 0, STAMP)


@compiled
def test_a_frame_of_another_relation_or_none_is_given_up():
    write = ways.NATIVE.compile_row(plan_of(TEXT), b"IN")
    right = wire.xlog_data(wire.insert(KEYED, ("x",)))
    assert write(right, 0, STAMP)
    for wrong in (b"", right[:33], wire.xlog_data(wire.insert(FULL, ("x",))), wire.xlog_data(wire.insert(KEYED, ("x", "y")))):  # fmt: skip
        with pytest.raises(GAVE_UP):
            write(wrong, 0, STAMP)


# Which one


def test_python_alone_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(native, "ALLOWED", False)
    assert ways.preferred() is ways.GENERATED


@compiled
def test_the_extension_is_preferred(monkeypatch):
    monkeypatch.setattr(native, "ALLOWED", True)  # though PGBRIDGE_PURE may be set
    assert ways.preferred() is ways.NATIVE
    assert ways.NATIVE.name == "compiled"
