"""The bytes that the bridge sends, read by what a function imports."""

import json

import pytest
from pydantic import BaseModel

from bridge.change import Transaction
from bridge.handlers import Event, EventBatch, process_changes
from bridge.lsn import LSN
from bridge.pgoutput.logical import encode_message
from bridge.pgoutput.messages import Column, Delete, Insert, LogicalMessage, RelationMessage, Update
from bridge.pgoutput.plan import Plan, make_stamp
from bridge.triggers.envelope import Envelope
from bridge.triggers.shape import Shape

INT8, TEXT = 20, 25
USERS = RelationMessage(16385, "public", "users", "d", (Column(True, "id", INT8, -1), Column(False, "name", TEXT, -1)))
STAMP = make_stamp(Transaction(27440064, 27440000, 1795325721.0, 743), 848640921_123456)


class User(BaseModel):
    id: int
    name: str


class UserKey(BaseModel):
    id: int


@pytest.fixture
def invocation():
    plan = Plan(USERS, Shape(), database="shop")
    ada, jane = (b"7", b"Ada"), (b"8", b"Jane")
    events = [
        plan.encode(Insert(16385, ada), 0, STAMP),
        plan.encode(Update(16385, key=(b"7", None), old=None, new=jane), 1, STAMP),
        plan.encode(Delete(16385, key=(b"8", None), old=None), 2, STAMP),
        plan.encode_truncate(0, 3, STAMP),
        plan.encode_read(ada, 4, STAMP),
        encode_message(LogicalMessage(0, LSN(27440010), "audit", b'{"who": "ada"}'), "shop", Shape(), 5, STAMP),
    ]
    return json.loads(Envelope("t", "7390000000000000001").records(events))


def test_each_kind_of_event_is_read(invocation):
    records = EventBatch.model_validate(invocation).records

    assert [record.action for record in records] == ["insert", "update", "delete", "truncate", "read", "message"]
    insert, update, delete, truncate, _, message = records
    assert Event[User].model_validate(invocation["Records"][0]).record == User(id=7, name="Ada")
    assert (update.metadata.keys, update.metadata.old_keys) == ({"id": 8}, {"id": 7})
    assert Event[User | UserKey].model_validate(invocation["Records"][2]).record == UserKey(id=8)
    assert delete.metadata.unavailable == ("name",)
    assert truncate.record is None
    assert message.metadata.table is None
    assert message.record["content"] == {"who": "ada"}
    assert insert.metadata.idempotency_key == "7390000000000000001-t-0000000001A2B3C0-0000000000"


def test_the_answer_names_the_ids_that_the_bridge_sent_and_what_waits_for_them(invocation):
    def refuse_the_insert(change):
        if change.action == "insert":
            raise ValueError("no")

    answer = process_changes(invocation, refuse_the_insert)

    # The update took the key of the failed insert, the delete that of the update; the truncate waits for all of them,
    # and what comes after a truncate waits for it. The message belongs to no table.
    assert [item["itemIdentifier"][-1] for item in answer["batchItemFailures"]] == ["0", "1", "2", "3", "4"]
