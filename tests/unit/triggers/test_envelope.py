from __future__ import annotations

import json

import pytest

from bridge.change import Event, Position, Transaction
from bridge.lsn import LSN
from bridge.triggers.envelope import Envelope

ENVELOPE = Envelope("welcome-email", "7390000000000000001")


def event(number: int) -> Event:
    transaction = Transaction(0x1000 + number, 0x800, 0.0, number)
    event_id = Position(LSN(transaction.commit_lsn), 0).event_id
    body = f'{{"id":"{event_id}","record":{{"n":{number}}},"metadata":{{"keys":{{}},'.encode()
    return Event(event_id.encode(), transaction, 0, None, None, "public.t", "insert", body)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_a_batch_holds_each_event_as_it_is_alone(count):
    events = [event(number) for number in range(count)]
    assert ENVELOPE.records(events) == b'{"Records":[%b]}' % b",".join(map(ENVELOPE.event, events))


def test_an_event_is_closed_with_the_trigger_and_a_key_for_idempotency():
    metadata = json.loads(ENVELOPE.event(event(7)))["metadata"]
    assert metadata["trigger"] == "welcome-email"
    assert metadata["idempotency_key"] == "7390000000000000001-welcome-email-0000000000001007-0000000000"


def test_the_overhead_of_an_event_is_what_it_adds_to_a_batch():
    one, two = (len(ENVELOPE.records([event(number) for number in range(count)])) for count in (1, 2))
    assert two - one == len(event(1).body) + ENVELOPE.event_overhead_bytes


@pytest.mark.parametrize("count", [1, 3])
def test_records_are_called_by_their_ids_in_order(count):
    events = [event(number) for number in range(count)]
    names = ENVELOPE.identifiers(events)
    ids = [each.position.event_id for each in events]
    assert (len(names), list(names), names[0], names[1:]) == (count, ids, ids[0], ids[1:])
    assert ids[-1] in names
    assert "0000000000000001-0000000000" not in names
