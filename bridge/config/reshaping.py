"""Settings of what a trigger's events look like: columns left out, renamed, covered or added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bridge.config.section import NOT_BOOL, Name, Section
from bridge.secret import Secret


class ColumnSettings(Section):
    """Which columns stand in the event, and under what names."""

    include: tuple[Name, ...] | None = None
    """Only these columns; default: all."""
    exclude: tuple[Name, ...] = ()
    """Not these columns."""
    rename: Mapping[Name, Name] = Field(default_factory=dict)
    """Column name in the table to name in the event. A column whose name another one takes is left out."""

    @model_validator(mode="after")
    def _disjoint(self) -> ColumnSettings:
        if self.include is not None:
            if not self.include:
                raise ValueError("include is an empty list, so no column is left; name some, or remove it")
            both = sorted(set(self.include) & set(self.exclude))
            if both:
                raise ValueError(f"include and exclude both name {', '.join(both)}; keep it in one of them")
        names = list(self.rename.values())
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rename gives the name {twice[0]} to two columns; a record can hold it once")
        gone = sorted(set(self.rename) & set(self.exclude))
        if gone:
            raise ValueError(f"rename and exclude both name {gone[0]}; keep it in one of them")
        return self


MINIMUM_MASK_KEY_BYTES = 16
"""128 bits: what can't be guessed. With a shorter key whoever has the hashes could try keys out."""


class MaskSettings(Section):
    """What stands in a value's place: one of hash and truncate."""

    hash: Secret | None = None
    """Key of HMAC-SHA256, 16 bytes or more: equal values stay equal, and can't be tried out without the key."""
    truncate: Annotated[int, Field(ge=0, le=10_000), NOT_BOOL] | None = None
    """How many characters of the beginning are left."""

    @model_validator(mode="after")
    def _one_kind(self) -> MaskSettings:
        if (self.hash is None) == (self.truncate is None):
            raise ValueError("it must be redact, {hash: KEY} or {truncate: LENGTH}")
        literal = None if self.hash is None else self.hash.literal
        if literal is not None:
            check_mask_key(literal)
        return self


def check_mask_key(text: str) -> None:
    """
    Refuse a key that could be guessed; also for keys that are kept elsewhere.

    Raises:
        ValueError: it is too short. The message does not repeat it.
    """
    if len(text.encode()) < MINIMUM_MASK_KEY_BYTES:
        raise ValueError(f"a key for hashing must be at least {MINIMUM_MASK_KEY_BYTES} bytes, better 32")


def _mask(value: Any) -> Any:
    if isinstance(value, str) and value != "redact":
        raise ValueError("it must be redact, {hash: KEY} or {truncate: LENGTH}")
    return value


MaskRule = Annotated[Literal["redact"] | MaskSettings, BeforeValidator(_mask)]
