"""
What every section of the file has in common: frozen, unknown keys refused, each key in snake_case or in PascalCase.

A validator's message is what follows "… is 5: " in the sentence that the user reads (`problems.py`), and never repeats
the value, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAXIMUM_NAME_BYTES: Final = 63
"""NAMEDATALEN - 1: PostgreSQL cuts longer names, and two cut names may be the same."""


def pascal_case(name: str) -> str:
    """`batch_size` as ESM spells it, `BatchSize`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _not_bool(value: Any) -> Any:
    # bool is an int to Python: `batch_size: true` would pass for 1.
    if isinstance(value, bool):
        raise ValueError("it must be a number")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


NOT_BOOL: Final = BeforeValidator(_not_bool)
"""Stands last in a number's annotation, after its range, which JSON Schema would not show otherwise."""

Name = Annotated[str, Field(min_length=1)]


Identifier = Annotated[str, Field(min_length=1, max_length=MAXIMUM_NAME_BYTES)]


class Section(BaseModel):
    """A part of the file: frozen, unknown keys refused, each key in snake_case or in PascalCase."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Every spelling of every setting of this section, to the one that the file's documentation uses."""
        spellings: dict[str, str] = {}
        for name, info in cls.model_fields.items():
            key = info.alias or name
            spellings |= {name: key, key: key, pascal_case(key): key}
        return spellings

    @model_validator(mode="before")
    @classmethod
    def _respell(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        spellings = cls.keys()
        section: dict[Any, Any] = {}
        written: dict[Any, Any] = {}
        for spelling, value in data.items():
            key = spellings.get(spelling, spelling) if isinstance(spelling, str) else spelling
            if key in section:
                raise ValueError(f"{written[key]} and {spelling} are one setting; keep one of them")
            section[key] = value
            written[key] = spelling
        return section


def section_of(annotation: Any) -> type[Section] | None:
    """The section that an annotation holds, alone or as `Section | None`."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
