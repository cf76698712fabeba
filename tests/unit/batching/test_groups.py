"""Batches of one group each: nothing lost, limits kept, and the order of a key that changes groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.batching.batch import Batch
from bridge.batching.groups import by_group, wider
from bridge.batching.lanes import Lanes, Window
from bridge.change import Event, Position, Transaction
from bridge.errors import InvariantBroken
from bridge.lsn import LSN

WINDOW = Window(batch_size=3, seconds=0.0, max_bytes=100, event_overhead_bytes=5)


def event(number: int, key: bytes | None, group: str, size: int = 10, old_key: bytes | None = None) -> Event:
    body = group.encode() + b"x" * (size - len(group))
    return Event(
        Position(LSN(1000 + number), 0).event_id.encode(), Transaction(1000 + number, 0, 0.0, 0), 0, key, old_key, "t",
        "insert", body,
    )  # fmt: skip


def group_of(one: Event) -> str:
    return one.body[:1].decode()


GROUPING = by_group(group_of, WINDOW)


def divide(events: list[Event]) -> list[Batch]:
    return GROUPING.divide(Batch(events, sum(len(one.body) + 5 for one in events)))


def chain_of(part: Batch) -> list[Batch]:
    chain = [part]
    while chain[-1].then is not None:
        chain.append(chain[-1].then)
    return chain


def test_each_batch_holds_one_group():
    parts = divide([event(n, b"%d" % n, "ab"[n % 2]) for n in range(4)])
    assert [[group_of(one) for one in part.events] for part in parts] == [["a", "a"], ["b", "b"]]
    assert [part.group for part in parts] == [("a",), ("b",)]


def test_a_key_that_changes_groups_becomes_a_chain():
    (part,) = divide([event(1, b"k", "a"), event(2, b"k", "a"), event(3, b"k", "b"), event(4, b"k", "a")])
    assert [[one.id for one in each.events] for each in chain_of(part)] == [
        [event(1, b"k", "a").id, event(2, b"k", "a").id],
        [event(3, b"k", "b").id],
        [event(4, b"k", "a").id],
    ]


def test_a_batch_of_one_event_keeps_what_follows_it_and_one_of_several_may_have_nothing_behind_it():
    one, two, three = (event(number, b"k", "a") for number in range(3))
    follower = Batch([three], 15)
    (part,) = GROUPING.divide(Batch([one], 15, then=follower))
    assert (part.group, chain_of(part)[1:]) == (("a",), [follower])
    with pytest.raises(InvariantBroken):
        GROUPING.divide(Batch([one, two], 30, then=follower))


def test_divided_batches_go_before_anything_else_and_keep_their_keys():
    lanes = Lanes(wider(WINDOW))
    lanes.admit([event(1, b"a", "a"), event(2, b"b", "b"), event(3, b"c", "a")], 0.0)
    batch = lanes.take(0.0)
    lanes.divide(batch, GROUPING.divide(batch))
    lanes.admit([event(4, b"a", "a")], 0.0)
    first, second = lanes.take(0.0), lanes.take(0.0)
    assert [[one.key for one in each.events] for each in (first, second)] == [[b"a", b"c"], [b"b"]]
    assert lanes.take(0.0) is None
    lanes.finish(first, 0.0)
    assert lanes.take(0.0).events[0].key == b"a"


def test_a_change_of_key_between_two_groups_leaves_commit_order():
    events = [event(1, b"a", "a"), event(2, b"b", "b"), event(3, b"a", "a"), event(4, b"b", "a", old_key=b"a")]
    (part,) = divide(events)
    assert [one.id for one in part.chain()] == [one.id for one in events]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, b"k", b"l", b"m"]),
            st.sampled_from("abc"),
            st.sampled_from([5, 30, 300]),
            st.sampled_from([None, None, b"l", b"n"]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_nothing_is_lost_limits_hold_and_no_key_may_fly_twice(drawn):
    events = [
        event(n, key, group, size, old if key is not None and old != key else None)
        for n, (key, group, size, old) in enumerate(drawn)
    ]
    parts = divide(events)
    assert sorted(one.id for part in parts for one in part.chain()) == [one.id for one in events]
    for part in parts:
        for each in chain_of(part):
            assert {group_of(one) for one in each.events} == {each.group[0]}
            assert len(each.events) <= 3
            assert len(each.events) == 1 or sum(len(one.body) + 5 for one in each.events) <= 100
            assert [one.id for one in each.events] == sorted(one.id for one in each.events)
        for key in part.keys():  # noqa: SIM118 - no mapping
            of_key = [one.id for one in part.chain() if key in (one.key, one.old_key)]
            assert of_key == sorted(of_key)
    for index, part in enumerate(parts):
        for other in parts[index + 1 :]:
            assert not part.keys() & other.keys()
