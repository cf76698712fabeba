"""
What was wrong with the settings, in the user's words: a sentence for each, with the key, what it held, what would do.

Values that are or may be secret are never shown: neither anything below the keys of `_SECRET_KEYS`, nor anything but
plain numbers and short text elsewhere, and even those pass `redact`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bridge.config.document import Place
from bridge.config.section import Section, section_of
from bridge.config.settings import Settings
from bridge.config.trigger import TriggerSettings
from bridge.secret import redact

_SECRET_KEYS: Final = frozenset({"dsn", "token", "auth", "signing", "url", "endpoint_url"})

_LONGEST_SHOWN: Final = 60

_A_GROUP: Final = "it must be a group of settings (key: value)"

_PATTERNS: Final = {
    "slot": "it must be 1 to 63 lower-case letters, digits and underscores, as PostgreSQL wants a slot's name",
    "qualifier": "it must be a version or an alias, such as live, 7 or $LATEST",
    "region": "it must be an AWS region, such as eu-west-1",
    "role_arn": "it must be the ARN of an IAM role, such as arn:aws:iam::123456789012:role/invoker",
    "service": "it must be a service's signing name, such as lambda or execute-api",
    "destination": "it must be the ARN of an SQS queue, an SNS topic or an S3 bucket",
    "transform": "it must be module:function",
    "bucket": "it must be an S3 bucket's name",
    "tenant_id": "it must be a tenant's id of at most 256 letters, digits and _.:/=+@ -",
}
"""What a pattern means, in words, by the last key."""

_ELSEWHERE: Final = {
    "Stream": "the slot is the stream; name tables in tables",
    "Queue": "the slot is what is read; name tables in tables",
    "EventSourceArn": "the slot is what is read; name tables in tables",
    "StartingPositionTimestamp": "a slot begins where it was made",
    "TumblingWindowInSeconds": "aggregate in the function; a batch window is maximum_batching_window_in_seconds",
    "ProvisionedPollerConfig": "there are no pollers; set parallelization_factor",
    "MetricsConfig": "metrics are always on, at /metrics of the admin port",
    "KmsKeyArn": "filter criteria are not stored, so there is nothing to encrypt",
    "FunctionName": "name the function in target: {lambda: {function_name: …}}",
    "function_name": "name the function in target: {lambda: {function_name: …}}",
    "table": "name tables in tables: [schema.table]",
    "url": "name the endpoint in target: {http: {url: …}}",
}
"""Keys of other files that have no setting of that name, and what stands for them here."""


def describe(error: ValidationError, data: Any, origins: Mapping[Place, tuple[str, ...]]) -> list[tuple[Place, str]]:
    """Each problem of a failed validation, as (place, sentence without the file's name)."""
    problems: list[tuple[Place, str]] = []
    for detail in error.errors(include_url=False, include_input=False):
        place: Place = tuple(part for part in detail["loc"] if part != "[key]")
        problems.append((place, sentence(place, _what_would_do(detail, place), data, origins)))
    return problems


def sentence(place: Place, remark: str, data: Any, origins: Mapping[Place, tuple[str, ...]]) -> str:
    """`triggers.t.batch_size is 0: it must be …`, with the value only where that is no secret."""
    # What stands in the place of a group is anything, a secret perhaps: `auth: hunter2`.
    held = "" if remark == _A_GROUP else _held(place, data, origins)
    if remark.startswith("it is "):
        return f"{dotted(place)} {remark.removeprefix('it ')}"
    return f"{dotted(place)}{held}: {remark}"


def dotted(place: Place) -> str:
    """`triggers.t.tables[0]`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or "the configuration"


def _held(place: Place, data: Any, origins: Mapping[Place, tuple[str, ...]]) -> str:
    origin = "".join(f", from the environment variable {name}" for name in origins.get(place, ())[:1])
    found, value = _at(place, data)
    if not found or _may_be_secret(place):
        return f" ({origin[2:]})" if origin else ""
    if value is None:
        return " is null"
    if isinstance(value, bool):
        return f" is {str(value).lower()}"
    if isinstance(value, int | float):
        return f" is {value}"
    if isinstance(value, str):
        shown = redact(value) if len(value) <= _LONGEST_SHOWN else f"text of {len(value)} characters"
        return f" is {shown!r}{origin}" if len(value) <= _LONGEST_SHOWN else f" is {shown}{origin}"
    return ""


def _may_be_secret(place: Place) -> bool:
    return any(part in _SECRET_KEYS for part in map(_snake, place))


def _snake(part: str | int) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in str(part)).lstrip("_")


def _at(place: Place, data: Any) -> tuple[bool, Any]:
    """The value at a place in the data as written, in whichever spelling its keys are."""
    section: Any = Settings
    for part in place:
        if isinstance(data, Mapping):
            spellings = section.keys() if section is not None else {}
            key = next((key for key in data if key == part or spellings.get(key) == part), None)
            if key is None:
                return False, None
            data = data[key]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return False, None
        section = _inner(section, part)
    return True, data


def _inner(section: Any, part: str | int) -> Any:
    """The section below `section` at `part`, where there is one."""
    if section is Settings and part == "triggers":
        return _Triggers
    if section is _Triggers:
        return TriggerSettings
    info = _field(section, part) if section is not None else None
    return None if info is None else section_of(info.annotation)


class _Triggers(Section):
    """A marker: below `triggers` stand names, not settings."""


def _field(section: Any, key: str | int) -> FieldInfo | None:
    for name, info in section.model_fields.items():
        if key in (name, info.alias):
            found: FieldInfo = info
            return found
    return None


def _owner(place: Place) -> tuple[Any, FieldInfo | None]:
    """The section that holds the last key of a place, and the setting itself."""
    section: Any = Settings
    info: FieldInfo | None = None
    for index, part in enumerate(place):
        info = _field(section, part) if section is not None else None
        if index == len(place) - 1:
            return section, info
        section = _inner(section, part)
    return section, info


_NOT_IN_RANGE: Final = frozenset(
    [
        "int_parsing",
        "int_type",
        "int_from_float",
        "int_parsing_size",
        "float_parsing",
        "float_type",
        "finite_number",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
    ]
)


def _what_would_do(detail: Any, place: Place) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    section, info = _owner(place)
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        summary = _first_sentence(info)
        return f"it is missing{f'; {summary}' if summary else ''}"
    if kind == "extra_forbidden":
        return _unknown(str(place[-1]), section)
    if kind in _NOT_IN_RANGE:
        whole = "a whole number" if kind.startswith("int") or _is_whole(info) else "a number"
        return f"it must be {whole}{_range(info)}"
    if kind in ("bool_parsing", "bool_type"):
        return "it must be true or false"
    if kind == "literal_error":
        return "it must be " + str(context["expected"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(str(place[-1]), "it does not have the right form")
    if kind in ("string_type", "string_sub_type"):
        return "it must be text; put it in quotes"
    if kind in ("tuple_type", "list_type"):
        return "it must be a list, such as [a, b]"
    if kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type", "is_instance_of"):
        return _A_GROUP
    if kind in ("too_short", "string_too_short"):
        return "it is empty"
    if kind == "string_too_long":
        return f"it must be at most {context['max_length']} characters long"
    return str(detail["msg"])


def _unknown(key: str, section: Any) -> str:
    names = [info.alias or name for name, info in section.model_fields.items()] if section is not None else []
    if key in _ELSEWHERE and key not in names:
        return f"it is not a setting; {_ELSEWHERE[key]}"
    near = difflib.get_close_matches(_snake(key), names, n=1, cutoff=0.6)
    if near:
        return f"it is not a setting; did you mean {near[0]}?"
    return f"it is not a setting; known here: {', '.join(names)}" if names else "it is not a setting"


def _is_whole(info: FieldInfo | None) -> bool:
    return info is not None and info.annotation is int


def _range(info: FieldInfo | None) -> str:
    low: Any = None
    high: Any = None
    exclusive = False
    for constraint in info.metadata if info is not None else ():
        if isinstance(constraint, Ge):
            low = constraint.ge
        elif isinstance(constraint, Gt):
            low, exclusive = constraint.gt, True
        elif isinstance(constraint, Le):
            high = constraint.le
    if low is not None and high is not None:
        return f" above {low} and up to {high}" if exclusive else f" from {low} to {high}"
    if low is not None:
        return f" above {low}" if exclusive else f" of at least {low}"
    return ""


def _first_sentence(info: FieldInfo | None) -> str:
    if info is None or not info.description:
        return ""
    text = " ".join(info.description.split())
    return text.split(". ")[0].rstrip(".")
