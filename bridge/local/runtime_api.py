"""
The Runtime API: what a function's process talks to instead of AWS.

One server for each process, on a port of its own, because the runtime client builds its URLs from a host and a port and
nothing in a request says which process sent it. The process asks for the next invocation, which is held until there is
one, and posts the response or the error.

Source: "Using the Lambda runtime API for custom runtimes" of the Lambda developer guide, and `openapi.yaml` there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from bridge.clock import Clock

# "Response payload size exceeded maximum allowed payload size (6291556 bytes)": 6 MiB and 100 bytes.
MAX_RESPONSE_BYTES = 6 * 1024 * 1024 + 100

_PREFIX = "/2018-06-01/runtime/"
_INVOCATION = re.compile(r"invocation/([^/]+)/(response|error)")

# An error's body is small, but for stack traces.
_MAX_ERROR_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation, as the runtime is given it."""

    request_id: str
    body: bytes = field(repr=False)
    function_arn: str
    """With the qualifier that the caller used."""
    trace_id: str
    timeout_seconds: float
    client_context: str | None = field(default=None, repr=False)
    """JSON."""
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the runtime posted: a response, or the error document of a failed handler."""

    payload: bytes = field(repr=False)
    is_error: bool = False
    too_large: bool = False
    """The response was over the limit; the runtime client ends its process when told so."""


@dataclass(frozen=True, slots=True)
class InitError:
    """The runtime could not load the handler."""

    payload: bytes = field(repr=False)
    error_type: str


class RuntimeApi:
    """
    The Runtime API of one process.

    `initialized` is set when the process first asks for an invocation (None) or says that it can't. One call is handed
    over at a time: `hand_over` puts it where the process finds it, `picked_up` is set when it did, `answered` when it
    posted the answer.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._current: Call | None = None
        self._about_to: Callable[[], None] | None = None
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None
        loop = asyncio.get_running_loop()
        self._inbox: asyncio.Future[Call] = loop.create_future()
        self.initialized: asyncio.Future[InitError | None] = loop.create_future()
        self.picked_up: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[Answer] = loop.create_future()

    async def start(self) -> str:
        """Listen; returns the address for AWS_LAMBDA_RUNTIME_API."""
        self._server = web.Server(self._handle, access_log=None)
        self._listener = await asyncio.get_running_loop().create_server(self._server, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Close; call it after the process has ended."""
        self._inbox.cancel()  # the request that is held for the next call; the server forgot it with its connection
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            await self._server.shutdown(0)

    def hand_over(self, call: Call, about_to: Callable[[], None]) -> None:
        """
        Give the process its next call; the one before must have been answered.

        `about_to` is called before the process can have seen anything of the call: what it writes comes after.
        """
        loop = asyncio.get_running_loop()
        self._about_to = about_to
        self.picked_up = loop.create_future()
        self.answered = loop.create_future()
        self._inbox.set_result(call)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix(_PREFIX)
        if path == "invocation/next" and request.method == "GET":
            return await self._next()
        if path == "init/error" and request.method == "POST":
            return await self._init_error(request)
        if (match := _INVOCATION.fullmatch(path)) and request.method == "POST":
            request_id, what = match.groups()
            return await self._answer(request, request_id, is_error=what == "error")
        return _error(404, "InvalidPath", f"There is no {request.method} {request.path}.")

    async def _next(self) -> web.StreamResponse:
        if not self.initialized.done():
            self.initialized.set_result(None)
        call = self._current = await self._inbox
        self._inbox = asyncio.get_running_loop().create_future()
        deadline_ms = int((self._clock.now() + call.timeout_seconds) * 1000)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": call.request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": call.function_arn,
            "Lambda-Runtime-Trace-Id": call.trace_id,
        }
        if call.client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = call.client_context
        if call.tenant_id is not None:
            headers["Lambda-Runtime-Aws-Tenant-Id"] = call.tenant_id
        if self._about_to is not None:
            self._about_to()
        self.picked_up.set_result(None)
        # The runtime client's C++ part reads Content-Type without looking whether it is there.
        return web.Response(body=call.body, content_type="application/json", headers=headers)

    async def _answer(self, request: web.BaseRequest, request_id: str, *, is_error: bool) -> web.StreamResponse:
        if self._current is None or request_id != self._current.request_id or self.answered.done():
            return _error(400, "InvalidRequestID", "Invalid request ID")
        body = await _read(request, MAX_RESPONSE_BYTES)
        if self.answered.done():
            return _error(400, "InvalidRequestID", "Invalid request ID")
        if body is None:
            self.answered.set_result(Answer(b"", is_error=True, too_large=True))
            message = f"Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
            return _error(413, "RequestEntityTooLarge", message)
        self.answered.set_result(Answer(body, is_error=is_error))
        return _accepted()

    async def _init_error(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await _read(request, _MAX_ERROR_BYTES)
        if self.initialized.done():
            return _error(403, "InvalidStateTransition", "State transition from Ready to InitError failed")
        error_type = request.headers.get("Lambda-Runtime-Function-Error-Type", "Runtime.Unknown")
        self.initialized.set_result(InitError(body or b"{}", error_type))
        return _accepted()


async def _read(request: web.BaseRequest, limit: int) -> bytes | None:
    """The body, or None where it is over the limit; then it is read to its end all the same, and thrown away."""
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size <= limit:
            parts.append(part)
        else:
            parts.clear()
    return b"".join(parts) if size <= limit else None


def _accepted() -> web.Response:
    return web.Response(status=202, body=b'{"status":"OK"}', content_type="application/json")


def _error(status: int, error_type: str, message: str) -> web.Response:
    body = orjson.dumps({"errorMessage": message, "errorType": error_type})
    return web.Response(status=status, body=body, content_type="application/json")
