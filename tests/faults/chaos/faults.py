"""
What goes wrong. Each fault is a coroutine on a rig under load; when it returns, at least one bridge process runs and
nothing is wrong any more. The rig then waits for everything and reconciles.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from bridge.errors import StoreFenced
from chaos import workload
from chaos.points import POINTS
from chaos.receiver import STUCK
from chaos.rig import AFTER_BYTES, LIMIT_SECONDS, PATIENT_SECONDS, Rig
from chaos.truth import Change

FENCED = StoreFenced.exit_code

Act = Callable[[Rig, int], Awaitable[None]]
Stuck = tuple[int, Change]
"""Where the commit before it ends, and itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of misfortune."""

    name: str
    act: Act
    """Takes the rig, and how many times it is to happen."""
    times: int = 2
    poison: bool = False
    after_seconds: float = 2
    """How long a change may wait before it moves to the backlog."""
    after_bytes: int = AFTER_BYTES
    """How much of a trigger's may wait in memory before all of it does."""
    timeout_seconds: float = PATIENT_SECONDS
    """How long a call may take."""
    briefly: bool = False
    """It is part of `make chaos ARGS=--short`."""


ALL: dict[str, Fault] = {}


def fault(name: str, *, times: int = 2, **more: Any) -> Callable[[Act], Act]:
    def register(act: Act) -> Act:
        ALL[name] = Fault(name, act, times, **more)
        return act

    return register


def short_form() -> list[Fault]:
    """Once each, of those that differ most."""
    return [replace(each, times=min(each.times, 2)) for each in ALL.values() if each.briefly]


async def moment(rig: Rig, least: float = 0.1, most: float = 0.5) -> None:
    """Long enough to be in the middle of things."""
    await asyncio.sleep(rig.random.uniform(least, most))


# -- the process dies ------------------------------------------------------------------------------------------------


def dies_at(point: str, *, most_passings: int, poison: bool = False) -> Act:
    async def act(rig: Rig, times: int) -> None:
        for _ in range(times):
            await rig.dies(await rig.start(die=point, passing=rig.random.randint(1, most_passings)))
        await rig.start()
        await rig.recovers()

    return act


for _point, _most in {
    "after decode": 8,
    "before the call": 60,
    "after the call": 60,
    "before the checkpoint": 6,
    "during the checkpoint": 6,
    "after the checkpoint": 6,
    "after the status update": 6,
}.items():
    fault(f"killed {_point}", times=3, briefly=_point in {"after the call", "during the checkpoint"})(
        dies_at(_point, most_passings=_most)
    )

fault("killed during dead-letter insert", times=3, poison=True, briefly=True)(
    dies_at("during dead-letter insert", most_passings=2)
)


def dies_stopping(point: str) -> Act:
    async def act(rig: Rig, times: int) -> None:
        for _ in range(times):
            process = await rig.start_streaming(die=point, passing=1)
            await rig.arrives()
            await moment(rig)
            process.send_signal(signal.SIGTERM)
            await rig.dies(process)
        await rig.start()
        await rig.recovers()

    return act


for _point in [point for point in POINTS if point.startswith("during stop")]:
    fault(f"killed {_point}")(dies_stopping(_point))


@fault("killed at random", times=6, briefly=True)
async def killed_at_random(rig: Rig, times: int) -> None:
    for _ in range(times):
        process = await rig.start()
        if rig.random.random() < 0.8:  # else while it starts
            await rig.arrives(rig.random.randint(1, 2000))
        await moment(rig, 0, 0.5)
        await rig.kill(process)
    await rig.start()
    await rig.recovers()


@fault("fifty kills among adjacent commits", times=50)
async def killed_among_adjacent_commits(rig: Rig, times: int) -> None:
    """Sixteen writers commit one right after the other, more than the load does."""
    payloads = [f"writer {number}" for number in range(workload.WRITERS)]
    for _ in range(times):
        process = await rig.start()
        await asyncio.to_thread(workload.commit_side_by_side, rig.dsn, payloads)
        await rig.arrives(rig.random.randint(1, 200))
        await asyncio.to_thread(workload.commit_side_by_side, rig.dsn, payloads)
        await rig.kill(process)
    await rig.start()
    await rig.recovers()


@fault("killed in the middle of a COPY", times=3, briefly=True)
async def killed_in_copy(rig: Rig, times: int) -> None:
    for _ in range(times):
        # Nothing else is committed meanwhile to speak of, so that these calls are the COPY's.
        process = await rig.start()
        await rig.recovers()
        rig.target.stall()
        with psycopg.connect(rig.dsn) as connection:
            workload.copy_rows(connection)
        rig.target.mend(late=True)
        await rig.arrives(rig.random.randint(1, 10))
        await rig.kill(process)
    await rig.start()
    await rig.recovers()


@fault("stopped and started", times=3, briefly=True)
async def stopped_and_started(rig: Rig, times: int) -> None:
    for _ in range(times):
        process = await rig.start_streaming()
        await rig.arrives()
        await moment(rig)
        await rig.stop(process)
    await rig.start()
    await rig.recovers()


# -- links -----------------------------------------------------------------------------------------------------------


@fault("source link cut", times=4, briefly=True)
async def source_cut(rig: Rig, times: int) -> None:
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        await moment(rig)
        rig.source.cut()
        await rig.recovers()


@fault("source refuses for a while")
async def source_refuses(rig: Rig, times: int) -> None:
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        await moment(rig)
        rig.source.refuse()
        await moment(rig, 0.5, 1.5)
        rig.source.mend()
        await rig.recovers()


@fault("source link half-open", times=1, briefly=True)
async def source_half_open(rig: Rig, times: int) -> None:
    """Nobody hangs up; each side has to find out by itself."""
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        await moment(rig)
        since = rig.log.stat().st_size
        rig.source.stall()
        await rig.logged("reconnecting", since=since)
        rig.source.mend()
        await rig.recovers()


@fault("source link one byte at a time", times=1, briefly=True)
async def source_trickles(rig: Rig, times: int) -> None:
    process = await rig.start()
    await rig.arrives()
    for _ in range(times):
        rig.source.trickle()
        rig.source.cut()
        await moment(rig, 1, 2)
        await rig.kill(process)
        process = await rig.start()
        await moment(rig, 1, 2)
        rig.source.mend()
        await rig.recovers()


@fault("every link slow", times=1)
async def slow(rig: Rig, times: int) -> None:
    for proxy in (rig.source, rig.store, rig.target):
        proxy.slow_down(0.05)
    for _ in range(times):
        process = await rig.start()
        await rig.arrives(200)
        await rig.kill(process)
    await rig.start()
    await rig.arrives(200)
    for proxy in (rig.source, rig.store, rig.target):
        proxy.mend()
    await rig.recovers()


@fault("store link cut", times=4, briefly=True)
async def store_cut(rig: Rig, times: int) -> None:
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        await moment(rig)
        rig.store.cut()
        await rig.recovers()


@fault("store refuses for a while, then a kill")
async def store_refuses(rig: Rig, times: int) -> None:
    process = await rig.start()
    await rig.arrives()
    for _ in range(times):
        await moment(rig)
        rig.store.refuse()
        await moment(rig, 0.5, 1.5)
        await rig.kill(process)
        rig.store.mend()
        process = await rig.start()
        await rig.recovers()


# -- the server ------------------------------------------------------------------------------------------------------


def terminates(application: str) -> Act:
    async def act(rig: Rig, times: int) -> None:
        await rig.start()
        await rig.arrives()
        for _ in range(times):
            await moment(rig)
            with psycopg.connect(rig.dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = %s",
                    (application,),
                )
            await rig.recovers()

    return act


fault("walsender terminated", times=4)(terminates("pgbridge"))
fault("store connection terminated", times=4)(terminates("pgbridge store"))


def restarts(mode: str) -> Act:
    async def act(rig: Rig, times: int) -> None:
        await rig.start()
        await rig.arrives()
        for _ in range(times):
            await moment(rig)
            await asyncio.to_thread(rig.server.restart, mode)
            await rig.recovers()

    return act


fault("server restarted, immediate", briefly=True)(restarts("immediate"))
fault("server restarted, fast", times=1)(restarts("fast"))


@fault("server and process die together")
async def both_die(rig: Rig, times: int) -> None:
    process = await rig.start()
    await rig.arrives()
    for _ in range(times):
        await moment(rig)
        await asyncio.gather(asyncio.to_thread(rig.server.restart, "immediate"), rig.kill(process))
        process = await rig.start()
        await rig.recovers()


# -- the target ------------------------------------------------------------------------------------------------------


@fault("answers lost", times=3, briefly=True)
async def answers_lost(rig: Rig, times: int) -> None:
    """The receiver has done its work, and nobody hears of it."""
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        lost = rig.target.lost_answers
        rig.target.lose_answers(5)
        async with asyncio.timeout(LIMIT_SECONDS):
            while rig.target.lost_answers < lost + 5:
                await asyncio.sleep(0.02)
        await rig.recovers()


@fault("answers held past the time limit", times=1, timeout_seconds=3)
async def answers_held(rig: Rig, times: int) -> None:
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        since = rig.log.stat().st_size
        rig.target.hold_answers()
        await rig.logged("delivery failed", since=since)
        rig.target.mend()
        await rig.recovers()


@fault("answers held, then a kill", times=2)
async def answers_held_and_killed(rig: Rig, times: int) -> None:
    process = await rig.start()
    await rig.arrives()
    for _ in range(times):
        rig.target.hold_answers()
        await moment(rig, 0.3, 1)
        await rig.kill(process)
        rig.target.mend()
        process = await rig.start()
        await rig.recovers()


@fault("target flaps", times=6, briefly=True)
async def target_flaps(rig: Rig, times: int) -> None:
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        rig.target.refuse()
        await moment(rig, 0.1, 0.4)
        rig.target.mend()
        await moment(rig, 0.1, 0.4)
    await rig.recovers()


@fault("receiver killed", times=2)
async def receiver_killed(rig: Rig, times: int) -> None:
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        await moment(rig)
        # What it has in hand. Counted first: links may be gone by the time that the process is.
        rig.target.links_cut += 2 * len(rig.target._links)
        await rig.kill_receiver()
        await rig.start_receiver()
        await rig.recovers()


def stuck(commit: Callable[[Rig], Awaitable[Stuck]]) -> Act:
    """Others pass it and settle, its checkpoint stays behind, and the process dies."""

    async def act(rig: Rig, times: int) -> None:
        for _ in range(times):
            process = await rig.start()
            await rig.recovers()
            end_lsn, change = await commit(rig)
            await rig.recovers()
            await rig.confirms(end_lsn)
            await rig.stores((change.commit_lsn, change.ordinal - 1))
            await rig.kill(process)
            rig.take_stuck_rows()
        await rig.start()
        await rig.recovers()

    return act


async def commit_beside_it(rig: Rig) -> Stuck:
    """The commit record of what is stuck begins where the one before ends."""
    payloads = [f"beside it {number}" for number in range(workload.WRITERS)]
    payloads[workload.WRITERS // 2] = STUCK
    while True:
        rig.refuse_stuck_rows()
        await asyncio.to_thread(workload.commit_side_by_side, rig.dsn, payloads)
        change = await newest_stuck(rig)
        if change.commit_lsn in rig.truth.adjacent_commits:
            return change.commit_lsn, change
        # Somebody else wrote in between.
        rig.take_stuck_rows()
        await rig.delivers(change)


async def copy_around_it(rig: Rig) -> Stuck:
    rig.refuse_stuck_rows()
    with psycopg.connect(rig.dsn) as connection:
        workload.copy_rows(connection, odd_one=STUCK)
    change = await newest_stuck(rig)
    return max(each.end_lsn for each in rig.truth.changes if each.commit_lsn < change.commit_lsn), change


async def newest_stuck(rig: Rig) -> Change:
    await asyncio.to_thread(rig.truth.read)
    return [change for change in rig.truth.changes if change.values.get("payload") == STUCK][-1]


for _name, _commit in {"one of many commits": commit_beside_it, "one row of a COPY": copy_around_it}.items():
    # Not for its age does it get a row.
    fault(f"{_name} stuck, then a kill", times=1, after_seconds=3600, briefly=True)(stuck(_commit))


# Of few changes each gets a row and stays in memory; and the load waits before they are many.
SOON_TOO_MUCH = 1 << 20


@fault("target away until the backlog, and back", times=1, after_bytes=SOON_TOO_MUCH)
async def to_the_backlog_and_back(rig: Rig, times: int) -> None:
    await rig.start()
    await rig.arrives()
    for _ in range(times):
        since = rig.log.stat().st_size
        rig.target.refuse()
        await rig.logged("trigger to backlog", since=since)
        await moment(rig)
        rig.target.mend()
        await rig.logged("trigger live again", since=since)
        await rig.recovers()


def backlog_killed(point: str) -> Act:
    async def act(rig: Rig, times: int) -> None:
        since = rig.log.stat().st_size
        rig.target.refuse()
        process = await rig.start()
        await rig.logged("trigger to backlog", since=since)
        await rig.kill(process)
        for _ in range(times):
            await rig.dies(await rig.start(die=point, passing=rig.random.randint(1, 3)))
        rig.target.mend()
        await rig.start()
        await rig.recovers()

    return act


fault("killed during backlog move", after_bytes=SOON_TOO_MUCH, briefly=True)(backlog_killed("during backlog move"))
fault("killed during backlog drain", after_bytes=SOON_TOO_MUCH)(backlog_killed("during backlog drain"))


@fault("poisoned rows and kills at random", times=3, poison=True)
async def poisoned(rig: Rig, times: int) -> None:
    await killed_at_random(rig, times)


# -- the rest --------------------------------------------------------------------------------------------------------


@fault("clock jumps", times=1, briefly=True)
async def clock_jumps(rig: Rig, times: int) -> None:
    process = await rig.start_streaming(clock="jumps")
    await rig.arrives()
    for _ in range(times):
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            process.send_signal(number)
            await moment(rig)
            await rig.recovers()
        process.send_signal(signal.SIGUSR2)
        rig.source.cut()
        await rig.recovers()


@fault("two processes, the first is paused and wakes", times=1, briefly=True)
async def zombie(rig: Rig, times: int) -> None:
    rig.two_at_once = True
    for _ in range(times):
        first = await rig.start()
        await rig.arrives()
        since = rig.log.stat().st_size
        await rig.start()
        await rig.logged("standing by", since=since)
        await moment(rig)
        first.send_signal(signal.SIGSTOP)
        await rig.recovers()
        first.send_signal(signal.SIGCONT)
        await rig.recovers()
        await moment(rig, 0.5, 1)
        # It may have ended by itself, once a save told it that it was replaced.
        with contextlib.suppress(ProcessLookupError):
            first.kill()
        assert await first.wait() in {FENCED, -signal.SIGKILL}, rig.log_tail()
        rig.kills += 1
    await rig.recovers()


@fault("two processes, the first is killed", times=2)
async def taken_over(rig: Rig, times: int) -> None:
    first = await rig.start()
    await rig.arrives()
    for _ in range(times):
        since = rig.log.stat().st_size
        second = await rig.start()
        await rig.logged("standing by", since=since)
        await rig.kill(first)
        await rig.recovers()
        first = second


@fault("everything at once", times=8)
async def everything_at_once(rig: Rig, times: int) -> None:
    process = await rig.start()
    await rig.arrives()
    happenings = [
        rig.source.cut, rig.store.cut, rig.target.cut, rig.target.refuse, rig.source.refuse, rig.store.refuse,
        lambda: rig.target.lose_answers(3), rig.target.hold_answers, rig.source.trickle,
    ]  # fmt: skip
    for _ in range(times):
        for happening in rig.random.sample(happenings, 3):
            happening()
            await moment(rig, 0.05, 0.3)
        if rig.random.random() < 0.5:
            await rig.kill(process)
            process = await rig.start()
        for proxy in (rig.source, rig.store, rig.target):
            proxy.mend()
        await rig.recovers()
