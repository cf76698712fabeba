"""A trigger that stops at schema changes: before which event, in what words, and after a restart as well."""

from __future__ import annotations

import pytest

from bridge.change import Event, Position
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.schema_guard import SchemaGuard
from bridge.testing import wire
from bridge.triggers.shape import Shape

INT4, TEXT = 23, 25
USERS, ORDERS = 16385, 16390
NARROW = wire.relation(USERS, "public", "users", [("id", INT4, True)])
WIDE = wire.relation(USERS, "public", "users", [("id", INT4, True), ("name", TEXT, False)])
WIDER = wire.relation(USERS, "public", "users", [("id", INT4, True), ("name", TEXT, False), ("age", INT4, False)])
ORDERS_TABLE = wire.relation(ORDERS, "public", "orders", [("id", INT4, True)])


class Bench:
    """One trigger with a guard, and one without."""

    def __init__(
        self, guard: SchemaGuard | None = None, received: Position | None = None, operations=("insert", "truncate")
    ) -> None:
        self.guard = guard or SchemaGuard()
        self.inbox: list[Event] = []
        self.other: list[Event] = []
        nothing = Position(LSN(0), 0)
        self.assembler = Assembler(
            database="shop",
            system_identifier="1234",
            start_lsn=0x800,
            routes=lambda _: [
                Route("guarded", Shape(), frozenset(operations), self.inbox, received or nothing, guard=self.guard),
                Route("other", Shape(), frozenset({"insert", "truncate"}), self.other, nothing),
            ],
            message_routes=lambda _: [],
        )

    def take(self, *messages: bytes) -> list[tuple[int, bool]]:
        """The guarded trigger's new events: ordinal and whether a barrier."""
        before = len(self.inbox)
        self.assembler.consume([wire.xlog_data(message, start=0x900) for message in messages])
        return [(event.ordinal, event.barrier) for event in self.inbox[before:]]


def user(*values: str) -> bytes:
    return wire.insert(USERS, values)


FIRST = [wire.begin(0x1000), NARROW, user("1"), wire.commit(0x1000)]
SECOND = [wire.begin(0x2000), WIDE, user("2", "x"), user("3", "y"), wire.commit(0x2000)]
EVENT = "0000000000002000-0000000000"


def test_it_stops_before_the_first_event_of_the_new_description_alone():
    bench = Bench()
    assert bench.take(*FIRST) == [(0, False)]
    assert bench.take(*SECOND) == [(0, True), (1, False)]
    (stop,) = bench.guard.stops.values()
    assert (stop.event_id, stop.table, stop.what) == (EVENT, "public.users", ("column name added (text)",))
    assert not any(event.barrier for event in bench.other)


def test_a_relation_that_is_seen_for_the_first_time_is_taken_as_it_is():
    bench = Bench()
    bench.take(*FIRST)
    assert bench.take(wire.begin(0x2000), ORDERS_TABLE, wire.insert(ORDERS, ("1",)), wire.commit(0x2000)) == [
        (0, False)
    ]
    assert bench.guard.stops == {}


def test_the_same_description_again_is_no_news():
    bench = Bench()
    bench.take(*FIRST)
    assert bench.take(wire.begin(0x2000), NARROW, user("2"), wire.commit(0x2000)) == [(0, False)]


def test_changes_that_the_trigger_does_not_take_stop_nothing():
    bench = Bench(operations=("truncate",))
    bench.take(*FIRST, *SECOND)
    assert bench.guard.stops == {}
    assert bench.take(wire.begin(0x3000), wire.truncate(USERS), wire.commit(0x3000)) == [(0, True)]
    assert list(bench.guard.stops) == [b"0000000000003000-0000000000"]


def test_a_third_description_is_a_stop_of_its_own():
    bench = Bench()
    bench.take(*FIRST, *SECOND)
    assert bench.take(wire.begin(0x3000), WIDER, user("4", "z", "5"), wire.commit(0x3000)) == [(0, True)]
    assert [stop.what for stop in bench.guard.stops.values()] == [
        ("column name added (text)",),
        ("column age added (int4)",),
    ]


def test_a_change_that_is_taken_back_before_anything_was_written_is_none():
    bench = Bench()
    bench.take(*FIRST)
    assert bench.take(wire.begin(0x2000), WIDE, NARROW, user("2"), wire.commit(0x2000)) == [(0, False)]
    assert bench.guard.stops == {}


def test_a_table_made_anew_is_compared_with_the_one_of_its_name():
    bench = Bench()
    bench.take(*FIRST)
    same = wire.relation(20000, "public", "users", [("id", INT4, True)])
    assert bench.take(wire.begin(0x2000), same, wire.insert(20000, ("1",)), wire.commit(0x2000)) == [(0, False)]
    other = wire.relation(30000, "public", "users", [("id", TEXT, True)])
    assert bench.take(wire.begin(0x3000), other, wire.insert(30000, ("1",)), wire.commit(0x3000)) == [(0, True)]
    # What is not there any more is not kept either.
    kept = {item for item, content in bench.guard.changes().items() if content is not None}
    assert kept == {"relation:30000", "stop:0000000000003000-0000000000"}


def test_an_opened_stop_is_gone_and_its_description_taken():
    bench = Bench()
    bench.take(*FIRST, *SECOND)
    bench.guard.open(EVENT.encode())
    assert bench.guard.stops == {}
    assert bench.take(wire.begin(0x3000), WIDE, user("4", "z"), wire.commit(0x3000)) == [(0, False)]


# Kept over restarts


def restored(guard: SchemaGuard, before: dict[str, str] | None = None) -> SchemaGuard:
    items = dict(before or {})
    for item, content in guard.changes().items():
        items.pop(item, None)
        if content is not None:
            items[item] = content
    return SchemaGuard.restore(items)


def test_a_restart_before_the_stop_was_reached_stops_there():
    """The table was altered while nothing ran, or its change was seen and not kept."""
    bench = Bench()
    bench.take(*FIRST)
    again = Bench(restored(bench.guard), received=Position(LSN(0x1000), 0))
    assert again.take(*SECOND) == [(0, True), (1, False)]
    assert list(again.guard.stops) == [EVENT.encode()]


def test_a_restart_while_it_waits_stops_at_the_same_event():
    bench = Bench()
    bench.take(*FIRST, *SECOND)
    again = Bench(restored(bench.guard))
    assert again.guard.stops == bench.guard.stops
    # Everything is sent again, what came before the stop as well.
    assert again.take(*FIRST, *SECOND) == [(0, False), (0, True), (1, False)]
    assert list(again.guard.stops) == [EVENT.encode()]


def test_a_restart_after_it_was_opened_goes_on():
    bench = Bench()
    bench.take(*FIRST, *SECOND)
    bench.guard.open(EVENT.encode())
    again = Bench(restored(bench.guard))
    assert again.take(*FIRST, *SECOND) == [(0, False), (0, False), (1, False)]
    assert again.guard.stops == {}


def test_a_new_stream_of_the_same_process_says_nothing_new():
    bench = Bench()
    bench.take(*FIRST, *SECOND)
    again = Bench(bench.guard, received=Position(LSN(0x2000), 1))
    assert again.take(*FIRST, *SECOND) == []
    assert len(bench.guard.stops) == 1


def test_what_has_to_be_kept_is_told_until_it_is():
    bench = Bench()
    bench.take(*FIRST)
    changes = bench.guard.changes()
    assert list(changes) == ["relation:16385"]
    bench.take(*SECOND)  # meanwhile
    bench.guard.stored(changes)
    assert sorted(bench.guard.changes()) == ["relation:16385", f"stop:{EVENT}"]
    bench.guard.stored(bench.guard.changes())
    assert not bench.guard.has_changes
    bench.guard.open(EVENT.encode())
    assert bench.guard.changes() == {f"stop:{EVENT}": None}


def test_refresh_forgets_no_news():
    bench = Bench()
    bench.take(*FIRST)
    bench.take(wire.begin(0x2000), WIDE)
    bench.assembler.transaction = None
    bench.assembler.refresh()
    bench.take(wire.begin(0x3000))
    assert bench.take(user("2", "x")) == [(0, True)]


@pytest.mark.parametrize(
    "items",
    [
        {},
        {
            "relation:5": '{"table":"a.b","identity":"d","columns":[["id","int4",-1,true]],"since":"0000000000001000-0000000000"}'
        },
    ],
)
def test_what_was_stored_is_read_back(items):
    guard = SchemaGuard.restore(items)
    assert not guard.has_changes
    assert guard.stops == {}
