"""Sample values: something to try for every type."""

from __future__ import annotations

import pytest

from bridge.cli.samples import TypeFacts, another, candidates


def facts(oid: int, name: str, kind: str = "b", **more: object) -> TypeFacts:
    defaults = {"base": 0, "base_modifier": -1, "element": 0, "delimiter": ",", "label": None, "members": 0}
    return TypeFacts(oid=oid, name=name, kind=kind, **{**defaults, **more})


def first(kind: TypeFacts, *others: TypeFacts, modifier: int = -1, column: str = "x") -> str:
    return candidates({each.oid: each for each in (kind, *others)}, kind.oid, modifier, column)[0]


@pytest.mark.parametrize(
    ("column", "text"),
    [("email", "jane.doe@example.com"), ("Full_Name", "Jane Doe"), ("first_name", "Jane"), ("homepage_url", "https://example.com/jane"),
     ("status", "active"), ("xyz", "sample")],
)  # fmt: skip
def test_text_is_guessed_from_the_columns_name(column, text):
    assert first(facts(25, "text"), column=column) == text


def test_types_that_are_made_of_others_are_followed():
    text, number = facts(25, "text"), facts(23, "int4")
    domain = facts(1, "email", "d", base=25)
    assert first(domain, text, column="email") == "jane.doe@example.com"
    assert first(facts(2, "_email", element=1), domain, text, column="email") == '{"jane.doe@example.com"}'
    assert first(facts(3, "_int4", element=23), number) == '{"7"}'
    assert first(facts(4, "_j", element=5), facts(5, "json")) == '{"{\\"key\\": \\"value\\"}"}'
    assert first(facts(6, "mood", "e", label="sad")) == "sad"
    assert first(facts(7, "pair", "c", members=3)) == "(,,)"


def test_lengths_that_are_part_of_a_type_are_kept():
    assert first(facts(1, "vector"), modifier=3) == "[1,2,0]"
    assert first(facts(1560, "bit"), modifier=5) == "10101"


def test_a_type_that_nobody_knows_has_something_to_try_and_a_missing_one_nothing():
    assert candidates({1: facts(1, "mystery")}, 1, -1, "x")
    assert candidates({}, 1, -1, "x") == []
    assert candidates({1: facts(1, "anyelement", "p")}, 1, -1, "x") == []


def test_a_domain_that_contains_itself_ends():
    assert candidates({1: facts(1, "loop", "d", base=1)}, 1, -1, "x") == []


def test_the_other_row_differs():
    assert another(["Jane Doe", "sample"], "Jane Doe") == ["John Doe", "sample"]
    assert "x" not in another(["x", "y"], "x")
