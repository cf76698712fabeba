"""
Patterns, read: from JSON or from what YAML parses to, into conjunctions of named fields; or refused.

The rules are those of event-ruler's JsonRuleCompiler, and so are two that surprise. A name written twice keeps the
*last* list of alternatives, in the order of the text and also between a `$or` and what stands beside it; objects
written twice are merged. And `$or` is expanded where it stands: each of its entries makes a conjunction of its own.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bridge.triggers.filter.language import (
    Conjunction,
    Members,
    Pattern,
    is_array,
    is_object,
    kind,
    members_of,
    refuse,
)
from bridge.triggers.filter.operators import read_alternatives
from bridge.triggers.filter.values import parse_decimal, parse_integer

MAX_CONJUNCTIONS: Final = 1000
"""What the `$or`s of one pattern may multiply to; EventBridge's limit, and ten times what anyone writes by hand."""

MAX_DEPTH: Final = 100
"""Objects inside objects. Far beyond any event, and well inside Python's stack."""

RESERVED_IN_OR: Final = frozenset(
    {"exactly", "equals-ignore-case", "prefix", "suffix", "anything-but", "exists", "wildcard", "numeric", "cidr"}
    | {"=", "<", "<=", ">", ">="}
    | {"regex", "not-wildcard", "not-equals-ignore-case"}
    | {"date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"}
    | {"ip-address-in-range", "ip-address-not-in-range"}
)
"""Names that event-ruler keeps for itself inside `$or` (its Constants.java)."""


def parse(pattern: Pattern) -> list[Conjunction]:
    """
    Read one pattern: the event matches when every field of any conjunction is met.

    Raises:
        PatternError: with the place and the reason.
    """
    content: Any = _read_json(pattern) if isinstance(pattern, str) else pattern
    if not is_object(content):
        refuse("", f"a pattern is a JSON object of fields, not {kind(content)}")
    conjunctions: list[Conjunction] = [{}]
    _read_object(content, (), conjunctions, inside_or=False, place="", depth=0)
    return conjunctions


def read_patterns(text: str) -> list[Pattern]:
    """
    Patterns as files hold them: one pattern, a list of them, or ESM's `{"Filters": [{"Pattern": "…"}]}`.

    The patterns themselves are not read yet; `compile_patterns` does that.

    Raises:
        PatternError: not JSON, or none of these.
    """
    content = _read_json(text)
    if isinstance(content, Members) and len(content.pairs) == 1:
        ((name, filters),) = content.pairs
        if name in ("Filters", "filters") and isinstance(filters, list) and all(map(_is_filter, filters)):
            return [entry.pairs[0][1] for entry in filters]
    if isinstance(content, Members):
        return [content]
    if not isinstance(content, list) or not all(isinstance(entry, Members | str) for entry in content):
        refuse("", f'{kind(content)} is no pattern, list of patterns or {{"Filters": [{{"Pattern": …}}]}}')
    return content


def _is_filter(entry: object) -> bool:
    if not isinstance(entry, Members) or len(entry.pairs) != 1:
        return False
    name, pattern = entry.pairs[0]
    return name in ("Pattern", "pattern") and isinstance(pattern, Members | str)


def _read_json(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=Members,
            parse_float=parse_decimal,
            parse_int=parse_integer,
            parse_constant=lambda name: refuse("", f"{name} is not a JSON number"),
        )
    except json.JSONDecodeError as error:
        refuse("", f"not JSON: {error.msg} at line {error.lineno} column {error.colno}")
    except RecursionError:
        refuse("", f"nested deeper than {MAX_DEPTH} objects")


def _read_object(
    content: Any, steps: tuple[str, ...], conjunctions: list[Conjunction], *, inside_or: bool, place: str, depth: int
) -> None:
    """Add the fields of one object to each of the conjunctions; a `$or` in it multiplies them, in place."""
    if depth > MAX_DEPTH:
        refuse("", f"nested deeper than {MAX_DEPTH} objects")
    members = members_of(content)
    if not members:
        refuse(place, "an empty object asks for nothing; name a field or leave it out")
    for name, value in members:
        if not isinstance(name, str):
            refuse(place, f"the field name {name!r} is {kind(name)}, not text; put it in quotes")
        here = f"{place}.{name}" if place else name
        if name == "$or":
            _read_or(value, steps, conjunctions, place=here, depth=depth + 1)
        elif inside_or and name in RESERVED_IN_OR:
            dotted = ".".join([*steps, name])
            advice = f'; for a field of that name write "{dotted}"' if steps else ""
            refuse(here, f'"{name}" is an operator and can\'t name a field inside $or{advice}')
        elif is_object(value):
            _read_object(value, (*steps, name), conjunctions, inside_or=inside_or, place=here, depth=depth + 1)
        elif is_array(value):
            flat = ".".join([*steps, name])
            if flat.count(".") > MAX_DEPTH:
                refuse("", f"nested deeper than {MAX_DEPTH} objects")
            tests = read_alternatives(value, here)
            for conjunction in conjunctions:
                conjunction[flat] = tests
        else:
            refuse(here, f"{kind(value)} can't stand alone; write a list of values, or an object of fields")


def _read_or(value: Any, steps: tuple[str, ...], conjunctions: list[Conjunction], *, place: str, depth: int) -> None:
    if not is_array(value):
        refuse(place, f"$or takes a list of objects, not {kind(value)}")
    before = [dict(conjunction) for conjunction in conjunctions]
    conjunctions.clear()
    for index, entry in enumerate(value):
        here = f"{place}[{index}]"
        if not is_object(entry):
            refuse(here, f"$or takes objects of fields, not {kind(entry)}")
        branch = [dict(conjunction) for conjunction in before]
        _read_object(entry, steps, branch, inside_or=True, place=here, depth=depth)
        conjunctions += branch
        if len(conjunctions) > MAX_CONJUNCTIONS:
            refuse(place, f"the $or lists multiply to more than {MAX_CONJUNCTIONS} combinations; use several patterns")
    if len(value) < 2:
        refuse(place, f"$or takes two objects or more, not {len(value)}")
