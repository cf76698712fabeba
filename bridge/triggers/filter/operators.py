"""
Alternatives, read: plain values and operators.

What is asked of each operand is what event-ruler's JsonRuleCompiler asks.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from bridge.triggers.filter.language import (
    Affix,
    AnythingBut,
    Between,
    Equals,
    Exists,
    IgnoreCase,
    InNetwork,
    SameAddress,
    Test,
    Wildcard,
    is_array,
    is_object,
    kind,
    members_of,
    refuse,
)
from bridge.triggers.filter.values import Number, number, parse_address

MAX_NUMBER: Final = "1.8e308"
MIN_NUMBER: Final = "5e-324"
"""
What `numeric` and `anything-but` may name, as told: what a 64-bit float reaches, event-ruler's range since 1.8.

Older releases stopped at 5e9 and six decimals, as EventBridge's manual still says: a pattern written for them is fine.
"""


def read_alternatives(values: Sequence[Any], place: str) -> tuple[Test, ...]:
    if not values:
        refuse(place, "an empty list matches nothing; list the values that are wanted")
    return tuple(_read_test(value, f"{place}[{index}]") for index, value in enumerate(values))


def _read_test(value: Any, place: str) -> Test:
    if is_object(value):
        return _read_operator(value, place)
    if isinstance(value, str):
        address = parse_address(value)
        return Equals(value) if address is None else SameAddress(address)
    if value is None or isinstance(value, bool):
        return Equals(value)
    if not isinstance(value, int | float | Decimal):
        refuse(place, f"a value is text, a number, true, false, null or an operator, not {kind(value)}")
    return Equals(_read_number(value, place))


def _read_operator(content: Any, place: str) -> Test:
    name, operand = _only_member(content, place, "an operator")
    reader = _OPERATORS.get(name)
    if reader is None:
        refuse(place, f'there is no operator "{name}"; there are {", ".join(sorted(_OPERATORS))}')
    return reader(operand, f"{place}.{name}")


def _read_exactly(operand: Any, place: str) -> Equals:
    return Equals(_text(operand, place, "exactly"))


def _read_prefix(operand: Any, place: str) -> Affix:
    return _read_affix(operand, place, "prefix", at_end=False)


def _read_suffix(operand: Any, place: str) -> Affix:
    return _read_affix(operand, place, "suffix", at_end=True)


def _read_affix(operand: Any, place: str, name: str, *, at_end: bool) -> Affix:
    if not is_object(operand):
        return Affix(_text(operand, place, name), at_end=at_end)
    inner, text = _only_member(operand, place, "equals-ignore-case")
    if inner != "equals-ignore-case":
        refuse(place, f'{name} takes text or {{"equals-ignore-case": text}}, not "{inner}"')
    return Affix(_text(text, f"{place}.{inner}", inner), at_end=at_end, ignore_case=True)


def _read_ignore_case(operand: Any, place: str) -> IgnoreCase:
    return IgnoreCase(_text(operand, place, "equals-ignore-case"))


def _read_wildcard(operand: Any, place: str) -> Wildcard:
    text = _text(operand, place, "wildcard")
    runs = [""]
    wild = False  # whether the last character was a *
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
            character = text[position : position + 1]
            if character not in ("*", "\\"):
                refuse(place, rf"the backslash at character {position} must stand before * or \: write \* or \\")
            runs[-1] += character
            wild = False
        elif character == "*":
            if wild:
                refuse(place, f"** at character {position}: one * already stands for any text")
            runs.append("")
            wild = True
        else:
            runs[-1] += character
            wild = False
        position += 1
    return Wildcard(tuple(runs))


def _read_numeric(operand: Any, place: str) -> Between:
    if not is_array(operand):
        refuse(place, f'numeric takes a list, [">", 0, "<=", 5], not {kind(operand)}')
    terms = list(operand)
    if not terms:
        refuse(place, 'an empty list compares with nothing; write [">", 0, "<=", 5]')
    sign = terms[0]
    if sign not in ("=", "<", "<=", ">", ">="):
        refuse(f"{place}[0]", f"a comparison begins with =, <, <=, > or >=, not {_shown(sign)}")
    first = _limit(terms, 1, sign, place)
    rest = terms[2:]
    if sign == "=":
        _refuse_more(rest, sign, place)
        return Between(first, low_open=False, high=first, high_open=False)
    if sign in ("<", "<="):
        _refuse_more(rest, sign, place)
        return Between(None, low_open=False, high=first, high_open=sign == "<")
    if not rest:
        return Between(first, low_open=sign == ">", high=None, high_open=False)
    second_sign = rest[0]
    if second_sign not in ("<", "<="):
        refuse(f"{place}[2]", f"a range goes on with < or <=, not {_shown(second_sign)}")
    second = _limit(terms, 3, second_sign, place)
    if len(rest) > 2:
        refuse(f"{place}[4]", "a range has two limits; write a further one as another alternative")
    if not first < second:
        refuse(place, "the lower limit must be less than the upper one")
    return Between(first, low_open=sign == ">", high=second, high_open=second_sign == "<")


def _limit(terms: Sequence[Any], index: int, sign: str, place: str) -> Number:
    if len(terms) <= index:
        refuse(place, f"a number must follow {sign}")
    return _comparable(terms[index], f"{place}[{index}]", f"a number must follow {sign}, not {kind(terms[index])}")


def _refuse_more(rest: Sequence[Any], sign: str, place: str) -> None:
    if rest:
        refuse(f"{place}[2]", f"nothing can follow {sign} and its number; a range begins with its lower limit")


def _read_cidr(operand: Any, place: str) -> InNetwork:
    text = _text(operand, place, "cidr")
    base, slash, mask = text.partition("/")
    if not slash or not mask or "/" in mask:
        refuse(place, f'"{text}" is no block; write an address and its length, "10.0.0.0/8"')
    if not re.fullmatch(r"[+-]?[0-9]+", mask, re.ASCII):
        refuse(place, f'the length "{mask}" of the block is not a whole number')
    address = parse_address(base)
    if address is None:
        refuse(place, f'"{base}" is not an IP address')
    bits = int(mask) if len(mask) < 10 else math.inf  # longer is wrong without reading it
    if not 0 <= bits < address.max_prefixlen:
        one = "; for one address write it as a plain value" if bits == address.max_prefixlen else ""
        refuse(
            place, f"the length of an IPv{address.version} block is 0 to {address.max_prefixlen - 1}, not {mask}{one}"
        )
    return InNetwork(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def _read_exists(operand: Any, place: str) -> Exists:
    if not isinstance(operand, bool):
        refuse(place, f"exists takes true or false, not {kind(operand)}")
    return Exists(operand)


def _read_anything_but(operand: Any, place: str) -> AnythingBut:
    if is_object(operand):
        name, inner = _only_member(operand, place, "prefix, suffix, equals-ignore-case or wildcard")
        here = f"{place}.{name}"
        reader = _INSIDE_ANYTHING_BUT.get(name)
        if reader is None:
            refuse(place, f'anything-but takes prefix, suffix, equals-ignore-case and wildcard, not "{name}"')
        if not is_array(inner):
            return AnythingBut((reader(inner, here),))
        if not inner:
            refuse(here, "an empty list excludes nothing; list the values that are not wanted")
        return AnythingBut(tuple(reader(text, f"{here}[{index}]") for index, text in enumerate(inner)))
    if not is_array(operand):
        return AnythingBut((Equals(_excluded(operand, place)),))
    if not operand:
        refuse(place, "an empty list excludes nothing; list the values that are not wanted")
    values = [_excluded(value, f"{place}[{index}]") for index, value in enumerate(operand)]
    if len({isinstance(value, str) for value in values}) > 1:
        refuse(place, "anything-but takes texts or numbers, not both in one list")
    return AnythingBut(tuple(Equals(value) for value in values))


def _excluded(value: Any, place: str) -> str | Number:
    if isinstance(value, str):
        return value
    return _comparable(value, place, f"anything-but takes text, a number or a list of either, not {kind(value)}")


def _read_affix_inside(operand: Any, place: str, *, at_end: bool) -> Affix:
    name = "suffix" if at_end else "prefix"
    text = _text(operand, place, f"{name} inside anything-but")
    if not text:
        refuse(place, f"every text has the empty {name}; nothing would match")
    return Affix(text, at_end=at_end)


def _read_prefix_inside(operand: Any, place: str) -> Affix:
    return _read_affix_inside(operand, place, at_end=False)


def _read_suffix_inside(operand: Any, place: str) -> Affix:
    return _read_affix_inside(operand, place, at_end=True)


_OPERATORS: Final[dict[str, Callable[[Any, str], Test]]] = {
    "anything-but": _read_anything_but,
    "cidr": _read_cidr,
    "equals-ignore-case": _read_ignore_case,
    "exactly": _read_exactly,
    "exists": _read_exists,
    "numeric": _read_numeric,
    "prefix": _read_prefix,
    "suffix": _read_suffix,
    "wildcard": _read_wildcard,
}

_INSIDE_ANYTHING_BUT: Final[dict[str, Callable[[Any, str], Affix | IgnoreCase | Wildcard]]] = {
    "equals-ignore-case": _read_ignore_case,
    "prefix": _read_prefix_inside,
    "suffix": _read_suffix_inside,
    "wildcard": _read_wildcard,
}


def _read_number(value: float | Decimal, place: str) -> Number:
    known = number(value)
    if known is None or (isinstance(known, Decimal) and not known.is_finite()):
        refuse(place, "not a JSON number: it is infinite or not a number")
    return known


def _comparable(value: Any, place: str, otherwise: str) -> Number:
    """A number that event-ruler can compare with: it makes 64-bit floats of them. We keep every digit."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        refuse(place, otherwise)
    known = _read_number(value, place)
    reached = float(Decimal(known))
    if math.isinf(reached):
        refuse(place, f"{_digits(known)} is out of range: comparisons go from -{MAX_NUMBER} to {MAX_NUMBER}")
    if known and not reached:
        refuse(place, f"{_digits(known)} is out of range: comparisons tell numbers from zero down to {MIN_NUMBER}")
    return known


def _digits(value: Number) -> str:
    """A number for an error message, which need not hold a hundred thousand digits."""
    return f"{Decimal(value):.15g}"


def _text(value: Any, place: str, name: str) -> str:
    if not isinstance(value, str):
        refuse(place, f"{name} takes text, not {kind(value)}")
    return value


def _only_member(content: Any, place: str, what: str) -> tuple[str, Any]:
    members = members_of(content)
    if not members:
        refuse(place, f"an empty object; {what} is missing")
    if len(members) > 1:
        refuse(place, "one operator an object; write the other one as another alternative")
    name, value = members[0]
    return str(name), value


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else kind(value)
