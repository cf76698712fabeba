"""
The one place that makes HTTP calls to targets, on aiohttp: one POST in, an `Answer` or a `NoAnswer` out.

It promises: the address connected to was judged (`addresses.py`), whatever the name resolved to before or will later;
no redirect is followed, no proxy of the environment used, no cookie kept; a POST is sent once; the whole exchange ends
within its limit; no more of the answer is read than was asked for. aiohttp's errors end here.

Each target has a client of its own, so that no trigger waits for, or is cut off by, another one's connections.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bridge.delivery.addresses import is_loopback_host, why_refused
from bridge.delivery.answer import Answer, Fault, NoAnswer

CONNECT_SECONDS: Final = 10.0
"""To connect and to shake hands, for each address. Kernels retransmit a SYN after 1, 3 and 7 s: three chances."""

_KEEP_SECONDS: Final = 15.0
_DNS_SECONDS: Final = 10
_SLICE_BYTES: Final = 1024 * 1024
_HEADER_BYTES: Final = 32 * 1024
"""Lambda's log tail alone is 5.5 KB of header; others' tracing and policy headers are larger than aiohttp's 8 KB."""

# A function may work for 15 minutes in silence, and NAT gateways forget a silent connection after 350 s.
_KEEPALIVE_PROBES: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 5))


class AddressRefused(Exception):
    """Raised through aiohttp, which must not take it for one more address that did not answer; so no OSError."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} is not called: its address is {reason}")


class GuardedResolver(AbstractResolver):
    """Resolves as the machine does, less the addresses that are never called."""

    def __init__(self, resolver: AbstractResolver, *, loopback_by_any_name: bool) -> None:
        self._resolver = resolver
        self._loopback_by_any_name = loopback_by_any_name

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """
        The addresses that may be called.

        Raises:
            AddressRefused: there are addresses, and none of them may be.
            OSError: the resolver's own.
        """
        try:
            found = await self._resolver.resolve(host, port, family)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        loopback_allowed = self._loopback_by_any_name or is_loopback_host(host)
        allowed = []
        reason = "missing"
        for result in found:
            refused = why_refused(result["host"], loopback_allowed=loopback_allowed)
            if refused is None:
                allowed.append(result)
            else:
                reason = refused
        if not allowed:
            raise AddressRefused(host, reason)
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


@dataclass(frozen=True, slots=True)
class Handshake:
    """A connection that was made and closed again."""

    address: str
    tls_version: str | None
    """`TLSv1.3`; None over plain HTTP."""
    certificate_expires: float | None
    """Seconds since 1970."""


class HttpClient:
    """
    A pool of connections for one target.

    How many calls are made at once is the caller's affair; there is no limit here. The pool is opened by the first
    call, in the event loop of that call.
    """

    def __init__(self, *, loopback_by_any_name: bool = False, resolver: AbstractResolver | None = None) -> None:
        """
        Make a client without opening anything.

        Args:
            loopback_by_any_name: let names other than `localhost` stand for this machine: for endpoints that the
                operator chose, and no one else could have.
            resolver: in place of the machine's own.
        """
        self._loopback_by_any_name = loopback_by_any_name
        self._inner_resolver = resolver
        self._resolver: GuardedResolver | None = None
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None

    async def post(
        self, url: URL, headers: Mapping[str, str], body: bytes, *, timeout_seconds: float, body_limit: int
    ) -> Answer | NoAnswer:
        """
        Send one request, once.

        Args:
            url: absolute; already encoded, as it is sent as it stands.
            headers: all of them but Host and Content-Length.
            body: sent as it stands.
            timeout_seconds: for everything, from resolving the name to the last byte of the answer.
            body_limit: bytes of the answer's body that are wanted; a longer one is cut, and its connection closed.
        """
        received: Answer | None = None
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._open().post(
                    url,
                    data=body if len(body) <= _SLICE_BYTES else _slices(body),
                    headers=headers if len(body) <= _SLICE_BYTES else {**headers, "Content-Length": str(len(body))},
                    allow_redirects=False,
                    ssl=self._tls_for(url) or True,
                ) as response,
            ):
                received = Answer(response.status, response.headers, b"", whole=False)
                content, whole = await _read(response, body_limit)
                return Answer(response.status, response.headers, content, whole)
        except (aiohttp.ClientError, AddressRefused, OSError) as error:
            if received is not None and not 200 <= received.status < 300:
                return received  # the status says enough; its explanation broke off
            return _no_answer(error, url, timeout_seconds)

    async def handshake(self, url: URL, *, timeout_seconds: float = CONNECT_SECONDS) -> Handshake | NoAnswer:
        """Connect as a call would, over TLS where the URL asks for it; nothing is sent."""
        host, port = url.raw_host or "", url.port or 0
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._shake_hands(url, host.rstrip("."), port)
        except (AddressRefused, OSError) as error:
            return _no_answer(error, url, timeout_seconds)

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Make connections from now on with this context."""
        self._tls = context

    async def renew_trust(self) -> None:
        """Read the machine's certificate authorities again, for connections made from now on."""
        self._tls = await asyncio.to_thread(tls_context)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _shake_hands(self, url: URL, host: str, port: int) -> Handshake:
        self._open()
        assert self._resolver is not None  # noqa: S101 - `_open` made it
        results = await self._resolver.resolve(host, port)
        failure: OSError | None = None
        for result in results:
            address = result["host"]
            try:
                sock = _socket((result["family"], socket.SOCK_STREAM, 0, "", (address, port)))
                sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
                try:
                    await asyncio.get_running_loop().sock_connect(sock, (address, port))
                    _, writer = await asyncio.open_connection(
                        sock=sock,
                        ssl=self._tls_for(url),
                        server_hostname=host if url.scheme == "https" else None,
                    )
                except BaseException:
                    sock.close()
                    raise
            except OSError as error:
                failure = error
                continue
            try:
                tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
                certificate = tls.getpeercert() if tls is not None else None
                expires = certificate.get("notAfter") if certificate else None
                return Handshake(
                    address,
                    tls.version() if tls is not None else None,
                    ssl.cert_time_to_seconds(expires) if isinstance(expires, str) else None,
                )
            finally:
                writer.transport.abort()  # a polite close waits for a peer that has heard nothing from us
        raise failure or OSError(f"{host} has no address")

    def _tls_for(self, url: URL) -> ssl.SSLContext | None:
        if url.scheme != "https":
            return None
        if self._tls is None:
            self._tls = _shared_tls_context()
        return self._tls

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Threads and getaddrinfo: /etc/hosts, nsswitch and search domains count here as for any other program.
            self._resolver = GuardedResolver(
                self._inner_resolver or aiohttp.ThreadedResolver(), loopback_by_any_name=self._loopback_by_any_name
            )
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    limit=0,
                    ttl_dns_cache=_DNS_SECONDS,
                    keepalive_timeout=_KEEP_SECONDS,
                    socket_factory=_socket,
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, ceil_threshold=1e9),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept-Encoding", "Accept", "User-Agent", "Content-Type"),
                trust_env=False,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            )
        return self._session


@cache
def _shared_tls_context() -> ssl.SSLContext:
    """One for all clients: the authorities take 20 ms to read and a megabyte to hold."""
    return tls_context()


def tls_context() -> ssl.SSLContext:
    """Trusts what this machine trusts."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """
    Make the socket for one address about to be connected to; the last place where it can be refused.

    Addresses by name come through `GuardedResolver` as well, which knows whether the name may mean loopback; a literal
    in the URL comes only here, and a literal loopback address says what it means.
    """
    family, kind, protocol, _, destination = address
    reason = why_refused(destination[0], loopback_allowed=True)
    if reason is not None:
        raise AddressRefused(destination[0], reason)
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE_PROBES:
        if hasattr(socket, option):  # macOS names them otherwise
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    """A large body in pieces, so that writing it never keeps the event loop from answering the walsender."""
    view = memoryview(body)
    for start in range(0, len(view), _SLICE_BYTES):
        yield bytes(view[start : start + _SLICE_BYTES])


async def _read(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """The body up to `limit` bytes, and whether that is all of it. What was cut takes its connection with it."""
    stream = response.content
    chunks: list[bytes] = []
    size = 0
    while not stream.at_eof():
        chunk = await stream.readany()
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            response.close()
            return b"".join(chunks)[:limit], False
    return b"".join(chunks), True


def _no_answer(error: Exception, url: URL, timeout_seconds: float) -> NoAnswer:
    """aiohttp's, asyncio's and ssl's words for it, translated once, by type and number."""
    where = f"{url.host}:{url.port}"
    tls = _tls_error(error)
    if isinstance(error, AddressRefused):
        return NoAnswer(Fault.ADDRESS_REFUSED, str(error))
    if isinstance(error, aiohttp.InvalidURL):
        # aiohttp refuses 2130706433 and 127.1, which libc would take for addresses.
        return NoAnswer(Fault.ADDRESS_REFUSED, f"{url.host} is not called: it is not written as an address is")
    if isinstance(tls, ssl.SSLCertVerificationError):
        return NoAnswer(Fault.NOT_VERIFIED, f"TLS certificate of {url.host} is not valid: {tls.verify_message}")
    # Raw errors are those of `handshake`; aiohttp wraps its own, and tells those of connecting from all later ones.
    connecting = isinstance(error, aiohttp.ClientConnectorError) or not isinstance(error, aiohttp.ClientError)
    if isinstance(tls, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        # Before the handshake is through, no request was sent: as little an attempt as a refused connection.
        fault = Fault.UNREACHABLE if connecting else Fault.DROPPED
        return NoAnswer(fault, f"{where} closed the connection during TLS")
    if tls is not None:
        return NoAnswer(Fault.NO_TLS, f"TLS with {where} failed: {tls.reason or type(tls).__name__}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return NoAnswer(Fault.UNREACHABLE, f"no connection to {where} within {CONNECT_SECONDS:g} s")
    if isinstance(error, TimeoutError):
        return NoAnswer(Fault.TIMEOUT, f"timeout after {timeout_seconds:g} s")
    resolving = error.os_error if isinstance(error, aiohttp.ClientConnectorDNSError) else error
    if isinstance(resolving, socket.gaierror):
        unknown = resolving.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
        return NoAnswer(
            Fault.NAME_UNKNOWN if unknown else Fault.UNREACHABLE,
            f"there is no host {url.host}" if unknown else f"the name {url.host} can't be resolved now",
        )
    if connecting:
        return NoAnswer(Fault.UNREACHABLE, f"no connection to {where}: {_why_unreachable(error)}")
    if isinstance(error, aiohttp.ClientResponseError):
        return NoAnswer(Fault.GARBLED, f"{where} answered with something that is not HTTP")
    if isinstance(error, aiohttp.ClientPayloadError):
        return NoAnswer(Fault.DROPPED, f"{where} broke off in the middle of its answer")
    return NoAnswer(Fault.DROPPED, f"{where} closed the connection without an answer")


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The TLS error that lies behind, if one does. aiohttp's own are `SSLError`s by name, without what one says."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and not isinstance(seen, aiohttp.ClientError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _why_unreachable(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    # asyncio numbers nothing: neither a handshake that is cut off, nor several addresses that failed in several ways.
    return "cut off while connecting" if isinstance(cause, ConnectionError) else "no address answered"
