"""The short form of `make chaos`: once each of the faults that differ most, under a light load."""

from __future__ import annotations

import pytest
from chaos import faults
from chaos.__main__ import run_once

pytestmark = pytest.mark.long

RATE = 150


@pytest.mark.parametrize("fault", faults.short_form(), ids=lambda fault: fault.name)
async def test_nothing_is_lost_and_order_is_kept_when(chaos_server, tmp_path, fault):
    tally = await run_once(chaos_server, fault, tmp_path, seed=1, rate=RATE)
    assert tally.report.changes > 0
    assert not tally.report.faults, tally.report


def test_every_fault_has_a_name_of_its_own_and_the_short_form_is_part_of_the_long_one():
    names = [fault.name for fault in faults.short_form()]
    assert len(names) == len(set(names))
    assert set(names) < set(faults.ALL)
