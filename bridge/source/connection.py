"""
A replication connection: commands first, then held in copy-both mode.

How waiting decides the speed: the walsender makes one `send` for each message, and that call is two to three times as
dear when it has to wake a sleeping reader. So while messages flow at `FLOWING_FRAMES_PER_SECOND` or more, `frames`
pauses for `pause_seconds` after each drain, and finds many messages at the next; below that rate it is woken by the
first byte and pauses never. The pause is taken with nothing in hand, so it delays a message by no more than itself.
Over a unix socket it never pauses: what that holds is small, and the walsender soon stands still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from bridge import dsn as dsns
from bridge.errors import InvariantBroken, SlotInUse, SourceError, SourceMisconfigured, SourceUnavailable
from bridge.lsn import LSN
from bridge.pgoutput.frames import encode_status_update, to_postgres_clock
from bridge.source import commands, failure, libpq
from bridge.source.libpq import Answer, Frame, Row, Wire
from bridge.source.session import PINNED, pin

# Frames a second from which on the reader pauses between drains. A walsender that drains a backlog sends 100,000 to
# 400,000; 20,000 are some 6,000 small commits a second, a load at which a millisecond of latency is not seen.
FLOWING_FRAMES_PER_SECOND: Final = 20_000
_RATE_WINDOW_SECONDS: Final = 0.002

# 300,000 rows of 7 columns from a backlog over loopback, on two busy cores: the client's CPU is 3.4 us a row without a
# pause and 2.2 to 2.3 with 0.5 to 2 ms, from a fifteenth of the calls. 1,000 single-row commits a second never come to
# pausing. A unix socket holds some 200 messages or 50 of 1 kB, and no pause of an event loop is shorter than 1 ms: with
# it, 1 kB rows came at 30,000 a second, and without at 80,000.
DEFAULT_PAUSE_SECONDS: Final = 0.001

# libpq reads no more than its buffer has room for, and starts with 16 KB; the buffer doubles to hold the largest
# message seen and never shrinks. One answer of this size makes it 1 MB for good.
_INPUT_BUFFER_BYTES: Final = 1_000_000

# How long the server may say nothing, where its own wal_sender_timeout is off: that setting's default.
_SILENCE_LIMIT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """What IDENTIFY_SYSTEM says, and the server's version."""

    system_identifier: str
    timeline: int
    wal_flush_lsn: LSN
    """How far the WAL was on disk when the connection was opened."""
    database: str
    server_version: int
    """As `server_version_num`: 180006 for 18.6."""


class ReplicationConnection:
    """
    One connection with `replication=database`: commands first, then one stream, then commands again.

    One task reads (`frames`), at one time; `send_status` may be called from anywhere on the same loop and never waits.
    Cancelling `frames` loses nothing: between two awaits it takes frames and returns them, or takes none.

    A server that says nothing for half of `silence_limit_seconds` while we wait for it is asked for a sign of life (the
    last status update again, with a reply requested: a server whose client reports in time sends no keepalives of its
    own), and after the whole of it the link counts as dead.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        identity: SystemIdentity,
        server_encoding: str,
        wal_sender_timeout_seconds: float,
        silence_limit_seconds: float,
        pause_seconds: float,
    ) -> None:
        self.identity = identity
        self.server_encoding = server_encoding
        """`SQL_ASCII` means that names and values come as the bytes they are, not necessarily UTF-8."""
        self.wal_sender_timeout_seconds = wal_sender_timeout_seconds
        """The server's limit on our silence in seconds; 0 where it has none."""
        self.pause_seconds = pause_seconds
        self._wire = wire
        self._silence_limit = silence_limit_seconds
        self._slot = ""
        self._start_lsn: LSN | None = None
        self._streaming = False
        self._end: SourceError | None = None
        # Zeros say nothing: ProcessStandbyReplyMessage leaves a slot alone at flush position 0.
        self._told: tuple[int, int, int] = (0, 0, 0)
        self._told_at = 0.0
        self._asked_at: float | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._flowing = False
        self._drained_at = 0.0
        self._window_started_at = 0.0
        self._window_frames = 0

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        connect_timeout_seconds: float = 10,
        application_name: str = "pgbridge",
        silence_limit_seconds: float | None = None,
        pause_seconds: float | None = None,
    ) -> Self:
        """
        Connect, identify the system, pin the session's settings and see that they hold.

        Args:
            dsn: connection string or URI; its own `connect_timeout` and `application_name` win.
            connect_timeout_seconds: for each address that is tried.
            application_name: shown in `pg_stat_replication`.
            silence_limit_seconds: when a link without a byte counts as dead; default: the server's
                `wal_sender_timeout`, or 60 where that is off.
            pause_seconds: between two drains while messages flow; 0 turns pausing off; default: as is best for the kind
                of socket.

        Raises:
            ConfigError: the DSN can't be read.
            SourceUnavailable: refused, starting up, too many connections, timed out: worth another try.
            SourceCredentialsRefused: the user, its password or pg_hba.conf.
            SourceMisconfigured: no such database, no right to replicate, a pooler in between, a setting we can't pin.
        """
        parameters = dsns.complete(dsn, application_name=application_name, options=PINNED)
        parameters["replication"] = "database"
        wire = await Wire.open(parameters, connect_timeout_seconds)
        try:
            facts = await pin(wire)
            ((system_identifier, timeline, wal_flush_lsn, database),) = await wire.query(commands.IDENTIFY_SYSTEM)
            await wire.query(f"SELECT pg_catalog.repeat(' ', {_INPUT_BUFFER_BYTES})")
            identity = SystemIdentity(
                system_identifier=system_identifier or "",
                timeline=int(timeline or 0),
                wal_flush_lsn=LSN.parse(wal_flush_lsn or "0/0"),
                database=database or "",
                server_version=wire.server_version,
            )
            server_timeout = int(facts["wal_sender_timeout"]) / 1000
            if pause_seconds is None:
                pause_seconds = 0.0 if wire.is_unix else DEFAULT_PAUSE_SECONDS
            return cls(
                wire,
                identity=identity,
                server_encoding=facts["server_encoding"],
                wal_sender_timeout_seconds=server_timeout,
                silence_limit_seconds=silence_limit_seconds or server_timeout or _SILENCE_LIMIT_SECONDS,
                pause_seconds=pause_seconds,
            )
        except BaseException:
            wire.close()
            raise

    @property
    def backend_pid(self) -> int:
        """Process id of the walsender."""
        return self._wire.backend_pid

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last byte came, or since the stream started. Grows also while nobody reads."""
        return time.monotonic() - self._wire.heard_at if self._streaming else 0.0

    async def query(self, statement: str) -> Sequence[Row]:
        """
        Run one statement or replication command while no stream is on; every value is text.

        Raises:
            SourceError: the server refused it, by SQLSTATE.
        """
        self._must_not_stream()
        return await self._wire.query(statement)

    async def wal_end(self) -> LSN:
        """
        Where the server's WAL ends now, which `identity` says of the moment of connecting.

        Raises:
            SourceError: the connection is gone.
        """
        ((_, _, wal_flush_lsn, _),) = await self.query(commands.IDENTIFY_SYSTEM)
        return LSN.parse(wal_flush_lsn or "0/0")

    async def in_recovery(self) -> bool:
        """
        Whether the server is a standby, or recovers from a crash or an archive.

        Raises:
            SourceError: the connection is gone.
        """
        return await self.query("SELECT pg_catalog.pg_is_in_recovery()") == [("t",)]

    async def create_slot(self, name: str, *, temporary: bool = False, failover: bool = False) -> LSN:
        """
        Create a logical slot for pgoutput; returns its consistent point, from which it can be read.

        A temporary slot goes with this connection. The publication must exist before: the server looks it up as of
        the time of each change. Waits for transactions under way at the server, for as long as they take.
        """
        self._must_not_stream()
        statement = commands.create_slot(name, temporary=temporary, failover=failover)
        ((_, consistent_point, _, _),) = await self._wire.query(
            statement, doing=f'create slot "{name}"', timeout_seconds=None
        )
        return LSN.parse(consistent_point or "0/0")

    async def start(self, slot: str, publication: str, lsn: LSN, *, local_only: bool = False) -> None:
        """
        Begin to stream, from `lsn` or from where the slot stands if that is further; with `local_only` without what
        carries a replication origin.

        With the publication its companion is streamed, if there is one (`publication.py`).
        A publication that does not exist is not noticed here: the server looks it up when it decodes a change.

        Raises:
            SlotInUse: another process reads it; the message says which.
            SlotLost: there is no such slot, or the server has invalidated it.
            SourceMisconfigured: it is a slot, but not one that can be read here; or `local_only` is more than the
                server can do.
        """
        if self._start_lsn is not None:
            # The walsender never resets its "client is done" for logical replication (StartLogicalReplication), so
            # it ends a second stream at once.
            raise InvariantBroken("a replication connection carries one stream; open another one")
        if local_only and self.identity.server_version < commands.ORIGIN_OPTION:
            raise SourceMisconfigured(
                f"source.origin is none, and PostgreSQL {self.identity.server_version // 10000} can't tell changes "
                "apart by their origin",
                remedy="set it to any, and mark own writes by a message (docs/delivery.md, Loops); or upgrade to 16",
            )
        companion = commands.companion_name(publication)
        found = await self._wire.query(commands.find_publications([companion]))
        statement = commands.start_replication(
            slot,
            [publication, companion] if found else [publication],
            lsn,
            server_version=self.identity.server_version,
            local_only=local_only,
        )
        # A slot just released may make us wait for its last reader's exit, but no longer than a command should take.
        answer = await self._wire.execute(statement, timeout_seconds=libpq.COMMAND_TIMEOUT_SECONDS)
        if not answer.copying:
            raise await self._why_not_started(slot, answer)
        self._slot, self._start_lsn, self._streaming, self._end = slot, lsn, True, None
        self._told, self._asked_at = (0, 0, 0), None
        self._window_started_at = self._wire.heard_at = time.monotonic()
        self._watch()

    async def frames(self, *, max_frames: int = 4096, max_bytes: int = 1 << 20) -> list[Frame]:
        """
        The payloads of the CopyData messages that are there, or of the first ones to come; never an empty list.

        Each is a frame of the copy-both envelope (XLogData, keepalive), and owns its memory. Gives other tasks a turn
        at each call. Stops at `max_frames`, or at the first frame that brings the sum to `max_bytes`.

        Raises:
            SourceUnavailable: the stream has ended, or the server says nothing any more.
            SlotLost, SourceMisconfigured: it has ended for a reason that only a person can mend.
        """
        if not self._streaming:
            raise InvariantBroken("frames are read before the stream was started")
        rest = self._drained_at + self.pause_seconds - time.monotonic() if self._flowing else 0.0
        await asyncio.sleep(max(rest, 0.0))
        wire = self._wire
        while True:
            taken = wire.drain(max_frames, max_bytes)
            if wire.skipped_publication is not None:
                # What was taken is dropped: a position that came after the warning must not be confirmed.
                self._end = failure.publication_skipped(self._slot, self._start_lsn, wire.skipped_publication)
                raise self._end
            if taken:
                self._took(len(taken))
                return taken
            if self._end is not None:
                raise self._end
            if wire.copy_ended or wire.broken is not None:
                self._end = await self._why_ended()
                raise self._end
            self._flowing = False
            await wire.readable()

    def send_status(self, written: int, flushed: int, applied: int, *, now: float, reply: bool = False) -> None:
        """
        Send a status update; never waits. What the socket does not take now leaves as soon as it can.

        On a link that is already broken it does nothing: `frames` is where that is told.

        Args:
            written: received so far; as LSNs the bytes below it, like the others.
            flushed: confirmed: what the server may forget. It is not sent lower than before, because servers move the
                slot back without a word (LogicalConfirmReceivedLocation, before the minors of 2025).
            applied: as `flushed`, to the server.
            now: seconds since 1970.
            reply: ask the server for a keepalive at once.

        Raises:
            InvariantBroken: the flushed position would go back, or is ahead of the written one (promise 2).
        """
        if flushed < self._told[1]:
            raise InvariantBroken(f"the confirmed position would go back from {LSN(self._told[1])} to {LSN(flushed)}")
        if flushed > written:
            raise InvariantBroken(f"{LSN(flushed)} would be confirmed, but only {LSN(written)} was received")
        if not self._streaming:
            raise InvariantBroken("a status update is sent before the stream was started")
        self._told, self._told_at = (written, flushed, applied), now
        self._tell(now, reply=reply)

    async def stop(self, *, timeout_seconds: float = 5) -> None:
        """
        Leave copy-both mode: say so, and drop what is still on the way. Afterwards commands work again.

        A server in the middle of a large transaction may send all of it first; then, or if the link is dead, this gives
        up at the time limit without a word, and the connection can only be closed.
        """
        if not self._streaming:
            return
        self._unwatch()
        self._streaming = False
        wire = self._wire
        deadline = time.monotonic() + timeout_seconds
        try:
            wire.end_copy()
            while True:
                dropped = wire.drain(4096, 1 << 20)
                if wire.copy_ended or wire.broken is not None or time.monotonic() > deadline:
                    break
                await (asyncio.sleep(0) if dropped else wire.readable(deadline))
            if wire.copy_ended:
                await wire.finish(deadline)
        except SourceUnavailable:
            # It was to end, and it has ended.
            return

    async def close(self) -> None:
        """Close the socket. May be called at any time and more than once; a `frames` that waits then raises."""
        self._unwatch()
        if self._streaming and self._end is None:
            self._end = SourceUnavailable("the replication connection was closed")
        self._wire.close()

    def _must_not_stream(self) -> None:
        if self._streaming:
            raise InvariantBroken("a command is sent while the stream is on")

    def _took(self, count: int) -> None:
        """Note that frames came, and whether they flow."""
        now = time.monotonic()
        self._asked_at = None
        self._drained_at = self._wire.heard_at = now
        self._window_frames += count
        elapsed = now - self._window_started_at
        if elapsed >= _RATE_WINDOW_SECONDS:
            self._flowing = self.pause_seconds > 0 and self._window_frames >= FLOWING_FRAMES_PER_SECOND * elapsed
            self._window_started_at, self._window_frames = now, 0

    def _tell(self, now: float, *, reply: bool) -> None:
        written, flushed, applied = self._told
        self._wire.put(
            encode_status_update(
                written=written,
                flushed=flushed,
                applied=applied,
                client_clock=to_postgres_clock(now),
                reply_requested=reply,
            )
        )

    def _watch(self) -> None:
        interval = min(self._silence_limit / 8, 5.0)
        self._watchdog = asyncio.get_running_loop().call_later(interval, self._check_silence)

    def _unwatch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _check_silence(self) -> None:
        """Ask for a sign of life, or give the link up. Only while `frames` waits: else the silence is ours."""
        wire, now = self._wire, time.monotonic()
        if not wire.waiting:
            self._watch()
            return
        if self._asked_at is not None and wire.heard_at >= self._asked_at:
            self._asked_at = None
        if self._asked_at is None:
            if now - wire.heard_at >= self._silence_limit / 2:
                self._asked_at = now
                # The clock is for the server's lag columns alone; the last one told will do.
                self._tell(self._told_at, reply=True)
        elif now - self._asked_at >= self._silence_limit / 2:
            self._end = SourceUnavailable(
                f'the stream of slot "{self._slot}" is silent: the server answered nothing for'
                f" {now - wire.heard_at:.0f} seconds",
                position=self._start_lsn,
            )
            wire.wake()
            return
        self._watch()

    async def _why_ended(self) -> SourceError:
        wire = self._wire
        try:
            await wire.finish(time.monotonic() + 5)
        except SourceUnavailable as error:
            return error
        for answer in wire.answers:
            if answer.failed:
                return failure.while_streaming(self._slot, self._start_lsn, answer.sqlstate, answer.said)
        reason = str(wire.broken) if wire.broken is not None else "the server ended it, as when it is shut down"
        return failure.while_streaming(self._slot, self._start_lsn, None, reason)

    async def _why_not_started(self, slot: str, answer: Answer) -> SourceError:
        sqlstate, said = answer.sqlstate, answer.said
        refused = failure.while_starting(slot, sqlstate, said)
        if self._wire.broken is not None or sqlstate not in ("55006", "55000"):
            return refused
        rows = await self._wire.query(commands.explain_slot(slot))
        for holder, slot_type, plugin, database, ours, wal_level, in_recovery, wal_status in rows:
            if isinstance(refused, SlotInUse):
                return failure.while_starting(slot, sqlstate, said, holder=int(holder) if holder else None)
            if slot_type != "logical" or plugin != commands.PLUGIN:
                return SourceMisconfigured(
                    f'slot "{slot}" is a {slot_type} slot of {plugin or "no plugin"}; pgbridge reads {commands.PLUGIN}',
                    remedy="name another slot in source.slot, and create it with `pgbridge init`",
                )
            if database != ours:
                return SourceMisconfigured(
                    f'slot "{slot}" belongs to database "{database}", and source.dsn names "{ours}"',
                    remedy="name the right database in source.dsn, or another slot in source.slot",
                )
            if wal_level != "logical":
                return SourceMisconfigured(
                    f"wal_level is {wal_level}", remedy="set wal_level = logical and restart the server"
                )
            if in_recovery == "t" and wal_status != "lost":
                # A slot that is being synchronised from the primary: readable once this server is promoted.
                return SourceUnavailable(f"{refused.message}; the server is a standby")
        return refused
