"""Which transactions a snapshot saw, by the 32 bits of their ids that the stream has."""

from __future__ import annotations

import pytest

from bridge.source.catalog import Snapshot

EPOCH = 5 << 32


@pytest.mark.parametrize(
    ("snapshot", "xid", "seen"),
    [
        ("700:705:700,703", 699, True),
        ("700:705:700,703", 700, False),
        ("700:705:700,703", 702, True),
        ("700:705:700,703", 703, False),
        ("700:705:700,703", 705, False),
        ("700:705:700,703", 706, False),
        ("700:700:", 699, True),
        (f"{EPOCH + 700}:{EPOCH + 705}:{EPOCH + 703}", 703, False),
        (f"{EPOCH + 700}:{EPOCH + 705}:{EPOCH + 703}", 704, True),
        # Just past a wraparound: an id of the epoch before is older, although it is larger.
        (f"{EPOCH + 3}:{EPOCH + 5}:", (1 << 32) - 7, True),
        (f"{EPOCH - 7}:{EPOCH + 5}:{EPOCH - 7}", (1 << 32) - 7, False),
        (f"{EPOCH - 9}:{EPOCH - 5}:", 3, False),
    ],
)
def test_a_snapshot_sees_what_was_committed_before_it(snapshot, xid, seen):
    assert Snapshot.parse(snapshot).sees(xid) is seen
