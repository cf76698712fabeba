"""`pgbridge dev`: the functions of a SAM template on this machine, and the triggers that invoke them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli.options import load_settings

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.local.lambda_api import LocalLambda
    from bridge.local.template import Template
    from bridge.local.watch import Watch

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue")
_DEFAULT_PORT = 3001


def _parameters(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, separator, _ in pairs:
        if not name or not separator:
            raise click.BadParameter(f"{name!r} has no value; write NAME=VALUE")
    return {name: value for name, _, value in pairs}


@click.command(epilog="Example:  pgbridge dev -t template.yaml -c pgbridge.yaml --watch")
@click.option(
    "--template",
    "-t",
    type=click.Path(path_type=Path),
    envvar="PGBRIDGE_TEMPLATE",
    default=Path("template.yaml"),
    show_default=True,
    show_envvar=True,
    help="SAM template that declares the functions.",
)
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    envvar="PGBRIDGE_CONFIG",
    show_envvar=True,
    help="Configuration of the bridge to run beside them; without it only the functions run.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    envvar="PGBRIDGE_DEV_PORT",
    default=_DEFAULT_PORT,
    show_default=True,
    show_envvar=True,
    help="Port of the Lambda API on 127.0.0.1; 0 for a free one.",
)
@click.option("--watch", is_flag=True, help="Load a function again when its code changes.")
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    callback=_parameters,
    metavar="NAME=VALUE",
    help="Value of a parameter of the template; may be given more than once.",
)
@click.option(
    "--max-processes",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Processes of each function; invocations beyond it wait.",
)
def command(
    template: Path,
    config: Path | None,
    port: int,
    *,
    watch: bool,
    parameters: dict[str, str],
    max_processes: int,
) -> None:
    """
    Run the functions of a SAM template locally, behind an endpoint that speaks the Lambda API.

    Each function runs in processes of its own under the runtime client that AWS ships. With --config the bridge runs as
    well, and its Lambda triggers call these functions. A variable of the shell goes before a function's variable of the
    same name in the template. Ctrl-C ends it all.
    """
    from bridge.local.lambda_api import LocalLambda  # noqa: PLC0415 - --help needs none of it
    from bridge.local.template import DEFAULT_REGION, read_template  # noqa: PLC0415

    settings = load_settings(config) if config is not None else None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    declared = read_template(template, parameters=parameters, region=region)
    _tell_limits(declared)
    functions = [
        replace(
            function, environment={name: os.environ.get(name, value) for name, value in function.environment.items()}
        )
        for function in declared.functions
    ]
    api = LocalLambda(
        functions, port=port, region=region, max_processes=max_processes, on_log=_printer([f.name for f in functions])
    )
    asyncio.run(_run(api, settings, region, watch=watch))


async def _run(api: LocalLambda, settings: Settings | None, region: str, *, watch: bool) -> None:
    from bridge.local.stop_signal import until_told  # noqa: PLC0415 - as above

    async with api:
        watcher = asyncio.create_task(_reload(api, _watch(api))) if watch else None
        try:
            click.echo(f"Lambda API at {api.endpoint_url}")
            for function in api.functions:
                alias = f", alias {function.alias}" if function.alias else ""
                click.echo(f"  {function.name}: {function.handler} in {function.code or 'the template'}{alias}")
            if settings is None:
                await until_told()
            else:
                await asyncio.to_thread(point_sdk_at, api.endpoint_url, region)
                from bridge.serve import serve  # noqa: PLC0415 - not needed for functions alone

                await serve(settings)
        finally:
            if watcher is not None:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)


def point_sdk_at(endpoint_url: str, region: str) -> None:
    """
    Make the AWS SDK of this process call Lambda here, whatever it would call otherwise.

    Other services stay as they are. Where this machine has neither credentials nor a region, made-up ones are set: the
    SDK signs nothing without, and the local API looks at no signature.
    """
    import botocore.session  # noqa: PLC0415 - 0.15 s, and only a bridge needs it

    environ = os.environ
    environ["AWS_ENDPOINT_URL_LAMBDA"] = endpoint_url
    environ.pop("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", None)
    session = botocore.session.Session()
    if session.get_config_variable("region") is None:
        environ["AWS_DEFAULT_REGION"] = region
    # The instance metadata service is asked last, and on a laptop only its time-outs would answer.
    disabled = environ.get("AWS_EC2_METADATA_DISABLED")
    environ["AWS_EC2_METADATA_DISABLED"] = "true"
    if session.get_credentials() is None:
        environ.update({"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"})
    elif disabled is None:
        del environ["AWS_EC2_METADATA_DISABLED"]


def _tell_limits(declared: Template) -> None:
    """What of the template is different here."""
    for skipped in declared.skipped:
        click.echo(f"not run: {skipped.reason}", err=True)
    for unresolved in declared.unresolved:
        click.echo(
            f"{unresolved.logical_id}: {unresolved.key} uses {unresolved.expression}, which only a deployment knows;"
            " give it a value with --parameter, or set the variable in the shell",
            err=True,
        )


def _printer(names: list[str]) -> Callable[[str, str], None]:
    """Prints a function's log, each line after the function's name."""
    width = max((len(name) for name in names), default=0)
    colours: Mapping[str, str] = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}

    def print_line(name: str, line: str) -> None:
        click.echo(f"{click.style(name.ljust(width), fg=colours[name])} | {line}")

    return print_line


def _watch(api: LocalLambda) -> Watch:
    from bridge.local.watch import Watch  # noqa: PLC0415 - only with --watch

    return Watch({function.name: function.code for function in api.functions if function.code is not None})


async def _reload(api: LocalLambda, watch: Watch) -> None:
    async for name in watch.changes():
        await api.reload(name)
        click.echo(f"{name}: the code changed; the next invocation runs it as it is now")
