"""`on_dead_letter: hold_key` through the whole service: later changes wait for the letter, over restarts too."""

from __future__ import annotations

from bridge.delivery.outcome import Evidence, Rejected
from bridge.store.memory import MemoryStore
from bridge.store.protocol import LetterFilter

HOLDING = {"t": {"on_dead_letter": "hold_key", "batch_size": 1}}
REFUSED = Rejected(Evidence("HTTP 422", status=422), final=True)


def ids(events: list[dict]) -> list[int]:
    return [event["record"]["id"] for event in events]


def actions(events: list[dict]) -> list[str]:
    return [event["action"] for event in events]


async def test_later_changes_of_a_key_wait_for_its_letter_over_a_restart(database, run_service):
    store = MemoryStore()
    async with run_service(database, HOLDING, store=store) as bridge:
        bridge.targets["t"].answer(REFUSED)
        await bridge.execute("INSERT INTO at_the_start VALUES (1)")
        await bridge.events(1)
        await bridge.execute("DELETE FROM at_the_start WHERE id = 1", "INSERT INTO at_the_start VALUES (2)")
        assert ids(await bridge.events(2)) == [1, 2]
    async with run_service(database, HOLDING, store=store) as bridge:
        await bridge.execute("INSERT INTO at_the_start VALUES (3)")
        await bridge.until(lambda: 3 in ids(bridge.targets["t"].events()))
        assert "delete" not in actions(bridge.targets["t"].events())
        (letter,) = await store.letters(LetterFilter())
        await store.discard_letters([letter.id])
        await bridge.until(lambda: "delete" in actions(bridge.targets["t"].events()))


async def test_a_letter_that_is_replayed_goes_before_what_waited_for_it(database, run_service):
    async with run_service(database, HOLDING) as bridge:
        bridge.targets["t"].answer(REFUSED)
        await bridge.execute("INSERT INTO at_the_start VALUES (1)", "DELETE FROM at_the_start WHERE id = 1")
        await bridge.events(1)
        await bridge.until(lambda: bool(bridge.store.tables.letters))
        letters = await bridge.store.letters(LetterFilter())
        assert await bridge.service.by_hand.replay_letter(letters[0].id) is None
        events = await bridge.events(3)
    assert [event["action"] for event in events] == ["insert", "insert", "delete"]


async def test_with_continue_later_changes_go_on(database, run_service):
    async with run_service(database, {"t": {"batch_size": 1}}) as bridge:
        bridge.targets["t"].answer(REFUSED)
        await bridge.execute("INSERT INTO at_the_start VALUES (1)", "DELETE FROM at_the_start WHERE id = 1")
        assert [event["action"] for event in await bridge.events(2)] == ["insert", "delete"]
