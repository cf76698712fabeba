"""
Values from the environment, put into what YAML has parsed, never into its text: a value can't become a key.

    ${NAME}            the variable; it must be set
    ${NAME:-default}   the default where it is unset or empty, as in a shell; may hold variables itself
    $$                 a dollar sign

A dollar sign before anything else is itself (`$LATEST`, `$or`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.config.document import Place

_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-|\})")


@dataclass
class Expansion:
    """Values with variables put in, and what was learnt on the way."""

    data: Any = None
    origins: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    """By place: the variables whose values stand there."""
    problems: list[tuple[Place, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """A value that an environment variable set as a whole; taken as it is."""

    variable: str
    value: str = field(repr=False)


class _BadReferenceError(ValueError):
    pass


def expand(data: Any, environ: Mapping[str, str]) -> Expansion:
    """Put variables into every string value of `data`; keys stay as they are."""
    expansion = Expansion()
    expansion.data = _walk(data, (), environ, expansion)
    return expansion


def _walk(value: Any, place: Place, environ: Mapping[str, str], expansion: Expansion) -> Any:
    if isinstance(value, dict):
        return {key: _walk(inner, (*place, key), environ, expansion) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walk(inner, (*place, index), environ, expansion) for index, inner in enumerate(value)]
    if isinstance(value, FromEnvironment):
        expansion.origins[place] = (value.variable,)
        return value.value
    if isinstance(value, str) and "$" in value:
        used: list[str] = []
        try:
            text, _ = _expand(value, 0, environ, used, nested=False)
        except _BadReferenceError as error:
            expansion.problems.append((place, str(error)))
            return value
        if used:
            expansion.origins[place] = tuple(used)
        return text
    return value


def _expand(text: str, at: int, environ: Mapping[str, str], used: list[str], *, nested: bool) -> tuple[str, int]:
    """Expand from `at` to the end, or, within a default, to its closing brace; returns the text and where it ended."""
    parts: list[str] = []
    while at < len(text):
        if text.startswith("$$", at):
            parts.append("$")
            at += 2
        elif text.startswith("${", at):
            value, at = _reference(text, at, environ, used)
            parts.append(value)
        elif nested and text[at] == "}":
            return "".join(parts), at + 1
        else:
            parts.append(text[at])
            at += 1
    if nested:
        raise _BadReferenceError("a ${ is not closed; write ${NAME} or ${NAME:-default}, and $$ for a dollar sign")
    return "".join(parts), at


def _reference(text: str, at: int, environ: Mapping[str, str], used: list[str]) -> tuple[str, int]:
    match = _NAME.match(text, at)
    if match is None:
        raise _BadReferenceError(
            "a ${ is not followed by a variable; write ${NAME} or ${NAME:-default}, and $$ for a dollar sign"
        )
    name, follows = match.groups()
    if follows == "}":
        if name not in environ:
            raise _BadReferenceError(
                f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
            )
        used.append(name)
        return environ[name], match.end()
    if environ.get(name):
        used.append(name)
        # The default is skipped unread but for its end: what it refers to need not be set.
        _, end = _expand(text, match.end(), _Anything(), [], nested=True)
        return environ[name], end
    return _expand(text, match.end(), environ, used, nested=True)


class _Anything(dict[str, str]):
    """An environment in which everything is set to nothing."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return ""
