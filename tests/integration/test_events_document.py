"""docs/events.md says what is true: its SQL is run, and the events below it are what arrives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bridge.triggers.envelope import Envelope

DOCUMENT = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<kind>sql|json)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MEMBER = re.compile(r"^\| `([a-z_.0-9]+)` \| ", re.MULTILINE)


def examples() -> list[tuple[str, list[dict]]]:
    found: list[tuple[str, list[dict]]] = []
    for block in BLOCK.finditer(DOCUMENT):
        if block["kind"] == "sql":
            found.append((block["text"], []))
        else:
            found[-1][1].append(json.loads(block["text"]))
    return found


def settled(event: dict) -> dict:
    """What differs from run to run made the same, after a look at how it hangs together."""
    metadata = event["metadata"]
    assert event["id"] == f"{metadata['commit_lsn']:016X}-{metadata['commit_idx']:010d}"
    assert metadata["idempotency_key"].endswith(f"-{metadata['trigger']}-{event['id']}")
    for member in ("commit_timestamp", "transaction_id"):
        metadata[member] = metadata[member] and "some"
    if "message" in metadata:
        if not metadata["message"]["transactional"]:
            assert metadata["message"]["lsn"] == metadata["commit_lsn"] + 1
        metadata["message"]["lsn"] = "some"
    if isinstance(event["record"], dict) and str(event["record"].get("text")).startswith("xxx"):
        event["record"]["text"] = "long"
    return event | {
        "id": "some",
        "metadata": metadata | {"commit_lsn": 0, "database": "shop", "idempotency_key": "some"},
    }


@pytest.fixture
def sent(slot):
    """By example, the events that it made."""
    envelope = Envelope("welcome-email", "7341234567890123456")
    found = []
    for statements, _ in examples():
        blocks = [statements] if statements.startswith("BEGIN") else statements.split(";\n")
        for statement in filter(str.strip, blocks):
            slot.execute(statement)
        slot.execute("COMMENT ON TABLE users IS 'flushes the WAL, which a message alone does not'")
        found.append([json.loads(envelope.event(event)) for event in slot.take()])
    return found


def test_the_events_are_those_of_the_document(sent):
    for (statements, expected), events in zip(examples(), sent, strict=True):
        assert [settled(event) for event in events] == [settled(event) for event in expected], statements


def test_the_members_are_those_of_the_document(sent):
    there = set()
    for event in (event for events in sent for event in events):
        there |= event.keys() - {"metadata"} | {f"metadata.{member}" for member in event["metadata"]}
    assert there | {"metadata.latin1"} == set(MEMBER.findall(DOCUMENT))


def test_members_stand_in_the_order_of_the_document(sent):
    order = MEMBER.findall(DOCUMENT)
    for event in (event for events in sent for event in events):
        there = [f"metadata.{member}" for member in event["metadata"]]
        assert there == sorted(there, key=order.index)
