"""docs/handlers.md: its functions do what it says, and its test passes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from bridge.testing import change_event, invocation

DOCS = Path(__file__).parents[3] / "docs"
BLOCKS = dict(
    re.findall(r"^```python (\w+)\n(.*?)^```$", (DOCS / "handlers.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
)
ANN = change_event({"id": 1, "name": "Ann"}, ordinal=0)
NOBODY = change_event({"id": 2, "name": ""}, ordinal=1)


class Context:
    function_name = "f"
    aws_request_id = "r"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def load(*names: str) -> dict[str, object]:
    module: dict[str, object] = {"__name__": "handler"}
    for name in names:
        exec(BLOCKS[name], module)
    return module


def test_each_example_has_a_test():
    assert set(BLOCKS) == {"welcome", "typed", "asynchronous", "once", "parser", "data_classes", "test"}


def test_the_test_of_the_page_passes(capsys):
    load("welcome", "test")["test_a_user_without_a_name_fails_alone"]()
    assert "Hello Ann" in capsys.readouterr().out


def test_rows_have_types_and_one_that_does_not_fit_fails_alone(capsys):
    handler = load("typed")["lambda_handler"]
    went = change_event({"id": 1, "name": "Ann", "plan": "pro"}, action="update", changes={"plan": "free"}, ordinal=2)
    unfit = change_event({"id": 3}, ordinal=3)
    answer = handler(invocation(went, unfit), Context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": unfit["id"]}]}
    assert capsys.readouterr().out == "Ann went from free to pro\n"


def test_async_functions_are_awaited(capsys):
    answer = load("asynchronous")["lambda_handler"](invocation(ANN, NOBODY), Context())
    assert answer == {"batchItemFailures": []}
    assert sorted(capsys.readouterr().out.split()) == ["1", "2"]


def test_a_change_takes_effect_once(capsys, monkeypatch):
    monkeypatch.setenv("IDEMPOTENCY_TABLE", "once")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    with mock_aws():
        boto3.client("dynamodb").create_table(
            TableName="once",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        handler = load("once")["lambda_handler"]
        for _ in range(2):
            assert handler(invocation(ANN), Context()) == {"batchItemFailures": []}
    assert capsys.readouterr().out == "charged 1\n"


def test_the_parser_hands_over_rows(capsys):
    load("parser")["lambda_handler"](invocation(ANN), Context())
    assert capsys.readouterr().out == "Ann\n"


def test_the_data_class_hands_over_changes(capsys):
    load("data_classes")["lambda_handler"](invocation(ANN), Context())
    assert capsys.readouterr().out == "users insert\n"


@pytest.mark.parametrize(
    "shown",
    re.findall(r"^```json\n(\{\"id\".*?)^```$", (DOCS / "events.md").read_text("utf-8"), re.DOTALL | re.MULTILINE),
)
def test_an_event_for_tests_has_the_members_of_a_real_one(shown):
    real = json.loads(shown)
    optional = {"message", "truncate", "context"}
    assert list(ANN) == list(real)
    assert list(ANN["metadata"]) == [member for member in real["metadata"] if member not in optional]
