"""An HTTP endpoint as a target: one POST for each invocation, proved and signed as the settings say."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from yarl import URL

from bridge import __version__
from bridge.clock import Clock
from bridge.delivery.addresses import is_loopback_host
from bridge.delivery.answer import Answer, Fault, NoAnswer
from bridge.delivery.aws import AwsCredentials, AwsUnusable, default_region
from bridge.delivery.batch_response import Report
from bridge.delivery.classify import fault_outcome, fault_remedy, http_outcome
from bridge.delivery.http_client import HttpClient
from bridge.delivery.identity import Identity, IdentityKeeper
from bridge.delivery.outcome import Busy, Evidence, Misconfigured, Outcome
from bridge.delivery.sigv4 import AwsKeys, SigV4Signer
from bridge.delivery.target import Invocation, TargetFinding
from bridge.delivery.tls import ClientTls
from bridge.delivery.tracing import W3C_HEADER, trace_headers
from bridge.errors import ConfigError, SecretUnavailable

USER_AGENT: Final = f"pgbridge/{__version__}"

BODY_BYTES: Final = 64 * 1024
"""How much of an answer is read. Enough for any error page's first words, too little to be drowned in."""
REPORT_BYTES_PER_EVENT: Final = 128
"""A failed record takes 50 bytes in a report, 100 where it is indented; so a report of all of them still fits."""

_GZIP_LEVEL: Final = 6
_COMPRESSED_HERE_BYTES: Final = 64 * 1024
"""About a millisecond; what takes longer is done in a thread, and the stream's reader need not wait for it."""

_RENEW_TRUST_SECONDS: Final = 10.0
_EXPIRES_SOON_SECONDS: Final = 14 * 86400.0
_REGION_IN_HOST = re.compile(r"\.(?:lambda-url|execute-api)\.([a-z0-9-]+)\.")


@dataclass(frozen=True, slots=True)
class AwsSigning:
    """SigV4 for an endpoint behind IAM authorisation."""

    credentials: AwsCredentials
    service: str
    region: str | None
    """None: as the host says, else the SDK's own."""


class HttpTarget:
    """Keeps `Target` for one URL."""

    def __init__(
        self,
        *,
        url: str,
        keeper: IdentityKeeper,
        client: HttpClient,
        clock: Clock,
        timeout_seconds: float,
        report: Report,
        aws: AwsSigning | None = None,
        tls: ClientTls | None = None,
        compressed: bool = False,
        traced: bool = True,
    ) -> None:
        """
        Make the target without connecting.

        Args:
            url: absolute, http or https.
            keeper: what proves who we are.
            client: the connections; closed with the target.
            clock: stamps signatures.
            timeout_seconds: for one call, everything included.
            report: whether answers to batches may or must name failed records.
            aws: signs with SigV4 besides.
            tls: a certificate of our own, or authorities besides the machine's.
            compressed: send bodies as gzip.
            traced: send `traceparent`.
        """
        self._url = URL(url)
        self._keeper = keeper
        self._client = client
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._report = report
        self._aws = aws
        self._aws_signer: SigV4Signer | None = None
        self._trust_renewed_at: float | None = None
        self._tls = tls
        self._tls_used = tls is None
        self._compressed = compressed
        self._traced = traced

    async def deliver(self, invocation: Invocation) -> Outcome:
        if not self._tls_used and (unusable := await self._use_tls()) is not None:
            return unusable
        identity = self._keeper.known() or await self._keeper.identity()
        if not isinstance(identity, Identity):
            return identity
        now = self._clock.now()
        message_id = invocation.message_id or invocation.ids[0]
        content = invocation.content
        headers = {
            "Content-Type": content.content_type,
            **content.headers,
            "User-Agent": USER_AGENT,
            **identity.headers,
        }
        body = invocation.body
        if self._compressed:
            body = await _gzip(body)
            headers["Content-Encoding"] = "gzip"
        if self._traced and W3C_HEADER not in headers:
            headers[W3C_HEADER] = trace_headers(now, random.getrandbits)[0]
        if identity.signer is not None:
            headers |= identity.signer.headers(message_id, int(now), body)
        else:
            headers["webhook-id"] = message_id
            headers["webhook-timestamp"] = str(int(now))
        keys: AwsKeys | None = None
        if self._aws is not None:
            try:
                keys = await self._aws.credentials.keys()
                signer = self._aws_signer or await self._make_aws_signer(self._aws)
            except AwsUnusable as unusable:
                evidence = Evidence(unusable.error)
                return Misconfigured(evidence, unusable.remedy) if unusable.lasting else Busy(evidence)
            headers |= signer.headers(keys, {"Content-Type": headers["Content-Type"]}, body, now)
        report = self._report if invocation.batched else Report.IGNORED
        answer = await self._client.post(
            self._url,
            headers,
            body,
            timeout_seconds=self._timeout_seconds,
            body_limit=BODY_BYTES
            if report is Report.IGNORED
            else max(BODY_BYTES, REPORT_BYTES_PER_EVENT * len(invocation.ids)),
        )
        if isinstance(answer, NoAnswer):
            doubtful = {Fault.NOT_VERIFIED, Fault.NO_TLS}
            if self._tls is not None:
                # A server that wants another certificate may just hang up: behind the handshake, or with TLS 1.2 in it.
                doubtful |= {Fault.DROPPED, Fault.UNREACHABLE}
            if answer.fault in doubtful:
                await self._renew_trust()
            return fault_outcome(answer)
        outcome = http_outcome(answer, ids=invocation.ids, report=report, now=self._clock.now())
        if answer.status in {401, 403}:
            return await self._refused(answer, outcome, identity, keys)
        self._keeper.proved()
        if self._aws is not None:
            self._aws.credentials.proved()
        return outcome

    async def check(self) -> Sequence[TargetFinding]:
        findings = await self._check_proofs()
        unusable = None if self._tls_used else await self._use_tls()
        if unusable is not None:
            findings.append(TargetFinding(ok=False, what=unusable.evidence.error, remedy=_remedy_of(unusable)))
        for url, name in [(self._url, "url"), *((url, "oauth2.token_url") for url in self._keeper.other_urls)]:
            findings.append(await self._check_connection(url, name))
        return findings

    async def close(self) -> None:
        await self._client.close()

    async def _refused(self, answer: Answer, outcome: Outcome, identity: Identity, keys: AwsKeys | None) -> Outcome:
        """Only where fetching the credentials again changes nothing does somebody have to mend them."""
        if not isinstance(outcome, Misconfigured) or outcome.disable:
            return outcome
        renewed = await self._keeper.renew(identity)
        if keys is not None and self._aws is not None:
            renewed = await self._aws.credentials.renew(keys) or renewed
        if not renewed:
            return outcome
        evidence = Evidence(
            f"HTTP {answer.status}, and the credentials are others by now",
            outcome.evidence.detail,
            answer.status,
            outcome.evidence.request_id,
        )
        return Busy(evidence)

    async def _renew_trust(self) -> None:
        now = self._clock.monotonic()
        if self._trust_renewed_at is None or now - self._trust_renewed_at >= _RENEW_TRUST_SECONDS:
            self._trust_renewed_at = now
            if self._tls is None:
                await self._client.renew_trust()
            else:
                await self._use_tls(fresh=True)

    async def _use_tls(self, *, fresh: bool = False) -> Outcome | None:
        """Make the context that the settings ask for; what came in the way, as an outcome that charges nothing."""
        if self._tls is not None:
            try:
                self._client.use_tls(await self._tls.context(fresh=fresh))
            except ConfigError as error:
                return Misconfigured(Evidence(error.message), error.remedy or "correct tls of the target")
            except SecretUnavailable as error:
                return Busy(Evidence(error.message))
        self._tls_used = True
        return None

    async def _make_aws_signer(self, aws: AwsSigning) -> SigV4Signer:
        in_host = _REGION_IN_HOST.search(self._url.raw_host or "")
        region = aws.region or (in_host[1] if in_host else None) or await asyncio.to_thread(default_region)
        if region is None:
            raise AwsUnusable("no AWS region is set", "set sigv4.region of the target, or AWS_REGION")
        self._aws_signer = SigV4Signer(
            service=aws.service,
            region=region,
            host=host_header(self._url),
            path=self._url.raw_path,
            query=self._url.raw_query_string,
        )
        return self._aws_signer

    async def _check_proofs(self) -> list[TargetFinding]:
        findings: list[TargetFinding] = []
        identity = await self._keeper.without_token()
        if isinstance(identity, Identity):
            if identity.secrets or identity.headers:
                findings.append(TargetFinding(ok=True, what="the target's secrets can be read"))
            if identity.signer is not None:
                findings += [
                    TargetFinding(ok=True, what=weakness, remedy="take a longer one at the next rotation")
                    for weakness in identity.signer.weaknesses
                ]
        else:
            findings.append(TargetFinding(ok=False, what=identity.evidence.error, remedy=_remedy_of(identity)))
        if self._aws is not None:
            try:
                await self._aws.credentials.keys()
                await self._make_aws_signer(self._aws)
                findings.append(TargetFinding(ok=True, what="AWS credentials and a region to sign with were found"))
            except AwsUnusable as unusable:
                findings.append(TargetFinding(ok=False, what=unusable.error, remedy=unusable.remedy))
        return findings

    async def _check_connection(self, url: URL, name: str) -> TargetFinding:
        made = await self._client.handshake(url)
        if isinstance(made, NoAnswer):
            remedy = fault_remedy(made, setting=name) or f"see whether {url.host} takes connections from this machine"
            return TargetFinding(ok=False, what=made.error, remedy=remedy)
        where = f"{url.host} answers at {made.address}, port {url.port}"
        if made.tls_version is None:
            loopback = is_loopback_host(url.raw_host or "")
            return TargetFinding(
                ok=True,
                what=f"{where}, over plain HTTP" + ("" if loopback else ": rows travel in the clear"),
                remedy="" if loopback else f"use https in {name}",
            )
        expires = made.certificate_expires
        until = "" if expires is None else f", certificate good until {datetime.fromtimestamp(expires, UTC):%Y-%m-%d}"
        soon = expires is not None and expires - self._clock.now() < _EXPIRES_SOON_SECONDS
        return TargetFinding(
            ok=True,
            what=f"{where}, over {made.tls_version}{until}",
            remedy="renew the endpoint's certificate" if soon else "",
        )


async def _gzip(body: bytes) -> bytes:
    """The same for the same body: no time stands in it, so that every attempt sends the same bytes."""
    if len(body) <= _COMPRESSED_HERE_BYTES:
        return gzip.compress(body, _GZIP_LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL, mtime=0)


def host_header(url: URL) -> str:
    """The Host header as aiohttp sends it: with the port where it is not the scheme's own."""
    host = url.host_subcomponent or ""
    return host if url.is_default_port() else f"{host}:{url.port}"


def _remedy_of(outcome: Outcome) -> str:
    return outcome.remedy if isinstance(outcome, Misconfigured) else "try again in a moment"
