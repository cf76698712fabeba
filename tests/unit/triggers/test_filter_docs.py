"""docs/filters.md says what is true: each example in it is run."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge.triggers.filter import PatternError, compile_patterns
from bridge.triggers.filter.operators import _INSIDE_ANYTHING_BUT, _OPERATORS

DOCUMENT = Path(__file__).parents[3] / "docs" / "filters.md"
BLOCK = re.compile(
    r"^```json (?P<kind>\w+)(?: numeric=(?P<numeric>\S+))?\n(?P<json>.*?)^```\n", re.MULTILINE | re.DOTALL
)


class Example(NamedTuple):
    line: int
    pattern: str
    kind: str
    numeric: str | None
    event: str
    reason: str


def examples():
    text = DOCUMENT.read_text(encoding="utf-8")
    pattern = ""
    for block in BLOCK.finditer(text):
        kind, content = block["kind"], block["json"]
        line = text.count("\n", 0, block.start()) + 1
        if kind == "pattern":
            pattern = content
        elif kind == "refused":
            reason = text[block.end() :].splitlines()[0]
            yield Example(line, content, kind, None, "", reason.removeprefix("> "))
        else:
            yield Example(line, pattern, kind, block["numeric"], content, "")


EXAMPLES = list(examples())


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if one.kind != "refused"], ids=lambda one: f"line {one.line}"
)
def test_an_example_does_what_the_document_says(example):
    assert example.kind in ("matches", "misses")
    numeric_paths = {tuple(example.numeric.split("."))} if example.numeric else set()
    matcher = compile_patterns([example.pattern])
    answer = matcher.matches_json(example.event.encode(), numeric_text=numeric_paths.__contains__)
    assert answer is (example.kind == "matches")


@pytest.mark.parametrize(
    "example", [one for one in EXAMPLES if one.kind == "refused"], ids=lambda one: f"line {one.line}"
)
def test_a_pattern_that_the_document_refuses_is_refused_in_its_words(example):
    with pytest.raises(PatternError) as refused:
        compile_patterns([example.pattern])
    assert str(refused.value) == example.reason


def test_the_document_has_an_example_that_matches_and_one_that_does_not_for_every_operator():
    for kind in ("matches", "misses"):
        patterns = [one.pattern for one in EXAMPLES if one.kind == kind]
        for operator in _OPERATORS:
            assert any(f'{{"{operator}":' in pattern for pattern in patterns), operator
        for operator in _INSIDE_ANYTHING_BUT:
            assert any(f'{{"anything-but": {{"{operator}":' in pattern for pattern in patterns), operator
        assert any('"$or"' in pattern for pattern in patterns)


def test_no_block_of_json_is_left_out():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count("```json") == len(BLOCK.findall(text)) == len(EXAMPLES) + text.count("```json pattern")
