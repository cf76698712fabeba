"""`pgbridge schema`: the JSON Schema of the configuration file, for editors."""

from __future__ import annotations

import click
import orjson


@click.command()
def command() -> None:
    """
    Print the JSON Schema of pgbridge.yaml, for completion and checks in an editor.

    \b
    Example:
      pgbridge schema > pgbridge.schema.json
      and as the first line of pgbridge.yaml:
      # yaml-language-server: $schema=pgbridge.schema.json
    """  # noqa: D301 - \b is click's own mark: do not rewrap
    from bridge.config import json_schema  # noqa: PLC0415 - pydantic is not needed for --help

    click.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2))
