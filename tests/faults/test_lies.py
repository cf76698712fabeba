"""Faults planted in bridge/: the reconciliation finds each, or it would find nothing in earnest either."""

from __future__ import annotations

import contextlib

import pytest
from chaos import faults
from chaos.lies import LIES
from chaos.rig import Rig

pytestmark = pytest.mark.long

# What shows each of them, and as what.
CASES = {
    "confirm what was received": ("one of many commits stuck, then a kill", {"ahead", "lost"}),
    "confirm one too many": ("one of many commits stuck, then a kill", {"ahead"}),
    "skip by LSN alone": ("one row of a COPY stuck, then a kill", {"lost"}),
    "forget one row of a COPY": ("source link cut", {"lost"}),
    "reorder on retry": ("target flaps", {"reordered"}),
    "overtake": ("target flaps", {"reordered"}),
    "save checkpoints ahead": ("one of many commits stuck, then a kill", {"lost"}),
    "take failure for success": ("target flaps", {"lost"}),
    "change content on retry": ("answers lost", {"altered"}),
}


@pytest.mark.parametrize("lie", CASES)
async def test_the_reconciliation_finds(chaos_server, tmp_path, lie):
    name, expected = CASES[lie]
    fault = faults.ALL[name]
    async with Rig(chaos_server, tmp_path, seed=1, rate=100, lie=lie, patience_seconds=5) as rig:
        rig.workload.start()
        # What is waited for may be what was lost, and the process may have noticed that something is wrong.
        with contextlib.suppress(AssertionError, TimeoutError):
            await fault.act(rig, fault.times)
        rig.take_stuck_rows()
        report = (await rig.finish()).report
    assert expected & report.faults.keys(), report


def test_every_lie_is_tried():
    assert set(CASES) == set(LIES)
