"""Many matchers asked together: the answer of each, for the work of a few."""

import pytest

from bridge.triggers.filter import FilterSet, compile_patterns
from bridge.triggers.filter.matcher import Conjunction


@pytest.fixture
def asked(monkeypatch):
    """How many conjunctions have been asked since."""
    calls = []
    really_matches = Conjunction.matches
    monkeypatch.setattr(
        Conjunction, "matches", lambda self, event: bool(calls.append(self) or really_matches(self, event))
    )
    return calls


def filter_set(**patterns):
    return FilterSet({name: compile_patterns(each) for name, each in patterns.items()})


def test_names_come_in_the_order_they_were_given():
    several = filter_set(
        b=[{"x": [{"prefix": "a"}]}],
        d=[],
        c=[{"x": ["ab"]}],
        a=[{"x": ["ab"]}, {"x": [{"exists": True}]}],
        e=[{"x": ["z"]}],
    )
    assert several.matching({"x": "ab"}) == ["b", "d", "c", "a"]


def test_no_matchers_match_nothing():
    several = FilterSet({})
    assert several.matching({"x": 1}) == []
    assert several.paths == frozenset()
    assert several.bind(lambda _: True).matching({"x": "1"}) == []


def test_a_matcher_is_named_once_however_many_of_its_patterns_match():
    several = filter_set(a=[{"x": ["1"]}, {"x": ["1", "2"]}, {"y": ["1"]}])
    assert several.matching({"x": ["1", "2"], "y": "1"}) == ["a"]


def test_of_a_hundred_equality_filters_only_the_one_that_waits_for_the_value_is_asked(asked):
    several = FilterSet({i: compile_patterns([{"record": {"tenant": [i]}}]) for i in range(100)})
    assert several.matching({"record": {"tenant": 42}}) == [42]
    assert len(asked) == 1
    assert several.matching({"record": {"tenant": 100}}) == []
    assert several.matching({"record": {}}) == []
    assert len(asked) == 1


def test_matchers_wait_at_the_field_that_tells_the_most_apart(asked):
    several = FilterSet(
        {
            i: compile_patterns([{"action": ["insert"], "record": {"tenant": [i], "kind": ["a", "b"]}}])
            for i in range(100)
        }
    )
    assert several.matching({"action": "insert", "record": {"tenant": 42, "kind": "b"}}) == [42]
    assert len(asked) == 1


def test_what_no_constant_decides_is_asked_every_time(asked):
    several = filter_set(a=[{"x": [{"prefix": "a"}]}], b=[{"x": ["b"]}], c=[{"x": ["c", {"exists": False}]}])
    assert several.matching({"x": "b"}) == ["b"]
    assert len(asked) == 3
    assert several.matching({}) == ["c"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (1, ["one"]),
        (1.0, ["one"]),
        (True, ["true"]),
        ("1", ["text"]),
        (0, ["zero"]),
        (False, ["false"]),
        (None, ["null"]),
        ([None, 1, True, "1"], ["one", "true", "text", "null"]),
        ([[1], [[0]]], ["one", "zero"]),
        ([], []),
        ({}, []),
        ([{"v": 1}], []),
    ],
)
def test_values_that_python_calls_equal_are_told_apart(value, names):
    several = filter_set(
        one=[{"v": [1]}],
        true=[{"v": [True]}],
        text=[{"v": ["1"]}],
        zero=[{"v": [0.0]}],
        false=[{"v": [False]}],
        null=[{"v": [None]}],
    )
    assert several.matching({"v": value}) == names


def test_one_matcher_that_lists_both_waits_for_both():
    several = filter_set(both=[{"v": [1, True]}])
    assert several.matching({"v": 1}) == ["both"]
    assert several.matching({"v": True}) == ["both"]


def test_a_name_is_found_by_every_spelling_of_its_path():
    several = filter_set(a=[{"r": {"x.y": ["1"]}}], b=[{"r.x": {"y": ["2"]}}])
    assert several.matching({"r": {"x": {"y": "1"}}}) == ["a"]
    assert several.matching({"r": {"x.y": "2"}}) == ["b"]
    assert several.matching({"r": [{"x": {"y": "2"}}, {"x.y": "1"}]}) == ["a", "b"]


def test_a_numeric_column_is_found_by_value_and_by_text():
    several = filter_set(number=[{"r": {"n": [12.5]}}], text=[{"r": {"n": ["12.50"]}}], other=[{"r": {"m": [12.5]}}])
    event = {"r": {"n": "12.50", "m": "12.50"}}
    numeric_text = {("r", "n")}.__contains__
    assert several.matching(event) == ["text"]
    assert several.matching(event, numeric_text=numeric_text) == ["number", "text"]
    assert several.bind(numeric_text).matching(event) == ["number", "text"]
    assert several.bind(numeric_text) is several.bind({("r", "n"), ("r", "z")}.__contains__)


def test_a_set_reads_what_its_matchers_read():
    several = filter_set(a=[{"r": {"x": ["1"]}}], b=[{"r": {"y": [{"numeric": [">", 1]}]}}])
    assert several.paths == {("r", "x"), ("r", "y")}
    assert several.compares_numbers
    assert not filter_set(a=[{"r": {"x": ["1"]}}]).compares_numbers
