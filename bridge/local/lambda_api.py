"""
The Lambda API on the loopback interface, in front of functions that run as processes here.

What an SDK sees is AWS's: paths, headers, status codes, error bodies and their `x-amzn-ErrorType`. Three differences
are meant. A request need not be signed, so that `curl` will do. Account and region of an ARN are not looked at, so that
a configuration copied from production works. Without reserved concurrency, invocations beyond `max_processes` of a
function wait instead of being throttled: the limit is the laptop's, not an account's.

Sources: Lambda API reference (Invoke, GetFunction, GetFunctionConfiguration, ListFunctions); "Understanding retry
behavior in Lambda" and "How Lambda handles errors and retries with asynchronous invocation" of the developer guide.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import os
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson
from aiohttp import web

from bridge.clock import Clock, SystemClock
from bridge.errors import TargetError
from bridge.local import lifeline
from bridge.local.function_pool import Function, FunctionPool, describe_code, unpack_code
from bridge.local.function_process import LogSink, Result
from bridge.local.lambda_errors import REQUEST_ID, Refused, as_aws
from bridge.local.lambda_requests import (
    check_enum,
    check_payload,
    new_trace_id,
    read_client_context,
    read_function,
)
from bridge.local.runtime_api import Call
from bridge.local.template import ACCOUNT_ID, DEFAULT_REGION, FunctionSpec

_T = TypeVar("_T")

LATEST = "$LATEST"

# Nothing that is larger is read to its end just to be refused.
_MAX_READ_BYTES = 64 * 1024 * 1024

# Between the attempts at an event whose function failed.
ASYNC_RETRY_SECONDS = (60.0, 120.0)

# Between the attempts at an event that found its function throttled: "from 1 second to a maximum of 5 minutes".
_THROTTLE_LEAST_SECONDS = 1.0
_THROTTLE_MOST_SECONDS = 300.0

_INVOCATION_TYPES = ("Event", "RequestResponse", "DryRun")
_LOG_TYPES = ("None", "Tail")

# From our own environment into the functions': how to reach AWS or a stand-in for it, and where things are.
_INHERITED = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "HOME",
    "LD_LIBRARY_PATH",
    "PATH",
    "SSL_CERT_FILE",
    "TMPDIR",
)

# With one of these a function has credentials; without any it is given made-up ones, which stand-ins for AWS take.
_SAY_WHO = {"AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"}


class LocalLambda:
    """
    The functions of a template behind an endpoint for the AWS SDKs; an async context manager.

    Args:
        functions: what `read_template` found.
        port: 0 for a free one.
        region: of the ARNs.
        max_processes: of each function and version; invocations beyond it wait.
        async_retry_seconds: how long to wait before the second and the third attempt at an `Event` invocation whose
            function failed; AWS's are the default.
        environ: ours, of which a few variables are handed on.
        on_log: takes a function's name and a line of its log.
    """

    def __init__(
        self,
        functions: Iterable[FunctionSpec],
        *,
        port: int = 0,
        region: str = DEFAULT_REGION,
        max_processes: int = 10,
        async_retry_seconds: Sequence[float] = ASYNC_RETRY_SECONDS,
        environ: Mapping[str, str] = os.environ,
        on_log: Callable[[str, str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if importlib.util.find_spec("awslambdaric") is None:
            raise TargetError(
                "functions can't run here: AWS's runtime client, awslambdaric, is not installed",
                remedy="install it with: pip install 'pgbridge[local]'",
            )
        self._wanted_port = port
        self._region = region
        self._max_processes = max_processes
        self._async_retry_seconds = tuple(async_retry_seconds)
        self._environ = environ
        self._on_log = on_log
        self._clock = clock if clock is not None else SystemClock()
        self._functions = {spec.name: Function(spec) for spec in functions}
        self._scratch: Path | None = None
        self._runner: web.AppRunner | None = None
        self._port: int | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def endpoint_url(self) -> str:
        """For `endpoint_url` of an SDK, or AWS_ENDPOINT_URL_LAMBDA."""
        if self._port is None:
            raise TargetError("the local Lambda is not listening yet", remedy="start it first")
        return f"http://127.0.0.1:{self._port}"

    @property
    def functions(self) -> tuple[FunctionSpec, ...]:
        return tuple(function.spec for function in self._functions.values())

    def log(self, name: str) -> str:
        """What the function and the platform wrote to its log, the latest 10 000 lines."""
        return "\n".join(self._functions[name].log)

    async def start(self) -> Self:
        """
        Listen; processes are started when they are needed.

        Raises:
            TargetError: the port is taken.
        """
        self._scratch = Path(tempfile.mkdtemp(prefix="pgbridge-lambda-"))
        lifeline.remove_afterwards(self._scratch)
        try:
            for function in self._functions.values():
                function.code = await asyncio.to_thread(unpack_code, function.spec, self._scratch)
            self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0)
            await self._runner.setup()
            site = web.TCPSite(self._runner, "127.0.0.1", self._wanted_port)
            await site.start()
            self._port = self._runner.addresses[0][1]
        except OSError as error:
            await self.stop()
            raise TargetError(
                f"port {self._wanted_port} of 127.0.0.1 can't be used for the local Lambda: {error.strerror}",
                remedy="name another one with --port",
            ) from error
        except BaseException:
            await self.stop()
            raise
        environment = self._function_environment()
        for function in self._functions.values():
            versions = [LATEST] if function.spec.alias is None else [LATEST, "1"]
            function.pools = {
                version: FunctionPool(
                    function,
                    version,
                    environment=environment,
                    sink=self._sink(function),
                    limit=self._max_processes,
                    clock=self._clock,
                )
                for version in versions
            }
        return self

    async def stop(self) -> None:
        """Drop what is in flight, end all processes."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        pools = [pool for function in self._functions.values() for pool in function.pools.values()]
        await asyncio.gather(*(pool.renew() for pool in pools))
        if self._scratch is not None:
            await asyncio.to_thread(shutil.rmtree, self._scratch)
            lifeline.removed(self._scratch)
            self._scratch = None
        self._port = None

    async def reload(self, name: str) -> None:
        """Have later invocations of the function run in new processes, with its code as it is now."""
        function = self._functions[name]
        if self._scratch is not None:
            function.code = await asyncio.to_thread(unpack_code, function.spec, self._scratch)
        for pool in function.pools.values():
            await pool.renew()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_MAX_READ_BYTES, middlewares=[as_aws])
        functions = "/2015-03-31/functions"
        application.router.add_post(f"{functions}/{{function}}/invocations", self._invoke)
        application.router.add_get(f"{functions}/{{function}}/configuration", self._get_function_configuration)
        application.router.add_get(f"{functions}/{{function}}", self._get_function)
        application.router.add_get(f"{functions}/", self._list_functions)
        application.router.add_get(functions, self._list_functions)
        return application

    def _sink(self, function: Function) -> LogSink:
        def take(line: str) -> None:
            function.log.append(line)
            if self._on_log is not None:
                self._on_log(function.spec.name, line)

        return take

    def _function_environment(self) -> dict[str, str]:
        environment = {name: self._environ[name] for name in _INHERITED if name in self._environ}
        environment |= {name: value for name, value in self._environ.items() if name.startswith("AWS_ENDPOINT_URL")}
        home = environment.get("HOME")
        shared = home is not None and any((Path(home) / ".aws" / name).exists() for name in ("credentials", "config"))
        if not shared and not _SAY_WHO & environment.keys():
            environment |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        environment |= {"AWS_REGION": self._region, "AWS_DEFAULT_REGION": self._region}
        # A function that invokes another one finds it here as well.
        environment["AWS_ENDPOINT_URL_LAMBDA"] = self.endpoint_url
        return environment

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        function, qualifier = self._find(request)
        invocation_type = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        log_type = request.headers.get("X-Amz-Log-Type", "None")
        check_enum("invocationType", invocation_type, _INVOCATION_TYPES)
        check_enum("logType", log_type, _LOG_TYPES)
        client_context = read_client_context(request.headers.get("X-Amz-Client-Context"))
        body = await request.read()
        check_payload(body, invocation_type)
        if invocation_type == "DryRun":
            return web.Response(status=204)
        call = Call(
            request_id=REQUEST_ID.get(),
            body=body or b"{}",
            function_arn=self._arn(function, qualifier),
            trace_id=request.headers.get("X-Amzn-Trace-Id") or new_trace_id(self._clock),
            timeout_seconds=function.spec.timeout_seconds,
            client_context=client_context if invocation_type == "RequestResponse" else None,
            tenant_id=request.headers.get("X-Amz-Tenant-Id"),
        )
        pool = function.pools[_version(function, qualifier)]
        if invocation_type == "Event":
            self._begin(self._deliver(function, pool, call))
            return web.Response(status=202)
        # A caller that hangs up ends no invocation.
        result = await asyncio.shield(self._begin(self._run(function, pool, call)))
        headers = {
            "X-Amz-Executed-Version": pool.version,
            "X-Amzn-Trace-Id": call.trace_id,
            "x-amzn-Remapped-Content-Length": "0",
        }
        if result.function_error is not None:
            headers["X-Amz-Function-Error"] = result.function_error
        if log_type == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail).decode("ascii")
        return web.Response(body=result.payload, headers=headers, content_type="application/json")

    def _begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, function: Function, pool: FunctionPool, call: Call) -> Result:
        reserved = function.spec.reserved_concurrency
        if reserved is not None and function.in_flight >= reserved:
            raise Refused(
                429,
                "TooManyRequestsException",
                "Rate Exceeded.",
                Reason="ReservedFunctionConcurrentInvocationLimitExceeded",
            )
        function.in_flight += 1
        try:
            return await pool.invoke(call)
        finally:
            function.in_flight -= 1

    async def _deliver(self, function: Function, pool: FunctionPool, call: Call) -> None:
        """One `Event` invocation: again after an error, as often as allowed; after throttling, until it is too old."""
        received = self._clock.monotonic()
        delays = deque(self._async_retry_seconds[: function.spec.maximum_retry_attempts])
        throttled_seconds = _THROTTLE_LEAST_SECONDS
        while True:
            try:
                result = await self._run(function, pool, call)
            except Refused:
                delay = throttled_seconds
                throttled_seconds = min(2 * throttled_seconds, _THROTTLE_MOST_SECONDS)
            else:
                if result.function_error is None or not delays:
                    return
                delay = delays.popleft()
            if self._clock.monotonic() + delay - received > function.spec.maximum_event_age_seconds:
                return
            await asyncio.sleep(delay)

    async def _get_function(self, request: web.Request) -> web.StreamResponse:
        function, qualifier = self._find(request)
        document: dict[str, Any] = {
            "Code": {"Location": function.root.as_uri(), "RepositoryType": "S3"},
            "Configuration": await self._configuration(function, qualifier),
        }
        if function.spec.reserved_concurrency is not None:
            document["Concurrency"] = {"ReservedConcurrentExecutions": function.spec.reserved_concurrency}
        return _json(document)

    async def _get_function_configuration(self, request: web.Request) -> web.StreamResponse:
        function, qualifier = self._find(request)
        return _json(await self._configuration(function, qualifier))

    async def _list_functions(self, request: web.Request) -> web.StreamResponse:
        every_version = request.query.get("FunctionVersion") == "ALL"
        entries = [
            (name, None if version == LATEST else version)
            for name in sorted(self._functions)
            for version in (self._functions[name].pools if every_version else (LATEST,))
        ]
        try:
            begin = int(request.query.get("Marker") or 0)
            count = int(request.query.get("MaxItems") or 50)
        except ValueError:
            raise Refused(400, "InvalidParameterValueException", "Could not parse pagination token") from None
        page = entries[begin : begin + min(max(count, 1), 50)]
        document: dict[str, Any] = {
            "Functions": [await self._configuration(self._functions[name], version) for name, version in page]
        }
        if begin + len(page) < len(entries):
            document["NextMarker"] = str(begin + len(page))
        return _json(document)

    async def _configuration(self, function: Function, qualifier: str | None) -> dict[str, Any]:
        spec = function.spec
        size, digest, modified = await asyncio.to_thread(describe_code, function.root)
        configuration: dict[str, Any] = {
            "FunctionName": spec.name,
            "FunctionArn": self._arn(function, qualifier),
            "Runtime": spec.runtime,
            "Role": spec.role,
            "Handler": spec.handler,
            "CodeSize": size,
            "Description": spec.description,
            "Timeout": spec.timeout_seconds,
            "MemorySize": spec.memory_mb,
            "LastModified": datetime.fromtimestamp(modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
            "CodeSha256": base64.b64encode(digest).decode("ascii"),
            "Version": _version(function, qualifier),
            "TracingConfig": {"Mode": "PassThrough"},
            "RevisionId": str(uuid.UUID(bytes=digest[:16])),
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": ["x86_64" if os.uname().machine == "x86_64" else "arm64"],
            "EphemeralStorage": {"Size": 512},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{spec.name}"},
        }
        if spec.environment:
            configuration["Environment"] = {"Variables": dict(spec.environment)}
        return configuration

    def _arn(self, function: Function, qualifier: str | None) -> str:
        arn = f"arn:aws:lambda:{self._region}:{ACCOUNT_ID}:function:{function.spec.name}"
        return arn if qualifier is None else f"{arn}:{qualifier}"

    def _find(self, request: web.Request) -> tuple[Function, str | None]:
        """The function that a request names, and the qualifier, from the path or from the query."""
        name, qualifier = read_function(request.match_info["function"], request.query.get("Qualifier"))
        function = self._functions.get(name)
        if function is None or (
            qualifier is not None and qualifier not in function.pools and qualifier != function.spec.alias
        ):
            suffix = "" if qualifier is None else f":{qualifier}"
            arn = f"arn:aws:lambda:{self._region}:{ACCOUNT_ID}:function:{name}{suffix}"
            raise Refused(404, "ResourceNotFoundException", f"Function not found: {arn}")
        return function, qualifier


def _json(document: Mapping[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")


def _version(function: Function, qualifier: str | None) -> str:
    if qualifier is None:
        return LATEST
    return "1" if qualifier == function.spec.alias else qualifier
