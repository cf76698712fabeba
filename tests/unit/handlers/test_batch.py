import asyncio
import logging

import pytest
from aws_lambda_powertools.utilities.batch import process_partial_response
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError, UnexpectedBatchTypeError
from pydantic import BaseModel

from bridge.handlers import ChangeBatchProcessor, ChangeEvent, Event, HeldBack, process_changes


class User(BaseModel):
    id: int
    name: str


class Calls:
    """A record handler that remembers what it got, and fails where the name is `bad`."""

    def __init__(self):
        self.ordinals = []

    def __call__(self, change):
        name = change.record.name if isinstance(change, Event) else (change.record or {}).get("name")
        self.ordinals.append(change.metadata.commit_idx)
        if name == "bad":
            raise ValueError("no")


def failed(response):
    return [int(item["itemIdentifier"].rpartition("-")[2]) for item in response["batchItemFailures"]]


def run(events, **settings):
    calls = Calls()
    return failed(process_changes({"Records": events}, calls, **settings)), calls.ordinals


def test_nothing_failed_is_an_empty_list(make_event):
    assert process_changes({"Records": [make_event()]}, Calls()) == {"batchItemFailures": []}


def test_an_empty_batch_has_no_failures():
    assert process_changes({"Records": []}, Calls()) == {"batchItemFailures": []}


def test_a_failure_is_reported_by_its_id_and_the_others_go_on(make_event):
    events = [make_event(0, key=1), make_event(1, key=2, name="bad"), make_event(2, key=3)]

    assert run(events) == ([1], [0, 1, 2])
    assert process_changes({"Records": events}, Calls()) == {"batchItemFailures": [{"itemIdentifier": events[1]["id"]}]}


def test_later_records_of_a_failed_key_are_reported_without_being_called(make_event):
    events = [make_event(0, key=1, name="bad"), make_event(1, key=2), make_event(2, key=1), make_event(3, key=2)]

    assert run(events) == ([0, 2], [0, 1, 3])


def test_a_record_before_the_failed_one_stays_delivered(make_event):
    assert run([make_event(0), make_event(1, name="bad"), make_event(2)]) == ([1, 2], [0, 1])


def test_equal_keys_of_different_tables_do_not_hold_each_other_back(make_event):
    assert run([make_event(0, name="bad"), make_event(1, table="orders")]) == ([0], [0, 1])


def test_a_changed_key_waits_for_both_and_holds_back_both(make_event):
    events = [
        make_event(0, key=1, name="bad"),
        make_event(1, key=2, old_key=1),
        make_event(2, key=2),
        make_event(3, key=3),
    ]

    assert run(events) == ([0, 1, 2], [0, 3])


def test_a_truncate_does_not_overtake_a_failed_row_of_its_table(make_event):
    events = [
        make_event(0, key=1, name="bad"),
        make_event(1, key=None, action="truncate", record=None),
        make_event(2, key=9, action="insert"),
        make_event(3, key=9, action="insert", table="orders"),
    ]

    assert run(events) == ([0, 1, 2], [0, 3])


@pytest.mark.parametrize("keys", [None, {}])
def test_without_a_key_an_update_is_in_order_with_the_whole_table_and_inserts_are_free(make_event, keys):
    events = [
        make_event(0, action="insert", name="bad"),
        make_event(1, action="insert"),
        make_event(2),
        make_event(3, action="insert"),
        make_event(4, table="orders"),
    ]
    for event in events:
        event["metadata"]["keys"] = keys

    assert run(events) == ([0, 2, 3], [0, 1, 4])


def test_logical_messages_are_in_order_by_their_prefix(make_event):
    def message(ordinal, prefix, **members):
        record = {"prefix": prefix, "content": "", "encoding": "text", **members}
        return make_event(ordinal, action="message", key=None, table=None, record=record)

    assert run([message(0, "a", name="bad"), message(1, "b"), message(2, "a")]) == ([0, 2], [0, 1])


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("primary_key", ([0], [0, 1, 2, 3, 4])),
        ("none", ([0], [0, 1, 2, 3, 4])),
        ("table", ([0, 1, 2, 3, 4], [0])),
        (["team"], ([0, 1, 3, 4], [0, 2])),
    ],
)
def test_order_by_says_what_is_held_back(make_event, order_by, expected):
    events = [
        make_event(0, key=1, team="a", name="bad"),
        make_event(1, key=2, team="a"),
        make_event(2, key=3, team="b"),
        make_event(3, key=4, team="b", changes={"team": "a"}),  # came from the team of the failed one
        make_event(4, key=5, action="delete", record={"id": 5}),  # its team was not sent
    ]

    assert run(events, order_by=order_by) == expected


def test_a_row_that_does_not_fit_the_model_fails_alone(make_event):
    assert run([make_event(0, key=1, name=None), make_event(1, key=2)], model=User) == ([0], [1])


def test_the_function_gets_typed_events_with_a_model_and_data_classes_without(make_event):
    seen = []
    process_changes({"Records": [make_event()]}, seen.append)
    process_changes({"Records": [make_event()]}, seen.append, model=User)
    process_changes({"Records": [make_event()]}, seen.append, model=Event[User])

    assert isinstance(seen[0], ChangeEvent)
    assert seen[1] == seen[2] == Event[User].model_validate(make_event())


def test_the_lambda_context_is_handed_on_where_it_is_asked_for(make_event, context):
    seen = []

    def handler(change, lambda_context):
        seen.append(lambda_context)

    process_changes({"Records": [make_event()]}, handler, context=context)
    assert seen == [context]


def test_each_failure_is_logged_with_its_traceback_and_each_held_back_one_without(make_event, caplog):
    caplog.set_level(logging.INFO, "bridge.handlers")
    run([make_event(0, name="bad"), make_event(1)])

    failure, held = caplog.records
    assert failure.getMessage() == "failed 0000000001A2B3C0-0000000000 of public.users"
    assert failure.exc_info[0] is ValueError
    assert held.getMessage().startswith("held back 0000000001A2B3C0-0000000001 of public.users")
    assert held.exc_info is None


def test_whatever_ends_the_process_is_not_caught(make_event):
    def handler(change):
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        process_changes({"Records": [make_event()]}, handler)


@pytest.mark.parametrize(
    "event",
    [{}, {"Records": {}}, {"Records": [{"messageId": "1"}]}, {"Records": ["text"]}, {"Records": [{"id": None}]}],
)
def test_an_invocation_by_another_source_is_refused_before_anything_is_called(event):
    with pytest.raises(UnexpectedBatchTypeError, match="pgbridge"):
        process_changes(event, pytest.fail)


def test_a_record_without_id_fails_the_invocation_before_the_first_is_called(make_event):
    calls = Calls()
    with pytest.raises(UnexpectedBatchTypeError, match=r"Records\[1\]"):
        process_changes({"Records": [make_event(), {"action": "insert"}]}, calls)

    assert calls.ordinals == []


def test_a_processor_keeps_nothing_between_invocations(make_event):
    processor = ChangeBatchProcessor(model=User)
    calls = Calls()

    first = process_partial_response({"Records": [make_event(0, name="bad")]}, calls, processor)
    second = process_partial_response({"Records": [make_event(1)]}, calls, processor)

    assert (failed(first), failed(second), calls.ordinals) == ([0], [], [0, 1])


def test_an_invocation_in_which_everything_failed_raises_only_where_asked_for(make_event):
    events = [make_event(0, name="bad"), make_event(1)]
    assert run(events) == ([0, 1], [0])

    processor = ChangeBatchProcessor(raise_on_entire_batch_failure=True)
    with pytest.raises(BatchProcessingError) as caught, processor(events, Calls()):
        processor.process()
    assert [kind for kind, _, _ in caught.value.child_exceptions] == [ValueError, HeldBack]


def test_async_keys_run_together_and_the_records_of_a_key_one_after_the_other(make_event):
    events = [make_event(0, key=1), make_event(1, key=1), make_event(2, key=2), make_event(3, key=1, old_key=2)]
    log = []
    second_key_began = asyncio.Event()

    async def handler(change):
        ordinal = change.metadata.commit_idx
        log.append(("begin", ordinal))
        if ordinal == 2:
            second_key_began.set()
        if ordinal == 0:  # goes on only once the other key is being handled
            await second_key_began.wait()
        await asyncio.sleep(0)
        log.append(("end", ordinal))

    assert process_changes({"Records": events}, handler) == {"batchItemFailures": []}
    assert log.index(("begin", 2)) < log.index(("end", 0)) < log.index(("begin", 1))
    assert log.index(("begin", 3)) > max(log.index(("end", 1)), log.index(("end", 2)))


def test_async_failures_hold_back_their_key_and_are_reported_in_batch_order(make_event):
    events = [make_event(0, key=1, name="bad"), make_event(1, key=2, name="bad"), make_event(2, key=1)]
    calls = Calls()

    async def handler(change):
        if change.metadata.commit_idx == 0:
            await asyncio.sleep(0)
        calls(change)

    assert failed(process_changes({"Records": events}, handler)) == [0, 1, 2]
    assert calls.ordinals == [1, 0]
