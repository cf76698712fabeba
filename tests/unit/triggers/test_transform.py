"""A trigger's own function: what it is given, and what may come back."""

import json
from decimal import Decimal

import pytest

from bridge.triggers.transform import Transform, TransformFailed

DOCUMENT = b'{"id":"1-0","action":"insert","record":{"n":1,"f":0.1,"doc":{"big":12345678901234567890123,"exact":1.10000000000000000001}},"metadata":{}}'


def apply(function, document=DOCUMENT):
    return Transform("m:f", function).apply(document)


def test_an_event_that_is_given_back_says_the_same():
    seen = []
    assert json.loads(apply(lambda event: seen.append(event) or event), parse_float=Decimal) == json.loads(
        DOCUMENT, parse_float=Decimal
    )
    record = seen[0]["record"]
    assert (record["n"], record["f"], type(record["f"])) == (1, 0.1, float)
    assert record["doc"] == {"big": Decimal(12345678901234567890123), "exact": Decimal("1.10000000000000000001")}


@pytest.mark.parametrize("text", [r'{"\ud800":["\udfff",1.10000000000000000001,0.5]}', "[" * 300 + '"x"' + "]" * 300])
def test_what_only_the_json_type_lets_in_comes_back(text):
    document = DOCUMENT.replace(b'{"n":1', b'{"odd":' + text.encode() + b',"n":1')
    assert json.loads(apply(lambda event: event, document), parse_float=Decimal) == json.loads(
        document, parse_float=Decimal
    )


@pytest.mark.parametrize("text", ["1e99999999999999999999", "[" * 3000 + "]" * 3000])
def test_an_event_that_python_cannot_read_is_a_failure_like_another(text):
    with pytest.raises(TransformFailed, match="the event can't be read"):
        apply(lambda event: event, DOCUMENT.replace(b'{"n":1', b'{"odd":' + text.encode()))


def test_an_event_that_nests_too_deeply_to_be_written_is_told():
    def nest(event):
        for _ in range(3000):
            event["record"] = [event["record"]]
        return event

    with pytest.raises(TransformFailed, match="nests too deeply to be written"):
        apply(nest)


def test_what_it_changes_is_what_is_sent():
    assert json.loads(apply(lambda event: {**event, "record": {"only": "this"}}))["record"] == {"only": "this"}


def test_none_is_no_event():
    assert apply(lambda event: None) is None


def spoil(event):
    raise KeyError("a row's value")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (spoil, "transform m:f raised KeyError"),
        (lambda event: "text", "transform m:f returned str, not an event or None"),
        (
            lambda event: {**event, "id": "other"},
            "transform m:f changed the event's id, by which failures are reported",
        ),
        (lambda event: {"record": {}}, "transform m:f changed the event's id, by which failures are reported"),
        (lambda event: {**event, "record": object()}, "transform m:f returned what JSON has not"),
        (lambda event: {**event, "record": Decimal("NaN")}, "transform m:f returned what JSON has not"),
        (lambda event: {**event, "record": {1: "\ud800"}}, "transform m:f returned what JSON has not"),
    ],
)
def test_what_goes_wrong_is_said_without_row_values(function, says):
    with pytest.raises(TransformFailed) as caught:
        apply(function)
    assert caught.value.error == says


def test_the_traceback_is_kept_for_the_letter():
    with pytest.raises(TransformFailed) as caught:
        apply(spoil)
    assert "a row's value" in caught.value.detail
    assert "in spoil" in caught.value.detail
