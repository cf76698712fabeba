"""`pgbridge dlq` against a real database and a real endpoint."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import sysconfig
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge.change import Position
from bridge.cli import main
from bridge.local.receiver import Receiver
from bridge.lsn import LSN
from bridge.store.postgres import PostgresStore
from bridge.store.protocol import DeadLetter, LetterFilter, SourceIdentity

PGBRIDGE = Path(sysconfig.get_path("scripts")) / "pgbridge"
NOW = datetime.now(UTC).replace(microsecond=123456)
KEYS = [
    "id", "trigger", "event_id", "table", "error", "status", "attempts", "first_failed_at", "last_failed_at",
    "request_id", "log_tail",
]  # fmt: skip


def event_id(number: int) -> str:
    return Position(LSN(number), 0).event_id


def letter(number: int, **changes) -> DeadLetter:
    given = DeadLetter(
        trigger="orders",
        event_id=event_id(number),
        table="public.orders",
        event=b'{"id":"%s",  "n":%d,"price":1.50}' % (event_id(number).encode(), number),
        error="HTTP 500",
        detail="no such customer",
        status=500,
        attempts=9,
        first_failed_at=NOW - timedelta(hours=number),
        last_failed_at=NOW,
        request_id="r-1",
        log_tail="tail",
        ordering_key=b"%d" % (number % 3),
    )
    return replace(given, **changes)


class Desk:
    """A configuration, its store, and the command."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.config = folder / "pgbridge.yaml"
        self.configure("http://127.0.0.1:1/")

    def configure(self, url: str, **settings) -> None:
        trigger = {
            "tables": ["public.*"],
            "batch_size": 5,
            "target": {"http": {"url": url, "batch": True}},
            **settings,
        }
        document = {
            "source": {"dsn": self.dsn},
            "admin": {"listen": None},
            "triggers": {"orders": trigger, "users": trigger},
        }
        self.config.write_text(json.dumps(document))

    async def use(self, work):
        async def supply() -> str:
            return self.dsn

        store = PostgresStore(supply, "pgbridge")
        try:
            return await work(store)
        finally:
            await store.close()

    async def prepare(self, *letters: DeadLetter) -> None:
        async def work(store: PostgresStore) -> None:
            await store.migrate()
            await store.claim(SourceIdentity("elsewhere", "758", 1, "d"))
            await store.save(None, {}, [letter(99)])
            await store.claim(SourceIdentity("pgbridge", "758", 1, "d"))
            await store.save(None, {}, letters)

        await self.use(work)

    async def letters(self) -> list[DeadLetter]:
        return list(await self.use(lambda store: store.letters(LetterFilter(slot="pgbridge"))))

    async def numbers(self) -> list[int]:
        return [Position.parse(each.event_id).commit_lsn for each in await self.letters()]

    def command(self, *arguments: object) -> int:
        """In this process."""
        words = ["dlq", *(str(argument) for argument in arguments), "-c", str(self.config)]
        return main.main(words, standalone_mode=False)

    async def start(self, *arguments: object) -> asyncio.subprocess.Process:
        """In a process of its own."""
        words = ["dlq", *(str(argument) for argument in arguments), "-c", str(self.config)]
        return await asyncio.create_subprocess_exec(
            PGBRIDGE, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def run(self, *arguments: object) -> tuple[int, str, str]:
        process = await self.start(*arguments)
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def desk(database, tmp_path):
    return Desk(database, tmp_path)


@pytest.fixture
def filled(desk):
    """Five letters of one trigger and one of another; letter 1 is the newest failure."""
    letters = [letter(number) for number in range(1, 6)]
    letters.append(
        letter(6, trigger="users", table='public."Müll"', error="Function error: \x1b[31mKaboom", status=None)
    )
    asyncio.run(desk.prepare(*letters))
    return desk


def ids_of(desk: Desk, *numbers: int) -> list[int]:
    by_number = {Position.parse(each.event_id).commit_lsn: each.id for each in asyncio.run(desk.letters())}
    return [by_number[number] for number in numbers]


class TestList:
    def test_as_json_a_letter_has_exactly_the_documented_keys(self, filled, capsys):
        assert filled.command("list", "--json") == 0
        letters = json.loads(capsys.readouterr().out)
        assert [list(each) for each in letters] == [KEYS] * 6
        assert [each["event_id"] for each in letters] == [event_id(number) for number in range(1, 7)]
        first = letters[0]
        assert first["first_failed_at"] == (NOW - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
        assert {**first, "id": 0, "first_failed_at": 0, "last_failed_at": 0} == {
            "id": 0, "trigger": "orders", "event_id": event_id(1), "table": "public.orders", "error": "HTTP 500",
            "status": 500, "attempts": 9, "first_failed_at": 0, "last_failed_at": 0, "request_id": "r-1", "log_tail": "tail",
        }  # fmt: skip

    def test_options_choose(self, filled, capsys):
        third = NOW - timedelta(hours=3)
        for options, numbers in [
            ((), [1, 2, 3, 4, 5, 6]),
            (("--all",), [1, 2, 3, 4, 5, 6]),
            (("--trigger", "users"), [6]),
            (("--table", "public.orders"), [1, 2, 3, 4, 5]),
            (("--table", 'public."Müll"'), [6]),
            (("--error", "http 5"), [1, 2, 3, 4, 5]),
            (("--since", "150m"), [1, 2]),
            (("--since", third.isoformat()), [1, 2, 3]),
            (("--since", third.strftime("%Y-%m-%dT%H:%M:%S.%fZ")), [1, 2, 3]),
            (("--since", third.replace(tzinfo=None).isoformat(" ")), [1, 2, 3]),
            (("--trigger", "orders", "--since", "3d", "--limit", "2"), [1, 2]),
        ]:
            assert filled.command("list", "--json", *options) == 0
            found = [each["event_id"] for each in json.loads(capsys.readouterr().out)]
            assert (options, found) == (options, [event_id(number) for number in numbers])

    def test_for_people_each_letter_is_a_line_that_no_terminal_acts_on(self, filled, capsys):
        assert filled.command("list") == 0
        out, err = capsys.readouterr()
        heading, *lines = out.splitlines()
        assert heading.split() == ["id", "attempts", "status", "trigger", "table", "event", "last", "failed", "error"]
        assert len(lines) == 6
        assert event_id(6) in lines[5]
        assert r"Function error: \x1b[31mKaboom" in lines[5]
        assert err == ""

    def test_a_cut_table_says_so_on_stderr(self, filled, capsys):
        assert filled.command("list", "--limit", 2) == 0
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 3
        assert err == "pgbridge: 2 of 6 dead letters shown; --limit 0 shows all\n"

    def test_nothing_is_said_plainly_and_is_no_fault(self, filled, capsys):
        assert filled.command("list", "--trigger", "none") == 0
        assert capsys.readouterr() == ("", "pgbridge: no dead letters that match\n")
        assert filled.command("list", "--trigger", "none", "--json") == 0
        assert json.loads(capsys.readouterr().out) == []

    def test_tables_that_are_not_there_name_the_command_that_makes_them(self, desk, capsys):
        assert desk.command("list") == 7
        assert capsys.readouterr().err.endswith("run: pgbridge init\n")


class TestShow:
    def test_as_json_it_adds_the_event_as_it_is_stored(self, filled, capsys):
        two, six = ids_of(filled, 2, 6)
        assert filled.command("show", six, two, "--json") == 0
        out = capsys.readouterr().out
        first, second = json.loads(out)
        assert list(first) == [*KEYS, "event"]
        assert (first["id"], second["id"]) == (two, six)
        assert letter(2).event.decode() in out

    def test_for_people_it_shows_event_reason_answer_and_log(self, filled, capsys):
        assert filled.command("show", *ids_of(filled, 1)) == 0
        out = capsys.readouterr().out
        for text in (event_id(1), "HTTP 500", "no such customer", "r-1", "tail", letter(1).event.decode()):
            assert text in out

    @pytest.mark.parametrize("verb", ["show", "replay", "discard"])
    def test_ids_that_do_not_exist_are_one_sentence_and_nothing_is_done(self, filled, capsys, verb):
        (one,) = ids_of(filled, 1)
        assert filled.command(verb, one, 424242, 171717) == 1
        assert capsys.readouterr() == (
            "",
            "pgbridge: there are no dead letters 424242, 171717; pgbridge dlq list shows those that there are\n",
        )
        assert asyncio.run(filled.numbers()) == [1, 2, 3, 4, 5, 6]

    def test_a_letter_of_another_slot_is_not_ours(self, filled, capsys):
        other = asyncio.run(filled.use(lambda store: store.letters(LetterFilter(slot="elsewhere"))))[0].id
        assert filled.command("show", other) == 1
        assert f"there is no dead letter {other};" in capsys.readouterr().err


class TestDiscard:
    def test_one_letter_by_its_id_needs_no_yes(self, filled, capsys):
        assert filled.command("discard", *ids_of(filled, 2)) == 0
        assert capsys.readouterr().out == "1 dead letter discarded\n"
        assert asyncio.run(filled.numbers()) == [1, 3, 4, 5, 6]

    def test_many_without_yes_are_refused_where_nobody_can_be_asked(self, filled, capsys, monkeypatch):
        monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
        assert filled.command("discard", "--all") == 1
        assert "this would discard 6 dead letters for good; add --yes" in capsys.readouterr().err
        assert asyncio.run(filled.numbers()) == [1, 2, 3, 4, 5, 6]

    def test_with_yes_the_chosen_ones_go_and_the_others_stay(self, filled, capsys):
        assert filled.command("discard", "--trigger", "orders", "--yes", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"discarded": 5}
        assert asyncio.run(filled.numbers()) == [6]
        assert len(asyncio.run(filled.use(lambda store: store.letters(LetterFilter(slot="elsewhere"))))) == 1

    def test_nothing_to_discard_is_said(self, filled, capsys):
        assert filled.command("discard", "--trigger", "none", "--yes") == 0
        assert capsys.readouterr() == ("", "pgbridge: no dead letters to discard that match\n")

    @pytest.mark.parametrize("verb", ["discard", "replay"])
    def test_choosing_nothing_is_wrong_usage_not_everything(self, filled, capsys, verb):
        assert filled.command(verb) == 2
        assert "--all" in capsys.readouterr().err
        assert len(asyncio.run(filled.numbers())) == 6


class TestExport:
    def test_it_writes_a_letter_a_line_whole_and_in_commit_order(self, filled, capsysbinary):
        assert filled.command("export") == 0
        lines = capsysbinary.readouterr().out.splitlines()
        assert [json.loads(line)["event"]["n"] for line in lines] == [1, 2, 3, 4, 5, 6]
        assert list(json.loads(lines[0])) == [*KEYS, "event"]
        assert letter(1).event in lines[0]

    def test_nothing_to_export_is_said_on_stderr(self, filled, capsys):
        assert filled.command("export", "--trigger", "none") == 0
        assert capsys.readouterr() == ("", "pgbridge: no dead letters to export that match\n")


class TestReplay:
    async def test_all_are_delivered_in_order_and_leave(self, desk):
        await desk.prepare(*(letter(number) for number in range(12)), letter(12, trigger="users"))
        async with Receiver() as receiver:
            desk.configure(receiver.url)
            code, out, err = await desk.run("replay", "--all")
        assert (code, err) == (0, "")
        assert out == "orders: 12 delivered\nusers: 1 delivered\n"
        assert sorted(receiver.ids()) == [event_id(number) for number in range(13)]
        for key in range(3):
            own = [number for number in range(12) if number % 3 == key]
            received = [each.event["n"] for each in receiver.received if each.event["n"] in own]
            assert received == own
        assert await desk.letters() == []
        assert letter(0).event in b"".join(call.body for call in receiver.calls)

    async def test_what_fails_again_stays_with_its_new_reason_and_the_exit_code_says_so(self, desk):
        await desk.prepare(*(letter(number) for number in range(6)))
        async with Receiver() as receiver:
            receiver.faults.refuse(422, times=None, matching=lambda event: event["n"] == 4, body=b"still no customer")
            desk.configure(receiver.url)
            code, out, err = await desk.run("replay", "--trigger", "orders", "--json")
        (kept,) = await desk.letters()
        assert code == 1
        assert json.loads(out) == {
            "delivered": 5,
            "failed": 1,
            "left": 0,
            "triggers": [{"trigger": "orders", "delivered": 5, "failed": 1, "left": 0, "stopped": None}],
        }
        assert (kept.event_id, kept.attempts, kept.status, kept.detail) == (event_id(4), 10, 422, "still no customer")
        assert kept.first_failed_at == letter(4).first_failed_at
        assert kept.last_failed_at >= NOW
        assert f"dead letter {kept.id} ({event_id(4)}) failed again: HTTP 422" in err

    async def test_one_is_replayed_by_its_id_alone(self, desk):
        await desk.prepare(letter(1), letter(2))
        (first, _) = await desk.letters()
        async with Receiver() as receiver:
            desk.configure(receiver.url)
            code, _, _ = await desk.run("replay", first.id)
        assert (code, receiver.ids(), await desk.numbers()) == (0, [event_id(1)], [2])

    async def test_an_endpoint_that_is_gone_stops_it_with_the_letters_as_they_were(self, desk):
        await desk.prepare(letter(1), letter(2))
        before = await desk.letters()
        async with Receiver() as receiver:
            receiver.faults.refuse(404, times=None)
            desk.configure(receiver.url)
            code, out, err = await desk.run("replay", "--all")
        assert (code, out) == (1, "orders: 0 delivered, 2 not tried\n")
        assert err.startswith("pgbridge: orders: HTTP 404")
        assert await desk.letters() == before

    async def test_letters_of_a_trigger_that_is_not_configured_stay_and_the_others_go(self, desk):
        await desk.prepare(letter(1), letter(2, trigger="removed"))
        async with Receiver() as receiver:
            desk.configure(receiver.url)
            code, out, err = await desk.run("replay", "--all")
        assert (code, out) == (1, "orders: 1 delivered\nremoved: 0 delivered, 1 not tried\n")
        assert "removed: the configuration has no trigger of this name" in err
        assert await desk.numbers() == [2]

    async def test_nothing_to_replay_is_said_and_is_success(self, desk):
        await desk.prepare()
        assert await desk.run("replay", "--all") == (0, "", "pgbridge: no dead letters to replay\n")

    async def test_two_at_once_send_no_letter_twice(self, desk):
        await desk.prepare(*(letter(number) for number in range(40)))
        async with Receiver() as receiver:
            held = receiver.faults.hold(times=1)
            desk.configure(receiver.url)
            first = await desk.start("replay", "--all")
            await held.reached()
            second = await desk.start("replay", "--all")
            assert b"another process is replaying letters of orders; waiting for it" in await second.stderr.readline()
            held.release()
            results = await asyncio.gather(first.communicate(), second.communicate())
        assert (first.returncode, second.returncode) == (0, 0)
        assert results[0][0] == b"orders: 40 delivered\n"
        assert sorted(receiver.ids()) == [event_id(number) for number in range(40)]
        assert await desk.letters() == []

    async def test_killed_half_way_nothing_is_lost_and_only_what_was_in_flight_repeats(self, desk):
        """Promise 5: what repeats has the same id."""
        await desk.prepare(*(letter(number, ordering_key=b"k") for number in range(40)))
        async with Receiver() as receiver:
            held = receiver.faults.hold(times=1, matching=lambda event: event["n"] == 17)
            desk.configure(receiver.url)
            process = await desk.start("replay", "--all")
            await held.reached()
            process.kill()
            await process.communicate()
            assert await desk.numbers() == list(range(15, 40))
            held.release()
            code, out, _ = await desk.run("replay", "--all")
        assert (code, out) == (0, "orders: 25 delivered\n")
        assert set(receiver.ids()) == {event_id(number) for number in range(40)}
        repeated = {each for each in receiver.ids() if receiver.ids().count(each) > 1}
        assert repeated <= {event_id(number) for number in range(15, 20)}
        assert await desk.letters() == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_interrupted_it_finishes_its_calls_and_says_how_far_it_came(self, desk, number):
        await desk.prepare(*(letter(number, ordering_key=b"k") for number in range(40)))
        async with Receiver() as receiver:
            held = receiver.faults.hold(times=1, matching=lambda event: event["n"] == 7)
            desk.configure(receiver.url)
            process = await desk.start("replay", "--all")
            await held.reached()
            process.send_signal(number)
            assert b"finishing the calls under way" in await process.stderr.readline()
            held.release()
            out, err = await process.communicate()
        assert (process.returncode, out) == (1, b"orders: 10 delivered, 30 not tried\n")
        assert b"orders: interrupted" in err
        assert await desk.numbers() == list(range(10, 40))

    async def test_interrupted_twice_it_abandons_them_and_their_letters_stay(self, desk):
        await desk.prepare(*(letter(number, ordering_key=b"k") for number in range(10)))
        async with Receiver() as receiver:
            held = receiver.faults.hold(times=1, matching=lambda event: event["n"] == 7)
            desk.configure(receiver.url)
            process = await desk.start("replay", "--all")
            await held.reached()
            process.send_signal(signal.SIGINT)
            assert b"finishing the calls under way" in await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            await process.communicate()
            held.release()
        assert process.returncode == 130
        assert await desk.numbers() == list(range(5, 10))
