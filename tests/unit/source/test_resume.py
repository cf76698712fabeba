"""Where reading goes on after a restart, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.errors import SlotLost
from bridge.lsn import LSN
from bridge.source.resume import resume_at
from bridge.store.protocol import Progress, SourceIdentity

HERE = SourceIdentity(slot="pgbridge", system_identifier="7", timeline=3, database="shop")
SAVED = Progress(identity=HERE, epoch=4, confirmed_lsn=LSN(1000), checkpoints={})


def test_a_first_start_goes_where_the_slot_stands():
    fresh = Progress(identity=None, epoch=0, confirmed_lsn=None, checkpoints={})
    assert resume_at(fresh, HERE, slot_confirmed_lsn=LSN(50), server_lsn=LSN(60)) == 50


@pytest.mark.parametrize("slot", [1000, 400])
def test_a_restart_goes_on_at_what_was_saved_even_if_the_slot_fell_back(slot):
    assert resume_at(SAVED, HERE, slot_confirmed_lsn=LSN(slot), server_lsn=LSN(2000)) == 1000


def test_a_promotion_is_followed():
    assert resume_at(SAVED, replace(HERE, timeline=4), slot_confirmed_lsn=LSN(1000), server_lsn=LSN(2000)) == 1000


@pytest.mark.parametrize(
    ("identity", "slot", "server", "says"),
    [
        (HERE, 1001, 2000, "ahead of"),
        (replace(HERE, system_identifier="8"), 1000, 2000, "system"),
        (replace(HERE, database="other"), 1000, 2000, "database"),
        (replace(HERE, timeline=2), 1000, 2000, "timeline 2"),
        (HERE, 900, 999, "back in time"),
    ],
)
def test_what_would_miss_changes_is_refused_with_the_next_step(identity, slot, server, says):
    with pytest.raises(SlotLost, match=says) as refusal:
        resume_at(SAVED, identity, slot_confirmed_lsn=LSN(slot), server_lsn=LSN(server))
    assert refusal.value.remedy
