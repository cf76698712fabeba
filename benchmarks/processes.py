"""Child processes, and what the kernel knows of any process: CPU and memory, from Linux's /proc."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bridge.local import lifeline

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 1.0

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A measurement came to nothing; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds that a process has had of the processors so far, in steps of a tick (10 ms as a rule)."""

    user_seconds: float = 0.0
    system_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return self.user_seconds + self.system_seconds

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(self.user_seconds - earlier.user_seconds, self.system_seconds - earlier.system_seconds)


def cpu_of(pid: int) -> Cpu | None:
    """From /proc/PID/stat, fields utime and stime (proc(5)); None when the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the name in parentheses, which may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Cpu(int(fields[11]) / _TICKS_PER_SECOND, int(fields[12]) / _TICKS_PER_SECOND)


def peak_rss_bytes_of(pid: int) -> int | None:
    """VmHWM: of this program alone, unlike `ru_maxrss`, which a child inherits from whoever forked it."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in status.splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    return None  # a zombie has no memory any more


class Sampler:
    """
    Looks at a process again and again until it is gone, in a thread; keeps the last that was seen.

    A context manager. A process takes what it used with it when it ends: only who looked before knows.
    """

    def __init__(self, pid: int | None = None, *, pause_seconds: float = 0.005) -> None:
        self.pid = pid
        self.cpu = Cpu()
        self.peak_rss_bytes = 0
        self._pause = pause_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def look(self) -> bool:
        """Take one sample; False when the process is gone."""
        if self.pid is None:
            return True
        cpu = cpu_of(self.pid)
        if cpu is None:
            return False
        self.cpu = cpu
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak_rss_bytes_of(self.pid) or 0)
        return True

    def find(self) -> int | None:
        """Look for the process where it is not known from the start."""
        return self.pid

    def _run(self) -> None:
        while not self._stop.is_set():
            if self.pid is None:
                self.pid = self.find()
            if not self.look():
                return
            self._stop.wait(self._pause)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


class Child:
    """
    A process of ours: lines of its stdout as they come, its stderr kept, ended at the end of the `with` block.

    Args:
        stdin: what it reads there.
        folder: where it is started.
        on_stderr: called with each line of stderr, in the thread that reads it.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        name: str,
        environ: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        folder: Path = ROOT,
        on_stderr: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.started_at = time.time()
        self._on_stderr = on_stderr
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stderr: list[str] = []
        # A file, not a pipe: nobody has to write while somebody reads.
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            self._process = self._popen(command, given, environ, folder)
        lifeline.hold(self._process.pid)
        self._readers = [
            threading.Thread(target=self._read_stdout, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _popen(
        command: Sequence[str | Path], stdin: IO[bytes], environ: Mapping[str, str] | None, folder: Path
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, **(environ or {})},
        )

    @classmethod
    def module(cls, module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Self:
        """A module of ours, run by this interpreter."""
        return cls([sys.executable, "-m", module, *arguments], name=module, environ=environ)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def line(self, timeout_seconds: float = PATIENCE_SECONDS, *, while_running: Child | None = None) -> str:
        """
        The next line of stdout; with `while_running`, as long as that other process is there to make it come.

        Raises:
            BenchmarkError: one of them ended, or nothing was said in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                line = self._lines.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if while_running is not None and while_running.ended:
                    while_running.wait()
                    raise BenchmarkError(f"{while_running.name} ended before {self.name} had everything") from None
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"{self.name} said nothing for {timeout_seconds:g} s{self._tail()}") from None
            else:
                break
        if line is None:
            self._lines.put(None)
            raise BenchmarkError(f"{self.name} ended with code {self._process.wait()}{self._tail()}")
        return line

    def wait(self, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """
        Wait for its end.

        Raises:
            BenchmarkError: it failed, or did not end in time.
        """
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{self.name} did not end within {timeout_seconds:g} s{self._tail()}") from None
        if code != 0:
            raise BenchmarkError(f"{self.name} ended with code {code}{self._tail()}")

    def wait_forever(self) -> float:
        """Wait for its end, whatever the code; gives the time. A wait with a limit would poll, and come late."""
        self._process.wait()
        return time.time()

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        lifeline.release(self._process.pid)

    def _read_stdout(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_stderr(self, stream: IO[str]) -> None:
        for line in stream:
            if self._on_stderr is not None:
                self._on_stderr(line)
            self._stderr.append(line)
            del self._stderr[:-20]

    def _tail(self) -> str:
        for reader in self._readers:
            reader.join(1)
        return "".join(f"\n    {line.rstrip()}" for line in self._stderr)
