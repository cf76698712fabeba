"""What stands in an event, and every fast way held to the plain one."""

from __future__ import annotations

import contextlib
import hmac
import json

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bridge.change import UNCHANGED, Event, Transaction
from bridge.errors import ProtocolError, UnexpectedMessage
from bridge.lsn import LSN
from bridge.pgoutput.compiled import compile_row
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.execution import GENERATED, NATIVE, Execution
from bridge.pgoutput.frames import XLOG_DATA_HEADER_BYTES, to_unix_seconds
from bridge.pgoutput.messages import Column, RelationMessage
from bridge.pgoutput.plan import Plan, make_stamp
from bridge.pgoutput.program import GAVE_UP, KINDS, ROW_KEY, compilable, row_key
from bridge.testing import wire
from bridge.triggers.envelope import Envelope
from bridge.triggers.shape import Mask, Shape

BOOL, INT8, INT4, TEXT, JSON, FLOAT8, NUMERIC, UUID = 16, 20, 23, 25, 114, 701, 1700, 2950
TIMESTAMP, TIMESTAMPTZ, DATE, BYTEA, INT4_ARRAY, JSONB = 1114, 1184, 1082, 17, 1007, 3802

OID = 16385
STAMP = make_stamp(Transaction(27440064, 27440000, to_unix_seconds(wire.COMMITTED_AT), 743), wire.COMMITTED_AT)


def users(identity: str = "d", *, key: tuple[str, ...] = ("id",)) -> RelationMessage:
    columns = [("id", INT8), ("name", TEXT), ("bio", TEXT), ("balance", NUMERIC), ("seen", TIMESTAMPTZ)]
    flagged = {name for name, _ in columns} if identity == "f" else set() if identity == "n" else set(key)
    return RelationMessage(
        OID, "public", "users", identity, tuple(Column(name in flagged, name, oid, -1) for name, oid in columns)
    )


JANE = ("7", "Jane", "long", "12.50", "2026-11-22 05:37:00.5+00")
JOHN = ("7", "John", "long", "12.50", None)


def plan_of(relation: RelationMessage, shape: Shape | None = None, **arguments) -> Plan:
    return Plan(relation, shape or Shape(), database="shop", **arguments)


WAYS = [way for way in (GENERATED, NATIVE) if way is not None]


def encode(plan: Plan, message: bytes, ordinal: int = 3) -> Event:
    """The plain way, and the fast ones where they take it, which must agree."""
    event = plan.encode(decode(message), ordinal, STAMP)
    fast = encode_fast(plan, message, ordinal)
    if fast is not None:
        assert fast == event
    return event


def encode_fast(plan: Plan, message: bytes, ordinal: int = 3) -> Event | None:
    """What every fast way gives; None if they give up."""
    frame = wire.xlog_data(message)
    kind = message[:1] + message[5:6]
    if kind not in KINDS or not compilable(plan, kind):
        return None
    assert frame[ROW_KEY] == row_key(kind, plan.relation.oid, len(plan.relation.columns))
    events = [encode_by(way, plan, kind, frame, ordinal) for way in WAYS]
    assert events == [events[0]] * len(WAYS)
    assert all(type(event) is type(events[0]) for event in events)
    return events[0]


def encode_by(way: Execution, plan: Plan, kind: bytes, frame: bytes, ordinal: int) -> Event | None:
    try:
        return way.compile_row(plan, kind)(frame, ordinal, STAMP)
    except GAVE_UP:
        return None


def document(event: Event) -> dict:
    whole = json.loads(Envelope("t", "1234").event(event))
    assert whole["id"] == event.id.decode() == event.position.event_id
    assert whole["metadata"]["idempotency_key"].endswith(whole["id"])
    assert whole["metadata"]["commit_idx"] == event.ordinal
    return whole


# What stands in an event


def test_an_insert_is_written_as_the_contract_shows_it():
    event = encode(plan_of(users()), wire.insert(OID, JANE))
    assert event.body.decode() == (
        '{"id":"0000000001A2B3C0-0000000003","action":"insert",'
        '"record":{"id":7,"name":"Jane","bio":"long","balance":"12.50","seen":"2026-11-22T05:37:00.5Z"},"changes":null,'
        '"metadata":{"source":"pgbridge","database":"shop","table_schema":"public","table_name":"users",'
        '"schema_version":"98dd23ed2d2027e7","commit_lsn":27440064,"commit_idx":3,'
        '"commit_timestamp":"2026-11-22T10:45:21.123456Z","transaction_id":743,'
        '"keys":{"id":7},"old_keys":null,"unavailable":[],'
    )
    assert event[:7] == (
        b"0000000001A2B3C0-0000000003",
        STAMP[0],
        3,
        b"public.users\0v7",
        None,
        "public.users",
        "insert",
    )
    assert not event.barrier
    document(event)


def test_an_update_under_full_has_the_old_values_of_what_changed():
    event = document(encode(plan_of(users("f"), primary_key=("id",)), wire.update(OID, JANE, old=JOHN)))
    assert event["changes"] == {"name": "John", "seen": None}
    assert event["metadata"]["keys"] == {"id": 7}
    assert event["metadata"]["old_keys"] is None


def test_an_update_under_full_that_changed_nothing_has_empty_changes():
    assert document(encode(plan_of(users("f")), wire.update(OID, JANE, old=JANE)))["changes"] == {}


def test_an_update_without_old_row_has_no_changes_known():
    assert document(encode(plan_of(users()), wire.update(OID, JANE)))["changes"] is None


def test_an_unchanged_toasted_value_is_absent_and_listed():
    event = document(encode(plan_of(users()), wire.update(OID, ("7", "Jane", UNCHANGED, UNCHANGED, None))))
    assert event["record"] == {"id": 7, "name": "Jane", "seen": None}
    assert event["metadata"]["unavailable"] == ["bio", "balance"]


def test_under_full_an_unchanged_toasted_value_is_taken_from_the_old_row():
    event = document(encode(plan_of(users("f")), wire.update(OID, ("7", "Jane", UNCHANGED, UNCHANGED, None), old=JOHN)))
    assert event["record"] == {"id": 7, "name": "Jane", "bio": "long", "balance": "12.50", "seen": None}
    assert event["changes"] == {"name": "John"}
    assert event["metadata"]["unavailable"] == []


def test_a_key_change_gives_the_old_keys_and_both_ordering_keys():
    event = encode(plan_of(users()), wire.update(OID, JANE, key=("6", None, None, None, None)))
    assert (event.key, event.old_key) == (b"public.users\0v7", b"public.users\0v6")
    written = document(event)
    assert written["metadata"]["old_keys"] == {"id": 6}
    assert written["changes"] is None


def test_a_key_change_under_full_gives_the_old_keys_too():
    event = encode(plan_of(users("f"), primary_key=("id",)), wire.update(OID, JANE, old=("6", *JANE[1:])))
    assert (event.key, event.old_key) == (b"public.users\0v7", b"public.users\0v6")
    assert document(event)["metadata"]["old_keys"] == {"id": 6}
    assert document(event)["changes"] == {"id": 6}


def test_all_key_columns_stand_in_old_keys_when_one_changed():
    relation = users(key=("id", "name"))
    event = document(encode(plan_of(relation), wire.update(OID, JANE, key=("7", "John", None, None, None))))
    assert event["metadata"]["keys"] == {"id": 7, "name": "Jane"}
    assert event["metadata"]["old_keys"] == {"id": 7, "name": "John"}


def test_an_old_key_that_did_not_change_is_no_key_change():
    # Sent when a key column is TOASTed outside of the row (ExtractReplicaIdentity).
    relation = users(key=("id", "bio"))
    event = encode(
        plan_of(relation), wire.update(OID, ("7", "J", UNCHANGED, None, None), key=("7", None, "long", None, None))
    )
    assert event.old_key is None
    assert event.key == b"public.users\0v7\0vlong"
    written = document(event)
    assert written["metadata"]["keys"] == {"id": 7, "bio": "long"}
    assert written["metadata"]["old_keys"] is None
    assert written["record"]["bio"] == "long"
    assert written["metadata"]["unavailable"] == []


def test_a_delete_by_key_has_the_key_and_lists_the_rest():
    event = document(encode(plan_of(users()), wire.delete(OID, key=("7", None, None, None, None))))
    assert event["record"] == {"id": 7}
    assert event["metadata"]["unavailable"] == ["name", "bio", "balance", "seen"]
    assert event["changes"] is None


def test_a_delete_under_full_has_the_old_row():
    event = document(encode(plan_of(users("f")), wire.delete(OID, old=JOHN)))
    assert event["record"] == {"id": 7, "name": "John", "bio": "long", "balance": "12.50", "seen": None}
    assert event["metadata"]["unavailable"] == []


def test_a_truncate_is_a_barrier_without_record():
    event = plan_of(users()).encode_truncate(3, 5, STAMP)
    assert event.barrier
    assert event.action == "truncate"
    written = document(event)
    assert written["record"] is None
    assert written["metadata"]["truncate"] == {"cascade": True, "restart_identity": True}


def test_a_backfilled_row_reads_as_an_insert_but_for_its_action():
    plan = plan_of(users())
    row = tuple(None if value is None else value.encode() for value in JANE)
    read, inserted = plan.encode_read(row, 3, STAMP), encode(plan, wire.insert(OID, JANE))
    assert read.body.replace(b'"read"', b'"insert"') == inserted.body
    assert (read.action, read.key) == ("read", inserted.key)


@pytest.mark.parametrize("ordinal", [0, 9, 1023, 1024, 9_999_999_999])
def test_ids_sort_by_ordinal(ordinal):
    event = encode(plan_of(users()), wire.insert(OID, JANE), ordinal)
    assert event.id == b"0000000001A2B3C0-%010d" % ordinal
    assert document(event)["metadata"]["commit_idx"] == ordinal


# Columns


def test_excluded_columns_stand_nowhere():
    plan = plan_of(users("f"), Shape(exclude=frozenset({"id", "bio", "missing"})), primary_key=("id",))
    for message in (
        wire.insert(OID, JANE),
        wire.update(OID, ("8", "Jane", "other", None, None), old=JOHN),
        wire.delete(OID, old=JANE),
    ):
        event = encode(plan, message)
        assert b'"id":7' not in event.body
        assert b"bio" not in event.body
        assert event.key is not None  # it still orders
        assert document(event)["metadata"]["keys"] == {}
        assert document(event)["metadata"]["old_keys"] is None


def test_excluded_columns_are_not_listed_as_unavailable():
    plan = plan_of(users(), Shape(exclude=frozenset({"bio"})))
    assert document(encode(plan, wire.update(OID, ("7", "J", UNCHANGED, None, None))))["metadata"]["unavailable"] == []
    deleted = document(encode(plan, wire.delete(OID, key=("7", None, None, None, None))))
    assert deleted["metadata"]["unavailable"] == ["name", "balance", "seen"]


def test_included_columns_alone_are_the_record_and_keys_still_name_the_row():
    plan = plan_of(users(), Shape(include=frozenset({"name"})))
    event = document(encode(plan, wire.insert(OID, JANE)))
    assert event["record"] == {"name": "Jane"}
    assert event["metadata"]["keys"] == {"id": 7}


def test_a_record_may_be_empty():
    assert document(encode(plan_of(users(), Shape(include=frozenset())), wire.insert(OID, JANE)))["record"] == {}


def test_names_are_escaped_in_json_and_in_generated_code():
    hostile = "\"); raise SystemExit #\n\\x00 {id}%b'"
    relation = RelationMessage(OID, hostile, hostile, "d", (Column(1, hostile, TEXT, -1),))
    event = encode(Plan(relation, Shape(), database=hostile), wire.insert(OID, ("v",)))
    written = document(event)
    assert written["record"] == written["metadata"]["keys"] == {hostile: "v"}
    assert written["metadata"]["table_name"] == written["metadata"]["database"] == hostile


def test_1600_columns_are_written():
    columns = tuple(Column(i == 0, f"c{i}", INT4, -1) for i in range(1600))
    relation = RelationMessage(OID, "s", "t", "d", columns)
    event = encode_fast(plan_of(relation), wire.insert(OID, [str(i) for i in range(1600)]))
    assert document(event)["record"] == {f"c{i}": i for i in range(1600)}


# Ordering keys


@pytest.mark.parametrize(
    ("shape", "key"),
    [
        (Shape(), b"public.users\0v7"),
        (Shape(order_by="table"), b"public.users"),
        (Shape(order_by="none"), None),
        (Shape(order_by=("name", "seen")), b"public.users\0vJane\0v2026-11-22 05:37:00.5+00"),
        (Shape(order_by=("name", "no such column")), b"public.users"),
    ],
)
def test_the_ordering_key_is_what_the_shape_asks_for(shape, key):
    event = (
        encode(plan_of(users()), wire.insert(OID, JANE))
        if shape == Shape()
        else encode(plan_of(users(), shape), wire.insert(OID, JANE))
    )
    assert (event.key, event.barrier) == (key, False)


def test_null_and_empty_text_are_different_keys():
    plan = plan_of(users(), Shape(order_by=("name", "bio")))
    keys = [
        encode(plan, wire.insert(OID, ("7", name, bio, None, None))).key
        for name in (None, "", "n", "v") for bio in (None, "", "n", "v")
    ]  # fmt: skip
    assert len(set(keys)) == 16


def test_a_dot_in_a_name_does_not_make_two_tables_one():
    names = [("a.b", "c"), ("a", "b.c"), ('"a', 'b".c')]
    keys = {
        plan_of(RelationMessage(OID, schema, table, "d", ()), Shape(order_by="table")).table_key
        for schema, table in names
    }
    assert len(keys) == 3


def test_without_a_known_key_full_orders_by_table():
    event = encode(plan_of(users("f")), wire.update(OID, JANE, old=JOHN))
    assert (event.key, event.old_key, event.barrier) == (b"public.users", None, False)
    assert document(event)["metadata"]["keys"] == {}


def test_half_a_primary_key_names_no_row():
    event = encode(plan_of(users("f"), primary_key=("id", "hidden")), wire.insert(OID, JANE))
    assert event.key == b"public.users"


def test_rows_without_identity_are_inserted_in_any_order_and_changed_behind_a_barrier():
    plan = plan_of(users("d", key=()))
    inserted = encode(plan, wire.insert(OID, JANE))
    assert (inserted.key, inserted.barrier) == (None, False)
    deleted = encode(plan, wire.delete(OID, old=JANE))
    assert (deleted.key, deleted.barrier) == (None, True)


def test_under_nothing_the_primary_key_names_the_row():
    event = encode(plan_of(users("n"), primary_key=("id",)), wire.insert(OID, JANE))
    assert event.key == b"public.users\0v7"
    assert document(event)["metadata"]["keys"] == {"id": 7}


def test_a_change_whose_ordering_columns_were_not_sent_is_a_barrier():
    plan = plan_of(users(), Shape(order_by=("bio",)))
    assert encode(plan, wire.delete(OID, key=("7", None, None, None, None)))[3:5] == (None, None)
    assert encode(plan, wire.delete(OID, key=("7", None, None, None, None))).barrier
    assert encode(plan, wire.update(OID, ("7", "J", UNCHANGED, None, None))).barrier
    assert not encode(plan, wire.update(OID, JANE)).barrier


def test_nothing_is_a_barrier_where_no_order_is_wanted():
    plan = plan_of(users(), Shape(order_by="none"))
    assert not plan.encode_truncate(0, 0, STAMP).barrier
    assert not encode(plan, wire.delete(OID, key=("7", None, None, None, None))).barrier


# Text that is not UTF-8


def test_text_that_is_not_utf8_is_written_as_latin1_and_its_columns_are_listed():
    plan = plan_of(users("f"), primary_key=("name",))
    raw = b"caf\xe9 \x80"
    event = document(encode(plan, wire.update(OID, ("7", raw, "é", None, None), old=("7", "é", raw, None, None))))
    assert event["metadata"]["latin1"] == ["name", "bio"]
    assert event["record"]["name"].encode("latin-1") == raw
    assert event["record"]["bio"].encode("latin-1") == "é".encode()  # a listed column, in every place
    assert event["changes"]["bio"].encode("latin-1") == raw
    assert event["metadata"]["old_keys"]["name"].encode("latin-1") == "é".encode()


def test_a_document_that_is_not_utf8_stays_a_document():
    relation = RelationMessage(OID, "s", "t", "d", (Column(1, "id", INT4, -1), Column(0, "doc", JSON, -1)))
    event = document(encode(plan_of(relation), wire.insert(OID, ("1", b'{"k\xff": ["\xe9"]}'))))
    assert event["record"]["doc"] == {"k\xff": ["\xe9"]}
    assert event["metadata"]["latin1"] == ["doc"]


def test_excluded_text_that_is_not_utf8_is_not_mentioned():
    event = encode(
        plan_of(users(), Shape(exclude=frozenset({"bio"}))), wire.insert(OID, ("7", "J", b"\xff", None, None))
    )
    assert b"latin1" not in event.body


@given(st.binary(min_size=1).filter(lambda raw: 0 not in raw))
def test_no_byte_of_any_text_is_lost(raw):
    event = document(encode(plan_of(users()), wire.insert(OID, ("7", raw, None, None, None))))
    encoding = "latin-1" if "name" in event["metadata"].get("latin1", []) else "utf-8"
    assert event["record"]["name"].encode(encoding) == raw


# The fast ways are held to the plain one

PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
VALUES = {
    BOOL: st.sampled_from(["t", "f"]),
    INT4: st.integers(-(2**31), 2**31 - 1).map(str),
    INT8: st.integers(-(2**63), 2**63 - 1).map(str),
    TEXT: PRINTABLE | st.binary(max_size=4).map(lambda raw: raw.replace(b"\0", b"")),
    JSON: st.recursive(st.none() | st.booleans() | st.integers() | PRINTABLE, st.lists, max_leaves=4).map(json.dumps),
    JSONB: st.sampled_from(['{"a": 1.10}', "null", '"é"', b'"\xe9"']),
    FLOAT8: st.sampled_from(["0.1", "-1e+20", "NaN", "Infinity", "-Infinity", "7"]),
    NUMERIC: st.decimals().filter(lambda number: not number.is_snan()).map(str),
    UUID: st.uuids().map(str),
    DATE: st.dates().map(str) | st.sampled_from(["infinity", "0044-03-15 BC"]),
    TIMESTAMP: st.datetimes().map(lambda t: t.isoformat(" ")) | st.sampled_from(["infinity", "0044-03-15 00:00:00 BC", "12345-01-01 00:00:00"]),
    TIMESTAMPTZ: st.datetimes().map(lambda t: t.isoformat(" ") + "+00")
    | st.sampled_from(["-infinity", "0044-03-15 00:00:00+00 BC", "12345-01-01 00:00:00+00", "2026-11-22 05:00:00+05:30"]),
    BYTEA: st.binary(max_size=5).map(lambda raw: "\\x" + raw.hex()),
    INT4_ARRAY: st.sampled_from(["{}", "{1,NULL}", "[0:1]={{1},{2}}"]),
}  # fmt: skip
COLUMNS = st.lists(st.tuples(st.sampled_from(sorted(VALUES)), st.booleans()), min_size=1, max_size=5)


@st.composite
def relations(draw):
    identity = draw(st.sampled_from("dfin"))
    columns = draw(COLUMNS)
    flags = [identity == "f" or (flagged and identity != "n") for _, flagged in columns]
    return RelationMessage(
        OID, "public", "t", identity, tuple(Column(flag, f"c{i}", oid, -1) for i, ((oid, _), flag) in enumerate(zip(columns, flags, strict=True)))
    )  # fmt: skip


@st.composite
def plans(draw):
    relation = draw(relations())
    names = st.sampled_from([column.name for column in relation.columns] + ["absent"])
    shape = Shape(
        include=draw(st.none() | st.frozensets(names)),
        exclude=draw(st.frozensets(names, max_size=2)),
        order_by=draw(
            st.sampled_from(["primary_key", "table", "none"])
            | st.lists(names, min_size=1, max_size=2, unique=True).map(tuple)
        ),
    )
    return plan_of(relation, shape, primary_key=draw(st.none() | st.lists(names, unique=True, max_size=2).map(tuple)))


@st.composite
def rows(draw, relation, *, unchanged):
    kinds = [st.none(), st.just(UNCHANGED)] if unchanged else [st.none()]
    return [draw(st.one_of(VALUES[column.type_oid], VALUES[column.type_oid], *kinds)) for column in relation.columns]


@st.composite
def changes(draw):
    plan = draw(plans())
    relation = plan.relation
    new = draw(rows(relation, unchanged=True))
    old = draw(rows(relation, unchanged=draw(st.booleans())))
    for i in range(len(new)):  # as a rule an update changes little
        if draw(st.booleans()):
            new[i] = old[i]
    message = draw(
        st.sampled_from(
            [
                wire.insert(OID, new),
                wire.update(OID, new),
                wire.update(OID, new, old=old),
                wire.update(OID, new, key=old),
                wire.delete(OID, key=old),
                wire.delete(OID, old=old),
            ]
        )
    )
    return plan, message, draw(st.sampled_from([0, 3, 1023, 1024, 10**9]))


@settings(max_examples=300, deadline=None)
@given(changes())
def test_every_fast_way_gives_the_plain_ways_events(change):
    plan, message, ordinal = change
    event = plan.encode(decode(message), ordinal, STAMP)
    fast = encode_fast(plan, message, ordinal)
    assert fast is None or fast == event
    written = document(event)
    hidden = plan.shape.exclude
    assert not hidden & (
        written["record"].keys() | written["metadata"]["keys"].keys() | set(written["metadata"]["unavailable"])
    )


@settings(deadline=None)
@given(plans(), st.data())
def test_the_fast_ways_take_every_usual_row(plan, data):
    """It may leave to the plain way only what is rare."""
    row = [
        value.encode() if isinstance(value, str) else value for value in data.draw(rows(plan.relation, unchanged=False))
    ]
    assume(all(value is None or is_utf8(value) for value in row))
    assume(not any(value is not None and b"infinity" in value for value in row))
    for message in (
        wire.insert(OID, row),
        wire.update(OID, row),
        wire.update(OID, row, old=row),
        wire.delete(OID, old=row),
    ):
        kind = message[:1] + message[5:6]
        if compilable(plan, kind):
            assert encode_fast(plan, message) is not None


def is_utf8(raw: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        return raw.decode() is not None
    return False


@settings(max_examples=150, deadline=None)
@given(changes(), st.data())
def test_no_fast_way_reads_a_damaged_row_that_the_decoder_refuses(change, data):
    plan, message, ordinal = change
    damaged = bytearray(message)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(8, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(8, len(damaged)))]
    fast = encode_fast(plan, bytes(damaged), ordinal)
    try:
        plan.encode(decode(bytes(damaged)), ordinal, STAMP)
    except ProtocolError:
        assert fast is None


@pytest.mark.parametrize(
    "message",
    [wire.insert(OID, JANE), wire.update(OID, JANE), wire.update(OID, JANE, old=JOHN), wire.delete(OID, old=JOHN), wire.delete(OID, key=("7", None, None, None, None))],
    ids=["insert", "update", "update under full", "delete under full", "delete by key"],
)  # fmt: skip
def test_a_fast_way_gives_up_on_a_row_cut_at_any_byte_or_with_one_too_many(message, execution):
    relation = users("f") if message[5:6] == b"O" else users()
    plan = plan_of(relation, primary_key=("id",))
    encode_row = execution.compile_row(plan, message[:1] + message[5:6])
    step_over_row = execution.step_over_row
    frame = wire.xlog_data(message)
    assert encode_row(frame, 0, STAMP)
    step_over_row(frame, 0, STAMP)
    for length in range(33, len(frame)):
        for read in (encode_row, step_over_row):
            with pytest.raises(GAVE_UP):
                read(frame[:length], 0, STAMP)
    for read in (encode_row, step_over_row):
        with pytest.raises(GAVE_UP):
            read(frame + b"\0", 0, STAMP)


@settings(max_examples=300, deadline=None)
@example(wire.insert(OID, JANE))
@given(changes().map(lambda change: change[1]))
def test_rows_stepped_over_are_framed_as_the_decoder_wants(message):
    for way in WAYS:
        way.step_over_row(wire.xlog_data(message), 0, STAMP)
    for damaged in (message + b"x", message[:-1], message.replace(b"t", b"x") if b"t" in message[8:] else message[:-1]):
        try:
            decode(damaged)
        except ProtocolError:
            if len(damaged) >= 8:
                for way in WAYS:
                    with pytest.raises(GAVE_UP):
                        way.step_over_row(wire.xlog_data(damaged), 0, STAMP)


def test_relations_that_look_alike_share_their_code():
    first, second = (
        RelationMessage(oid, "public", f"part_{oid}", "d", (Column(1, "id", INT8, -1), Column(0, f"c{oid}", TEXT, -1)))
        for oid in (1, 2)
    )
    one, two = (compile_row(plan_of(relation), b"IN") for relation in (first, second))
    assert one is not two
    assert one.__code__ is two.__code__


def test_a_row_of_another_width_is_unexpected():
    with pytest.raises(UnexpectedMessage):
        plan_of(users()).encode(decode(wire.insert(OID, ("7",))), 0, STAMP)


def test_frame_offsets_in_generated_code_are_the_envelopes():
    assert XLOG_DATA_HEADER_BYTES == ROW_KEY.start == len(wire.xlog_data(b""))
    assert LSN(STAMP[0].commit_lsn) == 27440064


# What the shape makes of it

KEY = b"0123456789abcdef"
COVERED = Shape(
    rename=(("name", "full_name"),),
    masks=(("name", Mask(length=2)), ("balance", Mask(key=KEY)), ("bio", Mask())),
    static=(("region", b'"eu"'), ("tags", b"[1]")),
)  # fmt: skip


def test_columns_are_renamed_covered_and_joined_by_static_members():
    event = document(encode(plan_of(users(), shape=COVERED), wire.insert(OID, JANE)))
    assert event["record"] == {
        "region": "eu", "tags": [1], "id": 7, "full_name": "Ja", "bio": "***",
        "balance": hmac.new(KEY, b"12.50", "sha256").hexdigest(), "seen": "2026-11-22T05:37:00.5Z",
    }  # fmt: skip


def test_old_values_are_renamed_and_covered_too_and_null_stays_null():
    new = ("7", "Jane", None, "12.50", None)
    event = document(encode(plan_of(users("f"), shape=COVERED), wire.update(OID, new, old=JOHN)))
    assert event["changes"] == {"full_name": "Jo", "bio": "***"}
    assert event["record"]["bio"] is None


def test_a_covered_key_is_covered_in_the_keys_and_orders_by_its_value():
    plan = plan_of(users(), shape=Shape(masks=(("id", Mask(key=KEY)),)))
    event = encode(plan, wire.update(OID, JANE, key=("8", None, None, None, None)))
    hashed = {text: hmac.new(KEY, text, "sha256").hexdigest() for text in (b"7", b"8")}
    metadata = document(event)["metadata"]
    assert (metadata["keys"], metadata["old_keys"]) == ({"id": hashed[b"7"]}, {"id": hashed[b"8"]})
    assert (event.key, event.old_key) == (b"public.users\0v7", b"public.users\0v8")


def test_an_absent_renamed_column_is_listed_under_its_new_name():
    event = document(
        encode(
            plan_of(users(), shape=Shape(rename=(("bio", "story"),))),
            wire.update(OID, ("7", "Jane", UNCHANGED, "1", None)),
        )
    )
    assert event["metadata"]["unavailable"] == ["story"]


def test_a_column_whose_name_is_taken_is_left_out():
    shape = Shape(rename=(("name", "bio"),), static=(("seen", b"true"),))
    assert document(encode(plan_of(users(), shape=shape), wire.insert(OID, JANE)))["record"] == {
        "seen": True, "id": 7, "bio": "Jane", "balance": "12.50",
    }  # fmt: skip


@pytest.mark.parametrize("include", [frozenset({"bio"}), frozenset({"none"}), None])
@pytest.mark.parametrize(
    "message",
    [wire.insert(OID, JANE), wire.update(OID, ("7", "Jane", UNCHANGED, UNCHANGED, None)), wire.delete(OID, key=("7", *(None,) * 4))],
    ids=["insert", "update", "delete"],
)  # fmt: skip
def test_static_members_stand_even_where_no_column_does(message, include):
    event = document(encode(plan_of(users(), shape=Shape(include=include, static=(("region", b'"eu"'),))), message))
    assert event["record"]["region"] == "eu"


def test_a_mask_shows_nothing_of_its_key():
    assert "0123" not in repr(Mask(key=KEY))
