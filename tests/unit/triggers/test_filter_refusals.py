"""What the pattern language refuses: each case with the place and the reason that the user is told."""

import datetime as dt
import json

import pytest

from bridge.triggers.filter import PatternError, compile_patterns, read_patterns

# One field, `record.v`: what stands where its alternatives should, the place below `record.v`, and the reason.
ONE_FIELD = [
    ('"pro"', "", "text can't stand alone; write a list of values"),
    ("5", "", "a number can't stand alone"),
    ("true", "", "true can't stand alone"),
    ("false", "", "false can't stand alone"),
    ("null", "", "null can't stand alone"),
    ("[]", "", "an empty list matches nothing"),
    ("{}", "", "an empty object asks for nothing"),
    ("[[]]", "[0]", "not a list"),
    ('["a", ["b"]]', "[1]", "a value is text, a number, true, false, null or an operator, not a list"),
    ("[{}]", "[0]", "an empty object; an operator is missing"),
    ('[{"prefix": "a", "suffix": "b"}]', "[0]", "one operator an object"),
    ('[{"prefix": "a", "prefix": "b"}]', "[0]", "one operator an object"),
    ('[{"Prefix": "a"}]', "[0]", 'there is no operator "Prefix"; there are anything-but, cidr, '),
    ('[{"NUMERIC": ["=", 5]}]', "[0]", 'there is no operator "NUMERIC"'),
    ('[{"regex": "a"}]', "[0]", 'there is no operator "regex"'),
    ('["ok", {"starts-with": "a"}]', "[1]", 'there is no operator "starts-with"'),
    ('{"prefix": "a"}', ".prefix", "text can't stand alone"),
    # prefix, suffix, equals-ignore-case, exactly
    ('[{"prefix": 5}]', "[0].prefix", "prefix takes text, not a number"),
    ('[{"prefix": null}]', "[0].prefix", "prefix takes text, not null"),
    ('[{"prefix": ["a"]}]', "[0].prefix", "prefix takes text, not a list"),
    ('[{"prefix": {}}]', "[0].prefix", "an empty object; equals-ignore-case is missing"),
    ('[{"prefix": {"suffix": "a"}}]', "[0].prefix", 'prefix takes text or {"equals-ignore-case": text}, not "suffix"'),
    ('[{"prefix": {"equals-ignore-case": 5}}]', "[0].prefix.equals-ignore-case", "takes text, not a number"),
    ('[{"prefix": {"equals-ignore-case": ["a"]}}]', "[0].prefix.equals-ignore-case", "takes text, not a list"),
    ('[{"prefix": {"equals-ignore-case": "a", "x": 1}}]', "[0].prefix", "one operator an object"),
    ('[{"suffix": true}]', "[0].suffix", "suffix takes text, not true"),
    ('[{"suffix": {"anything-but": "a"}}]', "[0].suffix", 'not "anything-but"'),
    ('[{"suffix": {"equals-ignore-case": null}}]', "[0].suffix.equals-ignore-case", "takes text, not null"),
    ('[{"equals-ignore-case": ["a"]}]', "[0].equals-ignore-case", "equals-ignore-case takes text, not a list"),
    ('[{"equals-ignore-case": 1}]', "[0].equals-ignore-case", "takes text, not a number"),
    ('[{"exactly": 1}]', "[0].exactly", "exactly takes text, not a number"),
    # wildcard
    ('[{"wildcard": 5}]', "[0].wildcard", "wildcard takes text, not a number"),
    ('[{"wildcard": ["a*"]}]', "[0].wildcard", "wildcard takes text, not a list"),
    ('[{"wildcard": "a**b"}]', "[0].wildcard", "** at character 2: one * already stands for any text"),
    ('[{"wildcard": "**"}]', "[0].wildcard", "** at character 1"),
    (
        r'[{"wildcard": "a\\b"}]',
        "[0].wildcard",
        r"the backslash at character 2 must stand before * or \: write \* or \\",
    ),
    (r'[{"wildcard": "a\\"}]', "[0].wildcard", "the backslash at character 2"),
    (r'[{"wildcard": "\\\\\\n*"}]', "[0].wildcard", "the backslash at character 3"),
    (r'[{"wildcard": "\\***"}]', "[0].wildcard", "** at character 3"),
    # numeric
    ('[{"numeric": 5}]', "[0].numeric", 'numeric takes a list, [">", 0, "<=", 5], not a number'),
    ('[{"numeric": "5"}]', "[0].numeric", "numeric takes a list"),
    ('[{"numeric": {">": 5}}]', "[0].numeric", "not an object"),
    ('[{"numeric": []}]', "[0].numeric", "an empty list compares with nothing"),
    ('[{"numeric": [5]}]', "[0].numeric[0]", "a comparison begins with =, <, <=, > or >=, not a number"),
    ('[{"numeric": ["!=", 5]}]', "[0].numeric[0]", 'not "!="'),
    ('[{"numeric": ["==", 5]}]', "[0].numeric[0]", 'not "=="'),
    ('[{"numeric": [null, 5]}]', "[0].numeric[0]", "not null"),
    ('[{"numeric": [[">"], 5]}]', "[0].numeric[0]", "not a list"),
    ('[{"numeric": [">"]}]', "[0].numeric", "a number must follow >"),
    ('[{"numeric": ["=", "5"]}]', "[0].numeric[1]", "a number must follow =, not text"),
    ('[{"numeric": [">", true]}]', "[0].numeric[1]", "a number must follow >, not true"),
    ('[{"numeric": [">", null]}]', "[0].numeric[1]", "a number must follow >, not null"),
    ('[{"numeric": ["=", 5, "<", 6]}]', "[0].numeric[2]", "nothing can follow = and its number"),
    ('[{"numeric": ["<", 5, ">", 1]}]', "[0].numeric[2]", "a range begins with its lower limit"),
    ('[{"numeric": ["<=", 5, 1]}]', "[0].numeric[2]", "nothing can follow <= and its number"),
    ('[{"numeric": [">", 1, ">", 5]}]', "[0].numeric[2]", 'a range goes on with < or <=, not ">"'),
    ('[{"numeric": [">", 1, 5]}]', "[0].numeric[2]", "a range goes on with < or <=, not a number"),
    ('[{"numeric": [">", 1, "="]}]', "[0].numeric[2]", 'not "="'),
    ('[{"numeric": [">", 1, "<"]}]', "[0].numeric", "a number must follow <"),
    ('[{"numeric": [">", 1, "<", "5"]}]', "[0].numeric[3]", "a number must follow <, not text"),
    ('[{"numeric": [">", 1, "<", 5, "<", 6]}]', "[0].numeric[4]", "a range has two limits"),
    ('[{"numeric": [">", 5, "<", 1]}]', "[0].numeric", "the lower limit must be less than the upper one"),
    ('[{"numeric": [">=", 5, "<=", 5.0]}]', "[0].numeric", "the lower limit must be less than the upper one"),
    ('[{"numeric": ["=", 2.0e422]}]', "[0].numeric[1]", "2.0e+422 is out of range: comparisons go from -1.8e308 to"),
    ('[{"numeric": ["<", -1E309]}]', "[0].numeric[1]", "-1e+309 is out of range"),
    ('[{"numeric": [">", 0, "<=", 1e309]}]', "[0].numeric[3]", "1e+309 is out of range"),
    ('[{"numeric": ["=", 1E-325]}]', "[0].numeric[1]", "comparisons tell numbers from zero down to 5e-324"),
    # cidr
    ('[{"cidr": 10}]', "[0].cidr", "cidr takes text, not a number"),
    ('[{"cidr": ["10.0.0.0/8"]}]', "[0].cidr", "cidr takes text, not a list"),
    ('[{"cidr": "10.0.0.0"}]', "[0].cidr", '"10.0.0.0" is no block; write an address and its length, "10.0.0.0/8"'),
    ('[{"cidr": "10.0.0.0/"}]', "[0].cidr", "is no block"),
    ('[{"cidr": "10.0.0.0/8/9"}]', "[0].cidr", "is no block"),
    ('[{"cidr": ""}]', "[0].cidr", "is no block"),
    ('[{"cidr": "10.0.0.0/x"}]', "[0].cidr", 'the length "x" of the block is not a whole number'),
    ('[{"cidr": "10.0.0.0/255.0.0.0"}]', "[0].cidr", "is not a whole number"),
    ('[{"cidr": "10.0.0.0/-1"}]', "[0].cidr", "the length of an IPv4 block is 0 to 31, not -1"),
    ('[{"cidr": "10.0.0.0/32"}]', "[0].cidr", "0 to 31, not 32; for one address write it as a plain value"),
    ('[{"cidr": "10.0.0.0/33"}]', "[0].cidr", "0 to 31, not 33"),
    ('[{"cidr": "10.0.0.0/99999999999999999999"}]', "[0].cidr", "0 to 31, not 99999999999999999999"),
    ('[{"cidr": "::1/128"}]', "[0].cidr", "the length of an IPv6 block is 0 to 127, not 128; for one address"),
    ('[{"cidr": "10.0.0.256/8"}]', "[0].cidr", '"10.0.0.256" is not an IP address'),
    ('[{"cidr": "10.0.0/8"}]', "[0].cidr", '"10.0.0" is not an IP address'),
    ('[{"cidr": "xx::/8"}]', "[0].cidr", '"xx::" is not an IP address'),
    ('[{"cidr": "fe80::1%eth0/64"}]', "[0].cidr", "is not an IP address"),
    ('[{"cidr": "bad-/64filter"}]', "[0].cidr", "is not a whole number"),
    # exists
    ('[{"exists": "true"}]', "[0].exists", "exists takes true or false, not text"),
    ('[{"exists": 1}]', "[0].exists", "exists takes true or false, not a number"),
    ('[{"exists": null}]', "[0].exists", "exists takes true or false, not null"),
    ('[{"exists": [true]}]', "[0].exists", "exists takes true or false, not a list"),
    # anything-but
    ('[{"anything-but": null}]', "[0].anything-but", "anything-but takes text, a number or a list of either, not null"),
    ('[{"anything-but": true}]', "[0].anything-but", "not true"),
    ('[{"anything-but": []}]', "[0].anything-but", "an empty list excludes nothing"),
    ('[{"anything-but": ["a", null]}]', "[0].anything-but[1]", "not null"),
    ('[{"anything-but": [false]}]', "[0].anything-but[0]", "not false"),
    ('[{"anything-but": [["a"]]}]', "[0].anything-but[0]", "not a list"),
    ('[{"anything-but": [{"prefix": "a"}]}]', "[0].anything-but[0]", "not an object"),
    ('[{"anything-but": ["a", 1]}]', "[0].anything-but", "takes texts or numbers, not both in one list"),
    ('[{"anything-but": 1e309}]', "[0].anything-but", "out of range"),
    ('[{"anything-but": [0, -1e-325]}]', "[0].anything-but[1]", "-1e-325 is out of range"),
    (
        '[{"anything-but": {}}]',
        "[0].anything-but",
        "an empty object; prefix, suffix, equals-ignore-case or wildcard is",
    ),
    ('[{"anything-but": {"numeric": ["=", 1]}}]', "[0].anything-but", 'not "numeric"'),
    ('[{"anything-but": {"cidr": "10.0.0.0/8"}}]', "[0].anything-but", 'not "cidr"'),
    ('[{"anything-but": {"exists": true}}]', "[0].anything-but", 'not "exists"'),
    ('[{"anything-but": {"prefix": "a", "suffix": "b"}}]', "[0].anything-but", "one operator an object"),
    ('[{"anything-but": {"prefix": ""}}]', "[0].anything-but.prefix", "every text has the empty prefix"),
    ('[{"anything-but": {"suffix": ["a", ""]}}]', "[0].anything-but.suffix[1]", "every text has the empty suffix"),
    ('[{"anything-but": {"prefix": 5}}]', "[0].anything-but.prefix", "prefix inside anything-but takes text"),
    ('[{"anything-but": {"prefix": []}}]', "[0].anything-but.prefix", "an empty list excludes nothing"),
    ('[{"anything-but": {"prefix": {"equals-ignore-case": "a"}}}]', "[0].anything-but.prefix", "not an object"),
    ('[{"anything-but": {"suffix": [1]}}]', "[0].anything-but.suffix[0]", "takes text, not a number"),
    (
        '[{"anything-but": {"equals-ignore-case": 1}}]',
        "[0].anything-but.equals-ignore-case",
        "takes text, not a number",
    ),
    ('[{"anything-but": {"equals-ignore-case": ["a", null]}}]', "[0].anything-but.equals-ignore-case[1]", "not null"),
    ('[{"anything-but": {"wildcard": 123}}]', "[0].anything-but.wildcard", "wildcard takes text, not a number"),
    ('[{"anything-but": {"wildcard": ["a", "**"]}}]', "[0].anything-but.wildcard[1]", "** at character 1"),
]


@pytest.mark.parametrize(("alternatives", "place", "reason"), ONE_FIELD)
def test_alternatives_that_mean_nothing_are_refused(alternatives, place, reason):
    with pytest.raises(PatternError) as refused:
        compile_patterns([f'{{"record": {{"ok": ["x"], "v": {alternatives}}}}}'])
    assert refused.value.place == f"record.v{place}"
    assert reason in refused.value.reason
    assert "\n" not in refused.value.reason


WHOLE = [
    ("", "", "not JSON"),
    ("pro", "", "not JSON"),
    ("{'bad': 'quotation'}", "", "not JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
    ('{"a": ["x"]', "", "not JSON"),
    ('{"a": ["x"]} {}', "", "not JSON"),
    ('{"a": ["x",]}', "", "not JSON"),
    ('{"a": [NaN]}', "", "NaN is not a JSON number"),
    ('{"a": [{"numeric": ["<", Infinity]}]}', "", "Infinity is not a JSON number"),
    ('["a"]', "", "a pattern is a JSON object of fields, not a list"),
    ('"a"', "", "a pattern is a JSON object of fields, not text"),
    ("5", "", "not a number"),
    ("null", "", "not null"),
    ("{}", "", "an empty object asks for nothing"),
    ('{"a": {}}', "a", "an empty object asks for nothing"),
    ('{"a": {"b": {"c": {}}}}', "a.b.c", "an empty object asks for nothing"),
    ('{"a": {"b": "x"}}', "a.b", "text can't stand alone"),
    ('{"a": ["x"], "b": 1}', "b", "a number can't stand alone"),
    ('{"$or": {"a": ["x"]}}', "$or", "$or takes a list of objects, not an object"),
    ('{"$or": "a"}', "$or", "$or takes a list of objects, not text"),
    ('{"$or": []}', "$or", "$or takes two objects or more, not 0"),
    ('{"$or": [{"a": ["x"]}]}', "$or", "$or takes two objects or more, not 1"),
    ('{"$or": ["a", "b"]}', "$or[0]", "$or takes objects of fields, not text"),
    ('{"$or": [{"a": ["x"]}, 5]}', "$or[1]", "$or takes objects of fields, not a number"),
    ('{"$or": [{"a": ["x"]}, {}]}', "$or[1]", "an empty object asks for nothing"),
    ('{"$or": [{"a": ["x"]}, {"b": "y"}]}', "$or[1].b", "text can't stand alone"),
    ('{"r": {"$or": [{"a": ["x"]}]}}', "r.$or", "$or takes two objects or more, not 1"),
    ('{"$or": [{"prefix": ["x"]}, {"b": ["y"]}]}', "$or[0].prefix", '"prefix" is an operator and can\'t name a field'),
    ('{"$or": [{"a": ["x"]}, {"r": {"cidr": ["y"]}}]}', "$or[1].r.cidr", 'for a field of that name write "r.cidr"'),
    ('{"$or": [{"numeric": 123}, {"prefix": "abc"}]}', "$or[0].numeric", '"numeric" is an operator'),
    ('{"$or": [{"a": ["x"]}, {"$or": [{"b": ["y"]}]}]}', "$or[1].$or", "$or takes two objects or more"),
    ('{"a": {"b": ["x"], "$or": [{"c": []}, {"d": ["y"]}]}}', "a.$or[0].c", "an empty list matches nothing"),
    ('{"a":' * 200_000 + "1" + "}" * 200_000, "", "nested deeper than 100 objects"),
    ('{"a":' * 150 + '["x"]' + "}" * 150, "", "nested deeper than 100 objects"),
    ('{"' + "a." * 150 + '": ["x"]}', "", "nested deeper than 100 objects"),
    ('{"' + "a." * 90 + '": {"' + "a." * 90 + '": {"b": ["x"]}}}', "", "nested deeper than 100 objects"),
    ('{"$or": [{"a": [1]}, ' * 400 + '{"a": [1]}' + "]}" * 400, "", "nested deeper than 100 objects"),
    ('{"a": [{"numeric": [">", ' + "9" * 5000 + "]}]}", "a[0].numeric[1]", "e+5000 is out of range"),
]


@pytest.mark.parametrize(("pattern", "place", "reason"), WHOLE, ids=[str(index) for index in range(len(WHOLE))])
def test_a_pattern_that_is_none_is_refused(pattern, place, reason):
    with pytest.raises(PatternError) as refused:
        compile_patterns([pattern])
    assert refused.value.place == place
    assert reason in refused.value.reason


def test_the_tables_hold_what_they_should():
    assert len(ONE_FIELD) + len(WHOLE) >= 60
    assert len(set(ONE_FIELD)) == len(ONE_FIELD)
    assert len(set(WHOLE)) == len(WHOLE)


@pytest.mark.parametrize(
    ("pattern", "place", "reason"),
    [
        ({"a": [dt.date(2026, 1, 1)]}, "a[0]", "not a date"),
        ({"a": {1: ["x"]}}, "a", "the field name 1 is a number, not text; put it in quotes"),
        ({True: ["x"]}, "", "the field name True is true, not text; put it in quotes"),
        ({"a": [float("nan")]}, "a[0]", "not a JSON number"),
        ({"a": [{"numeric": [">", float("inf")]}]}, "a[0].numeric[1]", "not a JSON number"),
        ({"a": [{1: "x"}]}, "a[0]", 'there is no operator "1"'),
        ({"a": {"x", "y"}}, "a", "a set can't stand alone"),
        ({"a": [{"anything-but": 10**5000}]}, "a[0].anything-but", "00e+5000 is out of range"),
        (["a"], "", "not a list"),
        (None, "", "not null"),
    ],
)
def test_what_yaml_makes_of_a_slip_is_named(pattern, place, reason):
    with pytest.raises(PatternError) as refused:
        compile_patterns([pattern])
    assert refused.value.place == place
    assert reason in refused.value.reason


def test_the_error_says_which_of_several_patterns():
    with pytest.raises(PatternError) as refused:
        compile_patterns([{"a": ["x"]}, {"record": {"age": [{"numeric": ["~", 1]}]}}])
    assert refused.value.index == 1
    assert str(refused.value).startswith("pattern 2: record.age[0].numeric[0]: a comparison begins with")


def test_the_error_of_a_single_pattern_names_the_place_alone():
    with pytest.raises(PatternError) as refused:
        compile_patterns([{"a": []}])
    assert refused.value.index is None
    assert str(refused.value) == "a: an empty list matches nothing; list the values that are wanted"


def test_every_refusal_is_a_value_error():
    with pytest.raises(ValueError, match="empty object"):
        compile_patterns([{}])


def test_ors_may_multiply_to_a_thousand_and_no_further():
    ten = [{"f": [str(i)]} for i in range(10)]
    levels = {"$or": ten, "a": {"$or": ten}, "b": {"$or": ten}}
    assert compile_patterns([levels]).matches({"f": "9", "a": {"f": "0"}, "b": {"f": "5"}})
    with pytest.raises(PatternError, match="more than 1000 combinations; use several patterns"):
        compile_patterns([{**levels, "c": {"$or": ten[:2]}}])


def test_a_huge_product_of_ors_is_refused_before_it_is_built():
    pattern: dict = {"f": ["x"]}
    for _ in range(60):
        pattern = {"$or": [{"f": ["x"]}, {"g": ["y"]}], "deeper": pattern}
    with pytest.raises(PatternError, match="combinations"):
        compile_patterns([pattern])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("5", "a number is no pattern"),
        ("[5]", "a list is no pattern"),
        ('[{"a": ["x"]}, null]', "a list is no pattern"),
    ],
)
def test_a_file_without_patterns_is_refused(text, reason):
    with pytest.raises(PatternError, match=reason):
        read_patterns(text)


def test_filters_with_a_slip_are_refused_as_the_pattern_they_then_are():
    text = json.dumps({"Filters": [{"Pattern": "{}", "Extra": 1}]})
    with pytest.raises(PatternError) as refused:
        compile_patterns(read_patterns(text))
    assert refused.value.place == "Filters[0]"
