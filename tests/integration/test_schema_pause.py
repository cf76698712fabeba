"""`on_schema_change: pause`: a trigger stops before the first change of an altered table, and loses nothing by it."""

from __future__ import annotations

import asyncio

import psycopg

from bridge import pipeline as pipeline_module
from bridge.change import Position
from bridge.delivery.outcome import Delivered, Evidence, Failed
from bridge.errors import StoreError
from bridge.observe.status import TriggerMode, TriggerState
from bridge.store.memory import MemoryStore

CAREFUL = {"careful": {"on_schema_change": "pause"}, "other": {}}
TABLE = "CREATE TABLE t (id int PRIMARY KEY, name text)"


def paused(running, trigger: str = "careful") -> bool:
    return state(running, trigger).state is TriggerState.PAUSED


def state(running, trigger: str = "careful"):
    return next(each for each in running.service.snapshot().triggers if each.name == trigger)


def names(events: list[dict]) -> list[str]:
    return [event["record"]["name"] for event in events]


async def test_it_stops_says_what_has_changed_and_goes_on_when_told(database, run_service):
    async with run_service(database, CAREFUL) as running:
        await running.execute(
            TABLE,
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            "ALTER TABLE t ADD age int DEFAULT 30",
            "INSERT INTO t VALUES (3, 'c'), (4, 'd')",
            "UPDATE t SET name = 'z' WHERE id = 1",
        )
        everything = await running.events(5, "other")
        await running.until(lambda: paused(running))
        assert names(running.targets["careful"].events()) == ["a", "b"]
        status = state(running)
        assert status.paused_reason.startswith(
            "the description of public.t has changed: column age added (int4); resume"
        )
        assert status.waiting == 3
        assert not paused(running, "other")
        await running.service.by_hand.resume("careful")
        assert names(await running.events(5, "careful")) == names(everything) == ["a", "b", "c", "d", "z"]
        assert not paused(running)
        # From now on it takes such changes.
        await running.execute("INSERT INTO t VALUES (5, 'e')")
        await running.events(6, "careful")


async def test_what_came_before_is_delivered_first_and_only_then_it_stops(database, run_service):
    held = asyncio.get_running_loop().create_future()
    async with run_service(database, CAREFUL) as running:
        running.targets["careful"].answer(Failed(Evidence("HTTP 500")), held)
        await running.execute(
            TABLE, "INSERT INTO t VALUES (1, 'a')", "ALTER TABLE t DROP name", "INSERT INTO t VALUES (2)"
        )
        await running.targets["careful"].called(2)
        await running.events(2, "other")
        assert not paused(running)
        held.set_result(Delivered())
        await running.until(lambda: paused(running))
        assert len(running.targets["careful"].delivered) == 1


async def test_each_change_is_a_stop_of_its_own(database, run_service):
    async with run_service(database, CAREFUL) as running:
        await running.execute(
            TABLE,
            "INSERT INTO t VALUES (1, 'a')",
            "ALTER TABLE t ADD age int",
            "INSERT INTO t VALUES (2, 'b')",
            "ALTER TABLE t DROP age",
            "INSERT INTO t VALUES (3, 'c')",
        )
        await running.events(3, "other")
        for count, what in ((1, "column age added (int4)"), (2, "column age dropped")):
            await running.until(lambda: paused(running))
            assert what in state(running).paused_reason
            assert len(running.targets["careful"].delivered) == count
            await running.service.by_hand.resume("careful")
        assert names(await running.events(3, "careful")) == ["a", "b", "c"]


async def test_changes_that_it_does_not_take_do_not_stop_it(database, run_service):
    triggers = {
        "careful": {"on_schema_change": "pause", "tables": ["public.u"]},
        "filtered": {"on_schema_change": "pause", "filter_criteria": [{"record": {"name": ["wanted"]}}]},
    }
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE u (id int PRIMARY KEY, name text)")
    async with run_service(database, triggers) as running:
        await running.execute(
            TABLE,
            "INSERT INTO t VALUES (1, 'wanted')",
            "ALTER TABLE t ADD age int",
            "INSERT INTO t VALUES (2, 'unwanted')",
            "INSERT INTO u VALUES (1, 'wanted')",
        )
        await running.events(1, "careful")
        await running.events(2, "filtered")
        assert not paused(running, "careful")
        assert not paused(running, "filtered")
        await running.execute("INSERT INTO t VALUES (3, 'wanted')")
        await running.until(lambda: paused(running, "filtered"))


# Over restarts


async def test_a_restart_while_it_waits_changes_nothing(database, run_service, make_store):
    async with run_service(database, CAREFUL, store=make_store()) as running:
        await running.execute(
            TABLE,
            "INSERT INTO t VALUES (1, 'a')",
            "ALTER TABLE t ADD age int",
            "INSERT INTO t VALUES (2, 'b'), (3, 'c')",
        )
        await running.until(lambda: paused(running))
        reason = state(running).paused_reason
        await running.events(3, "other")
    async with run_service(database, CAREFUL, store=make_store()) as running:
        await running.until(lambda: paused(running))
        assert state(running).paused_reason == reason
        assert running.targets["careful"].delivered == []
        await running.service.by_hand.resume("careful")
        assert names(await running.events(2, "careful")) == ["b", "c"]
    # It was told, and that is kept as well.
    async with run_service(database, CAREFUL, store=make_store()) as running:
        await running.execute("INSERT INTO t VALUES (4, 'd')")
        assert names(await running.events(1, "careful")) == ["d"]
        assert not paused(running)


async def test_a_table_that_was_altered_while_nothing_ran_stops_it(database, run_service, make_store):
    async with run_service(database, CAREFUL, store=make_store()) as running:
        await running.execute(TABLE, "INSERT INTO t VALUES (1, 'a')")
        await running.events(1, "careful")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE t ADD age int; INSERT INTO t VALUES (2, 'b')")
    async with run_service(database, CAREFUL, store=make_store()) as running:
        await running.until(lambda: paused(running))
        assert "column age added" in state(running).paused_reason
        await running.events(1, "other")
        assert running.targets["careful"].delivered == []


async def test_it_stops_in_the_backlog_too_and_after_a_restart(database, run_service):
    """Given changes before and after the stop that moved to the backlog, then they come from there, and wait there."""
    kept = MemoryStore()
    rows = 3000
    triggers = {"careful": {"on_schema_change": "pause", "backlog": {"after_bytes": 1_048_576}}, "other": {}}
    async with run_service(database, triggers, store=kept) as running:
        await running.execute(
            TABLE,
            "INSERT INTO t VALUES (0, 'a')",
            "ALTER TABLE t ADD age int",
            f"INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, {rows}) g",
        )
        await running.until(lambda: paused(running) and state(running).mode is TriggerMode.BACKLOG)
        await running.until(lambda: len(running.targets["other"].delivered) == rows + 1)
        assert len(running.targets["careful"].delivered) == 1
    async with run_service(database, triggers, store=kept) as running:
        await running.until(lambda: paused(running))
        assert running.targets["careful"].delivered == []
        await running.service.by_hand.resume("careful")
        await running.until(lambda: len(running.targets["careful"].delivered) == rows)
        events = running.targets["careful"].events()
    assert sorted(event["record"]["id"] for event in events) == list(range(1, rows + 1))
    assert sorted(running.targets["careful"].delivered) == [event["id"] for event in sorted(events, key=lambda event: event["id"])]  # fmt: skip


class Away(MemoryStore):
    """Does not take what guards know while it is told so, and counts the attempts."""

    away = False
    attempts = 0

    async def save_schema_guards(self, changes):
        if self.away:
            self.attempts += 1
            raise StoreError("the store is away")
        await super().save_schema_guards(changes)


async def test_nothing_is_handed_over_or_confirmed_before_the_store_knows_of_the_stop(
    database, run_service, monkeypatch
):
    monkeypatch.setattr(pipeline_module, "STORE_RETRY_SECONDS", 0.01)
    kept = Away()
    async with run_service(database, CAREFUL, store=kept) as running:
        await running.execute(TABLE, "INSERT INTO t VALUES (1, 'a')")
        (first,) = await running.events(1, "other")
        kept.away = True
        await running.execute("ALTER TABLE t ADD age int", "INSERT INTO t VALUES (2, 'b')")
        await running.until(lambda: kept.attempts > 20)
        assert len(running.targets["other"].delivered) == 1
        (slot,) = kept.tables.slots.values()
        with psycopg.connect(database) as connection:
            (written,) = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert slot.confirmed_lsn < written
        assert running.service.snapshot().reason == "the store is away"
        kept.away = False
        await running.until(lambda: paused(running))
        second = (await running.events(2, "other"))[1]
        assert slot.checkpoints["careful"] < Position.parse(second["id"])
        assert first["id"] < second["id"]


async def test_a_connection_that_ends_meanwhile_loses_nothing(database, run_service, monkeypatch):
    monkeypatch.setattr(pipeline_module, "STORE_RETRY_SECONDS", 0.01)
    kept = Away()
    async with run_service(database, CAREFUL, store=kept) as running:
        await running.execute(TABLE, "INSERT INTO t VALUES (1, 'a')")
        await running.events(1, "other")
        kept.away = True
        await running.execute("ALTER TABLE t ADD age int", "INSERT INTO t VALUES (2, 'b'), (3, 'c')")
        await running.until(lambda: kept.attempts > 0)
        await running.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE database = current_database()"
        )
        kept.away = False
        await running.until(lambda: running.service.snapshot().reconnects == 1)
        assert names(await running.events(3, "other")) == ["a", "b", "c"]
        await running.until(lambda: paused(running))
        await running.service.by_hand.resume("careful")
        assert names(await running.events(3, "careful")) == ["a", "b", "c"]
