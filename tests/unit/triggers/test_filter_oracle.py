"""
The compiled matcher against a slow one that is obviously right.

The slow one follows the rules as event-ruler states them: write every way through the `$or`s out, flatten the whole event,
and try every choice of a value for every field, one after the other by name. It shares no code with the real one, and
computes with fractions, bits and recursion where the real one has sets, `ipaddress` and regular expressions.
"""

import itertools
import json
import re
import socket
from decimal import Decimal
from fractions import Fraction

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from bridge.triggers.filter import FilterSet, compile_patterns

# --- the slow matcher


def slow_matches(patterns, record, numeric_names=frozenset()):
    values = list(flattened(record, (), ()))
    return not patterns or any(
        meets(sorted(dict(way).items(), key=lambda field: field[0].encode("utf-16-be")), {}, values, numeric_names)
        for pattern in patterns
        for way in ways(pattern, ())
    )


def ways(fields, steps):
    """Each way through the `$or`s, as the (name, alternatives) it writes in order; a later one replaces an earlier."""
    choices = []
    for name, value in fields.items():
        if name == "$or":
            choices.append([way for entry in value for way in ways(entry, steps)])
        elif isinstance(value, dict):
            choices.append(list(ways(value, (*steps, name))))
        else:
            choices.append([[(".".join((*steps, name)), value)]])
    for choice in itertools.product(*choices):
        yield [write for way in choice for write in way]


def flattened(value, steps, elements):
    """(name, scalar, {array: index}) for each scalar; an array is known by where it stands in the event."""
    yield from _flattened(value, steps, dict(elements), ())


def _flattened(value, steps, elements, here):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flattened(inner, (*steps, name), elements, (*here, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            inside = {**elements, here: index} if isinstance(inner, dict | list) else elements
            yield from _flattened(inner, steps, inside, (*here, index))
    else:
        yield ".".join(steps), value, elements


def meets(fields, chosen, values, numeric_names):
    if not fields:
        return True
    (name, alternatives), *others = fields
    possible = [
        (value, {**chosen, **elements})
        for its_name, value, elements in values
        if its_name == name and all(chosen.get(array, index) == index for array, index in elements.items())
    ]
    if not possible and any(is_operator(one, "exists") and one["exists"] is False for one in alternatives):
        return meets(others, chosen, values, numeric_names)
    return any(
        meets(others, then, values, numeric_names)
        for value, then in possible
        if any(accepts(one, value, numeric=name in numeric_names) for one in alternatives)
    )


def is_operator(alternative, name):
    return isinstance(alternative, dict) and name in alternative


def accepts(alternative, value, *, numeric):
    if not isinstance(alternative, dict):
        if isinstance(alternative, str) and address_bits(alternative) is not None:
            return isinstance(value, str) and address_bits(value) == address_bits(alternative)
        return same(alternative, value, numeric=numeric)
    ((name, operand),) = alternative.items()
    if name == "exists":
        return operand
    if name == "anything-but":
        if isinstance(operand, dict):
            ((name, operand),) = operand.items()
            unwanted = [{name: one} for one in (operand if isinstance(operand, list) else [operand])]
            return not any(accepts(one, value, numeric=numeric) for one in unwanted)
        return not any(
            same(one, value, numeric=numeric) for one in (operand if isinstance(operand, list) else [operand])
        )
    if name == "numeric":
        known = fraction(value, numeric=numeric)
        pairs = zip(operand[::2], operand[1::2], strict=True)
        return known is not None and all(compare(known, sign, fraction(limit)) for sign, limit in pairs)
    if not isinstance(value, str):
        return False
    if name == "exactly":
        return value == operand
    if name == "cidr":
        base, length = operand.split("/")
        block, bits = address_bits(base), address_bits(value)
        return bits is not None and len(bits) == len(block) and bits[: int(length)] == block[: int(length)]
    if name == "wildcard":
        return wild(operand, value)
    if name == "equals-ignore-case":
        return "" in rests_ignoring_case(operand, value)
    if isinstance(operand, dict):
        text = operand["equals-ignore-case"]
        if name == "prefix":
            return bool(rests_ignoring_case(text, value))
        return any("" in rests_ignoring_case(text, value[start:]) for start in range(len(value) + 1))
    return value.startswith(operand) if name == "prefix" else value.endswith(operand)


def same(wanted, value, *, numeric):
    if fraction(wanted) is not None:
        return fraction(wanted) == fraction(value, numeric=numeric)
    return type(wanted) is type(value) and wanted == value


def fraction(value, *, numeric=False):
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        return Fraction(value) if numeric and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value) else None
    return Fraction(str(value))


def compare(left, sign, right):
    return {"=": left == right, "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def address_bits(text):
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", text) and all(int(octet) < 256 for octet in text.split(".")):
        return "".join(f"{int(octet):08b}" for octet in text.split("."))
    if re.fullmatch(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*", text):
        try:
            bits = "".join(f"{byte:08b}" for byte in socket.inet_pton(socket.AF_INET6, text))
        except OSError:
            return None
        return bits[96:] if bits.startswith("0" * 80 + "1" * 16) else bits
    return None


def wild(pattern, text):
    if not pattern:
        return not text
    if pattern[0] == "*":
        return wild(pattern[1:], text) or (bool(text) and wild(pattern, text[1:]))
    literal, others = (pattern[1], pattern[2:]) if pattern[0] == "\\" else (pattern[0], pattern[1:])
    return text.startswith(literal) and wild(others, text[1:])


def rests_ignoring_case(operand, text):
    """What can be left of the text after each character of the operand took its lower or its upper form."""
    rests = {text}
    for character in operand:
        forms = {character.lower(), character.upper()}
        rests = {rest[len(form) :] for rest in rests for form in forms if rest.startswith(form)}
    return rests


# --- what they are asked about: few names and few values, so that they meet

NAMES = st.sampled_from(["a", "b", "a.b"])
WORDS = ["a", "A", "ab", "aB", "aba", "b*", "*", "\\", "ß", "SS", "ss", "1", "1.0", "300", "null", "é", "É"]
TEXTS = st.sampled_from(["", *WORDS])
FULL_TEXTS = st.sampled_from(WORDS)
ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.0.0.01", "10.0.1.1", "10.0.0.256", "::1", "0:0::1", "::ffff:a00:1", "fe80::a", "FE80::A", "1:2"]
)
NUMBERS = st.sampled_from(
    [
        0,
        -0.0,
        1,
        1.0,
        Decimal("1.00"),
        -1,
        300,
        Decimal("3E+2"),
        0.1,
        Decimal("0.1"),
        Decimal("0.1000001"),
        2**63,
        10**25,
    ]
)
NUMERIC_TEXTS = st.sampled_from(["1.00", "-0.00", "300", "0.10", "12345678901234567890.5", "NaN", "Infinity"])
SCALARS = st.one_of(TEXTS, TEXTS, NUMBERS, ADDRESSES, NUMERIC_TEXTS, st.booleans(), st.none())
LIMITS = st.sampled_from([-1, 0, 0.1, Decimal("0.100000"), 1, 1.5, 300, 500_000_000_000, 2**63 - 1, Decimal("1e-8")])
WILDCARDS = st.sampled_from(
    [
        "",
        "*",
        "a",
        "a*",
        "*a",
        "a*a",
        "*a*",
        "*ab*ba",
        "a*b*a",
        "*b*",
        r"\*",
        r"*\**",
        r"b\*",
        r"\\",
        r"*\\",
        "*ß",
        "S*",
        "1*0",
    ]
)
RANGES = st.sampled_from([(-1, 0), (0, 1), (0.1, 1.5), (Decimal("0.100000"), 300), (-1, 500_000_000_000)])
CIDRS = st.one_of(
    st.tuples(st.sampled_from(["10.0.0.0", "10.0.0.1", "::ffff:a00:0"]), st.integers(0, 31)),
    st.tuples(st.sampled_from(["::", "fe80::", "::1"]), st.integers(0, 127)),
).map(lambda block: f"{block[0]}/{block[1]}")


def one_or_some(values):
    return st.one_of(values, st.lists(values, min_size=1, max_size=3))


OPERATORS = st.one_of(
    TEXTS.map(lambda text: {"prefix": text}),
    TEXTS.map(lambda text: {"suffix": text}),
    TEXTS.map(lambda text: {"equals-ignore-case": text}),
    TEXTS.map(lambda text: {"prefix": {"equals-ignore-case": text}}),
    TEXTS.map(lambda text: {"suffix": {"equals-ignore-case": text}}),
    st.one_of(TEXTS, ADDRESSES).map(lambda text: {"exactly": text}),
    WILDCARDS.map(lambda text: {"wildcard": text}),
    st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), LIMITS).map(lambda terms: {"numeric": list(terms)}),
    st.tuples(st.sampled_from([">", ">="]), st.sampled_from(["<", "<="]), RANGES).map(
        lambda terms: {"numeric": [terms[0], terms[2][0], terms[1], terms[2][1]]}
    ),
    CIDRS.map(lambda block: {"cidr": block}),
    st.booleans().map(lambda wanted: {"exists": wanted}),
    one_or_some(st.one_of(TEXTS, NUMERIC_TEXTS)).map(lambda unwanted: {"anything-but": unwanted}),
    one_or_some(LIMITS).map(lambda unwanted: {"anything-but": unwanted}),
    one_or_some(FULL_TEXTS).map(lambda unwanted: {"anything-but": {"prefix": unwanted}}),
    one_or_some(FULL_TEXTS).map(lambda unwanted: {"anything-but": {"suffix": unwanted}}),
    one_or_some(TEXTS).map(lambda unwanted: {"anything-but": {"equals-ignore-case": unwanted}}),
    one_or_some(WILDCARDS).map(lambda unwanted: {"anything-but": {"wildcard": unwanted}}),
)
ALTERNATIVES = st.lists(st.one_of(SCALARS, OPERATORS), min_size=1, max_size=3)
# Values and alternatives that often meet, for the questions of structure rather than of operators.
SMALL = st.sampled_from([1, 2, "x", None])
SMALL_ALTERNATIVES = st.lists(
    st.one_of(SMALL, st.sampled_from([{"exists": False}, {"exists": True}, {"anything-but": "x"}])),
    min_size=1,
    max_size=2,
)


def patterns_of(alternatives):
    def fields(inner):
        return st.dictionaries(NAMES, inner, min_size=1, max_size=3)

    def with_or(inner):
        plain = fields(st.one_of(alternatives, inner))
        either = st.lists(plain, min_size=2, max_size=3).map(lambda entries: {"$or": entries})
        return st.one_of(
            plain,
            either,
            st.tuples(plain, either).map(lambda two: {**two[0], **two[1]}),
            st.tuples(either, plain).map(lambda two: {**two[0], **two[1]}),
        )

    return st.recursive(fields(alternatives), with_or, max_leaves=4)


def events_of(scalars):
    def inner(values):
        return st.one_of(
            st.lists(values, max_size=3),
            st.dictionaries(NAMES, values, max_size=3),
            st.lists(st.dictionaries(NAMES, values, max_size=3), max_size=3),
        )

    return st.dictionaries(NAMES, st.recursive(scalars, inner, max_leaves=10), max_size=3)


def as_json(value):
    """JSON with every number in its own digits."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{as_json(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_json, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


# The matcher takes microseconds; what takes time is to think of patterns.
CAREFUL = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(CAREFUL, max_examples=1000)
@given(alternatives=ALTERNATIVES, value=SCALARS, numeric=st.booleans())
@example(alternatives=[{"wildcard": "*ab*ba"}], value="aba", numeric=False)
@example(alternatives=[{"suffix": {"equals-ignore-case": "ß"}}], value="xSS", numeric=False)
@example(alternatives=[{"anything-but": [1, 300]}], value="1.00", numeric=True)
def test_every_operator_accepts_what_the_slow_one_accepts(alternatives, value, numeric):
    pattern, record = {"v": alternatives}, {"v": value}
    expected = slow_matches([pattern], record, {"v"} if numeric else set())
    event(f"{expected}")
    matcher = compile_patterns([pattern])
    numeric_text = {("v",)}.__contains__ if numeric else None
    assert matcher.matches(record, numeric_text=numeric_text) is expected
    assert matcher.matches_json(as_json(record).encode(), numeric_text=numeric_text) is expected
    assert compile_patterns([as_json(pattern)]).matches(record, numeric_text=numeric_text) is expected


@CAREFUL
@given(pattern=patterns_of(SMALL_ALTERNATIVES), record=events_of(SMALL))
@example(pattern={"a": {"a": [1], "b": [{"exists": False}]}}, record={"a": [{"a": 1}, {"b": 2}]})
@example(pattern={"a": {"a": [{"exists": False}], "b": [1]}}, record={"a": [{"a": 1}, {"b": 1}]})
@example(pattern={"a.b": [1], "a": {"a": [2]}}, record={"a": [[{"b": 1}, {"a": 2}], {"a": 2, "b": 1}]})
def test_fields_arrays_and_ors_mean_what_the_slow_one_says(pattern, record):
    expected = slow_matches([pattern], record)
    event(f"{expected}")
    matcher = compile_patterns([pattern])
    assert matcher.matches(record) is expected
    assert matcher.matches_json(as_json(record).encode()) is expected
    assert compile_patterns([as_json(pattern)]).matches(record) is expected


@CAREFUL
@given(
    sets=st.lists(
        st.lists(st.one_of(patterns_of(SMALL_ALTERNATIVES), patterns_of(ALTERNATIVES)), max_size=2),
        max_size=5,
    ),
    record=events_of(st.one_of(SMALL, SCALARS)),
    numeric_names=st.sets(st.sampled_from(["a", "b", "a.b", "a.a"])),
)
@example(sets=[[{"a": [True]}], [{"a": [1]}], [{"a": [1.0, True]}]], record={"a": 1}, numeric_names=set())
@example(sets=[[{"a": [1]}], [{"a": ["1.00"]}]], record={"a": ["1.00"]}, numeric_names={"a"})
def test_a_set_finds_the_matchers_that_match(sets, record, numeric_names):
    several = FilterSet({index: compile_patterns(patterns) for index, patterns in enumerate(sets)})
    expected = [index for index, patterns in enumerate(sets) if slow_matches(patterns, record, numeric_names)]
    event(f"{len(expected)} of {len(sets)}")

    def numeric_text(path):
        return ".".join(path) in numeric_names

    assert several.matching(record, numeric_text=numeric_text) == expected
    assert several.bind(numeric_text).matching(record) == expected


@CAREFUL
@given(pattern=patterns_of(SMALL_ALTERNATIVES), record=events_of(SMALL))
def test_only_what_a_matcher_reads_bears_on_its_answer(pattern, record):
    matcher = compile_patterns([pattern])

    def needed(value, keys):
        if not isinstance(value, dict):
            return value
        return {key: needed(inner, (*keys, key)) for key, inner in value.items() if matcher.reads(*keys, key)}

    assert matcher.matches(needed(record, ())) is matcher.matches(record)
