"""Who may ask: token, Host header, origin. Judged before any handler runs."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from bridge.config import AdminSettings
from bridge.config.targets import is_loopback
from bridge.errors import BridgeError, ConfigError
from bridge.secret import SecretResolver

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Answered to anybody, without reasons."""

REFRESH_SECONDS: Final = 30.0
"""A wrong token makes us read the right one again, for it may have been rotated; not more often than this."""


class Guard:
    """Judges requests for one admin application."""

    def __init__(
        self, settings: AdminSettings, secrets: SecretResolver, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        address = settings.address
        if address is not None and not address.is_loopback and settings.token is None:
            # The configuration refuses this too; a server that is open to the world is worth two locks.
            raise ConfigError(
                f"admin.listen is {settings.listen} and admin.token is not set", remedy="set it, or listen on 127.0.0.1"
            )
        self._token = settings.token
        self._secrets = secrets
        self._monotonic = monotonic
        self._refreshed_at: float | None = None

    def check(self, request: web.Request) -> None:
        """
        Refuse what a page of somebody else could have made a browser send.

        Raises:
            web.HTTPException: it is refused.
        """
        if self._token is None and not _names_this_machine(request.host):
            raise web.HTTPMisdirectedRequest(text=f"this port answers as localhost, not as {request.host[:80]!r}")
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD) and not _is_same_origin(request):
            raise web.HTTPForbidden(text="requests that change something are taken from this page only")

    async def knows(self, request: web.Request) -> bool:
        """Whether the request carries the token, or none is needed."""
        if self._token is None:
            return True
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            return False
        if _equal(given, await self._secrets.fetch(self._token)):
            return True
        now = self._monotonic()
        if self._token.literal is None and (self._refreshed_at is None or now - self._refreshed_at > REFRESH_SECONDS):
            self._refreshed_at = now
            try:
                return _equal(given, await self._secrets.fetch(self._token, fresh=True))
            except BridgeError:
                return False  # the token that we know is not the one given, and no other can be had
        return False


def _equal(given: str, known: str) -> bool:
    return hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), known.encode())


def _names_this_machine(host: str) -> bool:
    """Whether a Host header names loopback: what a rebound name of another site does not."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


def _is_same_origin(request: web.Request) -> bool:
    """Browsers say where a request comes from; other clients send neither header, and can't be made to by a page."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc.lower() == request.host.lower()
