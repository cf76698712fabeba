"""TLS as a target's settings ask for it: a certificate of our own (mTLS), authorities besides the machine's."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from pathlib import Path
from typing import Final

from bridge.delivery.http_client import tls_context
from bridge.errors import ConfigError
from bridge.secret import Secret, SecretResolver

_SETTING: Final = "the target's tls"


class ClientTls:
    """Makes contexts from the secrets of one target; fetched when first used, and again when a handshake failed."""

    def __init__(
        self, secrets: SecretResolver, *, certificate: Secret | None, key: Secret | None, authorities: Secret | None
    ) -> None:
        self._secrets = secrets
        self._certificate = certificate
        self._key = key
        self._authorities = authorities

    async def context(self, *, fresh: bool = False) -> ssl.SSLContext:
        """
        A context for connections to the target.

        Raises:
            ConfigError: a secret can't be read, or is not what it has to be.
            SecretUnavailable: the service that keeps one did not answer.
        """
        certificate = await self._fetch(self._certificate, fresh=fresh)
        key = await self._fetch(self._key, fresh=fresh)
        authorities = await self._fetch(self._authorities, fresh=fresh)
        return await asyncio.to_thread(_make, certificate, key, authorities)

    async def _fetch(self, secret: Secret | None, *, fresh: bool) -> str | None:
        return None if secret is None else await self._secrets.fetch(secret, fresh=fresh)


def _make(certificate: str | None, key: str | None, authorities: str | None) -> ssl.SSLContext:
    context = tls_context()
    # OpenSSL's errors are not chained: they are about the secrets' content.
    if authorities is not None:
        try:
            context.load_verify_locations(cadata=authorities)
        except (ssl.SSLError, ValueError):
            raise ConfigError(
                f"{_SETTING}.authorities holds no certificate", remedy="set it to certificates in PEM form"
            ) from None
    if certificate is not None:
        # ssl reads certificates from files alone; this one is ours to read, and gone when it was.
        with tempfile.TemporaryDirectory(prefix="pgbridge-") as folder:
            path = Path(folder) / "client.pem"
            path.touch(mode=0o600)
            path.write_text(f"{certificate.rstrip()}\n{key or ''}\n", encoding="utf-8")
            try:
                # Without a password callback OpenSSL would ask for one at the terminal.
                context.load_cert_chain(path, password=_no_password)
            except (ssl.SSLError, ValueError):
                raise ConfigError(
                    f"{_SETTING}.certificate can't be used with its key",
                    remedy="set both in PEM form, the key not encrypted, belonging to the certificate",
                ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")
