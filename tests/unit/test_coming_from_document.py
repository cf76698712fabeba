"""docs/coming-from.md: its configurations are valid, and its functions make what it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bridge.config import parse
from bridge.triggers.transform import Transform

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "coming-from.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<name>\w+))?\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(PAGE)]
CONFIGURATIONS = [block["text"] for block in BLOCKS if block["language"] == "yaml"]
FUNCTIONS = {block["name"]: block["text"] for block in BLOCKS if block["language"] == "python"}
SHOWN = {block["name"]: json.loads(block["text"]) for block in BLOCKS if block["language"] == "json"}
(UPDATE,) = re.findall(r"^```json event\n(.*?)^```$", (DOCS / "envelopes.md").read_text(), re.DOTALL | re.MULTILINE)


def payload(name: str, event: dict[str, object]) -> dict[str, object]:
    module: dict[str, object] = {}
    exec(FUNCTIONS[name], module)
    made = Transform(f"{name}:payload", module["payload"]).apply(json.dumps(event).encode())
    return json.loads(made)


def event(**changes: object) -> dict[str, object]:
    return {**json.loads(UPDATE), **changes}


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_each_configuration_is_valid(text):
    environ = {"DATABASE_URL": "postgresql://localhost/shop", "HOOK_SECRET": "s", "HOOK_TOKEN": "t"}
    for trigger in parse(text, environ).triggers.values():
        if trigger.transform is not None:
            assert trigger.transform in {f"{name}:payload" for name in FUNCTIONS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_update_is_as_shown(name):
    assert payload(name, event()) == SHOWN[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_update_without_old_values_says_so(name):
    made = payload(name, event(changes=None))
    assert (made["old_record"] if name == "supabase" else made["event"]["data"]["old"]) is None


def test_an_insert_and_a_delete_for_a_receiver_of_supabase():
    row = {"id": 8, "name": "Ann"}
    inserted = payload("supabase", event(action="insert", record=row, changes=None))
    assert (inserted["type"], inserted["record"], inserted["old_record"]) == ("INSERT", row, None)
    deleted = payload("supabase", event(action="delete", record=row, changes=None))
    assert (deleted["type"], deleted["record"], deleted["old_record"]) == ("DELETE", None, row)


def test_an_insert_and_a_delete_for_a_receiver_of_hasura():
    row = {"id": 8, "name": "Ann"}
    inserted = payload("hasura", event(action="insert", record=row, changes=None))["event"]
    assert (inserted["op"], inserted["data"]) == ("INSERT", {"old": None, "new": row})
    deleted = payload("hasura", event(action="delete", record=row, changes=None))["event"]
    assert (deleted["op"], deleted["data"]) == ("DELETE", {"old": row, "new": None})
