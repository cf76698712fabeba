"""
The command line: one file for each command, imported when it is used, so that `--help` is quick.

Every command ends in one of these ways: 0 for success; the exit code of a `BridgeError`, which is one sentence on
stderr; 2 for wrong usage; 130 for Ctrl-C; 141 for a closed pipe; 70 for a bug of ours, with its traceback under
`--debug`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import click

from bridge import __version__
from bridge.errors import BridgeError

COMMANDS: Final = {
    "run": "Read the slot and deliver changes to the targets.",
    "init": "Create publication, slot and tables.",
    "check": "Examine database, store and targets; name each fault and its fix.",
    "status": "Show slot, triggers and dead letters.",
    "tail": "Print changes as they are committed.",
    "backfill": "Deliver the rows that exist already.",
    "dlq": "List, show, replay and discard dead letters.",
    "filter": "Try a filter pattern on an event.",
    "demo": "See it work, with nothing but this package.",
    "dev": "Run the functions of a SAM template locally.",
    "event": "Print a sample event for a table.",
    "models": "Write typed models for tables.",
    "schema": "Print the JSON Schema of pgbridge.yaml.",
}
"""In the order of help; each is `bridge/cli/<name>.py` with a `command`."""

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells report it."""
PIPE_CLOSED: Final = 141
"""128 + SIGPIPE: who reads our output had enough of it. Not 0, for not all of it was read."""
BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""


class _InterruptedError(Exception):
    """Ctrl-C."""


class _PipeClosedError(Exception):
    """Nobody reads stdout any more."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if importlib.util.find_spec(f"bridge.cli.{name}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"bridge.cli.{cmd_name}").command
        _add_common_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and name the command that was meant."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and (near := difflib.get_close_matches(args[0], known, n=1)):
            ctx.fail(f"No such command '{args[0]}'; did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what click would answer in its own way is carried past it."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # while a closed pipe can still be answered
        except BrokenPipeError as error:
            raise _PipeClosedError from error
        except KeyboardInterrupt as error:
            raise _InterruptedError from error
        else:
            return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> Any:
        """Run, and end the process with the exit code of what happened; without `standalone_mode` return it."""
        _fill_standard_streams()
        code = self._run(args, prog_name or "pgbridge", {"complete_var": complete_var, **extra})
        if standalone_mode:
            _let_go_of_stderr()
            sys.exit(code)
        return code

    def _run(self, args: Sequence[str] | None, prog_name: str, extra: dict[str, Any]) -> int:
        arguments = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in arguments or bool(os.environ.get("PGBRIDGE_DEBUG"))
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            extra = {"color": False, **extra}  # click would ask the terminal alone
        try:
            result = super().main(arguments, prog_name, standalone_mode=False, **extra)
        except (_InterruptedError, click.exceptions.Abort):
            return INTERRUPTED
        except _PipeClosedError:
            _silence_stdout()
            return PIPE_CLOSED
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except BridgeError as error:
            _say(error, debug=debug)
            return type(error).exit_code
        except Exception as error:  # noqa: BLE001 - the last resort: a bug is reported, not thrown at the user
            if debug:
                traceback.print_exc()
            click.echo(f"pgbridge: {_what_to_keep(error, debug=debug)}", err=True)
            return BUG
        else:
            return result if isinstance(result, int) else 0


def _what_to_keep(error: Exception, *, debug: bool) -> str:
    """What a report of a bug needs. Only its kind is told unasked: its text, and a traceback, may hold row values."""
    traceback_of_it = "the traceback above" if debug else "the traceback that --debug (or PGBRIDGE_DEBUG=1) shows"
    return (
        f"an unexpected {type(error).__name__}, which is a bug of pgbridge {__version__} "
        f"(Python {sys.version.split()[0]}, {sys.platform}); to report it, attach this line, {traceback_of_it} and the "
        f"log before it, and take row values out of them first"
    )


def _say(error: BridgeError, *, debug: bool) -> None:
    with contextlib.suppress(OSError):  # where nobody reads it, the exit code tells
        if debug:
            traceback.print_exception(error)
        for line in str(error).splitlines():
            click.echo(f"pgbridge: {line}", err=True)


def _silence_stdout() -> None:
    """Point stdout away from the closed pipe, or the interpreter complains of it on its way out."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file (a test's capture): nothing will be flushed into it
        return


def _fill_standard_streams() -> None:
    """Where we are started without one, a socket would get its number, and an event loop refuse to close it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free: its own.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as the process


def _let_go_of_stderr() -> None:
    """What can't be written there, as its reader has gone or its disk is full, must not change the exit code."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _start_logging(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if not ctx.resilient_parsing:
        from bridge.observe.log import configure  # noqa: PLC0415 - structlog is not needed for --help

        configure(value)


def _add_common_options(command: click.Command) -> None:
    """Give a command, and the commands below it, the options that all have."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _add_common_options(inner)
        return
    if any(parameter.name == "debug" for parameter in command.params):
        return
    if command.epilog:
        command.epilog = f"\b\n{command.epilog}"  # an example is there to be copied: click must not break its line
    command.params += [
        click.Option(
            ["--log-level"],
            type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
            envvar="PGBRIDGE_LOG_LEVEL",
            show_envvar=True,
            expose_value=False,
            callback=_start_logging,
            help="Least severe log event to write to stderr.  [default: info]",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            envvar="PGBRIDGE_DEBUG",
            show_envvar=True,
            expose_value=False,
            help="Show the traceback of an error.",
        ),
    ]


@click.group(
    name="pgbridge",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Begin with:  pgbridge demo",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def main() -> None:
    """Deliver committed rows of a PostgreSQL database to Lambda functions and signed webhooks."""
