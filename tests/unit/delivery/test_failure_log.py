"""How many lines a failing target is worth."""

from __future__ import annotations

import pytest

from bridge.delivery.failure_log import MOST_AT_ONCE, MOST_KINDS, SUMMARY_SECONDS, FailureLog

HOUR = 3600


def test_the_first_failure_is_told_at_once_and_the_others_in_sums():
    told = FailureLog()
    lines = [(second, times) for second in range(60) for _ in range(100) if (times := told.failed("HTTP 500", second))]
    assert lines == [(0, 1), (10, 1000), (20, 1000), (30, 1000), (40, 1000), (50, 1000)]
    assert told.worked(60.0) == (6000, 60.0)
    assert told.worked(61.0) is None


def test_each_kind_is_told_by_itself():
    told = FailureLog()
    assert [told.failed(kind, 0.0) for kind in ("HTTP 500", "timeout after 3 s", "HTTP 500")] == [1, 1, 0]
    assert [told.failed(kind, 10.0) for kind in ("HTTP 500", "timeout after 3 s")] == [2, 1]


def test_after_a_success_the_next_failure_is_a_first_one():
    told = FailureLog()
    for second in range(MOST_AT_ONCE):
        assert told.failed("HTTP 500", float(second)) == 1
        assert told.worked(second + 0.5) == (1, 0.5)


@pytest.mark.parametrize("calls_a_second", [1, 50])
def test_bad_records_among_good_ones_are_no_flood(calls_a_second):
    told = FailureLog()
    failures = successes = 0
    for call in range(HOUR * calls_a_second):
        now = call / calls_a_second
        failures += told.failed("HTTP 500", now) > 0
        successes += told.worked(now) is not None
    assert failures == successes <= MOST_AT_ONCE + HOUR / SUMMARY_SECONDS


def test_errors_that_a_handler_all_names_differently_cost_little_memory_and_few_lines():
    told = FailureLog()
    lines = sum(told.failed(f"Lambda Unhandled Error{number}", number / 1000) > 0 for number in range(20_000))
    assert len(told._kinds) <= MOST_KINDS + 1
    assert lines <= 2 * MOST_KINDS + MOST_AT_ONCE
