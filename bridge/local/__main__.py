"""`python -m bridge.local`: a PostgreSQL server with logical decoding on, for a tutorial or a try; gone afterwards."""

from __future__ import annotations

import signal
import threading

import click

from bridge.errors import BridgeError
from bridge.local.postgres import EmbeddedPostgres


@click.command(epilog="Example:  python -m bridge.local --port 5544")
@click.option("--port", default=None, type=click.IntRange(1, 65535), help="Port on 127.0.0.1.  [default: a free one]")
def main(port: int | None) -> None:
    """Run a throw-away PostgreSQL server until Ctrl-C. Its connection string is the line on stdout."""
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    try:
        with EmbeddedPostgres(port=port) as server:
            click.echo(server.dsn())
            click.echo(f"psql: {server.bin / 'psql'}", err=True)
            told.wait()
    except BridgeError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
