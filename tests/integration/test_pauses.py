"""A pause that only ends by hand outlives the process that took note of it, and passes to the one that takes over."""

from __future__ import annotations

import asyncio
import contextlib
import json

from click.testing import CliRunner

from bridge import pauses as pauses_module
from bridge.cli import main
from bridge.config import load
from bridge.delivery.outcome import Evidence, Misconfigured
from bridge.errors import StoreError
from bridge.observe.status import ServiceState, TriggerState
from bridge.secret import SecretResolver
from bridge.service import Service
from bridge.store.factory import build_store
from bridge.store.memory import MemoryStore
from bridge.store.protocol import KeptPause, SourceIdentity
from bridge.testing import MemoryTarget

TRIGGERS = {"hook": {}, "other": {}}
GONE = Misconfigured(Evidence("HTTP 410", status=410), "resume it when the endpoint is back", disable=True)
TABLE = "CREATE TABLE t (id int PRIMARY KEY)"


def state(running, trigger="hook"):
    return next(each for each in running.service.snapshot().triggers if each.name == trigger)


def paused(running) -> bool:
    return state(running).state is TriggerState.PAUSED


def ids(events: list[dict]) -> list[int]:
    return [event["record"]["id"] for event in events]


async def test_after_410_a_restarted_process_sends_nothing_until_somebody_resumes_the_trigger(
    database, run_service, make_store
):
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        running.targets["hook"].answer(GONE)
        await running.execute(TABLE, "INSERT INTO t VALUES (1)")
        await running.until(lambda: paused(running))
        reason = state(running).paused_reason
        assert reason == "HTTP 410; resume it when the endpoint is back"
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        assert state(running).paused_reason == reason
        await running.execute("INSERT INTO t VALUES (2)")
        await running.events(1, "other")
        assert running.targets["hook"].invocations == []
        await running.service.by_hand.resume("hook")
        assert ids(await running.events(2, "hook")) == [1, 2]
    # That it was resumed is kept as well.
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        assert not paused(running)
        await running.execute("INSERT INTO t VALUES (3)")
        assert ids(await running.events(1, "hook")) == [3]


def calling(url: str) -> dict[str, dict]:
    """`TRIGGERS`, with another endpoint for one of them."""
    target = {"http": {"url": url, "batch": True, "allow_plain_http": True}}
    return {**TRIGGERS, "hook": {"target": target}}


async def test_what_an_endpoint_asked_for_is_over_once_the_trigger_calls_another(database, run_service, make_store):
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        running.targets["hook"].answer(GONE)
        await running.execute(TABLE, "INSERT INTO t VALUES (1)")
        await running.until(lambda: paused(running))
    async with run_service(database, calling("http://127.0.0.1:9/moved"), store=make_store()) as running:
        assert ids(await running.events(1, "hook")) == [1]
        assert not paused(running)
        assert await running.service._pauses.save()
        assert await running.store.pauses(running.settings.source.slot) == {}
    # Even the old one may be tried again, once nobody waits for it any more.
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        assert not paused(running)


async def test_what_an_endpoint_asked_for_holds_however_it_is_called(database, run_service, make_store):
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        running.targets["hook"].answer(GONE)
        await running.execute(TABLE, "INSERT INTO t VALUES (1)")
        await running.until(lambda: paused(running))
    same = {"http": {"url": "http://127.0.0.1:9/", "auth": {"bearer": "another"}, "timeout_in_seconds": 3}}
    async with run_service(database, {**TRIGGERS, "hook": {"target": same}}, store=make_store()) as running:
        assert paused(running)
    # Restored and left alone, it is kept as it was.
    async with run_service(database, calling("http://127.0.0.1:9/moved"), store=make_store()) as running:
        assert not paused(running)


async def test_an_operators_pause_holds_for_any_target(database, run_service, make_store):
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        await running.service.by_hand.pause("hook")
    async with run_service(database, calling("http://127.0.0.1:9/moved"), store=make_store()) as running:
        assert paused(running)


async def test_an_operators_pause_is_in_the_store_when_the_console_says_so(database, run_service, make_store):
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        slot = running.settings.source.slot
        await running.service.by_hand.pause("hook")
        kept = KeptPause("paused by an operator", "resume it when the cause is gone")
        assert await running.store.pauses(slot) == {"hook": kept}
        await running.service.by_hand.resume("hook")
        assert await running.store.pauses(slot) == {}


@contextlib.asynccontextmanager
async def standby(service: Service):
    """A second process, as the service that waits for the slot."""
    running = asyncio.create_task(service.run())
    try:
        yield running
    finally:
        service.stop()
        await running


async def test_the_process_that_takes_over_pauses_what_was_paused(database, run_service, make_store):
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        await running.service.by_hand.pause("hook")
        second = Service(running.settings, store=make_store(), build=lambda *_: MemoryTarget())
        async with standby(second) as other, asyncio.timeout(30):
            await running.until(lambda: second.snapshot().state is ServiceState.STANDING_BY)
            running.service.stop()
            await running.running
            while second.snapshot().state is not ServiceState.STREAMING:
                assert not other.done(), other.result()
                await asyncio.sleep(0.01)
            states = {trigger.name: trigger.state for trigger in second.snapshot().triggers}
    assert states == {"hook": TriggerState.PAUSED, "other": TriggerState.RUNNING}


async def test_a_pause_that_ends_by_itself_is_not_kept(database, run_service, make_store):
    async with run_service(database, TRIGGERS, store=make_store()) as running:
        running.targets["hook"].answer(Misconfigured(Evidence("HTTP 401"), "check auth"))
        await running.execute(TABLE, "INSERT INTO t VALUES (1)")
        await running.until(lambda: paused(running))
        assert await running.service._pauses.save()
        assert await running.store.pauses(running.settings.source.slot) == {}


class Away(MemoryStore):
    """Takes no pause while it is told so, and counts the attempts."""

    away = True
    attempts = 0

    async def save_pauses(self, changes):
        self.attempts += 1
        if self.away:
            raise StoreError("the store is away")
        await super().save_pauses(changes)


async def test_a_store_that_is_away_is_told_later_and_over_a_lost_connection(database, run_service, monkeypatch):
    monkeypatch.setattr(pauses_module, "RETRY_SECONDS", 0.01)
    kept = Away()
    async with run_service(database, TRIGGERS, store=kept) as running:
        await running.service.by_hand.pause("hook")
        await running.until(lambda: kept.attempts > 3)
        await running.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE database = current_database()"
        )
        await running.until(lambda: running.service.snapshot().reconnects == 1)
        assert paused(running)
        kept.away = False
        await running.until(lambda: bool(kept.tables.pauses))
        # What another process has seen to in the meantime holds here from the next stream on.
        kept.tables.pauses.clear()
        await running.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE database = current_database()"
        )
        await running.until(lambda: running.service.snapshot().reconnects == 2)
        await running.until(lambda: not paused(running))


async def test_status_says_so_while_no_process_runs(database, tmp_path):
    config = tmp_path / "pgbridge.yaml"
    config.write_text(
        f"source: {{dsn: {database!r}}}\n"
        "admin: {listen: null}\n"
        "triggers:\n"
        "  hook: {tables: [public.t], target: {http: {url: 'https://x.example/'}}}\n"
        "  other: {tables: [public.t], target: {http: {url: 'https://x.example/'}}}\n"
    )
    store = build_store(load(config, {}), SecretResolver())
    await store.migrate()
    await store.claim(SourceIdentity("pgbridge", "1", 1, "shop"))
    await store.save_pauses(
        {
            "hook": KeptPause("HTTP 410", "resume it"),
            "other": KeptPause("HTTP 410", "resume it", target="another one's"),
        }
    )
    await store.close()
    asked = await asyncio.to_thread(CliRunner().invoke, main, ["status", "--json", "-c", str(config)])
    triggers = {trigger["name"]: trigger for trigger in json.loads(asked.stdout)["triggers"]}
    assert (triggers["hook"]["state"], triggers["hook"]["paused_reason"]) == ("paused", "HTTP 410; resume it")
    assert (triggers["other"]["state"], triggers["other"]["paused_reason"]) == ("unknown", None)
