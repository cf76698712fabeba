"""The contract of a store, which the one in memory and the one in PostgreSQL keep alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from bridge.change import Position
from bridge.errors import InvariantBroken, StoreFenced
from bridge.lsn import LSN
from bridge.store.memory import MemoryStore
from bridge.store.postgres import PostgresStore
from bridge.store.protocol import DeadLetter, KeptPause, LetterFilter, LetterKeys, Progress, SourceIdentity, Store

WHO = SourceIdentity("s", "7584208214917443585", 1, "shop")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOP = LSN(2**64 - 1)


def letter(number: int, **changes) -> DeadLetter:
    given = DeadLetter(
        trigger="t",
        event_id=Position(LSN(number * 256), 3).event_id,
        table="public.users",
        event=b'{"record":{"id":%d}}' % number,
        error="HTTP 500",
        detail="",
        status=500,
        attempts=9,
        first_failed_at=NOON + timedelta(seconds=number % 86_400),
        last_failed_at=NOON + timedelta(seconds=number % 86_400 + 60),
    )
    return replace(given, **changes)


def same(found, given) -> bool:
    return [replace(each, id=None) for each in found] == list(given)


async def ids(store: Store, **where) -> list[int]:
    """The numbers of the matching letters, in the order given."""
    return [Position.parse(each.event_id).commit_lsn // 256 for each in await store.letters(LetterFilter(**where))]


@pytest.fixture(scope="module")
def latin1(postgres):
    """A database that lacks most of Unicode."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        yield postgres.dsn("latin1")
        admin.execute("DROP DATABASE latin1 WITH (FORCE)")


@pytest.fixture(params=["memory", "postgres", "postgres in LATIN1"])
async def processes(request):
    """Makes stores that see the same tables, as several processes do. In PostgreSQL each test has a schema of its own."""
    if request.param == "memory":
        first = MemoryStore()
        yield lambda: MemoryStore(first.tables)
        return
    dsn = request.getfixturevalue("latin1" if "LATIN1" in request.param else "postgres")
    dsn = dsn if isinstance(dsn, str) else dsn.dsn()
    made: list[Store] = []

    async def supply() -> str:
        return dsn

    def make() -> Store:
        made.append(PostgresStore(supply, "pgbridge"))
        return made[-1]

    await make().migrate()
    yield make
    for each in made:
        await each.close()
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("DROP SCHEMA pgbridge CASCADE")


@pytest.fixture
async def store(processes):
    store = processes()
    await store.open()
    return store


@pytest.fixture
async def claimed(store):
    await store.claim(WHO)
    return store


class TestProgress:
    async def test_nothing_is_known_of_a_slot_never_claimed(self, store):
        assert await store.read("s") == Progress(None, 0, None, {})

    async def test_a_claim_stores_the_identity_and_counts(self, store):
        first = await store.claim(WHO)
        second = await store.claim(WHO)
        assert (first.identity, first.epoch, second.epoch) == (WHO, 1, 2)
        assert await store.read("s") == second

    async def test_a_claim_by_another_system_leaves_the_stored_identity_for_the_caller_to_refuse(self, store):
        await store.claim(WHO)
        other = replace(WHO, system_identifier="1", timeline=9, database="elsewhere")
        assert (await store.claim(other)).identity == WHO

    async def test_an_adopted_identity_stands(self, claimed):
        moved = replace(WHO, timeline=2, database="š")
        await claimed.adopt(moved)
        assert (await claimed.read("s")).identity == moved

    async def test_what_was_saved_is_read_exactly_to_the_last_bit(self, claimed):
        position = Position(TOP, 2**63 - 1)
        await claimed.save(TOP, {"t": position, "u": Position(LSN(0), 0)})
        stored = await claimed.read("s")
        assert stored.confirmed_lsn == TOP
        assert stored.checkpoints == {"t": position, "u": Position(LSN(0), 0)}

    async def test_a_trigger_may_stand_before_the_first_change_of_a_transaction(self, claimed):
        for ordinal in (-1, 0):
            await claimed.save(None, {"t": Position(LSN(9), ordinal)})
            assert (await claimed.read("s")).checkpoints == {"t": Position(LSN(9), ordinal)}

    async def test_a_save_of_some_leaves_the_rest(self, claimed):
        await claimed.save(LSN(5), {"t": Position(LSN(9), 1), "u": Position(LSN(9), 2)})
        await claimed.save(None, {"t": Position(LSN(9), 4)})
        stored = await claimed.read("s")
        assert stored.confirmed_lsn == 5
        assert stored.checkpoints == {"t": Position(LSN(9), 4), "u": Position(LSN(9), 2)}

    async def test_saving_the_same_again_is_no_move_back(self, claimed):
        for _ in range(2):
            await claimed.save(LSN(5), {"t": Position(LSN(9), 1)}, [letter(1)])
        assert await ids(claimed) == [1]

    async def test_a_confirmed_position_that_moves_back_is_refused_with_both_numbers(self, claimed):
        await claimed.save(LSN(0x2_0000_0010), {})
        with pytest.raises(InvariantBroken, match=r"back from 2/10 to 2/F"):
            await claimed.save(LSN(0x2_0000_000F), {"t": Position(LSN(9), 1)}, [letter(1)])
        assert await claimed.read("s") == Progress(WHO, 1, LSN(0x2_0000_0010), {})
        assert await ids(claimed) == []

    @pytest.mark.parametrize("back", [Position(LSN(16), 6), Position(LSN(15), 900)])
    async def test_a_checkpoint_that_moves_back_is_refused_with_both_numbers_and_saves_nothing(self, claimed, back):
        await claimed.save(LSN(5), {"t": Position(LSN(16), 7)})
        with pytest.raises(InvariantBroken, match=r"trigger \"t\" .*0/10, ordinal 7, .*0/(10|F), ordinal (6|900)"):
            await claimed.save(LSN(6), {"a": Position(LSN(1), 1), "t": back}, [letter(1)])
        assert await claimed.read("s") == Progress(WHO, 1, LSN(5), {"t": Position(LSN(16), 7)})
        assert await ids(claimed) == []

    async def test_positions_compare_as_unsigned_numbers(self, claimed):
        await claimed.save(LSN(2**63 - 1), {"t": Position(LSN(2**63 - 1), 0)})
        await claimed.save(LSN(2**63), {"t": Position(LSN(2**63), 0)})
        assert (await claimed.read("s")).confirmed_lsn == 2**63

    async def test_slots_do_not_see_each_other(self, processes):
        one, two = processes(), processes()
        await one.claim(WHO)
        await two.claim(replace(WHO, slot="other"))
        await one.save(LSN(7), {"t": Position(LSN(7), 0)}, [letter(1)])
        await two.save(LSN(1), {"t": Position(LSN(1), 0)}, [letter(1)])
        assert (await two.read("other")).confirmed_lsn == 1
        assert await ids(one, slot="s") == await ids(one, slot="other") == [1]
        assert await ids(one) == [1, 1]

    async def test_saving_before_a_claim_is_our_bug(self, store):
        with pytest.raises(InvariantBroken, match="before a slot was claimed"):
            await store.save(LSN(1), {})


class TestFencing:
    async def test_a_process_that_lost_its_claim_saves_nothing(self, processes):
        """Given a paused process that was replaced, when it wakes, then none of its writing gets in."""
        paused, successor = processes(), processes()
        await paused.claim(WHO)
        await paused.save(LSN(5), {"t": Position(LSN(5), 0)})
        await successor.claim(WHO)
        with pytest.raises(StoreFenced, match=r'"s".*epoch 2, ours is 1'):
            await paused.save(LSN(9), {"t": Position(LSN(9), 0)}, [letter(1)])
        with pytest.raises(StoreFenced):
            await paused.adopt(WHO)
        assert (await successor.read("s")).checkpoints == {"t": Position(LSN(5), 0)}
        assert await ids(successor) == []
        await successor.save(LSN(6), {"t": Position(LSN(6), 0)})

    async def test_a_fenced_process_is_told_so_even_where_it_would_move_back(self, processes):
        paused, successor = processes(), processes()
        await paused.claim(WHO)
        await successor.claim(WHO)
        await successor.save(LSN(9), {"t": Position(LSN(9), 0)})
        with pytest.raises(StoreFenced):
            await paused.save(LSN(5), {"t": Position(LSN(5), 0)})

    async def test_of_many_that_claim_at_once_one_can_save(self, processes):
        rivals = [processes() for _ in range(8)]
        claims = await asyncio.gather(*(rival.claim(WHO) for rival in rivals))
        assert sorted(claim.epoch for claim in claims) == list(range(1, 9))
        results = await asyncio.gather(*(rival.save(LSN(1), {}) for rival in rivals), return_exceptions=True)
        assert [type(result) for result in results].count(type(None)) == 1
        assert [type(result) for result in results].count(StoreFenced) == 7

    async def test_no_save_is_missing_from_what_a_later_claim_returns(self, processes):
        """While one process saves as fast as it can, each claim ends its epoch at exactly what the claim returned."""
        for _ in range(10):
            writer, successor = processes(), processes()
            start = (await writer.claim(WHO)).confirmed_lsn or 0
            saved: list[int] = []
            begun = asyncio.Event()

            async def write(writer=writer, saved=saved, start=start, begun=begun) -> None:
                for lsn in range(start + 1, start + 10_000):
                    await writer.save(LSN(lsn), {"t": Position(LSN(lsn), 0)})
                    saved.append(lsn)
                    begun.set()
                    await asyncio.sleep(0)

            writing = asyncio.create_task(write())
            await begun.wait()
            claim = await successor.claim(WHO)
            with pytest.raises(StoreFenced):
                await writing
            assert claim.confirmed_lsn == saved[-1]
            assert claim.checkpoints == {"t": Position(LSN(saved[-1]), 0)}
            assert await successor.read("s") == claim

    async def test_a_forgotten_slot_begins_anew_without_letting_an_earlier_process_in(self, processes):
        earlier, operator = processes(), processes()
        await earlier.claim(WHO)
        await earlier.save(LSN(9), {"t": Position(LSN(9), 0)}, [letter(1)])
        await operator.forget("s")
        forgotten = await operator.read("s")
        assert (forgotten.identity, forgotten.confirmed_lsn, forgotten.checkpoints) == (None, None, {})
        with pytest.raises(StoreFenced):
            await earlier.save(LSN(10), {})
        again = replace(WHO, system_identifier="2")
        assert (await operator.claim(again)).identity == again
        await operator.save(LSN(1), {"t": Position(LSN(1), 0)})
        assert await ids(operator) == [1]

    async def test_forgetting_an_unknown_slot_is_nothing(self, store):
        await store.forget("never")
        assert (await store.read("never")).epoch == 0


class TestSchemaGuards:
    async def test_items_are_kept_replaced_and_dropped(self, claimed):
        await claimed.save_schema_guards(
            {"t": {"relation:1": "{}", "stop:A": '{"what":["\\u017c"]}'}, "u": {"relation:1": "[]"}}
        )
        await claimed.save_schema_guards({"t": {"relation:1": '{"n":1}', "stop:A": None, "stop:B": None}, "u": {}})
        assert await claimed.schema_guards("s") == {"t": {"relation:1": '{"n":1}'}, "u": {"relation:1": "[]"}}

    async def test_a_slot_has_none_but_its_own(self, claimed):
        await claimed.save_schema_guards({"t": {"relation:1": "{}"}})
        assert await claimed.schema_guards("other") == {}

    async def test_saving_the_same_again_changes_nothing(self, claimed):
        for _ in range(2):
            await claimed.save_schema_guards({"t": {"relation:1": "{}", "stop:A": None}})
        assert await claimed.schema_guards("s") == {"t": {"relation:1": "{}"}}

    async def test_a_process_that_was_overtaken_writes_nothing(self, claimed, processes):
        other = processes()
        await other.open()
        await other.claim(WHO)
        with pytest.raises(StoreFenced):
            await claimed.save_schema_guards({"t": {"relation:1": "{}"}})
        assert await other.schema_guards("s") == {}

    async def test_a_slot_that_is_forgotten_forgets_them(self, claimed):
        await claimed.save_schema_guards({"t": {"relation:1": "{}"}})
        await claimed.forget("s")
        assert await claimed.schema_guards("s") == {}


class TestPauses:
    async def test_they_are_kept_replaced_and_dropped(self, claimed):
        gone = KeptPause("HTTP 410", "resume it when the endpoint is back")
        await claimed.save_pauses({"t": gone, "u": KeptPause("žluť 😀", "")})
        assert await claimed.pauses("s") == {"t": gone, "u": KeptPause("žluť 😀", "")}
        by_target = KeptPause(gone.reason, gone.remedy, target="5a" * 16)
        await claimed.save_pauses({"t": by_target})
        assert (await claimed.pauses("s"))["t"] == by_target
        by_hand = KeptPause("paused by an operator", "resume it")
        await claimed.save_pauses({"t": by_hand, "u": None, "v": None})
        assert await claimed.pauses("s") == {"t": by_hand}

    async def test_a_slot_has_none_but_its_own(self, claimed):
        await claimed.save_pauses({"t": KeptPause("why", "what")})
        assert await claimed.pauses("other") == {}

    async def test_a_process_that_was_overtaken_writes_none_and_the_next_one_sees_what_was_kept(
        self, claimed, processes
    ):
        kept = KeptPause("why", "what")
        await claimed.save_pauses({"t": kept})
        other = processes()
        await other.open()
        await other.claim(WHO)
        with pytest.raises(StoreFenced):
            await claimed.save_pauses({"t": None, "u": kept})
        assert await other.pauses("s") == {"t": kept}

    async def test_they_outlive_a_slot_that_is_begun_anew(self, claimed):
        await claimed.save_pauses({"t": KeptPause("why", "what")})
        await claimed.forget("s")
        assert await claimed.pauses("s") == {"t": KeptPause("why", "what")}


class TestLetters:
    @pytest.mark.parametrize(
        "event",
        [
            b'{"a": 1,  "b":1.0e5,"a":2}',  # spaces, number spelling and doubled keys
            '{"a":"žluť € 😀 \\u0000 \\ud800 \\\\"}'.encode(),  # escapes of what text can't hold
            b"{}",
            b'{"big":"' + b"x" * 3_000_000 + b'"}',
        ],
        ids=["spelling", "escapes", "empty", "3 MB"],
    )
    async def test_an_event_survives_byte_for_byte(self, claimed, event):
        await claimed.save(None, {}, [letter(1, event=event)])
        (found,) = await claimed.letters(LetterFilter())
        assert found.event == event

    async def test_every_field_survives(self, claimed):
        given = letter(
            1,
            table='public."Účty 😀"',
            error="naïve: 日本",
            detail="line\nline\t\\x41 \x1b[31m",
            status=None,
            request_id="r-1",
            log_tail="…",
            ordering_key=b"\x00\xff\\",
            old_ordering_key=b"",
            barrier=True,
        )
        await claimed.save(None, {}, [given])
        found = await claimed.letters(LetterFilter())
        assert same(found, [given])
        assert found[0].id is not None
        assert found[0].first_failed_at.utcoffset() == timedelta(0)

    async def test_no_text_stops_a_letter(self, claimed):
        """NUL and half a surrogate pair are in no PostgreSQL text; a trigger must not stop for them."""
        await claimed.save(
            None, {}, [letter(1, error="a\0b", detail="\ud800", log_tail="\0", request_id="\udcff", table="p.\0")]
        )
        (found,) = await claimed.letters(LetterFilter(error="A"))
        assert found.error.startswith("a")
        assert len(found.detail) == 1

    async def test_letters_come_in_commit_order_whatever_order_they_were_saved_in(self, claimed):
        numbers = [3, 2**55, 1, 17, 255, 16]
        await claimed.save(None, {}, [letter(number) for number in numbers])
        assert await ids(claimed) == sorted(numbers)
        assert [item.event_id async for item in claimed.iterate_letters(LetterFilter())] == sorted(
            letter(number).event_id for number in numbers
        )

    async def test_a_later_failure_of_the_same_event_updates_its_letter(self, claimed):
        await claimed.save(None, {}, [letter(1)])
        (before,) = await claimed.letters(LetterFilter())
        later = letter(
            1, error="HTTP 400", status=400, attempts=11, first_failed_at=NOON + timedelta(1), last_failed_at=NOON + timedelta(2),
            log_tail="new", request_id="r-2", detail="d", event=b"{}",
        )  # fmt: skip
        await claimed.save(None, {}, [later])
        assert await claimed.letters(LetterFilter()) == [
            replace(later, id=before.id, first_failed_at=before.first_failed_at)
        ]

    async def test_triggers_have_letters_of_their_own_for_one_event(self, claimed):
        await claimed.save(None, {}, [letter(1), letter(1, trigger="u")])
        assert await claimed.count_letters() == {"t": 1, "u": 1}

    async def test_filters_choose_and_all_must_hold(self, claimed):
        await claimed.save(
            None,
            {},
            [
                letter(1),
                letter(2, trigger="u"),
                letter(3, table="public.orders", error="Function error: 100%_done"),
                letter(4, table="public.orders", trigger="u"),
            ],
        )
        by_number = {
            Position.parse(item.event_id).commit_lsn // 256: item.id for item in await claimed.letters(LetterFilter())
        }
        assert await ids(claimed, slot="other") == []
        assert await ids(claimed, trigger="u") == [2, 4]
        assert await ids(claimed, table="public.orders") == [3, 4]
        assert await ids(claimed, trigger="u", table="public.orders", slot="s") == [4]
        assert await ids(claimed, since=NOON + timedelta(seconds=3)) == [3, 4]
        assert await ids(claimed, error="FUNCTION") == [3]
        assert await ids(claimed, error="%_DONE") == [3]
        assert await ids(claimed, error="_x_") == []
        assert await ids(claimed, ids=[by_number[4], by_number[1], 10**12]) == [1, 4]
        assert await ids(claimed, ids=[]) == []
        assert await ids(claimed, up_to_id=by_number[3]) == [1, 2, 3]
        survey = await claimed.survey_letters(LetterFilter(trigger="u"))
        assert (survey.by_trigger, survey.newest_id, survey.total) == ({"u": 2}, by_number[4], 2)
        assert await claimed.count_letters(LetterFilter(table="public.users")) == {"t": 1, "u": 1}

    async def test_a_survey_of_nothing_is_empty(self, store):
        survey = await store.survey_letters(LetterFilter())
        assert (survey.by_trigger, survey.newest_id, survey.total) == ({}, 0, 0)

    async def test_a_limit_takes_the_first(self, claimed):
        await claimed.save(None, {}, [letter(number) for number in range(5)])
        assert same(await claimed.letters(LetterFilter(), limit=2), [letter(0), letter(1)])
        assert await claimed.letters(LetterFilter(), limit=0) == []

    async def test_many_letters_come_one_by_one_and_each_once(self, claimed):
        """More than a page of rows, and more than a page of bytes."""
        await claimed.save(None, {}, [letter(number) for number in range(2500)])
        await claimed.save(None, {}, [letter(3000 + number, event=b"x" * 3_000_000) for number in range(7)])
        found = [
            Position.parse(item.event_id).commit_lsn // 256 async for item in claimed.iterate_letters(LetterFilter())
        ]
        assert found == [*range(2500), *range(3000, 3007)]
        assert len(await claimed.letters(LetterFilter())) == 2507

    async def test_letters_discarded_while_iterating_do_not_disturb_the_rest(self, claimed):
        await claimed.save(None, {}, [letter(number) for number in range(2500)])
        seen = 0
        async for item in claimed.iterate_letters(LetterFilter(), whole=False):
            seen += await claimed.discard_letters([item.id])
        assert seen == 2500
        assert (await claimed.survey_letters(LetterFilter())).total == 0

    async def test_an_outline_leaves_out_what_is_large(self, claimed):
        await claimed.save(None, {}, [letter(1, detail="much", log_tail="tail")])
        outlines = [item async for item in claimed.iterate_letters(LetterFilter(), whole=False)]
        assert same(outlines, [letter(1, event=b"", log_tail="tail")])

    async def test_discarding_counts_what_was_there(self, claimed):
        await claimed.save(None, {}, [letter(number) for number in range(3)])
        first, second, _ = [item.id for item in await claimed.letters(LetterFilter())]
        assert await claimed.discard_letters([second, 10**12, first, first]) == 2
        assert await claimed.discard_letters([first]) == 0
        assert await claimed.discard_letters([]) == 0
        assert await ids(claimed) == [2]

    async def test_a_failed_replay_adds_an_attempt_and_the_new_reason(self, claimed):
        await claimed.save(None, {}, [letter(1), letter(2)])
        first, second = await claimed.letters(LetterFilter())
        await claimed.fail_letter_again(
            first.id, error="now this", detail="d\0", status=400, request_id="r", log_tail="tail"
        )
        changed, untouched = await claimed.letters(LetterFilter())
        assert untouched == second
        assert changed.last_failed_at >= first.last_failed_at
        assert changed.detail.startswith("d")
        assert replace(changed, last_failed_at=first.last_failed_at, detail="") == replace(
            first, attempts=10, error="now this", status=400, request_id="r", log_tail="tail"
        )

    async def test_a_failed_replay_of_a_letter_that_is_gone_is_nothing(self, store):
        await store.fail_letter_again(1, error="", detail="", status=None, request_id=None, log_tail=None)
        assert await ids(store) == []


class TestReplaying:
    async def test_one_process_at_a_time_replays_a_trigger(self, processes):
        one, two = processes(), processes()
        waits = asyncio.Event()
        order: list[str] = []

        async def second() -> None:
            async with two.replaying("s", "t", on_wait=waits.set):
                order.append("second")

        async with one.replaying("s", "t", on_wait=lambda: order.append("waited")) as claim:
            waiting = asyncio.create_task(second())
            await waits.wait()
            await claim.check()
            order.append("first")
        await waiting
        assert order == ["first", "second"]

    async def test_other_triggers_and_slots_are_replayed_beside_it(self, processes):
        one, two = processes(), processes()
        async with one.replaying("s", "t"), two.replaying("s", "u"), two.replaying("r", "t") as claim:
            await claim.check()

    async def test_a_replay_that_fails_makes_room_for_the_next(self, processes):
        one, two = processes(), processes()
        with pytest.raises(ZeroDivisionError):
            async with one.replaying("s", "t"):
                raise ZeroDivisionError
        async with two.replaying("s", "t") as claim:
            await claim.check()


class TestReports:
    async def test_what_is_still_to_be_told_is_kept_found_and_struck_off(self, claimed):
        told, untold = letter(1), letter(2, report='{"condition":"RetryAttemptsExhausted"}')
        await claimed.save(None, {"t": Position(LSN(9), 0)}, [told, untold])
        assert same(await claimed.letters(LetterFilter()), [told, untold])
        (found,) = await claimed.letters(LetterFilter(unreported=True))
        assert found.report == untold.report
        await claimed.mark_reported([found.id, 10**12])
        assert await claimed.letters(LetterFilter(unreported=True)) == []
        assert same(await claimed.letters(LetterFilter()), [told, replace(untold, report=None)])
        await claimed.mark_reported([])

    async def test_a_save_that_is_repeated_asks_for_the_report_again(self, claimed):
        """At least once: whether the first answer was lost before or after the report is not known."""
        again = letter(1, report="{}")
        await claimed.save(None, {}, [again])
        await claimed.mark_reported([item.id for item in await claimed.letters(LetterFilter())])
        await claimed.save(None, {}, [again])
        assert len(await claimed.letters(LetterFilter(unreported=True))) == 1


class TestLetterKeys:
    async def test_the_keys_of_a_triggers_letters_are_told_whole(self, claimed):
        letters = [
            letter(1, ordering_key=b"a\0\xff"),
            letter(2, ordering_key=b"b", old_ordering_key=b"a\0\xff"),
            letter(3),
            letter(4, trigger="other", ordering_key=b"z", barrier=True),
        ]
        await claimed.save(None, {}, letters)
        assert await claimed.letter_keys("s", "t") == LetterKeys(frozenset({b"a\0\xff", b"b"}))
        assert await claimed.letter_keys("s", "nobody") == LetterKeys()
        assert await claimed.letter_keys("another slot", "t") == LetterKeys()

    async def test_a_barrier_without_a_key_is_told(self, claimed):
        await claimed.save(None, {}, [letter(1, barrier=True)])
        assert await claimed.letter_keys("s", "t") == LetterKeys(barrier=True)
