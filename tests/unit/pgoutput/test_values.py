from __future__ import annotations

import base64
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedMessage
from bridge.pgoutput.messages import TypeMessage
from bridge.pgoutput.values import (
    BUILT_IN_BY_NAME,
    BUILT_IN_BY_OID,
    CatalogType,
    Form,
    ValueType,
    encoder,
    encoder_of,
    is_told_by_the_stream,
    resolve,
)

TEXTS = [
    ("bool", "t", "true"),
    ("bool", "f", "false"),
    ("int2", "-32768", "-32768"),
    ("int4", "2147483647", "2147483647"),
    ("int8", "-9223372036854775808", "-9223372036854775808"),
    ("float4", "0.1", "0.1"),
    ("float8", "1e+20", "1e+20"),
    ("float8", "-0", "-0"),
    ("float8", "5e-324", "5e-324"),
    ("float8", "NaN", '"NaN"'),
    ("float4", "Infinity", '"Infinity"'),
    ("float8", "-Infinity", '"-Infinity"'),
    ("numeric", "12.50", '"12.50"'),
    ("numeric", "NaN", '"NaN"'),
    ("numeric", "9" * 131072 + "." + "1" * 16383, '"' + "9" * 131072 + "." + "1" * 16383 + '"'),
    ("text", 'a "quoted" \\ line\nü\t\x01', '"a \\"quoted\\" \\\\ line\\nü\\t\\u0001"'),
    ("bpchar", "ab   ", '"ab   "'),
    ("char", "\\377", '"\\\\377"'),
    ("json", '{"a":1e400,\n "a" : "\\ud800"}', '{"a":1e400,\n "a" : "\\ud800"}'),
    ("jsonb", '{"n": 1.10, "big": 123456789012345678901234567890}', '{"n": 1.10, "big": 123456789012345678901234567890}'),
    ("timestamp", "2026-11-22 05:37:00.5", '"2026-11-22T05:37:00.5"'),
    ("timestamp", "0001-01-01 00:00:00", '"0001-01-01T00:00:00"'),
    ("timestamp", "infinity", '"infinity"'),
    ("timestamp", "-infinity", '"-infinity"'),
    ("timestamp", "0044-03-15 12:00:00 BC", '"0044-03-15 12:00:00 BC"'),
    ("timestamp", "12345-06-07 08:09:10", '"12345-06-07 08:09:10"'),
    ("timestamptz", "2026-11-22 05:37:00.123456+00", '"2026-11-22T05:37:00.123456Z"'),
    ("timestamptz", "9999-12-31 23:59:59+00", '"9999-12-31T23:59:59Z"'),
    ("timestamptz", "infinity", '"infinity"'),
    ("timestamptz", "-infinity", '"-infinity"'),
    ("timestamptz", "0044-03-15 12:00:00+00 BC", '"0044-03-15 12:00:00+00 BC"'),
    ("timestamptz", "12345-06-07 08:09:10+00", '"12345-06-07 08:09:10+00"'),
    # A role's TimeZone that has won over ours: the same moment all the same.
    ("timestamptz", "2026-11-22 05:37:00.5+01", '"2026-11-22T04:37:00.5Z"'),
    ("timestamptz", "2026-01-01 00:30:00+05:45", '"2025-12-31T18:45:00Z"'),
    ("timestamptz", "0900-01-01 00:00:00-04:56:02", '"0900-01-01T04:56:02Z"'),
    ("timestamptz", "0001-01-01 00:00:00+10", '"0001-01-01 00:00:00+10"'),
    ("date", "2026-11-22", '"2026-11-22"'),
    ("date", "infinity", '"infinity"'),
    ("time", "24:00:00", '"24:00:00"'),
    ("timetz", "12:00:00.5+02", '"12:00:00.5+02"'),
    ("interval", "1 year 2 mons -3 days +04:05:06.7", '"1 year 2 mons -3 days +04:05:06.7"'),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
    ("bytea", "\\x", '""'),
    ("bytea", "\\x00ff10", '"AP8Q"'),
    ("bytea", "\\000\\377a\\\\", '"AP9hXA=="'),  # bytea_output = escape
    ("inet", "::1/128", '"::1/128"'),
    ("bit", "0101", '"0101"'),
    ("money", "$1,000.00", '"$1,000.00"'),
    ("int4range", "[1,5)", '"[1,5)"'),
    ("tsrange", '["2026-01-01 00:00:00",)', '"[\\"2026-01-01 00:00:00\\",)"'),
    ("daterange", '["0044-03-15 BC",2026-01-01)', '"[\\"0044-03-15 BC\\",2026-01-01)"'),
    ("oid", "4294967295", '"4294967295"'),
    ("pg_lsn", "16/B374D848", '"16/B374D848"'),
    ("xid8", "18446744073709551615", '"18446744073709551615"'),
    ("int2vector", "1 2", "[1,2]"),
    ("oidvector", "1 2", '["1","2"]'),
    ("_int4", "[0:1]={1,NULL}", "[1,null]"),
    ("_bool", "{t,f}", "[true,false]"),
    ("_numeric", "{1.10,NaN}", '["1.10","NaN"]'),
    ("_jsonb", '{"{\\"a\\": 1}"}', '[{"a": 1}]'),
    ("_bytea", '{"\\\\x00ff"}', '["AP8="]'),
    ("_timestamptz", '{"2026-11-22 05:37:00+00",infinity}', '["2026-11-22T05:37:00Z","infinity"]'),
    ("_box", "{(1,1),(0,0);(2,2),(1,1)}", '["(1,1),(0,0)","(2,2),(1,1)"]'),
    ("_int2vector", '{"1 2","3"}', "[[1,2],[3]]"),
    ("_daterange", '{"[\\"0044-03-15 BC\\",)",empty}', '["[\\"0044-03-15 BC\\",)","empty"]'),
    ("_pg_class", '{"(1,pg_class)"}', '["(1,pg_class)"]'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), TEXTS, ids=[f"{n} {t[:30]}" for n, t, _ in TEXTS])
def test_text_becomes_json_by_its_type(name, text, expected):
    encoded = encoder_of(BUILT_IN_BY_NAME[name])(text.encode())
    assert encoded == expected.encode()
    json.loads(encoded)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bool", "true"), ("bool", ""), ("int4", ""), ("int4", "x"), ("int4", "1,2"), ("int8", "-"), ("float8", ""), ("bytea", "\\x0"),
        ("bytea", "\\xzz"), ("bytea", "\\9"), ("_int4", "1"), ("_int4", "{1,x}"), ("int2vector", "1 x"),
    ],
)  # fmt: skip
def test_text_that_its_type_cannot_have_is_malformed(name, text):
    with pytest.raises(MalformedMessage):
        encoder_of(BUILT_IN_BY_NAME[name])(text.encode())


@pytest.mark.parametrize("name", ["text", "json", "_text", "xml"])
def test_text_that_is_not_utf8_is_refused_by_the_encoder(name):
    with pytest.raises(UnicodeDecodeError):
        encoder_of(BUILT_IN_BY_NAME[name])(b"{\xff}")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text):
    assert orjson.loads(encoder_of(BUILT_IN_BY_NAME["text"])(text.encode())) == text


@given(st.binary())
def test_any_bytes_come_back_from_base64_whatever_bytea_output_is(raw):
    encode = encoder_of(BUILT_IN_BY_NAME["bytea"])
    escaped = b"".join(b"\\\\" if b == 0x5C else bytes([b]) if 0x20 <= b < 0x7F else b"\\%03o" % b for b in raw)
    assert base64.b64decode(orjson.loads(encode(b"\\x" + raw.hex().encode()))) == raw
    assert base64.b64decode(orjson.loads(encode(escaped))) == raw


@given(st.floats())
def test_floats_keep_their_value(number):
    text = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(number), repr(number))
    encoded = json.loads(encoder_of(BUILT_IN_BY_NAME["float8"])(text.encode()))
    assert encoded == (number if text == repr(number) else text)


# Types that are not built in


def test_an_unknown_type_is_text():
    assert encoder(16500)(b"(1,a)") == b'"(1,a)"'
    assert encoder(9999)(b"x") == b'"x"'


def test_a_domain_is_its_base_type_by_its_type_message_alone():
    announced = {16500: TypeMessage(16500, "pg_catalog", "int4"), 16501: TypeMessage(16501, "pg_catalog", "_bool")}
    assert encoder(16500, announced)(b"7") == b"7"
    assert encoder(16501, announced)(b"{t}") == b"[true]"


def test_the_catalog_tells_domains_over_domains_and_arrays_of_them():
    catalog = {
        16500: CatalogType("d", base=16501),
        16501: CatalogType("d", base=20),
        16502: CatalogType("b", element=16500),
        16503: CatalogType("d", base=16502),
        16504: CatalogType("e"),
        16505: CatalogType("b", element=16504, delimiter=":"),
    }
    assert encoder(16500, None, catalog.get)(b"7") == b"7"
    assert encoder(16503, None, catalog.get)(b"{7,NULL}") == b"[7,null]"
    assert encoder(16505, None, catalog.get)(b"{a:b}") == b'["a","b"]'
    assert encoder(16504, None, catalog.get)(b"{a:b}") == b'"{a:b}"'


def test_the_type_message_wins_over_a_catalog_that_is_younger_than_the_row():
    announced = {16500: TypeMessage(16500, "pg_catalog", "int4")}
    assert resolve(16500, announced, lambda _oid: CatalogType("d", base=25)).form is Form.NUMBER


def test_the_catalog_is_asked_about_what_pg_catalog_holds_besides_the_built_in_types():
    # initdb gives the row types of most catalogs an OID of their own making, and so does an extension installed there.
    announced = {
        13000: TypeMessage(13000, "pg_catalog", "_pg_authid"),
        16500: TypeMessage(16500, "pg_catalog", "point3"),
    }
    assert not is_told_by_the_stream(13000, announced)
    assert encoder(13000, announced, {13000: CatalogType("b", element=2842)}.get)(b'{"(1,me)"}') == b'["(1,me)"]'
    assert encoder(16500, announced, {16500: CatalogType("b")}.get)(b"{1,2,3}") == b'"{1,2,3}"'


def test_without_the_catalog_an_underscore_names_an_array_of_strings():
    announced = {16500: TypeMessage(16500, "public", "_mood")}
    assert encoder(16500, announced)(b'{ok,"not ok"}') == b'["ok","not ok"]'
    # A type that was merely named so stays text.
    assert encoder(16500, announced)(b"not an array") == b'"not an array"'


def test_domains_in_a_loop_end_as_text():
    assert resolve(16500, None, lambda oid: CatalogType("d", base=oid)) == ValueType(Form.TEXT)


def test_fixed_length_types_are_marked_since_they_are_never_toasted():
    fixed = {name for name, value in BUILT_IN_BY_NAME.items() if value.fixed_length}
    assert {"bool", "int4", "int8", "uuid", "timestamptz", "date"} <= fixed
    assert not fixed & {"text", "numeric", "jsonb", "bytea", "_int4", "inet", "bit", "int4range", "tsvector"}
    assert len(BUILT_IN_BY_OID) == len(BUILT_IN_BY_NAME)
