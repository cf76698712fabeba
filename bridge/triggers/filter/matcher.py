"""
The matcher: compiled patterns, asked of one event at a time.

A conjunction is asked field by field: find the value, ask the predicate. That is all for events without arrays, where
each field has one value or none. Two things tangle it: an array of objects on the way, and an event whose own keys
have dots in them, so that a name can be reached in several ways. Both are noticed on the way and left to `arrays.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from bridge.triggers.filter.arrays import Names, Wanted, flatten, one_choice_meets_all
from bridge.triggers.filter.grammar import parse
from bridge.triggers.filter.language import Conjunction as Parsed
from bridge.triggers.filter.language import Exists, Pattern, PatternError, Test
from bridge.triggers.filter.leaf import compares_numbers, compile_tests
from bridge.triggers.filter.values import load_event

Path = tuple[str, ...]
NumericText = Callable[[Path], bool]
"""Whether the field at a path, `("record", "balance")`, is a column of type numeric, whose values travel as text."""


class _Absent:
    """No value at a path."""


class _Tangled:
    """Values inside array elements, or several ways to a name."""


ABSENT: Final = _Absent()
TANGLED: Final = _Tangled()
SCALARS: Final = frozenset({str, int, bool, type(None), float, Decimal})
"""The classes of what a predicate can be asked about."""

Look = Callable[[Mapping[str, Any]], Any]
"""From an event to the value at one path, `ABSENT` or `TANGLED`."""


def look_at(path: Path) -> Look:
    """
    The lookup of one path.

    Keys with dots are told by looking for them: at each object, for every run of two or more steps joined with dots.
    """
    if len(path) == 1:
        (only,) = path
        return lambda event: event.get(only, ABSENT)
    if len(path) == 2:  # a column of the record, as nearly every field of a pattern is: no loop
        first, second = path
        both = f"{first}.{second}"

        def look_at_column(event: Mapping[str, Any]) -> Any:
            if both in event:
                return TANGLED
            inner = event.get(first)
            if isinstance(inner, dict):
                return inner.get(second, ABSENT)
            return TANGLED if isinstance(inner, list) else ABSENT

        return look_at_column

    # At each object: the joined keys that would tangle the way, and the step to take.
    ways = [
        (tuple(".".join(path[start:end]) for end in range(start + 2, len(path) + 1)), path[start])
        for start in range(len(path))
    ]

    def look(event: Mapping[str, Any]) -> Any:
        value: Any = event
        for joined, step in ways:
            if isinstance(value, list):
                return TANGLED
            if value is not event and not isinstance(value, dict):
                return ABSENT
            for key in joined:
                if key in value:
                    return TANGLED
            value = value.get(step, ABSENT)
        return value

    return look


class Conjunction:
    """
    Fields that must all be met, by one choice of array elements.

    Attributes:
        tests: the alternatives of each field, as read.
        wanted: the fields, compiled, in the order in which they are asked.
    """

    __slots__ = ("_fields", "_names", "tests", "wanted")

    def __init__(self, tests: Parsed, numeric_paths: frozenset[Path]) -> None:
        self.tests = tests
        # In event-ruler's order, which is Java's: by UTF-16 unit.
        names = sorted(tests, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        self.wanted = [
            Wanted(
                name,
                compile_tests(tests[name], numeric_text=tuple(name.split(".")) in numeric_paths),
                or_absent=Exists(wanted=False) in tests[name],
            )
            for name in names
        ]
        self._fields = tuple(
            (look_at(tuple(want.name.split("."))), want.accepts, want.or_absent) for want in self.wanted
        )
        self._names = Names.of(names)

    def matches(self, event: Mapping[str, Any]) -> bool:
        tangled = False
        for look, accepts, or_absent in self._fields:
            value = look(event)
            if value.__class__ in SCALARS:
                if not accepts(value):
                    return False
            elif value is TANGLED:
                tangled = True
            elif isinstance(value, list) and value:
                if any(element.__class__ not in SCALARS for element in value):
                    tangled = True
                elif not any(map(accepts, value)):
                    return False
            elif not or_absent:  # absent, an object or an empty array: no scalar, and only scalars exist
                return False
        return not tangled or one_choice_meets_all(self.wanted, flatten(event, self._names))


class Matcher:
    """
    Patterns, ORed; no patterns at all match every event, as an event source mapping without filters does.

    Immutable, and safe to share between tasks and threads.

    Attributes:
        paths: every field that the patterns look at, as the parts of its flattened name. Nothing else of an event is
            read, so nothing else needs to be taken from a row. An event key with dots in it is as many parts: `reads`
            tells whether such a key is needed.
        compares_numbers: whether the value of a number matters. If not, an event's JSON can be read by a reader that
            rounds floats.
        numeric_paths: the fields whose text is compared as a number; see `bind`.
        conjunctions: any of which matches; none match everything.
    """

    def __init__(self, conjunctions: Sequence[Parsed], numeric_paths: frozenset[Path] = frozenset()) -> None:
        self._parsed = tuple(conjunctions)
        self.numeric_paths = numeric_paths
        self.conjunctions = tuple(Conjunction(tests, numeric_paths) for tests in conjunctions)
        self.paths: frozenset[Path] = frozenset(tuple(name.split(".")) for tests in conjunctions for name in tests)
        self._number_paths = tuple(
            {
                tuple(name.split("."))
                for tests in conjunctions
                for name, alternatives in tests.items()
                if compares_numbers(alternatives)
            }
        )
        self.compares_numbers = bool(self._number_paths)
        self._bound: dict[frozenset[Path], Matcher] = {numeric_paths: self}

    def reads(self, *keys: str) -> bool:
        """Whether anything at or below these keys of an event, `("record", "balance")`, can bear on the answer."""
        parts = tuple(".".join(keys).split("."))
        return any(path[: len(parts)] == parts[: len(path)] for path in self.paths)

    def matches(self, event: Mapping[str, Any], *, numeric_text: NumericText | None = None) -> bool:
        """
        Whether any of the patterns matches an event.

        Args:
            event: parsed JSON: dicts, lists, str, bool, None, int, float and Decimal. A float means what it prints as;
                where digits matter beyond that, parse them as Decimal (`load_event` does).
            numeric_text: which fields are columns of type numeric. Where the same answer serves many events, `bind`
                asks once.
        """
        if numeric_text is not None and self._number_paths:
            return self.bind(numeric_text).matches(event)
        for conjunction in self.conjunctions:
            if conjunction.matches(event):
                return True
        return not self.conjunctions

    def matches_json(self, event: bytes, *, numeric_text: NumericText | None = None) -> bool:
        """
        The same for an event's JSON. Numbers are exact, of any size: they are read as ints and Decimals where a pattern
        compares numbers, and by the faster reader where none does.

        Raises:
            ValueError: not a JSON object.
        """
        return self.matches(load_event(event, exact=self.compares_numbers), numeric_text=numeric_text)

    def bind(self, numeric_text: NumericText) -> Matcher:
        """This matcher for events in which `numeric_text` names the columns of type numeric; made once for each set."""
        numeric_paths = frozenset(path for path in self._number_paths if numeric_text(path))
        bound = self._bound.get(numeric_paths)
        if bound is None:
            bound = self._bound[numeric_paths] = Matcher(self._parsed, numeric_paths)
        return bound

    def given(self, name: str, value: Any) -> Matcher:
        """
        This matcher for events of which one scalar is known beforehand, and need not be there.

        Args:
            name: flattened, `metadata.trigger`.
            value: what stands there in every event.
        """
        if not any(name in tests for tests in self._parsed):
            return self
        known: list[Parsed] = []
        for tests in self._parsed:
            left = dict(tests)
            if name in left and compile_tests(left[name])(value):
                del left[name]
            elif name in left:
                left[name] = ()  # nothing will do
            known.append(left)
        return Matcher(known, self.numeric_paths)


def compile_patterns(patterns: Sequence[Pattern]) -> Matcher:
    """
    Compile patterns, ORed.

    Args:
        patterns: JSON texts, or what JSON or YAML parses to.

    Raises:
        PatternError: the first pattern that is not valid, with the place in it and the reason.
    """
    conjunctions: list[dict[str, tuple[Test, ...]]] = []
    for index, pattern in enumerate(patterns):
        try:
            conjunctions += parse(pattern)
        except PatternError as error:
            if len(patterns) == 1:
                raise
            raise PatternError(error.place, error.reason, index) from None
    return Matcher(conjunctions)
