"""`pgbridge run` under pgbench: everything committed arrives at a function and a webhook, in order, also through kills."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import psycopg
import pytest

from bridge.local.receiver import read_ledger

sys.path.insert(0, str(Path(__file__).parent))
from bridge_process import Rig

CHANGES_PER_TRANSACTION = 4  # three updates and the insert into history


async def pgbench(postgres, dsn: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(postgres.bin / "pgbench"), *arguments, dsn, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, errors.decode()


@pytest.fixture
async def rig(postgres, database, tmp_path):
    await pgbench(postgres, database, "-i", "-q", "-s", "1")
    async with Rig(database, tmp_path) as rig:
        await rig.command("init")
        yield rig


def committed(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return CHANGES_PER_TRANSACTION * connection.execute("SELECT count(*) FROM pgbench_history").fetchone()[0]


def by_id(ledger: Path) -> dict[str, dict]:
    """The first copy of each event; every other copy is the same."""
    events: dict[str, dict] = {}
    for line in read_ledger(ledger):
        assert events.setdefault(line["id"], line["event"]) == line["event"], f"{line['id']} came with two contents"
    return events


def assert_in_order_per_key(ledger: Path, *, starts: int) -> None:
    """Ids of one key never go back, except where the successor of a killed process repeats: at most once a kill."""
    steps_back: dict[tuple, int] = {}
    newest: dict[tuple, str] = {}
    for line in read_ledger(ledger):
        metadata = line["event"]["metadata"]
        if not metadata["keys"]:
            continue  # history has no key, hence no order
        key = (metadata["table_name"], *metadata["keys"].values())
        if line["id"] < newest.get(key, ""):
            steps_back[key] = steps_back.get(key, 0) + 1
        newest[key] = line["id"]
    assert max(steps_back.values(), default=0) <= starts - 1


def assert_final_balances(dsn: str, events: dict[str, dict]) -> None:
    """What the last event of each row says is what the database holds."""
    last = {}
    for event_id in sorted(events):
        event = events[event_id]
        if event["metadata"]["table_name"] == "pgbench_tellers":
            last[event["record"]["tid"]] = event["record"]["tbalance"]
    with psycopg.connect(dsn) as connection:
        assert last.items() <= dict(connection.execute("SELECT tid, tbalance FROM pgbench_tellers").fetchall()).items()


async def test_every_committed_change_arrives_exactly_once_and_in_order(postgres, database, rig):
    await rig.start()
    await pgbench(postgres, database, "-c", "4", "-T", "4", "-n", "-R", "500")
    expected = committed(database)
    await rig.arrived(expected)
    assert await rig.stop() == 0
    for ledger in (rig.receiver_ledger, rig.function_ledger):
        events = by_id(ledger)
        assert len(events) == expected
        assert len(read_ledger(ledger)) == expected, "something came twice"
        assert_in_order_per_key(ledger, starts=1)
        assert_final_balances(database, events)
    assert {call.status for call in rig.receiver.calls} == {200}


async def test_kills_lose_nothing_and_repeats_carry_the_same_id(postgres, database, rig):
    rng = random.Random(1)
    await rig.start()
    load = asyncio.create_task(pgbench(postgres, database, "-c", "4", "-T", "8", "-n", "-R", "500"))
    for _ in range(3):
        await asyncio.sleep(rng.uniform(1.2, 2.0))
        await rig.kill()
        await rig.start()
    await load
    expected = committed(database)
    await rig.arrived(expected)
    assert await rig.stop() == 0
    for ledger in (rig.receiver_ledger, rig.function_ledger):
        events = by_id(ledger)
        assert len(events) == expected
        assert_in_order_per_key(ledger, starts=rig.starts)
        assert_final_balances(database, events)


async def test_a_clean_restart_repeats_nothing(postgres, database, rig):
    for _ in range(3):
        await rig.start()
        await pgbench(postgres, database, "-c", "2", "-t", "50", "-n")
        await rig.arrived(committed(database))
        assert await rig.stop() == 0
    for ledger in (rig.receiver_ledger, rig.function_ledger):
        assert len(read_ledger(ledger)) == committed(database)


def test_the_order_check_can_fail(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    event = {"metadata": {"table_name": "t", "keys": {"id": 1}}}
    ledger.write_text("".join(json.dumps({"id": name, "event": event}) + "\n" for name in ("B", "A")))
    with pytest.raises(AssertionError):
        assert_in_order_per_key(ledger, starts=1)
    assert list(by_id(ledger)) == ["B", "A"]
