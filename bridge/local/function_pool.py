"""
A function's processes, how many there are, and the folder they run in.

An invocation takes an idle process if there is one, starts another if there is room, and waits if there is not. An idle
process stays until the code changes or the API stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from bridge.clock import Clock
from bridge.errors import TargetError
from bridge.local.function_process import FunctionProcess, LogSink, ProcessGone, Result
from bridge.local.runtime_api import Call
from bridge.local.template import FunctionSpec

# A function loads its modules within 10 seconds, or is started anew with its own timeout for both.
_INIT_LIMIT_SECONDS = 10.0

_KEPT_LOG_LINES = 10_000


class Function:
    """One function and what runs of it."""

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self.code: Path | None = None
        self.pools: dict[str, FunctionPool] = {}
        """By version."""
        self.in_flight = 0
        self.log: deque[str] = deque(maxlen=_KEPT_LOG_LINES)

    @property
    def root(self) -> Path:
        """The folder that its processes run in."""
        assert self.code is not None  # noqa: S101 - set when the API starts, before anything can be asked
        return self.code


class FunctionPool:
    """The processes of one version of a function: as many as are needed at once, the last used first."""

    def __init__(
        self,
        function: Function,
        version: str,
        *,
        environment: Mapping[str, str],
        sink: LogSink,
        limit: int,
        clock: Clock,
    ) -> None:
        self.version = version
        self._function = function
        self._environment = environment
        self._sink = sink
        self._clock = clock
        self._room = asyncio.Semaphore(limit)
        self._idle: list[FunctionProcess] = []
        self._generation = 0

    async def invoke(self, call: Call) -> Result:
        """Run one call in a process of its own for as long as it takes; a cancelled one takes its process with it."""
        async with self._room:
            while True:
                generation = self._generation
                process = await self._take()
                if process is None:
                    # Loading took too long once, as it may; the second time counts against the invocation.
                    process = self._new()
                    if not await process.start(call.timeout_seconds):
                        return process.timed_out(call, call.timeout_seconds)
                try:
                    result = await process.invoke(call)
                except ProcessGone:
                    await process.close()
                    continue  # nothing was done yet; the next process starts from the same place
                except BaseException:
                    await process.close()
                    raise
                if process.running and generation == self._generation:
                    self._idle.append(process)
                else:
                    await process.close()
                return result

    async def renew(self) -> None:
        """End the idle processes; the busy ones end with their invocation."""
        self._generation += 1
        idle, self._idle = self._idle, []
        await asyncio.gather(*(process.close() for process in idle))

    async def _take(self) -> FunctionProcess | None:
        """An idle process or a new one; None where that took too long to load the handler."""
        while self._idle:
            process = self._idle.pop()
            if process.running:
                return process
            await process.close()
        process = self._new()
        return process if await process.start(_INIT_LIMIT_SECONDS) else None

    def _new(self) -> FunctionProcess:
        return FunctionProcess(
            self._function.spec,
            self.version,
            self._function.root,
            environment=self._environment,
            sink=self._sink,
            clock=self._clock,
        )


def unpack_code(spec: FunctionSpec, scratch: Path) -> Path:
    """The folder to run the function in; an archive and inline code get one of their own."""
    if spec.inline is not None:
        folder = Path(tempfile.mkdtemp(prefix=f"{spec.logical_id}-", dir=scratch))
        (folder / "index.py").write_text(spec.inline, encoding="utf-8")
        return folder
    assert spec.code is not None  # noqa: S101 - either of the two is set
    if spec.code.is_dir():
        return spec.code
    folder = Path(tempfile.mkdtemp(prefix=f"{spec.logical_id}-", dir=scratch))
    try:
        with zipfile.ZipFile(spec.code) as archive:
            archive.extractall(folder)
    except zipfile.BadZipFile as error:
        raise TargetError(
            f"{spec.code} is not a zip archive", remedy=f"correct CodeUri of {spec.logical_id}"
        ) from error
    return folder


def describe_code(root: Path) -> tuple[int, bytes, float]:
    """Size, SHA-256 and time of the last change, over all files."""
    digest = hashlib.sha256()
    size = 0
    modified = 0.0
    for path in sorted(root.rglob("*")):
        if "__pycache__" in path.parts or not path.is_file():
            continue
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\0{len(content)}\0".encode())
            digest.update(content)
            size += len(content)
            modified = max(modified, path.stat().st_mtime)
    return size, digest.digest(), modified
