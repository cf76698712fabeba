"""Whose an event is, by a column."""

from __future__ import annotations

import json

import pytest

from bridge.change import Event, Transaction
from bridge.delivery.tenant import tenant_reader


@pytest.mark.parametrize(
    ("record", "keys", "tenant"),
    [
        ({"org": "blue"}, None, "blue"),
        ({"org": 7}, None, "7"),
        ({"org": None}, {"org": "red"}, "red"),
        ({}, {"org": "red"}, "red"),
        (None, None, None),
        ({"org": ""}, None, None),
        ({"org": "line\nbreak"}, None, None),
        ({"org": "x" * 257}, None, None),
        ({"org": True}, None, None),
        ({"org": {"a": 1}}, None, None),
    ],
)
def test_the_tenant_is_read_from_the_row_or_its_key(record, keys, tenant):
    event = Event(b"1", Transaction(1, 0, 0.0, 0), 0, None, None, "t", "insert", b"")
    complete = json.dumps({"record": record, "metadata": {"keys": keys}}).encode()
    assert tenant_reader("org", lambda _: complete)(event) == tenant


@pytest.mark.parametrize(
    ("row", "tenant"),
    [
        (rb'{"doc":"\ud800","org":"blue"}', "blue"),
        (rb'{"org":"\ud800"}', None),
        (b'{"doc":1e400,"org":7}', "7"),
        (b'{"org":7.5}', None),
        (b'{"org":' + b"9" * 5000 + b"}", None),
        (b'{"doc":' + b"[" * 3000 + b"]" * 3000 + b',"org":"blue"}', "blue"),
        (b'{"org":' + b"[" * 3000 + b"]" * 3000 + b"}", None),
    ],
)
def test_whatever_a_json_column_holds_is_in_nobodys_way(row, tenant):
    event = Event(b"1", Transaction(1, 0, 0.0, 0), 0, None, None, "t", "insert", b"")
    assert tenant_reader("org", lambda _: b'{"record":%b,"metadata":{}}' % row)(event) == tenant
