"""
An HTTP endpoint that takes events the way a careful receiver would, and writes down what it took.

It verifies the bearer token and the Standard Webhooks signature (with the reference library, not with our own code),
refuses what fails either with 401, and answers 200 for the rest, unless a planned fault says otherwise. As a process of
its own, `python -m bridge.local.receiver`, it appends each event to a ledger, on disk before the answer is sent, so
that what it acknowledged can be compared with what was sent however either of the two ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import orjson
from aiohttp import web

from bridge.clock import Clock, SystemClock
from bridge.errors import ConfigError, TargetError
from bridge.local.counter import CountingProtocol
from bridge.local.stop_signal import until_told
from bridge.testing.faults import Fault, Faults

# More than any batch: maximum_batch_bytes stays under Lambda's 6 MB.
_MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One event that was taken."""

    id: str
    event: Mapping[str, Any] = field(repr=False)
    message_id: str
    """`webhook-id` of the call that brought it."""
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, whatever came of it."""

    status: int | None
    """None where the connection was dropped."""
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    reason: str = ""
    """Why it was refused."""


class Receiver:
    """
    The receiver within an event loop; an async context manager.

    Args:
        bearer: the token to ask for; None asks for none.
        signing_secrets: `whsec_…`; a signature by any of them will do. Empty asks for none.
        faults: what goes wrong.
        ledger: where each event is appended as a line of JSON, synced before the answer.
        port: 0 for a free one.

    Attributes:
        received: every event taken, repeats included, in order.
        calls: every request.
    """

    def __init__(
        self,
        *,
        bearer: str | None = None,
        signing_secrets: Sequence[str] = (),
        faults: Faults | None = None,
        ledger: Path | None = None,
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._bearer = bearer
        self._verifiers = _verifiers(signing_secrets)
        self.faults = faults if faults is not None else Faults()
        self._ledger_path = ledger
        self._ledger: int | None = None
        self._wanted_port = port
        self._port: int | None = None
        self._clock = clock if clock is not None else SystemClock()
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Condition()
        self.received: list[Received] = []
        self.calls: list[Call] = []

    @property
    def url(self) -> str:
        """Any path below it is taken."""
        if self._port is None:
            raise TargetError("the local receiver is not listening yet", remedy="start it first")
        return f"http://127.0.0.1:{self._port}/"

    def ids(self) -> list[str]:
        """Of the events taken, in order, repeats included."""
        return [received.id for received in self.received]

    async def wait_until(self, happened: Callable[[Receiver], bool]) -> None:
        """Wait until the condition holds; it is looked at after each call."""
        async with self._changed:
            await self._changed.wait_for(lambda: happened(self))

    async def wait_for(self, count: int) -> list[Received]:
        """Wait until this many different events were taken; gives all that were."""
        await self.wait_until(lambda receiver: len(set(receiver.ids())) >= count)
        return list(self.received)

    async def start(self) -> Self:
        """
        Listen.

        Raises:
            TargetError: the port is taken.
        """
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        application.router.add_get("/count", self._count)
        application.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self._wanted_port).start()
        except OSError as error:
            await self.stop()
            raise _port_unusable(self._wanted_port, error) from error
        self._port = self._runner.addresses[0][1]
        if self._ledger_path is not None:
            self._ledger = os.open(self._ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return self

    async def stop(self) -> None:
        """Cut what is in flight and close."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._ledger is not None:
            os.close(self._ledger)
            self._ledger = None
        self._port = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _count(self, request: web.Request) -> web.StreamResponse:
        document = {"requests": len(self.calls), "events": len(self.received)}
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        reason = self._refusal(request, body)
        if reason is not None:
            return await self._answer(request, body, 401, reason=reason)
        events = _events(body)
        if events is None:
            return await self._answer(request, body, 400, reason="the body is neither an event nor a batch of events")
        fault = self.faults.next_for(events)
        if fault is None:
            self._keep(request, events)
            return await self._answer(request, body, 200, b"{}")
        return await self._go_wrong(fault, request, body, events)

    async def _go_wrong(
        self, fault: Fault, request: web.Request, body: bytes, events: list[Mapping[str, Any]]
    ) -> web.StreamResponse:
        failed: list[Mapping[str, Any]] = (
            [event for event in events if fault.matches(event)] if fault.fail_items else []
        )
        if fault.after_work:
            self._keep(request, [event for event in events if event not in failed])
        await fault.pause()
        if fault.drop:
            if request.transport is not None:
                request.transport.abort()
            return await self._answer(request, body, None)
        answer = fault.body or b"{}"
        if failed:
            answer = orjson.dumps({"batchItemFailures": [{"itemIdentifier": event["id"]} for event in failed]})
        return await self._answer(request, body, fault.status or 200, answer, headers=fault.headers)

    def _refusal(self, request: web.Request, body: bytes) -> str | None:
        """Why this request is not authentic, or None."""
        if self._bearer is not None:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._bearer}".encode()):
                return "the bearer token is missing or wrong"
        if not self._verifiers:
            return None
        headers = dict(request.headers)
        return None if any(verify(body, headers) for verify in self._verifiers) else "the signature is missing or wrong"

    def _keep(self, request: web.Request, events: Sequence[Mapping[str, Any]]) -> None:
        now = self._clock.now()
        message_id = request.headers.get("webhook-id", "")
        kept = [Received(str(event["id"]), event, message_id, now) for event in events]
        if self._ledger is not None and kept:
            lines = [_line({"id": one.id, "at": one.at, "event": one.event}) for one in kept]
            # One write and one sync for all of a call: it is acknowledged as a whole.
            os.write(self._ledger, b"".join(lines))
            os.fsync(self._ledger)
        self.received += kept

    async def _answer(
        self,
        request: web.Request,
        body: bytes,
        status: int | None,
        answer: bytes = b"",
        *,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        self.calls.append(Call(status, dict(request.headers), body, reason))
        async with self._changed:
            self._changed.notify_all()
        if reason:
            answer = orjson.dumps({"error": reason})
        return web.Response(status=status or 500, body=answer, content_type="application/json", headers=headers)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger, each with `id`, `at` and `event`; a last line that was cut while written is left out."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [_parsed(line) for line in whole.splitlines()]


@asynccontextmanager
async def counting(port: int = 0) -> AsyncIterator[tuple[str, CountingProtocol.Totals]]:
    """A receiver that verifies nothing, keeps nothing and counts: for benchmarks. Gives its URL and the totals."""
    totals = CountingProtocol.Totals()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(lambda: CountingProtocol(totals), "127.0.0.1", port)
    except OSError as error:
        raise _port_unusable(port, error) from error
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", totals
    finally:
        server.close()


def _verifiers(secrets: Sequence[str]) -> list[Callable[[bytes, Mapping[str, str]], bool]]:
    if not secrets:
        return []
    try:
        # Imported only where it is used: it comes with the extra for local work.
        from standardwebhooks.webhooks import Webhook, WebhookVerificationError  # noqa: PLC0415
    except ImportError as error:
        raise TargetError(
            "the local receiver can't verify signatures: standardwebhooks is not installed",
            remedy="install it with: pip install 'pgbridge[local]'",
        ) from error

    def verifier(secret: str) -> Callable[[bytes, Mapping[str, str]], bool]:
        webhook = Webhook(secret)

        def verify(body: bytes, headers: Mapping[str, str]) -> bool:
            try:
                webhook.verify(body, dict(headers), json_parse=False)
            except (WebhookVerificationError, ValueError):  # ValueError: base64 or commas that are not there
                return False
            return True

        return verify

    return [verifier(secret) for secret in secrets]


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # it is stricter than PostgreSQL's json type: lone surrogates, 1e400
        return json.loads(text)


def _line(entry: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(entry) + b"\n"
    except TypeError:  # a lone surrogate, which it does not write
        return json.dumps(entry).encode() + b"\n"


def _events(body: bytes) -> list[Mapping[str, Any]] | None:
    """One event, `{"Records": [...]}`, or a list of events; None where it is none of them."""
    try:
        document = _parsed(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and isinstance(document.get("Records"), list):
        document = document["Records"]
    events = document if isinstance(document, list) else [document]
    return events if all(isinstance(event, dict) and "id" in event for event in events) else None


def _port_unusable(port: int, error: OSError) -> TargetError:
    return TargetError(
        f"port {port} of 127.0.0.1 can't be used for the local receiver: {error.strerror}",
        remedy="name another one with --port",
    )


async def _serve(receiver: Receiver) -> None:
    async with receiver:
        click.echo(receiver.url)
        await until_told()


async def _serve_counting(port: int) -> None:
    async with counting(port) as (url, totals):
        click.echo(url)
        await until_told()
    click.echo(orjson.dumps(totals.document()))


@click.command(epilog="Example:  python -m bridge.local.receiver --port 8080 --ledger events.jsonl")
@click.option("--port", default=0, show_default="a free one", help="Port on 127.0.0.1.")
@click.option("--ledger", type=click.Path(path_type=Path, dir_okay=False), help="File to append each event to.")
@click.option("--bearer", envvar="PGBRIDGE_RECEIVER_BEARER", show_envvar=True, help="Token to ask for.")
@click.option(
    "--signing-secret",
    "signing_secrets",
    multiple=True,
    envvar="PGBRIDGE_RECEIVER_SIGNING_SECRETS",
    show_envvar=True,
    help="whsec_… to verify signatures with; several during a rotation.",
)
@click.option("--count-only", is_flag=True, help="Verify and keep nothing, only count: for benchmarks.")
def main(
    port: int, ledger: Path | None, bearer: str | None, signing_secrets: tuple[str, ...], *, count_only: bool
) -> None:
    """
    Receive events over HTTP until SIGTERM.

    The first line on stdout is the URL; GET /count there tells how many calls and events came.
    """
    if count_only and (ledger is not None or bearer is not None or signing_secrets):
        raise click.UsageError("--count-only verifies and keeps nothing: leave the other options out")
    try:
        if count_only:
            asyncio.run(_serve_counting(port))
        else:
            receiver = Receiver(bearer=bearer, signing_secrets=signing_secrets, ledger=ledger, port=port)
            asyncio.run(_serve(receiver))
    except (TargetError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
