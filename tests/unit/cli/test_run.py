"""What `pgbridge run` does to its process before it begins."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from bridge import native
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


def the_loop():
    async def look():
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=run.loop_factory()) as runner:
        return runner.run(look())


def test_the_event_loop_is_uvloop(monkeypatch):
    uvloop = pytest.importorskip("uvloop", reason="it is not built for this interpreter")
    monkeypatch.setattr(native, "ALLOWED", True)  # though PGBRIDGE_PURE may be set
    assert issubclass(the_loop(), uvloop.Loop)


def test_the_event_loop_is_asyncios_own_where_python_alone_is_wanted(monkeypatch):
    monkeypatch.setattr(native, "ALLOWED", False)
    assert the_loop().__module__.startswith("asyncio.")


def test_the_event_loop_is_asyncios_own_where_uvloop_is_missing(monkeypatch):
    monkeypatch.setattr(native, "ALLOWED", True)
    monkeypatch.setitem(sys.modules, "uvloop", None)  # what makes its import fail
    assert the_loop().__module__.startswith("asyncio.")
