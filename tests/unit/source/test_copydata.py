"""Messages taken from a libpq that is played by the test: order, limits, and whose memory it is."""

from __future__ import annotations

import ctypes

import pytest

copydata = pytest.importorskip("bridge.source._copydata", reason="the extension was not built here")

CONNECTION = 4711
SMALL, LARGE = b"small", b"x" * 100_000

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


class FakeLibpq:
    """PQgetCopyData and PQfreemem over a list of messages, ending in a code."""

    def __init__(self, *messages: bytes, last: int = 0) -> None:
        self.messages = list(messages)
        self.last = last
        self.lent: set[int] = set()
        self.asked = 0
        self.get = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int)(
            self.get_copy_data
        )
        self.free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.free_memory)
        self.copy_data = copydata.CopyData(*(ctypes.cast(f, ctypes.c_void_p).value for f in (self.get, self.free)))

    def get_copy_data(self, connection: int, buffer, asynchronous: int) -> int:
        assert (connection, asynchronous) == (CONNECTION, 1)
        self.asked += 1
        if not self.messages:
            buffer[0] = None
            return self.last
        message = self.messages.pop(0)
        address = libc.malloc(len(message) + 1)
        ctypes.memmove(address, message + b"\0", len(message) + 1)
        buffer[0] = address
        self.lent.add(address)
        return len(message)

    def free_memory(self, address: int) -> None:
        self.lent.remove(address)  # each once
        libc.free(address)

    def take(self, frames: list, *, max_frames: int = 100, max_bytes: int = 1 << 20) -> tuple[int, int]:
        return self.copy_data.take(CONNECTION, frames, max_frames, max_bytes)


@pytest.mark.parametrize("last", [0, -1, -2])
def test_messages_come_in_order_and_then_what_libpq_says(last):
    libpq = FakeLibpq(b"a", SMALL, LARGE, b"z", last=last)
    frames = [b"before"]
    assert libpq.take(frames) == (last, 100_007)
    assert [bytes(frame) for frame in frames] == [b"before", b"a", SMALL, LARGE, b"z"]


def test_the_limit_of_frames_counts_those_that_are_there():
    libpq = FakeLibpq(b"1", b"2", b"3")
    frames = [b"0"]
    assert libpq.take(frames, max_frames=3) == (1, 2)
    assert frames == [b"0", b"1", b"2"]
    assert libpq.take(frames, max_frames=3) == (1, 0)
    assert libpq.asked == 2


def test_the_limit_of_bytes_ends_with_the_message_that_reaches_it():
    libpq = FakeLibpq(b"123", b"456", b"789")
    frames = []
    assert libpq.take(frames, max_bytes=4) == (1, 6)
    assert libpq.take(frames, max_bytes=0) == (1, 0)
    assert libpq.take(frames) == (0, 3)
    assert frames == [b"123", b"456", b"789"]


def test_memory_goes_back_to_libpq_once_nobody_needs_it():
    libpq = FakeLibpq(SMALL, LARGE)
    frames = []
    libpq.take(frames)
    assert len(libpq.lent) == 1  # small ones were copied
    part = frames[1][50_000:]
    frames.clear()
    assert len(libpq.lent) == 1
    assert bytes(part) == LARGE[50_000:]
    del part
    assert libpq.lent == set()


def test_large_messages_can_only_be_read():
    frames = []
    FakeLibpq(LARGE).take(frames)
    assert isinstance(frames[0], memoryview)
    assert frames[0].readonly
    assert frames[0].format == "B"


def test_a_closed_connection_is_an_error_and_not_asked():
    libpq = FakeLibpq(SMALL)
    assert libpq.copy_data.take(0, [], 10, 10) == (-2, 0)
    assert libpq.asked == 0


def test_an_address_of_nothing_is_refused():
    with pytest.raises(ValueError, match="an address is 0"):
        copydata.CopyData(0, 1)
