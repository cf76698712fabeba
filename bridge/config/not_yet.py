"""
What the contract has and this version does not do: refused when set, since a setting that is ignored is a trap.

Delete a line when the behaviour is built; nothing else has to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel

from bridge.config.document import Place

NOT_YET: Final[dict[str, str]] = {
    "source.push_down": "leave it out: rows are filtered here, with the same results",
}
"""Dotted key, `*` for any one part, to what to do instead."""


def unavailable(settings: BaseModel) -> Iterator[tuple[Place, str]]:
    """Each setting of the table that holds something else than its default."""
    for pattern, instead in NOT_YET.items():
        for place in _differing(settings, tuple(pattern.split(".")), ()):
            yield place, f"it is not available in this version; {instead}"


def _differing(value: Any, parts: tuple[str, ...], place: Place) -> Iterator[Place]:
    part, rest = parts[0], parts[1:]
    if isinstance(value, dict):
        for key in value if part == "*" else [part] if part in value else []:
            yield from _differing(value[key], rest, (*place, key))
    elif isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            key = info.alias or name
            if part not in ("*", key):
                continue
            held = getattr(value, name)
            if rest:
                yield from _differing(held, rest, (*place, key))
            elif held != info.get_default(call_default_factory=True, validated_data={}):
                yield (*place, key)
