"""The plan of faults: which one a call meets, and that none is forgotten."""

from __future__ import annotations

import pytest

from bridge.testing.faults import Faults


def test_the_first_fault_that_fits_is_met_as_often_as_planned():
    faults = Faults()
    first = faults.refuse(times=2, matching=lambda event: event["id"] == "a")
    second = faults.drop(times=None)
    met = [faults.next_for([{"id": name}]) for name in "baaab"]
    assert met == [second, first, first, second, second]


def test_a_call_without_a_fault_meets_none():
    assert Faults().next_for([{"id": "a"}]) is None


def test_a_fault_that_was_not_met_fails_the_test():
    faults = Faults()
    faults.refuse(503, times=2)
    faults.drop(times=None)
    faults.next_for([{"id": "a"}])
    with pytest.raises(AssertionError, match="refuse with 503: 1 of 2; drop the connection: 0 of at least 1"):
        faults.assert_used()
    faults.next_for([{"id": "a"}])
    faults.next_for([{"id": "a"}])
    faults.assert_used()


async def test_mending_a_fault_releases_what_it_holds():
    faults = Faults()
    fault = faults.hold(times=None)
    faults.next_for([{"id": "a"}])
    await fault.reached()
    faults.mend(fault)
    await fault.pause()
    assert faults.next_for([{"id": "a"}]) is None
