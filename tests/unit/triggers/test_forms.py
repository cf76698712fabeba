"""Each form is read by the code of those who know it: Powertools, the CloudEvents SDK, published formats."""

import json
from base64 import b64decode

import pytest
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    SqsFifoPartialProcessor,
    process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent, KinesisStreamEvent, SQSEvent
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecordEventName
from aws_lambda_powertools.utilities.parser.models import DynamoDBStreamModel, KinesisDataStreamModel, SqsModel
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, from_structured_event

from bridge.change import UNCHANGED, Event, Position, Transaction
from bridge.delivery.naming import by_event_id
from bridge.delivery.outcome import Delivered, Evidence, Partial
from bridge.lsn import LSN
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.logical import encode_message
from bridge.pgoutput.messages import Column, RelationMessage
from bridge.pgoutput.plan import Plan, make_stamp
from bridge.testing import wire
from bridge.triggers.envelope import Envelope
from bridge.triggers.forms import FORMS, Origin, UnfitEvent
from bridge.triggers.forms.members import take_apart
from bridge.triggers.shape import Shape

OID, INT4, TEXT, NUMERIC, JSONB, INT8 = 16385, 23, 25, 1700, 3802, 20
COLUMNS = [("id", INT4), ("name", TEXT), ("balance", NUMERIC), ("doc", JSONB), ("big", INT8), ("tags", 1009)]
ROW = (
    "7",
    'Jané "x"',
    "12.50",
    '{"n": 12345678901234567890.50, "deep": [1, null, true, {"a": "b"}]}',
    "9007199254740993",
    "{a,NULL}",
)
OLD = ("7", "John", *ROW[2:])
STAMP = make_stamp(Transaction(27440064, 0x800, 0.0, 743), wire.COMMITTED_AT)
COMMITTED_MS = 1795344321123
SYSTEM = "7341234567890123456"
TABLE = "public.users"


def plan(identity="f"):
    columns = tuple(Column(1 if identity == "f" or name == "id" else 0, name, oid, -1) for name, oid in COLUMNS)
    return Plan(
        RelationMessage(OID, "public", "users", identity, columns), Shape(), database="shop", primary_key=("id",)
    )


def event(message, ordinal=3, *, identity="f"):
    return plan(identity).encode(decode(message), ordinal, STAMP)


def inserts(count):
    return [event(wire.insert(OID, (str(number), *ROW[1:])), number) for number in range(count)]


UPDATE = event(wire.update(OID, ROW, old=OLD))
DELETE = event(wire.delete(OID, old=ROW), 4)
TRUNCATE = plan().encode_truncate(0, 3, STAMP)
MESSAGE = encode_message(
    decode(wire.logical_message(1, "audit", b"hello", transactional=True)), "shop", Shape(), 3, STAMP
)


def envelope(name):
    return Envelope("welcome", SYSTEM, form=FORMS[name](Origin("welcome", SYSTEM)))


def sent(name, *events, batched=True):
    made = envelope(name)
    assert not made.prepare(events).failed
    body = made.records(events) if batched else made.single(events)
    return json.loads(body)


def whole(one):
    return json.loads(Envelope("welcome", SYSTEM).event(one))


def reported(name, events, answer, *, in_order=False):
    """The event ids of what a handler's report names, and those of them that it had not tried."""
    made = envelope(name)
    names = made.identifiers(events)
    failed = frozenset(item["itemIdentifier"] for item in answer["batchItemFailures"])
    assert failed <= set(names), "a report that names anything else fails the whole batch"
    outcome = by_event_id(Partial(failed, Evidence("")), names, events, in_order=made.in_order)
    return outcome.failed_ids, outcome.untried_ids


def ids(events):
    return frozenset(one.id.decode() for one in events)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_same_bytes_each_time_and_names_each_event_differently(name):
    events = inserts(3)
    first, second = envelope(name), envelope(name)
    for each in (first, second):
        each.prepare(events)
    assert first.records(events) == second.records(events)
    assert len(set(first.identifiers(events))) == 3


@pytest.mark.parametrize("name", FORMS)
def test_what_was_sent_is_not_held(name):
    made, events = envelope(name), inserts(2)
    made.prepare(events)
    made.sent(events)
    assert not made._ready


# SQS FIFO


def test_powertools_reads_sqs_fifo_records():
    events = inserts(2)
    body = sent("sqs_fifo", *events)
    records = list(SQSEvent(body).records)
    assert [json.loads(record.body) for record in records] == [whole(one) for one in events]
    assert [record.json_body["record"]["id"] for record in records] == [0, 1]
    assert records[0].attributes.message_group_id != records[1].attributes.message_group_id
    assert records[0].attributes.message_deduplication_id == whole(events[0])["metadata"]["idempotency_key"]
    assert records[0].attributes.sent_timestamp == str(COMMITTED_MS)
    model = SqsModel.model_validate(body)
    assert model.Records[0].eventSourceARN.endswith(":welcome.fifo")
    assert model.Records[0].md5OfBody


def test_messages_of_one_key_are_of_one_group():
    first, second = sent("sqs_fifo", event(wire.insert(OID, ROW), 1), event(wire.update(OID, ROW, old=OLD), 2))[
        "Records"
    ]
    assert first["attributes"]["MessageGroupId"] == second["attributes"]["MessageGroupId"]
    assert int(first["attributes"]["SequenceNumber"]) < int(second["attributes"]["SequenceNumber"])


@pytest.mark.parametrize(("skip_group", "untried"), [(False, {3, 4}), (True, set())])
def test_the_fifo_processor_reports_and_what_it_has_not_tried_is_not_blamed(skip_group, untried):
    events = inserts(5)
    processor = SqsFifoPartialProcessor(skip_group_on_error=skip_group)

    def handle(record):
        if record.json_body["record"]["id"] == 2:
            raise ValueError

    answer = process_partial_response(sent("sqs_fifo", *events), handle, processor)
    failed, spared = reported("sqs_fifo", events, answer)
    assert failed == ids([events[2]]) | ids(events[number] for number in untried)
    assert spared == ids(events[number] for number in untried)


# Kinesis


def test_powertools_reads_kinesis_records():
    events = inserts(2)
    body = sent("kinesis", *events)
    records = list(KinesisStreamEvent(body).records)
    assert [record.kinesis.data_as_json() for record in records] == [whole(one) for one in events]
    assert [int(record.kinesis.sequence_number) for record in records] == [27440064 * 10**10, 27440064 * 10**10 + 1]
    assert records[0].kinesis.approximate_arrival_timestamp == COMMITTED_MS / 1000 + 0.000456
    model = KinesisDataStreamModel.model_validate(body)
    assert json.loads(model.Records[0].kinesis.data)["record"]["id"] == 0


def test_a_kinesis_report_names_events():
    events = inserts(4)

    def handle(record):
        if record.kinesis.data_as_json()["record"]["id"] in {1, 3}:
            raise ValueError

    answer = process_partial_response(sent("kinesis", *events), handle, BatchProcessor(EventType.KinesisDataStreams))
    assert reported("kinesis", events, answer) == (ids([events[1], events[3]]), frozenset())


# DynamoDB


def test_powertools_reads_dynamodb_records():
    body = sent("dynamodb", inserts(1)[0], UPDATE, DELETE)
    insert, update, delete = DynamoDBStreamEvent(body).records
    assert [record.event_name for record in (insert, update, delete)] == [
        DynamoDBRecordEventName.INSERT, DynamoDBRecordEventName.MODIFY, DynamoDBRecordEventName.REMOVE,
    ]  # fmt: skip
    assert update.dynamodb.keys == {"id": 7}
    assert (update.dynamodb.new_image["name"], update.dynamodb.old_image["name"]) == (ROW[1], "John")
    assert update.dynamodb.new_image["balance"] == "12.50"
    assert update.dynamodb.new_image["big"] == 9007199254740993
    assert str(update.dynamodb.new_image["doc"]["n"]) == "12345678901234567890.50"
    assert update.dynamodb.new_image["doc"]["deep"] == [1, None, True, {"a": "b"}]
    assert update.dynamodb.new_image["tags"] == ["a", None]
    assert (insert.dynamodb.old_image, delete.dynamodb.new_image) == ({}, {})
    assert delete.dynamodb.old_image["id"] == 7
    DynamoDBStreamModel.model_validate(body)


def test_without_the_old_row_an_old_image_is_the_key_that_was_another():
    moved = event(wire.update(OID, ROW, key=("6", *(None,) * 5)), identity="d")
    (record,) = sent("dynamodb", moved)["Records"]
    assert record["dynamodb"]["OldImage"] == {"id": {"N": "6"}}
    (record,) = sent("dynamodb", event(wire.update(OID, ROW), identity="d"))["Records"]
    assert "OldImage" not in record["dynamodb"]


def test_a_dynamodb_report_names_events():
    events = inserts(3)

    def handle(record):
        if record.dynamodb.keys["id"] == 1:
            raise ValueError

    answer = process_partial_response(sent("dynamodb", *events), handle, BatchProcessor(EventType.DynamoDBStreams))
    assert reported("dynamodb", events, answer)[0] == ids([events[1]])


# CloudEvents


def content(name, one, *, batched=False):
    made = envelope(name)
    made.prepare([one])
    return made.content([one], batched=batched), made.records([one]) if batched else made.single([one])


@pytest.mark.parametrize("one", [UPDATE, DELETE, TRUNCATE, MESSAGE], ids=lambda one: one.action)
def test_the_sdk_reads_a_structured_event(one):
    kind, body = content("cloudevents", one)
    assert kind.content_type == "application/cloudevents+json"
    read = from_structured_event(HTTPMessage(headers={"content-type": kind.content_type}, body=body))
    assert read.get_data() == whole(one)
    assert (read.get_id(), read.get_type()) == (one.id.decode(), f"pgbridge.{one.action}")
    assert (read.get_source(), read.get_subject()) == (f"/pgbridge/{SYSTEM}/shop", one.table)
    assert read.get_time().timestamp() == pytest.approx(COMMITTED_MS / 1000, abs=0.001)
    assert read.get_extension("sequence") == one.id.decode()
    assert read.get_extension("partitionkey") == ("public.users/7" if one in (UPDATE, DELETE) else None)


def test_the_sdk_reads_a_binary_event():
    named = event(wire.insert(OID, ROW))._replace(table='public.größe "%"')
    kind, body = content("cloudevents_binary", named)
    assert kind.content_type == "application/json"
    headers = {"content-type": kind.content_type, **kind.headers}
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())
    read = from_binary_event(HTTPMessage(headers=headers, body=body))
    assert read.get_data() == whole(named)
    assert (read.get_id(), read.get_subject()) == (named.id.decode(), named.table)


def test_a_batch_is_a_json_array_under_its_own_type():
    events = inserts(2)
    kind, body = content("cloudevents", events[0], batched=True)
    assert kind.content_type == "application/cloudevents-batch+json"
    assert [read["id"] for read in json.loads(body)] == [events[0].id.decode()]
    for item in sent("cloudevents", *events):
        message = HTTPMessage(headers={"content-type": "application/cloudevents+json"}, body=json.dumps(item).encode())
        assert from_structured_event(message).get_type() == "pgbridge.insert"


# Debezium

SOURCE = {
    "version": str, "connector": str, "name": str, "ts_ms": int, "snapshot": str, "db": str, "sequence": str, "ts_us": int,
    "ts_ns": int, "schema": str, "table": str, "txId": int, "lsn": int, "xmin": type(None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("one", "op"),
    [
        (inserts(1)[0], "c"),
        (UPDATE, "u"),
        (DELETE, "d"),
        (plan().encode_read(ROW and tuple(text.encode() for text in ROW), 3, STAMP), "r"),
        (TRUNCATE, "t"),
        (MESSAGE, "m"),
    ],
)
def test_debezium_events_are_built_field_by_field_as_published(one, op):
    made = sent("debezium", one, batched=False)
    assert made["op"] == op
    assert {name: type(made["source"][name]) for name in SOURCE} == SOURCE
    assert made["source"].keys() - SOURCE.keys() == {"event_id"}
    assert (made["source"]["connector"], made["source"]["db"], made["source"]["lsn"]) == (
        "postgresql",
        "shop",
        27440064,
    )
    assert (made["ts_ms"], made["source"]["ts_ms"]) == (COMMITTED_MS, COMMITTED_MS)
    assert json.loads(made["source"]["sequence"]) == [None, "27440064"]
    if op == "m":
        assert made.keys() == {"op", "ts_ms", "ts_us", "ts_ns", "source", "message"}
    else:
        assert made.keys() == {"before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"}


def test_debezium_rows_are_before_and_after():
    row = whole(UPDATE)["record"]
    made = sent("debezium", UPDATE, batched=False)
    assert made["after"] == row
    assert made["before"] == {**row, "name": "John"}
    assert (sent("debezium", DELETE, batched=False)["before"], sent("debezium", DELETE, batched=False)["after"]) == (
        row,
        None,
    )
    assert (
        sent("debezium", TRUNCATE, batched=False)["before"],
        sent("debezium", TRUNCATE, batched=False)["after"],
    ) == (None, None)
    assert sent("debezium", MESSAGE, batched=False)["message"] == {"prefix": "audit", "content": "aGVsbG8="}


def test_debezium_marks_a_toasted_value_that_was_not_sent():
    made = sent("debezium", event(wire.update(OID, (*ROW[:3], UNCHANGED, *ROW[4:])), identity="d"), batched=False)
    assert made["after"]["doc"] == "__debezium_unavailable_value"
    assert made["before"] is None
    deleted = sent("debezium", event(wire.delete(OID, key=("7", *(None,) * 5)), identity="d"), batched=False)
    assert deleted["before"] == {"id": 7, **dict.fromkeys(["name", "balance", "doc", "big", "tags"])}


def test_values_are_taken_over_byte_for_byte():
    for name in ("debezium", "sequin"):
        made = envelope(name)
        made.prepare([UPDATE])
        assert b'{"n": 12345678901234567890.50, "deep"' in made.single([UPDATE])


# Sequin


DOCUMENTS_OF_JSON = {
    "a lone surrogate": rb'{"a":"\ud800"}',
    "a name with a lone surrogate": rb'{"\ud800":[1,"}{\"\\"]}',
    "a number beyond floats": b"[1e400, -0, 1e99999999999999999999]",
    "members written twice": b'{"a":1,"a":{"a":2}}',
    "white space": b'{"a" :\t1 ,\n "b":[ ] }',
    "a nul": rb'"\u0000"',
    "deep lists": b"[" * 3000 + b"]" * 3000,
    "deep objects": b'{"[":' * 3000 + b'"x"' + b"}" * 3000,
}


def with_document(text):
    return event(wire.insert(OID, (*ROW[:3], text.decode(), *ROW[4:])))


@pytest.mark.parametrize("text", DOCUMENTS_OF_JSON.values(), ids=DOCUMENTS_OF_JSON)
@pytest.mark.parametrize("name", sorted(FORMS.keys() - {"kinesis", "sqs_fifo", "dynamodb"}))
def test_whatever_the_json_type_lets_in_is_taken_over(name, text):
    made, one = envelope(name), with_document(text)
    assert not made.prepare([one]).failed
    assert b'"doc":' + text in made.single([one])
    assert made.content([one], batched=False).content_type


@pytest.mark.parametrize("text", DOCUMENTS_OF_JSON.values(), ids=DOCUMENTS_OF_JSON)
def test_whatever_the_json_type_lets_in_travels_inside_a_record(text):
    one = with_document(text)
    assert Envelope("welcome", SYSTEM).event(one) == sent("sqs_fifo", one)["Records"][0]["body"].encode()
    assert Envelope("welcome", SYSTEM).event(one) == b64decode(sent("kinesis", one)["Records"][0]["kinesis"]["data"])


def test_an_attribute_may_be_a_lone_surrogate():
    record = sent("dynamodb", with_document(DOCUMENTS_OF_JSON["a lone surrogate"]))["Records"][0]
    assert record["dynamodb"]["NewImage"]["doc"] == {"M": {"a": {"S": "\ud800"}}}


@pytest.mark.parametrize(
    "document",
    [
        rb'{"action":5,"record":{"a":"\ud800"}}',
        rb'{"action":"insert","record":["\ud800"]}',
        rb'{"action":"insert","record":"\ud800"}',
        rb'{"action":"insert","changes":{"a":"\ud800"},"metadata":7}',
        rb'["\ud800"]',
        rb'{"record":{"a":"\ud800"}',
        rb'{"record":{"a":["\ud800"}}',
    ],
)
def test_what_is_built_otherwise_is_no_event(document):
    with pytest.raises(UnfitEvent):
        take_apart(document)


def test_sequin_messages_are_built_field_by_field_as_published():
    made = sent("sequin", UPDATE, batched=False)
    ours = whole(UPDATE)
    assert made.keys() == {"record", "changes", "action", "metadata"}
    assert (made["record"], made["changes"], made["action"]) == (ours["record"], {"name": "John"}, "update")
    metadata = made["metadata"]
    assert metadata.keys() == {
        "table_schema", "table_name", "commit_timestamp", "commit_lsn", "commit_idx", "database_name", "transaction_annotations",
        "idempotency_key", "record_pks", "enrichment", "consumer", "database",
    }  # fmt: skip
    assert metadata["record_pks"] == ["7"]
    assert metadata["consumer"].keys() == {"id", "name", "annotations"}
    assert metadata["database"].keys() == {"id", "name", "annotations", "database", "hostname"}
    for name in ("table_schema", "table_name", "commit_timestamp", "commit_lsn", "commit_idx", "idempotency_key"):
        assert metadata[name] == ours["metadata"][name]
    assert (metadata["database_name"], metadata["transaction_annotations"]) == ("shop", None)


def test_a_sequin_batch_is_data():
    assert [message["action"] for message in sent("sequin", *inserts(2))["data"]] == ["insert", "insert"]


# What is not sent


def test_another_outcome_needs_no_names():
    outcome = Delivered()
    assert by_event_id(outcome, ["a"], inserts(1), in_order=True) is outcome


def test_an_event_that_has_no_such_form_is_told_and_the_others_stay_ready():
    made = envelope("debezium")
    broken = Event(
        b"0000000000000001-0000000000", STAMP[0], 0, None, None, TABLE, "insert", b'{"record":[1],"metadata":{'
    )
    good = inserts(1)[0]
    unsent = made.prepare([broken, good])
    assert [(one, error.error) for one, error in unsent.failed] == [
        (broken, "the event can't be put into its envelope: UnfitEvent")
    ]
    assert json.loads(made.single([good]))["op"] == "c"
    assert Position(LSN(27440064), 0).event_id == good.id.decode()
