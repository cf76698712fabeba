"""`pgbridge filter`: try patterns on an event, without a database."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from bridge.errors import ConfigError
from bridge.triggers.filter import Pattern, PatternError, compile_patterns, load_event, read_patterns

EXIT_NO_MATCH = 1


@click.command("filter")
@click.option(
    "--pattern",
    "-p",
    "pattern_sources",
    multiple=True,
    required=True,
    metavar="JSON|FILE|-",
    help="A pattern, a list of them, or an event source mapping's FilterCriteria. Given several times, any may match.",
)
@click.option(
    "--event", "-e", "event_source", required=True, metavar="JSON|FILE|-", help="The event; pgbridge event prints one."
)
@click.option(
    "--numeric",
    "numeric_fields",
    multiple=True,
    metavar="FIELD",
    help="A field that is a column of type numeric, record.balance: its text is compared as a number.",
)
@click.pass_context
def command(
    context: click.Context, pattern_sources: tuple[str, ...], event_source: str, numeric_fields: tuple[str, ...]
) -> None:
    """
    Say whether an event matches filter patterns.

    Prints true and exits 0, or prints false and exits 1. Exits 2 when a pattern is not valid or the event can't be
    read.

    \b
    Example:
      pgbridge filter --pattern '{"record": {"plan": ["pro", "team"]}}' --event event.json
    """  # noqa: D301 - \b is click's own mark: do not rewrap
    if [*pattern_sources, event_source].count("-") > 1:
        raise ConfigError("standard input was asked for twice", remedy="give the others as files or as JSON")
    patterns: list[Pattern] = []
    for source in pattern_sources:
        patterns += _patterns(source)
    try:
        matcher = compile_patterns(patterns)
    except PatternError as error:
        _refuse_pattern(error)
    text = _read(event_source, "--event")
    try:
        event = load_event(text, exact=matcher.compares_numbers)
    except ValueError as error:
        raise ConfigError(f"--event: {error}", remedy="pass one event as a JSON object") from None
    numeric_paths = {tuple(field.split(".")) for field in numeric_fields}
    matches = matcher.matches(event, numeric_text=numeric_paths.__contains__)
    click.echo("true" if matches else "false")
    if not matches:
        context.exit(EXIT_NO_MATCH)


def _patterns(source: str) -> list[Pattern]:
    try:
        return read_patterns(_read(source, "--pattern"))
    except PatternError as error:
        _refuse_pattern(error)


def _refuse_pattern(error: PatternError) -> NoReturn:
    raise ConfigError(f"the filter is not valid: {error}") from None


def _read(source: str, option: str) -> str:
    """What an option names: standard input, the JSON itself, or a file."""
    if source.lstrip()[:1] in ("{", "["):
        return source
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{option}: can't read {source}: {error.strerror}",
            remedy="give JSON, the name of a file that holds it, or -",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{option}: {source} is not UTF-8", remedy="save the JSON as UTF-8") from None
