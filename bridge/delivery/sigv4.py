"""
AWS Signature Version 4 for one endpoint. Pure: keys and the time come in as arguments.

The signature is botocore's, header for header (a test holds the two together), at a tenth of its CPU: the path and the
query of a target never change, so they are made canonical once, and the signing key is derived once a day for each pair
of keys. Follows "Create a signed AWS API request" in the IAM user guide.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """One set of AWS credentials."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class SigV4Signer:
    """Signs POST requests to one URL."""

    def __init__(self, *, service: str, region: str, host: str, path: str, query: str = "") -> None:
        """
        Prepare what all requests have in common.

        Args:
            service: signing name, such as `lambda`.
            region: where the endpoint is.
            host: the Host header as sent, with the port unless it is the scheme's own.
            path: as it stands in the request line, percent-encoded.
            query: likewise, without the question mark.
        """
        self._scope_tail = f"{region}/{service}/aws4_request"
        self._region = region
        self._service = service
        self._host = host
        # Every service but S3 has the path encoded once more than it is sent.
        canonical_path = quote(_without_dots(path) or "/", safe="/~")
        canonical_query = "&".join(
            f"{name}={value}" for name, value in sorted(_pair(part) for part in query.split("&") if part)
        )
        self._head = f"POST\n{canonical_path}\n{canonical_query}\n"
        self._key: tuple[AwsKeys, str, bytes] | None = None

    def headers(self, keys: AwsKeys, headers: Mapping[str, str], body: bytes, now: float) -> dict[str, str]:
        """
        What has to be sent besides `headers`: Authorization, X-Amz-Date and, with temporary keys, the session token.

        Args:
            keys: the credentials to sign with.
            headers: what is signed besides; all of it, so nothing in it may be changed on the way.
            body: exactly what is sent.
            now: seconds since 1970, UTC.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        day = moment[:8]
        added = {"X-Amz-Date": moment}
        if keys.token is not None:
            added["X-Amz-Security-Token"] = keys.token
        signed = {name.lower(): value for name, value in headers.items()}
        signed["host"] = self._host
        signed["x-amz-date"] = moment
        if keys.token is not None:
            signed["x-amz-security-token"] = keys.token
        names = sorted(signed)
        signed_names = ";".join(names)
        lines = "".join([f"{name}:{' '.join(signed[name].split())}\n" for name in names])
        canonical = f"{self._head}{lines}\n{signed_names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{day}/{self._scope_tail}"
        to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(keys, day), to_sign.encode(), "sha256").hex()
        added["Authorization"] = (
            f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={signed_names}, Signature={signature}"
        )
        return added

    def _signing_key(self, keys: AwsKeys, day: str) -> bytes:
        known = self._key
        if known is not None and known[0] is keys and known[1] == day:
            return known[2]
        key = f"AWS4{keys.secret_key}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = (keys, day, key)
        return key


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4, with runs of slashes made one, as the AWS SDKs do it."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    first = "/" if path.startswith("/") else ""
    last = "/" if path.endswith("/") and kept else ""
    return first + "/".join(kept) + last
