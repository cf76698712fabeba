"""
What the pattern language accepts, case by case.

The first table is about one field, `record.v`: alternatives, the value in the event, and whether they match. The second
is about whole patterns and events. Every case is asked in every way there is: of a matcher with parsed numbers that are exact
and ones that are not, of its JSON, and of a set with other matchers around it.
"""

import json
from decimal import Decimal

import orjson
import pytest

from bridge.triggers.filter import FilterSet, compile_patterns, load_event, read_patterns

ABSENT = "(absent)"

ONE_FIELD = [
    # A plain value equals itself, of the same JSON type.
    ('["pro"]', '"pro"', True),
    ('["pro"]', '"Pro"', False),
    ('["pro"]', '"pro "', False),
    ('["pro"]', '"professional"', False),
    ('["pro", "team"]', '"team"', True),
    ('["pro", "team"]', '"free"', False),
    ('["pro"]', ABSENT, False),
    ('["pro"]', "null", False),
    ('["true"]', "true", False),
    ('["null"]', "null", False),
    ('["*"]', '"anything"', False),
    ('["*"]', '"*"', True),
    ('["naïve 🙂"]', '"naïve 🙂"', True),
    (r'["\u00e9"]', '"é"', True),
    ('["é"]', '"e\u0301"', False),
    (r'["a\"b\\c\n"]', r'"a\"b\\c\n"', True),
    ('[""]', '""', True),
    ('[""]', '" "', False),
    ('[""]', "null", False),
    ('[""]', ABSENT, False),
    ("[null]", "null", True),
    ("[null]", '""', False),
    ("[null]", "false", False),
    ("[null]", "0", False),
    ("[null]", '"null"', False),
    ("[null]", ABSENT, False),
    ("[null]", "[]", False),
    ("[null]", "{}", False),
    ("[true]", "true", True),
    ("[true]", "false", False),
    ("[true]", "1", False),
    ("[true]", '"true"', False),
    ("[false]", "false", True),
    ("[false]", "0", False),
    ("[false]", "null", False),
    ("[1]", "true", False),
    ("[0]", "false", False),
    ("[1, true]", "true", True),
    ("[1, true]", "1", True),
    ("[true, 1]", "1", True),
    # A number equals every spelling of it, and never a text.
    ("[300]", "300", True),
    ("[300]", "300.0", True),
    ("[300]", "3e2", True),
    ("[300]", "3.0E+2", True),
    ("[300]", "30000e-2", True),
    ("[300]", '"300"', False),
    ('["300"]', "300", False),
    ('["300", 300]', "300", True),
    ("[3.0e2]", "300", True),
    ("[300]", "300.000001", False),
    ("[300]", "-300", False),
    ("[-0]", "0", True),
    ("[0]", "-0.0", True),
    ("[0.1]", "0.1", True),
    ("[0.1]", "0.10", True),
    ("[0.1]", "1e-1", True),
    ("[0.3]", "0.30000000000000004", False),
    ("[9007199254740993]", "9007199254740993", True),
    ("[9007199254740993]", "9007199254740992", False),
    ("[9223372036854775807]", "9223372036854775807", True),
    ("[123456789012345678901234567890]", "123456789012345678901234567890", True),
    ("[123456789012345678901234567890]", "123456789012345678901234567891", False),
    ("[1e400]", "1e400", True),
    ("[1e400]", "1e401", False),
    ("[0.00000001]", "1e-8", True),
    # prefix and suffix: of texts only.
    ('[{"prefix": "sales-"}]', '"sales-eu"', True),
    ('[{"prefix": "sales-"}]', '"sales-"', True),
    ('[{"prefix": "sales-"}]', '"Sales-eu"', False),
    ('[{"prefix": "sales-"}]', '"presales-eu"', False),
    ('[{"prefix": ""}]', '"anything"', True),
    ('[{"prefix": ""}]', '""', True),
    ('[{"prefix": ""}]', "5", False),
    ('[{"prefix": ""}]', "null", False),
    ('[{"prefix": ""}]', ABSENT, False),
    ('[{"prefix": "5"}]', "55", False),
    ('[{"prefix": "tru"}]', "true", False),
    (r'[{"prefix": "abc\""}]', '"abc"', False),
    ('[{"prefix": {"equals-ignore-case": "SaLeS"}}]', '"sALes-eu"', True),
    ('[{"prefix": {"equals-ignore-case": "SaLeS"}}]', '"presales"', False),
    ('[{"prefix": {"equals-ignore-case": ""}}]', '"x"', True),
    ('[{"prefix": {"equals-ignore-case": ""}}]', "7", False),
    ('[{"prefix": {"equals-ignore-case": "a.c"}}]', '"abc"', False),
    ('[{"suffix": ".png"}]', '"a.png"', True),
    ('[{"suffix": ".png"}]', '".png"', True),
    ('[{"suffix": ".png"}]', '"a.PNG"', False),
    ('[{"suffix": ".png"}]', '"a.png.zip"', False),
    ('[{"suffix": ""}]', '"x"', True),
    ('[{"suffix": ""}]', "1", False),
    ('[{"suffix": "5"}]', "55", False),
    ('[{"suffix": {"equals-ignore-case": ".PNG"}}]', '"a.pNg"', True),
    ('[{"suffix": {"equals-ignore-case": ".PNG"}}]', '"a.png.zip"', False),
    (r'[{"suffix": {"equals-ignore-case": ".png"}}]', r'"a.png\n"', False),
    # equals-ignore-case: each character by itself, in its upper or lower case.
    ('[{"equals-ignore-case": "Pro"}]', '"PRO"', True),
    ('[{"equals-ignore-case": "Pro"}]', '"pro"', True),
    ('[{"equals-ignore-case": "Pro"}]', '"pros"', False),
    ('[{"equals-ignore-case": "Pro"}]', "null", False),
    ('[{"equals-ignore-case": ""}]', '""', True),
    ('[{"equals-ignore-case": ""}]', '"a"', False),
    ('[{"equals-ignore-case": "ÉCOLE"}]', '"école"', True),
    ('[{"equals-ignore-case": "straße"}]', '"STRASSE"', True),
    ('[{"equals-ignore-case": "straße"}]', '"strasse"', False),
    ('[{"equals-ignore-case": "strasse"}]', '"straße"', False),
    ('[{"equals-ignore-case": "k"}]', '"\u212a"', False),
    ('[{"equals-ignore-case": "a.c"}]', '"ABC"', False),
    ('[{"equals-ignore-case": "𐐀"}]', '"𐐨"', True),
    (r'[{"equals-ignore-case": "a"}]', r'"A\n"', False),
    # wildcard: * is any text, the empty one too; a backslash makes * and \ ordinary.
    ('[{"wildcard": "*"}]', '""', True),
    ('[{"wildcard": "*"}]', "1", False),
    ('[{"wildcard": "*"}]', "null", False),
    ('[{"wildcard": ""}]', '""', True),
    ('[{"wildcard": ""}]', '"a"', False),
    ('[{"wildcard": "abc"}]', '"abc"', True),
    ('[{"wildcard": "abc"}]', '"abcd"', False),
    ('[{"wildcard": "a*"}]', '"a"', True),
    ('[{"wildcard": "*c"}]', '"abc"', True),
    ('[{"wildcard": "a*c"}]', '"ac"', True),
    ('[{"wildcard": "a*c"}]', '"abcb"', False),
    ('[{"wildcard": "a*a"}]', '"a"', False),
    ('[{"wildcard": "a*a"}]', '"aa"', True),
    ('[{"wildcard": "*a*b*c*"}]', '"xxaxbxcx"', True),
    ('[{"wildcard": "*a*b*c*"}]', '"xxbxaxcx"', False),
    ('[{"wildcard": "*ab*ba"}]', '"aba"', False),
    ('[{"wildcard": "*ab*ba"}]', '"abba"', True),
    ('[{"wildcard": "dir/*/file.?"}]', '"dir/a/b/file.?"', True),
    ('[{"wildcard": "dir/*/file.?"}]', '"dir/a/file.x"', False),
    (r'[{"wildcard": "a\\*c"}]', '"a*c"', True),
    (r'[{"wildcard": "a\\*c"}]', '"abc"', False),
    (r'[{"wildcard": "a\\\\*"}]', r'"a\\bc"', True),
    (r'[{"wildcard": "a\\\\*"}]', '"a*"', False),
    (r'[{"wildcard": "*\\**"}]', '"2 * 3"', True),
    (r'[{"wildcard": "a*"}]', r'"a\nb"', True),
    # numeric: numbers only, by value.
    ('[{"numeric": ["=", 5]}]', "5.0", True),
    ('[{"numeric": ["=", 3.018e2]}]', "301.8", True),
    ('[{"numeric": ["=", 5]}]', '"5"', False),
    ('[{"numeric": ["=", 1]}]', "true", False),
    ('[{"numeric": ["=", 0]}]', "null", False),
    ('[{"numeric": [">", 5]}]', "5", False),
    ('[{"numeric": [">", 5]}]', "5.000001", True),
    ('[{"numeric": [">=", 5]}]', "5", True),
    ('[{"numeric": ["<", 5]}]', "5", False),
    ('[{"numeric": ["<", 5]}]', "-5e3", True),
    ('[{"numeric": ["<=", 5]}]', "5", True),
    ('[{"numeric": [">", 0, "<=", 5]}]', "5", True),
    ('[{"numeric": [">", 0, "<=", 5]}]', "0", False),
    ('[{"numeric": [">=", 0, "<", 5]}]', "0", True),
    ('[{"numeric": [">=", 0, "<", 5]}]', "5", False),
    ('[{"numeric": [">", -1.5, "<", -1.25]}]', "-1.4", True),
    ('[{"numeric": ["<=", 0.3]}]', "0.30000000000000004", False),
    ('[{"numeric": [">", 0]}]', "9007199254740993", True),
    ('[{"numeric": [">", 500000000000]}]', "9223372036854775807", True),
    ('[{"numeric": ["<", 0]}]', "-1e40", True),
    ('[{"numeric": [">", 0]}]', "1e-40", True),
    ('[{"numeric": [">", 0]}]', "1e9999999999999999999999", True),
    ('[{"numeric": [">=", 0, "<", 1]}]', "1e-9999999999999999999999", True),
    ('[{"numeric": ["<", 0]}]', "-1e9999999999999999999999", True),
    ('[{"numeric": ["=", 500000000000]}]', "500000000000", True),
    ('[{"numeric": ["=", 2.0e22]}]', "20000000000000000000000", True),
    ('[{"numeric": [">", 9223372036854775806]}]', "9223372036854775807", True),
    ('[{"numeric": [">", 9223372036854775806]}]', "9223372036854775806", False),
    ('[{"numeric": ["=", 0.00000033]}]', "3.3e-7", True),
    ('[{"numeric": ["<", -4e-8]}]', "-0.00000004", False),
    ('[{"numeric": [">=", 1E-320]}]', "1e-320", True),
    ('[{"numeric": ["<", 1E-320]}]', "0", True),
    ('[{"numeric": ["<=", 1.7976931348623157e308]}]', "1.7976931348623157e308", True),
    ('[{"anything-but": 0.1234567}]', "0.1234567", False),
    ('[{"anything-but": 0.1234567}]', "0.123456", True),
    ('[{"numeric": ["=", 0.000001]}]', "1e-6", True),
    ('[{"numeric": [">", 1]}]', "[0, 2]", True),
    ('[{"numeric": [">", 1]}]', "[0, 1]", False),
    # cidr, and plain texts that are addresses.
    ('[{"cidr": "10.0.0.0/24"}]', '"10.0.0.255"', True),
    ('[{"cidr": "10.0.0.0/24"}]', '"10.0.1.0"', False),
    ('[{"cidr": "10.0.0.77/24"}]', '"10.0.0.1"', True),
    ('[{"cidr": "0.0.0.0/0"}]', '"255.255.255.255"', True),
    ('[{"cidr": "0.0.0.0/0"}]', '"::1"', False),
    ('[{"cidr": "192.0.2.0/31"}]', '"192.0.2.1"', True),
    ('[{"cidr": "10.0.0.0/8"}]', '"10.0.0.1/32"', False),
    ('[{"cidr": "10.0.0.0/8"}]', '"10.0.0"', False),
    ('[{"cidr": "10.0.0.0/8"}]', '"10.0.0.256"', False),
    ('[{"cidr": "10.0.0.0/8"}]', '"host"', False),
    ('[{"cidr": "10.0.0.0/8"}]', "167772161", False),
    ('[{"cidr": "10.0.0.0/8"}]', "null", False),
    ('[{"cidr": "10.0.0.0/8"}]', '"0a00::1"', False),
    ('[{"cidr": "10.0.0.0/8"}]', '"010.000.000.001"', True),
    ('[{"cidr": "2001:db8::/32"}]', '"2001:0DB8:1::7"', True),
    ('[{"cidr": "2001:db8::/32"}]', '"2001:db9::"', False),
    ('[{"cidr": "2001:db8::/32"}]', '"2001:db8::%eth0"', False),
    ('[{"cidr": "::ffff:a00:0/8"}]', '"10.1.2.3"', True),
    ('[{"cidr": "10.0.0.0/8"}]', '"::ffff:a00:1"', True),
    ('["10.0.0.1"]', '"10.0.0.1"', True),
    ('["10.0.0.1"]', '"10.0.0.01"', True),
    ('["10.0.0.1"]', '"10.0.0.10"', False),
    ('["::1"]', '"0:0:0:0:0:0:0:1"', True),
    ('["2001:DB8::A"]', '"2001:db8::a"', True),
    ('["999.0.0.1"]', '"999.0.0.1"', True),
    ('["12:30"]', '"12:30"', True),
    ('[{"exactly": "::1"}]', '"0:0:0:0:0:0:0:1"', False),
    ('[{"exactly": "x"}]', '"x"', True),
    ('[{"exactly": "x"}]', '"X"', False),
    # exists: scalars exist, null and "" among them; objects and empty arrays don't.
    ('[{"exists": true}]', '"x"', True),
    ('[{"exists": true}]', '""', True),
    ('[{"exists": true}]', "null", True),
    ('[{"exists": true}]', "false", True),
    ('[{"exists": true}]', "0", True),
    ('[{"exists": true}]', "[null]", True),
    ('[{"exists": true}]', ABSENT, False),
    ('[{"exists": true}]', "{}", False),
    ('[{"exists": true}]', '{"a": 1}', False),
    ('[{"exists": true}]', "[]", False),
    ('[{"exists": true}]', "[[], []]", False),
    ('[{"exists": true}]', '[{"a": 1}]', False),
    ('[{"exists": false}]', ABSENT, True),
    ('[{"exists": false}]', "{}", True),
    ('[{"exists": false}]', '{"a": 1}', True),
    ('[{"exists": false}]', "[]", True),
    ('[{"exists": false}]', "[[]]", True),
    ('[{"exists": false}]', '[{"a": 1}]', True),
    ('[{"exists": false}]', "null", False),
    ('[{"exists": false}]', '""', False),
    ('[{"exists": false}]', "[1]", False),
    ('[{"exists": false}, "x"]', ABSENT, True),
    ('[{"exists": false}, "x"]', '"x"', True),
    ('[{"exists": false}, "x"]', '"y"', False),
    ('[{"exists": false}, {"exists": true}]', ABSENT, True),
    ('[{"exists": false}, {"exists": true}]', "3", True),
    # anything-but: any scalar that differs; never a field that is not there.
    ('[{"anything-but": "x"}]', '"y"', True),
    ('[{"anything-but": "x"}]', '"x"', False),
    ('[{"anything-but": "x"}]', "5", True),
    ('[{"anything-but": "x"}]', "null", True),
    ('[{"anything-but": "x"}]', "true", True),
    ('[{"anything-but": "x"}]', ABSENT, False),
    ('[{"anything-but": "x"}]', "{}", False),
    ('[{"anything-but": "x"}]', "[]", False),
    ('[{"anything-but": "x"}]', '["x", "y"]', True),
    ('[{"anything-but": "x"}]', '["x", "x"]', False),
    ('[{"anything-but": ""}]', '""', False),
    ('[{"anything-but": ""}]', '"a"', True),
    ('[{"anything-but": 5}]', "5.0", False),
    ('[{"anything-but": 5}]', "6", True),
    ('[{"anything-but": 5}]', '"5"', True),
    ('[{"anything-but": 0}]', "false", True),
    ('[{"anything-but": 0}]', "1e300", True),
    ('[{"anything-but": ["x", "y"]}]', '"y"', False),
    ('[{"anything-but": ["x", "y"]}]', '"z"', True),
    ('[{"anything-but": [100, 200]}]', "2e2", False),
    ('[{"anything-but": [100, 200]}]', "300", True),
    ('[{"anything-but": {"prefix": "init"}}]', '"initializing"', False),
    ('[{"anything-but": {"prefix": "init"}}]', '"ready"', True),
    ('[{"anything-but": {"prefix": "init"}}]', "12", True),
    ('[{"anything-but": {"prefix": "init"}}]', "null", True),
    ('[{"anything-but": {"prefix": "init"}}]', ABSENT, False),
    ('[{"anything-but": {"prefix": ["a", "b"]}}]', '"bx"', False),
    ('[{"anything-but": {"prefix": ["a", "b"]}}]', '"cx"', True),
    ('[{"anything-but": {"suffix": ".tmp"}}]', '"a.tmp"', False),
    ('[{"anything-but": {"suffix": [".tmp", ".bak"]}}]', '"a.bak"', False),
    ('[{"anything-but": {"suffix": [".tmp", ".bak"]}}]', '"a.txt"', True),
    ('[{"anything-but": {"equals-ignore-case": "Init"}}]', '"INIT"', False),
    ('[{"anything-but": {"equals-ignore-case": ["a", "b"]}}]', '"B"', False),
    ('[{"anything-but": {"equals-ignore-case": ["a", "b"]}}]', '"C"', True),
    ('[{"anything-but": {"wildcard": "*/lib/*"}}]', '"/usr/lib/x"', False),
    ('[{"anything-but": {"wildcard": ["*.tmp", "a*"]}}]', '"abc"', False),
    ('[{"anything-but": {"wildcard": ["*.tmp", "a*"]}}]', '"bc"', True),
    ('[{"anything-but": {"wildcard": ""}}]', '"x"', True),
    ('[{"anything-but": "x"}, "x"]', '"x"', True),
    # Several alternatives are ORed, and so are the elements of an array of scalars.
    ('["a", {"prefix": "b"}, {"numeric": [">", 5]}, null]', '"bz"', True),
    ('["a", {"prefix": "b"}, {"numeric": [">", 5]}, null]', "6", True),
    ('["a", {"prefix": "b"}, {"numeric": [">", 5]}, null]', "null", True),
    ('["a", {"prefix": "b"}, {"numeric": [">", 5]}, null]', "5", False),
    ('[{"cidr": "10.0.0.0/8"}, {"numeric": [">", 1]}]', '"10.1.1.1"', True),
    ('["b"]', '["a", "b"]', True),
    ('["b"]', '["a"]', False),
    ('["b"]', '[["a"], [["b"]]]', True),
    ('["b"]', '["a", {"v": "b"}]', False),
    ('["b"]', '{"v": "b"}', False),
]


def every_way(pattern, event, *, numeric_text=None):
    """One answer, asked in every way; they have to agree."""
    patterns = pattern if isinstance(pattern, list) else [pattern]
    matcher = compile_patterns(patterns)
    others = {f"other {i}": compile_patterns([{"record": {"v": [f"other {i}"]}}]) for i in range(3)}
    several = FilterSet({**others, "asked": matcher, "action": compile_patterns([{"action": ["nothing"]}])})
    exact = load_event(event)
    answers = {
        "exact": matcher.matches(exact, numeric_text=numeric_text),
        "again": matcher.matches(exact, numeric_text=numeric_text),
        "json": matcher.matches_json(event.encode(), numeric_text=numeric_text),
        "set": several.matching(exact, numeric_text=numeric_text) == ["asked"],
    }
    assert len(set(answers.values())) == 1, answers
    return answers["exact"]


@pytest.mark.parametrize(("alternatives", "value", "expected"), ONE_FIELD)
def test_a_field_is_met_by_any_alternative(alternatives, value, expected):
    member = "" if value == ABSENT else f', "v": {value}'
    event = f'{{"action": "insert", "record": {{"id": 7{member}}}}}'
    assert every_way(f'{{"record": {{"v": {alternatives}}}}}', event) is expected


WHOLE = [
    # Fields are ANDed.
    ("all fields", '{"a": ["x"], "b": ["y"]}', '{"a": "x", "b": "y", "c": "z"}', True),
    ("one field is not met", '{"a": ["x"], "b": ["y"]}', '{"a": "x", "b": "z"}', False),
    ("one field is missing", '{"a": ["x"], "b": ["y"]}', '{"a": "x"}', False),
    ("names are exact", '{"Name": ["x"]}', '{"name": "x"}', False),
    ("the empty name", '{"": ["x"]}', '{"": "x"}', True),
    ("a name on every level", '{"a": {"a": {"a": ["x"]}}}', '{"a": {"a": {"a": "x"}}}', True),
    ("a level is a scalar", '{"a": {"b": ["x"]}}', '{"a": "x"}', False),
    ("a level is null", '{"a": {"b": ["x"]}}', '{"a": null}', False),
    ("nothing below a scalar exists", '{"a": {"b": [{"exists": false}]}}', '{"a": 5}', True),
    ("nothing below null exists", '{"changes": {"b": [{"exists": false}]}}', '{"changes": null}', True),
    ("five levels", '{"a": {"b": {"c": {"d": {"e": [1]}}}}}', '{"a": {"b": {"c": {"d": {"e": 1}}}}}', True),
    ("five levels, one missing", '{"a": {"b": {"c": {"d": {"e": [1]}}}}}', '{"a": {"b": {"c": {"e": 1}}}}', False),
    # Dotted names are the flattened form of nested ones, on either side.
    ("dots in the pattern", '{"a": {"b.c": ["x"]}}', '{"a": {"b": {"c": "x"}}}', True),
    ("dots in the event", '{"a": {"b": {"c": ["x"]}}}', '{"a": {"b.c": "x"}}', True),
    ("dots in both, elsewhere", '{"a.b": {"c": ["x"]}}', '{"a": {"b.c": "x"}}', True),
    ("dots all through", '{"a.b.c": ["x"]}', '{"a.b": {"c": "x"}}', True),
    ("dots at the top of the event", '{"a": {"b": ["x"]}}', '{"a.b": "x"}', True),
    ("dots of two kinds at once", '{"a": {"b": ["y"]}}', '{"a": {"b": "x"}, "a.b": "y"}', True),
    ("a level too many", '{"a": {"b.c": {"c": ["x"]}}}', '{"a": {"b": {"c": "x"}}}', False),
    ("a level too few", '{"a": {"b": {"c": ["x"]}}}', '{"a": {"b.c": {"c": "x"}}}', False),
    ("dots that don't meet", '{"a": {"b": {"c": ["x"]}}}', '{"a": {"b.d": "x", "b": {"d": "x"}}}', False),
    ("dots and absence", '{"a": {"b": [{"exists": false}]}}', '{"a.b": 1}', False),
    ("dots and absence, deeper", '{"a": {"b": {"c": [{"exists": false}]}}}', '{"a": {"b.c": 1}}', False),
    ("empty parts of a name", '{"a..b": ["x"]}', '{"a": {"": {"b": "x"}}}', True),
    # The last list of alternatives for a name holds; objects are merged.
    ("a name twice: the last holds", '{"a": ["x"], "a": ["y"]}', '{"a": "y"}', True),
    ("a name twice: the first does not", '{"a": ["x"], "a": ["y"]}', '{"a": "x"}', False),
    ("objects of one name are merged", '{"r": {"a": ["x"]}, "r": {"b": ["y"]}}', '{"r": {"b": "y"}}', False),
    ("objects of one name, both met", '{"r": {"a": ["x"]}, "r": {"b": ["y"]}}', '{"r": {"a": "x", "b": "y"}}', True),
    ("dotted and nested are one name", '{"r": {"a": ["x"]}, "r.a": ["y"]}', '{"r": {"a": "y"}}', True),
    ("a value and fields of one name", '{"a": ["x"], "a": {"b": ["y"]}}', '{"a": ["x", {"b": "y"}]}', True),
    ("a value and fields, one alone", '{"a": ["x"], "a": {"b": ["y"]}}', '{"a": {"b": "y"}}', False),
    # $or
    ("$or: the first", '{"$or": [{"a": ["x"]}, {"b": ["y"]}]}', '{"a": "x"}', True),
    ("$or: the second", '{"$or": [{"a": ["x"]}, {"b": ["y"]}]}', '{"b": "y"}', True),
    ("$or: neither", '{"$or": [{"a": ["x"]}, {"b": ["y"]}]}', '{"a": "y", "b": "x"}', False),
    ("$or beside a field", '{"c": ["z"], "$or": [{"a": ["x"]}, {"b": ["y"]}]}', '{"a": "x"}', False),
    ("$or beside a field, met", '{"c": ["z"], "$or": [{"a": ["x"]}, {"b": ["y"]}]}', '{"c": "z", "b": "y"}', True),
    ("$or before a field", '{"$or": [{"a": ["x"]}, {"b": ["y"]}], "c": ["z"]}', '{"b": "y"}', False),
    ("$or below a field", '{"r": {"$or": [{"a": ["x"]}, {"b": ["y"]}]}}', '{"r": {"b": "y"}}', True),
    ("$or below a field, elsewhere", '{"r": {"$or": [{"a": ["x"]}, {"b": ["y"]}]}}', '{"b": "y"}', False),
    ("$or with an AND inside", '{"$or": [{"a": ["x"], "b": ["y"]}, {"c": ["z"]}]}', '{"a": "x"}', False),
    ("$or in $or", '{"$or": [{"a": ["x"]}, {"b": ["y"], "$or": [{"c": [1]}, {"d": [2]}]}]}', '{"b": "y", "d": 2}', True),
    ("$or in $or, half", '{"$or": [{"a": ["x"]}, {"b": ["y"], "$or": [{"c": [1]}, {"d": [2]}]}]}', '{"b": "y"}', False),
    ("two $or, on two levels", '{"$or": [{"a": [1]}, {"b": [1]}], "r": {"$or": [{"a": [2]}, {"b": [2]}]}}', '{"b": 1, "r": {"a": 2}}', True),
    ("two $or, one met", '{"$or": [{"a": [1]}, {"b": [1]}], "r": {"$or": [{"a": [2]}, {"b": [2]}]}}', '{"b": 1, "r": {"a": 3}}', False),
    ("a name before $or yields to its entry", '{"a": ["1"], "$or": [{"a": ["2"]}, {"b": ["3"]}]}', '{"a": "2"}', True),
    ("and is gone there", '{"a": ["1"], "$or": [{"a": ["2"]}, {"b": ["3"]}]}', '{"a": "1"}', False),
    ("but holds in the other entry", '{"a": ["1"], "$or": [{"a": ["2"]}, {"b": ["3"]}]}', '{"a": "1", "b": "3"}', True),
    ("a name after $or replaces its entry", '{"$or": [{"a": ["2"]}, {"b": ["3"]}], "a": ["1"]}', '{"a": "1"}', True),
    ("$or with exists", '{"$or": [{"a": [{"exists": false}]}, {"a": [1]}]}', '{"b": 1}', True),
    ("$or of the same field", '{"$or": [{"a": [{"prefix": "x"}]}, {"a": [{"suffix": "y"}]}]}', '{"a": "zy"}', True),
    # Arrays of objects: one element has to meet all of a pattern's fields.
    ("one element meets both", '{"o": {"sku": ["a"], "qty": [2]}}', '{"o": [{"sku": "b", "qty": 2}, {"sku": "a", "qty": 2}]}', True),
    ("two elements meet one each", '{"o": {"sku": ["a"], "qty": [2]}}', '{"o": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}]}', False),
    ("an element of one field", '{"o": {"sku": ["a"]}}', '{"o": [{"sku": "b"}, {"sku": "a"}]}', True),
    ("two arrays are free of each other", '{"o": {"x": [1]}, "p": {"x": [2]}}', '{"o": [{"x": 0}, {"x": 1}], "p": [{"x": 2}, {"x": 0}]}', True),
    ("fields outside are free", '{"a": ["z"], "o": {"x": [1]}}', '{"a": "z", "o": [{"x": 0}, {"x": 1}]}', True),
    ("arrays inside elements", '{"o": {"id": [1], "t": {"k": ["b"]}}}', '{"o": [{"id": 1, "t": [{"k": "a"}]}, {"id": 2, "t": [{"k": "b"}]}]}', False),
    ("arrays inside elements, one", '{"o": {"id": [2], "t": {"k": ["b"]}}}', '{"o": [{"id": 1, "t": [{"k": "a"}]}, {"id": 2, "t": [{"k": "b"}]}]}', True),
    ("inner elements too", '{"o": {"t": {"k": ["a"], "v": [2]}}}', '{"o": [{"t": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]}]}', False),
    ("arrays in arrays", '{"e": {"f": ["Anna"], "l": ["Smith"]}}', '{"e": [[{"f": "John", "l": "Doe"}, {"f": "Anna", "l": "Smith"}], [{"f": "Peter", "l": "Jones"}]]}', True),
    ("arrays in arrays, crossed", '{"e": {"f": ["Anna"], "l": ["Jones"]}}', '{"e": [[{"f": "John", "l": "Doe"}, {"f": "Anna", "l": "Smith"}], [{"f": "Peter", "l": "Jones"}]]}', False),
    ("scalars of an element's array", '{"o": {"id": [2], "tags": ["b"]}}', '{"o": [{"id": 1, "tags": ["b"]}, {"id": 2, "tags": ["a"]}]}', False),
    ("anything-but inside elements", '{"o": {"x": [{"anything-but": 1}]}}', '{"o": [{"x": 1}, {"x": 2}]}', True),
    ("anything-but, all equal", '{"o": {"x": [{"anything-but": 1}]}}', '{"o": [{"x": 1}, {"x": 1.0}]}', False),
    ("anything-but and a neighbour", '{"o": {"x": [{"anything-but": 1}], "y": [5]}}', '{"o": [{"x": 1, "y": 5}, {"x": 2, "y": 6}]}', False),
    ("absent given the element chosen", '{"o": {"x": [1], "y": [{"exists": false}]}}', '{"o": [{"x": 1}, {"x": 2, "y": 3}]}', True),
    ("absent, but not in that element", '{"o": {"x": [1], "y": [{"exists": false}]}}', '{"o": [{"x": 1, "y": 3}, {"x": 2}]}', False),
    ("absent is asked in the order of names", '{"o": {"x": [{"exists": false}], "y": [3]}}', '{"o": [{"x": 1}, {"y": 3}]}', False),
    ("absent is asked before what follows by name", '{"o": {"ab": [{"exists": false}], "ba": [3]}}', '{"o": [{"ab": 1}, {"ba": 3}]}', False),
    ("absent is asked after what goes before by name", '{"o": {"ba": [{"exists": false}], "ab": [3]}}', '{"o": [{"ba": 1}, {"ab": 3}]}', True),
    ("names are in the order of UTF-16", '{"o": {"\uffff": [{"exists": false}], "𐀀": [3]}}', '{"o": [{"\uffff": 1}, {"𐀀": 3}]}', True),
    ("absent in all elements", '{"o": {"x": [{"exists": false}], "y": [3]}}', '{"o": [{"z": 1}, {"y": 3}]}', True),
    ("absent or a value", '{"o": {"x": [1], "y": [{"exists": false}, 3]}}', '{"o": [{"x": 1, "y": 3}]}', True),
    ("exists in some element", '{"o": {"x": [{"exists": true}]}}', '{"o": [{}, {"x": null}]}', True),
    ("no element at all", '{"o": {"x": [{"exists": true}]}}', '{"o": []}', False),
    ("no element, absent", '{"o": {"x": [{"exists": false}]}}', '{"o": []}', True),
    ("a mix of scalars and objects", '{"o": ["s"], "o.x": [1]}', '{"o": ["s", {"x": 1}]}', True),
    ("$or over elements", '{"o": {"x": [1], "$or": [{"y": [2]}, {"z": [3]}]}}', '{"o": [{"x": 1, "y": 0}, {"z": 3}]}', False),
    ("dots and arrays", '{"o": {"x.y": [1], "z": [2]}}', '{"o": [{"x": {"y": 1}, "z": 1}, {"x.y": 1, "z": 2}]}', True),
    # The event of design's own shape.
    ("an insert of a plan", '{"action": ["insert"], "record": {"plan": ["pro", "team"], "age": [{"numeric": [">=", 18]}]}}', '{"action": "insert", "record": {"plan": "pro", "age": 18}, "changes": null}', True),
    ("a column that changed", '{"action": ["update"], "changes": {"status": [{"exists": true}]}}', '{"action": "update", "record": {"status": "b"}, "changes": {"status": "a"}}', True),
    ("a column that did not", '{"action": ["update"], "changes": {"status": [{"exists": true}]}}', '{"action": "update", "record": {"status": "b"}, "changes": {"name": "a"}}', False),
    ("changes that are not known", '{"changes": {"status": [{"exists": true}]}}', '{"changes": null}', False),
    ("a table by its metadata", '{"metadata": {"table_name": [{"prefix": "order"}]}}', '{"metadata": {"table_name": "orders"}}', True),
    ("inside a jsonb column", '{"record": {"doc": {"lines": {"sku": ["a"]}}}}', '{"record": {"doc": {"lines": [{"sku": "a"}]}}}', True),
    ("an unavailable column is absent", '{"record": {"body": [{"exists": false}]}}', '{"record": {"id": 1}, "metadata": {"unavailable": ["body"]}}', True),
    ("a lone surrogate in a json column", '{"record": {"id": [1]}}', r'{"record": {"id": 1, "doc": "\ud800"}}', True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "event", "expected"), [case[1:] for case in WHOLE], ids=[case[0] for case in WHOLE]
)
def test_an_event_matches_where_every_field_is_met(pattern, event, expected):
    assert every_way(pattern, event) is expected


def test_the_tables_hold_what_they_should():
    assert len(ONE_FIELD) + len(WHOLE) >= 200
    assert len({case[0] for case in WHOLE}) == len(WHOLE)
    assert len(set(ONE_FIELD)) == len(ONE_FIELD)


# Columns of type numeric travel as text.

NUMERIC_COLUMN = [
    ('[{"numeric": [">", 12]}]', '"12.50"', True),
    ('[{"numeric": ["=", 12.5]}]', '"12.50"', True),
    ('[{"numeric": ["<", 0]}]', '"-0.000000000000000000001"', True),
    ('[{"numeric": ["<", 0]}]', '"-0.000"', False),
    ('[{"numeric": [">", 500000000000]}]', '"123456789012345678901234567890.12345"', True),
    ('[{"numeric": ["=", 123456789012345678901234567890.12345]}]', '"123456789012345678901234567890.12345"', True),
    ('[{"numeric": ["=", 123456789012345678901234567890.12345]}]', '"123456789012345678901234567890.12346"', False),
    ('[{"numeric": [">", 0]}]', '"NaN"', False),
    ('[{"numeric": ["<=", 0]}]', '"NaN"', False),
    ('[{"numeric": [">", 0]}]', '"Infinity"', False),
    ('[{"numeric": ["<", 0]}]', '"-Infinity"', False),
    ('[{"numeric": [">", 0]}]', "null", False),
    ('[{"numeric": [">", 0]}]', "[]", False),
    ('[{"numeric": [">", 10]}]', '["1.0", "20.00"]', True),
    ("[12.5]", '"12.50"', True),
    ("[12.5]", '"12.51"', False),
    ('["12.50"]', '"12.50"', True),
    ('["12.5"]', '"12.50"', False),
    ('["NaN"]', '"NaN"', True),
    ('[{"anything-but": 12.5}]', '"12.50"', False),
    ('[{"anything-but": [1, 12.5]}]', '"12.500"', False),
    ('[{"anything-but": 12.5}]', '"12.51"', True),
    ('[{"anything-but": 12.5}]', '"NaN"', True),
    ('[{"anything-but": "12.5"}]', '"12.50"', True),
    ('[{"prefix": "12."}]', '"12.50"', True),
    ('[{"exists": true}]', '"12.50"', True),
]


@pytest.mark.parametrize(("alternatives", "value", "expected"), NUMERIC_COLUMN)
def test_a_numeric_column_is_compared_by_value(alternatives, value, expected):
    event = f'{{"record": {{"v": {value}}}}}'
    pattern = f'{{"record": {{"v": {alternatives}}}}}'
    assert every_way(pattern, event, numeric_text={("record", "v")}.__contains__) is expected


@pytest.mark.parametrize("alternatives", ["[300]", '[{"numeric": ["=", 300]}]', '[{"numeric": [">", 0]}]'])
def test_a_text_column_never_equals_a_number(alternatives):
    event = '{"record": {"v": "300", "w": "300"}}'
    pattern = f'{{"record": {{"v": {alternatives}}}}}'
    assert every_way(pattern, event, numeric_text={("record", "w")}.__contains__) is False
    assert every_way(pattern, event) is False


def test_only_paths_that_compare_numbers_are_asked_for_their_type():
    asked = []
    matcher = compile_patterns([{"record": {"a": [{"numeric": [">", 1]}], "b": ["x"], "c": [{"anything-but": [2]}]}}])
    assert matcher.matches({"record": {"a": "2", "b": "x", "c": 1}}, numeric_text=lambda path: not asked.append(path))
    assert sorted(asked) == [("record", "a"), ("record", "c")]


def test_binding_the_same_columns_twice_gives_the_same_matcher():
    matcher = compile_patterns([{"record": {"a": [1], "b": [1]}}])
    first = matcher.bind({("record", "a")}.__contains__)
    assert matcher.bind({("record", "a"), ("record", "z")}.__contains__) is first
    assert matcher.bind(lambda _: False) is matcher
    assert first.matches({"record": {"a": "1.0", "b": 1}})
    assert not first.matches({"record": {"a": 1, "b": "1.0"}})


# Numbers that are already parsed.


@pytest.mark.parametrize(
    ("alternatives", "value", "expected"),
    [
        ([0.1], Decimal("0.1"), True),
        ([Decimal("0.1")], 0.1, True),
        ([{"numeric": ["=", 0.1]}], 0.1, True),
        ([{"numeric": [">", 0.1]}], 0.1, False),
        ([{"numeric": ["<=", Decimal("0.1")]}], 0.1, True),
        ([10**22], 1e22, True),
        ([{"anything-but": 0.1}], 0.1, False),
        ([{"anything-but": 1}], float("nan"), True),
        ([{"numeric": [">", 1]}], float("inf"), False),
        ([1], 1.0, True),
        ([1], True, False),
    ],
)
def test_a_float_means_what_it_prints_as(alternatives, value, expected):
    matcher = compile_patterns([{"record": {"v": alternatives}}])
    assert matcher.matches({"record": {"v": value}}) is expected
    assert FilterSet({"it": matcher}).matching({"record": {"v": value}}) == ["it"] * expected


def test_orjson_and_the_exact_reader_agree_where_doubles_suffice():
    event = orjson.dumps({"record": {"a": 12.25, "b": -3, "c": "x", "d": [1.5, None, True]}})
    matcher = compile_patterns([{"record": {"a": [12.25], "b": [-3], "d": [1.5]}}])
    assert matcher.matches(orjson.loads(event)) is matcher.matches_json(event) is True


def test_numbers_are_read_exactly_only_where_they_matter():
    assert compile_patterns([{"record": {"a": [1]}}]).compares_numbers
    assert compile_patterns([{"record": {"a": [{"anything-but": [1]}]}}]).compares_numbers
    assert not compile_patterns([{"record": {"a": ["1", True, {"exists": True}]}}]).compares_numbers
    assert not compile_patterns([{"record": {"a": [{"anything-but": {"prefix": "1"}}]}}]).compares_numbers


def test_a_number_of_a_hundred_thousand_digits_is_compared_exactly():
    digits = "7" * 100_000
    matcher = compile_patterns([f'{{"v": [{digits}]}}'])
    assert matcher.matches_json(f'{{"v": {digits}}}'.encode())
    assert not matcher.matches_json(f'{{"v": {digits[:-1]}8}}'.encode())


@pytest.mark.parametrize("pattern", [{"a": [1]}, {"a": ["x"]}])
@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b"", "not JSON"),
        (b"secret", "not JSON"),
        (b'{"a": secret}', "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": -Infinity}', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'["secret"]', "not a JSON object"),
        (b'"secret"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": 1} secret', "not JSON"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    ],
)
def test_an_event_that_is_no_object_is_refused_without_its_content(pattern, event, reason):
    with pytest.raises(ValueError, match=reason) as refused:
        compile_patterns([pattern]).matches_json(event)
    assert "secret" not in str(refused.value)


# Several patterns.


def test_patterns_are_ored():
    matcher = compile_patterns([{"a": ["x"]}, '{"b": ["y"]}'])
    assert matcher.matches({"a": "x"})
    assert matcher.matches({"b": "y"})
    assert not matcher.matches({"a": "y", "b": "x"})


def test_no_patterns_match_every_event():
    assert compile_patterns([]).matches({})
    assert compile_patterns([]).matches_json(b'{"a": 1}')
    assert compile_patterns([]).paths == frozenset()
    assert FilterSet({"all": compile_patterns([])}).matching({"a": 1}) == ["all"]


def test_a_hundred_levels_are_walked_in_every_way_a_key_can_have_dots():
    names = [f"n{level}" for level in range(100)]
    pattern: dict = {"leaf": ["x"]}
    event: dict = {"leaf": "x"}
    for name in names:
        pattern, event = {name: pattern}, {name: event}
    matcher = compile_patterns([pattern])
    assert matcher.matches(event)
    assert matcher.matches({"n99.n98": [event["n99"]["n98"]]})
    assert matcher.matches({".".join([*reversed(names), "leaf"]): "x"})
    assert not matcher.matches({"n99.n98": [event["n99"]]})


def test_a_matcher_knows_the_fields_it_reads():
    matcher = compile_patterns(
        [
            {"record": {"plan": ["pro"], "doc": {"lines": {"sku": ["a"]}}, "x.y": [1]}},
            {"$or": [{"action": ["delete"]}, {"changes": {"plan": [{"exists": True}]}}]},
        ]
    )
    assert matcher.paths == {
        ("record", "plan"),
        ("record", "doc", "lines", "sku"),
        ("record", "x", "y"),
        ("action",),
        ("changes", "plan"),
    }


@pytest.mark.parametrize(
    ("keys", "needed"),
    [
        (("record", "plan"), True),
        (("record", "doc"), True),
        (("record", "doc", "lines"), True),
        (("record", "x.y"), True),
        (("record", "x"), True),
        (("record",), True),
        (("record", "plan", "deeper"), True),
        (("record", "other"), False),
        (("record", "doc", "other"), False),
        (("record", "pla"), False),
        (("changes",), False),
    ],
)
def test_a_matcher_knows_what_it_can_do_without(keys, needed):
    matcher = compile_patterns([{"record": {"plan": ["pro"], "doc": {"lines": {"sku": ["a"]}}, "x.y": [1]}}])
    assert matcher.reads(*keys) is needed


def test_what_is_not_read_may_be_anything():
    matcher = compile_patterns([{"record": {"plan": ["pro"]}}])
    assert matcher.matches({"record": {"plan": "pro", "other": object()}, "action": object()})


# Files and event source mappings.


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ["x"]}',
        '[{"a": ["x"]}]',
        '[{"a": ["y"]}, {"a": ["x"]}]',
        r'["{\"a\": [\"x\"]}"]',
        r'{"Filters": [{"Pattern": "{\"a\": [\"x\"]}"}]}',
        '{"Filters": [{"Pattern": {"a": ["x"]}}]}',
        r'{"filters": [{"pattern": "{\"a\": [\"x\"]}"}]}',
        '{"a": ["z"], "a": ["x"]}',
        '{"Filters": []}',
    ],
)
def test_patterns_are_read_from_every_form_that_files_have(text):
    assert compile_patterns(read_patterns(text)).matches({"a": "x"})


def test_a_field_called_filters_is_a_field_where_it_holds_values():
    matcher = compile_patterns(read_patterns('{"Filters": ["x"]}'))
    assert matcher.matches({"Filters": "x"})
    assert not matcher.matches({"a": "x"})


def test_json_text_and_parsed_json_mean_the_same():
    text = '{"record": {"plan": ["pro"], "age": [{"numeric": [">", 17.5]}]}}'
    event = {"record": {"plan": "pro", "age": 18}}
    assert compile_patterns([text]).matches(event)
    assert compile_patterns([json.loads(text)]).matches(event)


@pytest.mark.parametrize(
    ("alternatives", "expected"),
    [
        (["mine"], True),
        (["other"], False),
        ([{"prefix": "mi"}, "other"], True),
        ([{"anything-but": "mine"}], False),
        ([{"exists": True}], True),
        ([{"exists": False}], False),
        ([{"wildcard": "*e"}], True),
    ],
)
def test_what_is_known_beforehand_need_not_be_in_the_event(alternatives, expected):
    whole = {"metadata": {"trigger": "mine"}, "record": {"v": 1}}
    for pattern in (
        {"metadata": {"trigger": alternatives}},
        {"metadata.trigger": alternatives, "record": {"v": [1]}},
        {"$or": [{"metadata": {"trigger": alternatives}, "record": {"v": [1]}}, {"record": {"v": [2]}}]},
    ):
        matcher = compile_patterns([pattern])
        assert matcher.matches(whole) is expected
        given = matcher.given("metadata.trigger", "mine")
        assert given.matches({"record": {"v": 1}}) is expected
        assert (FilterSet({"t": given}).matching({"record": {"v": 1}}) == ["t"]) is expected
        assert given.matches({"record": {"v": 2}}) is compile_patterns([pattern]).matches({**whole, "record": {"v": 2}})
        assert not expected or not given.reads("metadata")


def test_what_no_pattern_asks_about_changes_nothing():
    matcher = compile_patterns([{"record": {"v": [1]}}])
    assert matcher.given("metadata.trigger", "mine") is matcher
