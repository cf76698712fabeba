"""What docs/delivery.md says is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from multidict import CIMultiDict

from bridge.config import parse
from bridge.config.problems import _ELSEWHERE
from bridge.config.trigger import CircuitBreakerSettings, TriggerSettings
from bridge.delivery import circuit, on_failure, retry
from bridge.delivery.answer import Answer
from bridge.delivery.batch_response import Report, UnusableReport, failed_ids
from bridge.delivery.classify import http_outcome
from bridge.delivery.decide import Condition
from bridge.delivery.outcome import Busy, Delivered, Failed, Misconfigured, Rejected, TooLarge
from bridge.triggers.filter import compile_patterns

TEXT = (Path(__file__).parents[3] / "docs" / "delivery.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())
ID = "0000000001A2B3C0-0000000003"
CLASSES = {
    "delivered": Delivered, "failed": Failed, "busy": Busy, "misconfigured": Misconfigured, "too large": TooLarge,
    "rejected": Rejected,
}  # fmt: skip


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its own."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


@pytest.mark.parametrize("row", table("What an answer means"), ids=lambda row: row[0])
def test_each_answer_means_what_the_table_says(row):
    answers, meaning = row
    for answer in re.findall(r"`([^`]*)`", answers) or [""]:
        body = answer.replace("<id of the batch>", ID).encode()
        if meaning == "the whole batch failed":
            with pytest.raises(UnusableReport):
                failed_ids(body, [ID, "other"], report=Report.EXPECTED)
        else:
            failed = failed_ids(body, [ID, "other"], report=Report.EXPECTED)
            assert failed == ({ID} if meaning == "just that one failed" else frozenset())


def outcome_of(status: int, **headers: str):
    answer = Answer(status, CIMultiDict({k.replace("_", "-"): v for k, v in headers.items()}), b"", whole=True)
    return http_outcome(answer, ids=[ID], report=Report.IGNORED, now=0.0)


@pytest.mark.parametrize("row", table("What a failure means"), ids=lambda row: row[1])
def test_each_http_status_has_the_class_of_the_table(row):
    came_back, name = row[:2]
    if name == "accepted":
        return
    for part in came_back.split(";"):
        if "HTTP" not in part:
            continue
        headers = {"Retry_After": "3"} if "Retry-After" in part else {}
        statuses = [int(text) for text in re.findall(r"\b([2-5]\d\d)\b", part)]
        statuses += [int(family) * 100 for family in re.findall(r"\b([235])xx", part)]
        statuses += [400, 409, 418, 422] if "other HTTP 4xx" in part else []
        assert statuses, part
        for status in statuses:
            assert type(outcome_of(status, **headers)) is CLASSES[name], status
    if name == "misconfigured":
        assert outcome_of(410).disable


def test_the_numbers_of_the_text_are_those_of_the_code():
    assert f"doubles from {retry.BASE_SECONDS:g} s to {retry.CEILING_SECONDS:g} s" in FLAT
    assert f"{retry.RETRY_AFTER_LIMIT_SECONDS:g} s at most" in FLAT
    assert (
        f"after {circuit.FIRST_PROBE_SECONDS:g} s, then 2, 4 and so on to {circuit.LONGEST_PROBE_SECONDS:g} s" in FLAT
    )
    assert f"One above {on_failure.MESSAGE_BYTES // 1024} KiB" in FLAT
    for condition in Condition:
        assert f"`{condition}`" in FLAT
    for name in CircuitBreakerSettings.model_fields:
        assert f"`circuit_breaker.{name}`" in FLAT


ESM = table("Beside an event source mapping")


@pytest.mark.parametrize("row", ESM, ids=lambda row: row[0])
def test_each_property_of_an_event_source_mapping_is_a_setting_or_refused_with_a_reason(row):
    theirs, ours, verdict = (cell.strip("`") for cell in row)
    if ours == "\N{EN DASH}":
        assert verdict.startswith("left out: ")
        assert theirs in _ELSEWHERE
    else:
        assert ours in TriggerSettings.model_fields
        assert verdict.startswith(("same", "better: ", "taken"))


def test_the_defaults_that_the_comparison_names_are_the_defaults():
    fields, verdicts = TriggerSettings.model_fields, {row[1].strip("`"): row[2] for row in ESM}
    assert f"default {fields['batch_size'].default}" in verdicts["batch_size"]
    assert f"default {fields['maximum_retry_attempts'].default}," in verdicts["maximum_retry_attempts"]
    assert fields["bisect_batch_on_function_error"].default is True


def test_the_example_of_a_claim_check_is_json_with_the_mark():
    (example,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    event = json.loads(example)
    assert event["metadata"]["claim_check"] is True
    assert set(event["record"]["claim_check"]) == {"bucket", "key", "bytes", "sha256"}


def test_the_filter_against_loops_lets_pass_what_is_not_marked():
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    patterns = yaml.safe_load(example)["filter_criteria"]
    matches = compile_patterns(patterns).matches_json
    assert matches(b'{"metadata":{"trigger":"t"}}')
    assert not matches(b'{"metadata":{"context":{"written_by":"greeter"}}}')


def test_the_settings_that_the_text_names_exist():
    text = """
source: {dsn: postgresql://u@h/d, origin: none}
triggers:
  t:
    tables: [public.users]
    target: {lambda: {function_name: f, tenant_id_column: org, durable_execution_name: true, trace_headers: false}}
    maximum_concurrency: 5
    maximum_invocations_per_second: 10
    loop_guard: 50
    claim_check: {bucket: large-events, prefix: x/}
    on_failure: {destination: "arn:aws:sqs:eu-west-1:1:q"}
    on_dead_letter: hold_key
"""
    assert parse(text, {}).source.origin == "none"
