"""
YAML to plain values, with the line on which each key stands.

Read by YAML 1.2's rules where those of 1.1 surprise: `NO`, `off` and `2026-11-22` are text, not false and a date, for a
filter pattern compares with JSON, which knows neither. Keys that stand twice and tags (`!Ref`) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

Place = tuple[str | int, ...]
"""Keys and list indices from the top of the file to a value."""

MAXIMUM_DEPTH: Final = 64
"""Far deeper than any setting; stops a value that contains itself (`&a [*a]`)."""


class DocumentError(ValueError):
    """The text is not YAML, or not as it may be here; the message says where and why."""


@dataclass(frozen=True)
class Document:
    """Plain values (dict, list, str, int, float, bool, None) and where they stand."""

    data: Any
    lines: Mapping[Place, int]
    """Line of each key, from 1."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema and without doubled keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - overridden
        # Before `<<` is merged in: what it brings may be overridden, what is written twice is a mistake.
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise DocumentError(f"line {line}: a key must be plain text")
            if key in seen:
                raise DocumentError(f"line {line}: {key!r} stands here for the second time (first in line {seen[key]})")
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    # PyYAML's own reads 010 as octal and 1:30 as ninety.
    text = loader.construct_scalar(node)
    return int(text, 16) if text.lower().startswith("0x") else int(text)


def _construct_unknown(_loader: _Loader, node: yaml.Node) -> Any:
    mark = node.start_mark
    raise DocumentError(
        f"line {mark.line + 1}, column {mark.column + 1}: the tag {node.tag} has no meaning here; "
        "write the value itself, or ${VARIABLE}"
    )


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor(None, _construct_unknown)
for _tag in ("binary", "timestamp", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct_unknown)


def parse_yaml(text: str) -> Document:
    """
    Read one YAML document.

    Raises:
        DocumentError: a syntax error, a doubled key, a tag, a value that contains itself, or more than one document.
    """
    disguise = _Disguise(text)
    try:
        loader = _Loader(disguise.text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Document(None, {})
            disguise.take_off(node, set())
            lines: dict[Place, int] = {}
            _locate(node, (), lines)
            return Document(loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DocumentError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise DocumentError(f"not YAML: {getattr(error, 'reason', 'unreadable')}") from error


class _Disguise:
    """
    Lets `{bearer: ${TOKEN}}` be read as everybody means it.

    To YAML a brace or a comma ends a plain scalar inside `{…}` and `[…]`, so `${TOKEN}` would have to stand in quotes.
    Within `${…}` they are stood in for, one character for one, while the text is parsed. No value is put in yet.
    """

    def __init__(self, text: str) -> None:
        unused = (chr(code) for code in range(0xF0000, 0xFFFFD) if chr(code) not in text)
        self._on = {ord(character): next(unused) for character in "{}[],"}
        self._off = {ord(stand_in): chr(character) for character, stand_in in self._on.items()}
        parts: list[str] = []
        at = 0
        while (start := text.find("${", at)) >= 0:
            end = _reference_end(text, start)
            parts += [text[at:start], text[start:end].translate(self._on)]
            at = end
        self.text = "".join([*parts, text[at:]])

    def take_off(self, node: yaml.Node, seen: set[int]) -> None:
        """Put the characters back into every scalar; `seen` holds the nodes that are done, for aliases share them."""
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            node.value = node.value.translate(self._off)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.take_off(item, seen)
        elif isinstance(node, yaml.MappingNode):
            for pair in node.value:
                for part in pair:
                    self.take_off(part, seen)


def _reference_end(text: str, start: int) -> int:
    """Where the `${` at `start` is closed; just past the `${` where it is not, on its line."""
    depth = 0
    at = start
    while at < len(text) and text[at] != "\n":
        if text.startswith("${", at):
            depth += 1
            at += 2
        elif text[at] == "}":
            depth -= 1
            at += 1
            if depth == 0:
                return at
        else:
            at += 1
    return start + 2 if depth else at


def _locate(node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    if len(place) > MAXIMUM_DEPTH:
        raise DocumentError(f"line {node.start_mark.line + 1}: nested more than {MAXIMUM_DEPTH} levels deep")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                inner = (*place, key.value)
                lines[inner] = key.start_mark.line + 1
                _locate(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner = (*place, index)
            lines[inner] = value.start_mark.line + 1
            _locate(value, inner, lines)
