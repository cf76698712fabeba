"""
`pgbridge` with something wrong with it: `python -m chaos.launcher run --config …`.

The environment variable CHAOS says what, as JSON: `{"die": point, "passing": n, "lie": name}`. SIGUSR1 sets the
process's wall clock forward by a day, SIGUSR2 back by two.
"""

from __future__ import annotations

import json
import os
import signal

from bridge.cli import main
from bridge.clock import SystemClock
from chaos.lies import LIES
from chaos.points import POINTS, Countdown

DAY_SECONDS = 86_400


def let_the_clock_jump() -> None:
    offset = 0
    now = SystemClock.now

    def jump(number: int, _: object) -> None:
        nonlocal offset
        offset += DAY_SECONDS if number == signal.SIGUSR1 else -2 * DAY_SECONDS

    signal.signal(signal.SIGUSR1, jump)
    signal.signal(signal.SIGUSR2, jump)
    SystemClock.now = lambda clock: now(clock) + offset


def prepare(plan: dict[str, object]) -> None:
    let_the_clock_jump()
    if "lie" in plan:
        LIES[plan["lie"]]()
    if "die" in plan:
        POINTS[plan["die"]](Countdown(plan["passing"]))


if __name__ == "__main__":
    prepare(json.loads(os.environ.get("CHAOS", "{}")))
    main()
