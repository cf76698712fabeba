"""
libpq's non-blocking calls and the event loop, joined. Only this file and `connecting.py`, which makes the connection,
touch psycopg's `pgconn`.

psycopg has no replication API, and its high level can't stand in for one: a task that is cancelled while it awaits
psycopg in copy-both mode cancels the walsender's query, which ends the stream. So the conversation here is our own
(manual, "Database Connection Control Functions", "Asynchronous Command Processing", "Functions Associated with the COPY
Command"), and every wait is on a future of ours that can be cancelled without the server hearing of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg import pq
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from bridge import native
from bridge.errors import InvariantBroken, SourceUnavailable
from bridge.source import failure
from bridge.source.connecting import connect
from bridge.source.unwrapped import address_of

if TYPE_CHECKING:
    from bridge.source._copydata import CopyData  # it may not have been built

COMMAND_TIMEOUT_SECONDS: Final = 30.0
"""For commands that wait for nothing but the server's attention."""

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


def _load_copy_data() -> CopyData | None:
    """The compiled way to take messages; None where it was not built, or is not wanted."""
    try:
        from bridge.source._copydata import CopyData  # noqa: PLC0415 - it may not have been built
    except ImportError:
        return None
    get_copy_data, free_memory = address_of("PQgetCopyData"), address_of("PQfreemem")
    if not (native.ALLOWED and get_copy_data and free_memory and hasattr(pq.PGconn, "pgconn_ptr")):
        return None
    return CopyData(get_copy_data, free_memory)


_copy_data = _load_copy_data()
