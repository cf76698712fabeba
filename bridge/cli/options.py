"""Options that commands share; each has an environment variable, shown in its help."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bridge.config import Settings

config_option: Callable[[Any], Any] = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(path_type=Path),
    envvar="PGBRIDGE_CONFIG",
    default=Path("pgbridge.yaml"),
    show_default=True,
    show_envvar=True,
    help="Configuration file.",
)
"""`--config/-c`; the command's parameter is `config: Path`."""

json_option: Callable[[Any], Any] = click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="PGBRIDGE_JSON",
    show_envvar=True,
    help="Print JSON, for other programs.",
)
"""`--json`; the command's parameter is `as_json: bool`."""


def load_settings(config: Path) -> Settings:
    """
    The settings of `--config` and this process's environment.

    Raises:
        ConfigError: as `bridge.config.load`.
    """
    from bridge.config import load  # noqa: PLC0415 - pydantic costs as much as all the rest of --help

    return load(config, os.environ)
