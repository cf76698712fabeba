"""
One execution environment: a process under the runtime client that AWS ships, and its log.

It is started for the first invocation that finds no other one free, serves one invocation at a time, and keeps its
state between them. It is killed when an invocation is over its time. The lines START, END, REPORT and INIT_REPORT are
the platform's, as "Lambda execution environment lifecycle" and "Viewing Lambda function logs" show them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

import bridge
from bridge.clock import Clock
from bridge.local import lifeline
from bridge.local.runtime_api import MAX_RESPONSE_BYTES, Answer, Call, InitError, RuntimeApi
from bridge.local.template import FunctionSpec

LOG_TAIL_BYTES = 4096

_LONGEST_LINE_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024

LogSink = Callable[[str], None]
"""Takes one line of a function's log, without its end."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one invocation."""

    payload: bytes = field(repr=False)
    function_error: str | None
    log_tail: bytes = field(repr=False)
    """The last 4 KB of the invocation's log."""


class ProcessGone(Exception):
    """The process ended before it took the call: nothing of the call was done."""


class FunctionProcess:
    """One process of one function; see `RuntimeApi` for what it talks to."""

    def __init__(
        self,
        function: FunctionSpec,
        version: str,
        code: Path,
        *,
        environment: Mapping[str, str],
        sink: LogSink,
        clock: Clock,
    ) -> None:
        self._function = function
        self._version = version
        self._code = code
        self._environment = environment
        self._clock = clock
        self._log = _Log(sink)
        self._api = RuntimeApi(clock)
        self._process: asyncio.subprocess.Process | None = None
        self._exited: asyncio.Task[int] | None = None
        self._init_seconds: float | None = None
        self._init_error: InitError | None = None
        self._memory_mb: int | None = None

    @property
    def running(self) -> bool:
        """Whether another invocation may be given to it."""
        return self._exited is not None and not self._exited.done() and self._init_error is None

    async def start(self, limit_seconds: float) -> bool:
        """
        Start the process and wait until it has loaded the handler, or failed to, which `invoke` then tells.

        Returns:
            False where it was still at it after the limit; the process is gone then.
        """
        address = await self._api.start()
        begun = self._clock.monotonic()
        try:
            await self._spawn(address)
            assert self._exited is not None  # noqa: S101 - set by _spawn
            await asyncio.wait(
                (self._api.initialized, self._exited), timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        except BaseException:
            await self.close()
            raise
        self._init_seconds = self._clock.monotonic() - begun
        self._log.drain()
        if self._api.initialized.done():
            self._init_error = self._api.initialized.result()
        elif not self._exited.done():
            self._log_init_report("timeout")
            await self.close()
            return False
        if self._init_error is not None:
            self._log_init_report("error", self._init_error.error_type)
        elif self._exited.done():
            self._log_init_report("error", "Runtime.ExitError")
        return True

    def timed_out(self, call: Call, seconds: float) -> Result:
        """What comes of a call whose time is over, the process having been ended."""
        what = f"Task timed out after {call.timeout_seconds:.2f} seconds"
        self._log.platform(f"{_timestamp(self._clock)} {call.request_id} {what}\n")
        init_seconds, self._init_seconds = self._init_seconds, None
        self._report(call, seconds, init_seconds, "Sandbox.Timedout")
        return Result(_error_payload("Sandbox.Timedout", call, what), "Unhandled", self._log.tail())

    async def invoke(self, call: Call) -> Result:
        """
        Hand over one call and wait for what comes of it.

        Raises:
            ProcessGone: it had ended before; another process may take the call.
        """
        exited = self._exited
        assert exited is not None  # noqa: S101 - started before
        init_seconds = self._init_seconds
        if init_seconds is not None and (self._init_error is not None or exited.done()):
            return self._init_failed(call, exited, init_seconds)

        def about_to() -> None:
            self._log.drain()
            if init_seconds is None:
                self._log.begin()  # the first invocation's log begins with what the module wrote when it was loaded
            self._log.platform(f"START RequestId: {call.request_id} Version: {self._version}")

        self._api.hand_over(call, about_to)
        await asyncio.wait(
            (self._api.picked_up, exited), timeout=call.timeout_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not self._api.picked_up.done():
            raise ProcessGone
        begun = self._clock.monotonic()
        await asyncio.wait(
            (self._api.answered, exited), timeout=call.timeout_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        seconds = self._clock.monotonic() - begun
        self._measure_memory()
        self._log.drain()
        if not self._api.answered.done() and not exited.done():
            await self.close()
            return self.timed_out(call, seconds)
        self._init_seconds = None
        error_type = None
        if self._api.answered.done():
            payload, function_error = self._answered(self._api.answered.result())
        else:
            error_type = "Runtime.ExitError"
            payload = _error_payload(error_type, call, _exit_reason(exited.result()))
            function_error = "Unhandled"
        self._report(call, seconds, init_seconds, error_type)
        return Result(payload, function_error, self._log.tail())

    async def close(self) -> None:
        """Kill the process and whatever it started."""
        if self._process is not None and self._exited is not None:
            if not self._exited.done():
                _kill_group(self._process.pid)
            await self._exited
        await self._api.stop()

    async def _spawn(self, address: str) -> None:
        read_end, write_end = os.pipe()
        self._log.attach(read_end)
        try:
            # One pipe for both streams keeps their lines in the order in which they were written.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "awslambdaric", self._function.handler),
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd=self._code,
                env=self._environ(address),
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        lifeline.hold(self._process.pid, group=True)
        self._exited = asyncio.create_task(self._wait(self._process))

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        code = await process.wait()
        _kill_group(process.pid)  # what the handler started goes with it, as with AWS's sandbox
        lifeline.release(process.pid)
        self._log.drain()
        self._log.detach()
        return code

    def _environ(self, address: str) -> dict[str, str]:
        """Source: "Working with Lambda environment variables", Defined runtime environment variables."""
        function = self._function
        date = datetime.fromtimestamp(self._clock.now(), UTC)
        paths = [
            str(self._code),
            *(str(layer / "python") for layer in function.layers),
            # `bridge.handlers` is importable as it will be where the package is among the function's requirements.
            str(Path(bridge.__file__).resolve().parent.parent),
        ]
        reserved = {
            "_HANDLER": function.handler,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": self._version,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{date:%Y/%m/%d}/[{self._version}]{secrets.token_hex(16)}",
            "AWS_LAMBDA_RUNTIME_API": address,
            "LAMBDA_TASK_ROOT": str(self._code),
        }
        ours = {
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            # AWS's file system is read-only; and bytecode is matched to its source by the second, so that a handler
            # changed twice within one could be loaded as it was before.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        merged = {**ours, **self._environment, **function.environment, **reserved}
        merged["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [merged.get("PYTHONPATH")])])
        return merged

    def _answered(self, answer: Answer) -> tuple[bytes, str | None]:
        if answer.too_large:
            message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
            payload = orjson.dumps({"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"})
            return payload, "Unhandled"
        # AWS answers `Unhandled` whatever error a runtime of today reports; `Handled` was of the runtimes before.
        return answer.payload, "Unhandled" if answer.is_error else None

    def _init_failed(self, call: Call, exited: asyncio.Task[int], init_seconds: float) -> Result:
        if self._init_error is not None:
            payload, error_type = self._init_error.payload, self._init_error.error_type
        else:
            error_type = "Runtime.ExitError"
            payload = _error_payload(error_type, call, _exit_reason(exited.result()))
        self._log.platform(f"START RequestId: {call.request_id} Version: {self._version}")
        self._report(call, init_seconds, None, error_type)
        return Result(payload, "Unhandled", self._log.tail())

    def _report(self, call: Call, seconds: float, init_seconds: float | None, error_type: str | None) -> None:
        # Initialisation is billed with the first invocation since August 2025.
        billed = math.ceil((seconds + (init_seconds or 0)) * 1000)
        fields = [
            f"REPORT RequestId: {call.request_id}",
            f"Duration: {seconds * 1000:.2f} ms",
            f"Billed Duration: {billed} ms",
            f"Memory Size: {self._function.memory_mb} MB",
        ]
        if self._memory_mb is not None:
            fields.append(f"Max Memory Used: {self._memory_mb} MB")
        if init_seconds is not None:
            fields.append(f"Init Duration: {init_seconds * 1000:.2f} ms")
        if error_type == "Sandbox.Timedout":
            fields.append("Status: timeout")
        elif error_type is not None:
            fields += ["Status: error", f"Error Type: {error_type}"]
        self._log.platform(f"END RequestId: {call.request_id}")
        self._log.platform("\t".join([*fields, ""]))

    def _log_init_report(self, status: str, error_type: str | None = None) -> None:
        fields = [f"INIT_REPORT Init Duration: {(self._init_seconds or 0) * 1000:.2f} ms", "Phase: init"]
        fields.append(f"Status: {status}")
        if error_type is not None:
            fields.append(f"Error Type: {error_type}")
        self._log.platform("\t".join(fields))

    def _measure_memory(self) -> None:
        """The most that the process ever held, where the kernel tells (Linux)."""
        if self._process is None:
            return
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    self._memory_mb = math.ceil(int(line.split()[1]) / 1024)


class _Log:
    """What a process writes, line by line to the sink, and the end of it for the invocation's tail."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._read_end: int | None = None
        self._partial = b""
        self._tail = b""

    def attach(self, read_end: int) -> None:
        os.set_blocking(read_end, False)
        self._read_end = read_end
        asyncio.get_running_loop().add_reader(read_end, self.drain)

    def detach(self) -> None:
        if self._read_end is not None:
            asyncio.get_running_loop().remove_reader(self._read_end)
            os.close(self._read_end)
            self._read_end = None

    def drain(self) -> None:
        """Take what was written up to now; what a handler prints before it answers is in the pipe by then."""
        while self._read_end is not None:
            try:
                chunk = os.read(self._read_end, _READ_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                self._end_line()
                self.detach()
                return
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            for line in lines:
                self._line(line)
            if len(self._partial) > _LONGEST_LINE_BYTES:
                self._end_line()

    def begin(self) -> None:
        """A new invocation; what was written between two of them went to the sink only."""
        self._end_line()
        self._tail = b""

    def platform(self, line: str) -> None:
        """A line that is not the function's."""
        self._end_line()
        self._line(line.encode())

    def tail(self) -> bytes:
        return self._tail[-LOG_TAIL_BYTES:]

    def _end_line(self) -> None:
        if self._partial:
            line, self._partial = self._partial, b""
            self._line(line)

    def _line(self, line: bytes) -> None:
        # The runtime client joins the lines of a stack trace by CR where it writes to a stream, so that they arrive as
        # one; AWS shows them as lines.
        if line.startswith(b"[ERROR]"):
            line = line.replace(b"\r", b"\n")
        self._tail = (self._tail + line + b"\n")[-2 * LOG_TAIL_BYTES :]
        for part in line.decode("utf-8", "replace").split("\n"):
            self._sink(part)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _error_payload(error_type: str, call: Call, what: str) -> bytes:
    return orjson.dumps({"errorType": error_type, "errorMessage": f"RequestId: {call.request_id} Error: {what}"})


def _exit_reason(code: int) -> str:
    """In the words of Go's `exec.ExitError`, which the platform's are."""
    if code == 0:
        return "Runtime exited without providing a reason"
    if code > 0:
        return f"Runtime exited with error: exit status {code}"
    name = (signal.strsignal(-code) or f"signal {-code}").lower()
    return f"Runtime exited with error: signal: {name}"


def _timestamp(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
