"""Each message four ways: whole, cut at every byte, with a byte too many, and with an unknown tag."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.change import UNCHANGED
from bridge.errors import MalformedMessage, ProtocolError, UnexpectedMessage
from bridge.lsn import LSN
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.messages import (
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Origin,
    RelationMessage,
    Truncate,
    TypeMessage,
    Update,
)
from bridge.testing import wire

OID = 0xFFFFFFF0  # OIDs are unsigned
ROW = ("1", None, UNCHANGED, "")
DECODED_ROW = (b"1", None, UNCHANGED, b"")

CASES = {
    "begin": (wire.begin(0xFFFFFFFF00000001, committed_at=-1, xid=0xFFFFFFFF), Begin(LSN(0xFFFFFFFF00000001), -1, 0xFFFFFFFF)),
    "commit": (wire.commit(16, 48, committed_at=5), Commit(0, LSN(16), LSN(48), 5)),
    "origin": (wire.origin(77, "upstream"), Origin(LSN(77), "upstream")),
    "relation": (
        wire.relation(OID, "public", "users", [("id", 23, True), ("naïve name", 4294967295, False)], identity="i"),
        RelationMessage(OID, "public", "users", "i", (Column(1, "id", 23, -1), Column(0, "naïve name", 4294967295, -1))),
    ),
    "relation of the system catalog": (wire.relation(1, "", "pg_x", []), RelationMessage(1, "pg_catalog", "pg_x", "d", ())),
    "type": (wire.type_(OID, "public", "mood"), TypeMessage(OID, "public", "mood")),
    "type of a domain": (wire.type_(OID, "", "int4"), TypeMessage(OID, "pg_catalog", "int4")),
    "insert": (wire.insert(OID, ROW), Insert(OID, DECODED_ROW)),
    "insert of no columns": (wire.insert(OID, ()), Insert(OID, ())),
    "update": (wire.update(OID, ROW), Update(OID, None, None, DECODED_ROW)),
    "update of a key": (wire.update(OID, ROW, key=("0", None, None, None)), Update(OID, (b"0", None, None, None), None, DECODED_ROW)),
    "update under full": (wire.update(OID, ROW, old=ROW), Update(OID, None, DECODED_ROW, DECODED_ROW)),
    "delete by key": (wire.delete(OID, key=("1", None)), Delete(OID, (b"1", None), None)),
    "delete under full": (wire.delete(OID, old=("1", "x")), Delete(OID, None, (b"1", b"x"))),
    "truncate": (wire.truncate(1, OID, cascade=True, restart_identity=True), Truncate(3, (1, OID))),
    "message": (
        wire.logical_message(99, "audit", b"\x00\xff any", transactional=True),
        LogicalMessage(1, LSN(99), "audit", b"\x00\xff any"),
    ),
    "empty message outside of a transaction": (
        wire.logical_message(99, "", b"", transactional=False),
        LogicalMessage(0, LSN(99), "", b""),
    ),
}  # fmt: skip
CASE = pytest.mark.parametrize("message", [message for message, _ in CASES.values()], ids=CASES)


@pytest.mark.parametrize(("message", "expected"), CASES.values(), ids=CASES)
def test_whole_message_is_decoded(message, expected):
    assert decode(message) == expected


@CASE
def test_message_cut_at_any_byte_is_malformed(message):
    for length in range(len(message)):
        with pytest.raises(MalformedMessage) as caught:
            decode(message[:length], LSN(0x16B374D848))
        assert caught.value.position == 0x16B374D848
        assert caught.value.offset <= length
        assert caught.value.tag == (message[0] if length else None)


@CASE
def test_a_byte_too_many_is_malformed(message):
    with pytest.raises(MalformedMessage, match="1 bytes are left over") as caught:
        decode(message + b"\0")
    assert caught.value.offset == len(message)


@pytest.mark.parametrize("tag", sorted(set(range(256)) - set(b"BCORYIUDTM")))
def test_unknown_tag_is_unexpected(tag):
    with pytest.raises(UnexpectedMessage) as caught:
        decode(bytes([tag]) + b"rest", LSN(7))
    assert (caught.value.tag, caught.value.offset, caught.value.position) == (tag, 0, 7)


@pytest.mark.parametrize(("tag", "option"), [(b"S", "streaming"), (b"b", "two_phase"), (b"P", "two_phase")])
def test_a_message_of_an_option_that_is_off_is_named(tag, option):
    with pytest.raises(UnexpectedMessage, match=option):
        decode(tag)


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(b"tnu")))
def test_unknown_column_kind_is_malformed_at_its_byte(kind):
    message = bytearray(wire.insert(1, ("a", "b")))
    at = message.index(b"t", 9)
    message[at] = kind
    with pytest.raises(MalformedMessage) as caught:
        decode(bytes(message))
    assert caught.value.offset == at


@pytest.mark.parametrize(
    ("message", "kinds"),
    [(wire.insert(1, ("a",)), b"N"), (wire.update(1, ("a",)), b"KON"), (wire.delete(1, key=("a",)), b"KO")],
    ids=["insert", "update", "delete"],
)
def test_unknown_tuple_kind_is_malformed(message, kinds):
    for kind in set(range(256)) - set(kinds):
        with pytest.raises(MalformedMessage):
            decode(message[:5] + bytes([kind]) + message[6:])


@pytest.mark.parametrize("length", [-1, -(2**31), 2**31 - 1])
def test_impossible_value_length_is_malformed(length):
    with pytest.raises(MalformedMessage):
        decode(struct.pack(">cIchci", b"I", 1, b"N", 1, b"t", length) + b"abc")


@pytest.mark.parametrize(
    "message",
    [
        struct.pack(">cIch", b"I", 1, b"N", -1),
        struct.pack(">ciB", b"T", -1, 0),
        wire.relation(1, "s", "t", [])[:-2] + struct.pack(">h", -1),
        wire.logical_message(1, "p", b"", transactional=False)[:-4] + struct.pack(">i", -1),
    ],
    ids=["columns of a row", "relations of a truncate", "columns of a relation", "length of a message"],
)
def test_negative_count_is_malformed(message):
    with pytest.raises(MalformedMessage):
        decode(message)


def test_unknown_replica_identity_is_malformed():
    with pytest.raises(MalformedMessage):
        decode(wire.relation(1, "s", "t", [], identity="x"))


def test_a_commit_with_unknown_flags_is_malformed():
    with pytest.raises(MalformedMessage):
        decode(wire.commit(1, 2, flags=1))


def test_a_name_that_is_not_utf8_is_read_as_latin1():
    message = wire.type_(1, "public", "caf?").replace(b"?", b"\xe9")
    assert decode(message) == TypeMessage(1, "public", "café")


def test_a_name_without_its_end_is_malformed():
    with pytest.raises(MalformedMessage):
        decode(wire.type_(1, "public", "mood")[:-1])


def test_row_values_stay_out_of_reprs_and_errors():
    row = wire.update(1, ("secret",), old=("secret",))
    assert "secret" not in repr(decode(row))
    assert "secret" not in repr(decode(wire.logical_message(1, "p", b"secret", transactional=True)))
    with pytest.raises(ProtocolError) as caught:
        decode(row + b"secret")
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=80))
def test_any_bytes_give_a_message_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        decode(data)


@given(st.sampled_from([message for message, _ in CASES.values()]), st.data())
def test_a_damaged_message_gives_a_message_or_a_protocol_error(message, data):
    damaged = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(bytes(damaged))
