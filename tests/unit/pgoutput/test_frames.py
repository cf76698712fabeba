from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from bridge.errors import MalformedMessage, ProtocolError, UnexpectedMessage
from bridge.pgoutput.frames import (
    Keepalive,
    XLogData,
    clock_text,
    decode_frame,
    encode_status_update,
    to_postgres_clock,
    to_unix_seconds,
)
from bridge.testing import wire

XLOG_DATA = wire.xlog_data(b"B...", start=0x16B374D848, wal_end=0x16B374D900, clock=-5)
KEEPALIVE = wire.keepalive(0xFFFFFFFFFFFFFFFF, clock=7, reply=True)


def test_xlog_data_gives_positions_clock_and_message():
    assert decode_frame(memoryview(XLOG_DATA)) == XLogData(0x16B374D848, 0x16B374D900, -5, b"B...")


def test_keepalive_gives_the_wal_end_as_an_unsigned_number_and_the_wish_for_a_reply():
    assert decode_frame(KEEPALIVE) == Keepalive(0xFFFFFFFFFFFFFFFF, 7, reply_requested=True)
    assert decode_frame(wire.keepalive(1)) == Keepalive(1, 0, reply_requested=False)


@pytest.mark.parametrize("length", range(26))
def test_xlog_data_without_a_message_is_malformed(length):
    with pytest.raises(MalformedMessage):
        decode_frame(XLOG_DATA[:length])


@pytest.mark.parametrize("length", range(len(KEEPALIVE)))
def test_keepalive_cut_anywhere_is_malformed(length):
    with pytest.raises(MalformedMessage):
        decode_frame(KEEPALIVE[:length])


def test_keepalive_with_a_byte_too_many_is_malformed():
    with pytest.raises(MalformedMessage):
        decode_frame(KEEPALIVE + b"\0")


@pytest.mark.parametrize("tag", sorted(set(range(256)) - {ord("w"), ord("k")}))
def test_any_other_frame_is_unexpected(tag):
    with pytest.raises(UnexpectedMessage) as caught:
        decode_frame(bytes([tag]) + XLOG_DATA[1:])
    assert (caught.value.tag, caught.value.offset) == (tag, 0)


def test_the_error_does_not_show_the_bytes():
    with pytest.raises(ProtocolError) as caught:
        decode_frame(b"x secret value")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(decode_frame(wire.xlog_data(b"secret")))


def test_status_update_has_the_layout_of_the_manual():
    update = encode_status_update(written=3, flushed=2, applied=1, client_clock=-9, reply_requested=True)
    assert struct.unpack(">cQQQqB", update) == (b"r", 3, 2, 1, -9, 1)
    assert len(update) == 34


def test_the_postgres_clock_counts_microseconds_since_2000():
    moment = datetime(2026, 11, 22, 5, 37, 0, 123456, tzinfo=UTC)
    clock = to_postgres_clock(moment.timestamp())
    assert clock_text(clock) == "2026-11-22T05:37:00.123456Z"
    assert to_unix_seconds(clock) == pytest.approx(moment.timestamp(), abs=1e-6)
    assert clock_text(0) == "2000-01-01T00:00:00.000000Z"
    assert clock_text(-1) == "1999-12-31T23:59:59.999999Z"


@pytest.mark.parametrize("clock", [-(2**63), 2**63 - 1])
def test_a_clock_outside_of_pythons_years_is_an_overflow(clock):
    with pytest.raises(OverflowError):
        clock_text(clock)
