"""
The answer of a handler that reports which records failed (`ReportBatchItemFailures`). Pure.

    {"batchItemFailures": [{"itemIdentifier": "<event id>"}, …]}

The rules are those of Lambda's event source mappings for streams ("Reporting batch item failures", success and failure
conditions). Success: null, {}, [], "", nothing at all, and an object whose `batchItemFailures` is absent, null or
empty. Anything that can't be read as a report is the failure of the whole batch: to take it for a success would lose
what the handler meant to give back.

What can be read is read, though: a handler's own words beside the ids may be half a surrogate pair or NaN, which
`json.dumps` writes without complaint and strict parsers refuse. Only the ids matter, and those are ASCII.

Event source mappings read reports only where they were told to; we read them also where nobody said anything. There, an
answer that is no object at all, such as a webhook receiver's `OK`, is not a broken report but none; one that can't be
read and speaks of `batchItemFailures` is broken, as one that is cut short behind it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import orjson

FAILURES: Final = "batchItemFailures"
IDENTIFIER: Final = "itemIdentifier"


class Report(Enum):
    """What a target's answer is to the trigger."""

    IGNORED = "ignored"
    """Not read: any success is one."""
    WELCOME = "welcome"
    """Read where it is a JSON object; nobody promised that it would be one."""
    EXPECTED = "expected"
    """The settings say that it is a report, so whatever is none is a failure."""


class UnusableReport(ValueError):
    """The answer is no report; the message says where it departs from the form, and quotes nothing of it."""


def failed_ids(
    body: bytes, ids: Sequence[str], *, whole: bool = True, report: Report = Report.EXPECTED
) -> frozenset[str]:
    """
    The events that the handler gave back; empty when all of them succeeded.

    Args:
        body: the answer.
        ids: the event ids of the batch.
        whole: False where only the beginning of the answer was read.
        report: how the answer is meant.

    Raises:
        UnusableReport: the batch has failed as a whole.
    """
    if report is Report.IGNORED or not body.strip():
        return frozenset()
    promised = report is Report.EXPECTED or FAILURES.encode() in body
    if not whole:
        if not promised:
            return frozenset()
        raise UnusableReport("it is longer than a report of this batch can be")
    try:
        answer = _parse(body)
    except (ValueError, RecursionError):
        if not promised:
            return frozenset()
        raise UnusableReport("it is not JSON") from None  # the error would carry the whole document
    if answer is None or answer in ({}, [], ""):
        return frozenset()
    if not isinstance(answer, dict):
        if report is Report.WELCOME:
            return frozenset()
        raise UnusableReport("it is not an object")
    _refuse_other_spellings(answer, FAILURES, "the response")
    failures = answer.get(FAILURES)
    if failures is None:
        return frozenset()
    if not isinstance(failures, list):
        raise UnusableReport(f"{FAILURES} is not a list")
    if not failures:
        return frozenset()
    known = set(ids)
    return frozenset(_identifier(failure, place, known) for place, failure in enumerate(failures))


def _parse(body: bytes) -> Any:
    """The fast and strict way, and for what it refuses the forgiving one. Of a repeated key both take the last."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body.decode("utf-8-sig", "replace"))


def _identifier(failure: Any, place: int, known: set[str]) -> str:
    where = f"{FAILURES}[{place}]"
    if not isinstance(failure, dict):
        raise UnusableReport(f"{where} is not an object")
    _refuse_other_spellings(failure, IDENTIFIER, where)
    identifier = failure.get(IDENTIFIER)
    if identifier is None:
        raise UnusableReport(f"{where} has no {IDENTIFIER}" if IDENTIFIER not in failure else f"{where} names null")
    if not isinstance(identifier, str):
        raise UnusableReport(f"{where} names something that is not a string")
    if not identifier:
        raise UnusableReport(f"{where} names an empty string")
    if identifier not in known:
        raise UnusableReport(f"{where} names no event of this batch")
    return identifier


def _refuse_other_spellings(mapping: dict[str, Any], name: str, where: str) -> None:
    """`BatchItemFailures` or `batch_item_failures` is a report that would be overlooked, unless there is none in it."""
    wanted = _plain(name)
    for key, value in mapping.items():
        if key != name and _plain(key) == wanted and value not in (None, [], "", {}):
            raise UnusableReport(f"{where} has {name} in another spelling")


def _plain(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()
