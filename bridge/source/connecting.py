"""
From a DSN's parameters to a connection that the server let in, or the reason why it did not.

PQconnectStart blocks while it resolves a name, and PQconnectPoll ignores connect_timeout (manual, "Database Connection
Control Functions"). So names are resolved first, and each address has an attempt, and a limit, of its own.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_attempts_async, make_conninfo
from psycopg.pq import PollingStatus
from psycopg.pq.abc import PGconn

from bridge import dsn as dsns
from bridge.errors import SourceError, SourceUnavailable
from bridge.source import failure
from bridge.source.unwrapped import DEFAULT_VERBOSITY, VERBOSE, set_verbosity

# libpq's VERBOSE form of an error: `FATAL:  28P01: password authentication failed …`. The severity may be translated.
_CODED = re.compile(r":  (?P<code>[0-9A-Z]{5}): (?P<said>.*)")
_PREFIX = re.compile(r"connection to server .*? failed: ")

# A host that can be shown. What is not one may be the rest of a password with an @ in it.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9._:/%-]+")


async def connect(parameters: Mapping[str, str], timeout_seconds: float) -> PGconn:
    """
    Try each address that the hosts have, in order, until one lets us in or says why none will.

    Raises:
        SourceError: by SQLSTATE; names the server, the database and the user.
    """
    server = _describe(parameters)
    timeout_seconds = _positive(parameters.get("connect_timeout", "")) or timeout_seconds
    try:
        async with asyncio.timeout(timeout_seconds):
            attempts = await conninfo_attempts_async(dict(parameters))
    except TimeoutError as error:
        raise SourceUnavailable(f"can't connect to {server}: its name was not resolved in time") from error
    except psycopg.OperationalError as error:
        raise SourceUnavailable(
            f"can't connect to {server}: the host's name has no address", remedy="check the host in source.dsn"
        ) from error
    refused: SourceError = SourceUnavailable(f"can't connect to {server}: it has no address")
    for attempt in attempts:
        try:
            return await _attempt(make_conninfo("", **attempt), server, timeout_seconds)
        except SourceUnavailable as error:
            refused = error
    raise refused


async def _attempt(conninfo: str, server: str, timeout_seconds: float) -> PGconn:
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        set_verbosity(pgconn, VERBOSE)
        refused = await _converse(pgconn, server, timeout_seconds)
        if refused is not None:
            raise refused  # noqa: TRY301 - one way out closes the socket
        set_verbosity(pgconn, DEFAULT_VERBOSITY)
        pgconn.nonblocking = 1
    except BaseException:
        pgconn.finish()
        raise
    return pgconn


async def _converse(pgconn: PGconn, server: str, timeout_seconds: float) -> SourceError | None:
    """PQconnectPoll until it is done; the error if it came to nothing."""
    deadline = time.monotonic() + timeout_seconds
    status = PollingStatus.WRITING
    while status != PollingStatus.OK:
        if pgconn.status == pq.ConnStatus.BAD or status == PollingStatus.FAILED:
            return _refusal(pgconn, server)
        if not await _ready(pgconn.socket, writing=status == PollingStatus.WRITING, deadline=deadline):
            return SourceUnavailable(
                f"can't connect to {server}: no answer within {timeout_seconds:g} seconds",
                remedy="check the host and the port in source.dsn, and the firewall between",
            )
        status = PollingStatus(pgconn.connect_poll())
    return None


async def _ready(fd: int, *, writing: bool, deadline: float) -> bool:
    """Whether the socket was ready before the deadline. libpq may use another one at its next step."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def settle(*, in_time: bool) -> None:
        if not ready.done():
            ready.set_result(in_time)

    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    timer = loop.call_later(max(deadline - time.monotonic(), 0), lambda: settle(in_time=False))
    add(fd, lambda: settle(in_time=True))
    try:
        return await ready
    finally:
        remove(fd)
        timer.cancel()


def _refusal(pgconn: PGconn, server: str) -> SourceError:
    text = pgconn.get_error_message()
    coded = list(_CODED.finditer(text))
    if coded:
        # With sslmode=prefer there may be two, the first for TLS and the second for plain text.
        return failure.while_connecting(server, coded[-1]["code"], coded[-1]["said"])
    if pgconn.needs_password:
        return failure.while_connecting(server, "28P01", "it asks for a password, and source.dsn has none")
    return failure.while_connecting(server, None, _PREFIX.sub("", text))


def _describe(parameters: Mapping[str, str]) -> str:
    """The server, database and user, as far as they can be shown."""
    known = {**dsns.environment(), **parameters}
    host = known.get("host") or known.get("hostaddr") or ""
    place = "the server"
    if host and _PLAIN_HOST.fullmatch(host.replace(",", "")):
        place = f"{host}, port {known.get('port', '5432')}"
    user, database = known.get("user", ""), known.get("dbname") or known.get("user", "")
    return f'{place} (database "{database}", user "{user}")'


def _positive(text: str) -> float:
    try:
        return max(float(text or 0), 0.0)
    except ValueError:
        return 0.0
