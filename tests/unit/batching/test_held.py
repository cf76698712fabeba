"""Keys that wait for a dead letter, and who waits with them."""

from __future__ import annotations

from bridge.batching.batch import Batch
from bridge.batching.held import HeldKeys
from bridge.change import Event, Position, Transaction
from bridge.lsn import LSN


def event(number: int, key: bytes | None = b"k", old_key: bytes | None = None, *, barrier: bool = False) -> Event:
    transaction = Transaction(1000 + number, 0, 0.0, 0)
    event_id = Position(LSN(1000 + number), 0).event_id.encode()
    return Event(event_id, transaction, 0, key, old_key, "t", "update", b"", barrier)


def sift(held: HeldKeys, *events: Event) -> list[bytes]:
    return ids(*held.sift(Batch(list(events), 0)))


def ids(*events: Event) -> list[bytes]:
    return [each.id for each in events]


def test_later_changes_of_a_held_key_are_kept_and_others_go():
    held = HeldKeys()
    held.hold(event(1, b"a"))
    assert sift(held, event(2, b"a"), event(3, b"b"), event(4, None)) == ids(event(3), event(4))
    assert held.events == 1


def test_behind_a_change_of_key_both_keys_wait():
    held = HeldKeys()
    held.hold(event(1, b"a"))
    assert sift(held, event(2, b"b", b"a")) == []
    assert sift(held, event(3, b"b")) == []
    assert held.letters_now([], barrier=False, version=held.version)
    assert ids(*held.let_go()) == ids(event(2), event(3))
    assert held.is_empty
    assert sift(held, event(4, b"b")) == ids(event(4))


def test_what_the_table_holds_at_the_start_is_held():
    held = HeldKeys([b"a"])
    assert sift(held, event(1, b"a"), event(2, b"b")) == ids(event(2))
    assert HeldKeys(barrier=True).sift(Batch([event(1)], 0)) == []


def test_a_key_is_freed_when_its_last_letter_is_gone_and_no_sooner():
    held = HeldKeys([b"a", b"b"])
    sift(held, event(1, b"a"), event(2, b"b"))
    assert not held.letters_now([b"a", b"b"], barrier=False, version=held.version)
    assert held.letters_now([b"b"], barrier=False, version=held.version)
    freed = held.let_go()
    assert ids(*freed) == ids(event(1), event(2))
    assert sift(held, *freed) == ids(event(1))


def test_a_letter_made_after_the_table_was_asked_stays_held():
    held = HeldKeys([b"a"])
    asked_at = held.version
    held.hold(event(5, b"z"))
    assert held.letters_now([], barrier=False, version=asked_at)
    assert held.let_go() == []
    assert sift(held, event(6, b"z"), event(7, b"a")) == ids(event(7))


def test_a_letter_of_another_process_holds_its_key_too():
    held = HeldKeys([b"a"])
    assert not held.letters_now([b"a", b"new"], barrier=False, version=held.version)
    assert sift(held, event(1, b"new")) == []


def test_a_truncate_waits_for_held_keys_and_everything_younger_for_it():
    held = HeldKeys([b"a"])
    assert sift(held, event(1, None, barrier=True)) == []
    assert sift(held, event(2, b"free")) == []
    held.letters_now([], barrier=False, version=held.version)
    assert ids(*held.let_go()) == ids(event(1), event(2))
    assert sift(held, event(3, b"free")) == ids(event(3))


def test_a_truncate_that_became_a_letter_holds_every_key():
    held = HeldKeys()
    held.hold(event(1, None, barrier=True))
    assert sift(held, event(2, b"a"), event(3, None)) == []
    assert held.letters_now([], barrier=False, version=held.version)
    assert held.is_empty


def test_what_did_not_become_a_letter_holds_nothing():
    held = HeldKeys()
    held.hold(event(1, b"a"))
    sift(held, event(2, b"a"))
    held.free(event(1, b"a"))
    assert ids(*held.let_go()) == ids(event(2))
    assert held.is_empty
