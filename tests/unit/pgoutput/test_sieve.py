"""Filters that are asked of a few columns answer as they would of the whole event."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.change import UNCHANGED, Position
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.execution import GENERATED, NATIVE
from bridge.pgoutput.values import CatalogType
from bridge.testing import wire
from bridge.triggers.filter import compile_patterns
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

OID = 16384
INT4, TEXT, NUMERIC, JSONB, FLOAT8, DOMAIN = 23, 25, 1700, 3802, 701, 99999
COLUMNS = [
    ("id", INT4, True), ("plan", TEXT, False), ("price", NUMERIC, False), ("doc", JSONB, False), ("rate", FLOAT8, False),
    ("fee", DOMAIN, False), ("dot.ted", TEXT, False),
]  # fmt: skip
ROW = ("7", "pro", "12.50", '{"n": 12345678901234567890.5, "plan": "x"}', "0.1", "3.0", "d")
EVERY_OPERATION = frozenset({"insert", "update", "delete", "truncate"})
NOTHING = Position(LSN(0), -1)


def catalog(oid):
    return CatalogType("d", base=NUMERIC) if oid == DOMAIN else None


class Bench:
    """One assembler; its routes by trigger."""

    def __init__(self, selections, *, identity="d", shapes=None, execution=GENERATED):
        self.inboxes = {trigger: [] for trigger in selections}
        self.assembler = Assembler(
            database="shop",
            system_identifier="1",
            start_lsn=0x100,
            routes=lambda _: [
                Route(trigger, (shapes or {}).get(trigger, Shape()), EVERY_OPERATION, self.inboxes[trigger], NOTHING, selection)
                for trigger, selection in selections.items()
            ],
            message_routes=lambda _: [],
            types=catalog,
            primary_keys=lambda _: ("id",),
            execution=execution,
        )  # fmt: skip
        self.at = 0x1000
        columns = [(name, oid, key or identity == "f") for name, oid, key in COLUMNS]
        self.table = wire.relation(OID, "public", "t", columns, identity=identity)

    def take(self, *messages):
        frames = [wire.begin(self.at), self.table, *messages, wire.commit(self.at)]
        self.assembler.consume([wire.xlog_data(frame) for frame in frames])
        self.at += 0x1000
        return {trigger: len(inbox) for trigger, inbox in self.inboxes.items()}


def patterns(*of):
    return Selection(compile_patterns(list(of)))


def changed(*columns):
    return Selection(None, frozenset(columns))


executions = pytest.mark.parametrize(
    "execution", [GENERATED] + [NATIVE] * (NATIVE is not None), ids=lambda execution: execution.name
)

PATTERNS = [
    ({"record": {"plan": ["pro"]}}, True),
    ({"record": {"plan": ["free"]}}, False),
    ({"record": {"price": [{"numeric": [">", 12]}]}}, True),
    ({"record": {"price": [{"numeric": ["=", 12.5]}]}}, True),
    ({"record": {"price": ["12.5"]}}, False),
    ({"record": {"fee": [{"numeric": ["=", 3]}]}}, True),
    ({"record": {"plan": [{"numeric": [">", 0]}]}}, False),
    ({"record": {"rate": [{"numeric": ["=", 0.1]}]}}, True),
    ({"record": {"doc": {"plan": ["x"]}}}, True),
    ({"record": {"dot": {"ted": ["d"]}}}, True),
    ({"record": {"other": [{"exists": False}]}}, True),
    ({"record": [{"exists": True}]}, False),
    ({"id": [{"prefix": "0000000000001000-"}]}, True),
    ({"metadata": {"table_name": ["t"], "keys": {"id": [7]}}}, True),
    ({"metadata": {"unavailable": [{"exists": True}]}}, False),
    ({"action": ["insert"], "changes": [None]}, True),
]


@executions
@pytest.mark.parametrize(("pattern", "matches"), PATTERNS)
def test_a_pattern_is_asked_of_the_row_as_it_is(pattern, matches, execution):
    bench = Bench({"t": patterns(pattern)}, execution=execution)
    assert bench.take(wire.insert(OID, ROW)) == {"t": int(matches)}
    assert bench.assembler.filtered == ({} if matches else {"t": 1})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([pattern for pattern, _ in PATTERNS]), min_size=1, max_size=6), st.data())
def test_asked_together_filters_answer_as_each_would_of_the_whole_event(chosen, data):
    row = tuple(data.draw(st.sampled_from([text, None])) if at else text for at, text in enumerate(ROW))
    whole = Bench({"t": None})
    whole.take(wire.insert(OID, row))
    (event,) = whole.inboxes["t"]
    numeric = {("record", "price"), ("record", "fee")}.__contains__
    expected = {
        str(at): int(compile_patterns([pattern]).matches_json(event.body[:-1] + b"}}", numeric_text=numeric))
        for at, pattern in enumerate(chosen)
    }
    shapes = {"0": Shape(exclude=frozenset({"plan"})), "1": Shape(order_by="none")}
    together = Bench({str(at): patterns(pattern) for at, pattern in enumerate(chosen)}, shapes=shapes)
    assert together.take(wire.insert(OID, row)) == expected
    assert together.assembler.filtered == {trigger: 1 for trigger, taken in expected.items() if not taken}


def test_a_filter_sees_columns_that_the_event_leaves_out():
    bench = Bench({"t": patterns({"record": {"plan": ["pro"]}})}, shapes={"t": Shape(exclude=frozenset({"plan"}))})
    bench.take(wire.insert(OID, ROW))
    (event,) = bench.inboxes["t"]
    assert "plan" not in json.loads(event.body[:-1] + b"}}")["record"]


def test_a_document_that_no_reader_takes_is_let_through():
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    row = (*ROW[:3], deep, *ROW[4:])
    bench = Bench({"t": patterns({"record": {"doc": {"a": ["never"]}}}), "u": patterns({"record": {"plan": ["free"]}})})
    assert bench.take(wire.insert(OID, row))["t"] == 1


# changed


def row_with(**columns):
    names = [name for name, _, _ in COLUMNS]
    return tuple(columns.get(name, text) for name, text in zip(names, ROW, strict=True))


@executions
def test_with_the_old_row_an_update_passes_where_one_of_the_columns_differs(execution):
    bench = Bench(
        {"plan": changed("plan"), "two": changed("plan", "price"), "none": None}, identity="f", execution=execution
    )
    update = wire.update(OID, row_with(price="13"), old=ROW)
    assert bench.take(update, wire.insert(OID, ROW), wire.delete(OID, old=ROW)) == {"plan": 2, "two": 3, "none": 3}
    assert bench.assembler.filtered == {"plan": 1}


@executions
def test_an_unchanged_toasted_value_has_not_changed(execution):
    bench = Bench({"t": changed("doc")}, identity="f", execution=execution)
    assert bench.take(wire.update(OID, row_with(doc=UNCHANGED, plan="free"), old=ROW)) == {"t": 0}


@executions
def test_a_change_of_key_is_told_by_the_key_alone(execution):
    bench = Bench(
        {"id": changed("id"), "plan": changed("plan"), "elsewhere": changed("no_such_column")}, execution=execution
    )
    same, other = wire.update(OID, ROW), wire.update(OID, ROW, key=("6", *(None,) * 6))
    assert bench.take(same) == {"id": 0, "plan": 1, "elsewhere": 0}, "what can't be told is let through"
    assert bench.take(other) == {"id": 1, "plan": 2, "elsewhere": 0}


def test_changed_and_patterns_must_both_be_met():
    selection = Selection(compile_patterns([{"record": {"plan": ["pro"]}}]), frozenset({"price"}))
    bench = Bench({"t": selection}, identity="f")
    assert bench.take(wire.update(OID, row_with(price="1"), old=ROW)) == {"t": 1}
    assert bench.take(wire.update(OID, row_with(price="1", plan="free"), old=ROW)) == {"t": 1}
    assert bench.take(wire.update(OID, ROW, old=row_with(plan="free"))) == {"t": 1}
