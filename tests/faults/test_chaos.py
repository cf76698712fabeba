"""Faults of `make chaos` under a light load: some of them each time, most where there are minutes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chaos import faults
from chaos.__main__ import run_once

RATE = 150
EVERY_TIME = {
    "killed after the call",
    "killed during the checkpoint",
    "killed during dead-letter insert",
    "killed in the middle of a COPY",
    "one of many commits stuck, then a kill",
    "stopped and started",
    "source link cut",
    "server restarted, immediate",
    "answers lost",
    "two processes, the first is paused and wakes",
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(EVERY_TIME))
async def test_nothing_is_lost_and_order_is_kept_when(chaos_server, tmp_path, name):
    await survive(chaos_server, tmp_path, replace(faults.ALL[name], times=1))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", faults.ALL.values(), ids=lambda fault: fault.name)
async def test_nothing_is_lost_and_order_is_kept_again_and_again_when(chaos_server, tmp_path, fault):
    await survive(chaos_server, tmp_path, fault)


async def survive(server, folder, fault):
    tally = await run_once(server, fault, folder, seed=1, rate=RATE)
    assert tally.report.changes > 0
    assert not tally.report.faults, tally.report


def test_the_faults_of_every_time_are_some_of_all():
    assert set(faults.ALL) > EVERY_TIME
    assert len(faults.short_form()) > len(EVERY_TIME)
