"""The reconciliation by itself: what it must find, and what it must not."""

from __future__ import annotations

import json

import pytest
from chaos.ledger import Arrivals
from chaos.reconcile import Glance, reconcile
from chaos.truth import Change

WANTED = {"t": {"s.x"}}


def change(number, *keys, action="insert"):
    lsn = 100 * number
    return Change(f"{lsn:016X}-0000000000", lsn, lsn + 100, "s.x", action, keys or ("a",), {"n": str(number)})


@pytest.fixture
def compare(tmp_path):
    """Compare changes with the order in which their numbers came."""

    def run(changes, order, **options):
        by_number = {each.commit_lsn // 100: each for each in changes}
        arrivals = Arrivals(tmp_path / "ledger")
        arrivals.take(line(by_number.get(number) or change(number)) for number in order)
        return reconcile(changes, arrivals, WANTED, **options)

    return run


def line(one, **record):
    metadata = {"trigger": "t", "table_schema": "s", "table_name": "x", "commit_lsn": one.commit_lsn}
    record = record or {name: int(value) for name, value in one.values.items()}
    event = {"id": one.id, "action": one.action, "record": record, "metadata": metadata}
    return json.dumps({"id": one.id, "event": event}).encode() + b"\n"


def test_what_came_once_and_in_order_is_clean(compare):
    report = compare([change(1), change(2), change(3)], [1, 2, 3], most_repeats=0)
    assert report.faults == {}
    assert (report.changes, report.repeated) == (3, 0)


def test_a_change_that_did_not_come_is_lost_unless_it_was_set_aside(compare):
    changes = [change(1), change(2)]
    assert compare(changes, [1]).lost == [f"t {changes[1].id}"]
    assert not compare(changes, [1], letters={("t", changes[1].id)}).faults


def test_what_was_never_committed_is_invented(compare):
    assert len(compare([change(1)], [1, 2]).invented) == 1


def test_a_younger_change_first_is_reordered_but_only_of_the_same_key(compare):
    assert compare([change(1), change(2)], [2, 1]).reordered
    assert not compare([change(1, "a"), change(2, "b")], [2, 1]).reordered


def test_a_change_of_key_ties_both_keys(compare):
    changes = [change(1, "a"), change(2, "a", "b"), change(3, "b")]
    assert not compare(changes, [1, 2, 3]).reordered
    assert compare(changes, [1, 3, 2]).reordered
    assert compare(changes, [2, 1, 3]).reordered


@pytest.mark.parametrize(
    "order", [[1, 2, 3, 2, 3, 4], [1, 2, 3, 1, 2, 3, 4], [1, 1, 2, 2, 2, 3, 4], [1, 2, 1, 2, 1, 2, 3, 4]]
)
def test_a_whole_tail_may_come_again(compare, order):
    report = compare([change(number) for number in range(1, 5)], order)
    assert not report.faults
    assert report.repeated == len(order) - 4


@pytest.mark.parametrize("order", [[1, 2, 3, 1, 4], [1, 2, 3, 1, 3, 4], [1, 2, 3, 4, 2, 4]])
def test_a_torn_tail_is_reordered_unless_two_delivered_at_once(compare, order):
    changes = [change(number) for number in range(1, 5)]
    assert compare(changes, order).reordered
    assert not compare(changes, order, torn_repeats=True).reordered


def test_repeats_beyond_what_the_faults_explain_are_excess(compare):
    assert compare([change(1)], [1, 1, 1], most_repeats=1).excess == 1


def test_everything_keeps_its_side_of_a_truncate(compare):
    changes = [change(1, "a"), change(2, "b"), change(3, action="truncate"), change(4, "c")]
    assert not compare(changes, [2, 1, 3, 4]).reordered
    assert compare(changes, [1, 3, 2, 4]).reordered
    assert compare(changes, [1, 2, 4, 3]).reordered


def test_other_content_is_found(tmp_path):
    one = change(1)
    arrivals = Arrivals(tmp_path / "ledger")
    arrivals.take([line(one, n=2), line(one, n=2, more=1)])
    report = reconcile([one], arrivals, WANTED)
    assert report.wrong
    assert report.altered


def test_a_slot_may_stand_where_an_open_commit_starts_and_not_one_byte_further(compare):
    changes = [change(1), change(2)]
    size = len(line(changes[0]))

    def glance(confirmed, **options):
        return Glance(confirmed, confirmed, 1, size, options.get("kept", frozenset()))

    assert not compare(changes, [1, 2], glances=[glance(200)]).ahead
    assert compare(changes, [1, 2], glances=[glance(201)]).ahead
    assert not compare(changes, [1, 2], glances=[glance(201, kept=frozenset({("t", changes[1].id)}))]).ahead


def test_a_stored_position_that_goes_back_is_found(compare):
    glances = [Glance(0, lsn, epoch, 0, frozenset()) for lsn, epoch in [(10, 1), (20, 1), (15, 1), (15, 2), (15, 1)]]
    assert len(compare([change(1)], [1], glances=glances).ahead) == 2
