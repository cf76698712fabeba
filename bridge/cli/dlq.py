"""`pgbridge dlq`: what was set aside, with its reason; and the way back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import orjson

from bridge.cli.choosing import Choice, choosing
from bridge.cli.letters import print_letter, print_table, printable
from bridge.cli.options import config_option, json_option, load_settings
from bridge.errors import BridgeError, StoreError
from bridge.store.letter_json import encode_outline, encode_whole
from bridge.store.protocol import DeadLetter, LetterFilter, Store

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.delivery.outcome import Evidence
    from bridge.replay import Replay, ReplayResult

T = TypeVar("T")

# A table is for people; who wants more of it asks for it.
_TABLE_LIMIT: Final = 1000

# Each failure of a replay is told, until there are so many that the count says more.
_MOST_FAILURES_TOLD: Final = 20

_DISCARD_LETTERS: Final = 1000

_TELL_SECONDS: Final = 0.2


# -- the store ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Store]:
    from bridge.secret import SecretResolver  # noqa: PLC0415 - --help needs none of it
    from bridge.store.factory import build_store  # noqa: PLC0415 - as above

    store = build_store(settings, SecretResolver())
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def _chosen(store: Store, settings: Settings, choice: Choice) -> LetterFilter:
    """
    The filter, for this configuration's slot.

    Raises:
        BridgeError: an id that was given is no letter's.
    """
    where = replace(choice.where, slot=settings.source.slot)
    if where.ids is not None:
        wanted = LetterFilter(slot=where.slot, ids=where.ids)
        found = {letter.id async for letter in store.iterate_letters(wanted, whole=False)}
        missing = [str(letter_id) for letter_id in dict.fromkeys(where.ids) if letter_id not in found]
        if missing:
            raise BridgeError(
                f"there {'is no dead letter' if len(missing) == 1 else 'are no dead letters'} {', '.join(missing)}",
                remedy="pgbridge dlq list shows those that there are",
            )
    return where


def _require_choice(choice: Choice, verb: str) -> None:
    if not choice.given:
        raise click.UsageError(
            f"Say which letters to {verb}: their ids, --all, --trigger, --table, --since or --error."
        )


# -- commands ----------------------------------------------------------------------------------------------------------


@click.group()
def command() -> None:
    """
    List, show, replay and discard dead letters.

    A change that its target refuses for good is set aside with its reason, and stays until it is replayed or discarded.

    \b
    Example:
      pgbridge dlq list --trigger welcome-email
      pgbridge dlq show 17
      pgbridge dlq replay --trigger welcome-email --since 2h
    """  # noqa: D301 - \b is click's own mark: do not rewrap


@command.command("list", epilog="Example:  pgbridge dlq list --trigger welcome-email --since 2h")
@choosing
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Most letters to print, 0 for no limit.  [default: {_TABLE_LIMIT}; none with --json]",
)
@json_option
@config_option
def list_letters(config: Path, choice: Choice, limit: int | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """List dead letters in the order of their commits."""
    settings = load_settings(config)

    async def work() -> None:
        async with _opened(settings) as store:
            where = await _chosen(store, settings, choice)
            if as_json:
                letters = _first(store.iterate_letters(where, whole=False), limit or 0)
                await _write_array(letters, encode_outline)
                return
            most = _TABLE_LIMIT if limit is None else limit
            shown = [letter async for letter in _first(store.iterate_letters(where, whole=False), most)]
            if not shown:
                _say(f"no dead letters{_matching(choice)}")
                return
            print_table(shown)
            if most and len(shown) == most:
                total = (await store.survey_letters(where)).total
                if total > most:
                    _say(f"{most} of {total} dead letters shown; --limit 0 shows all")

    _run(work())


@command.command(epilog="Example:  pgbridge dlq show 17 --json")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=click.IntRange(min=1))
@json_option
@config_option
def show(config: Path, ids: tuple[int, ...], as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show dead letters whole: the event, the error and the target's own words."""
    settings = load_settings(config)
    choice = Choice(every=False, where=LetterFilter(ids=ids))

    async def work() -> None:
        async with _opened(settings) as store:
            letters = store.iterate_letters(await _chosen(store, settings, choice))
            if as_json:
                await _write_array(letters, encode_whole)
                return
            first = True
            async for letter in letters:
                if not first:
                    click.echo()
                print_letter(letter)
                first = False

    _run(work())


@command.command(epilog="Example:  pgbridge dlq replay --trigger welcome-email --rate 50")
@choosing
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Most letters a second.  [default: no limit]")
@json_option
@config_option
@click.pass_context
def replay(context: click.Context, config: Path, choice: Choice, rate: float | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """
    Send dead letters again, in order for each key, with the ids that they had.

    A letter that is delivered leaves the table; one that fails again stays, with the new reason. Exit code 0 only if
    all chosen letters were delivered.
    """
    _require_choice(choice, "replay")
    settings = load_settings(config)
    results = _run(_replay(settings, choice, rate))
    if as_json:
        click.echo(orjson.dumps(_summary(results)).decode())
    elif not results:
        _say(f"no dead letters to replay{_matching(choice)}")
    for result in results:
        if not as_json:
            click.echo(_sentence(result))
        if result.stopped is not None:
            _say(f"{result.trigger}: {result.stopped}")
    if not all(result.complete for result in results):
        context.exit(1)


@command.command(epilog="Example:  pgbridge dlq discard --trigger welcome-email --error 'HTTP 422' --yes")
@choosing
@click.option("--yes", "-y", is_flag=True, help="Do not ask before more than one letter is discarded.")
@json_option
@config_option
def discard(config: Path, choice: Choice, yes: bool, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Delete dead letters for good: their changes will never be delivered."""
    _require_choice(choice, "discard")
    settings = load_settings(config)

    async def work() -> int:
        async with _opened(settings) as store:
            where = await _chosen(store, settings, choice)
            survey = await store.survey_letters(where)
            if survey.total > 1 and not yes:
                _confirm(survey.total)
            return await _discard(store, replace(where, up_to_id=survey.newest_id)) if survey.total else 0

    discarded = _run(work())
    if as_json:
        click.echo(orjson.dumps({"discarded": discarded}).decode())
    elif discarded:
        click.echo(f"{_letters(discarded)} discarded")
    else:
        _say(f"no dead letters to discard{_matching(choice)}")


@command.command(epilog="Example:  pgbridge dlq export --since 3d > letters.jsonl")
@choosing
@config_option
def export(config: Path, choice: Choice) -> None:
    """Write dead letters as JSON lines, each whole, in the order of their commits."""
    settings = load_settings(config)

    async def work() -> int:
        async with _opened(settings) as store:
            where = await _chosen(store, settings, choice)
            count = 0
            async for letter in store.iterate_letters(where):
                _write(encode_whole(letter) + b"\n")
                count += 1
            return count

    if _run(work()) == 0:
        _say(f"no dead letters to export{_matching(choice)}")


# -- at work -----------------------------------------------------------------------------------------------------------


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def _first(letters: AsyncIterator[DeadLetter], limit: int) -> AsyncIterator[DeadLetter]:
    """At most so many; 0 is all."""
    count = 0
    async for letter in letters:
        yield letter
        count += 1
        if count == limit:
            return


async def _discard(store: Store, where: LetterFilter) -> int:
    """In parts, so that no transaction is long and memory is bounded."""
    discarded = 0
    ids: list[int] = []
    async for letter in store.iterate_letters(where, whole=False):
        if letter.id is not None:
            ids.append(letter.id)
        if len(ids) == _DISCARD_LETTERS:
            discarded += await store.discard_letters(ids)
            ids.clear()
    return discarded + await store.discard_letters(ids)


def _confirm(total: int) -> None:
    if not sys.stdin.isatty():
        raise BridgeError(f"this would discard {_letters(total)} for good", remedy="add --yes if that is meant")
    if not click.confirm(f"Discard {_letters(total)} for good?", err=True):
        raise click.Abort


async def _replay(settings: Settings, choice: Choice, rate: float | None) -> list[ReplayResult]:
    """All triggers side by side: one target that takes its time delays no other."""
    from bridge.clock import SystemClock  # noqa: PLC0415 - --help needs none of it
    from bridge.delivery.factory import build_target  # noqa: PLC0415 - as above
    from bridge.replay import Pace, Replay, ReplayPlan, ReplayResult  # noqa: PLC0415 - as above
    from bridge.secret import SecretResolver  # noqa: PLC0415 - as above

    clock = SystemClock()
    pace = Pace(rate, clock)
    secrets = SecretResolver()
    observer = _Narrator()
    results: list[ReplayResult] = []
    async with _opened(settings) as store, contextlib.AsyncExitStack() as targets:
        where = await _chosen(store, settings, choice)
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
            where, on_wait=lambda: _say(f"another process is replaying letters of {trigger}; waiting for it")
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
            _say("finishing the calls under way; once more abandons them")
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
            _say(f"dead letter {letter_id} ({event_id}) failed again: {printable(evidence.error)}")
        elif self._failed == _MOST_FAILURES_TOLD + 1:
            _say("more failed again; pgbridge dlq list shows them")


# -- saying ----------------------------------------------------------------------------------------------------------


def _say(message: str) -> None:
    click.echo(f"pgbridge: {message}", err=True)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)


async def _write_array(letters: AsyncIterator[DeadLetter], encode: Callable[[DeadLetter], bytes]) -> None:
    """A JSON array, a letter a line, written while they come."""
    before = b"["
    async for letter in letters:
        _write(before + encode(letter))
        before = b",\n "
    _write(b"[]\n" if before == b"[" else b"]\n")


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"


def _matching(choice: Choice) -> str:
    return "" if choice.where == LetterFilter() else " that match"


def _sentence(result: ReplayResult) -> str:
    parts = [f"{result.delivered} delivered"]
    if result.failed:
        parts.append(f"{result.failed} failed again")
    if result.left:
        parts.append(f"{result.left} not tried")
    return f"{result.trigger}: {', '.join(parts)}"


def _summary(results: Sequence[ReplayResult]) -> dict[str, object]:
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
