"""`pgbridge dlq`: what was set aside, with its reason; and the way back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import orjson

from bridge.cli import replaying
from bridge.cli.choosing import Choice, choosing
from bridge.cli.letters import print_letter, print_table
from bridge.cli.options import config_option, json_option, load_settings
from bridge.cli.output import say
from bridge.errors import BridgeError
from bridge.store.letter_json import encode_outline, encode_whole
from bridge.store.protocol import DeadLetter, LetterFilter, Store

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.replay import ReplayResult

T = TypeVar("T")

# A table is for people; who wants more of it asks for it.
_TABLE_LIMIT: Final = 1000

_DISCARD_LETTERS: Final = 1000


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
                say(f"no dead letters{_matching(choice)}")
                return
            print_table(shown)
            if most and len(shown) == most:
                total = (await store.survey_letters(where)).total
                if total > most:
                    say(f"{most} of {total} dead letters shown; --limit 0 shows all")

    _run(work())


@command.command(short_help="Show dead letters whole.", epilog="Example:  pgbridge dlq show 17 --json")
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


@command.command(
    short_help="Send dead letters again.", epilog="Example:  pgbridge dlq replay --trigger welcome-email --rate 50"
)
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

    async def work() -> list[ReplayResult]:
        async with _opened(settings) as store:
            return await replaying.replay(store, settings, await _chosen(store, settings, choice), rate)

    results = _run(work())
    if as_json:
        click.echo(orjson.dumps(replaying.summary(results)).decode())
    elif not results:
        say(f"no dead letters to replay{_matching(choice)}")
    for result in results:
        if not as_json:
            click.echo(replaying.sentence(result))
        if result.stopped is not None:
            say(f"{result.trigger}: {result.stopped}")
    if not all(result.complete for result in results):
        context.exit(1)


@command.command(
    short_help="Delete dead letters for good.",
    epilog="Example:  pgbridge dlq discard --trigger welcome-email --error 'HTTP 422' --yes",
)
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
        say(f"no dead letters to discard{_matching(choice)}")


@command.command(
    short_help="Write dead letters as JSON lines.", epilog="Example:  pgbridge dlq export --since 3d > letters.jsonl"
)
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
        say(f"no dead letters to export{_matching(choice)}")


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


# -- saying ----------------------------------------------------------------------------------------------------------


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
