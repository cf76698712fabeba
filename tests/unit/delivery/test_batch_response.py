"""Reports of failed records, row by row."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.delivery.batch_response import Report, UnusableReport, failed_ids

A, B, C = (f"00000000000000AB-{ordinal:010d}" for ordinal in range(3))
IDS = [A, B, C]


def report(*identifiers):
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"null",
        b"{}",
        b"[]",
        b'""',
        b'{"batchItemFailures":[]}',
        b'{"batchItemFailures":null}',
        b'{"statusCode":200,"body":"ok"}',
        b'{"BatchItemFailures":[]}',
    ],
)
@pytest.mark.parametrize("meant", Report)
def test_an_answer_without_failures_is_a_success(body, meant):
    assert failed_ids(body, IDS, report=meant) == frozenset()


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (report(A), {A}),
        (report(C, A), {A, C}),
        (report(A, B, C), {A, B, C}),
        (report(B, B), {B}),
        ({"batchItemFailures": [{"itemIdentifier": A, "reason": "no such user"}], "more": 1}, {A}),
    ],
)
def test_ids_of_the_batch_are_those_that_failed(answer, failed):
    assert failed_ids(orjson.dumps(answer), IDS) == failed
    assert failed_ids(orjson.dumps(answer), IDS, report=Report.WELCOME) == failed
    assert failed_ids(orjson.dumps(answer), IDS, report=Report.IGNORED) == frozenset()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (report(""), r"batchItemFailures\[0\] names an empty string"),
        (report(None), r"batchItemFailures\[0\] names null"),
        (report("nobody"), r"batchItemFailures\[0\] names no event of this batch"),
        (report(A, "nobody"), r"batchItemFailures\[1\] names no event"),
        (report(A, ""), r"batchItemFailures\[1\] names an empty"),
        (report(A.lower()), "names no event"),
        (report(123), "not a string"),
        (report(True), "not a string"),
        (report([A]), "not a string"),
        ({"batchItemFailures": [{"foo": 123}]}, "has no itemIdentifier"),
        ({"batchItemFailures": [{"foo": None}]}, "has no itemIdentifier"),
        ({"batchItemFailures": [{}]}, "has no itemIdentifier"),
        ({"batchItemFailures": [{"itemidentifier": A}]}, "another spelling"),
        ({"batchItemFailures": [{"ItemIdentifier": A}]}, "another spelling"),
        ({"batchItemFailures": [{"item_identifier": A}]}, "another spelling"),
        ({"batchItemFailures": [{"itemIdentifier": A, "ItemIdentifier": B}]}, "another spelling"),
        ({"batchItemFailures": [{"itemIdentifer": A}]}, "has no itemIdentifier"),
        ({"batchItemFailures": [A]}, "is not an object"),
        ({"batchItemFailures": [None]}, "is not an object"),
        ({"batchItemFailures": {"itemIdentifier": A}}, "is not a list"),
        ({"batchItemFailures": {}}, "is not a list"),
        ({"batchItemFailures": A}, "is not a list"),
        ({"batchItemFailures": 0}, "is not a list"),
        ({"batchItemFailures": False}, "is not a list"),
        ({"BatchItemFailures": [{"itemIdentifier": A}]}, "another spelling"),
        ({"batch_item_failures": [{"itemIdentifier": A}]}, "another spelling"),
        ({"batchItemFailures": [], "BatchItemFailures": [{"itemIdentifier": A}]}, "another spelling"),
    ],
)
@pytest.mark.parametrize("meant", [Report.EXPECTED, Report.WELCOME])
def test_a_report_that_departs_from_the_form_fails_the_whole_batch(answer, reason, meant):
    with pytest.raises(UnusableReport, match=reason):
        failed_ids(orjson.dumps(answer), IDS, report=meant)


NO_REPORTS = [
    b"Hello John Doe",
    b'"Hello John Doe"',
    b"0",
    b"false",
    b"true",
    b"7.5",
    b'["x"]',
    b"{",
    b"<html>",
    b"\xff",
]


@pytest.mark.parametrize("body", NO_REPORTS)
def test_what_is_no_object_fails_the_batch_where_a_report_was_promised(body):
    with pytest.raises(UnusableReport, match=r"not JSON|not an object"):
        failed_ids(body, IDS)


@pytest.mark.parametrize("body", NO_REPORTS)
def test_what_is_no_object_is_no_report_where_none_was_promised(body):
    assert failed_ids(body, IDS, report=Report.WELCOME) == frozenset()


def test_half_of_a_report_is_never_taken_for_all_of_it():
    half = orjson.dumps(report(A, B))[:60]
    for meant in (Report.EXPECTED, Report.WELCOME):
        with pytest.raises(UnusableReport, match="longer than"):
            failed_ids(half, IDS, whole=False, report=meant)
    with pytest.raises(UnusableReport, match="longer than"):
        failed_ids(b"<html>", IDS, whole=False)
    assert failed_ids(b"<html>", IDS, whole=False, report=Report.WELCOME) == frozenset()


def test_the_reason_quotes_nothing_of_the_answer():
    with pytest.raises(UnusableReport) as caught:
        failed_ids(orjson.dumps(report("4111 1111 1111 1111")), IDS)
    assert "4111" not in str(caught.value)


@pytest.mark.parametrize("meant", [Report.EXPECTED, Report.WELCOME])
@pytest.mark.parametrize(
    "body",
    [
        rb'{"batchItemFailures":[{"itemIdentifier":"%s","reason":"\ud83d"}]}',
        rb'{"batchItemFailures":[{"itemIdentifier":"%s"}],"mean":NaN,"most":-Infinity,"sum":1e999}',
        b'\xef\xbb\xbf{"batchItemFailures":[{"itemIdentifier":"%s"}]}',
        b'{"batchItemFailures":[{"itemIdentifier":"%s","reason":"caf\xe9"}]}',
        rb'{"batchItemFailures":[],"batchItemFailures":[{"itemIdentifier":"%s"}]}',
    ],
    ids=["half a surrogate pair", "numbers that JSON has not", "a byte order mark", "Latin-1", "a repeated key"],
)
def test_ids_are_read_whatever_else_the_handler_wrote_beside_them(body, meant):
    assert failed_ids(body % B.encode(), IDS, report=meant) == {B}


def test_an_id_is_not_mended_to_one_of_the_batch():
    for wrong in (b"\xff" + A.encode(), A.encode() + rb"\ud800"):
        with pytest.raises(UnusableReport, match="names no event"):
            failed_ids(b'{"batchItemFailures":[{"itemIdentifier":"%s"}]}' % wrong, IDS)


@pytest.mark.parametrize(
    "body",
    [
        b'{"batchItemFailures":[{"itemIdentifier":"%s"}' % A.encode(),
        b"{'batchItemFailures': [{'itemIdentifier': '%s'}]}" % A.encode(),
        b'{"deep":' + b"[" * 60_000 + b',"batchItemFailures":[{"itemIdentifier":"%s"}]}' % A.encode(),
    ],
    ids=["cut short", "printed by Python", "nested too deep"],
)
@pytest.mark.parametrize("meant", [Report.EXPECTED, Report.WELCOME])
def test_a_report_that_can_not_be_read_is_never_taken_for_a_success(body, meant):
    with pytest.raises(UnusableReport, match="not JSON"):
        failed_ids(body, IDS, report=meant)


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(IDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["batchItemFailures", "itemIdentifier", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json, st.sampled_from(Report))
def test_any_json_is_a_set_of_ids_of_the_batch_or_an_unusable_report(answer, meant):
    try:
        failed = failed_ids(orjson.dumps(answer), IDS, report=meant)
    except UnusableReport:
        return
    assert failed <= set(IDS)
