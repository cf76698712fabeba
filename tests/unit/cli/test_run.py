"""What `pgbridge run` does to its process before it begins."""

from __future__ import annotations

import gc

import pytest

from bridge.cli import run


@pytest.fixture
def _collector_as_it_was():
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_collector_as_it_was")
def test_a_full_collection_visits_nothing_that_start_up_made():
    made_at_start = [[]]
    run.spare_what_stays()

    assert gc.get_freeze_count() > 10_000
    assert not any(made_at_start is each for each in gc.get_objects())
    assert gc.get_threshold()[0] == run.COLLECT_AFTER


@pytest.mark.usefixtures("_collector_as_it_was")
def test_cycles_made_afterwards_are_still_found():
    run.spare_what_stays()
    cycle = []
    cycle.append(cycle)
    del cycle

    assert gc.collect() >= 1
