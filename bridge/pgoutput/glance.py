"""
What the plain columns of a row say about all filters at once, before anything is made of the row.

Each conjunction of each filter has a bit. Of each column that they ask about a *question* is asked, whose answer is the
conjunctions that the column's value does not refuse; all answers ANDed are those that are met. Plain values are looked
up, in one step for however many triggers, and so are ranges, prefixes and suffixes where there are many of them; what
else there is (wildcards, say) is asked one by one, but each only once. What is the same in all rows of a kind, the
action or the table's name, is decided when the questions are made.

Nothing is guessed. Values are read as the event would show them, and put to the predicates of `triggers/filter`. A
field that no plain column answers (inside of a document or an array, most metadata) leaves its conjunctions *unsure*:
the other fields may refuse them, but where they do not, the filters are asked about the written row (`sieve.py`). And
whatever is unusual about a value makes a glance give up on the row, as `program.py` says.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import accumulate
from operator import xor
from typing import Any, Final

import orjson

from bridge.pgoutput.plan import ColumnPlan, Plan
from bridge.pgoutput.program import NotHereError, Program, RowKey
from bridge.pgoutput.values import Form
from bridge.triggers.filter import Matcher, load_event
from bridge.triggers.filter.language import Affix, AnythingBut, Between, Equals, Exists, Test, reads_text
from bridge.triggers.filter.leaf import Accepts
from bridge.triggers.filter.matcher import ABSENT, Path
from bridge.triggers.filter.values import number, number_or_numeric_text

MAX_CONJUNCTIONS: Final = 1024
"""
Beyond that many for one kind of row there are no glances: each constant has a number of as many bits, and together they
would take memory with the square.
"""

TABLE_FROM: Final = 4
"""So many ranges, prefixes or suffixes of one column are answered by one table; fewer are asked as quickly."""

MAX_KNOWN: Final = 1024
"""Of how many answers the triggers' names are kept."""

Bits = int
"""A set of conjunctions."""


class Reading(Enum):
    """How the text of a column becomes what a predicate is asked about."""

    TEXT = auto()
    PLAIN = auto()
    """Text that never needs an escape."""
    DIGITS = auto()
    """An int."""
    TRUTH = auto()
    CONVERTED = auto()
    """By a function of the text."""
    PRESENCE = auto()
    """True, whatever it is."""


_READINGS: Final = {
    Form.TEXT: Reading.TEXT,
    Form.PLAIN: Reading.PLAIN,
    Form.NUMBER: Reading.DIGITS,
    Form.BOOL: Reading.TRUTH,
}
_NOT_SCALAR: Final = frozenset({Form.JSON, Form.ARRAY, Form.VECTOR})


@dataclass(slots=True)
class Question:
    """Which conjunctions the value of one column leaves."""

    index: int
    """The column's."""
    of_changes: bool
    """Asked about the old value, which is absent where it is still the same; else of the row's value."""
    reading: Reading
    asked_by: Bits
    """The conjunctions that ask it; the others are in every answer."""
    convert: Callable[[bytes], Any] | None = None
    """For `CONVERTED`; raises any of `GAVE_UP`."""
    answers: dict[Any, Bits] = field(default_factory=dict)
    """By value, `None` and `ABSENT` always among them. Either truths or numbers: Python calls 1 and True equal."""
    otherwise: Bits = 0
    """The answer for any other value."""
    predicates: tuple[tuple[Accepts, Bits], ...] = ()
    """What is asked of a value that is neither null nor absent, where somebody is left who asks; adds to the answer."""
    tables: tuple[tuple[Callable[[Any], Bits], Bits], ...] = ()
    """Likewise, but each answers for many conjunctions at once."""

    @property
    def cost(self) -> tuple[bool, int]:
        """The cheap ones are asked first, for they may spare the others."""
        return self.reading is Reading.CONVERTED, len(self.predicates) + len(self.tables)


class Glance:
    """
    What is asked of the rows of one kind.

    Attributes:
        key: what `ROW_KEY` cuts out of each frame that this is for.
        columns: how many a row has.
        has_old_row: two tuples, the old row first.
        takes_unchanged: a column can be sent as unchanged; it is then absent.
        everything: the conjunctions, but for those that no row of this kind can meet.
        questions: in the order in which they are asked.
    """

    def __init__(self, plan: Plan, kind: bytes, questions: _Questions) -> None:
        program = Program(plan, kind)
        self.key: RowKey = program.key
        self.columns = len(program.steps)
        self.has_old_row = program.has_old_row
        self.takes_unchanged = kind[:1] == b"U"
        self.everything: Bits = (1 << len(questions.triggers)) - 1
        self.questions = tuple(sorted(questions.made(), key=lambda question: question.cost))
        self._unsure = questions.unsure
        self._triggers = tuple(questions.triggers)
        self._known: dict[Bits, tuple[str, ...]] = {0: ()}

    def passed(self, met: Bits) -> tuple[str, ...] | None:
        """The triggers of which a conjunction is met, in the order given; None where that is not sure."""
        known = self._known.get(met)
        if known is not None:
            return known
        if met & self._unsure:
            return None
        known = tuple(dict.fromkeys(trigger for bit, trigger in enumerate(self._triggers) if met >> bit & 1))
        if len(self._known) < MAX_KNOWN:
            self._known[met] = known
        return known


Look = Callable[[bytes], Bits]
"""From a frame to the conjunctions that are met, or may be. Raises any of `GAVE_UP`."""


def glance_at(
    plan: Plan,
    kind: bytes,
    matchers: Mapping[str, Matcher],
    changed: Mapping[str, frozenset[str]],
    *,
    database: str,
    exact: bool,
) -> Glance | None:
    """
    Make the questions for one kind of row.

    Args:
        plan: with every column that a filter reads in `record`, under its own name.
        kind: of `KINDS`, compilable.
        matchers: by trigger; bound to the relation.
        changed: by trigger, columns of which an update must have changed one.
        database: as in the metadata.
        exact: how `load_event` is to read numbers that are no integers.

    Returns:
        None where there are too many conjunctions.
    """
    questions = _Questions(plan, kind, database=database, exact=exact)
    for trigger, matcher in matchers.items():
        for fields in _ways(matcher):
            for presence in questions.changed_ways(changed.get(trigger, frozenset())):
                questions.add(trigger, fields, presence)
                if len(questions.triggers) > MAX_CONJUNCTIONS:
                    return None
    return Glance(plan, kind, questions)


class _Unsure:
    """A field that no plain column answers."""


_UNSURE: Final = _Unsure()


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a conjunction."""

    path: Path
    tests: tuple[Test, ...]
    accepts: Accepts
    or_absent: bool
    numeric: bool
    """Numbers are compared with the column's text."""


def _ways(matcher: Matcher) -> Iterator[tuple[_Field, ...]]:
    """The fields of each conjunction; a matcher without any matches everything."""
    if not matcher.conjunctions:
        yield ()
    for conjunction in matcher.conjunctions:
        paths = ((want, tuple(want.name.split("."))) for want in conjunction.wanted)
        yield tuple(
            _Field(path, conjunction.tests[want.name], want.accepts, want.or_absent, path in matcher.numeric_paths)
            for want, path in paths
        )


_Place = tuple[int, bool, Reading, bool]
"""Column, of changes, how it is read, and whether as the number that its text is."""


class _Questions:
    """
    Attributes:
        triggers: of each conjunction, by bit.
        unsure: the conjunctions with a field that can't be told.
    """

    def __init__(self, plan: Plan, kind: bytes, *, database: str, exact: bool) -> None:
        self.triggers: list[str] = []
        self.unsure: Bits = 0
        self._exact = exact
        self._plan = plan
        self._is_update = kind[:1] == b"U"
        program = Program(plan, kind)
        self._has_old_row = program.has_old_row
        self._sent = {step.column.name: step.column for step in program.steps if step.sent}
        self._fixed: dict[Path, Any] = {
            ("action",): program.action,
            ("record",): ABSENT,  # an object, and only scalars exist
            ("changes",): ABSENT if self._has_old_row else None,
            ("metadata",): ABSENT,
            ("metadata", "source"): "pgbridge",
            ("metadata", "database"): database,
            ("metadata", "table_schema"): plan.relation.namespace,
            ("metadata", "table_name"): plan.relation.name,
        }
        self._asked: dict[_Place, dict[Bits, _Field]] = {}

    def changed_ways(self, columns: frozenset[str]) -> Iterable[tuple[_Place, ...]]:
        """What else has to be present so that an update has changed one of these columns: one of these ways will do."""
        if not columns or not self._is_update:
            return [()]
        here = [column for column in self._plan.columns if column.name in columns]
        if self._has_old_row:
            return [((column.index, True, Reading.PRESENCE, False),) for column in here]
        # Without an old row the key is the same, if it would have been sent; of other columns nothing is known.
        key_was_same = self._plan.relation.replica_identity != "n" and all(column.in_keys for column in here)
        return [] if key_was_same else [()]

    def add(self, trigger: str, fields: Iterable[_Field], presence: Iterable[_Place]) -> None:
        """One more conjunction, unless it is refused by what all rows of the kind have in common."""
        asked = dict.fromkeys(presence, _PRESENT)
        unsure = False
        for each in fields:
            found = self._find(each)
            if found is _UNSURE:
                unsure = True
            elif isinstance(found, tuple):
                asked[found] = each
            elif not (each.or_absent if found is ABSENT else each.accepts(found)):
                return
        bit = 1 << len(self.triggers)
        self.triggers.append(trigger)
        if unsure:
            self.unsure |= bit
        for place, each in asked.items():
            self._asked.setdefault(place, {})[bit] = each

    def _find(self, asked: _Field) -> Any:
        """The scalar that stands there in all rows of the kind, `ABSENT`, the place to look at, or `_UNSURE`."""
        path = asked.path
        if path in self._fixed:
            return self._fixed[path]
        if path[0] == "changes" and not self._has_old_row:
            return ABSENT  # it is null
        if len(path) != 2 or path[0] not in {"record", "changes"}:
            return _UNSURE
        column = self._sent.get(path[1])
        if column is None:
            return ABSENT
        form = column.value_type.form
        if form in _NOT_SCALAR or (asked.numeric and reads_text(asked.tests)):
            return _UNSURE
        reading = Reading.CONVERTED if asked.numeric else _READINGS.get(form, Reading.CONVERTED)
        return column.index, path[0] == "changes", reading, asked.numeric

    def made(self) -> Iterator[Question]:
        everything = (1 << len(self.triggers)) - 1
        for (index, of_changes, reading, numeric), asked in self._asked.items():
            convert = None
            if reading is Reading.CONVERTED:
                convert = _number_of if numeric else _converter(self._plan.columns[index], exact=self._exact)
            question = Question(index, of_changes, reading, sum(asked), convert)
            _answer(question, asked, everything & ~question.asked_by)
            yield question


def _answer(question: Question, asked: Mapping[Bits, _Field], others: Bits) -> None:
    """Fill in the answers; `others` are the conjunctions that do not ask about the column."""
    looked_up = {bit: each for bit, each in asked.items() if all(map(_is_looked_up, each.tests))}
    question.otherwise = others | sum(bit for bit, each in looked_up.items() if any(map(_takes_others, each.tests)))
    truths = question.reading is Reading.TRUTH
    answers = question.answers
    for bit, each in looked_up.items():
        for constant in _constants(each.tests):
            if isinstance(constant, bool) != truths:
                continue  # no value of this column has it, but in Python one might be equal to it
            answer = answers.get(constant, question.otherwise)
            answers[constant] = answer | bit if each.accepts(constant) else answer & ~bit
    answers[None] = others | sum(bit for bit, each in asked.items() if each.accepts(None))
    answers[ABSENT] = others | sum(bit for bit, each in asked.items() if each.or_absent)
    # What several conjunctions ask is asked once. By its text, since 1 and True are equal here, too.
    shared: dict[str, tuple[_Field, Bits]] = {}
    for bit, each in asked.items():
        if bit not in looked_up:
            known, bits = shared.get(repr(each.tests), (each, 0))
            shared[repr(each.tests)] = known, bits | bit
    by_sort: dict[str | None, list[tuple[_Field, Bits]]] = {}
    for each, bits in shared.values():
        by_sort.setdefault(_sort_of(each.tests), []).append((each, bits))
    single: list[tuple[Accepts, Bits]] = []
    tables: list[tuple[Callable[[Any], Bits], Bits]] = []
    for sort, fields in by_sort.items():
        if sort is None or len(fields) < TABLE_FROM:
            single += [(each.accepts, bits) for each, bits in fields]
        else:
            table = _TABLES[sort]([(each.tests[0], bits) for each, bits in fields])
            tables.append((table, sum(bits for _, bits in fields)))
    question.predicates, question.tables = tuple(single), tuple(tables)


def _sort_of(tests: tuple[Test, ...]) -> str | None:
    """Which table can answer for alternatives like these."""
    match tests:
        case (Between(),):
            return "range"
        case (Affix(ignore_case=False, at_end=at_end),):
            return "suffix" if at_end else "prefix"
    return None


def _ranges(tests: Sequence[tuple[Any, Bits]]) -> Callable[[Any], Bits]:
    """Which ranges a number is in, by its place among all of their limits."""
    limits = sorted({limit for test, _ in tests for limit in (test.low, test.high) if limit is not None})
    # Places: 0 below the first limit, 1 the limit itself, 2 between it and the next, and so on.
    at = {limit: 2 * index + 1 for index, limit in enumerate(limits)}
    changes = [0] * (2 * len(limits) + 2)
    for test, bits in tests:
        changes[0 if test.low is None else at[test.low] + test.low_open] ^= bits
        changes[-1 if test.high is None else at[test.high] - test.high_open + 1] ^= bits
    places = list(accumulate(changes, xor))

    def answer(value: Any) -> Bits:
        known = number(value)
        return 0 if known is None else places[bisect_left(limits, known) + bisect_right(limits, known)]

    return answer


def _prefixes(tests: Sequence[tuple[Any, Bits]]) -> Callable[[Any], Bits]:
    by_length = _by_length(tests)

    def answer(value: Any) -> Bits:
        found = 0
        if value.__class__ is str:
            for length, known in by_length:
                found |= known.get(value[:length], 0)
        return found

    return answer


def _suffixes(tests: Sequence[tuple[Any, Bits]]) -> Callable[[Any], Bits]:
    by_length = _by_length(tests)

    def answer(value: Any) -> Bits:
        found = 0
        if value.__class__ is str:
            for length, known in by_length:
                found |= known.get(value[len(value) - length :], 0)  # of a shorter text, something shorter
        return found

    return answer


def _by_length(tests: Sequence[tuple[Any, Bits]]) -> list[tuple[int, dict[str, Bits]]]:
    found: dict[int, dict[str, Bits]] = {}
    for test, bits in tests:
        found.setdefault(len(test.text), {})[test.text] = bits
    return list(found.items())


_TABLES: Final = {"range": _ranges, "prefix": _prefixes, "suffix": _suffixes}


def _is_looked_up(test: Test) -> bool:
    """Whether the constants in a test are all that one has to know of it."""
    if isinstance(test, AnythingBut):
        return all(isinstance(excluded, Equals) for excluded in test.tests)
    return isinstance(test, Equals | Exists)


def _takes_others(test: Test) -> bool:
    """Whether a test like that accepts a value that is none of its constants."""
    return isinstance(test, AnythingBut) or test == Exists(wanted=True)


def _constants(tests: Iterable[Test]) -> Iterator[Any]:
    for test in tests:
        if isinstance(test, Equals):
            yield test.value
        elif isinstance(test, AnythingBut):
            yield from _constants(test.tests)


def _accept_all(_value: Any) -> bool:
    return True


_PRESENT: Final = _Field((), (Exists(wanted=True),), _accept_all, or_absent=False, numeric=False)


def _number_of(text: bytes) -> Any:
    """The number that a numeric is; its NaN and infinities stay text."""
    known = number_or_numeric_text(text.decode("ascii"))
    return orjson.loads(b'"%b"' % text) if known is None else known


_STRING: Final = re.compile(rb'"[\x20\x21\x23-\x5b\x5d-\x7f]*"')
_NUMBER: Final = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _converter(column: ColumnPlan, *, exact: bool) -> Callable[[bytes], Any]:
    """By the column's own encoder; anything but a number and a string without escapes is given up."""
    encode = column.encode

    def convert(text: bytes) -> Any:
        written = encode(text)
        if _STRING.fullmatch(written):
            return written[1:-1].decode("ascii")
        if _NUMBER.fullmatch(written):
            return number(load_event(b'{"":%b}' % written, exact=exact)[""])
        raise NotHereError

    return convert
