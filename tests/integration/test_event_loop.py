"""`pgbridge run` has uvloop for its event loop where there is one: what comes of a call is the same under either."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import re
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from bridge.delivery.answer import Answer, Fault, NoAnswer
from bridge.delivery.http_client import HttpClient

uvloop = pytest.importorskip("uvloop", reason="it is not built for this interpreter")

BODY = b"x" * 200_000  # more than a socket takes at once


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate of 127.0.0.1 that nobody vouches for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


def server_context(file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1]))


async def post(act, *, scheme="http", tls=None, trusted=None, timeout_seconds=20.0, calls=1):
    """What calls to a server that does `act` with each connection came to: the last one's outcome."""
    ended = asyncio.Event()
    connections = 0

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        try:
            await act(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            ended.set()

    client = HttpClient()
    if trusted is not None:
        client.use_tls(ssl.create_default_context(cafile=trusted))
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        url = URL(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        for _ in range(calls):
            answer = await client.post(url, {}, BODY, timeout_seconds=timeout_seconds, body_limit=65536)
        await client.close()
        if connections:
            await ended.wait()
    if isinstance(answer, Answer):
        return answer.status, answer.body, connections
    return answer.fault, re.sub(r":\d+", ":PORT", answer.error)


async def answers(reader, writer):
    while True:
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        await writer.drain()


async def answers_anything(reader, writer):
    await request(reader)
    writer.write(b"+OK ready\r\n\r\n")
    await writer.drain()


async def says_nothing(reader, writer):
    await reader.read()  # until the other side gives up


async def hangs_up(reader, writer):
    await request(reader)


async def hangs_up_in_the_answer(reader, writer):
    await request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await writer.drain()


async def speaks_no_tls(reader, writer):
    await reader.readexactly(5)  # the header of the handshake's first record
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def nobody_listens():
    server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client = HttpClient()
    answer = await client.post(URL(f"http://127.0.0.1:{port}/"), {}, BODY, timeout_seconds=20, body_limit=65536)
    await client.close()
    assert isinstance(answer, NoAnswer)
    return answer.fault, answer.error.replace(str(port), "PORT")


CASES = {
    "answered": (lambda _: post(answers, calls=3), (200, b"{}", 1)),
    "answered over TLS": (
        lambda file: post(answers, scheme="https", tls=server_context(file), trusted=file, calls=3),
        (200, b"{}", 1),
    ),
    "no answer in time": (lambda _: post(says_nothing, timeout_seconds=0.2), Fault.TIMEOUT),
    "hung up": (lambda _: post(hangs_up), Fault.DROPPED),
    "hung up in the answer": (lambda _: post(hangs_up_in_the_answer), Fault.DROPPED),
    "no HTTP": (lambda _: post(answers_anything), Fault.GARBLED),
    "nobody listens": (lambda _: nobody_listens(), Fault.UNREACHABLE),
    "a certificate that proves nothing": (
        lambda file: post(says_nothing, scheme="https", tls=server_context(file)),
        Fault.NOT_VERIFIED,
    ),
    "no TLS": (lambda _: post(speaks_no_tls, scheme="https"), Fault.NO_TLS),
}


@pytest.mark.parametrize("case", CASES)
def test_a_call_comes_to_the_same_under_either_loop(case, certificate):
    play, expected = CASES[case]
    outcomes = []
    for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            outcomes.append(runner.run(play(certificate)))
    assert outcomes[0] == outcomes[1]
    assert expected in (outcomes[0], outcomes[0][0])
