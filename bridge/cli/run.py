"""`pgbridge run`: the always-on process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from bridge import native
from bridge.cli.options import config_option, load_settings

COLLECT_AFTER: Final = 10_000
"""
Containers made and not freed, after which the collector looks at the youngest (CPython's own default: 700 to 2,000). A
burst of frames makes thousands that go with the burst, none of them in a cycle.
"""


@click.command(epilog="Example:  pgbridge run --config pgbridge.yaml")
@config_option
def command(config: Path) -> None:
    """
    Read the slot and deliver changes to the targets, until SIGTERM.

    A clean stop finishes the calls in flight, saves how far it came, and ends with exit code 0. A second process for
    the same slot stands by and takes over when the first one ends.
    """
    settings = load_settings(config)

    from bridge.serve import serve  # noqa: PLC0415 - --help needs none of it

    factory = loop_factory()
    spare_what_stays()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """
    What makes the event loop: uvloop, or None for asyncio's own, where uvloop is not built or Python alone is wanted.

    It is the same contract at less cost: with webhooks of one event the process takes a fifth less CPU, in batches of
    100 a tenth.
    """
    if not native.ALLOWED:
        return None
    try:
        import uvloop  # noqa: PLC0415 - only this command gains by it
    except ImportError:
        return None
    return uvloop.new_event_loop


def spare_what_stays() -> None:
    """
    Take what start-up made out of the garbage collector's sight, and let it look less often.

    Modules and settings, 90,000 objects and more, live as long as the process. A full collection visits each of them,
    for 50 to 250 ms in which no keepalive is answered and nothing delivered; after this it visits only what came since.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
