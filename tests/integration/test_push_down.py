"""What publications leave out because no trigger wants it: the events stay the same, and so do their names."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from bridge.change import Event, Position
from bridge.cli import init
from bridge.config import Settings, parse
from bridge.lsn import LSN
from bridge.observe.status import ServiceState
from bridge.pgoutput.assembler import Assembler, Route
from bridge.service import Service
from bridge.source import catalog, publication
from bridge.source.queries import run
from bridge.source.session import connected
from bridge.store.memory import MemoryStore
from bridge.testing import MemoryTarget, wire

TARGET = {"http": {"url": "https://example.com/"}}
USERS = (
    "CREATE TABLE users (id int PRIMARY KEY, plan text, v varchar(12), age int, small smallint, big bigint,"
    ' n numeric, b bool, u uuid, doc jsonb, tags text[], c char(4), "Sel ect" text)'
)
UUIDS = ("6f9619ff-8b86-d011-b42d-00cf4fc964ff", "00000000-0000-0000-0000-000000000000")


def settings_for(
    name: str,
    triggers: dict[str, dict],
    *,
    push_down: str = "auto",
    dsn: str = "host=/nowhere",
    slot: str = "pgbridge",
) -> Settings:
    return Settings.model_validate(
        {
            "admin": {"listen": None},
            "source": {"dsn": dsn, "slot": slot, "publication": name, "push_down": push_down},
            "triggers": {name: {"target": TARGET, **trigger} for name, trigger in triggers.items()},
        }
    )


class Database:
    """One that has slots, publications as settings ask for, and writers."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.admin = psycopg.connect(dsn, autocommit=True)
        self.execute = self.admin.execute

    @property
    def slices(self) -> bool:
        return self.admin.info.server_version >= 150000

    async def prepare(self, settings: Settings) -> list[str]:
        async with connected(self.dsn) as session:
            plan = await publication.plan(session, settings, make_companion=True)
            if plan.state is None or plan.companion is None:
                for statement in plan.todo:
                    await run(session, statement)
            warnings = await publication.prepare(session, settings)
            if not warnings:
                assert (await publication.plan(session, settings)).todo == (), "what was brought in step is in step"
        return warnings

    def make_slot(self, name: str) -> None:
        self.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))

    def advance(self, slot: str, lsn: int) -> None:
        self.execute("SELECT pg_replication_slot_advance(%s, '0/0'::pg_lsn + %s::numeric)", (slot, lsn))

    async def sent(self, slot: str, settings: Settings) -> list[tuple[str, Event]]:
        """What each trigger gets of what the slot holds, which stays there."""
        name = settings.source.publication
        rows = self.execute(
            "SELECT lsn - '0/0', data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
            " 'proto_version', '1', 'publication_names', %s)",
            (slot, f"{name}, {name}_inserts"),
        ).fetchall()
        async with connected(self.dsn) as session:
            facts = await catalog.load(session)
        inboxes: dict[str, list[Event]] = {trigger: [] for trigger in settings.triggers}

        def routes(relation) -> list[Route]:
            return [
                Route(
                    name,
                    trigger.shape(),
                    frozenset(trigger.operations),
                    inboxes[name],
                    Position(LSN(0), 0),
                    trigger.selection,
                )
                for name, trigger in settings.triggers.items()
                if trigger.table_selection.matches(relation.namespace, relation.name)
            ]

        assembler = Assembler(
            database=self.admin.info.dbname,
            system_identifier="1",
            start_lsn=0,
            routes=routes,
            message_routes=lambda _: [],
            primary_keys=facts.primary_key,
            types=facts.type_of,
        )
        assembler.consume([wire.xlog_data(bytes(data), start=int(lsn)) for lsn, data in rows])
        self.changes = assembler.changes
        return [(trigger, event) for trigger, inbox in inboxes.items() for event in inbox]


@pytest.fixture(params=["database", "system_database"])
def database_of(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.admin.close()


def facts_of(events: Sequence[tuple[str, Event]]) -> list[tuple[str, dict]]:
    """All of the events but what numbers them: ordinals count what the server sends."""
    documents = []
    for trigger, event in events:
        document = json.loads(event.body[:-1] + b"}}")
        del document["id"]
        for member in ("commit_idx", "idempotency_key"):
            document["metadata"].pop(member, None)
        documents.append((trigger, document))
    return documents


# -- the same events with and without ---------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "plan": [None, "", "pro", "free", "team", "é", "o'b", "a\\b", "10.0.0.1", "Pro", "300"],
    "v": [None, "x", "xy", "y", "pro"],
    "age": [None, -3, -2, 0, 2, 3, 18, 2147483647, -2147483648],
    "small": [None, -1, 0, 5, 32767],
    "big": [None, -3, 0, 2, 3, 9007199254740993, -9223372036854775808],
    "n": [None, "0", "1.5", "2.50", "2.500001", "-7", "NaN", "100000000000000000000"],
    "b": [None, True, False],
    "u": [None, *UUIDS],
    "doc": [None, "null", '{"plan": "pro"}', "[]", '"pro"'],
    "tags": [None, [], ["pro"], ["a", "b"]],
    "c": [None, "ab", "pro"],
    "Sel ect": [None, "pro", "x"],
}
NUMBERS = (-3, -2.5, 0, 1.5, 2, 2.5, 2.5000, 3, 18, 40000, 5e9, 9007199254740993, 300)


PLAIN = ["plan", "v", "age", "small", "big", "n", "b", "u", "Sel ect"]


def random_test(choose: random.Random, column: str, *, plain: bool) -> Any:
    if plain or choose.random() < 0.3:  # one that may well be pushed down, and matches something
        value = choose.choice([value for value in VALUES[column] if not isinstance(value, list)])
        if column in {"age", "small", "big"} and value is not None:
            return choose.choice(
                [value, {"numeric": [">=", max(value, -(10**9))]}, {"anything-but": min(value, 10**9)}]
            )
        if column == "n":
            return choose.choice([1.5, 2.5, {"numeric": ["<", 2.5]}, {"numeric": [">", 1.5]}, None])
        if isinstance(value, str) and choose.random() < 0.3:
            return choose.choice([{"anything-but": value}, {"prefix": value[:1]}])
        return value
    text = choose.choice([str(value) for value in VALUES[column] if isinstance(value, str)] + ["pro", "p", "300"])
    number = choose.choice(NUMBERS)
    higher = choose.choice([other for other in NUMBERS if other > number] or [number + 1])
    forms = [
        text, text, text, number, number, None, True, False, choose.choice(UUIDS), choose.choice(UUIDS).upper(),
        {"prefix": text[:2] or "p"}, {"prefix": ""}, {"suffix": text[-1:]}, {"equals-ignore-case": text}, {"wildcard": "p*"},
        {"exists": choose.random() < 0.5}, {"anything-but": text}, {"anything-but": [number, higher]},
        {"anything-but": [text, "free"]}, {"anything-but": {"prefix": "p"}}, {"numeric": ["=", number]},
        {"numeric": [choose.choice([">", ">="]), number]}, {"numeric": [choose.choice(["<", "<="]), number]},
        {"numeric": [choose.choice([">", ">="]), number, choose.choice(["<", "<="]), higher]},
    ]  # fmt: skip
    if column == "b":
        forms = [True, False, None, {"exists": True}, {"anything-but": "t"}]
    return choose.choice(forms)


def random_pattern(choose: random.Random, *, plain: bool) -> dict:
    def fields() -> dict:
        columns = choose.sample(PLAIN if plain else [*VALUES], choose.randint(1, 2))
        return {
            column: [random_test(choose, column, plain=plain) for _ in range(choose.randint(1, 3))]
            for column in columns
        }

    record: dict = fields()
    if choose.random() < 0.2:
        record["$or"] = [fields(), fields()]
    if not plain and choose.random() < 0.1:
        record["doc"] = {"plan": ["pro"]}
    pattern: dict = {"record": record}
    if choose.random() < 0.2:
        pattern["action"] = [choose.choice(["insert", "update"])]
    return pattern


def random_triggers(choose: random.Random) -> dict[str, dict]:
    triggers: dict[str, dict] = {}
    plain = choose.random() < 0.6
    for name in ("one", "two", "three")[: choose.randint(1, 3)]:
        trigger: dict = {
            "tables": choose.choice([["public.users"], ["public.users"], ["public.log", "public.users"]]),
            "operations": choose.choice([["insert"], ["insert", "truncate"]] + [["insert", "update"]] * (not plain)),
        }
        if plain or choose.random() < 0.9:
            trigger["filter_criteria"] = [random_pattern(choose, plain=plain) for _ in range(choose.randint(1, 2))]
        if choose.random() < 0.5:
            trigger["columns"] = {"include": choose.sample([*VALUES], 3)}
        if choose.random() < 0.3:
            trigger["order_by"] = [choose.choice([*VALUES])]
        triggers[name] = trigger
    if choose.random() < 0.5:
        triggers["other"] = {"tables": ["public.orders"]}
    return triggers


def write_at_random(choose: random.Random, database: Database) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, VALUES))
    with database.admin.transaction():
        for number in range(60):
            row = [choose.choice(values) for values in VALUES.values()]
            insert = sql.SQL("INSERT INTO users (id, {}) VALUES ({}, {})").format(
                columns, number, sql.SQL(", ").join([sql.Placeholder()] * len(row))
            )
            database.execute(insert, row)
            if number % 7 == 0:
                # The application's, which have to go on whatever is published.
                database.execute("UPDATE users SET plan = 'pro', age = 18 WHERE id = %s", (number,))
                database.execute("INSERT INTO log VALUES ('line', 'pro')")
                database.execute("INSERT INTO orders VALUES (%s)", (number,))
    database.execute("UPDATE users SET id = id + 1000 WHERE id < 5")
    database.execute("DELETE FROM users WHERE id < 20")
    database.execute("TRUNCATE users, orders, log")


@pytest.mark.parametrize("round_", range(2))
async def test_triggers_get_the_same_events_with_and_without(database_of: Database, round_: int):
    database = database_of
    database.execute(USERS)
    database.execute("CREATE TABLE log (line text, plan text)")
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    saved = 0
    for seed in range(round_ * 5, round_ * 5 + 5):
        choose = random.Random(seed)
        triggers = random_triggers(choose)
        pushed = settings_for("pushed", triggers)
        whole = settings_for("whole", triggers, push_down="off")
        for settings in (pushed, whole):
            for name in (settings.source.publication, f"{settings.source.publication}_inserts"):
                database.execute(f"DROP PUBLICATION IF EXISTS {name}")
            await database.prepare(settings)
        database.make_slot(f"slot_{database.admin.info.dbname}")
        write_at_random(choose, database)
        without = await database.sent(f"slot_{database.admin.info.dbname}", whole)
        received = database.changes
        assert facts_of(await database.sent(f"slot_{database.admin.info.dbname}", pushed)) == facts_of(without), (
            f"seed {seed}: {triggers}"
        )
        assert database.changes <= received
        saved += received - database.changes
        database.execute("SELECT pg_drop_replication_slot(%s)", (f"slot_{database.admin.info.dbname}",))
    assert saved > 0, "nothing was pushed down in any of the rounds"


# -- what is pushed down, and what it does to those who write -----------------------------------------------------------


def filtered(plan: str, **more: Any) -> dict:
    return {
        "tables": ["public.users"],
        "operations": ["insert"],
        "filter_criteria": [{"record": {"plan": [plan]}}],
        **more,
    }


EVERYTHING = {"tables": ["public.orders"]}


def published(database: Database, name: str) -> dict[str, tuple[list[str], str | None]]:
    """By table, its columns and its row filter."""
    rows = database.execute(
        "SELECT tablename, attnames::text[], rowfilter FROM pg_publication_tables WHERE pubname = %s", (name,)
    )
    return {table: (columns, where) for table, columns, where in rows}


@pytest.fixture
def shop(database_of: Database) -> Database:
    if not database_of.slices:
        pytest.skip("row filters and column lists came with 15")
    database_of.execute("CREATE TABLE users (id int PRIMARY KEY, plan text, email text UNIQUE, notes text)")
    database_of.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    return database_of


async def test_rows_of_an_insert_trigger_are_chosen_by_the_server_and_have_all_columns(shop: Database):
    await shop.prepare(settings_for("feed", {"w": filtered("pro", columns={"include": ["email"]})}))
    assert published(shop, "feed") == {"users": (["id", "plan", "email", "notes"], "(plan = 'pro'::text)")}


async def test_triggers_of_one_table_are_sent_what_any_of_them_wants(shop: Database):
    triggers = {"w": filtered("pro"), "x": filtered("team"), "y": filtered("pro")}
    await shop.prepare(settings_for("feed", triggers))
    assert published(shop, "feed")["users"][1] == "((plan = 'pro'::text) OR (plan = 'team'::text))"
    await shop.prepare(settings_for("feed", triggers | {"all": {"tables": ["public.users"], "operations": ["insert"]}}))
    assert published(shop, "feed")["users"][1] is None


async def test_beside_a_table_whose_updates_are_wanted_the_inserts_have_a_publication_of_their_own(shop: Database):
    await shop.prepare(settings_for("feed", {"w": filtered("pro"), "o": EVERYTHING}))
    assert [*published(shop, "feed")] == ["orders"]
    assert [*published(shop, "feed_inserts")] == ["users"]


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "NOTHING", "USING INDEX users_email_key"])
async def test_no_update_of_the_application_fails_whatever_becomes_of_the_identity(shop: Database, identity: str):
    shop.execute("ALTER TABLE users ALTER email SET NOT NULL")
    shop.execute("INSERT INTO users VALUES (1, 'pro', 'a'), (2, 'free', 'b')")
    for triggers in ({"w": filtered("pro", columns={"include": ["plan"]})}, {"o": EVERYTHING}):
        await shop.prepare(settings_for("feed", {"w": filtered("pro"), **triggers}))
        shop.execute(f"ALTER TABLE users REPLICA IDENTITY {identity}")
        shop.execute("UPDATE users SET plan = plan, notes = 'x'")
        shop.execute("UPDATE users SET id = id + 10")
        shop.execute("ALTER TABLE users REPLICA IDENTITY DEFAULT")
    shop.execute("ALTER TABLE users DROP CONSTRAINT users_pkey")
    shop.execute("UPDATE users SET notes = 'y'")
    shop.execute("DELETE FROM users")


async def test_a_trigger_that_wants_updates_by_now_gets_whole_rows_before_it_gets_updates(shop: Database):
    await shop.prepare(settings_for("feed", {"w": filtered("pro")}))
    await shop.prepare(settings_for("feed", {"w": filtered("pro", operations=["insert", "update"])}))
    assert published(shop, "feed")["users"][1] is None
    shop.execute("INSERT INTO users VALUES (1, 'pro')")
    shop.execute("UPDATE users SET plan = 'free'")
    await shop.prepare(settings_for("feed", {"w": filtered("team")}))
    assert published(shop, "feed")["users"][1] == "(plan = 'team'::text)"


async def test_off_takes_back_what_was_pushed_down(shop: Database):
    triggers = {"w": filtered("pro", columns={"include": ["email"]}), "o": EVERYTHING}
    await shop.prepare(settings_for("feed", triggers))
    await shop.prepare(settings_for("feed", triggers, push_down="off"))
    assert published(shop, "feed")["users"] == (["id", "plan", "email", "notes"], None)
    assert published(shop, "feed_inserts") == {}


async def test_columns_that_filters_read_can_be_dropped_once_it_is_off(shop: Database):
    await shop.prepare(settings_for("feed", {"w": filtered("pro")}))
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        shop.execute("ALTER TABLE users DROP COLUMN plan")
    await shop.prepare(settings_for("feed", {"w": filtered("pro")}, push_down="off"))
    shop.execute("ALTER TABLE users DROP COLUMN plan")


async def test_a_filter_that_somebody_else_gave_a_managed_publication_is_replaced(shop: Database):
    await shop.prepare(settings_for("feed", {"w": filtered("pro")}))
    shop.execute("ALTER PUBLICATION feed SET TABLE users WHERE (id > 5)")
    await shop.prepare(settings_for("feed", {"w": filtered("pro")}))
    assert published(shop, "feed")["users"][1] == "(plan = 'pro'::text)"


async def test_whole_schemas_and_partitions(shop: Database):
    shop.execute("CREATE SCHEMA a; CREATE TABLE a.t (id int PRIMARY KEY, plan text)")
    shop.execute("CREATE TABLE parted (id int PRIMARY KEY, plan text) PARTITION BY RANGE (id)")
    shop.execute("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)")
    triggers = {
        "whole": filtered("pro", tables=["a.*"]),
        "parted": filtered("pro", tables=["public.parted"], columns={"include": ["plan"]}),
    }
    await shop.prepare(settings_for("feed", triggers))
    assert published(shop, "feed") == {"t": (["id", "plan"], None), "parted": (["id", "plan"], "(plan = 'pro'::text)")}
    shop.make_slot(f"slot_{shop.admin.info.dbname}")
    shop.execute("INSERT INTO parted VALUES (1, 'pro'), (2, 'free')")
    ((_, event),) = await shop.sent(f"slot_{shop.admin.info.dbname}", settings_for("feed", triggers))
    assert event.ordinal == 0
    assert shop.changes == 1


async def test_the_script_for_a_dba_shows_what_is_pushed_down(shop: Database):
    triggers = {"w": filtered("pro"), "o": EVERYTHING}
    script = await init.script(settings_for("feed", triggers, dsn=shop.dsn))
    assert """FOR TABLE ONLY "public"."users" WHERE (plan = 'pro'::text)""" in script
    await shop.prepare(settings_for("feed", triggers, push_down="off"))
    script = await init.script(settings_for("feed", triggers, dsn=shop.dsn))
    moved = script[script.index("LOCK TABLE") : script.index("COMMIT")]
    assert moved.splitlines() == [
        'LOCK TABLE ONLY "public"."users" IN SHARE ROW EXCLUSIVE MODE;',
        """ALTER PUBLICATION "feed_inserts" ADD TABLE ONLY "public"."users" WHERE (plan = 'pro'::text);""",
        'ALTER PUBLICATION "feed" DROP TABLE ONLY "public"."users";',
    ]


async def test_the_example_of_the_documentation_is_what_init_prints(shop: Database):
    text = (Path(__file__).parents[2] / "docs" / "push-down.md").read_text(encoding="utf-8")
    (config,), (statements,) = (
        re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for kind in ("yaml", "sql")
    )
    shop.execute("ALTER TABLE users ADD age int")
    script = await init.script(parse(config, {"DATABASE_URL": shop.dsn}))
    for statement in statements.splitlines():
        assert statement in script


async def test_a_database_of_another_encoding_is_sent_the_characters_that_it_has(shop: Database):
    name = f"latin_{shop.admin.info.dbname}"
    shop.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    try:
        latin = Database(psycopg.conninfo.make_conninfo(shop.dsn, dbname=name))
        latin.execute("CREATE TABLE users (id int PRIMARY KEY, plan text)")
        await latin.prepare(settings_for("feed", {"w": filtered("€")}))
        assert published(latin, "feed")["users"][1] is None
        await latin.prepare(settings_for("feed", {"w": filtered("pro")}))
        assert published(latin, "feed")["users"][1] == "(plan = 'pro'::text)"
        latin.admin.close()
    finally:
        shop.execute(f"DROP DATABASE {name} WITH (FORCE)")


# -- ids --------------------------------------------------------------------------------------------------------------


async def test_a_resend_across_a_changed_publication_numbers_the_same(shop: Database):
    """
    Given rows from before and after a filter was changed, and transactions that were open meanwhile, when they are
    decoded again, from the start or from where the first were settled, then each has the id that it had (promise 5).
    """
    both = settings_for("feed", {"w": {"tables": ["public.*"], "operations": ["insert"]}})
    slot = f"slot_{shop.admin.info.dbname}"
    await shop.prepare(settings_for("feed", {"w": filtered("pro"), "o": EVERYTHING | {"operations": ["insert"]}}))
    shop.make_slot(slot)
    rows = "INSERT INTO users VALUES (%s, 'pro'), (%s, 'team'), (%s, 'free')"
    shop.execute(rows, (1, 2, 3))
    with psycopg.connect(shop.dsn) as other:
        other.execute("INSERT INTO orders VALUES (1)")
        await shop.prepare(settings_for("feed", {"w": filtered("team"), "o": EVERYTHING | {"operations": ["insert"]}}))
        shop.execute(rows, (4, 5, 6))
        other.execute(rows, (7, 8, 9))
        other.execute("INSERT INTO orders VALUES (2)")
    first = await shop.sent(slot, both)
    numbered = {event.id: json.loads(event.body[:-1] + b"}}")["record"]["id"] for _, event in first}
    assert [*numbered.values()] == [1, 5, 1, 8, 2]
    assert [event.ordinal for _, event in first] == [0, 0, 0, 1, 2]
    assert [event.id for _, event in await shop.sent(slot, both)] == [*numbered]
    shop.advance(slot, first[0][1].transaction.commit_lsn + 1)
    shop.advance(slot, first[1][1].transaction.commit_lsn - 1)
    again = [event.id for _, event in await shop.sent(slot, both)]
    assert again == [*numbered][-len(again) :]


async def test_a_restart_with_other_filters_sends_what_was_in_flight_under_the_same_ids(shop: Database):
    """
    Given an event in flight, when the bridge is stopped and started with filters that the publication did not have
    then, then the event comes again with its id, and rows from now on are those of the new filters (promise 5).
    """
    triggers = {"w": filtered("pro"), "o": EVERYTHING}
    more = {**triggers, "x": filtered("team")}
    store, targets = MemoryStore(), {name: MemoryTarget() for name in more}

    def service(triggers: dict) -> Service:
        settings = settings_for("feed", triggers, dsn=shop.dsn, slot=f"slot_{shop.admin.info.dbname}")
        return Service(settings, store=store, build=lambda name, *_: targets[name], drain_seconds=0)

    first = service(triggers)
    await shop.prepare(first.settings)
    shop.make_slot(first.settings.source.slot)
    running = asyncio.create_task(first.run())
    targets["w"].answer(asyncio.get_running_loop().create_future())
    shop.execute("INSERT INTO users VALUES (1, 'free'), (2, 'team'), (3, 'pro')")
    async with asyncio.timeout(30):
        await targets["w"].called(1)
        first.stop()
        await running
    assert not targets["w"].delivered
    shop.execute("INSERT INTO users VALUES (4, 'team'), (5, 'pro')")
    second = service(more)
    running = asyncio.create_task(second.run())
    async with asyncio.timeout(30):
        while second.snapshot().state is not ServiceState.STREAMING or len(targets["w"].events()) < 3:
            await asyncio.sleep(0.01)
        shop.execute("INSERT INTO users VALUES (6, 'team'), (7, 'free')")
        await targets["x"].called(1)
        second.stop()
        await running
    sent = [(event["record"]["id"], event["id"]) for event in targets["w"].events()]
    assert [key for key, _ in sent] == [3, 3, 5]
    assert sent[0] == sent[1]
    assert [event["record"]["id"] for event in targets["x"].events()] == [6]


async def test_a_filter_waits_for_whoever_writes_to_the_table_and_then_for_the_next_start(shop: Database):
    """So no transaction's rows are numbered in two ways; widening can't wait, since rows would be missing."""
    everything = settings_for("feed", {"w": {"tables": ["public.users"], "operations": ["insert"]}})
    await shop.prepare(everything)
    with psycopg.connect(shop.dsn) as writer:
        writer.execute("INSERT INTO users VALUES (1, 'pro')")
        (warning,) = await shop.prepare(settings_for("feed", {"w": filtered("pro")}))
        assert "at the next start" in warning
        assert published(shop, "feed")["users"][1] is None
    await shop.prepare(settings_for("feed", {"w": filtered("pro")}))
    assert published(shop, "feed")["users"][1] == "(plan = 'pro'::text)"
    with psycopg.connect(shop.dsn) as writer:
        writer.execute("INSERT INTO users VALUES (2, 'pro')")
        await shop.prepare(everything)
        assert published(shop, "feed")["users"][1] is None
