import time

import boto3
import pytest
from aws_lambda_powertools.utilities.idempotency import (
    BasePersistenceLayer,
    DynamoDBPersistenceLayer,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
    IdempotencyKeyError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
from moto import mock_aws
from pydantic import BaseModel

from bridge.handlers import ChangeEvent, Event, process_changes
from bridge.handlers.idempotency import EXPIRES_AFTER_SECONDS, change_idempotency_config, idempotent_change


class MemoryLayer(BasePersistenceLayer):
    """Powertools' persistence contract over a dictionary."""

    def __init__(self):
        super().__init__()
        self.items = {}

    def _get_record(self, idempotency_key):
        if idempotency_key not in self.items:
            raise IdempotencyItemNotFoundError
        return self.items[idempotency_key]

    def _put_record(self, data_record):
        known = self.items.get(data_record.idempotency_key)
        if known is not None and not known.is_expired:
            raise IdempotencyItemAlreadyExistsError
        self.items[data_record.idempotency_key] = data_record

    def _update_record(self, data_record):
        self.items[data_record.idempotency_key] = data_record

    def _delete_record(self, data_record):
        self.items.pop(data_record.idempotency_key, None)


class User(BaseModel):
    id: int
    name: str


@pytest.fixture
def layer():
    return MemoryLayer()


def test_a_repeated_change_is_delivered_without_being_called_again(make_event, context, layer):
    seen = []
    for _ in range(2):
        answer = process_changes(
            {"Records": [make_event(0), make_event(1)]}, seen.append, context=context, persistence_store=layer
        )
        assert answer == {"batchItemFailures": []}

    assert [change.metadata.commit_idx for change in seen] == [0, 1]


def test_a_change_whose_handler_raised_runs_again(make_event, context, layer):
    outcomes = [ValueError("no"), None]

    def handler(change):
        outcome = outcomes.pop(0)
        if outcome:
            raise outcome

    batch = {"Records": [make_event()]}
    first = process_changes(batch, handler, model=User, context=context, persistence_store=layer)
    second = process_changes(batch, handler, model=User, context=context, persistence_store=layer)

    assert first == {"batchItemFailures": [{"itemIdentifier": make_event()["id"]}]}
    assert second == {"batchItemFailures": []}
    assert outcomes == []


def test_a_change_that_another_invocation_works_on_fails_and_comes_again(make_event, context, layer):
    def handler(change):
        # The same change once more, while the first call of it has not returned.
        inner = process_changes({"Records": [make_event()]}, handler, context=context, persistence_store=layer)
        assert len(inner["batchItemFailures"]) == 1

    assert process_changes({"Records": [make_event()]}, handler, context=context, persistence_store=layer) == {
        "batchItemFailures": []
    }


def test_only_the_key_reaches_the_persistence_layer(make_event, context, layer):
    process_changes(
        {"Records": [make_event(name="Rosalind")]},
        lambda change: change.record["name"],
        context=context,
        persistence_store=layer,
    )

    (record,) = layer.items.values()
    assert isinstance(record, DataRecord)
    assert "Rosalind" not in str(vars(record))


def test_triggers_have_keys_of_their_own(make_event, context, layer):
    other = make_event()
    other["metadata"]["idempotency_key"] = other["metadata"]["idempotency_key"].replace("welcome-email", "audit")
    seen = []
    process_changes({"Records": [make_event()]}, seen.append, context=context, persistence_store=layer)
    process_changes({"Records": [other]}, seen.append, context=context, persistence_store=layer)

    assert len(seen) == 2


def test_records_are_kept_for_a_week_unless_said_otherwise(make_event, context, layer):
    process_changes({"Records": [make_event()]}, lambda change: None, context=context, persistence_store=layer)

    (record,) = layer.items.values()
    assert record.expiry_timestamp == pytest.approx(time.time() + EXPIRES_AFTER_SECONDS, abs=60)
    assert change_idempotency_config(expires_after_seconds=5).expires_after_seconds == 5


@pytest.mark.parametrize("wrap", [ChangeEvent, Event[User].model_validate], ids=["data class", "model"])
def test_the_configuration_finds_the_key_with_powertools_own_decorator(make_event, context, layer, wrap):
    config = change_idempotency_config(lambda_context=context)
    seen = []

    @idempotent_function(data_keyword_argument="change", persistence_store=layer, config=config)
    def handler(*, change):
        seen.append(change)

    for change in (make_event(0), make_event(0, name="Ada"), make_event(1)):
        handler(change=wrap(change))
    assert [change.metadata.commit_idx for change in seen] == [0, 1]


def test_an_event_without_a_key_is_refused_rather_than_let_through_twice(make_event, context, layer):
    config = change_idempotency_config(lambda_context=context)

    @idempotent_function(data_keyword_argument="change", persistence_store=layer, config=config)
    def handler(*, change):
        pytest.fail("called")

    with pytest.raises(IdempotencyKeyError):
        handler(change={"metadata": {}})


def test_an_async_handler_is_refused_with_the_reason(layer):
    async def handler(change): ...

    with pytest.raises(TypeError, match="handler is async"):
        idempotent_change(handler, persistence_store=layer)


def test_the_key_prefix_stands_in_for_the_names_of_function_and_handler(make_event, context, layer):
    def renamed(change):
        pytest.fail("called again")

    seen = []
    for handler in (seen.append, renamed):
        once = idempotent_change(handler, persistence_store=layer, context=context, key_prefix="greeting")
        once(ChangeEvent(make_event()))

    assert len(seen) == 1
    assert [key.partition("#")[0] for key in layer.items] == ["greeting"]


@mock_aws
def test_powertools_own_dynamodb_layer_keeps_the_records(make_event, context, monkeypatch):
    for name, value in {
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    table = boto3.resource("dynamodb").create_table(
        TableName="idempotency",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    layer = DynamoDBPersistenceLayer(table_name="idempotency")
    seen = []
    for _ in range(2):
        process_changes({"Records": [make_event()]}, seen.append, context=context, persistence_store=layer)

    assert len(seen) == 1
    (item,) = table.scan()["Items"]
    assert item["status"] == "COMPLETED"
