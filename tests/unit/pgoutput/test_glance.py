"""Glances answer as the filters would of the whole event, and what they can tell costs no event."""

import json
import random
import re
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.change import UNCHANGED, Position
from bridge.errors import ProtocolError
from bridge.lsn import LSN
from bridge.pgoutput import glance as glances
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.execution import GENERATED, NATIVE
from bridge.pgoutput.sieve import Sieve
from bridge.pgoutput.values import CatalogType
from bridge.testing import wire
from bridge.triggers.filter import PatternError, compile_patterns
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

OID, ENUM, FEE, SHORT = 16384, 20001, 20002, 20003
# (name, type OID, sent unchanged sometimes, values)
TYPES = [
    ("id", 23, False, ["1", "2"]),
    ("n", 23, False, ["0", "1", "300", "-5", "2147483647"]),
    ("big", 20, False, ["0", "300", "9223372036854775807", "-9223372036854775808", "1000000000000000000"]),
    ("flag", 16, False, ["t", "f"]),
    ("plan", 25, True, ["", "pro", "Pro", "300", "true", "straße", "STRASSE", "K", "K", '\x7f\t\\"/', "10.0.0.1", "a*b", "😀"]),
    ("code", 1042, True, ["ab  ", "ab", "AB  "]),
    ("mood", ENUM, False, ["happy", "sad", "pro"]),
    ("uid", 2950, False, ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"]),
    ("price", 1700, True, ["1", "1.50", "300", "300.00", "-0.001", "NaN", "Infinity", "-Infinity", "0", "12345678901234567890.5"]),
    ("fee", FEE, True, ["1", "1.0", "300", "NaN"]),
    ("short", SHORT, False, ["1", "300"]),
    ("rate", 701, False, ["0.1", "1", "300", "1e+20", "NaN", "-Infinity", "-0", "5e-324", "1.7976931348623157e+308"]),
    ("day", 1082, False, ["2026-11-22", "infinity", "0044-03-15 BC"]),
    ("at", 1114, False, ["2026-11-22 05:37:00.5", "-infinity"]),
    ("raw", 17, True, ["\\x", "\\x00ff"]),
    ("host", 869, False, ["10.0.0.1", "10.0.0.0/8", "::ffff:10.0.0.1", "2001:db8::1"]),
    ("doc", 3802, True, ["null", "300", '"pro"', '{"n": 300, "plan": "pro"}', '[1, "pro", {"n": 1}]', "[]"]),
    ("tags", 1009, True, ["{}", "{pro,NULL}", "{300}", "{{a,b}}"]),
    ("sums", 1231, True, ["{300.00,NaN}", "{1}"]),
    ("dot.ted", 25, True, ["pro", "d"]),
]  # fmt: skip
NAMES = [name for name, *_ in TYPES]
VALUES = {name: values for name, _, _, values in TYPES}
CATALOG = {ENUM: CatalogType("e"), FEE: CatalogType("d", base=1700), SHORT: CatalogType("d", base=23)}
NUMERIC = {
    (*row, name)
    for row in (("record",), ("changes",), ("metadata", "keys"), ("metadata", "old_keys"))
    for name in ("price", "fee", "sums")
}
EVERY_OPERATION = frozenset({"insert", "update", "delete", "truncate"})
WAYS = [GENERATED] + [NATIVE] * (NATIVE is not None)

executions = pytest.mark.parametrize("execution", WAYS, ids=lambda execution: execution.name)


def streamed(selections, changes, *, identity, execution):
    """By trigger, the events that changes become."""
    inboxes = {trigger: [] for trigger in selections}
    assembler = Assembler(
        database="shop",
        system_identifier="1",
        start_lsn=0x100,
        routes=lambda _: [
            Route(trigger, Shape(order_by="table"), EVERY_OPERATION, inboxes[trigger], Position(LSN(0), -1), selection)
            for trigger, selection in selections.items()
        ],
        message_routes=lambda _: [],
        types=CATALOG.get,
        primary_keys=lambda _: ("id",),
        execution=execution,
    )
    columns = [(name, oid, name == "id" or identity == "f") for name, oid, *_ in TYPES]
    messages = [wire.begin(0x1000), wire.relation(OID, "public", "t", columns, identity=identity), *changes]
    assembler.consume([wire.xlog_data(message) for message in messages])
    return inboxes, assembler.filtered


# What is drawn


def choose_row(choose, *, unchanged=False):
    return tuple(
        UNCHANGED
        if unchanged and toasted and choose.random() < 0.3
        else None
        if name != "id" and choose.random() < 0.15
        else choose.choice(values)
        for name, _, toasted, values in TYPES
    )


def choose_changes(choose, identity, most):
    """Rows of every kind; an update changes a few columns."""
    for _ in range(choose.randint(most // 2, most)):
        row = choose_row(choose)
        other = choose_row(choose, unchanged=True)
        new = tuple(b if choose.random() < 0.4 else a for a, b in zip(row, other, strict=True))
        key = (row[0], *(None,) * (len(row) - 1))
        kind = choose.choice(("insert", "update", "update", "delete"))
        if kind == "insert":
            yield wire.insert(OID, row)
        elif kind == "update" and identity == "f":
            yield wire.update(OID, new, old=row)
        elif kind == "update":
            yield wire.update(OID, new, key=key if identity == "d" and choose.random() < 0.3 else None)
        else:
            yield wire.delete(OID, old=row) if identity == "f" else wire.delete(OID, key=key)


def choose_scalar(choose, name):
    """What stands in the column, or nearly, as text and as what else it might be."""
    text = choose.choice(VALUES.get(name, ["pro", "300", "insert", "t", "public"]))
    return choose.choice([text, text, text.upper(), *SPELLINGS.get(text, ()), "pro", 300, 1, True, None])


SPELLINGS = {"t": [True], "f": [False], "300": [300, 300.0, 3e2], "1": [1, 1.0], "0": [0, -0.0], "300.00": [300], "1.50": [1.5]}  # fmt: skip


def choose_text(choose, name):
    text = choose.choice(VALUES.get(name, ["pro", "insert", "shop"]))
    start = choose.randrange(len(text) + 1)
    return text[start : choose.randrange(start, len(text) + 1)]


def choose_number(choose, name):
    numbers = [Decimal(value) for value in VALUES.get(name, ()) if NUMBER.fullmatch(value)]
    return choose.choice([*numbers, 0, 1, 1.5, 299.99, 300])


NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")


def choose_alternative(choose, name):
    match choose.randrange(14):
        case 0 | 1 | 2 | 3:
            return choose_scalar(choose, name)
        case 4:
            return {choose.choice(("prefix", "suffix")): choose_text(choose, name)}
        case 5:
            return {choose.choice(("prefix", "suffix")): {"equals-ignore-case": choose_text(choose, name) or "p"}}
        case 6:
            return {"equals-ignore-case": choose.choice(VALUES.get(name, ["pro"]))}
        case 7:
            return {"wildcard": choose_text(choose, name).replace("*", "").replace("\\", "") + "*"}
        case 8:
            return {"exists": choose.random() < 0.5}
        case 9:
            limit = choose_number(choose, name)
            return {"numeric": [choose.choice(("=", "<", "<=", ">", ">=")), limit]}
        case 10:
            limit = choose_number(choose, name)
            return {"numeric": [">=", limit, "<", limit + 1]}
        case 11:
            return {"anything-but": [choose_text(choose, name) for _ in range(choose.randint(1, 2))]}
        case 12:
            return {"anything-but": choose.choice([choose_number(choose, name), {"prefix": choose_text(choose, name) or "p"}])}  # fmt: skip
        case _:
            return choose.choice([{"cidr": "10.0.0.0/8"}, {"exactly": choose_text(choose, name)}, None])


def choose_fields(choose):
    fields = {}
    for _ in range(choose.randint(1, 3)):
        name = choose.choice(NAMES)
        alternatives = [choose_alternative(choose, name) for _ in range(choose.randint(1, 3))]
        where = choose.randrange(12)
        if where < 6:
            fields[f"record.{name}"] = alternatives
        elif where < 9:
            fields[f"changes.{name}"] = alternatives
        elif where == 9:
            fields["action"] = choose.sample(["insert", "update", "delete"], 2)
        else:
            path, values = choose.choice(ELSEWHERE)
            fields[path] = choose.choice(values)
    return fields


ELSEWHERE = [
    ("record.missing", [[{"exists": False}], [None]]),
    ("record.doc.n", [[300], [{"exists": False}]]),
    ("record.doc.plan", [["pro"]]),
    ("record.dot.ted", [["pro"], [{"exists": False}]]),
    ("record.plan.x", [["pro"], [{"exists": False}]]),
    ("changes.doc.n", [[300], [{"exists": False}]]),
    ("metadata.table_name", [["t"], [{"prefix": "u"}]]),
    ("metadata.table_schema", [["public"], ["private"]]),
    ("metadata.keys.id", [[1], [{"anything-but": 1}]]),
    ("metadata.old_keys.id", [[1], [{"exists": False}]]),
    ("metadata.unavailable", [["plan"], [{"exists": False}]]),
    ("metadata.commit_idx", [[{"numeric": ["<", 2]}]]),
    ("id", [[{"prefix": "0000000000001000-"}]]),
    ("elsewhere", [[{"exists": False}], ["x"]]),
    ("changes", [[None], [{"exists": True}], [{"exists": False}]]),
    ("record", [[{"exists": False}], [None]]),
]


def choose_selection(choose):
    patterns = []
    for _ in range(choose.randint(0, 3)):
        pattern = choose_fields(choose)
        if choose.random() < 0.2:
            pattern["$or"] = [choose_fields(choose), choose_fields(choose)]
        try:
            compile_patterns([pattern])
        except PatternError:
            continue  # a text that is empty where none may be, a range without numbers in it
        patterns.append(pattern)
    changed = choose.choice(((), (), (), ("id",), ("id", "missing"), choose.sample(NAMES, 2)))
    return patterns, frozenset(changed)


# What is true


def taken(events, patterns, changed, identity):
    """The ids of the events that a selection takes, by the whole of each."""
    matcher = compile_patterns(patterns)
    for event in events:
        body = event.body[:-1] + b"}}"
        relevant = event.action != "update" or not changed or has_changed(changed, json.loads(body), identity)
        if relevant and matcher.matches_json(body, numeric_text=NUMERIC.__contains__):
            yield event.id


def has_changed(columns, event, identity):
    if event["changes"] is not None:
        return any(name in event["changes"] for name in columns)
    if identity == "n" or not columns & set(NAMES) <= {"id"}:
        return True
    return "id" in columns and event["metadata"]["old_keys"] is not None


def play(choose, *, most=12):
    """One round: some selections and some changes, in each way; returns how many questions there were, and answers yes."""
    identity = choose.choice("dfn")
    changes = list(choose_changes(choose, identity, most))
    selections = [choose_selection(choose) for _ in range(choose.randint(1, 6))]
    whole, _ = streamed({"all": None}, changes, identity=identity, execution=GENERATED)
    expected = [list(taken(whole["all"], *each, identity)) for each in selections]
    for execution in WAYS:
        together = {
            str(place): Selection(compile_patterns(patterns) if patterns else None, changed)
            for place, (patterns, changed) in enumerate(selections)
        }
        inboxes, refused = streamed(together, changes, identity=identity, execution=execution)
        for place, each in enumerate(selections):
            assert [event.id for event in inboxes[str(place)]] == expected[place], (execution.name, identity, each)
            assert refused.get(str(place), 0) == len(changes) - len(expected[place])
    return len(changes) * len(selections), sum(map(len, expected))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**64))
def test_rows_are_taken_as_their_events_would_be(seed):
    play(random.Random(seed))


def test_what_is_drawn_is_both_taken_and_refused():
    counts = [play(random.Random(seed)) for seed in range(10)]
    asked, yes = map(sum, zip(*counts, strict=True))
    assert 0.1 < yes / asked < 0.9


# What is told at a glance


@pytest.fixture
def nothing_is_written(monkeypatch):
    """No row is written for the filters to read."""

    def choose(_self, _event):
        raise AssertionError("a row was written for the filters")

    monkeypatch.setattr(Sieve, "_choose", choose)


ROW = {
    "id": "7", "n": "300", "big": "9223372036854775807", "flag": "t", "plan": "straße", "code": "ab  ", "mood": "happy",
    "uid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "price": "1.50", "fee": "3.0", "short": "5", "rate": "0.1",
    "day": "2026-11-22", "at": "2026-11-22 05:37:00.5", "raw": "\\x00ff", "host": "10.0.0.1",
}  # fmt: skip
INSERT = wire.insert(OID, [ROW.get(name) for name in NAMES])

TOLD = [
    ({"record": {"plan": ["straße"]}}, True),
    ({"record": {"plan": ["strasse"]}}, False),
    ({"record": {"plan": [{"prefix": "stra"}, {"suffix": "x"}]}}, True),
    ({"record": {"plan": [{"anything-but": ["straße"]}]}}, False),
    ({"record": {"plan": [{"equals-ignore-case": "STRASSE"}, {"wildcard": "*aß*"}]}}, True),
    ({"record": {"plan": [{"numeric": [">", 0]}]}}, False),
    ({"record": {"code": ["ab"]}}, False),
    ({"record": {"code": ["ab  "]}}, True),
    ({"record": {"mood": ["happy"]}}, True),
    ({"record": {"uid": [{"prefix": "a0ee"}]}}, True),
    ({"record": {"n": [300.0]}}, True),
    ({"record": {"n": ["300", 3]}}, False),
    ({"record": {"n": [{"numeric": [">", 299.5, "<=", 300]}]}}, True),
    ({"record": {"n": [{"anything-but": [1, 2]}]}}, True),
    ({"record": {"big": [9223372036854775807]}}, True),
    ({"record": {"big": [9223372036854775806, 9223372036854775808]}}, False),
    ({"record": {"short": [5]}}, True),
    ({"record": {"flag": [True]}}, True),
    ({"record": {"flag": [1, "t", "true"]}}, False),
    ({"record": {"price": [1.5]}}, True),
    ({"record": {"price": ["1.5"]}}, False),
    ({"record": {"price": ["1.50"]}}, True),
    ({"record": {"fee": [{"numeric": ["=", 3]}]}}, True),
    ({"record": {"rate": [{"numeric": ["=", 0.1]}]}}, True),
    ({"record": {"rate": [0.1]}}, True),
    ({"record": {"rate": ["0.1", 1]}}, False),
    ({"record": {"day": [{"prefix": "2026-"}]}}, True),
    ({"record": {"at": ["2026-11-22T05:37:00.5"]}}, True),
    ({"record": {"raw": ["AP8="]}}, True),
    ({"record": {"host": [{"cidr": "10.0.0.0/8"}]}}, True),
    ({"record": {"doc": {"n": [1]}, "plan": ["pro"]}}, False),
    ({"record": {"missing": [{"exists": False}], "plan": [{"exists": True}]}}, True),
    ({"record": {"missing": [None]}}, False),
    ({"action": ["insert"], "changes": [None]}, True),
    ({"action": ["update"]}, False),
    ({"changes": {"plan": [{"exists": False}]}}, True),
    ({"metadata": {"table_name": ["t"], "table_schema": [{"prefix": "pub"}], "database": ["shop"]}}, True),
    ({"metadata": {"table_name": ["u"], "keys": {"id": [7]}}}, False),
]


@executions
@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize(("pattern", "matches"), TOLD)
def test_plain_columns_are_told_at_a_glance(pattern, matches, execution):
    inboxes, _ = streamed({"t": Selection(compile_patterns([pattern]))}, [INSERT], identity="d", execution=execution)
    assert len(inboxes["t"]) == matches


@executions
@pytest.mark.usefixtures("nothing_is_written")
def test_what_an_update_changed_is_told_at_a_glance(execution):
    old = [ROW.get(name) for name in NAMES]
    new = [{**ROW, "plan": "pro", "n": None, "price": UNCHANGED}.get(name, UNCHANGED) for name in NAMES]
    selections = {
        "plan": Selection(None, frozenset({"plan"})),
        "n or doc": Selection(None, frozenset({"n", "doc"})),
        "code": Selection(None, frozenset({"code", "missing"})),
        "price": Selection(None, frozenset({"price"})),
        "same price": Selection(
            compile_patterns([{"record": {"price": [1.5]}, "changes": {"price": [{"exists": False}]}}])
        ),
        "was": Selection(compile_patterns([{"changes": {"plan": ["straße"]}}])),
        "was not": Selection(compile_patterns([{"changes": {"plan": ["pro"]}}])),
        "none": Selection(compile_patterns([{"changes": [None]}])),
        "is": Selection(compile_patterns([{"record": {"plan": ["pro"], "n": [None]}}])),
    }
    inboxes, _ = streamed(selections, [wire.update(OID, new, old=old)], identity="f", execution=execution)
    assert {trigger for trigger, inbox in inboxes.items() if inbox} == {"plan", "n or doc", "same price", "was", "is"}


@executions
@pytest.mark.usefixtures("nothing_is_written")
def test_a_column_that_was_not_sent_is_absent(execution):
    """A TOASTed value that has not changed, and all but the key of a row that was deleted."""
    selections = {
        "null": Selection(compile_patterns([{"record": {"plan": [None]}}])),
        "none": Selection(compile_patterns([{"record": {"plan": [{"exists": False}]}}])),
        "other": Selection(compile_patterns([{"record": {"plan": [{"anything-but": "x"}]}}])),
    }
    changes = [
        wire.update(OID, [{**ROW, "plan": UNCHANGED}.get(name) for name in NAMES]),
        wire.delete(OID, key=["7", *[None] * (len(NAMES) - 1)]),
    ]
    inboxes, _ = streamed(selections, changes, identity="d", execution=execution)
    assert {trigger: len(inbox) for trigger, inbox in inboxes.items()} == {"null": 0, "none": 2, "other": 0}


@executions
@pytest.mark.usefixtures("nothing_is_written")
def test_an_expensive_column_is_not_read_where_a_cheap_one_refuses_the_row(execution, monkeypatch):
    read = []
    really = glances.number_or_numeric_text
    monkeypatch.setattr(glances, "number_or_numeric_text", lambda text: read.append(text) or really(text))
    patterns = [{"record": {"price": [{"numeric": [">", place]}], "n": [place]}} for place in range(100)]
    selections = {str(place): Selection(compile_patterns([pattern])) for place, pattern in enumerate(patterns)}
    streamed(selections, [INSERT], identity="d", execution=execution)
    assert read == []


# Many triggers


LIMITS = [Decimal("-1.5"), -1, 0, 1, Decimal("1.0"), 1.5, 2, 300]
AFFIXES = ["", "p", "pr", "pro", "ro", "o", "1", "1.", "1.50", "proo", "é", "😀"]
TEXTS = {
    "n": ["-1", "0", "1", "2", "300"],
    "rate": ["-1.5", "1", "0.999", "NaN", "Infinity"],
    "price": ["-1.5", "1.50", "1", "0.999", "NaN", "Infinity"],
    "plan": ["", "p", "pro", "p😀", "ré", "1.50"],
}


def choose_range_or_affix(choose):
    match choose.randrange(4):
        case 0:
            return {"numeric": [choose.choice(("=", "<", "<=", ">", ">=")), choose.choice(LIMITS)]}
        case 1:
            low, high = sorted(choose.sample(LIMITS[:4] + LIMITS[5:], 2))
            return {"numeric": [choose.choice((">", ">=")), low, choose.choice(("<", "<=")), high]}
        case 2:
            return {choose.choice(("prefix", "suffix")): choose.choice(AFFIXES)}
        case _:
            return {choose.choice(("prefix", "suffix")): {"equals-ignore-case": choose.choice(AFFIXES).upper()}}


@executions
@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize("column", TEXTS)
@pytest.mark.parametrize("seed", range(3))
def test_many_ranges_and_affixes_of_one_column_are_answered_as_each_would_be(seed, column, execution):
    choose = random.Random(seed)
    texts = TEXTS[column]
    # Numbers and texts of a numeric column in one field are nothing for a glance.
    drawn = [[choose_range_or_affix(choose)] for _ in range(40)]
    drawn += [[{"numeric": [">", limit]}, {"numeric": ["=", -1]}] for limit in LIMITS]
    drawn += [[{"prefix": affix}, {"suffix": "o"}] for affix in AFFIXES]
    numeric_text = {("record", "price")}.__contains__
    matchers = [compile_patterns([{"record": {column: alternatives}}]) for alternatives in drawn]
    selections = {place: Selection(matcher) for place, matcher in enumerate(matchers)}
    changes = [wire.insert(OID, [{**ROW, column: text}.get(name) for name in NAMES]) for text in texts]
    inboxes, _ = streamed(selections, changes, identity="d", execution=execution)
    for ordinal, text in enumerate(texts):
        value = json.loads(text) if column in ("n", "rate") and NUMBER.fullmatch(text) else text
        for place, matcher in enumerate(matchers):
            matches = matcher.matches({"record": {column: value}}, numeric_text=numeric_text)
            assert (ordinal in [event.ordinal for event in inboxes[place]]) == matches, (drawn[place], text)


@executions
@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize(
    "alternative",
    [
        lambda n: n,
        lambda n: {"anything-but": n},
        lambda n: {"numeric": [">", n]},
        lambda n: {"numeric": [">=", n, "<", n + 1]},
    ],
)
def test_of_a_hundred_triggers_no_predicate_is_asked(alternative, execution, monkeypatch):
    asked = []
    selections = {n: Selection(compile_patterns([{"record": {"n": [alternative(n)]}}])) for n in range(100)}
    really = glances.Glance.__init__

    def watch(self, *arguments):
        really(self, *arguments)
        asked.extend(accepts for question in self.questions for accepts, _ in question.predicates)

    monkeypatch.setattr(glances.Glance, "__init__", watch)
    streamed(selections, [INSERT], identity="d", execution=execution)
    assert asked == []


# What is unusual


@executions
@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("n", "0300", 300),
        ("n", "-0", 0),
        ("big", "9223372036854775808", 9223372036854775808),
        ("big", "-9223372036854775809", -9223372036854775809),
        ("big", "123456789012345678901234", 123456789012345678901234),
        ("plan", b"caf\xe9", "café"),
        ("uid", 'a"b', 'a"b'),
        ("uid", r"a\nb", "a\nb"),
        ("uid", "é", "é"),
        ("price", 'a"b', 'a"b'),
        ("rate", "[1]", 1),
        ("rate", "01", 1),
        ("rate", '[1],"":2', 1),
        ("at", '2026-11-22 "," 05', "2026-11-22T"),
    ],
)
def test_text_that_its_type_never_has_is_taken_as_its_event_would_be(column, text, value, execution, monkeypatch):
    change = wire.insert(OID, [{**ROW, column: text}.get(name) for name in NAMES])
    for alternative in (value, "never", 12345, {"anything-but": value}, {"numeric": [">", 1]}):
        selections = {"t": Selection(compile_patterns([{"record": {column: [alternative]}}]))}
        at_a_glance, _ = streamed(selections, [change], identity="d", execution=execution)
        with monkeypatch.context() as without:
            without.setattr(glances, "MAX_CONJUNCTIONS", 0)
            written, _ = streamed(selections, [change], identity="d", execution=execution)
        assert len(at_a_glance["t"]) == len(written["t"]), alternative


@executions
def test_with_too_many_conjunctions_all_is_asked_of_the_written_row(execution, monkeypatch):
    monkeypatch.setattr(glances, "MAX_CONJUNCTIONS", 3)
    written = []
    really = Sieve._choose
    monkeypatch.setattr(Sieve, "_choose", lambda self, event: written.append(event) or really(self, event))
    for triggers, times in ((3, 0), (4, 1)):
        selections = {str(n): Selection(compile_patterns([{"record": {"n": [n, 300 + n]}}])) for n in range(triggers)}
        inboxes, _ = streamed(selections, [INSERT], identity="d", execution=execution)
        assert [len(inbox) for inbox in inboxes.values()] == [1] + [0] * (triggers - 1)
        assert len(written) == times


@executions
@pytest.mark.parametrize("row", [INSERT[:-1], INSERT[:-4], INSERT[:-4] + b"xnnn", INSERT + b"n"])
def test_a_row_that_does_not_parse_is_an_error_though_nobody_wants_it(row, execution):
    nobody = Selection(compile_patterns([{"action": ["update"]}]))
    with pytest.raises(ProtocolError):
        streamed({"t": nobody}, [row], identity="d", execution=execution)


@executions
@pytest.mark.parametrize(("column", "text"), [("flag", "tx"), ("flag", ""), ("n", "1a"), ("n", ""), ("rate", "")])
def test_text_that_can_not_be_of_its_type_is_an_error_where_a_filter_reads_it(column, text, execution):
    selection = Selection(compile_patterns([{"record": {column: [{"exists": False}]}}]))
    row = wire.insert(OID, [{**ROW, column: text}.get(name) for name in NAMES])
    with pytest.raises(ProtocolError):
        streamed({"t": selection}, [row], identity="d", execution=execution)
