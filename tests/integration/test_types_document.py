"""docs/types.md says what is true: each line of its tables is inserted and read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psycopg
import pytest

from bridge.pgoutput.values import BUILT_IN_NAMES
from bridge.source.session import PINNED

DOCUMENT = (Path(__file__).parents[2] / "docs" / "types.md").read_text(encoding="utf-8")
LINE = re.compile(r"^\| `(?P<type>[^`]+)` \| (?P<form>[^|]+) \| `(?P<value>.+?)` \| `(?P<json>.+)` \|$", re.MULTILINE)
LINES = [line.groupdict() for line in LINE.finditer(DOCUMENT)]
RECORD = re.compile(rb'"record":\{"v":(.*)\},"changes":', re.DOTALL)


@pytest.fixture(scope="module")
def written(postgres, decode_slot):
    """By line, what stands in the event; None where this server was built without the type."""
    name = f"types_document_{os.getpid()}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        slot = decode_slot(postgres.dsn(name))
        for statement in re.search(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)[1].split(";\n"):
            if statement.strip():
                slot.execute(statement)
        found = {}
        for number, line in enumerate(LINES):
            slot.execute(f"CREATE TABLE t{number} (v {line['type']})")
            try:
                slot.execute(f"INSERT INTO t{number} VALUES ({line['value']})")
            except psycopg.errors.FeatureNotSupported:
                found[f"public.t{number}"] = None
        found |= {event.table: RECORD.search(event.body)[1].decode() for event in slot.take()}
        slot.close()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        return [found[f"public.t{number}"] for number in range(len(LINES))]


@pytest.mark.parametrize("number", range(len(LINES)), ids=lambda number: LINES[number]["type"])
def test_a_value_stands_in_the_event_as_the_document_says(written, number):
    if written[number] is None:
        pytest.skip(f"this server has no {LINES[number]['type']}")
    assert written[number] == LINES[number]["json"]


def test_every_line_of_the_tables_is_read():
    assert len(LINES) == sum(line.startswith("| `") for line in DOCUMENT.splitlines())


def test_every_built_in_type_that_the_encoders_know_has_a_line():
    spelled = {"varchar(10)": "varchar", "char(5)": "bpchar", '"char"': "char", "bit(4)": "bit"}
    documented = {spelled.get(line["type"], line["type"]) for line in LINES}
    assert {name for name in BUILT_IN_NAMES.values() if not name.startswith("_")} - documented == set()


def test_the_document_names_what_the_connection_pins():

    listed = re.search(r"Nothing that is set .*?asked for afterwards\.", DOCUMENT, re.DOTALL)[0]
    text_settings = {
        name
        for name in PINNED
        if "timeout" not in name
        and not name.startswith("default_transaction_")
        and name not in ("client_encoding", "client_min_messages", "quote_all_identifiers")
    }
    assert {name.lower() for name in re.findall(r"`(\w+)`", listed)} == text_settings  # fmt: skip
