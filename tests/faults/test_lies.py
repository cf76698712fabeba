"""Faults planted in bridge/: the reconciliation finds each, or it would find nothing in earnest either."""

from __future__ import annotations

import contextlib

import pytest
from chaos import quiet
from chaos.lies import LIES
from chaos.rig import Rig

# What shows each of them, and as what.
CASES = {
    "confirm what was received": (quiet.one_commit_stuck, {"ahead"}),
    "confirm one too many": (quiet.one_commit_stuck, {"ahead"}),
    "skip by LSN alone": (quiet.one_row_of_a_copy_stuck, {"lost"}),
    "forget one row of a COPY": (quiet.large_transactions, {"lost"}),
    "reorder on retry": (quiet.changes_of_a_key_that_fail_together, {"reordered"}),
    "overtake": (quiet.a_change_behind_one_that_fails, {"reordered"}),
    "save checkpoints ahead": (quiet.one_commit_stuck, {"lost"}),
    "take failure for success": (quiet.a_call_that_fails, {"lost"}),
    "change content on retry": (quiet.answers_lost, {"altered"}),
}
EVERY_TIME = {"confirm one too many", "skip by LSN alone", "reorder on retry", "take failure for success"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "lie", [pytest.param(lie, marks=() if lie in EVERY_TIME else pytest.mark.long) for lie in CASES]
)
async def test_the_reconciliation_finds(chaos_server, tmp_path, lie):
    act, expected = CASES[lie]
    async with Rig(chaos_server, tmp_path, seed=1, rate=100, after_seconds=3600, lie=lie) as rig:
        # What is waited for may be what was lost, and the process may have noticed that something is wrong.
        with contextlib.suppress(AssertionError):
            await act(rig)
        rig.take_stuck_rows()
        report = (await rig.finish()).report
    assert expected <= report.faults.keys(), report


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "act",
    [
        quiet.one_commit_stuck,
        pytest.param(quiet.one_row_of_a_copy_stuck, marks=pytest.mark.long),
        pytest.param(quiet.changes_of_a_key_that_fail_together, marks=pytest.mark.long),
    ],
)
async def test_it_finds_nothing_where_none_is_planted(chaos_server, tmp_path, act):
    async with Rig(chaos_server, tmp_path, seed=1, rate=100, after_seconds=3600) as rig:
        await act(rig)
        report = (await rig.finish()).report
    assert not report.faults, report
    assert report.changes > 0


def test_every_lie_is_tried():
    assert set(CASES) == set(LIES)
