"""
Events with arrays: what fields they hold, and whether one choice of array elements meets them all.

A field inside an array of objects has a value for each element. Two fields of a pattern must be met by one and the same
element of every array that they share: `{"orders": {"sku": ["a"], "qty": [2]}}` needs an order with both. Scalars that
stand in an array are free of it; each is simply a further value of the field.

This is event-ruler's Event.java (flattening), ArrayMembership.java (consistency) and ACFinder.java (fields are met one
after the other by name, and `exists: false` is asked given the elements chosen *so far*). Where it walks every
combination, we keep the set of choices that are still open, cut down to the arrays that later fields know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.triggers.filter.leaf import Accepts

Membership = tuple[tuple[int, int], ...]
"""Which element of which arrays a value stands in: (array, index), by array. Arrays are numbered as they are met."""

Values = dict[str, list[tuple[Any, Membership]]]
"""Flattened name to the scalars that the event has for it."""


class Names:
    """The flattened names that are looked for, as steps from here: only what a pattern names is walked into."""

    __slots__ = ("below", "name")

    def __init__(self) -> None:
        self.name: str | None = None
        """The whole name, where one of the names ends here."""
        self.below: dict[str, Names] = {}
        """Steps that lead on. A step can be several parts of a name: an event's own key may have dots in it."""

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        # One place for the parts that led there, in whatever steps: as a tree it would double with every part.
        places: dict[tuple[str, ...], Names] = {(): cls()}
        for name in names:
            parts = tuple(name.split("."))
            for end in range(1, len(parts) + 1):
                place = places.setdefault(parts[:end], cls())
                for start in range(end):
                    places[parts[:start]].below[".".join(parts[start:end])] = place
            places[parts].name = name
        return places[()]


def flatten(event: Mapping[str, Any], names: Names) -> Values:
    """Every scalar of the event that stands under one of the names, with the array elements it stands in."""
    found: Values = {}
    arrays = 0
    # (value, where in the names, elements it stands in, whether an array's scalar elements inherit them)
    pending: list[tuple[Any, Names, Membership]] = [(event, names, ())]
    while pending:
        value, node, membership = pending.pop()
        if isinstance(value, list):
            array, arrays = arrays, arrays + 1
            for index, element in enumerate(value):
                inside = (*membership, (array, index)) if isinstance(element, dict | list) else membership
                pending.append((element, node, inside))
        elif isinstance(value, Mapping):
            for step, below in node.below.items():
                if step in value:
                    pending.append((value[step], below, membership))
        elif node.name is not None:
            found.setdefault(node.name, []).append((value, membership))
    return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """One field of a conjunction: a value that is accepted, or, with `or_absent`, no value at all."""

    name: str
    accepts: Accepts
    or_absent: bool


def one_choice_meets_all(fields: Sequence[Wanted], values: Values) -> bool:
    """
    Whether array elements can be chosen such that every field is met by them.

    Args:
        fields: in the order of their names as event-ruler sorts them, which `exists: false` depends on.
        values: what `flatten` found, for at least these names.
    """
    known_later = _arrays_known_from(fields, values)
    choices: set[Membership] = {()}
    for index, field in enumerate(fields):
        here = values.get(field.name, [])
        met = _Joinable({membership for value, membership in here if field.accepts(value)})
        present = _Joinable({membership for _, membership in here}) if field.or_absent else None
        following: set[Membership] = set()
        for choice in choices:
            following.update(met.joined_with(choice))
            if present is not None and not any(True for _ in present.joined_with(choice)):
                following.add(choice)
        if not following:
            return False
        later = known_later[index + 1]
        choices = {tuple(entry for entry in choice if entry[0] in later) for choice in following}
    return True


def _arrays_known_from(fields: Sequence[Wanted], values: Values) -> list[set[int]]:
    """For each index, the arrays in which this field or a later one has values: only choices in them still matter."""
    known: list[set[int]] = [set()]
    for field in reversed(fields):
        arrays = {array for _, membership in values.get(field.name, []) for array, _ in membership}
        known.append(known[-1] | arrays)
    known.reverse()
    return known


class _Joinable:
    """Memberships of one field, found by the elements that a choice has made already: a hash join, not all pairs."""

    def __init__(self, memberships: set[Membership]) -> None:
        self._by_arrays: dict[frozenset[int], list[Membership]] = {}
        for membership in memberships:
            self._by_arrays.setdefault(frozenset(array for array, _ in membership), []).append(membership)
        self._indexes: dict[tuple[frozenset[int], frozenset[int]], dict[Membership, list[Membership]]] = {}

    def joined_with(self, choice: Membership) -> Iterable[Membership]:
        """The choice joined with each membership that does not contradict it."""
        chosen = dict(choice)
        for arrays in self._by_arrays:
            shared = arrays.intersection(chosen)
            index = self._index(arrays, shared)
            for membership in index.get(tuple((array, chosen[array]) for array in sorted(shared)), ()):
                yield tuple(sorted({**chosen, **dict(membership)}.items()))

    def _index(self, arrays: frozenset[int], shared: frozenset[int]) -> dict[Membership, list[Membership]]:
        index = self._indexes.get((arrays, shared))
        if index is None:
            index = self._indexes[(arrays, shared)] = {}
            for membership in self._by_arrays[arrays]:
                key = tuple(sorted(entry for entry in membership if entry[0] in shared))
                index.setdefault(key, []).append(membership)
        return index
