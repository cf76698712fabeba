"""
Many matchers, one event: only the conjunctions whose constants the event holds are asked.

A conjunction with a field that plain values must meet can match only an event that holds one of these values there. So
it waits under (path, value) and is asked when an event brings that value; conjunctions without such a field are asked
every time. Where a conjunction has several such fields it waits at the one that tells the most apart over the whole
set: a hundred triggers on `action: [insert]` and each its own tenant wait at the tenant.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

from bridge.triggers.filter.arrays import Names, flatten
from bridge.triggers.filter.language import Equals, Test
from bridge.triggers.filter.matcher import SCALARS, Conjunction, Look, Matcher, NumericText, Path, look_at
from bridge.triggers.filter.values import number, number_or_numeric_text

Name = TypeVar("Name", bound=Hashable)


def _key(value: Any) -> Hashable:
    """What values that are equal in JSON have in common. That true has it in common with 1 costs a question in vain."""
    return number(value) if value.__class__ is float else value


class _Waiting:
    """The conjunctions that wait at one path, by value."""

    def __init__(self, path: Path, *, numeric_text: bool) -> None:
        self._look: Look = look_at(path)
        self._names = Names.of([".".join(path)])
        self._name = ".".join(path)
        self._numeric_text = numeric_text
        self._by_value: dict[Hashable, list[tuple[int, Conjunction]]] = {}

    def add(self, key: Hashable, place: int, conjunction: Conjunction) -> None:
        self._by_value.setdefault(key, []).append((place, conjunction))

    def called_by(self, event: Mapping[str, Any]) -> list[tuple[int, Conjunction]]:
        """The conjunctions that the event's values call; one can be called twice."""
        value = self._look(event)
        kind = value.__class__
        if kind is int or (kind is str and not self._numeric_text):  # nearly always, and then it is its own key
            return self._by_value.get(value, [])
        if kind in SCALARS:
            return self._called_by_value(value)
        return [
            called
            for scalar, _ in flatten(event, self._names).get(self._name, ())
            for called in self._called_by_value(scalar)
        ]

    def _called_by_value(self, value: Any) -> list[tuple[int, Conjunction]]:
        called = self._by_value.get(_key(value), [])
        if self._numeric_text and value.__class__ is str and (known := number_or_numeric_text(value)) is not None:
            return called + self._by_value.get(known, [])
        return called


class FilterSet(Generic[Name]):
    """
    Named matchers, asked together.

    Immutable, and safe to share between tasks and threads.

    Attributes:
        matchers: by name, in the order given.
        paths: every field that any of the matchers looks at.
        compares_numbers: whether the value of a number matters to any of them.
    """

    def __init__(self, matchers: Mapping[Name, Matcher]) -> None:
        self.matchers = dict(matchers)
        self._names = tuple(matchers)
        self.paths: frozenset[Path] = frozenset().union(*(matcher.paths for matcher in matchers.values()))
        self.compares_numbers = any(matcher.compares_numbers for matcher in matchers.values())
        self._bound: dict[frozenset[Path], FilterSet[Name]] = {}
        self._match_all = tuple(place for place, matcher in enumerate(matchers.values()) if not matcher.conjunctions)
        self._always: list[tuple[int, Conjunction]] = []
        self._waiting: list[_Waiting] = []
        self._arrange()

    def _arrange(self) -> None:
        asked = [
            (place, conjunction, matcher.numeric_paths)
            for place, matcher in enumerate(self.matchers.values())
            for conjunction in matcher.conjunctions
        ]
        distinct: dict[str, set[Hashable]] = {}
        for _, conjunction, _ in asked:
            for name, tests in conjunction.tests.items():
                distinct.setdefault(name, set()).update(map(_key, _constants(tests)))
        waiting: dict[tuple[Path, bool], _Waiting] = {}
        for place, conjunction, numeric_paths in asked:
            names = [name for name, tests in conjunction.tests.items() if _constants(tests)]
            if not names:
                self._always.append((place, conjunction))
                continue
            name = max(names, key=lambda name: (len(distinct[name]) / len(_constants(conjunction.tests[name])), name))
            path = tuple(name.split("."))
            where = path, path in numeric_paths
            if where not in waiting:
                waiting[where] = _Waiting(path, numeric_text=path in numeric_paths)
            for key in {_key(value) for value in _constants(conjunction.tests[name])}:
                waiting[where].add(key, place, conjunction)
        self._waiting = list(waiting.values())

    def matching(self, event: Mapping[str, Any], *, numeric_text: NumericText | None = None) -> list[Name]:
        """The names of the matchers that match an event, in the order given. Arguments as for `Matcher.matches`."""
        if numeric_text is not None and self.compares_numbers:
            return self.bind(numeric_text).matching(event)
        found = [*self._match_all]
        for place, conjunction in self._always:
            if conjunction.matches(event):
                found.append(place)
        for waiting in self._waiting:
            for place, conjunction in waiting.called_by(event):
                if conjunction.matches(event):
                    found.append(place)
        if len(found) > 1:
            found = sorted({*found})
        return [self._names[place] for place in found]

    def bind(self, numeric_text: NumericText) -> FilterSet[Name]:
        """This set for events in which `numeric_text` names the columns of type numeric; made once for each choice."""
        bound = {name: matcher.bind(numeric_text) for name, matcher in self.matchers.items()}
        numeric_paths = frozenset().union(*(matcher.numeric_paths for matcher in bound.values()))
        if numeric_paths not in self._bound:
            self._bound[numeric_paths] = FilterSet(bound)
        return self._bound[numeric_paths]


def _constants(tests: tuple[Test, ...]) -> list[Any]:
    """The plain values that meet a field, or nothing where anything else could."""
    values = [test.value for test in tests if isinstance(test, Equals)]
    return values if len(values) == len(tests) else []
