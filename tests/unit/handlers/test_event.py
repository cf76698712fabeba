from datetime import UTC, datetime
from decimal import Decimal

import pytest
from aws_lambda_powertools.utilities.data_classes import event_source
from aws_lambda_powertools.utilities.parser import event_parser, parse
from pydantic import BaseModel, TypeAdapter, ValidationError

from bridge.handlers import ChangeEvent, ChangeEventBatch, Event, EventBatch, PgbridgeEnvelope


class User(BaseModel):
    id: int
    name: str
    balance: Decimal


class UserKey(BaseModel):
    id: int


def test_an_event_is_typed_by_the_row_model(make_event):
    event = Event[User].model_validate(make_event(3, changes={"name": "John"}))

    assert event.record == User(id=7, name="Jane", balance=Decimal("12.50"))
    assert event.changes == {"name": "John"}
    assert event.metadata.table == "public.users"
    assert event.metadata.commit_timestamp == datetime(2026, 11, 22, 5, 37, 0, 123456, tzinfo=UTC)
    assert event.metadata.keys == {"id": 7}


def test_a_bare_event_leaves_the_record_as_parsed_json(make_event):
    assert Event.model_validate(make_event()).record == {"id": 7, "name": "Jane", "balance": "12.50"}


def test_deletes_by_key_and_truncates_are_told_apart_by_a_union(make_event):
    model = Event[User | UserKey | None]

    assert model.model_validate(make_event(action="delete", record={"id": 7})).record == UserKey(id=7)
    assert model.model_validate(make_event(action="truncate", key=None, record=None)).record is None


def test_members_of_later_versions_are_kept(make_event):
    raw = make_event()
    raw["metadata"]["shard"] = 4

    assert Event.model_validate(raw).metadata.shard == 4


@pytest.mark.parametrize("show", [repr, str])
def test_printing_an_event_shows_no_row_value(make_event, show):
    raw = make_event(key=990017, old_key=990018, name="Rosalind", changes={"name": "Franklin"})
    raw["metadata"]["context"] = {"who": "Rosalind"}
    shown = show(Event[User].model_validate(raw)) + show(ChangeEvent(raw)) + show(EventBatch(Records=[raw]))

    assert "Rosalind" not in shown
    assert "Franklin" not in shown
    assert "9900" not in shown


def test_printing_an_event_shows_where_it_comes_from(make_event):
    shown = repr(Event[User].model_validate(make_event(3)))

    assert "0000000001A2B3C0-0000000003" in shown
    assert "table_name='users'" in shown


def test_a_validation_error_names_the_member_and_not_its_value(make_event):
    with pytest.raises(ValidationError) as caught:
        Event[User].model_validate(make_event(balance="Rosalind"))

    assert "record.balance" in str(caught.value)
    assert "Rosalind" not in str(caught.value)


def test_an_unknown_action_is_refused(make_event):
    with pytest.raises(ValidationError, match="action"):
        Event.model_validate(make_event(action="upsert"))


def test_data_classes_read_the_event_without_checking_it(make_event):
    event = ChangeEvent(make_event(3, old_key=6, changes={"id": 6}))

    assert event.id == "0000000001A2B3C0-0000000003"
    assert event.action == "update"
    assert event.record["name"] == "Jane"
    assert event.changes == {"id": 6}
    metadata = event.metadata
    assert (metadata.source, metadata.database, metadata.table) == ("pgbridge", "shop", "public.users")
    assert (metadata.commit_lsn, metadata.commit_idx, metadata.transaction_id) == (27440064, 3, 743)
    assert metadata.commit_timestamp == datetime(2026, 11, 22, 5, 37, 0, 123456, tzinfo=UTC)
    assert (metadata.record_keys, metadata.old_keys, metadata.unavailable) == ({"id": 7}, {"id": 6}, [])
    assert metadata.trigger == "welcome-email"
    assert metadata.idempotency_key.endswith("-welcome-email-0000000001A2B3C0-0000000003")
    assert dict(metadata) == metadata.raw_event


def test_event_source_hands_over_the_records(make_event, context):
    @event_source(data_class=ChangeEventBatch)
    def lambda_handler(event, context):
        return [record.record["name"] for record in event.records]

    assert lambda_handler({"Records": [make_event(0), make_event(1, name="Ada")]}, context) == ["Jane", "Ada"]


def test_the_parser_hands_over_typed_events(make_event, context):
    @event_parser(model=EventBatch[User])
    def lambda_handler(event, context):
        return [(record.action, record.record.name) for record in event.records]

    assert lambda_handler({"Records": [make_event()]}, context) == [("update", "Jane")]


def test_the_envelope_hands_over_row_models(make_event, context):
    @event_parser(model=User, envelope=PgbridgeEnvelope)
    def lambda_handler(event, context):
        return event

    users = lambda_handler({"Records": [make_event(0), make_event(1, key=8, name="Ada")]}, context)
    assert [(type(user), user.id, user.name) for user in users] == [(User, 7, "Jane"), (User, 8, "Ada")]


def test_the_envelope_takes_adapters_and_text_as_the_parser_does(make_event):
    batch = {"Records": [make_event()]}

    assert parse(batch, TypeAdapter(UserKey), PgbridgeEnvelope) == [UserKey(id=7)]
    assert parse(EventBatch.model_validate(batch).model_dump_json(by_alias=True), UserKey, PgbridgeEnvelope) == [
        UserKey(id=7)
    ]


def test_the_envelope_names_the_record_that_does_not_fit(make_event):
    with pytest.raises(ValidationError) as caught:
        parse({"Records": [make_event(0), make_event(1, balance="Rosalind")]}, User, PgbridgeEnvelope)

    assert "Records.1.record.balance" in str(caught.value)
    assert "Rosalind" not in str(caught.value)


def test_the_envelope_refuses_an_invocation_by_another_source():
    with pytest.raises(ValidationError, match="Records"):
        parse({"detail": {}}, User, PgbridgeEnvelope)
