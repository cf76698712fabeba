"""Table patterns: exact names, globs, quotes, exclusions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.triggers.tables import PatternSyntaxError, TablePattern, TableSelection


@pytest.mark.parametrize(
    ("pattern", "schema", "table"),
    [
        ("public.users", "public", "users"),
        ("shop.*", "shop", "orders"),
        ("shop.*", "shop", ""),
        ("shop.order?", "shop", "orders"),
        ("*.*", "any", "thing"),
        ("tenant_*.orders", "tenant_7", "orders"),
        ('"We.ird".tbl', "We.ird", "tbl"),
        ('"a*b"."c?d"', "a*b", "c?d"),
        ('public."say ""hi"""', "public", 'say "hi"'),
        ('public.pre"mid.dle"*', "public", "premid.dle_end"),
        ("public.Users", "public", "Users"),
        ('public."Users"', "public", "Users"),
        ("public.naïve", "public", "naïve"),
        ("public.*", "public", "line\nbreak"),
        ('"with space".t', "with space", "t"),
        ("public.a+b", "public", "a+b"),
    ],
)
def test_a_pattern_matches_the_tables_it_names(pattern, schema, table):
    assert TablePattern.parse(pattern).matches(schema, table)


@pytest.mark.parametrize(
    ("pattern", "schema", "table"),
    [
        ("public.users", "public", "users2"),
        ("public.users", "xpublic", "users"),
        ("public.Users", "public", "users"),
        ("public.users", "public", "Users"),
        ("shop.order?", "shop", "order"),
        ("shop.*", "shop2", "orders"),
        ('"a*b".t', "axb", "t"),
        ("public.a+b", "public", "aab"),
        ("public.a_b", "public", "axb"),
    ],
)
def test_a_pattern_matches_nothing_else(pattern, schema, table):
    assert not TablePattern.parse(pattern).matches(schema, table)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("users", "public.users"),
        ("*", "schema.table"),
        ("", "empty name"),
        (".users", "empty name"),
        ("public.", "empty name"),
        ("a.b.c", "more than one dot"),
        ('public."users', "does not close"),
        ("public.my table", "white space"),
        (" public.users", "white space"),
        ('"".users', "empty name"),
        ("!", "empty name"),
        ("!users", "public.users"),
    ],
)
def test_what_is_no_pattern_is_refused_with_what_would_do(text, says):
    with pytest.raises(PatternSyntaxError, match=says):
        TablePattern.parse(text)


def test_an_exclusion_wins_wherever_it_stands_in_the_list():
    for patterns in (["shop.*", "!shop.tmp_*"], ["!shop.tmp_*", "shop.*"]):
        selection = TableSelection.parse(patterns)
        assert selection.matches("shop", "orders")
        assert not selection.matches("shop", "tmp_orders")
        assert not selection.matches("public", "orders")


def test_a_pattern_without_globs_names_its_one_table():
    assert TablePattern.parse('"We.ird".tbl').exact == ("We.ird", "tbl")
    assert TablePattern.parse("shop.*").exact is None
    assert TablePattern.parse('shop."*"').exact == ("shop", "*")


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(names, names)
def test_any_two_names_in_quotes_match_themselves(schema, table):
    quoted = ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))
    pattern = TablePattern.parse(quoted)
    assert pattern.exact == (schema, table)
    assert pattern.matches(schema, table)


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_a_syntax_error(text):
    try:
        TablePattern.parse(text)
    except PatternSyntaxError:
        return
