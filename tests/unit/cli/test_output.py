"""What commands print for people."""

from __future__ import annotations

import pytest

from bridge.cli.output import columns, duration, fitting, number, on_one_line, printable, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (91_226_112, "87.0 MiB"), (134_217_728, "128 MiB"),
     (5 << 40, "5.0 TiB"), (5000 << 40, "5000 TiB"), (-2048, "-2.0 KiB")],
)  # fmt: skip
def test_sizes_are_in_binary_units(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (0.04, "0 s"), (0.25, "0.2 s"), (9.94, "9.9 s"), (42, "42 s"), (720, "12 min"),
     (7200, "2 h"), (172_800, "2 days")],
)  # fmt: skip
def test_durations_are_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_counts_are_grouped():
    assert (number(1_234_567), number(None)) == ("1,234,567", "-")


def test_columns_are_aligned_and_numbers_stand_to_the_right():
    lines = columns(("name", "n"), [("a", "1"), ("longer", "10")], right=frozenset({1}))
    assert lines == ["name     n", "a        1", "longer  10"]


WIDE = (("trigger", "state", "lag"), [("welcome", "running", "0.5 s"), ("order-hook", "paused", "12 min")])


@pytest.mark.parametrize("width", [None, 27, 200])
def test_columns_that_fit_stay_columns(width):
    assert fitting(*WIDE, right=frozenset({2}), width=width) == columns(*WIDE, right=frozenset({2}))


def test_columns_that_do_not_fit_become_paragraphs_that_name_each_cell():
    assert fitting(*WIDE, right=frozenset({2}), width=26) == [
        "welcome",
        "  state running, lag 0.5 s",
        "order-hook",
        "  state paused, lag 12 min",
    ]
    assert max(map(len, fitting(*WIDE, right=frozenset({2}), width=24))) <= 24


def test_columns_without_rows_are_a_header():
    assert columns(("name", "n"), []) == ["name  n"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202eabc", "\\u202eabc"),
        ("naïve ✓", "naïve ✓"),
        ("\x9b1m", "\\x9b1m"),
    ],
)
def test_text_of_others_can_not_drive_the_terminal(text, shown):
    assert on_one_line(text) == shown


def test_long_text_is_cut():
    assert on_one_line("x" * 20, 10) == "x" * 9 + "…"
    assert on_one_line("x" * 10, 10) == "x" * 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\tb", "a\n\tb"),
        ("\x1b[2J\r", "\\x1b[2J\\r"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_text_of_others_keeps_its_lines_and_moves_nothing_else(text, shown):
    assert printable(text) == shown
