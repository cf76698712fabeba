"""Back-off and `Retry-After`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.delivery.retry import (
    RETRY_AFTER_LIMIT_SECONDS,
    ceiling_seconds,
    clamp_retry_after,
    parse_retry_after,
    wait_seconds,
)

NOW = datetime(2026, 11, 22, 5, 37, tzinfo=UTC).timestamp()


def test_the_ceiling_doubles_from_a_fifth_of_a_second_to_a_minute():
    assert [ceiling_seconds(attempt) for attempt in range(1, 12)] == pytest.approx(
        [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]
    )
    assert ceiling_seconds(100_000) == 60


def test_there_is_no_wait_before_the_first_failure():
    with pytest.raises(ValueError, match="counted from 1"):
        ceiling_seconds(0)


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_a_draw_between_nothing_and_the_ceiling(attempt, draw):
    assert wait_seconds(attempt, lambda: draw) == pytest.approx(draw * ceiling_seconds(attempt))


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True), st.floats(0, RETRY_AFTER_LIMIT_SECONDS))
def test_what_the_target_asked_for_is_never_undercut(attempt, draw, asked):
    wait = wait_seconds(attempt, lambda: draw, asked)
    assert wait >= asked
    assert wait <= max(1.1 * asked, ceiling_seconds(attempt))


def test_those_who_were_told_the_same_moment_do_not_all_come_back_in_it():
    assert wait_seconds(1, lambda: 0.0, 30.0) == 30.0
    assert wait_seconds(1, lambda: 0.5, 30.0) == pytest.approx(31.5)


def test_a_hostile_wait_is_clamped_where_it_is_used_as_well():
    assert wait_seconds(1, lambda: 0.0, 1e12) == RETRY_AFTER_LIMIT_SECONDS
    assert clamp_retry_after(-5) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("3", 3),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("299", 299),
        ("301", 300),
        ("86400", 300),
        ("999999999999999999", 300),
        ("Sun, 22 Nov 2026 05:37:30 GMT", 30),
        ("Sunday, 22-Nov-26 05:37:30 GMT", 30),
        ("Sun Nov 22 05:37:30 2026", 30),
        ("Sun, 22 Nov 2026 06:37:30 +0100", 30),
        ("Sun, 22 Nov 2026 05:37:30 -0000", 30),
        ("Sun, 22 Nov 2026 05:30:00 GMT", 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 300),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [None, "", "soon", "-1", "+5", "1e9", "inf", "nan", "٣", "5s", "0x10", "Sun, 99 Nov 2026 05:37:30 GMT", "1, 2"],
)
def test_a_retry_after_that_can_not_be_read_counts_as_not_sent(value):
    assert parse_retry_after(value, NOW) is None


@given(st.text(max_size=60), st.floats(0, 4e9))
def test_no_text_at_all_makes_the_parser_raise_or_leave_its_bounds(value, now):
    seconds = parse_retry_after(value, now)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_LIMIT_SECONDS
