"""
Standard Webhooks signatures over the exact bytes sent. Pure: the time comes in as an argument.

    webhook-id:        names the message; the same on each attempt
    webhook-timestamp: seconds since 1970 of this attempt
    webhook-signature: `v1,<base64>` or `v1a,<base64>`, one for each secret, separated by spaces

What is signed is `{id}.{timestamp}.{body}`. The rules are those of the Standard Webhooks specification 1.0.0,
"Signature scheme" and "Webhook headers". Several secrets are for rotation: a receiver accepts the message if one of
them fits.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SYMMETRIC_PREFIX: Final = "whsec_"
ASYMMETRIC_PREFIX: Final = "whsk_"
_PUBLIC_PREFIX: Final = "whpk_"

_ADVISED_SECRET_BYTES: Final = 24
"""The specification asks for 24 to 64 random bytes. A shorter one still signs, as its receiver may exist already."""
_SEED_BYTES: Final = 32
_SEED_AND_PUBLIC_BYTES: Final = 64

_Sign = Callable[[bytes], bytes]


class UnusableSecret(ValueError):
    """A signing secret that can't be used; the message says why and never holds any of it."""


class WebhookSigner:
    """Signs with every configured secret, the first one first."""

    __slots__ = ("_signers", "weaknesses")

    weaknesses: Sequence[str]
    """What `check` should say about secrets that work and are not good; holds nothing of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """
        Prepare the keys.

        Args:
            secrets: `whsec_…` for HMAC-SHA256 (v1), `whsk_…` for ed25519 (v1a); base64 with or without padding.

        Raises:
            UnusableSecret: which one (counted from 1), and what is wrong with it.
        """
        weaknesses: list[str] = []
        self._signers = [_signer(secret, place, weaknesses) for place, secret in enumerate(secrets, start=1)]
        self.weaknesses = weaknesses
        if not self._signers:
            raise UnusableSecret("there is no signing secret")

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """
        The three headers for one attempt.

        Args:
            message_id: without a full stop, which separates what is signed.
            timestamp: seconds since 1970 of this attempt.
            body: exactly what is sent, after any compression of ours.
        """
        if not message_id or "." in message_id:
            raise ValueError(f"a webhook id is not empty and has no full stop: {message_id!r}")
        signed = b"%b.%d.%b" % (message_id.encode("ascii"), timestamp, body)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join([sign(signed).decode("ascii") for sign in self._signers]),
        }


def public_key(secret: str) -> str:
    """The `whpk_…` key that a receiver verifies v1a signatures with, of a `whsk_…` secret."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - as below
        Encoding,
        PublicFormat,
    )

    key = _private_key(secret, place=1).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return _PUBLIC_PREFIX + base64.b64encode(key).decode("ascii")


def _signer(secret: str, place: int, weaknesses: list[str]) -> _Sign:
    if secret.startswith(ASYMMETRIC_PREFIX):
        key = _private_key(secret, place)

        def sign(signed: bytes) -> bytes:
            return b"v1a," + base64.b64encode(key.sign(signed))

        return sign
    if secret.startswith(SYMMETRIC_PREFIX):
        raw = _decode(secret.removeprefix(SYMMETRIC_PREFIX), place)
        if not raw:
            raise UnusableSecret(f"signing secret {place} is empty")
        if len(raw) < _ADVISED_SECRET_BYTES:
            weaknesses.append(f"signing secret {place} has {len(raw)} bytes; Standard Webhooks asks for at least 24")
        return _hmac_signer(raw)
    if secret.startswith(_PUBLIC_PREFIX):
        raise UnusableSecret(f"signing secret {place} is a public key (whpk_); signing needs the secret key (whsk_)")
    raise UnusableSecret(f"signing secret {place} begins with neither whsec_ nor whsk_")


def _hmac_signer(key: bytes) -> _Sign:
    # hmac.digest is one call into OpenSSL; an HMAC object costs several times as much for a small body.
    def sign(signed: bytes) -> bytes:
        return b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))

    return sign


def _private_key(secret: str, place: int) -> Ed25519PrivateKey:
    # Only v1a needs it: 20 ms and 8 MB that no other process should pay.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - see above

    raw = _decode(secret.removeprefix(ASYMMETRIC_PREFIX), place)
    if len(raw) not in {_SEED_BYTES, _SEED_AND_PUBLIC_BYTES}:
        raise UnusableSecret(f"signing secret {place} has {len(raw)} bytes; an ed25519 secret key has 32")
    key = Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES])
    if len(raw) == _SEED_AND_PUBLIC_BYTES:
        # Go and libsodium keep the public key behind the seed; one that does not belong to it is a broken paste.
        derived = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        if not hmac.compare_digest(derived, raw[_SEED_BYTES:]):
            raise UnusableSecret(f"signing secret {place} holds a public key that does not belong to its seed")
    return key


def _decode(text: str, place: int) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        # Not chained: the error may quote the secret.
        raise UnusableSecret(f"signing secret {place} is not base64 after its prefix") from None
