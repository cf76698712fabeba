"""
How a request proves who sent it: headers, tokens and keys, made from the settings' secrets and kept until refused.

Secrets are fetched when first needed. When an endpoint refuses what was sent, they are fetched again before anybody is
told that the settings are wrong: after a rotation the next attempt simply succeeds, without a restart and without a
charge to the records.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import orjson
from yarl import URL

from bridge.clock import Clock
from bridge.delivery.answer import Answer, NoAnswer
from bridge.delivery.classify import fault_outcome
from bridge.delivery.http_client import HttpClient
from bridge.delivery.outcome import Busy, Evidence, Failed, Misconfigured, Outcome
from bridge.delivery.retry import parse_retry_after
from bridge.delivery.signing import UnusableSecret, WebhookSigner
from bridge.errors import ConfigError, SecretUnavailable
from bridge.secret import Secret, SecretResolver

_TOKEN_SECONDS: Final = 15.0
_TOKEN_BODY_BYTES: Final = 64 * 1024
_EARLY_SECONDS: Final = 60.0
"""A token is renewed this long before it ends, or at nine tenths of a short life."""
_ASSUMED_LIFE_SECONDS: Final = 3600.0
"""Where the token endpoint does not say (`expires_in` is only recommended, RFC 6749 5.1): an hour, as is usual."""
_RENEWAL_PAUSE_SECONDS: Final = 5.0
"""Many calls may be refused at once; their secrets are fetched once for all of them."""

_NOT_IN_A_HEADER = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class OAuth2Client:
    """Client credentials (RFC 6749, 4.4)."""

    token_url: URL
    client_id: str
    client_secret: Secret
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Proofs:
    """What the settings ask for; at most one of bearer, basic and oauth2."""

    bearer: Secret | None = None
    basic: tuple[str, Secret] | None = None
    oauth2: OAuth2Client | None = None
    headers: Mapping[str, Secret] = field(default_factory=dict)
    signing: Sequence[Secret] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """One set of proofs, ready to use; equal to another where a request would look the same."""

    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    signer: WebhookSigner | None = field(compare=False)
    expires_at: float | None = None
    """On the monotonic clock; None where nothing ends by itself."""


class IdentityKeeper:
    """Makes the identity of one target and remembers it."""

    def __init__(self, proofs: Proofs, secrets: SecretResolver, client: HttpClient, clock: Clock) -> None:
        self._proofs = proofs
        self._secrets = secrets
        self._client = client
        self._clock = clock
        self._identity: Identity | None = None
        self._renewed_at: float | None = None
        self._in_doubt = False
        self._lock = asyncio.Lock()

    def known(self) -> Identity | None:
        """The identity where it can be had without waiting."""
        identity = self._identity
        if identity is None or (identity.expires_at is not None and self._clock.monotonic() >= identity.expires_at):
            return None
        return identity

    async def identity(self) -> Identity | Outcome:
        """The identity, or what the lack of it means for the records: nothing that they are charged for."""
        async with self._lock:
            known = self.known()
            if known is not None:
                return known
            made = await self._make(fresh=False)
            if isinstance(made, Identity):
                self._identity = made
            return made

    @property
    def other_urls(self) -> Sequence[URL]:
        """Where else a call goes before the target's own."""
        return () if self._proofs.oauth2 is None else (self._proofs.oauth2.token_url,)

    async def without_token(self) -> Identity | Outcome:
        """What can be made of the secrets alone; for `check`, which asks no token server for anything."""
        return await self._make(fresh=False, token=False)

    def proved(self) -> None:
        """The endpoint let us in."""
        self._in_doubt = False

    async def renew(self, refused: Identity) -> bool:
        """
        Fetch the secrets again, because the endpoint refused what they made.

        Returns:
            True where they are others now, so that another attempt is worth it. A token server hands out another token
            each time; that counts once, and then not before a token was accepted.
        """
        async with self._lock:
            if self._identity is not refused:
                return True
            now = self._clock.monotonic()
            if self._renewed_at is not None and now - self._renewed_at < _RENEWAL_PAUSE_SECONDS:
                return False
            self._renewed_at = now
            made = await self._make(fresh=True)
            if not isinstance(made, Identity):
                return False
            if (made.headers, made.secrets) == (refused.headers, refused.secrets):
                return False
            self._identity = made
            if self._proofs.oauth2 is None:
                return True
            first = not self._in_doubt
            self._in_doubt = True
            return first

    async def _make(self, *, fresh: bool, token: bool = True) -> Identity | Outcome:
        proofs = self._proofs
        try:
            headers = {name: await self._fetch(secret, fresh=fresh) for name, secret in proofs.headers.items()}
            if proofs.bearer is not None:
                headers["Authorization"] = f"Bearer {await self._fetch(proofs.bearer, fresh=fresh)}"
            if proofs.basic is not None:
                user, password = proofs.basic
                headers["Authorization"] = _basic(user, await self._fetch(password, fresh=fresh))
            secrets = tuple([await self._fetch(secret, fresh=fresh) for secret in proofs.signing])
            signer = WebhookSigner(secrets) if secrets else None
            expires_at = None
            if proofs.oauth2 is not None:
                client_secret = await self._fetch(proofs.oauth2.client_secret, fresh=fresh)
                got = await self._token(proofs.oauth2, client_secret) if token else _Token("", 0.0)
                if not isinstance(got, _Token):
                    return got
                headers["Authorization"] = f"Bearer {got.text}"
                expires_at = got.expires_at
        except ConfigError as error:
            return Misconfigured(Evidence(error.message), error.remedy or "correct the secret that the target names")
        except SecretUnavailable as error:
            return Busy(Evidence(error.message))
        except UnusableSecret as error:
            return Misconfigured(Evidence(str(error)), "correct signing.secrets of the target")
        for name, value in headers.items():
            if _NOT_IN_A_HEADER.search(value):
                return Misconfigured(
                    Evidence(f"the secret for the header {name} holds a line break"), "store it as a single line"
                )
        return Identity(headers, secrets, signer, expires_at)

    async def _fetch(self, secret: Secret, *, fresh: bool) -> str:
        return await self._secrets.fetch(secret, fresh=fresh)

    async def _token(self, oauth2: OAuth2Client, secret: str) -> _Token | Outcome:
        form = {"grant_type": "client_credentials"}
        if oauth2.scope is not None:
            form["scope"] = oauth2.scope
        asked_at = self._clock.monotonic()
        answer = await self._client.post(
            oauth2.token_url,
            {
                "Accept": "application/json",
                # RFC 6749, 2.3.1: both parts are form-encoded before they are joined.
                "Authorization": _basic(quote_plus(oauth2.client_id), quote_plus(secret)),
                "Content-Type": "application/x-www-form-urlencoded",
            },
            urlencode(form).encode("ascii"),
            timeout_seconds=_TOKEN_SECONDS,
            body_limit=_TOKEN_BODY_BYTES,
        )
        return _read_token(answer, asked_at, self._clock.now())


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    expires_at: float


def _read_token(answer: Answer | NoAnswer, asked_at: float, now: float) -> _Token | Outcome:
    """A token, or what its lack means: the records are never at fault for it."""
    if isinstance(answer, NoAnswer):
        outcome = fault_outcome(answer)
        evidence = Evidence(f"token endpoint: {answer.error}")
        return Busy(evidence) if isinstance(outcome, Failed) else _because_of_token(evidence)
    evidence = Evidence(f"token endpoint: HTTP {answer.status}", status=answer.status)
    if answer.status == 429 or answer.status >= 500:
        return Busy(evidence, parse_retry_after(answer.headers.get("Retry-After"), now))
    document: Any = None
    if answer.status == 200 and answer.whole:
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            document = None
    token = document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(token, str) or not token:
        return _because_of_token(evidence)
    life = document.get("expires_in")
    try:
        seconds = float(life) if isinstance(life, int | float | str) else _ASSUMED_LIFE_SECONDS
    except ValueError:
        seconds = _ASSUMED_LIFE_SECONDS
    return _Token(token, asked_at + max(seconds - _EARLY_SECONDS, 0.9 * seconds, 0.0))


def _because_of_token(evidence: Evidence) -> Misconfigured:
    return Misconfigured(evidence, "check oauth2 of the target: token_url, client_id, client_secret and scope")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
