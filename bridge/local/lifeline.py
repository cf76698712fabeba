"""
What ends our child processes with us, however we end: by return, by an error, by SIGKILL.

An exit handler does not run when a process is killed, and Linux's parent-death signal belongs to the thread that
started the child, not to the process. So each process that starts children here has one watcher beside it, a small
Python that reads a pipe of which we hold the only other end: when the pipe closes, we are gone, and the watcher ends
the processes and removes the folders that we had named. One line of JSON names one thing.

The watcher runs this very file as a script, hence the standard library alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.05

_lock = threading.Lock()
_watcher: tuple[int, subprocess.Popen[bytes]] | None = None


def hold(pid: int, *, end_with: signal.Signals = signal.SIGKILL, group: bool = False) -> None:
    """Have this child sent a signal when we are gone; `group` for its whole process group."""
    _tell({"hold": pid, "signal": int(end_with), "group": group})


def release(pid: int) -> None:
    """The child has ended and was waited for: its number may be somebody else's from now on."""
    _tell({"release": pid})


def remove_afterwards(folder: Path) -> None:
    """Have this folder removed when we are gone, after the processes that may write to it."""
    _tell({"remove": str(folder)})


def removed(folder: Path) -> None:
    """The folder is gone already."""
    _tell({"removed": str(folder)})


def _tell(order: dict[str, Any]) -> None:
    global _watcher  # noqa: PLW0603 - one per process, made when first needed
    with _lock:
        # A forked child inherits the variable, but what it names is its parent's.
        if _watcher is None or _watcher[0] != os.getpid() or _watcher[1].poll() is not None:
            if not {"hold", "remove"} & order.keys():
                return
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # an interrupt typed at the terminal is for us
            )
            if _watcher is None:
                atexit.register(_dismiss)
            _watcher = (os.getpid(), process)
        stdin = _watcher[1].stdin
        assert stdin is not None  # noqa: S101 - it was opened with a pipe
        # A watcher that somebody killed can't help any more; the ordinary ways of ending still work.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()


def _dismiss() -> None:
    if _watcher is None or _watcher[0] != os.getpid():
        return
    process = _watcher[1]
    assert process.stdin is not None  # noqa: S101 - it was opened with a pipe
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()


def _watch(orders: IO[bytes]) -> None:
    held: dict[int, tuple[int, bool]] = {}
    folders: dict[str, None] = {}
    for line in orders:
        if not line.endswith(b"\n"):
            break  # its writer died within it
        order = json.loads(line)
        if "hold" in order:
            held[order["hold"]] = (order["signal"], order["group"])
        elif "release" in order:
            held.pop(order["release"], None)
        elif "remove" in order:
            folders[order["remove"]] = None
        elif "removed" in order:
            folders.pop(order["removed"], None)
    for pid, (number, group) in held.items():
        _signal(pid, number, group=group)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while any(alive(pid) for pid in held) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for pid, (_, group) in held.items():
        if alive(pid):
            _signal(pid, signal.SIGKILL, group=group)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _signal(pid: int, number: int, *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether the process runs; False too for one that has ended and waits to be reaped by whoever adopted it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self").exists()  # without /proc the signal's answer stands
    return state not in ("Z", "X")


if __name__ == "__main__":
    _watch(sys.stdin.buffer)
