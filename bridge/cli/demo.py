"""`pgbridge demo`: the whole thing on one machine, with nothing but this package."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.local.demo import Demo


@click.command(epilog="Example:  pgbridge demo --once")
@click.option(
    "--once",
    is_flag=True,
    envvar="PGBRIDGE_DEMO_ONCE",
    show_envvar=True,
    help="End after the story, as it does without a terminal; otherwise the console stays up until Ctrl-C.",
)
@click.option(
    "--template",
    "-t",
    type=click.Path(path_type=Path),
    envvar="PGBRIDGE_TEMPLATE",
    show_envvar=True,
    help="SAM template whose functions run.  [default: that of the checkout, or else a function of the demo's own]",
)
def command(once: bool, template: Path | None) -> None:  # noqa: FBT001 - click passes flags so
    """
    See it work: rows reach a Lambda function and a signed webhook, a poisoned one is set aside and replayed.

    Everything runs on this machine and is gone afterwards: a PostgreSQL server in a temporary folder, a function under
    AWS's own runtime client, and an HTTP receiver that verifies token and signature.
    """
    path = template or _find_template()
    try:
        from bridge.local.demo import Demo  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the demo needs {error.name}, which is not installed",
            remedy="install it with: pip install 'pgbridge[local]'",
        ) from error
    demo = Demo(path, say=_say, show=_show)
    asyncio.run(_run(demo, once=once or not sys.stdout.isatty()))


async def _run(demo: Demo, *, once: bool) -> None:
    async with demo.running() as console:
        _say(f"the console is at {console}")
        if not once:
            _say("press Ctrl-C to end")
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            with contextlib.suppress(asyncio.CancelledError):
                await stop.wait()
    _say("all of it happened as told")


def _find_template() -> Path | None:
    """Not one of the working directory: that is somebody's own, and knows nothing of the story."""
    checkout = Path(__file__).parents[2]
    path = checkout / "template.yaml"
    return path if path.is_file() and (checkout / "functions").is_dir() else None


def _say(line: str) -> None:
    click.echo(line if line.startswith(" ") else f"• {line}")


def _show(command_line: str, output: str) -> None:
    click.secho(f"\n  $ {command_line}", bold=True)
    for line in output.rstrip().splitlines():
        click.echo(f"    {line}")
    click.echo()
