"""Filters, transforms and envelopes on real changes, as the service wires them."""

import json
import sys
from base64 import b64decode
from types import ModuleType

import pytest

from bridge.store.protocol import LetterFilter


def doubled(event):
    if event["record"]["n"] == 13:
        raise ValueError("unlucky")
    return None if event["record"]["n"] < 0 else {**event, "record": {**event["record"], "n": 2 * event["record"]["n"]}}


@pytest.fixture
def user_module(monkeypatch):
    module = ModuleType("shop_reshape")
    module.doubled = doubled
    monkeypatch.setitem(sys.modules, "shop_reshape", module)


async def test_a_change_that_nobody_wants_is_counted_and_never_holds_the_slot(database, run_service):
    """Given filters that refuse all but the last row, when it has arrived, then the slot was confirmed past the others."""
    triggers = {
        "pro": {"filter_criteria": [{"record": {"plan": ["pro"]}}]},
        "dear": {"filter_criteria": ['{"record": {"price": [{"numeric": [">", 99.50]}]}}']},
        "moved": {"changed": ["plan"], "operations": ["update"]},
        "named": {"filter_criteria": [{"record": {"plan": ["pro"]}, "metadata": {"trigger": ["named"]}}]},
        "misnamed": {"filter_criteria": [{"metadata": {"trigger": ["named"]}}]},
    }
    async with run_service(database, triggers) as running:
        await running.execute(
            "CREATE TABLE users (id int PRIMARY KEY, plan text, price numeric)",
            "ALTER TABLE users REPLICA IDENTITY FULL",
            "INSERT INTO users SELECT n, 'free', 99.50 FROM generate_series(1, 50) n",
            "UPDATE users SET price = 1 WHERE id <= 10",
            "INSERT INTO users VALUES (51, 'pro', 99.51)",
            "UPDATE users SET plan = 'team' WHERE id = 51",
        )
        assert [event["record"]["id"] for event in await running.events(1, "pro")] == [51]
        assert [event["record"]["id"] for event in await running.events(1, "named")] == [51]
        assert [event["action"] for event in await running.events(2, "dear")] == ["insert", "update"]
        (moved,) = await running.events(1, "moved")
        assert moved["changes"] == {"plan": "pro"}
        status = {trigger.name: trigger for trigger in running.service.snapshot().triggers}
        assert {name: trigger.filtered for name, trigger in status.items()} == {
            "pro": 61,
            "dear": 60,
            "moved": 10,
            "named": 61,
            "misnamed": 62,
        }
        confirmed = running.service.snapshot
        await running.execute("INSERT INTO users VALUES (52, 'free', 1)")
        commit_lsn = moved["metadata"]["commit_lsn"]
        await running.until(lambda: (confirmed().confirmed_lsn or 0) > commit_lsn)


async def test_columns_masks_statics_and_a_function_shape_what_is_sent_and_a_failure_is_one_letter(
    database, run_service, user_module
):
    trigger = {
        "columns": {"exclude": ["secret"], "rename": {"email": "address"}},
        "mask": {"email": {"hash": "0123456789abcdef"}},
        "static": {"region": "eu"},
        "filter_criteria": [{"record": {"secret": ["s"], "email": [{"suffix": "@example.com"}]}}],
        "transform": "shop_reshape:doubled",
    }
    async with run_service(database, {"t": trigger}) as running:
        await running.execute(
            "CREATE TABLE t (id int PRIMARY KEY, n int, email text, secret text)",
            "INSERT INTO t SELECT i, n, 'a@example.com', 's' FROM (VALUES (1, 5), (2, 13), (3, -1), (4, 6)) v (i, n)",
            "INSERT INTO t VALUES (5, 1, 'b@other.org', 's'), (6, 1, 'c@example.com', 'other')",
        )
        events = await running.events(2)
        await running.until(lambda: running.service.snapshot().triggers[0].dead_lettered == 1)
        await running.until(lambda: running.service.snapshot().triggers[0].filtered == 3)
    assert [(event["record"]["id"], event["record"]["n"]) for event in events] == [(1, 10), (4, 12)]
    assert events[0]["record"].keys() == {"region", "id", "n", "address"}
    assert len(events[0]["record"]["address"]) == 64
    (letter,) = await running.store.letters(LetterFilter())
    assert letter.error == "transform shop_reshape:doubled raised ValueError"
    assert b"@example.com" not in letter.event, "a letter holds covered values"
    assert json.loads(letter.event)["record"]["n"] == 13


async def test_a_function_gets_records_of_kinesis(database, run_service):
    trigger = {"target": {"lambda": {"function_name": "f", "envelope": "kinesis"}}}
    async with run_service(database, {"t": trigger}) as running:
        await running.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        (record,) = await running.events(1)
        assert json.loads(b64decode(record["kinesis"]["data"]))["record"] == {"id": 1}
