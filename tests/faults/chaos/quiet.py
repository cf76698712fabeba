"""
Faults with nothing else committed meanwhile, so that each shows what it is to show whatever the machine is doing.

They are for bridges with a fault planted in them (`lies.py`): an honest one would wait for ever in some of them.
"""

from __future__ import annotations

import asyncio

import psycopg

from chaos import faults, workload
from chaos.receiver import STUCK
from chaos.rig import LIMIT_SECONDS, POLL_SECONDS, Rig

ROUNDS = 3


def commit(rig: Rig, *statements: str) -> None:
    """In one transaction."""
    with psycopg.connect(rig.dsn) as connection:
        for statement in statements:
            connection.execute(statement)


async def one_commit_stuck(rig: Rig) -> None:
    await faults.stuck(faults.commit_beside_it)(rig, 1)


async def one_row_of_a_copy_stuck(rig: Rig) -> None:
    await faults.stuck(faults.copy_around_it)(rig, 1)


async def large_transactions(rig: Rig) -> None:
    """Waiting in the slot when reading begins, so that they are read in large pieces."""
    with psycopg.connect(rig.dsn) as connection:
        for _ in range(ROUNDS):
            workload.copy_rows(connection)
    await rig.start()
    await rig.recovers()


async def changes_of_a_key_that_fail_together(rig: Rig) -> None:
    """As often as is wanted: the first of them may be read, and then fails, by itself."""
    await rig.start()
    together = 0
    for account in range(1, workload.ACCOUNTS + 1):
        await rig.recovers()
        rig.target.refuse()
        since = rig.log.stat().st_size
        commit(rig, *[f"UPDATE chaos.account SET balance = {number} WHERE id = {account}" for number in range(20)])
        failed = await rig.logged("delivery failed", since=since, trigger="everything")
        together += failed["events"] > 1
        rig.target.mend()
        if together == ROUNDS:
            break
    await rig.recovers()


async def a_change_behind_one_that_fails(rig: Rig) -> None:
    """An honest bridge never sends the second before the first."""
    await rig.start()
    await rig.recovers()
    rig.refuse_stuck_rows()
    since = rig.log.stat().st_size
    commit(rig, f"INSERT INTO chaos.bulk (payload) VALUES ('{STUCK}')")
    await rig.logged("delivery failed", since=since)
    commit(rig, f"UPDATE chaos.bulk SET payload = 'later' WHERE payload = '{STUCK}'")
    await rig.arrives()


async def a_call_that_fails(rig: Rig) -> None:
    """An honest bridge never confirms it."""
    await rig.start()
    await rig.recovers()
    rig.refuse_stuck_rows()
    commit(rig, f"INSERT INTO chaos.item (payload) VALUES ('{STUCK}')")
    rig.truth.read()
    await rig.recovers()
    await rig.confirms(rig.truth.changes[-1].end_lsn)


async def answers_lost(rig: Rig) -> None:
    await rig.start()
    await rig.recovers()
    rig.target.lose_answers(ROUNDS)
    commit(rig, "INSERT INTO chaos.item (payload) VALUES ('twice')")
    async with asyncio.timeout(LIMIT_SECONDS):
        while rig.target.lost_answers < ROUNDS:
            await asyncio.sleep(POLL_SECONDS)
