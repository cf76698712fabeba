"""The status snapshot: into JSON and back."""

from __future__ import annotations

import orjson
import pytest

from bridge.lsn import LSN
from bridge.observe.status import (
    SchemaChangeStatus,
    ServiceState,
    ServiceStatus,
    SlotStatus,
    TriggerState,
    TriggerStatus,
)

STATUS = ServiceStatus(
    ServiceState.RECONNECTING,
    "connection refused",
    slot=SlotStatus("s", True, "reserved", 1, None, LSN(0x16B374D848), LSN(5), 180006),
    received_lsn=LSN(0x16B374D848),
    triggers=(TriggerStatus("t", "lambda:f", TriggerState.PAUSED, "why", checkpoint_lsn=LSN(7)),),
    schema_changes=3,
    changed_tables=(SchemaChangeStatus("public.t", "a" * 16, "b" * 16, ("column x added (int4)",), LSN(6), 5.5),),
)


def test_it_survives_json():
    assert ServiceStatus.from_json(orjson.loads(orjson.dumps(STATUS.to_json()))) == STATUS


def test_positions_and_states_are_text_in_json():
    document = STATUS.to_json()
    assert (document["state"], document["received_lsn"]) == ("reconnecting", "16/B374D848")
    assert (document["triggers"][0]["state"], document["slot"]["restart_lsn"]) == ("paused", "0/5")


def test_what_a_newer_process_adds_is_left_out():
    document = STATUS.to_json() | {"new": 1}
    document["triggers"][0]["new"] = 2
    document["slot"]["new"] = 3
    assert ServiceStatus.from_json(document) == STATUS


@pytest.mark.parametrize(
    "document",
    [{}, [], "x", None, {"state": "nonsense"}, {"state": "streaming", "triggers": [{}]}, {"state": "streaming", "slot": 5},
     {"state": "streaming", "received_lsn": "x"}, {"state": "streaming", "triggers": 7}, {"state": "streaming", "changed_tables": [{}]}],
)  # fmt: skip
def test_what_is_no_status_is_a_value_error(document):
    with pytest.raises(ValueError, match=r"status|LSN|state|State|valid"):
        ServiceStatus.from_json(document)
