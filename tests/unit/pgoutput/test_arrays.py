from __future__ import annotations

import contextlib
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MalformedMessage
from bridge.pgoutput.arrays import encode_array, encode_vector
from bridge.pgoutput.values import encode_number, encode_text


def text_array(text: str, delimiter: bytes = b",") -> object:
    return orjson.loads(encode_array(text.encode(), encode_text, delimiter))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", []),
        ("{a}", ["a"]),
        ("{a,b,c}", ["a", "b", "c"]),
        ("{NULL}", [None]),
        ('{"NULL",NULL,null}', ["NULL", None, "null"]),  # only NULL in capitals and without quotes is null
        ('{""}', [""]),
        (r'{"a\"b","c\\d","e{f}","g,h"," i "}', ['a"b', "c\\d", "e{f}", "g,h", " i "]),
        ("{{a,b},{c,NULL}}", [["a", "b"], ["c", None]]),
        ("{{{{{{x}}}}}}", [[[[[["x"]]]]]]),
        ("[0:1]={a,b}", ["a", "b"]),
        ("[-2:-1][5:5]={{a},{b}}", [["a"], ["b"]]),
        ('{"line\nbreak","tab\t"}', ["line\nbreak", "tab\t"]),
        ("{ü,\U0001f600}", ["ü", "\U0001f600"]),
        ("{[1:2]=}", ["[1:2]="]),
        ("{a b}", ["a b"]),
    ],
)
def test_array_text_becomes_a_json_array(text, expected):
    assert text_array(text) == expected


def test_box_arrays_are_delimited_by_semicolons():
    assert text_array("{(1,1),(0,0);(2,2),(1,1);NULL}", b";") == ["(1,1),(0,0)", "(2,2),(1,1)", None]


def test_elements_keep_the_form_of_their_type():
    assert encode_array(b"{{1,NULL},{-3,4}}", encode_number) == b"[[1,null],[-3,4]]"


def test_vectors_become_flat_arrays():
    assert encode_vector(b"1 2 3", encode_number) == b"[1,2,3]"
    assert encode_vector(b"", encode_number) == b"[]"


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "{", "}", "{a", "a}", "{a}}", "{{a}", "{a}b", "{,}", "{a,}", "{,a}", '{"a}', '{"a"b}', '{a"b"}', "{a{b}}", "{{a}b}",
        "{{a}{b}}", "{}{}", "{{},}", '{"a\\}', "{a\\}", "[0:1]=", "[0:1]", "[a:b]={a}", "=[0:1]{a}", "{a},{b}", '{"a""b"}',
    ],
)  # fmt: skip
def test_what_is_no_array_is_malformed(text):
    with pytest.raises(MalformedMessage) as caught:
        text_array(text)
    assert text not in str(caught.value) or len(text) < 2


def test_a_deep_array_needs_no_deep_stack():
    depth = 100_000
    assert encode_array(b"{" * depth + b"x" + b"}" * depth, encode_text).startswith(b"[[[")


def write_array(value: list, delimiter: str = ",") -> str:
    """What `array_out` writes."""

    def item(element: object) -> str:
        if isinstance(element, list):
            return write_array(element, delimiter)
        if element is None:
            return "NULL"
        text = str(element)
        special = set('{}"\\' + delimiter + " \t\n\r\v\f")
        if not text or text.upper() == "NULL" or special & set(text):
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return text

    return "{" + delimiter.join(item(element) for element in value) + "}"


elements = st.one_of(
    st.none(),
    st.sampled_from(["NULL", "null", "", "{", '"', "\\", " "]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)


@given(
    st.recursive(st.lists(elements, max_size=5), lambda inner: st.lists(inner, min_size=1, max_size=3)),
    st.sampled_from([",", ";"]),
)
def test_arrays_come_back_as_they_were_written(value, delimiter):
    encoded = encode_array(write_array(value, delimiter).encode(), encode_text, delimiter.encode())
    assert json.loads(encoded) == value


@given(st.text('{}",\\ aNUL[]:=1', max_size=12))
def test_any_text_gives_valid_json_or_is_malformed(text):
    with contextlib.suppress(MalformedMessage):
        orjson.loads(encode_array(text.encode(), encode_text))
