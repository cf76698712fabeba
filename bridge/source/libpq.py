"""
libpq's non-blocking calls and the event loop, joined. The only file that touches psycopg's `pgconn`.

psycopg has no replication API, and its high level can't stand in for one: a task that is cancelled while it awaits
psycopg in copy-both mode cancels the walsender's query, which ends the stream. So the conversation here is our own
(manual, "Database Connection Control Functions", "Asynchronous Command Processing", "Functions Associated with the COPY
Command"), and every wait is on a future of ours that can be cancelled without the server hearing of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_attempts_async, make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus, PollingStatus
from psycopg.pq.abc import PGconn, PGresult

from bridge import dsn as dsns
from bridge import native
from bridge.errors import InvariantBroken, SourceError, SourceUnavailable
from bridge.source import failure

if TYPE_CHECKING:
    from bridge.source._copydata import CopyData  # it may not have been built

COMMAND_TIMEOUT_SECONDS: Final = 30.0
"""For commands that wait for nothing but the server's attention."""

# PGVerbosity of libpq-fe.h.
_DEFAULT_VERBOSITY: Final = 1
_VERBOSE: Final = 2

# libpq's VERBOSE form of an error: `FATAL:  28P01: password authentication failed …`. The severity may be translated.
_CODED = re.compile(r":  (?P<code>[0-9A-Z]{5}): (?P<said>.*)")
_PREFIX = re.compile(r"connection to server .*? failed: ")

# A host that can be shown. What is not one may be the rest of a password with an @ in it.
_PLAIN_HOST = re.compile(r"[A-Za-z0-9._:/%-]+")

# A publication was not found as of the change that is decoded: an error up to 17, and since 18 a warning
# (LoadPublications in pgoutput.c), after which what it publishes is left out.
_PUBLICATION_SKIPPED: Final = b"55000"

Row = tuple[str | None, ...]
"""One row of text values."""

Frame = memoryview | bytes
"""What one CopyData message carries, in memory of its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server gave for one command."""

    rows: Sequence[Row] = field(default=(), repr=False)
    copying: bool = False
    """The connection is in copy-both mode now."""
    failed: bool = False
    sqlstate: str | None = None
    said: str = field(default="", repr=False)
    """The server's sentence and its detail, in the server's language."""


class Wire:
    """libpq's non-blocking calls and the loop's readiness, joined; knows nothing of what is said."""

    def __init__(self, pgconn: PGconn) -> None:
        self._pg = pgconn
        self._loop = asyncio.get_running_loop()
        self._fd = pgconn.socket
        self._reading = False
        self._writing = False
        self._waiter: asyncio.Future[None] | None = None
        self._unsent: bytes | None = None
        self._copy_data = _copy_data
        # OpenSSL may keep the rest of a record that libpq's buffer had no room for, of which the loop hears nothing.
        self._reads_before_waiting = 2 if pgconn.ssl_in_use else 1
        self.heard_at = time.monotonic()
        """When bytes came last, by `time.monotonic`."""
        self.copy_ended = False
        self.broken: psycopg.OperationalError | None = None
        """Why the link is of no use any more; what came before may still be in libpq's buffer."""
        self.answers: list[Answer] = []
        """To the last command; after a stream, what ended it."""
        self.backend_pid = pgconn.backend_pid
        self.server_version = pgconn.server_version
        self.is_unix = _is_unix(pgconn.socket)
        self.skipped_publication: str | None = None
        """What a server of 18 or later said when it passed over changes, as a publication of the stream was missing."""
        pgconn.notice_handler = self._on_notice

    @classmethod
    async def open(cls, parameters: Mapping[str, str], timeout_seconds: float) -> Self:
        """Connect; see `connect`."""
        return cls(await connect(parameters, timeout_seconds))

    @property
    def waiting(self) -> bool:
        return self._waiter is not None

    async def query(
        self,
        statement: str,
        *,
        doing: str = "query the server",
        timeout_seconds: float | None = COMMAND_TIMEOUT_SECONDS,
    ) -> Sequence[Row]:
        """
        Run one command and return its rows; `doing` says what it is for, should it fail.

        Raises:
            SourceError: the server refused it, by SQLSTATE, or did not answer.
        """
        answer = await self.execute(statement, timeout_seconds=timeout_seconds)
        if answer.failed:
            raise failure.while_querying(doing, answer.sqlstate, answer.said)
        return answer.rows

    async def execute(self, statement: str, *, timeout_seconds: float | None) -> Answer:
        """
        Send one command; its answer, or that it failed, or that copy-both mode has begun.

        Raises:
            SourceUnavailable: the link broke, or the time is over.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self.copy_ended, self.answers = False, []
        try:
            self._pg.send_query(statement.encode())
            self._flush()
        except psycopg.OperationalError as error:
            self._break(error)
        await self.finish(deadline)
        if not self.answers:
            raise SourceUnavailable(f"the connection was lost: {self.broken}") from self.broken
        return next((answer for answer in self.answers if answer.failed), self.answers[0])

    async def finish(self, deadline: float | None) -> None:
        """Collect answers until there are no more, or copy-both mode begins."""
        while True:
            while self.broken is None and self._pg.is_busy():
                await self.readable(deadline)
            # Not busy, or broken: in both cases it returns without waiting.
            result = self._pg.get_result()
            if result is None:
                return
            answer = _answer(result)
            self.answers.append(answer)
            # A broken link gives the same failure for ever.
            if answer.copying or (answer.failed and self.broken is not None):
                return

    def drain(self, max_frames: int, max_bytes: int) -> list[Frame]:
        """What is there, up to the limits; never waits."""
        frames: list[Frame] = []
        reads = self._reads_before_waiting
        try:
            while not self.copy_ended:
                said, size = self._take(frames, max_frames, max_bytes)
                max_bytes -= size
                if said > 0:
                    break
                if said < 0:
                    self.copy_ended = True
                elif reads and self.broken is None:
                    reads -= 1
                    self._receive()
                else:
                    break
        except psycopg.OperationalError:
            self.copy_ended = True
        return frames

    def _take(self, frames: list[Frame], max_frames: int, max_bytes: int) -> tuple[int, int]:
        """
        Append messages that libpq has whole, up to the limits.

        Returns what PQgetCopyData said last (1 enough, 0 no more there, negative that the copy has ended) and the bytes
        taken. An error in the place of data is an end too; the result that follows says which.
        """
        if self._copy_data is not None:
            pointer: int | None = getattr(self._pg, "pgconn_ptr", None)  # None once it is closed
            return self._copy_data.take(pointer or 0, frames, max_frames, max_bytes)
        get = self._pg.get_copy_data
        size = 0
        while len(frames) < max_frames and size < max_bytes:
            length, data = get(1)
            if length <= 0:
                return length, size
            frames.append(data)
            size += length
        return 1, size

    async def readable(self, deadline: float | None = None) -> None:
        """
        Wait until bytes have come, were read into libpq's buffer, or the link broke.

        Raises:
            SourceUnavailable: the deadline passed.
        """
        if self._waiter is not None:
            raise InvariantBroken("two tasks read one replication connection")
        self._waiter = self._loop.create_future()
        timer = None
        if deadline is not None:
            timer = self._loop.call_at(self._loop.time() + max(deadline - time.monotonic(), 0), self.wake)
        try:
            if not self._reading and self._fd >= 0:
                self._loop.add_reader(self._fd, self._on_readable)
                self._reading = True
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        if deadline is not None and time.monotonic() >= deadline:
            raise SourceUnavailable("the server did not answer in time")

    def wake(self) -> None:
        """End the wait that is on, if any."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def put(self, message: bytes) -> None:
        """Queue a CopyData message and send what the socket takes; the newest only, where libpq has no room."""
        if self.broken is not None or self.copy_ended:
            return
        try:
            self._unsent = None if self._pg.put_copy_data(message) else message
            self._flush()
        except psycopg.OperationalError as error:
            self._break(error)

    def end_copy(self) -> None:
        try:
            self._pg.put_copy_end(None)
            self._flush()
        except psycopg.OperationalError as error:
            self._break(error)

    def close(self) -> None:
        self._forget_socket()
        self.copy_ended = True
        if self.broken is None:
            self.broken = psycopg.OperationalError("the connection is closed")
        self.wake()
        self._pg.finish()

    def _receive(self) -> None:
        try:
            self._pg.consume_input()
        except psycopg.OperationalError as error:
            self._break(error)

    def _flush(self) -> None:
        unsent = self._pg.flush()
        if unsent and not self._writing:
            self._loop.add_writer(self._fd, self._on_writable)
            self._writing = True
        elif not unsent and self._writing:
            self._loop.remove_writer(self._fd)
            self._writing = False

    def _on_readable(self) -> None:
        if self._waiter is None or self._waiter.done():
            # Nobody reads: the socket stays readable, and we would be called without end.
            self._loop.remove_reader(self._fd)
            self._reading = False
            return
        self._receive()
        self.heard_at = time.monotonic()
        self.wake()

    def _on_notice(self, result: PGresult) -> None:
        # Other warnings have this code as well; where it was raised tells them apart in every language.
        code, file = (
            result.error_field(field) or b"" for field in (DiagnosticField.SQLSTATE, DiagnosticField.SOURCE_FILE)
        )
        if code == _PUBLICATION_SKIPPED and file.rpartition(b"/")[2] == b"pgoutput.c":
            self.skipped_publication = _answer(result).said

    def _on_writable(self) -> None:
        if self._unsent is not None:
            self.put(self._unsent)
            return
        try:
            self._flush()
        except psycopg.OperationalError as error:
            self._break(error)

    def _break(self, error: psycopg.OperationalError) -> None:
        self.broken = error
        # libpq may have closed the socket; its number must leave the loop before somebody else gets it.
        self._forget_socket()
        self.wake()

    def _forget_socket(self) -> None:
        if self._fd < 0:
            return
        if self._reading:
            self._loop.remove_reader(self._fd)
        if self._writing:
            self._loop.remove_writer(self._fd)
        self._reading = self._writing = False
        self._fd = -1


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
        _set_verbosity(pgconn, _VERBOSE)
        refused = await _converse(pgconn, server, timeout_seconds)
        if refused is not None:
            raise refused  # noqa: TRY301 - one way out closes the socket
        _set_verbosity(pgconn, _DEFAULT_VERBOSITY)
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


def _is_unix(fd: int) -> bool:
    """Whether a connected socket is a unix socket, however the DSN came to name it."""
    if not hasattr(socket, "AF_UNIX"):
        return False
    with socket.socket(fileno=os.dup(fd)) as same:
        return same.family == socket.AF_UNIX


def _answer(result: PGresult) -> Answer:
    status = result.status
    if status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        return Answer(
            rows=[
                tuple(_text(result, row, column) for column in range(result.nfields)) for row in range(result.ntuples)
            ]
        )
    if status == ExecStatus.COPY_BOTH:
        return Answer(copying=True)
    sqlstate = result.error_field(DiagnosticField.SQLSTATE)
    said = (
        result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message,
        result.error_field(DiagnosticField.MESSAGE_DETAIL) or b"",
    )
    return Answer(
        failed=True,
        sqlstate=sqlstate.decode() if sqlstate else None,
        said=" ".join(part.decode("utf-8", "replace") for part in said).strip(),
    )


def _text(result: PGresult, row: int, column: int) -> str | None:
    value = result.get_value(row, column)
    return None if value is None else value.decode("utf-8", "replace")


def _load_libpq() -> ctypes.CDLL | None:
    """
    The libpq that psycopg uses, for the calls that psycopg has no wrapper for; it gives out `pgconn_ptr` for that.

    A library's handle finds the symbols of what it was linked to, hence the detour by psycopg's own extension module.
    The implementation in Python is made of ctypes itself, and has the library at hand.
    """
    module = sys.modules[pq.PGconn.__module__]
    loaded: ctypes.CDLL | None = getattr(getattr(module, "impl", None), "pq", None)
    try:
        return loaded or ctypes.CDLL(module.__file__)
    except OSError:
        return None


_libpq = _load_libpq()


def _address(function: str) -> int:
    """Of a function in that library; 0 where it can't be found."""
    found = getattr(_libpq, function, None)
    return (found and ctypes.cast(found, ctypes.c_void_p).value) or 0


def _load_set_verbosity() -> Callable[[int, int], object] | None:
    """
    PQsetErrorVerbosity: while connecting, libpq keeps the SQLSTATE to itself, unless told to put it into the message.

    Without it nothing breaks, but a wrong password is a failure like any other, and tried again.
    """
    address = _address("PQsetErrorVerbosity")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    return prototype(address) if address else None


_set_libpq_verbosity = _load_set_verbosity()


def _set_verbosity(pgconn: PGconn, verbosity: int) -> None:
    pointer: int | None = getattr(pgconn, "pgconn_ptr", None)
    if _set_libpq_verbosity is not None and pointer:
        _set_libpq_verbosity(pointer, verbosity)


def _load_copy_data() -> CopyData | None:
    """The compiled way to take messages; None where it was not built, or is not wanted."""
    try:
        from bridge.source._copydata import CopyData  # noqa: PLC0415 - it may not have been built
    except ImportError:
        return None
    get_copy_data, free_memory = _address("PQgetCopyData"), _address("PQfreemem")
    if not (native.ALLOWED and get_copy_data and free_memory and hasattr(pq.PGconn, "pgconn_ptr")):
        return None
    return CopyData(get_copy_data, free_memory)


_copy_data = _load_copy_data()
