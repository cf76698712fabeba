"""HTTP targets against real servers on the loopback interface, the ill-behaved ones included."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import gzip
import hmac
import ipaddress
import re
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from botocore.auth import SigV4Auth as BotocoreSigner
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook, WebhookVerificationError
from yarl import URL

from bridge.clock import SystemClock
from bridge.config import TriggerSettings
from bridge.delivery import http_client
from bridge.delivery.batch_response import Report
from bridge.delivery.factory import build_target
from bridge.delivery.http import HttpTarget
from bridge.delivery.http_client import HttpClient
from bridge.delivery.identity import IdentityKeeper, OAuth2Client, Proofs
from bridge.delivery.outcome import Busy, Delivered, Failed, Misconfigured, Partial, Rejected, TooLarge
from bridge.delivery.target import Invocation
from bridge.errors import SecretUnavailable
from bridge.secret import Secret, SecretResolver
from bridge.testing.clock import ManualClock

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
A, B = "00000000000000AB-0000000000", "00000000000000AB-0000000001"
EVENT = '{"id":"00000000000000AB-0000000000","record":{"name":"Zoë"}}'.encode()


def invocation(body=EVENT, *, ids=(A,), batched=False, attempt=1, message_id="shop-welcome-1"):
    return Invocation("welcome", ids, body, batched, attempt, message_id)


# Servers


class Receiver:
    """An HTTP server that keeps what it received and answers as it is told."""

    def __init__(self):
        self.requests = []
        self.connections = set()
        self.certificates = []
        self.answer = lambda request: web.Response()
        self.url = ""

    async def handle(self, request):
        body = await request.read()
        self.requests.append((request, body))
        self.connections.add(request.transport.get_extra_info("peername"))
        self.certificates.append(request.transport.get_extra_info("peercert"))
        response = self.answer(request)
        return await response if asyncio.iscoroutine(response) else response

    def says(self, status, body=b"", **headers):
        self.answer = lambda request: web.Response(
            status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    @property
    def last(self):
        return self.requests[-1]


@contextlib.asynccontextmanager
async def serving(tls=None, host="127.0.0.1") -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application(client_max_size=2**26)
    application.router.add_route("*", "/{tail:.*}", receiver.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, host, 0, ssl_context=tls).start()
    port = runner.addresses[0][1]
    receiver.url = f"http{'s' if tls else ''}://{'localhost' if tls else host}:{port}/hooks"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver():
    async with serving() as server:
        yield server


class RawServer:
    """A TCP server that reads one request from each connection and then does what `act` does with it."""

    def __init__(self, act):
        self._act = act
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.requests = 0
        self.ended = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *exception):
        self._server.close()
        await self._server.wait_closed()
        await self._idle.wait()

    async def _serve(self, reader, writer):
        self._open += 1
        self._idle.clear()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            )
            await reader.readexactly(length)
            self.requests += 1
            await self._act(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._open -= 1
            self.ended.set()
            if not self._open:
                self._idle.set()


def writes(*parts):
    async def act(reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()

    return act


async def hangs(reader, writer):
    await reader.read()  # until the other side gives up


def target_for(url, *, client=None, clock=None, timeout=5.0, report=Report.IGNORED, aws=None, secrets=None, **proofs):
    client = client or HttpClient()
    clock = clock or SystemClock()
    keeper = IdentityKeeper(Proofs(**proofs), secrets or SecretResolver(), client, clock)
    return HttpTarget(
        url=url, keeper=keeper, client=client, clock=clock, timeout_seconds=timeout, report=report, aws=aws
    )


@contextlib.asynccontextmanager
async def target_at(url, **arguments):
    target = target_for(url, **arguments)
    try:
        yield target
    finally:
        await target.close()


@contextlib.asynccontextmanager
async def configured(**http):
    settings = TriggerSettings.model_validate({"tables": ["public.users"], "target": {"http": http}})
    target = build_target("welcome", settings, SecretResolver())
    try:
        yield target
    finally:
        await target.close()


# What is sent


async def test_the_exact_bytes_arrive_signed_and_with_the_bearer_token(receiver):
    async with configured(url=receiver.url, auth={"bearer": "t0ken"}, signing={"secrets": [SECRET]}) as target:
        assert await target.deliver(invocation()) == Delivered()
    request, body = receiver.last
    assert (request.method, request.path, body) == ("POST", "/hooks", EVENT)
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"].startswith("pgbridge/")
    assert request.headers["webhook-id"] == "shop-welcome-1"
    Webhook(SECRET).verify(body, dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, dict(request.headers))


async def test_each_attempt_has_its_own_timestamp_and_the_same_id(receiver):
    clock = ManualClock(now=time.time())
    async with target_at(receiver.url, clock=clock, signing=[Secret(SECRET)]) as target:
        await target.deliver(invocation())
        clock.advance(100)
        await target.deliver(invocation(attempt=2))
    first, second = (request.headers for request, _ in receiver.requests)
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 100
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]
    Webhook(SECRET).verify(EVENT, dict(second))


async def test_basic_and_other_headers_are_sent_as_configured(receiver):
    async with configured(
        url=receiver.url, auth={"basic": {"username": "jo", "password": "p:ä"}, "headers": {"X-Api-Key": "k"}}
    ) as target:
        await target.deliver(invocation())
    headers = receiver.last[0].headers
    assert headers["Authorization"] == "Basic " + base64.b64encode("jo:p:ä".encode()).decode()
    assert headers["X-Api-Key"] == "k"


async def test_a_large_body_arrives_whole(receiver):
    body = b"[" + b"1234567," * 1_000_000 + b"1]"
    async with target_at(receiver.url, signing=[Secret(SECRET)], timeout=60.0) as target:
        assert await target.deliver(invocation(body)) == Delivered()
    request, received = receiver.last
    assert received == body
    assert request.headers["Content-Length"] == str(len(body))
    Webhook(SECRET).verify(received, dict(request.headers), json_parse=False)


async def test_one_connection_serves_one_call_after_another(receiver):
    async with target_at(receiver.url) as target:
        for _ in range(20):
            assert await target.deliver(invocation()) == Delivered()
    assert len(receiver.requests) == 20
    assert len(receiver.connections) == 1


async def test_calls_fly_at_once_and_wait_for_none_of_the_others(receiver):
    together = asyncio.Barrier(150)  # only passes when all are in flight

    async def meet(request):
        await together.wait()
        return web.Response()

    receiver.answer = meet
    async with target_at(receiver.url, timeout=10.0) as target:
        outcomes = await asyncio.gather(*(target.deliver(invocation()) for _ in range(150)))
        await together.abort()
    assert outcomes == [Delivered()] * 150


async def test_proxies_of_the_environment_and_cookies_are_not_used(receiver, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    receiver.says(200, Set_Cookie="seen=1; Path=/")
    async with target_at(receiver.url) as target:
        await target.deliver(invocation())
        await target.deliver(invocation())
    assert "Cookie" not in receiver.last[0].headers


# What comes back


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *[(status, Delivered) for status in (200, 201, 202, 204)],
        *[(status, Misconfigured) for status in (401, 403, 404, 410)],
        *[(status, Rejected) for status in (400, 402, 405, 406, 409, 415, 418, 422, 426, 451)],
        *[(status, Failed) for status in (304, 408, 425, 500, 501, 502, 503, 504, 529)],
        (413, TooLarge),
        (429, Busy),
    ],
)
async def test_statuses_come_back_as_their_classes(receiver, status, expected):
    receiver.says(status)
    async with target_at(receiver.url) as target:
        assert type(await target.deliver(invocation())) is expected
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (429, "7", Busy),
        (503, "7", Busy),
        (503, "Sun, 06 Nov 1994 08:49:37 GMT", Busy),
        (503, "whenever", Failed),
        (500, "7", Failed),
        (408, "7", Failed),
        (404, "7", Misconfigured),
        (400, "7", Rejected),
    ],
)
async def test_retry_after_makes_a_503_busy_and_is_kept_where_there_is_another_attempt(
    receiver, status, retry_after, expected
):
    receiver.says(status, Retry_After=retry_after)
    async with target_at(receiver.url) as target:
        outcome = await target.deliver(invocation())
    assert type(outcome) is expected
    if isinstance(outcome, Busy | Failed):
        assert outcome.retry_after_seconds == {"7": 7.0, "whenever": None}.get(retry_after, 0.0)


@pytest.mark.parametrize(
    ("status", "steer", "disable", "expected"),
    [
        (410, "", True, Misconfigured),
        (500, "disable", True, Misconfigured),
        (500, "abort-message", None, Rejected),
        (500, " Disable ", True, Misconfigured),
        (500, "dance", None, Failed),
        (401, "", False, Misconfigured),
        (200, "disable", None, Delivered),
    ],
)
async def test_a_receiver_may_end_its_deliveries_or_those_of_one_message(receiver, status, steer, disable, expected):
    receiver.says(status, Webhook_Delivery=steer)
    async with target_at(receiver.url) as target:
        outcome = await target.deliver(invocation())
    assert type(outcome) is expected
    assert getattr(outcome, "disable", None) is disable


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(receiver, status):
    async with serving() as elsewhere:
        receiver.says(status, Location=elsewhere.url)
        async with target_at(receiver.url, bearer=Secret("t0ken")) as target:
            outcome = await target.deliver(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.evidence.error == f"HTTP {status} (redirects are not followed)"
    assert elsewhere.requests == []


async def test_a_batch_may_name_its_failed_records(receiver):
    receiver.says(200, orjson.dumps({"batchItemFailures": [{"itemIdentifier": B}]}))
    async with target_at(receiver.url, report=Report.EXPECTED) as target:
        outcome = await target.deliver(invocation(b"{}", ids=(A, B), batched=True))
        assert outcome == Partial(frozenset({B}), outcome.evidence)
        assert await target.deliver(invocation(ids=(B,))) == Delivered()


async def test_a_report_of_ten_thousand_failures_is_read_whole(receiver):
    ids = [f"00000000000000AB-{ordinal:010d}" for ordinal in range(10_000)]
    report = orjson.dumps(
        {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in ids]}, option=orjson.OPT_INDENT_2
    )
    receiver.says(200, report)
    async with target_at(receiver.url, report=Report.EXPECTED) as target:
        outcome = await target.deliver(invocation(b"{}", ids=ids, batched=True))
    assert isinstance(outcome, Partial)
    assert len(outcome.failed_ids) == 10_000


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Delivered),
        ({"function_response_types": ["ReportBatchItemFailures"]}, Failed),
        ({"function_response_types": []}, Delivered),
    ],
)
async def test_an_ok_that_is_no_report_fails_only_where_a_report_was_promised(receiver, settings, expected):
    receiver.says(200, b"OK")
    trigger = TriggerSettings.model_validate(
        {"tables": ["public.users"], "target": {"http": {"url": receiver.url, "batch": True}}, **settings}
    )
    target = build_target("welcome", trigger, SecretResolver())
    try:
        assert type(await target.deliver(invocation(b"{}", batched=True))) is expected
    finally:
        await target.close()


# Servers that misbehave


async def test_a_server_that_hangs_is_a_timeout():
    async with RawServer(hangs) as server, target_at(server.url, timeout=0.2) as target:
        outcome = await target.deliver(invocation())
        assert isinstance(outcome, Failed)
        assert outcome.evidence.error == "timeout after 0.2 s"
        await server.ended.wait()  # we hung up


async def test_a_server_that_hangs_in_the_middle_of_its_body_is_a_timeout():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"

    async def act(reader, writer):
        await writes(head)(reader, writer)
        await hangs(reader, writer)

    async with RawServer(act) as server, target_at(server.url, timeout=0.2) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.evidence.error == "timeout after 0.2 s"


async def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_call():
    release = asyncio.Event()

    async def act(reader, writer):
        await release.wait()
        await writes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(reader, writer)

    async with RawServer(act) as server, target_at(server.url, timeout=0.2) as target:
        assert isinstance(await target.deliver(invocation()), Failed)
        release.set()
        assert await target.deliver(invocation()) == Delivered()
        assert server.requests == 2


async def test_a_connection_dropped_before_the_answer_is_a_failure_and_is_not_repeated():
    async with RawServer(writes()) as server, target_at(server.url) as target:
        outcome = await target.deliver(invocation())
        assert isinstance(outcome, Failed)
        assert "closed the connection without an answer" in outcome.evidence.error
        assert server.requests == 1


async def test_a_reused_connection_that_drops_is_not_repeated_behind_the_caller_s_back():
    async def act(reader, writer):
        await writes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(reader, writer)
        await reader.readuntil(b"\r\n\r\n")  # the second request on this connection
        writer.transport.abort()

    async with RawServer(act) as server, target_at(server.url) as target:
        assert await target.deliver(invocation()) == Delivered()
        assert isinstance(await target.deliver(invocation()), Failed)
        assert server.requests == 1


async def test_a_success_that_breaks_off_is_no_success():
    async with (
        RawServer(writes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")) as server,
        target_at(server.url) as target,
    ):
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Failed)
    assert "broke off" in outcome.evidence.error


async def test_a_refusal_that_breaks_off_is_still_that_refusal():
    async with (
        RawServer(writes(b"HTTP/1.1 422 No\r\nContent-Length: 100\r\n\r\nhalf")) as server,
        target_at(server.url) as target,
    ):
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Rejected)
    assert outcome.evidence.error == "HTTP 422"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnot a chunk\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: banana\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\0\xff\0\xff" * 100,
    ],
)
async def test_garbage_is_a_failure(answer):
    async with RawServer(writes(answer)) as server, target_at(server.url) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Failed)
    assert "hello" not in outcome.evidence.error


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oops"])
async def test_an_endless_answer_is_read_to_its_limit_and_no_further(status):
    sent = 0

    async def act(reader, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 1000000000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with RawServer(act) as server, target_at(server.url) as target:
        outcome = await target.deliver(invocation())
        await server.ended.wait()
    assert type(outcome) is (Delivered if status == b"200 OK" else Failed)
    assert sent < 20_000_000  # what the kernel's buffers took, and not a gigabyte
    assert len(outcome.evidence.detail) < 5000


async def test_a_refusal_sent_before_the_body_was_read_arrives():
    hung_up = asyncio.Event()

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        while await reader.read(65536):
            pass
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with target_at(f"http://127.0.0.1:{port}/") as target:
            outcome = await target.deliver(invocation(b"x" * 3_000_000))
        await hung_up.wait()
    assert isinstance(outcome, TooLarge)


async def test_a_port_that_nobody_listens_on_is_a_failure():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        port = taken.getsockname()[1]
        async with target_at(f"http://127.0.0.1:{port}/") as target:
            outcome = await target.deliver(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.unsent
    assert outcome.evidence.error == f"no connection to 127.0.0.1:{port}: connection refused"


@pytest.mark.parametrize("last_words", [b"", b"\x15\x03\x03\x00\x02\x01\x00"], ids=["EOF", "close_notify"])
async def test_a_server_that_hangs_up_while_tls_begins_has_seen_nothing_of_the_call(last_words):
    async def refuse(reader, writer):
        await reader.readexactly(5)  # the record's header: the client has begun the handshake
        writer.write(last_words)
        writer.write_eof()
        await hangs(reader, writer)
        writer.close()
        hung_up.set()

    hung_up = asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, target_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as target:
        outcome = await target.deliver(invocation())
        await hung_up.wait()
    assert isinstance(outcome, Failed)
    assert outcome.unsent
    assert "closed the connection during TLS" in outcome.evidence.error or "cut off" in outcome.evidence.error


async def test_a_call_that_is_cancelled_hangs_up():
    called = asyncio.Event()

    async def act(reader, writer):
        called.set()
        await hangs(reader, writer)

    async with RawServer(act) as server, target_at(server.url) as target:
        call = asyncio.create_task(target.deliver(invocation()))
        await called.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.ended.wait()


# Addresses


class Resolver(AbstractResolver):
    """Answers each lookup with the next of its answers, the last one for ever."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = []

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in answer
        ]

    async def close(self):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://169.254.170.2/v2/credentials",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://224.0.0.1/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://169.254.43518/",
        "http://0251.0376.0251.0376/",
    ],
)
async def test_a_forbidden_address_in_the_url_is_not_called_however_it_is_written(url):
    async with target_at(url) as target:
        outcome = await target.deliver(invocation())
        (finding,) = await target.check()
    assert isinstance(outcome, Misconfigured)
    assert "is not called" in outcome.evidence.error
    assert outcome.remedy
    assert not finding.ok
    assert finding.remedy


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "127.0.0.1", "::1", "0.0.0.0"]
)
async def test_a_name_that_stands_for_a_forbidden_address_is_not_called(receiver, address):
    port = URL(receiver.url).port
    resolver = Resolver([address])
    async with target_at(f"http://hooks.example.com:{port}/", client=HttpClient(resolver=resolver)) as target:
        outcome = await target.deliver(invocation())
        (finding,) = await target.check()
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error.startswith("hooks.example.com is not called: its address is")
    assert not finding.ok
    assert receiver.requests == []


async def test_a_name_that_is_bound_anew_between_two_calls_gains_nothing(receiver):
    port = URL(receiver.url).port
    client = HttpClient(resolver=Resolver(["127.0.0.1"], ["169.254.169.254"]))
    receiver.says(200, Connection="close")
    async with target_at(f"http://hooks.localhost:{port}/", client=client) as target:
        assert await target.deliver(invocation()) == Delivered()
        client._session.connector.clear_dns_cache()
        assert isinstance(await target.deliver(invocation()), Misconfigured)


async def test_only_the_allowed_addresses_of_a_name_are_called(receiver):
    port = URL(receiver.url).port
    client = HttpClient(resolver=Resolver(["169.254.169.254", "127.0.0.1"]))
    async with target_at(f"http://hooks.localhost:{port}/", client=client) as target:
        assert await target.deliver(invocation()) == Delivered()


async def test_localhost_is_called_by_its_name(receiver):
    port = URL(receiver.url).port
    async with target_at(f"http://localhost:{port}/") as target:
        assert await target.deliver(invocation()) == Delivered()


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), Misconfigured, "there is no host nowhere.example.com"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), Failed, "the name nowhere.example.com can't be resolved now"),
        (UnicodeError("label too long"), Misconfigured, "there is no host nowhere.example.com"),
    ],
)
async def test_a_host_that_does_not_exist_is_a_fault_of_the_settings_and_a_silent_resolver_is_not(
    error, expected, text
):
    async with target_at("http://nowhere.example.com/", client=HttpClient(resolver=Resolver(error))) as target:
        outcome = await target.deliver(invocation())
    assert type(outcome) is expected
    assert outcome.evidence.error == text


# Secrets


async def test_a_rotated_secret_is_taken_up_without_a_charge_or_a_restart(receiver, tmp_path):
    file = tmp_path / "token"
    file.write_text("old\n")
    receiver.answer = lambda request: web.Response(
        status=200 if request.headers["Authorization"] == "Bearer new" else 401
    )
    async with target_at(receiver.url, bearer=Secret(f"file:{file}")) as target:
        assert isinstance(await target.deliver(invocation()), Misconfigured)  # refused, and the file says the same
        file.write_text("new\n")
        client_side = target._keeper
        client_side._renewed_at = None  # as if the pause between two renewals were over
        outcome = await target.deliver(invocation())
        assert isinstance(outcome, Busy)
        assert outcome.evidence.error == "HTTP 401, and the credentials are others by now"
        assert await target.deliver(invocation()) == Delivered()


async def test_a_rotated_signing_secret_is_taken_up(receiver, tmp_path):
    file = tmp_path / "secret"
    file.write_text(OTHER)

    async def verify(request):
        try:
            Webhook(SECRET).verify(await request.read(), dict(request.headers))
        except WebhookVerificationError:
            return web.Response(status=403)
        return web.Response()

    receiver.answer = verify
    async with target_at(receiver.url, signing=[Secret(f"file:{file}")]) as target:
        await target._keeper.identity()
        file.write_text(SECRET)
        assert isinstance(await target.deliver(invocation()), Busy)
        assert await target.deliver(invocation()) == Delivered()


async def test_many_refused_calls_fetch_the_secret_once(receiver, tmp_path):
    class Counting(SecretResolver):
        fresh = 0

        async def fetch(self, secret, *, fresh=False):
            self.fresh += fresh
            return "wrong"

    receiver.says(401)
    secrets = Counting()
    async with target_at(receiver.url, bearer=Secret("file:/x"), secrets=secrets) as target:
        outcomes = await asyncio.gather(*(target.deliver(invocation()) for _ in range(20)))
    assert {type(outcome) for outcome in outcomes} == {Misconfigured}
    assert secrets.fresh == 1


async def test_calls_refused_with_a_secret_that_another_one_replaced_meanwhile_are_not_at_fault(receiver, tmp_path):
    file = tmp_path / "token"
    file.write_text("old")
    receiver.answer = lambda request: web.Response(
        status=200 if request.headers["Authorization"] == "Bearer new" else 401
    )
    async with target_at(receiver.url, bearer=Secret(f"file:{file}")) as target:
        await target._keeper.identity()
        file.write_text("new")
        outcomes = await asyncio.gather(*(target.deliver(invocation()) for _ in range(5)))
        assert {type(outcome) for outcome in outcomes} == {Busy}
        assert await target.deliver(invocation()) == Delivered()


async def test_a_secret_that_can_not_be_read_is_a_fault_of_the_settings_and_calls_nobody(receiver, tmp_path):
    async with target_at(receiver.url, bearer=Secret(f"file:{tmp_path}/none")) as target:
        outcome = await target.deliver(invocation())
        findings = await target.check()
    assert isinstance(outcome, Misconfigured)
    assert "can't be read" in outcome.evidence.error
    assert outcome.remedy
    assert [finding.ok for finding in findings] == [False, True]
    assert receiver.requests == []


async def test_a_store_of_secrets_that_is_down_charges_nobody(receiver):
    class Down(SecretResolver):
        async def fetch(self, secret, *, fresh=False):
            raise SecretUnavailable("the secret ssm:/x can't be read now: ThrottlingException")

    async with target_at(receiver.url, bearer=Secret("ssm:/x"), secrets=Down()) as target:
        assert isinstance(await target.deliver(invocation()), Busy)


@pytest.mark.parametrize("text", ["two\nlines", "nul\0", "cr\rlf"])
async def test_a_secret_that_no_header_can_hold_is_refused_without_showing_it(receiver, tmp_path, text):
    file = tmp_path / "token"
    file.write_bytes(text.encode())
    async with target_at(receiver.url, bearer=Secret(f"file:{file}")) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error == "the secret for the header Authorization holds a line break"
    assert receiver.requests == []


async def test_a_signing_secret_that_can_not_sign_is_refused_without_showing_it(receiver, tmp_path):
    file = tmp_path / "secret"
    file.write_text("whsec_%%%hunter2")
    async with target_at(receiver.url, signing=[Secret(f"file:{file}")]) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error == "signing secret 1 is not base64 after its prefix"


# OAuth 2.0


class TokenServer:
    """Hands out numbered tokens; the newest is the only good one."""

    def __init__(self, receiver):
        self.receiver = receiver
        self.forms = []
        self.answer = lambda: web.json_response(
            {"access_token": f"t{len(self.forms)}", "token_type": "Bearer", "expires_in": 3600}
        )
        self.good = None
        receiver.answer = self.handle

    async def handle(self, request):
        if request.path == "/token":
            self.forms.append((request.headers["Authorization"], dict(await request.post())))
            return self.answer()
        good = self.good or f"t{len(self.forms)}"
        return web.Response(status=200 if request.headers.get("Authorization") == f"Bearer {good}" else 401)

    def client(self):
        return OAuth2Client(URL(self.receiver.url).with_path("/token"), "my client", Secret("s&cret"), "read write")


async def test_a_token_is_fetched_once_and_used_until_it_ends(receiver):
    tokens = TokenServer(receiver)
    clock = ManualClock()
    async with target_at(receiver.url, clock=clock, oauth2=tokens.client()) as target:
        for _ in range(3):
            assert await target.deliver(invocation()) == Delivered()
        assert len(tokens.forms) == 1
        clock.advance(3539)
        assert await target.deliver(invocation()) == Delivered()
        assert len(tokens.forms) == 1
        clock.advance(1)
        assert await target.deliver(invocation()) == Delivered()
        assert len(tokens.forms) == 2
    authorization, form = tokens.forms[0]
    assert authorization == "Basic " + base64.b64encode(b"my+client:s%26cret").decode()
    assert form == {"grant_type": "client_credentials", "scope": "read write"}


async def test_calls_that_begin_together_fetch_one_token(receiver):
    tokens = TokenServer(receiver)
    async with target_at(receiver.url, oauth2=tokens.client()) as target:
        outcomes = await asyncio.gather(*(target.deliver(invocation()) for _ in range(20)))
    assert outcomes == [Delivered()] * 20
    assert len(tokens.forms) == 1


async def test_a_revoked_token_is_replaced_and_a_client_that_is_never_let_in_is_misconfigured(receiver):
    tokens = TokenServer(receiver)
    clock = ManualClock()
    async with target_at(receiver.url, clock=clock, oauth2=tokens.client()) as target:
        assert await target.deliver(invocation()) == Delivered()
        tokens.good = "t2"
        assert isinstance(await target.deliver(invocation()), Busy)
        assert await target.deliver(invocation()) == Delivered()
        tokens.good = "none"
        clock.advance(10)
        assert isinstance(await target.deliver(invocation()), Busy)
        for _ in range(3):
            clock.advance(10)
            assert isinstance(await target.deliver(invocation()), Misconfigured)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda: web.Response(status=503, headers={"Retry-After": "9"}), Busy),
        (lambda: web.Response(status=429), Busy),
        (lambda: web.json_response({"error": "invalid_client"}, status=401), Misconfigured),
        (lambda: web.json_response({"error": "invalid_scope"}, status=400), Misconfigured),
        (lambda: web.Response(text="<html>"), Misconfigured),
        (lambda: web.json_response({"token": "x"}), Misconfigured),
        (lambda: web.json_response([]), Misconfigured),
    ],
)
async def test_records_are_never_charged_for_a_token_that_can_not_be_had(receiver, answer, expected):
    tokens = TokenServer(receiver)
    tokens.answer = answer
    async with target_at(receiver.url, oauth2=tokens.client()) as target:
        outcome = await target.deliver(invocation())
    assert type(outcome) is expected
    assert outcome.evidence.error.startswith("token endpoint: HTTP")


async def test_a_token_endpoint_that_is_away_charges_nobody(receiver):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        oauth2 = OAuth2Client(URL(f"http://127.0.0.1:{taken.getsockname()[1]}/"), "me", Secret("x"))
        async with target_at(receiver.url, oauth2=oauth2) as target:
            outcome = await target.deliver(invocation())
    assert isinstance(outcome, Busy)
    assert outcome.evidence.error.startswith("token endpoint: no connection to")


# SigV4


async def test_a_request_is_signed_for_iam(receiver, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    async with configured(
        url=receiver.url + "/a%20b?x=1&a=%2F", auth={"sigv4": {"service": "lambda", "region": "eu-west-1"}}
    ) as target:
        assert await target.deliver(invocation()) == Delivered()
    request, body = receiver.last
    stamp = dt.datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: stamp)
    again = AWSRequest(
        "POST",
        f"http://{request.headers['Host']}{request.raw_path}",
        headers={"Content-Type": request.headers["Content-Type"]},
        data=body,
    )
    BotocoreSigner(Credentials("AKIDEXAMPLE", "secret", "session"), "lambda", "eu-west-1").add_auth(again)
    assert request.headers["Authorization"] == again.headers["Authorization"]
    assert request.headers["X-Amz-Security-Token"] == "session"


# TLS


class Authority:
    """A certificate authority of one's own, for certificates good and bad."""

    def __init__(self, folder):
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Authority of {folder.name}")])
        certificate = self._sign(self._name, self._key, days=1, ca=True)
        self.bundle = folder / "authority.pem"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, host="localhost", days=1.0):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        file = self.folder / f"{host}-{days}.pem"
        file.write_bytes(
            self._sign(name, key, days=days, host=host).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(self, name, key, *, days, host=None, ca=False):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=10))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if host is not None:
            alternative = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """An authority that this process trusts for the test."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    http_client._shared_tls_context.cache_clear()
    yield authority
    http_client._shared_tls_context.cache_clear()


async def test_a_certificate_of_a_trusted_authority_is_accepted(authority):
    async with serving(authority.server()) as receiver, target_at(receiver.url) as target:
        assert await target.deliver(invocation()) == Delivered()
        (finding,) = await target.check()
        assert finding.ok
        assert "over TLSv1.3, certificate good until" in finding.what
        assert finding.remedy == "renew the endpoint's certificate"  # it is good for one day
        assert len(receiver.requests) == 1  # check sent nothing


@pytest.mark.parametrize(
    ("host", "days", "words"),
    [("other.example.com", 1, "Hostname mismatch"), ("localhost", -1, "expired")],
)
async def test_a_certificate_that_proves_nothing_is_refused_before_anything_is_sent(authority, host, days, words):
    async with serving(authority.server(host, days)) as receiver, target_at(receiver.url) as target:
        outcome = await target.deliver(invocation())
        (finding,) = await target.check()
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error.startswith("TLS certificate of localhost is not valid: ")
    assert words in outcome.evidence.error
    assert outcome.remedy
    assert not finding.ok
    assert receiver.requests == []


async def test_an_authority_that_becomes_trusted_is_trusted_without_a_restart(authority, tmp_path_factory, monkeypatch):
    other = Authority(tmp_path_factory.mktemp("other"))
    async with serving(other.server()) as receiver, target_at(receiver.url) as target:
        assert isinstance(await target.deliver(invocation()), Misconfigured)
        authority.bundle.write_bytes(authority.bundle.read_bytes() + other.bundle.read_bytes())
        target._trust_renewed_at = None  # as if the pause between two renewals were over
        assert isinstance(await target.deliver(invocation()), Misconfigured)
        assert await target.deliver(invocation()) == Delivered()


async def test_tls_to_a_port_that_does_not_speak_it_is_a_fault_of_the_settings(receiver):
    url = URL(receiver.url).with_scheme("https")
    async with target_at(str(url)) as target:
        outcome = await target.deliver(invocation())
        (finding,) = await target.check()
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error.startswith(f"TLS with 127.0.0.1:{url.port} failed: ")
    assert not finding.ok


async def test_a_server_that_wants_a_client_certificate_is_a_fault_of_the_settings(authority):
    context = authority.server()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3 the server says so only behind the handshake
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)

    def refuse(listening):
        connection, _ = listening.accept()
        with connection, pytest.raises(ssl.SSLError, match=r"PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            context.wrap_socket(connection, server_side=True)

    # Not asyncio's server, which cuts the connection before OpenSSL's last word is out.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        refusal = asyncio.create_task(asyncio.to_thread(refuse, listening))
        async with target_at(f"https://localhost:{listening.getsockname()[1]}/") as target:
            outcome = await target.deliver(invocation())
        await refusal
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error.endswith("failed: SSLV3_ALERT_HANDSHAKE_FAILURE")
    assert "client certificate" in outcome.remedy


@pytest.fixture
def client_files(authority):
    """Certificate and key of a client, in one file and in two."""
    authority.server("client")
    both = authority.folder / "client-1.0.pem"
    end = both.read_text().index("-----BEGIN PRIVATE KEY")
    (authority.folder / "client.crt").write_text(both.read_text()[:end])
    (authority.folder / "client.key").write_text(both.read_text()[end:])
    return authority.folder


def asking_for_a_certificate(authority):
    context = authority.server()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    return context


@pytest.mark.parametrize(
    "files", [{"certificate": "client-1.0.pem"}, {"certificate": "client.crt", "key": "client.key"}]
)
async def test_a_client_certificate_is_shown_to_who_asks_for_it(authority, client_files, files, tmp_path, monkeypatch):
    (copies := tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    tls = {name: f"file:{client_files / file}" for name, file in files.items()}
    async with (
        serving(asking_for_a_certificate(authority)) as receiver,
        configured(url=receiver.url, tls=tls) as target,
    ):
        assert await target.deliver(invocation()) == Delivered()
        assert all(finding.ok for finding in await target.check())
    assert receiver.certificates[-1]["subject"] == ((("commonName", "client"),),)
    assert not list(copies.iterdir()), "the key's copy is gone"


async def test_authorities_of_the_settings_are_trusted_besides_the_machines(tmp_path):
    private = Authority(tmp_path)
    async with serving(private.server()) as receiver:
        async with configured(url=receiver.url, tls={"authorities": private.bundle.read_text()}) as target:
            assert await target.deliver(invocation()) == Delivered()
        async with configured(url=receiver.url) as target:
            assert isinstance(await target.deliver(invocation()), Misconfigured)


async def test_a_certificate_that_was_renewed_is_used_without_a_restart(authority, client_files, tmp_path_factory):
    file = tmp_path_factory.mktemp("certificate") / "client.pem"
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    stranger.server("client")
    file.write_text((stranger.folder / "client-1.0.pem").read_text())
    async with (
        serving(asking_for_a_certificate(authority)) as receiver,
        configured(url=receiver.url, tls={"certificate": f"file:{file}"}) as target,
    ):
        assert not isinstance(await target.deliver(invocation()), Delivered)
        file.write_text((client_files / "client-1.0.pem").read_text())
        target._trust_renewed_at = None
        for _ in range(3):
            outcome = await target.deliver(invocation())
        assert outcome == Delivered()


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("client.crt", None, "tls.certificate can't be used with its key"),
        ("client.crt", "localhost-1.0.pem", "tls.certificate can't be used with its key"),
        ("missing.pem", None, "can't be read"),
    ],
)
async def test_a_certificate_without_its_key_is_a_fault_of_the_settings(
    authority, client_files, certificate, key, words
):
    authority.server()
    tls = {"certificate": f"file:{client_files / certificate}"}
    tls |= {} if key is None else {"key": f"file:{client_files / key}"}
    async with configured(url="https://localhost:1/", tls=tls) as target:
        outcome = await target.deliver(invocation())
        findings = await target.check()
    assert isinstance(outcome, Misconfigured)
    assert words in outcome.evidence.error
    assert words in findings[-2].what
    assert not findings[-2].ok


async def test_an_encrypted_key_is_refused_and_no_password_asked_for(authority, client_files):
    key = serialization.load_pem_private_key((client_files / "client.key").read_bytes(), None)
    (client_files / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    tls = {"certificate": f"file:{client_files / 'client.crt'}", "key": f"file:{client_files / 'locked.key'}"}
    async with configured(url="https://localhost:1/", tls=tls) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Misconfigured)


# gzip and tracing


@pytest.mark.parametrize("size", [0, 200_000])
async def test_a_compressed_body_reads_back_and_is_what_was_signed(receiver, size):
    large = EVENT[:-1] + b',"text":"' + b"x" * size + b'"}'
    async with configured(url=receiver.url, compression="gzip", signing={"secrets": [SECRET]}) as target:
        assert await target.deliver(invocation(large)) == Delivered()
        assert await target.deliver(invocation(large, attempt=2)) == Delivered()
    request, body = receiver.last
    assert request.headers["Content-Encoding"] == "gzip"
    assert body == large  # aiohttp's server has unpacked it
    assert receiver.requests[0][1] == body


async def test_the_signature_covers_the_compressed_bytes():
    seen = {}

    async def act(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    class Keeping(RawServer):
        async def _serve(self, reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")[1:]
            seen["headers"] = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)}
            seen["body"] = await reader.readexactly(int(seen["headers"]["content-length"]))
            await act(reader, writer)
            writer.close()

    async with (
        Keeping(act) as server,
        configured(url=server.url, compression="gzip", signing={"secrets": [SECRET]}) as target,
    ):
        assert await target.deliver(invocation()) == Delivered()
    assert gzip.decompress(seen["body"]) == EVENT
    signed = f"{seen['headers']['webhook-id']}.{seen['headers']['webhook-timestamp']}.".encode() + seen["body"]
    wanted = base64.b64encode(hmac.digest(bytes(range(32)), signed, "sha256")).decode()
    assert seen["headers"]["webhook-signature"] == f"v1,{wanted}"


async def test_each_request_has_a_traceparent_of_its_own_unless_turned_off(receiver):
    async with configured(url=receiver.url) as target:
        await target.deliver(invocation())
        await target.deliver(invocation())
    first, second = (request.headers["traceparent"] for request, _ in receiver.requests)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert first != second
    async with configured(url=receiver.url, trace_headers=False) as target:
        await target.deliver(invocation())
    assert "traceparent" not in receiver.last[0].headers


# check


async def test_check_says_what_works_and_sends_nothing(receiver):
    async with configured(url=receiver.url, auth={"bearer": "t"}, signing={"secrets": [SECRET]}) as target:
        findings = await target.check()
    assert all(finding.ok for finding in findings)
    port = URL(receiver.url).port
    assert [finding.what for finding in findings] == [
        "the target's secrets can be read",
        f"127.0.0.1 answers at 127.0.0.1, port {port}, over plain HTTP",
    ]
    assert receiver.requests == []


async def test_check_looks_at_the_token_endpoint_as_well_and_asks_it_for_nothing(receiver):
    tokens = TokenServer(receiver)
    async with target_at(receiver.url, oauth2=tokens.client()) as target:
        findings = await target.check()
    assert [finding.ok for finding in findings] == [True, True, True]
    assert receiver.requests == []


async def test_check_names_a_port_that_nobody_listens_on():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with target_at(f"http://127.0.0.1:{taken.getsockname()[1]}/") as target:
            (finding,) = await target.check()
    assert not finding.ok
    assert "connection refused" in finding.what
    assert finding.remedy


async def test_closing_twice_and_closing_unused_are_harmless(receiver):
    target = target_for(receiver.url)
    await target.close()
    await target.deliver(invocation())
    await target.close()
    await target.close()
