"""Dead letters as a table, on terminals of any width and on none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.cli.letters import table_lines
from bridge.store.protocol import DeadLetter


def letter(number: int, **changes: object) -> DeadLetter:
    failed = datetime(2026, 11, 22, 8, 1, 2, tzinfo=UTC)
    defaults = {
        "id": number,
        "trigger": "hook",
        "event_id": f"0000000001A2B3C0-{number:010d}",
        "table": "shop.orders",
        "event": b"{}",
        "error": "HTTP 422: the total must be positive, and the order must have a customer",
        "detail": "",
        "status": 422,
        "attempts": 3,
        "first_failed_at": failed,
        "last_failed_at": failed,
        "request_id": None,
        "log_tail": None,
    }
    return DeadLetter(**{**defaults, **changes})


LETTERS = [letter(7), letter(12, status=None, attempts=1, error="timed out\n\x1b[31m now")]


def test_without_a_terminal_each_letter_is_one_line_and_nothing_trails():
    assert list(table_lines(LETTERS, None)) == [
        "id  attempts  status  trigger  table        event                        last failed           error",
        (
            " 7         3     422  hook     shop.orders  0000000001A2B3C0-0000000007  2026-11-22 08:01:02Z  HTTP 422: the"
            " total must be positive, and the order must have a customer"
        ),
        (
            "12         1          hook     shop.orders  0000000001A2B3C0-0000000012  2026-11-22 08:01:02Z  timed out"
            " \\x1b[31m now"
        ),
    ]


def test_on_a_wide_terminal_only_the_error_is_folded():
    assert list(table_lines(LETTERS[:1], 130)) == [
        "id  attempts  status  trigger  table        event                        last failed           error",
        (
            " 7         3     422  hook     shop.orders  0000000001A2B3C0-0000000007  2026-11-22 08:01:02Z  HTTP 422: the total"
            " must be"
        ),
        " " * 95 + "positive, and the order must have a",
        " " * 95 + "customer",
    ]


def test_on_a_narrow_terminal_each_letter_is_a_paragraph_that_keeps_every_word():
    assert list(table_lines(LETTERS, 80)) == [
        "7  hook  shop.orders",
        "   0000000001A2B3C0-0000000007",
        "   3 attempts, status 422, last failed 2026-11-22 08:01:02Z",
        "   HTTP 422: the total must be positive, and the order must have a customer",
        "12  hook  shop.orders",
        "    0000000001A2B3C0-0000000012",
        "    1 attempt, last failed 2026-11-22 08:01:02Z",
        "    timed out \\x1b[31m now",
    ]


@pytest.mark.parametrize("width", [1, 30, 40, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width):
    lines = list(table_lines([*LETTERS, letter(3, trigger="t" * 64, table="s" * 63 + "." + "t" * 63)], width))
    assert max(map(len, lines)) <= max(width, 24)


def test_wide_characters_keep_the_columns_aligned():
    header, first, second = table_lines([letter(1, table="店.注文", error="x"), letter(2, error="x")], None)
    assert first.index("0000000001A2B3C0") == second.index("0000000001A2B3C0") - 3
    assert second.index("0000000001A2B3C0") == header.index("event")
