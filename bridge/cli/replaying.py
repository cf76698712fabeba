"""`pgbridge dlq replay` at work: every trigger's replay beside the others, told of on stderr, ended by signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from bridge.cli.output import printable, say
from bridge.errors import StoreError
from bridge.store.protocol import LetterFilter, Store

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.delivery.outcome import Evidence
    from bridge.replay import Replay, ReplayResult

# Each failure is told, until there are so many that the count says more.
_MOST_FAILURES_TOLD: Final = 20

_TELL_SECONDS: Final = 0.2


async def replay(store: Store, settings: Settings, where: LetterFilter, rate: float | None) -> list[ReplayResult]:
    """
    Replay the letters of all triggers side by side: one target that takes its time delays no other.

    Args:
        store: open.
        settings: the triggers' and the slot's.
        where: which letters.
        rate: most letters a second, of all triggers together.
    """
    from bridge.clock import SystemClock  # noqa: PLC0415 - --help needs none of it
    from bridge.delivery.factory import build_target  # noqa: PLC0415 - as above
    from bridge.replay import Pace, Replay, ReplayPlan, ReplayResult  # noqa: PLC0415 - as above
    from bridge.secret import SecretResolver  # noqa: PLC0415 - as above

    clock = SystemClock()
    pace = Pace(rate, clock)
    secrets = SecretResolver()
    observer = _Narrator()
    results: list[ReplayResult] = []
    async with contextlib.AsyncExitStack() as targets:
        survey = await store.survey_letters(where)
        where = replace(where, up_to_id=survey.newest_id)
        replays: dict[str, Replay] = {}
        for trigger, letters in survey.by_trigger.items():
            if trigger not in settings.triggers:
                reason = "the configuration has no trigger of this name; put it back, or discard its letters"
                results.append(ReplayResult(trigger, left=letters, stopped=reason))
                continue
            trigger_settings = settings.triggers[trigger]
            target = build_target(trigger, trigger_settings, secrets)
            targets.push_async_callback(target.close)
            replays[trigger] = Replay(
                store,
                settings.source.slot,
                trigger,
                ReplayPlan.of(trigger_settings),
                target,
                clock=clock,
                pace=pace,
                observer=observer,
            )
        with _stopping_on_signals(list(replays.values())):
            work = [_replay_one(each, where, survey.by_trigger[trigger]) for trigger, each in replays.items()]
            results += await asyncio.gather(*work)
    return sorted(results, key=lambda result: result.trigger)


async def _replay_one(each: Replay, where: LetterFilter, letters: int) -> ReplayResult:
    trigger = each.result.trigger
    try:
        return await each.run(
            where, on_wait=lambda: say(f"another process is replaying letters of {trigger}; waiting for it")
        )
    except StoreError as error:
        # What the others, and this one so far, have done is still to be told.
        result = each.result
        result.stopped = str(error)
        result.left = letters - result.delivered - result.failed
        return result


@contextlib.contextmanager
def _stopping_on_signals(replays: Sequence[Replay]) -> Iterator[None]:
    """The first signal lets the calls under way end, so that no letter is sent twice; a second one does not."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    signals = 0

    def receive() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            say("finishing the calls under way; once more abandons them")
            for each in replays:
                each.stop("interrupted")
        elif task is not None:
            task.cancel()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, receive)
        yield
    except asyncio.CancelledError:
        if signals:
            raise click.Abort from None
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.remove_signal_handler(number)


class _Narrator:
    """Tells of a replay on stderr: failures as they come, and on a terminal how far it is."""

    def __init__(self) -> None:
        self._delivered = 0
        self._failed = 0
        self._told_at = 0.0

    def delivered(self, letters: int) -> None:
        self._delivered += letters
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            click.echo(f"\r{self._delivered} delivered", nl=False, err=True)

    def failed(self, letter_id: int, event_id: str, evidence: Evidence) -> None:
        self._failed += 1
        if self._failed <= _MOST_FAILURES_TOLD:
            say(f"dead letter {letter_id} ({event_id}) failed again: {printable(evidence.error)}")
        elif self._failed == _MOST_FAILURES_TOLD + 1:
            say("more failed again; pgbridge dlq list shows them")


def sentence(result: ReplayResult) -> str:
    """How a trigger's replay ended, for people."""
    parts = [f"{result.delivered} delivered"]
    if result.failed:
        parts.append(f"{result.failed} failed again")
    if result.left:
        parts.append(f"{result.left} not tried")
    return f"{result.trigger}: {', '.join(parts)}"


def summary(results: Sequence[ReplayResult]) -> dict[str, object]:
    """How all of them ended, for `--json`."""
    return {
        "delivered": sum(result.delivered for result in results),
        "failed": sum(result.failed for result in results),
        "left": sum(result.left for result in results),
        "triggers": [
            {
                "trigger": result.trigger,
                "delivered": result.delivered,
                "failed": result.failed,
                "left": result.left,
                "stopped": result.stopped,
            }
            for result in results
        ],
    }
