"""Filters as row filters: what is said of the rows in SQL, and what is left to the bridge."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bridge.config import Settings
from bridge.source.published import Server
from bridge.source.push_down import row_filter
from bridge.source.tables import Column, Table

SERVER = Server(version=180000, superuser=True, user="u", database="d")
TYPES = {
    "name": 25, "short": 1043, "small": 21, "age": 23, "big": 20, "total": 1700, "done": 16, "ref": 2950,
    "doc": 3802, "at": 1184, "ratio": 701, "padded": 1042, "tags": 1009, "status": 16500, "a.b": 25,
}  # fmt: skip
UUID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"


def condition(*filters: list[dict] | None, server: Server = SERVER, operations=("insert",), **column) -> str:
    """That of a table, given the filter of each of its triggers."""
    details = [
        Column(
            name,
            name if name.isalpha() else f'"{name}"',
            oid,
            **{"generated": False, "plainly_collated": True} | column,
        )
        for name, oid in TYPES.items()
    ]
    table = Table(
        "public", "t", 1, "r", "p", "default", identifies_rows=True, ancestors=frozenset(), readable=True, owned=True,
        columns=frozenset(TYPES), key=frozenset(), details=tuple(details),
    )  # fmt: skip
    triggers = {
        f"t{number}": {
            "tables": ["public.t"],
            "operations": list(operations),
            "target": {"http": {"url": "https://example.com/"}},
            **({} if patterns is None else {"filter_criteria": patterns}),
        }
        for number, patterns in enumerate(filters)
    }
    settings = Settings.model_validate({"source": {"dsn": "dbname=x"}, "triggers": triggers})
    return row_filter(table, list(settings.triggers.values()), server)


@pytest.mark.parametrize(
    ("column", "tests", "said"),
    [
        ("name", ["a"], "(name = 'a'::text)"),
        ("name", ["a", "b", "a"], "((name = 'a'::text) OR (name = 'b'::text))"),
        ("name", ["a", None], "((name = 'a'::text) OR (name IS NULL))"),
        ("name", ["o'clock"], "(name = 'o''clock'::text)"),
        ("name", ["é"], "(name = 'é'::text)"),
        ("name", [{"prefix": "ab"}], "starts_with(name, 'ab'::text)"),
        ("name", [{"anything-but": "a"}], "(name IS DISTINCT FROM 'a'::text)"),
        ("name", [{"anything-but": ["a", "b"]}], "((name IS DISTINCT FROM 'a'::text) AND (name IS DISTINCT FROM 'b'::text))"),
        ("short", ["a"], "((short)::text = 'a'::text)"),
        ("short", [{"prefix": "a"}], "starts_with((short)::text, 'a'::text)"),
        ("small", [5, -5], "((small = '5'::smallint) OR (small = '-5'::smallint))"),
        ("age", [5, -5], "((age = 5) OR (age = '-5'::integer))"),
        ("age", [5.0], "(age = 5)"),
        ("age", [{"numeric": [">=", 18, "<", 65]}], "((age >= 18) AND (age < 65))"),
        ("age", [{"numeric": [">", 2.5]}], "(age >= 3)"),
        ("age", [{"numeric": ["<", 2.5]}], "(age <= 2)"),
        ("age", [{"numeric": [">", -2.5]}], "(age >= '-2'::integer)"),
        ("age", [{"numeric": ["<=", -2.5]}], "(age <= '-3'::integer)"),
        ("age", [{"numeric": ["=", 7]}], "((age >= 7) AND (age <= 7))"),
        ("age", [{"numeric": [">", 1, "<", 400_000_000_000]}], "(age > 1)"),
        ("big", [9007199254740993], "(big = '9007199254740993'::bigint)"),
        ("total", [{"numeric": [">", 99.5]}], "(total > 99.5)"),
        ("total", [300], "(total = '300'::numeric)"),
        ("total", [{"numeric": ["<", -0.5]}], "(total < '-0.5'::numeric)"),
        ("done", [True], "(done = true)"),
        ("ref", [UUID], f"(ref = '{UUID}'::uuid)"),
    ],
)  # fmt: skip
def test_what_sql_says_in_the_same_way_is_said(column: str, tests: list, said: str):
    assert condition([{"record": {column: tests}}]) == said


@pytest.mark.parametrize(
    ("column", "tests"),
    [
        ("name", [{"suffix": "a"}]), ("name", [{"wildcard": "a*"}]), ("name", [{"equals-ignore-case": "a"}]),
        ("name", ["10.0.0.1"]), ("name", [{"cidr": "10.0.0.0/8"}]), ("name", ["a\\b"]), ("name", ["a\nb"]), ("name", [300]),
        ("name", [{"exists": True}]), ("name", [{"exists": False}]), ("name", ["a", {"suffix": "b"}]), ("name", [{"prefix": ""}]),
        ("name", [{"anything-but": {"prefix": "a"}}]), ("name", [{"anything-but": [1]}]), ("name", [{"numeric": [">", 1]}]),
        ("age", [2.5]), ("age", [5_000_000_000]), ("age", ["5"]), ("age", [True]), ("age", [{"numeric": [">", -400_000_000_000]}]),
        ("total", ["12.50"]), ("done", [1]), ("done", ["t"]), ("ref", [UUID.upper()]), ("ref", [{"prefix": "6f"}]),
        ("doc", [None]), ("doc", ["a"]), ("at", [None]), ("at", ["2026-01-01"]), ("ratio", [1]), ("padded", ["a"]), ("tags", ["a"]),
        ("status", ["open"]), ("a.b", ["x"]), ("missing", ["x"]),
    ],
)  # fmt: skip
def test_what_it_might_say_otherwise_is_left_to_the_bridge(column: str, tests: list):
    assert condition([{"record": {column: tests}}]) == ""
    assert condition([{"record": {column: tests, "age": [1]}}]) == "(age = 1)"


def test_members_of_documents_and_metadata_are_left_to_the_bridge():
    pattern = {
        "record": {"doc": {"name": ["a"]}, "name": ["b"]},
        "metadata": {"table_name": ["t"]},
        "action": ["insert"],
    }
    assert condition([pattern]) == "(name = 'b'::text)"


def test_fields_are_anded_and_patterns_ored():
    patterns = [{"record": {"name": ["a", "b"], "age": [1]}}, {"record": {"done": [True]}}]
    assert condition(patterns) == "((((name = 'a'::text) OR (name = 'b'::text)) AND (age = 1)) OR (done = true))"


def test_an_or_is_what_it_expands_to():
    pattern = {"record": {"age": [1], "$or": [{"name": ["a"]}, {"done": [True]}]}}
    assert condition([pattern]) == "(((age = 1) AND (name = 'a'::text)) OR ((age = 1) AND (done = true)))"


def test_rows_that_any_trigger_wants_are_sent():
    assert condition([{"record": {"age": [1]}}], [{"record": {"age": [2]}}]) == "((age = 1) OR (age = 2))"
    assert condition([{"record": {"age": [1]}}], None) == ""
    assert condition([{"record": {"age": [1]}}], [{"record": {"name": [{"suffix": "x"}]}}]) == ""


def test_triggers_that_take_no_inserts_ask_for_nothing():
    assert condition([{"record": {"age": [1]}}], operations=("truncate",)) == ""


def test_a_condition_that_would_cost_more_than_sending_is_not_sent():
    assert condition([{"record": {"age": [*range(64)]}}])
    assert condition([{"record": {"age": [*range(65)]}}]) == ""


def test_servers_before_15_filter_no_rows():
    assert condition([{"record": {"age": [1]}}], server=Server(149999, True, "u", "d")) == ""


def test_characters_that_the_database_may_lack_are_not_sent():
    latin = Server(180000, True, "u", "d", utf8=False)
    assert condition([{"record": {"name": ["é"]}}], server=latin) == ""
    assert condition([{"record": {"name": ["e"]}}], server=latin) == "(name = 'e'::text)"


def test_columns_whose_equality_is_not_that_of_characters_are_left_to_the_bridge():
    assert condition([{"record": {"name": ["a"]}}], plainly_collated=False) == ""
    assert condition([{"record": {"age": [1]}}], plainly_collated=False) == "(age = 1)"


def test_generated_columns_are_left_to_the_bridge():
    assert condition([{"record": {"age": [1]}}], generated=True) == ""


def test_numbers_of_any_size_do_no_harm():
    assert condition([{"record": {"total": [Decimal("1E+300")]}}]) == ""
    assert condition([{"record": {"age": [Decimal("1E+300")]}}]) == ""
