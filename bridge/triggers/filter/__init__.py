"""
Filter patterns: which events a trigger wants, in the language of EventBridge and Lambda event source mappings. Pure.

Comes in: patterns, as JSON text or as what YAML and JSON parse to. Goes out: a `Matcher` that says of one event whether
any of the patterns matches it, and a `FilterSet` that says which of many matchers do.

How it works. A pattern is a set of fields, each with a list of alternatives; an event matches when every field is met
by one of its alternatives. `grammar.py` reads a pattern and flattens it: nested objects become dotted names, and each
way through its `$or`s becomes a *conjunction* of its own. `operators.py` reads alternatives; both refuse what is not
in the language. `leaf.py` turns a field's alternatives into one predicate over a scalar. `matcher.py` looks the scalars
up and asks; where an array lies on the way it leaves the question to `arrays.py`, which knows that two fields of one
pattern must be met by one and the same element. `index.py` finds the conjunctions worth asking by the constants they
need, so that a hundred triggers cost about as much as one.

What it promises. The semantics are those of AWS's open-source event-ruler, its main branch, where documents differ.
What we do otherwise is listed here and in `docs/filters.md`:

- Numbers are compared by value, whatever their size and digits (event-ruler compares 64-bit floats, and lets a number
  that is none match nothing but its own spelling). Numbers in a pattern keep event-ruler's range, that of such floats.
- A column of type numeric travels as text, to stay exact; where `numeric_text` says that a path is such a column,
  numbers in the pattern are compared with that text by value. A text column "300" still never equals 300.
- `$or` is always the operator, never a field of that name; an empty list inside `anything-but` is refused.
- An address matches only a `cidr` of its own family, and a quotation mark is an ordinary character: event-ruler's state
  machine lets a few values slip through on how it writes addresses and strings.
- No pattern is too complex: matching a wildcard takes time in proportion to the text, so there is nothing to limit.
"""

from bridge.triggers.filter.grammar import read_patterns
from bridge.triggers.filter.index import FilterSet
from bridge.triggers.filter.language import Pattern, PatternError
from bridge.triggers.filter.matcher import Matcher, NumericText, compile_patterns
from bridge.triggers.filter.values import load_event

__all__ = [
    "FilterSet",
    "Matcher",
    "NumericText",
    "Pattern",
    "PatternError",
    "compile_patterns",
    "load_event",
    "read_patterns",
]
