from __future__ import annotations

import contextlib
import itertools
import json
import tracemalloc
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.change import UNCHANGED, Event, Position
from bridge.errors import MalformedMessage, ProtocolError, UnexpectedMessage
from bridge.lsn import LSN
from bridge.pgoutput import assembler as assembler_module
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.execution import DEFAULT, Execution
from bridge.pgoutput.messages import RelationMessage
from bridge.pgoutput.values import CatalogType
from bridge.testing import wire
from bridge.triggers.filter import compile_patterns
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

INT4, TEXT = 23, 25
USERS, ORDERS, OURS = 16385, 16390, 16400
USERS_TABLE = wire.relation(USERS, "public", "users", [("id", INT4, True), ("name", TEXT, False)])
ORDERS_TABLE = wire.relation(
    ORDERS, "shop", "orders", [("id", INT4, True), ("note", TEXT, False)], identity="f"
).replace(b"\0note", b"\1note")
EVERYTHING = frozenset({"insert", "update", "delete", "truncate"})
NOTHING_RECEIVED = Position(LSN(0), 0)
_lsns = itertools.count(0x1000, 0x100)


def selection(pattern, changed=()):
    return Selection(compile_patterns([pattern]), frozenset(changed))


EVERY_ROW = selection({"action": [{"exists": True}]})


@dataclass
class Bench:
    """An assembler whose routes are given by trigger, and its inboxes."""

    routes: dict[str, dict] = field(default_factory=lambda: {"t": {}})
    message_prefixes: tuple[str, ...] = ()
    arguments: dict = field(default_factory=dict)
    execution: ClassVar[Execution] = DEFAULT
    asked: list[RelationMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inboxes: dict[str, list[Event]] = {trigger: [] for trigger in self.routes}
        self.assembler = Assembler(
            database="shop",
            system_identifier="1234",
            start_lsn=self.arguments.pop("start_lsn", 0x800),
            routes=self.routes_of,
            message_routes=lambda prefix: self.routes_of(None) if prefix in self.message_prefixes else (),
            execution=self.execution,
            **self.arguments,
        )

    def routes_of(self, relation: RelationMessage | None) -> list[Route]:
        if relation is not None:
            self.asked.append(relation)
        return [
            Route(
                trigger,
                shape=settings.get("shape", Shape()),
                operations=settings.get("operations", EVERYTHING),
                inbox=self.inboxes[trigger],
                received=settings.get("received", NOTHING_RECEIVED),
                selection=settings.get("selection"),
            )
            for trigger, settings in self.routes.items()
            if relation is None or relation.name in settings.get("tables", (relation.name,))
        ]

    def take(self, *messages: bytes) -> list[Event]:
        """Consume messages, each in a frame of its own; the first trigger's new events."""
        inbox = next(iter(self.inboxes.values()))
        before = len(inbox)
        self.assembler.consume([memoryview(wire.xlog_data(message, start=0xABC)) for message in messages])
        return inbox[before:]


@pytest.fixture(scope="module", autouse=True)
def _both_ways(execution: Execution) -> None:
    Bench.execution = execution


def transaction(*messages: bytes, at: int | None = None) -> list[bytes]:
    lsn = next(_lsns) if at is None else at
    return [wire.begin(lsn), *messages, wire.commit(lsn)]


def user(number: int, name: str = "x") -> bytes:
    return wire.insert(USERS, (str(number), name))


def positions(events: list[Event]) -> list[tuple[int, int]]:
    return [tuple(event.position) for event in events]


# Transactions and positions


def test_ordinals_count_every_change_of_a_transaction_from_zero():
    bench = Bench()
    events = bench.take(*transaction(USERS_TABLE, user(1), user(2), at=0x1000), *transaction(user(3), at=0x2000))
    assert positions(events) == [(0x1000, 0), (0x1000, 1), (0x2000, 0)]
    assert [event.id for event in events] == [
        b"0000000000001000-0000000000",
        b"0000000000001000-0000000001",
        b"0000000000002000-0000000000",
    ]
    assert bench.assembler.changes == 3


def test_ordinals_count_changes_that_nobody_wants():
    bench = Bench({"t": {"tables": ["orders"], "operations": {"insert"}}})
    events = bench.take(
        *transaction(
            USERS_TABLE, ORDERS_TABLE, user(1), wire.delete(ORDERS, old=("1", "a")),
            wire.logical_message(5, "p", b"", transactional=True), wire.truncate(USERS, ORDERS), wire.insert(ORDERS, ("1", "a")), at=0x1000,
        )
    )  # fmt: skip
    assert positions(events) == [(0x1000, 5)]
    assert bench.assembler.changes == 6


def test_events_of_one_transaction_share_it():
    bench = Bench()
    first, second, third = bench.take(
        *transaction(USERS_TABLE, user(1), user(2), at=0x1000), *transaction(user(3), at=0x2000)
    )
    assert first.transaction is second.transaction
    assert (first.transaction.commit_lsn, first.transaction.previous_end_lsn, first.transaction.xid) == (
        0x1000,
        0x800,
        743,
    )
    assert third.transaction.previous_end_lsn == 0x1030
    assert first.transaction.committed_at == pytest.approx(1795344321.123456, abs=1e-5)


def test_the_received_end_is_that_of_the_last_commit_with_nothing_added():
    bench = Bench()
    assert bench.assembler.received_end_lsn == 0x800
    bench.take(wire.begin(0x1000))
    assert bench.assembler.received_end_lsn == 0x800
    assert bench.assembler.transaction.commit_lsn == 0x1000
    bench.take(wire.commit(0x1000, 0x1038))
    assert bench.assembler.received_end_lsn == 0x1038
    assert bench.assembler.transaction is None


def test_the_received_end_does_not_go_back_where_the_slot_is_behind_what_was_received():
    bench = Bench(arguments={"start_lsn": 0x5000})
    bench.take(*transaction(at=0x1000))
    assert bench.assembler.received_end_lsn == 0x5000


def test_events_come_as_their_changes_come_not_at_the_commit():
    bench = Bench()
    assert len(bench.take(wire.begin(0x1000), USERS_TABLE, user(1))) == 1


def test_frames_may_be_cut_into_bursts_anywhere():
    messages = [*transaction(USERS_TABLE, user(1), user(2)), *transaction(user(3), user(4))]
    whole, single = Bench(), Bench()
    whole.take(*messages)
    for message in messages:
        single.take(message)
    assert [e.body for e in whole.inboxes["t"]] == [e.body for e in single.inboxes["t"]]


def test_bytes_are_taken_as_memoryviews_are():
    bench = Bench()
    bench.assembler.consume([wire.xlog_data(m) for m in transaction(USERS_TABLE, user(1))])
    assert len(bench.inboxes["t"]) == 1


def test_a_resend_gives_the_same_events():
    messages = [
        *transaction(
            wire.origin(1, "o"), USERS_TABLE, user(1), wire.logical_message(9, "p", b"{}", transactional=True), user(2)
        ),
        wire.logical_message(0xF0001, "p", b"[1]", transactional=False),
        *transaction(ORDERS_TABLE, wire.truncate(USERS, ORDERS), wire.delete(USERS, key=("1", None)), at=0xF1000),
    ]
    first, again = (Bench(message_prefixes=("p",)) for _ in range(2))
    first.take(*messages)
    again.assembler.consume([wire.xlog_data(m, clock=99, wal_end=7) for m in messages])
    assert [e[0] for e in first.inboxes["t"]] == [e[0] for e in again.inboxes["t"]]
    assert [e[3:] for e in first.inboxes["t"]] == [e[3:] for e in again.inboxes["t"]]
    assert len(first.inboxes["t"]) == 7


def test_ids_are_unique_and_in_stream_order():
    bench = Bench(message_prefixes=("p",))
    messages = []
    for lsn in range(0x1000, 0x9000, 0x1000):
        # The message's record ends where the commit record starts.
        messages += [
            wire.logical_message(lsn, "p", b"", transactional=False),
            *transaction(USERS_TABLE, user(1), user(2), at=lsn),
        ]
    ids = [event.id for event in bench.take(*messages)]
    assert len(ids) == 24
    assert ids == sorted(set(ids))


# Rules of the stream


@pytest.mark.parametrize(
    "messages",
    [
        [wire.begin(1), wire.begin(2)],
        [wire.commit(1)],
        [wire.begin(1), wire.commit(2)],
        [wire.begin(0x1000), wire.commit(0x1000, 0x1000)],
        [USERS_TABLE, user(1)],
        [USERS_TABLE, wire.truncate(USERS)],
        [wire.logical_message(1, "p", b"", transactional=True)],
        [wire.begin(0x1000), wire.logical_message(1, "p", b"", transactional=False)],
        [wire.origin(1, "o")],
        [wire.begin(1), user(1)],
        [wire.begin(1), wire.update(USERS, ("1", "x"))],
        [wire.begin(1), USERS_TABLE, wire.truncate(USERS, ORDERS)],
        [wire.begin(1), USERS_TABLE, wire.insert(USERS, ("1",))],
        [wire.begin(1), USERS_TABLE, wire.insert(USERS, ("1", "x", "y"))],
        [wire.begin(1), USERS_TABLE, wire.update(USERS, ("1", "x"), key=("1",))],
        [wire.begin(1), USERS_TABLE, wire.update(USERS, ("1", "x"), old=("1",))],
        [wire.begin(1), USERS_TABLE, wire.delete(USERS, key=("1",))],
        [wire.begin(1), b"?"],
        [wire.begin(1), b"S"],
    ],
    ids=[
        "Begin inside", "Commit outside", "Commit of another transaction", "Commit that ends at its start", "row outside", "truncate outside",
        "transactional message outside", "non-transactional message inside", "Origin outside", "insert of an unknown relation",
        "update of an unknown relation", "truncate of an unknown relation", "row too narrow", "row too wide", "key too narrow",
        "old row too narrow", "delete too narrow", "unknown tag", "tag of an option that is off",
    ],
)  # fmt: skip
def test_a_message_at_the_wrong_moment_is_unexpected(messages):
    bench = Bench()
    *before, last = messages
    bench.take(*before)
    with pytest.raises(UnexpectedMessage) as caught:
        bench.take(last)
    assert caught.value.position == 0xABC
    assert caught.value.tag == last[0]


@pytest.mark.parametrize(
    "trigger", [{}, {"tables": []}, {"selection": EVERY_ROW}], ids=["wanted", "unwanted", "filtered"]
)
@pytest.mark.parametrize(
    "row",
    [user(1), wire.update(USERS, ("1", "x")), wire.update(USERS, ("1", "x"), old=("1", "y")), wire.delete(USERS, key=("1", None))],
    ids=["insert", "update", "update with old row", "delete"],
)  # fmt: skip
@pytest.mark.parametrize("earlier", [0, 1], ids=["the first of its kind", "a later one"])
def test_a_row_cut_at_any_byte_or_with_one_too_many_is_a_protocol_error(row, earlier, trigger):
    for damaged in [*(row[:length] for length in range(len(row))), row + b"\0"]:
        bench = Bench({"t": trigger})
        bench.take(wire.begin(0x1000), USERS_TABLE, *[row] * earlier)
        before = len(bench.inboxes["t"])
        with pytest.raises(ProtocolError) as caught:
            bench.take(damaged)
        assert caught.value.offset is not None
        assert len(bench.inboxes["t"]) == before
        if damaged:
            assert caught.value.position == 0xABC


@pytest.mark.parametrize(
    "message",
    [
        USERS_TABLE, wire.type_(99, "public", "mood"), wire.origin(1, "o"), wire.truncate(USERS), wire.delete(USERS, old=("1", "x")),
        wire.update(USERS, ("1", "x"), key=("2", None)), wire.logical_message(9, "p", b"{}", transactional=True),
    ],
    ids=["relation", "type", "origin", "truncate", "delete with old row", "update of a key", "message"],
)  # fmt: skip
def test_whatever_else_is_cut_at_any_byte_or_has_one_too_many_is_malformed(message):
    for damaged in [*(message[:length] for length in range(len(message))), message + b"\0"]:
        bench = Bench(message_prefixes=("p",))
        bench.take(wire.begin(0x1000), USERS_TABLE, user(1))
        with pytest.raises(MalformedMessage):
            bench.take(damaged)
        assert len(bench.inboxes["t"]) == 1


@pytest.mark.parametrize("before", [(), (wire.begin(0x1000), USERS_TABLE, user(1))], ids=["outside", "inside"])
def test_an_unknown_tag_is_unexpected_in_and_out_of_transactions(before):
    for tag in set(range(256)) - set(b"BCORYIUDTM"):
        bench = Bench()
        bench.take(*before)
        with pytest.raises(UnexpectedMessage) as caught:
            bench.take(bytes([tag]) + user(1)[1:])
        assert (caught.value.tag, caught.value.position) == (tag, 0xABC)


@pytest.mark.parametrize("message", [wire.begin(0x1000), wire.commit(0x1000)], ids=["begin", "commit"])
def test_begin_and_commit_cut_or_with_a_byte_too_many_are_malformed(message):
    for damaged in [*(message[:length] for length in range(len(message))), message + b"\0"]:
        bench = Bench()
        if message[:1] == b"C":
            bench.take(wire.begin(0x1000))
        with pytest.raises(MalformedMessage):
            bench.take(damaged)


def test_a_commit_with_flags_is_malformed():
    bench = Bench()
    with pytest.raises(MalformedMessage):
        bench.take(wire.begin(1), wire.commit(1, flags=1))


@pytest.mark.parametrize("clock", [2**63 - 1, -(2**63)])
def test_a_commit_time_that_no_calendar_has_is_malformed(clock):
    with pytest.raises(MalformedMessage):
        Bench().take(wire.begin(1, committed_at=clock))


def test_a_value_that_its_type_cannot_have_is_malformed_and_names_table_and_place():
    bench = Bench()
    bench.take(wire.begin(1), USERS_TABLE)
    with pytest.raises(MalformedMessage) as caught:
        bench.take(wire.insert(USERS, ("secret", "x")))
    assert (caught.value.table, caught.value.position, caught.value.tag) == ("public.users", 0xABC, ord("I"))
    assert "secret" not in str(caught.value)


def test_an_empty_frame_is_malformed():
    with pytest.raises(MalformedMessage):
        Bench().assembler.consume([b""])


# Keepalives


def test_a_keepalive_gives_the_servers_end_and_its_wish_for_a_reply():
    bench = Bench()
    bench.assembler.consume([wire.keepalive(0x9000, reply=True), wire.keepalive(0x8000)])
    assert bench.assembler.server_wal_end == 0x9000
    assert bench.assembler.reply_requested
    bench.assembler.reply_requested = False
    bench.assembler.consume([wire.keepalive(0xA000)])
    assert bench.assembler.server_wal_end == 0xA000
    assert not bench.assembler.reply_requested


def test_a_keepalive_inside_a_transaction_changes_nothing_of_it():
    bench = Bench()
    bench.take(wire.begin(0x1000), USERS_TABLE, user(1))
    bench.assembler.consume([wire.keepalive(0x9000)])
    assert positions(bench.take(user(2))) == [(0x1000, 1)]


def test_a_keepalive_with_the_bytes_of_a_row_is_no_row():
    bench = Bench()
    bench.take(wire.begin(0x1000), USERS_TABLE)
    with pytest.raises(MalformedMessage):
        bench.assembler.consume([b"k" + wire.xlog_data(user(1))[1:]])


# Routes


def test_triggers_of_one_shape_share_the_very_same_event():
    bench = Bench({"a": {}, "b": {}, "c": {"shape": Shape(exclude=frozenset({"name"}))}})
    bench.take(*transaction(USERS_TABLE, user(1)))
    (a,), (b,), (c,) = bench.inboxes.values()
    assert a is b
    assert b"name" in a.body
    assert b'"name":' not in c.body
    assert a.id == c.id


def test_a_trigger_gets_the_operations_that_it_wants():
    bench = Bench(
        {"a": {"operations": {"insert"}}, "b": {"operations": {"update", "delete"}}, "c": {"operations": {"truncate"}}}
    )
    bench.take(
        *transaction(
            USERS_TABLE, user(1), wire.update(USERS, ("1", "y")), wire.update(USERS, ("2", "y"), key=("1", None)),
            wire.delete(USERS, key=("2", None)), wire.truncate(USERS),
        )
    )  # fmt: skip
    assert {trigger: [e.action for e in inbox] for trigger, inbox in bench.inboxes.items()} == {
        "a": ["insert"],
        "b": ["update", "update", "delete"],
        "c": ["truncate"],
    }


def test_a_filter_can_see_the_whole_event_and_what_it_refuses_is_counted_and_never_arrives():
    filtered = {
        "id": {"id": [{"suffix": "-0000000001"}]},
        "idx": {"metadata": {"commit_idx": [{"numeric": ["=", 1]}], "table_name": ["users"]}},
        "row": {"action": ["insert"], "record": {"id": [2]}},
        "key": {"metadata": {"keys": {"id": [2]}}},
    }
    bench = Bench({**{name: {"selection": selection(pattern)} for name, pattern in filtered.items()}, "other": {}})
    bench.take(*transaction(USERS_TABLE, user(1), user(2), user(3), at=0x1000))
    assert {name: positions(bench.inboxes[name]) for name in filtered} == {name: [(0x1000, 1)] for name in filtered}
    assert len(bench.inboxes["other"]) == 3
    assert bench.assembler.filtered == dict.fromkeys(filtered, 2)


def test_a_filter_sees_key_changes_truncates_and_messages_too():
    changes = (
        wire.update(USERS, ("2", "y"), key=("1", None)), wire.truncate(USERS), wire.logical_message(1, "p", b"x", transactional=True),
    )  # fmt: skip
    for action in ("update", "truncate", "message"):
        bench = Bench({"t": {"selection": selection({"action": [action]})}}, message_prefixes=("p",))
        bench.take(*transaction(USERS_TABLE, *changes))
        assert [event.action for event in bench.inboxes["t"]] == [action]
        assert bench.assembler.filtered == {"t": 2}


def test_what_filters_refused_stays_counted_when_the_relation_is_described_anew():
    bench = Bench({"t": {"selection": selection({"record": {"id": [2]}})}})
    wider = wire.relation(USERS, "public", "users", [("id", INT4, True), ("name", 25, False), ("more", 25, False)])
    bench.take(*transaction(USERS_TABLE, user(1), wider, wire.insert(USERS, ("1", "x", "y"))))
    assert bench.assembler.filtered == {"t": 2}


def test_our_own_tables_get_no_routes_but_their_changes_count():
    ours = wire.relation(OURS, "pgbridge", "checkpoints", [("id", INT4, True)])
    bench = Bench(arguments={"excluded_schemas": frozenset({"pgbridge"})})
    events = bench.take(
        *transaction(ours, wire.insert(OURS, ("1",)), wire.truncate(OURS), USERS_TABLE, user(1), at=0x1000)
    )
    assert positions(events) == [(0x1000, 2)]
    assert [relation.name for relation in bench.asked] == ["users"]


def test_inboxes_are_emptied_in_place_between_bursts():
    bench = Bench()
    bench.take(*transaction(USERS_TABLE, user(1)))
    bench.inboxes["t"].clear()
    bench.take(*transaction(user(2)))
    assert len(bench.inboxes["t"]) == 1


# What was received before


@pytest.mark.parametrize("chosen", [None, EVERY_ROW], ids=["unfiltered", "filtered"])
def test_changes_at_or_below_what_a_trigger_has_received_are_passed_over_for_it_alone(chosen):
    bench = Bench({"new": {"selection": chosen}, "old": {"received": Position(LSN(0x2000), 1), "selection": chosen}})
    bench.take(
        *transaction(USERS_TABLE, user(1), at=0x1000),
        *transaction(user(2), user(3), user(4), at=0x2000),
        *transaction(user(5), at=0x3000),
    )
    assert len(bench.inboxes["new"]) == 5
    assert positions(bench.inboxes["old"]) == [(0x2000, 2), (0x3000, 0)]


def test_every_kind_of_change_is_passed_over():
    changes = [
        user(1), wire.update(USERS, ("1", "y")), wire.update(USERS, ("2", "y"), key=("1", None)), wire.update(USERS, ("2", UNCHANGED)),
        wire.delete(USERS, key=("2", None)), wire.truncate(USERS, USERS), wire.logical_message(1, "p", b"", transactional=True),
    ]  # fmt: skip
    for last in range(9):
        bench = Bench({"t": {"received": Position(LSN(0x1000), last)}}, message_prefixes=("p",))
        bench.take(*transaction(USERS_TABLE, *changes, at=0x1000))
        assert positions(bench.inboxes["t"]) == [(0x1000, ordinal) for ordinal in range(last + 1, 8)]


def test_a_message_outside_of_transactions_is_passed_over_by_its_own_position():
    message = wire.logical_message(0x1001, "p", b"", transactional=False)
    (event,) = Bench(message_prefixes=("p",)).take(message)
    assert Bench({"t": {"received": event.position}}, message_prefixes=("p",)).take(message) == []
    before = Position(LSN(0xFFF), 99)
    assert len(Bench({"t": {"received": before}}, message_prefixes=("p",)).take(message)) == 1


def test_a_relation_first_described_inside_a_received_transaction_is_passed_over():
    bench = Bench({"t": {"received": Position(LSN(0x1000), 0)}})
    events = bench.take(*transaction(USERS_TABLE, user(1), user(2), at=0x1000))
    assert positions(events) == [(0x1000, 1)]


def test_positions_received_cost_the_rows_after_them_nothing(monkeypatch):
    bench = Bench({"t": {"received": Position(LSN(0x1000), 5)}})
    bench.take(*transaction(USERS_TABLE, user(1), at=0x1000))
    monkeypatch.setattr(Assembler, "_unreceived", lambda *_: pytest.fail("asked for a row that is surely new"))
    assert len(bench.take(*transaction(user(2), user(3), at=0x2000))) == 2


# Truncates


def test_a_truncate_of_several_relations_is_an_event_for_each_in_their_order():
    bench = Bench()
    events = bench.take(
        *transaction(USERS_TABLE, ORDERS_TABLE, user(1), wire.truncate(ORDERS, USERS, cascade=True), user(2), at=0x1000)
    )
    assert [(e.action, e.table, e.ordinal, e.barrier) for e in events] == [
        ("insert", "public.users", 0, False),
        ("truncate", "shop.orders", 1, True),
        ("truncate", "public.users", 2, True),
        ("insert", "public.users", 3, False),
    ]


# Schema changes


def test_a_relation_that_changes_in_mid_transaction_is_read_by_its_newest_description():
    wider = wire.relation(USERS, "public", "users", [("id", INT4, True), ("name", TEXT, False), ("age", INT4, False)])
    renamed = wire.relation(USERS, "public", "people", [("id", INT4, True), ("full_name", TEXT, False)])
    bench = Bench()
    events = bench.take(
        *transaction(USERS_TABLE, user(1), wider, wire.insert(USERS, ("2", "x", "30")), renamed, user(3), at=0x1000)
    )
    assert [json.loads(e.body[:-1] + b"}}")["record"] for e in events] == [
        {"id": 1, "name": "x"},
        {"id": 2, "name": "x", "age": 30},
        {"id": 3, "full_name": "x"},
    ]
    assert events[2].table == "public.people"
    assert positions(events) == [(0x1000, 0), (0x1000, 1), (0x1000, 2)]
    assert bench.assembler.relation_versions == 3
    change = bench.assembler.history.last["public.people"]
    assert change.what == ("renamed from public.users", "column name renamed to full_name", "column age dropped")
    assert change.position == Position(LSN(0x1000), 2)
    with pytest.raises(UnexpectedMessage):
        bench.take(wire.begin(0x2000), wire.insert(USERS, ("2", "x", "30")))  # as wide as it was


def test_the_same_description_again_asks_nobody_and_counts_as_no_change():
    bench = Bench()
    bench.take(*transaction(USERS_TABLE, user(1)), *transaction(USERS_TABLE, user(2)))
    assert len(bench.asked) == 1
    assert bench.assembler.relation_versions == 1
    assert bench.assembler.relations[USERS].qualified_name == "public.users"


def test_a_recreated_table_has_another_oid_and_both_are_read():
    recreated = wire.relation(USERS + 1, "public", "users", [("id", INT4, True)])
    events = Bench().take(*transaction(USERS_TABLE, user(1), recreated, wire.insert(USERS + 1, ("1",)), user(2)))
    assert [event.table for event in events] == ["public.users"] * 3


def test_events_wait_at_a_barrier_when_their_keys_are_made_of_other_columns():
    other_key = wire.relation(USERS, "public", "users", [("id", INT4, False), ("name", TEXT, True)], identity="i")
    bench = Bench(
        {"t": {}, "unordered": {"shape": Shape(order_by="none")}, "by table": {"shape": Shape(order_by="table")}}
    )
    events = bench.take(
        *transaction(USERS_TABLE, user(1), other_key, user(2), user(3), wire.delete(USERS, key=(None, "x")))
    )
    assert [(event.key, event.barrier) for event in events] == [
        (b"public.users\0v1", False),
        (b"public.users\0vx", True),
        (b"public.users\0vx", False),
        (b"public.users\0vx", False),
    ]
    assert not any(event.barrier for event in [*bench.inboxes["unordered"], *bench.inboxes["by table"]])


def test_a_new_column_is_no_reason_for_a_barrier():
    wider = wire.relation(USERS, "public", "users", [("id", INT4, True), ("name", TEXT, False), ("age", INT4, False)])
    events = Bench().take(*transaction(USERS_TABLE, user(1), wider, wire.insert(USERS, ("2", "x", "30"))))
    assert not any(event.barrier for event in events)


def test_the_barrier_waits_for_each_triggers_first_event():
    renamed = USERS_TABLE.replace(b"users", b"folks")
    bench = Bench({"inserts": {"operations": {"insert"}}, "deletes": {"operations": {"delete"}}})
    delete = wire.delete(USERS, key=("1", None))
    bench.take(*transaction(USERS_TABLE, user(1), delete, renamed, user(2), user(3), delete, delete))
    assert [event.barrier for event in bench.inboxes["inserts"]] == [False, True, False]
    assert [event.barrier for event in bench.inboxes["deletes"]] == [False, True, False]


def test_a_barrier_not_yet_used_survives_the_next_description():
    bench = Bench()
    bench.take(wire.begin(1), USERS_TABLE, user(1), USERS_TABLE.replace(b"users", b"folks"))
    assert [
        e.barrier
        for e in bench.take(USERS_TABLE.replace(b"users", b"folks").replace(b"name", b"nick"), user(2), user(3))
    ] == [True, False]


def test_a_changed_key_is_noticed_across_streams_that_share_the_layouts():
    layouts = {}
    first = Bench(arguments={"key_layouts": layouts})
    first.take(*transaction(USERS_TABLE, user(1)))
    same = Bench(arguments={"key_layouts": layouts})
    assert [e.barrier for e in same.take(*transaction(USERS_TABLE, user(1)))] == [False]
    changed = Bench(arguments={"key_layouts": layouts})
    other_key = wire.relation(USERS, "public", "users", [("id", INT4, False), ("name", TEXT, True)], identity="i")
    assert [e.barrier for e in changed.take(*transaction(other_key, user(1), user(2)))] == [True, False]


# What the catalog says


def test_under_full_the_primary_key_comes_from_outside():
    asked = []
    bench = Bench(arguments={"primary_keys": lambda oid: asked.append(oid) or ("id",)})
    (event,) = bench.take(*transaction(ORDERS_TABLE, USERS_TABLE, wire.insert(ORDERS, ("7", "n"))))
    assert event.key == b"shop.orders\0v7"
    assert asked == [ORDERS]  # the other identity names its key itself


def test_refresh_asks_again_and_plans_anew_what_has_changed():
    keys, types = {}, {}
    bench = Bench(arguments={"primary_keys": keys.get, "types": types.get})
    custom = wire.relation(ORDERS, "shop", "orders", [("id", INT4, True), ("tags", 20000, True)], identity="f")
    row = wire.insert(ORDERS, ("7", "{1,2}"))
    (before,) = bench.take(wire.begin(1), custom, row)
    assert before.key == b"shop.orders"
    assert b'"tags":"{1,2}"' in before.body
    bench.assembler.refresh()
    assert [e.barrier for e in bench.take(row)] == [False]
    keys[ORDERS], types[20000] = ("id",), CatalogType("b", element=INT4)
    bench.assembler.refresh()
    first, second = bench.take(row, row)
    assert (first.key, first.barrier, second.barrier) == (b"shop.orders\0v7", True, False)
    assert b'"tags":[1,2]' in first.body
    assert bench.assembler.relation_versions == 1
    assert len(bench.asked) == 2


def test_a_domain_is_encoded_by_the_type_message_before_its_relation():
    domain = wire.relation(USERS, "public", "users", [("id", 20000, True), ("name", TEXT, False)])
    (event,) = Bench().take(*transaction(wire.type_(20000, "", "int4"), domain, user(1)))
    assert b'"record":{"id":1,' in event.body


# Logical messages


def test_a_transactional_message_stands_among_its_transactions_changes():
    bench = Bench(message_prefixes=("outbox",))
    message = wire.logical_message(0x900, "outbox", b'{"order": 7}', transactional=True)
    events = bench.take(*transaction(USERS_TABLE, user(1), message, user(2), at=0x1000))
    assert positions(events) == [(0x1000, 0), (0x1000, 1), (0x1000, 2)]
    event = json.loads(events[1].body[:-1] + b"}}")
    assert event["action"] == events[1].action == "message"
    assert event["record"] == {"prefix": "outbox", "content": {"order": 7}, "encoding": "json"}
    assert event["metadata"]["message"] == {"lsn": 0x900, "transactional": True}
    assert event["metadata"]["transaction_id"] == 743
    assert (events[1].table, events[1].key) == ("outbox", b"\0outbox")


def test_a_message_outside_of_transactions_has_a_position_inside_its_own_record():
    bench = Bench(message_prefixes=("p",))
    bench.take(*transaction(at=0x1000))
    (event,) = bench.take(wire.logical_message(0x2000, "p", b"now", transactional=False))
    assert tuple(event.position) == (0x1FFF, 0)
    assert event.transaction.previous_end_lsn == 0x1030
    written = json.loads(event.body[:-1] + b"}}")
    assert written["metadata"]["commit_lsn"] == 0x1FFF
    assert written["metadata"]["commit_timestamp"] is written["metadata"]["transaction_id"] is None
    assert written["metadata"]["message"] == {"lsn": 0x2000, "transactional": False}
    assert bench.assembler.received_end_lsn == 0x2000  # its record ends there
    assert bench.assembler.transaction is None
    assert bench.assembler.changes == 1


def test_messages_that_nobody_wants_leave_no_trace_but_their_number():
    bench = Bench()
    assert bench.take(wire.logical_message(0x900, "p", b"", transactional=False)) == []
    assert bench.assembler.received_end_lsn == 0x900


def test_a_message_that_ends_nowhere_is_malformed():
    with pytest.raises(MalformedMessage):
        Bench().take(wire.logical_message(0, "p", b"", transactional=False))


@pytest.mark.parametrize(
    ("content", "expected", "encoding"),
    [
        (b'{"a": 1.10}', {"a": 1.1}, "json"),
        (b' \n[1, "x"]', [1, "x"], "json"),
        (b"{not json}", "{not json}", "text"),
        (b"12", "12", "text"),
        (b'"quoted"', '"quoted"', "text"),
        (b"", "", "text"),
        ("zażółć".encode(), "zażółć", "text"),
        (b"\xff\x00", "/wA=", "base64"),
        (b'{"a": "\xff"}', "eyJhIjogIv8ifQ==", "base64"),
    ],
)
def test_content_is_json_text_or_base64(content, expected, encoding):
    (event,) = Bench(message_prefixes=("p",)).take(wire.logical_message(0x900, "p", content, transactional=False))
    record = json.loads(event.body[:-1] + b"}}")["record"]
    assert record == {"prefix": "p", "content": expected, "encoding": encoding}


def test_unordered_messages_have_no_key():
    bench = Bench({"t": {"shape": Shape(order_by="none")}}, message_prefixes=("p",))
    (event,) = bench.take(wire.logical_message(0x900, "p", b"", transactional=False))
    assert event.key is None


# The fast way


def test_usual_rows_take_the_fast_way(monkeypatch):
    bench = Bench()
    bench.take(wire.begin(0x1000), USERS_TABLE, ORDERS_TABLE)
    monkeypatch.setattr(assembler_module, "decode", lambda *_: pytest.fail("a usual row was decoded the plain way"))
    events = bench.take(
        user(1), wire.insert(USERS, ("2", None)), wire.update(USERS, ("1", UNCHANGED)), wire.delete(USERS, key=("1", None)),
        wire.insert(ORDERS, ("1", "é")), wire.update(ORDERS, ("1", UNCHANGED), old=("1", "a")), wire.delete(ORDERS, old=("1", "a")),
    )  # fmt: skip
    assert len(events) == 7


def test_a_table_that_sees_one_kind_of_row_costs_few_kilobytes():
    """Ten thousand of them are to leave room for changes. What it costs is Python's own count: no machine's affair."""
    tables = 200
    bench = Bench()
    bench.take(wire.begin(0x1000))
    columns = [("id", INT4, True), ("name", TEXT, False), ("count", INT4, False)]
    described = [wire.relation(oid, "public", f"table{oid}", columns) for oid in range(50_000, 50_000 + tables)]
    rows = [wire.insert(oid, ("1", "x", "2")) for oid in range(50_000, 50_000 + tables)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for relation, row in zip(described, rows, strict=True):
            bench.take(relation, row)
            bench.inboxes["t"].clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < tables * 10_000


def test_refused_changes_count_once_whatever_their_operation():
    bench = Bench({"t": {"selection": selection({"record": {"id": [7]}})}})
    rows = [user(1), user(7), wire.update(USERS, ("1", "y")), wire.delete(USERS, key=("1", None)), user(2)]
    bench.take(*transaction(USERS_TABLE, *rows))
    assert bench.assembler.filtered == {"t": 4}
    described_anew = USERS_TABLE.replace(b"\0name\0", b"\0nick\0")
    assert described_anew != USERS_TABLE
    bench.take(*transaction(described_anew, user(3)))
    assert bench.assembler.filtered == {"t": 5}


def test_a_row_that_the_fast_way_leaves_alone_arrives_all_the_same_and_once():
    bench = Bench({"a": {}, "b": {"shape": Shape(exclude=frozenset({"name"}))}})
    bench.take(*transaction(USERS_TABLE, user(1), wire.insert(USERS, ("2", b"caf\xe9")), user(3), at=0x1000))
    for inbox in bench.inboxes.values():
        assert positions(inbox) == [(0x1000, 0), (0x1000, 1), (0x1000, 2)]


MESSAGES = [
    wire.begin(0x1000), wire.commit(0x1000), USERS_TABLE, ORDERS_TABLE, user(1), wire.update(USERS, ("1", "y"), key=("2", None)),
    wire.update(ORDERS, ("1", "y"), old=("2", None)), wire.delete(USERS, key=("1", None)), wire.truncate(USERS), wire.type_(1, "", "int4"),
    wire.origin(1, "o"), wire.logical_message(5, "p", b"x", transactional=True), wire.logical_message(5, "p", b"x", transactional=False),
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(MESSAGES), max_size=12), st.data())
def test_whatever_arrives_only_protocol_errors_are_raised(messages, data):
    bench = Bench(
        {"t": {}, "filtered": {"selection": selection({"record": {"id": [7]}}), "received": Position(LSN(0x1000), 0)}},
        message_prefixes=("p",),
    )
    with contextlib.suppress(ProtocolError):
        for message in messages:
            damaged = bytearray(wire.xlog_data(message))
            if data.draw(st.integers(0, 3)) == 0:
                damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
            bench.assembler.consume([bytes(damaged)])
    for event in bench.inboxes["t"]:
        assert event.body.endswith(b",")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=3))
def test_any_frames_give_a_protocol_error_or_nothing(frames):
    with contextlib.suppress(ProtocolError):
        Bench().assembler.consume(frames)
