"""
A trigger's own function between the event and its outer form: event in, event out, or None for none. Pure but for it.

The function runs each time that an event is about to be sent, on what is stored of it: a function that was mended gets
another go at a dead letter, and one that answers the same for the same event keeps repetitions byte for byte the same.
It runs in the process that moves everybody's changes, so it must be quick and wait for nothing.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson

Function = Callable[[dict[str, Any]], Mapping[str, Any] | None]


class TransformFailed(Exception):
    """
    The function raised, or gave what is no event.

    Attributes:
        error: safe to log.
        detail: the traceback, which may hold row values.
    """

    def __init__(self, error: str, detail: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.detail = detail


class Transform:
    """
    Args:
        name: `module:function`, as the settings have it.
        function: what is called.
    """

    def __init__(self, name: str, function: Function) -> None:
        self.name = name
        self._function = function

    def apply(self, document: bytes) -> bytes | None:
        """
        The event's JSON after the function; None where it wants no event.

        Numbers of json columns are given as int or float where these are exact, else as Decimal; all three are written
        back as they are.

        Raises:
            TransformFailed: see there.
        """
        try:
            event = json.loads(document, parse_int=_integer, parse_float=_number)
        except (ValueError, ArithmeticError, RecursionError) as error:  # a decimal's exponent has its limits
            raise TransformFailed(f"transform {self.name}: the event can't be read: {type(error).__name__}") from None
        event_id = event["id"]
        try:
            result = self._function(event)
        except Exception as error:  # noqa: BLE001 - whatever it raises is this event's fate, and no other's
            # Its text may hold row values.
            what = f"transform {self.name} raised {type(error).__name__}"
            raise TransformFailed(what, "".join(traceback.format_exception(error))) from None
        if result is None:
            return None
        if not isinstance(result, Mapping):
            raise TransformFailed(f"transform {self.name} returned {type(result).__name__}, not an event or None")
        if result.get("id") != event_id:
            raise TransformFailed(f"transform {self.name} changed the event's id, by which failures are reported")
        try:
            return _dump(dict(result))
        except TypeError as error:
            raise TransformFailed(f"transform {self.name} returned what JSON has not", str(error)) from None
        except RecursionError:
            raise TransformFailed(f"transform {self.name}: the event nests too deeply to be written") from None


def _dump(event: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, default=_written)
    except TypeError:
        # orjson writes neither lone surrogates nor what nests deeper than 254, and a json column can hold both.
        return _written_plainly(event).encode()


def _written_plainly(value: Any) -> str:
    match value:
        case dict():
            members = [f"{_name(name)}:{_written_plainly(member)}" for name, member in value.items()]
            return "{" + ",".join(members) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_written_plainly, value)) + "]"
        case str():
            return json.dumps(value)
        case _:
            return orjson.dumps(value, default=_written).decode()


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a member's name is {type(name).__name__}, not text")
    return json.dumps(name)


def _integer(text: str) -> int | Decimal:
    # orjson writes 64 bits; a Decimal is written as it is.
    return int(text) if len(text) < 19 else Decimal(text)


def _number(text: str) -> float | Decimal:
    exact = Decimal(text)
    number = float(text)
    return number if number not in (float("inf"), float("-inf")) and Decimal(repr(number)) == exact else exact


def _written(value: Any) -> Any:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value))
    raise TypeError(type(value).__name__)
