"""The JSON Schema of the file, for editors: what the loader takes in snake_case, and nothing that it refuses."""

from __future__ import annotations

from typing import Any, Final

from bridge.config.settings import Settings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE: Final = {"type": "string", "pattern": r"\$\{"}
"""What may stand for any plain value: text with a variable in it."""

_ANNOTATIONS: Final[tuple[str, ...]] = ("description", "default", "writeOnly")


def json_schema() -> dict[str, Any]:
    """The schema; descriptions hold units and the reasons of defaults."""
    schema = Settings.model_json_schema(by_alias=True, mode="validation")
    _tidy(schema)
    return {"$schema": DIALECT, "title": "pgbridge.yaml", **schema}


def _tidy(node: Any) -> None:
    """Take generated titles out, put descriptions on one line, and let variables stand for values; in place."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    if isinstance(node.get("description"), str):
        node["description"] = " ".join(node["description"].split())
    for name, value in node.items():
        if name == "properties":
            for key, member in value.items():
                _tidy(member)
                value[key] = _or_variable(member)
        elif name not in ("default", "const", "enum"):
            _tidy(value)


def _or_variable(member: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in member.items() if name not in _ANNOTATIONS}
    if not _takes_text(plain) and (plain.get("type") in ("integer", "number", "boolean", "string") or "enum" in plain):
        annotations = {name: member[name] for name in _ANNOTATIONS if name in member}
        return {**annotations, "anyOf": [plain, _VARIABLE]}
    if "anyOf" in plain and not any(_takes_text(choice) for choice in plain["anyOf"]):
        return {**member, "anyOf": [*plain["anyOf"], _VARIABLE]}
    return member


def _takes_text(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "string" and not {"enum", "pattern", "const"} & schema.keys()
