"""`pgbridge run`: the always-on process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from bridge.cli.options import config_option, load_settings


@click.command(epilog="Example:  pgbridge run --config pgbridge.yaml")
@config_option
def command(config: Path) -> None:
    """
    Read the slot and deliver changes to the targets, until SIGTERM.

    A clean stop finishes the calls in flight, saves how far it came, and ends with exit code 0. A second process for
    the same slot stands by and takes over when the first one ends.
    """
    settings = load_settings(config)

    from bridge.service import serve  # noqa: PLC0415 - --help needs none of it

    asyncio.run(serve(settings))
