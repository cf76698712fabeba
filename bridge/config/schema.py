"""The JSON Schema of the file, for editors: what the loader takes in snake_case, and nothing that it refuses."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from bridge.config.not_yet import NOT_YET
from bridge.config.section import section_of
from bridge.config.settings import Settings
from bridge.config.trigger import TriggerSettings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_VARIABLE: Final = {"type": "string", "pattern": r"\$\{"}
"""What may stand for any plain value: text with a variable in it."""

_ANNOTATIONS: Final[tuple[str, ...]] = ("description", "default", "writeOnly")


def json_schema() -> dict[str, Any]:
    """The schema; descriptions hold units and the reasons of defaults."""
    schema = Settings.model_json_schema(by_alias=True, mode="validation")
    for pattern in NOT_YET:
        _only_default(schema, pattern)
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


def _only_default(schema: dict[str, Any], pattern: str) -> None:
    """Leave nothing but the default of a setting that is refused otherwise."""
    *path, key = pattern.split(".")
    for owner in _owners(path):
        info = next((info for name, info in owner.model_fields.items() if key in (name, info.alias)), None)
        if info is None:
            continue
        section = schema if owner is Settings else schema["$defs"][owner.__name__]
        default = info.get_default(call_default_factory=True, validated_data={})
        section["properties"][key] = {"description": "Not available in this version.", **_constant(default)}


def _constant(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        members = {
            info.alias or name: _constant(getattr(value, name)) for name, info in type(value).model_fields.items()
        }
        return {"type": "object", "properties": members, "additionalProperties": False}
    return {"const": list(value) if isinstance(value, tuple) else value}


def _owners(path: list[str]) -> list[type[BaseModel]]:
    """The sections that a dotted path leads to; `*` is any trigger, or any member that is a section."""
    owners: list[type[BaseModel]] = [Settings]
    for part in path:
        inner: list[type[BaseModel]] = []
        for owner in owners:
            if owner is Settings and part == "triggers":
                inner.append(Settings)
            elif owner is Settings and part == "*":
                inner.append(TriggerSettings)
            else:
                for name, info in owner.model_fields.items():
                    section = section_of(info.annotation)
                    if section is not None and part in ("*", name, info.alias):
                        inner.append(section)
        owners = inner
    return owners
