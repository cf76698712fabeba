"""What a transaction says of itself, in the events after it, and nowhere else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.change import Event, Position
from bridge.lsn import LSN
from bridge.pgoutput import context
from bridge.pgoutput.assembler import Assembler, Route
from bridge.testing import wire
from bridge.triggers.filter import compile_patterns
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

USERS = wire.relation(16385, "public", "users", [("id", 23, True)])


class Bench:
    def __init__(self, selection=None) -> None:
        self.inbox: list[Event] = []
        route = Route("t", Shape(), frozenset({"insert", "truncate"}), self.inbox, Position(LSN(0), 0), selection)
        self.assembler = Assembler(
            database="shop",
            system_identifier="1234",
            start_lsn=0x800,
            routes=lambda _: [route],
            message_routes=lambda prefix: [] if prefix.startswith("pgbridge.") else [route],
        )

    def take(self, *messages: bytes) -> list[dict]:
        before = len(self.inbox)
        self.assembler.consume([wire.xlog_data(message, start=0x900) for message in messages])
        return [json.loads(event.body[:-1] + b"}}") for event in self.inbox[before:]]


def said(content: bytes | dict, *, transactional: bool = True) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return wire.logical_message(0x900, context.PREFIX, text, transactional=transactional)


def row(number: int) -> bytes:
    return wire.insert(16385, [str(number)])


def contexts(events: list[dict]) -> list:
    return [event["metadata"].get("context", "none") for event in events]


def test_it_stands_in_the_later_events_of_its_transaction_whatever_they_are():
    events = Bench().take(
        wire.begin(0x1000), USERS, row(1), said({"user": 7}), row(2), wire.truncate(16385),
        wire.logical_message(0x900, "outbox", b"x", transactional=True), wire.commit(0x1000), wire.begin(0x2000), row(3), wire.commit(0x2000),
    )  # fmt: skip
    assert contexts(events) == ["none", {"user": 7}, {"user": 7}, {"user": 7}, "none"]
    # The message counts as a change, as every transactional message does.
    assert [event["metadata"]["commit_idx"] for event in events] == [0, 2, 3, 4, 0]
    metadata = list(events[1]["metadata"])
    assert metadata[metadata.index("transaction_id") + 1 :][:2] == ["context", "keys"]


def test_messages_add_up_and_the_later_member_wins():
    events = Bench().take(
        wire.begin(0x1000), USERS, said({"user": 7, "trace": "a"}), row(1), said({"trace": "b", "x": [1]}), row(2), wire.commit(0x1000)
    )  # fmt: skip
    assert contexts(events) == [{"user": 7, "trace": "a"}, {"user": 7, "trace": "b", "x": [1]}]


def test_each_transaction_has_its_own():
    bench = Bench()
    bench.take(wire.begin(0x1000), USERS, said({"a": 1}), row(1), wire.commit(0x1000))
    assert contexts(bench.take(wire.begin(0x2000), said({"b": 2}), row(1), wire.commit(0x2000))) == [{"b": 2}]


def test_values_are_embedded_as_they_were_written():
    bench = Bench()
    digits = b"9" * 300
    bench.take(
        wire.begin(0x1000), USERS, said(b' {"n" :\n1.10, "big": %b, "s": "a\\u0062 \xc3\xa9", "o": { "k": [1, 2.0] } ,"f":1.0e300}\n' % digits), row(1)
    )  # fmt: skip
    assert (
        b'"context":{"n":1.10,"big":%b,"s":"a\\u0062 \xc3\xa9","o":{ "k": [1, 2.0] },"f":1.0e300},"keys":' % digits
        in (bench.inbox[0].body)
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not JSON"),
        (b"{not json}", "it is not JSON"),
        (b'{"a": NaN}', "it is not JSON"),
        (b'{"a": "\xff"}', "it is not JSON"),
        (b'{"a": "\\ud800"}', "it is not JSON"),
        (b'{"a": 1} x', "it is not JSON"),
        (b'{"a": 1e400}', "it is not JSON"),
        (b"[" * 5000, "it is not JSON"),
        (b'{"a":' * 1020 + b"1" + b"}" * 1020, "it is not JSON"),
        (b"[1]", "it is JSON, but no object"),
        (b'"text"', "it is JSON, but no object"),
        (b"null", "it is JSON, but no object"),
        (b'{"a": "%b"}' % (b"x" * 16_384), "its 16393 bytes are more than 16384"),
    ],
)
def test_what_is_no_context_is_left_out_and_counted(content, reason):
    bench = Bench()
    events = bench.take(wire.begin(0x1000), USERS, said({"kept": 1}), said(content), row(1), wire.commit(0x1000))
    assert contexts(events) == [{"kept": 1}]
    assert (bench.assembler.ignored_contexts, bench.assembler.last_ignored_context) == (1, reason)


def test_together_they_have_a_limit_too():
    bench = Bench()
    half = {"a": "x" * 9000}
    events = bench.take(wire.begin(0x1000), USERS, said(half), said({"b": "x" * 9000}), row(1), wire.commit(0x1000))
    assert contexts(events) == [half]
    assert bench.assembler.last_ignored_context.endswith("it has 18015 bytes, more than 16384")


def test_outside_of_a_transaction_there_is_nothing_that_it_could_belong_to():
    bench = Bench()
    bench.take(said({"a": 1}, transactional=False))
    assert contexts(bench.take(wire.begin(0x1000), USERS, row(1), wire.commit(0x1000))) == ["none"]
    assert bench.assembler.last_ignored_context == "it was sent outside of a transaction"


def test_filters_see_it():
    bench = Bench(selection=Selection(compile_patterns([{"metadata": {"context": {"by": ["app"]}}}])))
    events = bench.take(wire.begin(0x1000), USERS, row(1), said({"by": "app"}), row(2), wire.commit(0x1000))
    assert [event["record"]["id"] for event in events] == [2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON), st.sampled_from([None, 1]), st.booleans()
)
def test_taken_apart_and_put_together_it_is_the_same_object(members, indent, ascii_only):
    text = json.dumps(members, indent=indent, ensure_ascii=ascii_only).encode()
    if len(text) <= context.MOST_BYTES:
        assert json.loads(context.write(context.parse(text))) == members


@settings(deadline=None)
@given(st.binary())
def test_whatever_is_said_is_taken_or_refused(content):
    try:
        context.parse(content)
    except context.ContextRefusedError:
        return
    assert isinstance(json.loads(content), dict)
