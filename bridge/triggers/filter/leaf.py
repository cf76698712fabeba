"""
One field's alternatives as one predicate over a scalar: compiled once, asked for every event.

`compile_tests` takes the tests as read, and answers a function of a JSON scalar: str, bool, None, int, float, Decimal.
`exists: false` is not asked here, because whether a field is there at all is the lookup's business; `exists: true`
accepts every scalar, null included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

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
)
from bridge.triggers.filter.values import Number, number, number_or_numeric_text, parse_address

Accepts = Callable[[Any], bool]
ReadNumber = Callable[[Any], Number | None]


def compares_numbers(tests: Iterable[Test]) -> bool:
    """Whether any of the tests depends on a number's value: then digits matter, and numeric columns' text is read."""
    return any(
        isinstance(test, Between)
        or (isinstance(test, Equals) and number(test.value) is not None)
        or (isinstance(test, AnythingBut) and compares_numbers(test.tests))
        for test in tests
    )


def compile_tests(tests: Iterable[Test], *, numeric_text: bool = False) -> Accepts:
    """
    The predicate that accepts a scalar when any of the tests does.

    Args:
        tests: alternatives of one field, or what `anything-but` excludes.
        numeric_text: the field is a column of type numeric: its text is a number wherever the pattern holds one.
    """
    read_number = number_or_numeric_text if numeric_text else number
    constants = [test.value for test in tests if isinstance(test, Equals)]
    predicates = [_equals_any(constants, read_number)] if constants else []
    predicates += [_compile(test, read_number) for test in tests if not isinstance(test, Equals | Exists)]
    if any(isinstance(test, Exists) and test.wanted for test in tests):
        return _accept_all
    if not predicates:
        return _accept_none
    if len(predicates) == 1:
        return predicates[0]
    several = tuple(predicates)

    def accepts_any(value: Any) -> bool:
        return any(accepts(value) for accepts in several)

    return accepts_any


def _accept_all(_value: Any) -> bool:
    return True


def _accept_none(_value: Any) -> bool:
    return False


def _compile(test: Test, read_number: ReadNumber) -> Accepts:
    match test:
        case AnythingBut(tests):
            excluded = compile_tests(tests, numeric_text=read_number is number_or_numeric_text)
            return lambda value: not excluded(value)
        case Between():
            return _in_range(test, read_number)
        case Affix(text, at_end, ignore_case=True):
            anchor = ("", r"\Z") if at_end else (r"\A", "")
            return _found(anchor[0] + _either_case(text) + anchor[1])
        case Affix(text, at_end):
            if at_end:
                return lambda value: value.__class__ is str and value.endswith(text)
            return lambda value: value.__class__ is str and value.startswith(text)
        case IgnoreCase(text):
            return _found(r"\A" + _either_case(text) + r"\Z")
        case Wildcard(runs):
            return _wildcard(runs)
        case SameAddress(address):
            return lambda value: value.__class__ is str and parse_address(value) == address
        case InNetwork(network):

            def in_network(value: Any) -> bool:
                if value.__class__ is not str:
                    return False
                address = parse_address(value)
                return address is not None and address in network

            return in_network
    raise AssertionError(test)  # pragma: no cover - Equals and Exists are compiled together by compile_tests


def _equals_any(constants: list[str | Number | bool | None], read_number: ReadNumber) -> Accepts:
    # Numbers, words and texts apart, because Python calls 1, 1.0 and True equal. An int and a Decimal of one value are
    # equal and hash alike, so every spelling of a number finds it.
    texts = frozenset(value for value in constants if isinstance(value, str))
    words = frozenset(value for value in constants if value is None or isinstance(value, bool))
    numbers = frozenset(known for value in constants if (known := number(value)) is not None)
    if not words and not numbers:
        return texts.__contains__  # only a text equals a text

    def equals_any(value: Any) -> bool:
        kind = value.__class__
        if kind is bool or value is None:
            return value in words
        if kind is str and value in texts:
            return True
        return bool(numbers) and (known := read_number(value)) is not None and known in numbers

    return equals_any


def _in_range(test: Between, read_number: ReadNumber) -> Accepts:
    low, low_open, high, high_open = test.low, test.low_open, test.high, test.high_open

    def in_range(value: Any) -> bool:
        known = read_number(value)
        if known is None:
            return False
        if low is not None and (known <= low if low_open else known < low):
            return False
        return high is None or (known < high if high_open else known <= high)

    return in_range


def _either_case(text: str) -> str:
    """
    A regular expression for the text in any case, as event-ruler's EqualsIgnoreCaseParser has it.

    Each character by itself may be what it is in lower case or in upper case, which can be several characters (ß, SS).
    That is neither folding (which would let "strasse" equal "straße") nor Python's IGNORECASE (which lets the Kelvin
    sign equal k). No form begins with the other, so the expression never has to go back.
    """
    parts = []
    for character in text:
        lower, upper = character.lower(), character.upper()
        parts.append(re.escape(lower) if lower == upper else f"(?:{re.escape(lower)}|{re.escape(upper)})")
    return "".join(parts)


def _found(expression: str) -> Accepts:
    search = re.compile(expression).search
    return lambda value: value.__class__ is str and search(value) is not None


def _wildcard(runs: tuple[str, ...]) -> Accepts:
    if len(runs) == 1:
        return lambda value: value.__class__ is str and value == runs[0]
    first, *middle, last = runs

    def matches(value: Any) -> bool:
        # The first run at the start, the last at the end, each one between at its earliest place: if any way of placing
        # them exists this finds one, and it never goes back.
        if value.__class__ is not str or not value.startswith(first) or not value.endswith(last):
            return False
        position, end = len(first), len(value) - len(last)
        for run in middle:
            found = value.find(run, position, end)
            if found < 0:
                return False
            position = found + len(run)
        return position <= end

    return matches
