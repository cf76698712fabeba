"""Where reading goes on after a restart, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.change import Position
from bridge.errors import SlotLost, SourceUnavailable
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


@pytest.mark.parametrize("branch", [1000, 1500])
def test_a_promoted_server_that_has_all_that_was_read_is_followed(branch):
    promoted = replace(HERE, timeline=4)
    start = resume_at(SAVED, promoted, slot_confirmed_lsn=LSN(900), server_lsn=LSN(2000), branched_at=LSN(branch))
    assert start == 1000


@pytest.mark.parametrize(
    ("checkpoint", "branch"),
    [
        (None, 999),
        (Position(LSN(1200), 0), 1200),  # a commit record that starts where the timelines part is of one of them alone
        (Position(LSN(1200), 0), 1100),
    ],
)
def test_a_promoted_server_that_lacks_what_was_delivered_is_refused_whatever_it_has_written_since(checkpoint, branch):
    progress = replace(SAVED, checkpoints={} if checkpoint is None else {"t": checkpoint})
    with pytest.raises(SlotLost, match="promoted from timeline 3") as refusal:
        resume_at(
            progress,
            replace(HERE, timeline=4),
            slot_confirmed_lsn=LSN(900),
            server_lsn=LSN(5000),
            branched_at=LSN(branch),
        )
    assert refusal.value.remedy


def test_a_checkpoint_with_nothing_of_its_transaction_goes_with_the_branch():
    progress = replace(SAVED, checkpoints={"t": Position(LSN(1200), -1)})
    promoted = replace(HERE, timeline=4)
    start = resume_at(progress, promoted, slot_confirmed_lsn=LSN(900), server_lsn=LSN(5000), branched_at=LSN(1200))
    assert start == 1000


def test_once_the_promotion_is_known_the_branch_is_history():
    start = resume_at(SAVED, HERE, slot_confirmed_lsn=LSN(900), server_lsn=LSN(2000), branched_at=LSN(10))
    assert start == 1000


@pytest.mark.parametrize(("timeline", "server"), [(2, 2000), (2, 900), (3, 999)])
def test_a_standby_may_have_to_catch_up_first(timeline, server):
    with pytest.raises(SourceUnavailable, match="is a standby") as wait:
        resume_at(
            SAVED,
            replace(HERE, timeline=timeline),
            slot_confirmed_lsn=LSN(900),
            server_lsn=LSN(server),
            in_recovery=True,
        )
    assert "target_session_attrs" in wait.value.remedy


@pytest.mark.parametrize("in_recovery", [False, True])
def test_no_trigger_may_be_further_than_the_server(in_recovery):
    """What the server writes at those positions would be passed over."""
    progress = replace(SAVED, checkpoints={"t": Position(LSN(2000), 0), "u": Position(LSN(900), 3)})
    with pytest.raises(SourceUnavailable if in_recovery else SlotLost):
        resume_at(progress, HERE, slot_confirmed_lsn=LSN(900), server_lsn=LSN(2000), in_recovery=in_recovery)
    start = resume_at(progress, HERE, slot_confirmed_lsn=LSN(900), server_lsn=LSN(2001), in_recovery=in_recovery)
    assert start == 1000


def test_where_the_server_may_have_moved_on_its_end_is_not_asked():
    assert resume_at(SAVED, HERE, slot_confirmed_lsn=LSN(900), server_lsn=None) == 1000


def test_a_standby_whose_slot_was_made_anew_has_missed_changes_as_any_other():
    with pytest.raises(SlotLost, match="ahead of"):
        resume_at(SAVED, HERE, slot_confirmed_lsn=LSN(1001), server_lsn=LSN(2000), in_recovery=True)


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
