"""
JSON values as patterns compare them: numbers by value, addresses as addresses, and JSON read without losing a digit.

Python would call 1 and True equal, read 12345678901234567890.5 as a float, and let a float that prints as 0.1 differ
from the decimal 0.1. Patterns must not, so numbers are ints or Decimals here, and a float means what it prints.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

Number = int | Decimal
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_INT_DIGITS: Final = 4000
"""Python refuses to read an int of more than 4300 digits; PostgreSQL's jsonb holds numbers of 131,072."""

_NUMERIC_TEXT: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)

# Only what is plainly one family: event-ruler's own gate in front of Java's address parser (its Constants.java). It
# keeps out zone ids, ports and dotted IPv4-mapped addresses.
_IPV4: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+", re.ASCII)
_IPV6: Final = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*", re.ASCII)


def number(value: Any) -> Number | None:
    """A JSON number by its value; None for everything else, true and false included. A float is what it prints as."""
    kind = value.__class__
    if kind is int or kind is Decimal:  # not isinstance: that lets bool through, and costs twice as much
        known: Number = value
        return known
    if kind is float:
        text = repr(value)
        return Decimal(text) if text[-1].isdigit() else None  # inf and nan are no JSON numbers
    return None


def number_or_numeric_text(value: Any) -> Number | None:
    """The same for a column of type numeric, whose values travel as text; its NaN and infinities are no numbers."""
    if value.__class__ is str:
        return parse_decimal(value) if _NUMERIC_TEXT.fullmatch(value) else None
    return number(value)


def parse_decimal(text: str) -> Number:
    """
    JSON number text, exact.

    A number whose exponent no decimal holds (past 10^18 digits) becomes zero or an infinity of its sign: it still
    stands on the right side of everything that a pattern can name.
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        mantissa, _, exponent = text.lower().partition("e")
        if exponent.startswith("-") or not mantissa.strip("+-0."):
            return 0
        return Decimal("-Infinity" if mantissa.startswith("-") else "Infinity")


def parse_integer(text: str) -> Number:
    """A JSON integer of any length, exact."""
    return int(text) if len(text) < _INT_DIGITS else Decimal(text)


def parse_address(text: str) -> Address | None:
    """
    An IPv4 or IPv6 address as event-ruler reads it (its CIDR.java on Java's InetAddress), or None.

    Octets are decimal even with leading zeros, and an IPv4-mapped IPv6 address is the IPv4 address.
    """
    try:
        if _IPV4.fullmatch(text):
            octets = [octet.lstrip("0") or "0" for octet in text.split(".")]
            return ipaddress.IPv4Address(".".join(octets))
        if _IPV6.fullmatch(text):
            address = ipaddress.IPv6Address(text)
            return address.ipv4_mapped or address
    except ipaddress.AddressValueError:
        pass  # it looks like an address and is none: then it is a text like any other
    return None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def load_event(text: bytes | str, *, exact: bool = True) -> Mapping[str, Any]:
    """
    An event's JSON as a dict, ready to match.

    Args:
        text: UTF-8 JSON, one object.
        exact: read numbers as ints and Decimals, so that no digit is lost. Without it floats are rounded to 64 bits and
            the reading is several times faster; only a pattern that compares numbers can tell.

    Raises:
        ValueError: not JSON, or not an object. Says where, never what: an event holds row values.
    """
    event: Any = None
    if not exact:
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            # orjson refuses lone surrogates, which PostgreSQL's json type lets in as escapes; the reader below takes
            # them, and refuses what is not JSON at all.
            exact = True
    if exact:
        try:
            event = json.loads(
                text, parse_float=parse_decimal, parse_int=parse_integer, parse_constant=_refuse_constant
            )
        except json.JSONDecodeError as error:
            raise ValueError(
                f"the event is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
            ) from None
        except UnicodeDecodeError as error:
            raise ValueError(f"the event is not UTF-8: wrong byte at {error.start}") from None
        except RecursionError:
            raise ValueError("the event is nested too deeply") from None
        except ValueError:
            raise ValueError("the event is not JSON: it holds NaN or Infinity as a number") from None
    if not isinstance(event, dict):
        raise ValueError("the event is not a JSON object")  # noqa: TRY004 - wrong content, like every other case here
    return event
