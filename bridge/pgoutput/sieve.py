"""
The filters of all triggers that want one operation of a relation, asked of each row at once.

A row is not made an event before somebody wants it. What plain columns say is told by a glance at the row's bytes
(`glance.py`), which costs less than the event would. Where that is not enough, as for a field inside of a json column,
what the filters ask about is written first, by a plan of its own: just the columns that they read, and of the metadata
nothing but the keys unless a pattern reads more. What follows is one reading of that small document and one question to
all patterns together (`triggers/filter/index.py`). Either way a hundred triggers cost little more than one.

Filters see a row as it is in the table: with the columns that an event leaves out, under the names that they have
there, and uncovered. What becomes of it afterwards is the shape's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from bridge.change import Event
from bridge.pgoutput.execution import Execution
from bridge.pgoutput.glance import Glance, Look, glance_at
from bridge.pgoutput.messages import Delete, Insert, RelationMessage, TypeMessage, Update
from bridge.pgoutput.plan import Plan, Stamp
from bridge.pgoutput.program import RowEncoder
from bridge.pgoutput.values import Form, TypeCatalog, ValueType, no_catalog
from bridge.triggers.filter import FilterSet, Matcher, NumericText, compile_patterns, load_event
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

_NUMERIC: Final = frozenset({1700, 1231})
"""OIDs of numeric and numeric[] (`pg_type.dat`)."""
_MAX_DOMAIN_DEPTH: Final = 64

_SHORT_METADATA: Final = b'"metadata":{"commit_idx":'
_BEFORE_KEYS: Final = b',"keys":'

_EVERYTHING: Final = compile_patterns(())


class _FilterPlan(Plan):
    """A plan whose events are read by filters alone, and begin their metadata at the ordinal."""

    def __init__(self, relation: RelationMessage, shape: Shape, *, short: bool, **rest: Any) -> None:
        super().__init__(relation, shape, **rest)
        if short:
            self.metadata = _SHORT_METADATA


class Sieve:
    """
    Attributes:
        asked: changes that were put to the filters.
        passed: of them, by trigger, those that its filter took.
    """

    def __init__(
        self,
        relation: RelationMessage,
        selections: Mapping[str, Selection],
        *,
        database: str,
        execution: Execution,
        primary_key: Sequence[str] | None = None,
        announced: Mapping[int, TypeMessage] | None = None,
        catalog: TypeCatalog = no_catalog,
    ) -> None:
        """
        Args:
            relation: the table as it is now.
            selections: by trigger.
            database: as for `Plan`.
            execution: how rows are written.
            primary_key: as for `Plan`.
            announced: as for `Plan`.
            catalog: as for `Plan`.
        """
        matchers = {trigger: selection.matcher or _EVERYTHING for trigger, selection in selections.items()}
        self.asked = 0
        self.passed = dict.fromkeys(selections, 0)
        self._changed = {trigger: selection.changed for trigger, selection in selections.items() if selection.changed}
        self._columns = frozenset(column.name for column in relation.columns)
        self._old_key_is_sent = relation.replica_identity != "n"
        self._filters = FilterSet(matchers).bind(numeric_text_of(relation, catalog))
        whole = any(matcher.reads("metadata") or matcher.reads("id") for matcher in matchers.values())
        self._short = not whole
        self.plan: Plan = _FilterPlan(
            relation,
            Shape(include=frozenset(self._read(relation, matchers.values())), order_by="none"),
            short=self._short,
            database=database,
            primary_key=primary_key,
            announced=announced,
            catalog=catalog,
        )
        documents = any(
            _is_document(column.value_type) for column in self.plan.columns if column.in_record or column.in_keys
        )
        # Only a document, or the context in the metadata, can hold numbers that the quicker reader would round.
        self._exact = self._filters.compares_numbers and (whole or documents)
        self._execution = execution
        self._database = database
        self._encoders: dict[bytes, RowEncoder] = {}
        self._glances: dict[bytes, tuple[Glance, Look] | None] = {}

    def _read(self, relation: RelationMessage, matchers: Any) -> Iterator[str]:
        """The columns that a filter asks about."""
        all_of_them = any(
            matcher.reads("metadata", member) for matcher in matchers for member in ("unavailable", "latin1")
        )
        compared = frozenset().union(*self._changed.values())
        for column in relation.columns:
            if (
                all_of_them
                or column.name in compared
                or any(matcher.reads(row, column.name) for matcher in matchers for row in ("record", "changes"))
            ):
                yield column.name

    def sift(self, kind: bytes, payload: bytes, ordinal: int, stamp: Stamp) -> tuple[str, ...]:
        """
        The triggers that take a row of a compilable kind, in the order given; counts nothing.

        Raises: any of `GAVE_UP`; then it is a case for `sift_plainly`.
        """
        if kind not in self._glances:
            self._glances[kind] = self._glance_at(kind)
        glance = self._glances[kind]
        if glance is not None:
            questions, look = glance
            passed = questions.passed(look(payload))
            if passed is not None:
                return passed
        encode = self._encoders.get(kind)
        if encode is None:
            encode = self._encoders[kind] = self._execution.compile_row(self.plan, kind)
        return self._choose(encode(payload, ordinal, self._stamp(stamp)))

    def _glance_at(self, kind: bytes) -> tuple[Glance, Look] | None:
        glance = glance_at(
            self.plan, kind, self._filters.matchers, self._changed, database=self._database, exact=self._exact
        )
        return None if glance is None else (glance, self._execution.compile_glance(glance))

    def sift_plainly(self, change: Insert | Update | Delete, ordinal: int, stamp: Stamp) -> tuple[str, ...]:
        """
        The same for any row change.

        Raises: as `Plan.encode`.
        """
        return self._choose(self.plan.encode(change, ordinal, self._stamp(stamp)))

    def sift_truncate(self, options: int, ordinal: int, stamp: Stamp) -> tuple[str, ...]:
        """The same for a Truncate."""
        return self._choose(self.plan.encode_truncate(options, ordinal, self._stamp(stamp)))

    def count(self, passed: Iterable[str]) -> None:
        """One change more that was asked about, and the triggers that take it."""
        self.asked += 1
        for trigger in passed:
            self.passed[trigger] += 1

    def refused(self) -> Iterator[tuple[str, int]]:
        """By trigger, how many changes its filter refused."""
        return ((trigger, self.asked - passed) for trigger, passed in self.passed.items())

    def _stamp(self, stamp: Stamp) -> Stamp:
        return (stamp[0], b"", b"", _BEFORE_KEYS) if self._short else stamp

    def _choose(self, event: Event) -> tuple[str, ...]:
        try:
            document = load_event(event.body[:-1] + b"}}", exact=self._exact)
        except ValueError:
            # A json column that nests deeper than our readers go: nobody can be told to do without it.
            return tuple(self.passed)
        matching = self._filters.matching(document)
        if self._changed and event.action == "update":
            return tuple(
                trigger
                for trigger in matching
                if trigger not in self._changed or self._has_changed(self._changed[trigger], document)
            )
        return tuple(matching)

    def _has_changed(self, columns: frozenset[str], document: Mapping[str, Any]) -> bool:
        """Whether one of these is another than before; True also where what was sent can't tell."""
        changes = document["changes"]
        if changes is not None:
            return not columns.isdisjoint(changes)
        keys, old_keys = document["metadata"]["keys"], document["metadata"]["old_keys"]
        if not self._old_key_is_sent or not columns & self._columns <= keys.keys():
            return True
        # The old key comes with an update exactly where it is another.
        return old_keys is not None and any(old_keys.get(name) != keys.get(name) for name in columns)


def numeric_text_of(relation: RelationMessage | None, catalog: TypeCatalog = no_catalog) -> NumericText:
    """Which fields of a relation's events are of type numeric (or arrays of it, or domains), and travel as text."""
    columns = () if relation is None else relation.columns
    names = frozenset(column.name for column in columns if _is_numeric(column.type_oid, catalog))

    def is_numeric(path: tuple[str, ...]) -> bool:
        if path[:1] in {("record",), ("changes",)}:
            return ".".join(path[1:]) in names
        return path[:2] in {("metadata", "keys"), ("metadata", "old_keys")} and ".".join(path[2:]) in names

    return is_numeric


def matches_message(matcher: Matcher, event: Event) -> bool:
    """Whether a logical message's event matches."""
    try:
        return matcher.matches_json(event.body[:-1] + b"}}")
    except ValueError:
        return True  # as above: it nests too deeply to be read


def _is_numeric(oid: int, catalog: TypeCatalog) -> bool:
    for _ in range(_MAX_DOMAIN_DEPTH):
        if oid in _NUMERIC:
            return True
        known = catalog(oid)
        if known is None:
            return False
        oid = known.base if known.kind == "d" else known.element
    return False


def _is_document(value_type: ValueType) -> bool:
    return value_type.form is Form.JSON or (value_type.element is not None and _is_document(value_type.element))
