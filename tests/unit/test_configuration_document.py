"""docs/configuration.md beside the schema: no setting of the page is unknown or has another default, none is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.config import json_schema, parse

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
SCHEMA = json_schema()
SECTION = re.compile(r"^## (?P<path>\S+)\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(?P<key>\w+)` \| (?P<default>[^|]*) \| (?P<text>.*) \|$", re.MULTILINE)


def sections() -> dict[str, str]:
    return {match["path"]: match["body"] for match in SECTION.finditer(PAGE.read_text())}


def resolved(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects with named members that a node of the schema may be."""
    if "$ref" in node:
        yield from resolved(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]])
    elif "properties" in node:
        yield node
    for alternative in node.get("anyOf", ()):
        yield from resolved(alternative)


def model(path: str) -> dict[str, Any]:
    """The schema of a section such as triggers.NAME.target.http; what is written in capitals is anybody's name."""
    node: dict[str, Any] = SCHEMA
    for part in path.split("."):
        if part.isupper():
            (node,) = resolved(node["additionalProperties"])
        else:
            node = node["properties"][part]
            node = next(resolved(node), node)
    return node


@pytest.mark.parametrize("path", sections())
def test_each_setting_of_the_page_is_one_with_that_default(path):
    section = model(path)
    for row in ROW.finditer(sections()[path]):
        setting = section["properties"][row["key"]]
        if row["default"] == "required":
            assert row["key"] in section["required"]
        elif row["default"]:
            assert json.loads(row["default"].strip("`")) == setting["default"]
        else:
            assert row["key"] not in section.get("required", ())


@pytest.mark.parametrize("path", sections())
def test_no_setting_is_left_out(path):
    told = {row["key"] for row in ROW.finditer(sections()[path])}
    assert told == {key for key in model(path)["properties"] if not key[0].isupper()}


def test_every_section_is_there():
    told = {id(model(path)) for path in sections()}
    left_out = [
        name for name, section in SCHEMA["$defs"].items() if "properties" in section and id(section) not in told
    ]
    assert left_out == []


def test_its_example_is_valid():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    settings = parse(example, {"DATABASE_URL": "postgresql://localhost/shop"})
    assert settings.triggers["welcome-email"].batch_size == 100
