"""The options that choose dead letters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Final, TypeVar

import click

from bridge.clock import SystemClock
from bridge.store.protocol import LetterFilter

T = TypeVar("T")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO: Final = re.compile(r"([0-9]{1,9})([smhdw])")


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line says about which letters."""

    every: bool
    where: LetterFilter

    @property
    def given(self) -> bool:
        return self.every or self.where != LetterFilter()


class Since(click.ParamType[datetime]):
    """A moment: ISO 8601, UTC where no zone is given; or how long ago, as 15m, 2h, 3d."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if (ago := _AGO.fullmatch(value)) is not None:
                now = datetime.fromtimestamp(SystemClock().now(), UTC)
                return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no moment; write 2026-11-22T05:37:00Z, or how long ago: 15m, 2h, 3d", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def choosing(function: Callable[..., T]) -> Callable[..., T]:
    """The options that choose letters; the command's parameter is `choice: Choice`."""

    @wraps(function)
    def command(
        *args: Any,
        ids: tuple[int, ...],
        every: bool,
        trigger: str | None,
        table: str | None,
        since: datetime | None,
        error: str | None,
        **rest: Any,
    ) -> T:
        where = LetterFilter(ids=ids or None, trigger=trigger, table=table, since=since, error=error)
        return function(*args, choice=Choice(every, where), **rest)

    options: tuple[Callable[[Any], Any], ...] = (
        click.option("--error", metavar="TEXT", help="Only letters whose error holds this text, in any case."),
        click.option(
            "--since", type=Since(), help="Only letters that first failed since then: 15m, 2h, 3d or an ISO timestamp."
        ),
        click.option("--table", metavar="SCHEMA.TABLE", help="Only letters of this table."),
        click.option("--trigger", metavar="NAME", help="Only letters of this trigger."),
        click.option("--all", "every", is_flag=True, help="All letters that fit the other options."),
        click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(min=1)),
    )
    for option in options:
        command = option(command)
    return command
