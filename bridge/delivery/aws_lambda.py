"""
A Lambda function as a target: Lambda's Invoke API over our own HTTP client, signed by our own signer.

boto3 costs 600 µs of CPU for an invocation and repeats one that is slow to answer; this costs a fifth of that and makes
one call. The SDK still decides everything that does not happen for each call (`aws.py`).
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson
from yarl import URL

from bridge.clock import Clock
from bridge.delivery.addresses import is_loopback_host
from bridge.delivery.answer import Answer, Fault, NoAnswer
from bridge.delivery.aws import ANYBODY, AwsCredentials, AwsUnusable, NoAwsRegion, lambda_client, region_of
from bridge.delivery.batch_response import Report
from bridge.delivery.classify import fault_outcome, fault_remedy, lambda_error_code, lambda_outcome
from bridge.delivery.durable import DurableNames
from bridge.delivery.http import BODY_BYTES, REPORT_BYTES_PER_EVENT, USER_AGENT, host_header
from bridge.delivery.http_client import HttpClient
from bridge.delivery.lambda_errors import CREDENTIALS_REFUSED, remedy
from bridge.delivery.outcome import Busy, Delivered, Evidence, Failed, Misconfigured, Outcome, Partial, Rejected
from bridge.delivery.sigv4 import AwsKeys, SigV4Signer
from bridge.delivery.target import Invocation, TargetFinding
from bridge.delivery.tracing import XRAY_HEADER, trace_headers

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

LONGEST_SECONDS: Final = 905.0
"""No function may run for longer than 900 s; the wait for one whose own limit is unknown."""
MARGIN_SECONDS: Final = 30.0
"""
Waited beyond the function's own limit, which counts from the start of the handler: a cold start takes up to 10 s before
it, and attaching to a VPC or restoring a snapshot some more. A client that gives up sooner starts the work again.
"""
_ACCEPT_SECONDS: Final = 60.0
"""For Lambda to take an event; no function runs meanwhile."""

# Nor does a stand-in on this machine care where it is.
_ANY_REGION: Final = "us-east-1"

_SETTING: Final = "region and endpoint_url"


@dataclass(frozen=True, slots=True)
class _Endpoint:
    url: URL
    signer: SigV4Signer
    region: str
    is_loopback: bool


class LambdaTarget:
    """Keeps `Target` for one function, version or alias."""

    def __init__(
        self,
        *,
        function_name: str,
        qualifier: str | None,
        event: bool,
        report: Report,
        credentials: AwsCredentials,
        client: HttpClient,
        clock: Clock,
        region: str | None = None,
        endpoint_url: str | None = None,
        timeout_seconds: float | None = None,
        tenant_id: str | None = None,
        tenant_column: str | None = None,
        durable: bool = False,
        traced: bool = True,
    ) -> None:
        """
        Make the target without looking anything up.

        Args:
            function_name: name, partial ARN or ARN; a qualifier may stand in it.
            qualifier: version or alias; None where the name has it, or for $LATEST.
            event: invoke with the type `Event`, which settles on acceptance, in place of `RequestResponse`.
            report: whether the function may or must name failed records.
            credentials: what to sign with.
            client: the connections; closed with the target.
            clock: stamps signatures.
            region: None for the one in the ARN, else the SDK's own.
            endpoint_url: None for the SDK's own.
            timeout_seconds: for one call; None for the function's own limit and a margin.
            tenant_id: for functions with tenant isolation.
            tenant_column: in place of it: what each invocation's `tenant` was read from.
            durable: name the execution, so that a repeated call joins the one that may be running.
            traced: send an X-Ray trace header.
        """
        self._function_name = function_name
        self._qualifier = None if function_name.endswith(f":{qualifier}") else qualifier
        self._function = function_name if self._qualifier is None else f"{function_name}:{self._qualifier}"
        self._event = event
        self._report = Report.IGNORED if event else report
        self._credentials = credentials
        self._client = client
        self._clock = clock
        self._region = region or region_of(function_name)
        self._endpoint_url = endpoint_url
        self._timeout_seconds = timeout_seconds
        self._function_timeout_seconds: float | None = None
        self._endpoint: _Endpoint | None = None
        self._lock = asyncio.Lock()
        self._tenant_column = tenant_column
        self._durable = DurableNames() if durable else None
        self._traced = traced
        self._headers = {
            "Content-Type": "application/json",
            "X-Amz-Invocation-Type": "Event" if event else "RequestResponse",
        }
        if not event:
            self._headers["X-Amz-Log-Type"] = "Tail"
        if tenant_id is not None:
            self._headers["X-Amz-Tenant-Id"] = tenant_id

    async def deliver(self, invocation: Invocation) -> Outcome:
        if self._tenant_column is not None and invocation.tenant is None:
            error = f"the event does not say whose it is: it has no tenant's id in the column {self._tenant_column}"
            return Rejected(Evidence(error), final=True)
        try:
            endpoint = self._endpoint or await self._find_endpoint()
            keys = await self._credentials.keys(stand_in=endpoint.is_loopback)
        except AwsUnusable as unusable:
            evidence = Evidence(unusable.error)
            return Misconfigured(evidence, unusable.remedy) if unusable.lasting else Busy(evidence)
        timeout_seconds = await self._limit_seconds(endpoint)
        headers = self._headers_for(invocation)
        signed = endpoint.signer.headers(keys, headers, invocation.body, self._clock.now())
        report = self._report if invocation.batched else Report.IGNORED
        answer = await self._client.post(
            endpoint.url,
            {**headers, **signed, "User-Agent": USER_AGENT, **self._unsigned()},
            invocation.body,
            timeout_seconds=timeout_seconds,
            body_limit=BODY_BYTES
            if report is Report.IGNORED
            else max(BODY_BYTES, REPORT_BYTES_PER_EVENT * len(invocation.ids)),
        )
        if isinstance(answer, NoAnswer):
            return self._without_answer(answer)
        outcome = lambda_outcome(
            answer,
            function=self._function,
            ids=invocation.ids,
            event=self._event,
            report=report,
            now=self._clock.now(),
        )
        if isinstance(outcome, Misconfigured):
            return await self._refused(answer, outcome, keys)
        self._credentials.proved()
        if self._durable is not None:
            self._learn(self._durable, answer, outcome, invocation)
            if answer.status >= 500:
                return self._joining(outcome)
        return outcome

    async def check(self) -> Sequence[TargetFinding]:
        try:
            endpoint = await self._find_endpoint()
            keys = await self._credentials.keys(stand_in=endpoint.is_loopback)
            client = await asyncio.to_thread(self._boto, endpoint, keys)
        except AwsUnusable as unusable:
            return [TargetFinding(ok=False, what=unusable.error, remedy=unusable.remedy)]
        made = await self._client.handshake(endpoint.url.origin())
        if isinstance(made, NoAnswer):
            advice = fault_remedy(made, setting=_SETTING) or "see whether this machine reaches the endpoint of Lambda"
            return [TargetFinding(ok=False, what=made.error, remedy=advice)]
        try:
            return await asyncio.to_thread(self._check, client)
        finally:
            client.close()

    async def close(self) -> None:
        await self._client.close()

    def _headers_for(self, invocation: Invocation) -> dict[str, str]:
        headers = dict(self._headers)
        if not self._event:
            headers["X-Amz-Client-Context"] = _context(invocation)
        if invocation.tenant is not None:
            headers["X-Amz-Tenant-Id"] = invocation.tenant
        if self._durable is not None:
            headers["X-Amz-Durable-Execution-Name"] = self._durable.name(invocation.trigger, invocation.body)
        return headers

    def _unsigned(self) -> dict[str, str]:
        """Not covered by the signature, as in the SDKs: proxies on the way may write them anew."""
        if not self._traced:
            return {}
        return {XRAY_HEADER: trace_headers(self._clock.now(), random.getrandbits)[1]}

    @staticmethod
    def _learn(durable: DurableNames, answer: Answer, outcome: Outcome, invocation: Invocation) -> None:
        """Whether the execution of this name is over, which decides on the next call's."""
        # With 200 the function has answered, whatever its answer was; a failure of Lambda's own leaves it unknown.
        if isinstance(outcome, Partial | Failed) and answer.status == 200:
            durable.failed(invocation.body)
        elif isinstance(outcome, Delivered):
            durable.ended(invocation.body)

    def _without_answer(self, answer: NoAnswer) -> Outcome:
        if answer.fault is not Fault.TIMEOUT:
            return self._joining(fault_outcome(answer, setting=_SETTING))
        # Its limit may have been raised since it was looked up.
        self._function_timeout_seconds = None
        error = f"{answer.error}; whether the function ran is unknown"
        return self._joining(fault_outcome(NoAnswer(answer.fault, error)))

    def _joining(self, outcome: Outcome) -> Outcome:
        """Where an execution may be running, only a call of its name joins it: the batch has to stay as it is."""
        if self._durable is None or not isinstance(outcome, Failed):
            return outcome
        return replace(outcome, joins=True)

    async def _refused(self, answer: Answer, outcome: Misconfigured, keys: AwsKeys) -> Outcome:
        """Only where other credentials can't be had does somebody have to mend them."""
        code = lambda_error_code(answer)
        if code not in CREDENTIALS_REFUSED or not await self._credentials.renew(keys):
            return outcome
        evidence = outcome.evidence
        return Busy(
            Evidence(
                f"{evidence.error}, and the credentials are others by now",
                evidence.detail,
                evidence.status,
                evidence.request_id,
            )
        )

    async def _find_endpoint(self) -> _Endpoint:
        async with self._lock:
            if self._endpoint is None:
                self._endpoint = await asyncio.to_thread(self._ask_sdk)
            return self._endpoint

    def _ask_sdk(self) -> _Endpoint:
        try:
            return self._endpoint_in(self._region)
        except NoAwsRegion:
            endpoint = self._endpoint_in(_ANY_REGION)
            if not endpoint.is_loopback:
                raise
            return endpoint

    def _endpoint_in(self, region: str | None) -> _Endpoint:
        # Nothing is signed with these keys: the client is only asked where it would send things.
        client = lambda_client(region=region, endpoint_url=self._endpoint_url, keys=ANYBODY)
        try:
            return self._endpoint_at(client.meta.endpoint_url, client.meta.region_name)
        finally:
            client.close()

    def _endpoint_at(self, base: str, region: str) -> _Endpoint:
        path = f"/2015-03-31/functions/{quote(self._function_name, safe='-_.~')}/invocations"
        query = "" if self._qualifier is None else f"Qualifier={quote(self._qualifier, safe='-_.~')}"
        # Encoded once and for all, as the signature covers these very characters.
        url = URL(base.rstrip("/") + path + (f"?{query}" if query else ""), encoded=True)
        signer = SigV4Signer(
            service="lambda", region=region, host=host_header(url), path=url.raw_path, query=url.raw_query_string
        )
        return _Endpoint(url, signer, region, is_loopback_host(url.raw_host or ""))

    async def _limit_seconds(self, endpoint: _Endpoint) -> float:
        if self._event:
            return min(self._timeout_seconds or _ACCEPT_SECONDS, _ACCEPT_SECONDS)
        if self._timeout_seconds is not None:
            return self._timeout_seconds
        if self._function_timeout_seconds is None:
            async with self._lock:
                if self._function_timeout_seconds is None:
                    self._function_timeout_seconds = await self._look_up_timeout(endpoint)
        return self._function_timeout_seconds

    async def _look_up_timeout(self, endpoint: _Endpoint) -> float:
        """The function's own limit and a margin; where it may not be read, what no function exceeds."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded when it is needed

        keys = await self._credentials.keys(stand_in=endpoint.is_loopback)

        def look_up() -> float:
            client = self._boto(endpoint, keys)
            try:
                return client.get_function_configuration(**self._names())["Timeout"] + MARGIN_SECONDS
            finally:
                client.close()

        try:
            return min(await asyncio.to_thread(look_up), LONGEST_SECONDS)
        except (BotoCoreError, ClientError, AwsUnusable, KeyError):
            # `check` says so, and names the right that is missing. Waiting too long costs nothing but time.
            return LONGEST_SECONDS

    def _boto(self, endpoint: _Endpoint, keys: AwsKeys) -> LambdaClient:
        return lambda_client(region=endpoint.region, endpoint_url=self._endpoint_url, keys=keys)

    def _names(self) -> dict[str, Any]:
        names = {"FunctionName": self._function_name}
        return names if self._qualifier is None else {**names, "Qualifier": self._qualifier}

    def _check(self, client: LambdaClient) -> Sequence[TargetFinding]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded when it is needed

        try:
            client.invoke(**self._names(), InvocationType="DryRun")
        except ClientError as error:
            code, status = _code_of(error)
            return [
                TargetFinding(
                    ok=False,
                    what=f"{self._function} can't be invoked: {code or f'HTTP {status}'}",
                    remedy=remedy(code, status, self._function),
                )
            ]
        except BotoCoreError as error:
            return [
                TargetFinding(
                    ok=False,
                    what=f"{self._function} can't be asked for: {type(error).__name__}",
                    remedy="see whether this machine reaches the endpoint of Lambda",
                )
            ]
        settles = ", which settles changes when Lambda has accepted them" if self._event else ""
        findings = [TargetFinding(ok=True, what=f"{self._function} may be invoked{settles}")]
        try:
            found = client.get_function_configuration(**self._names())
        except ClientError as error:
            code, status = _code_of(error)
            advice = f"to wait no longer than needed, allow lambda:GetFunctionConfiguration on {self._function}"
            what = (
                f"the limits of {self._function} can't be read ({code or f'HTTP {status}'}); "
                f"calls wait up to {self._timeout_seconds or LONGEST_SECONDS:g} s"
            )
            return [*findings, TargetFinding(ok=True, what=what, remedy=advice)]
        except BotoCoreError as error:
            what = f"the configuration of {self._function} can't be read: {type(error).__name__}"
            return [*findings, TargetFinding(ok=True, what=what)]
        return [*findings, *self._judge(dict(found))]

    def _judge(self, found: dict[str, Any]) -> Sequence[TargetFinding]:
        function, timeout = self._function, found.get("Timeout")
        facts = [
            f"version {found['Version']}" if found.get("Version") else "",
            str(found.get("Runtime") or ""),
            f"{found['MemorySize']} MB" if found.get("MemorySize") else "",
            f"timeout {timeout} s" if timeout else "",
        ]
        findings = [TargetFinding(ok=True, what=f"{function}: {', '.join(fact for fact in facts if fact)}")]
        if found.get("State") in {"Failed", "Deactivated", "Deleting"}:
            what = f"{function} is in the state {found['State']}: {found.get('StateReasonCode') or 'no reason given'}"
            findings.append(TargetFinding(ok=False, what=what, remedy=f"deploy {function} again"))
        if found.get("LastUpdateStatus") == "Failed":
            what = (
                f"the last update of {function} failed: {found.get('LastUpdateStatusReasonCode') or 'no reason given'}"
            )
            findings.append(TargetFinding(ok=True, what=what, remedy=f"deploy {function} again"))
        if timeout and not self._event and self._timeout_seconds is not None and timeout > self._timeout_seconds:
            findings.append(
                TargetFinding(
                    ok=False,
                    what=f"{function} may run for {timeout} s, and calls wait for {self._timeout_seconds:g} s: "
                    "one that takes longer is started again while it still runs",
                    remedy="leave timeout_in_seconds out, or set it above the function's timeout",
                )
            )
        return findings


def _code_of(error: Any) -> tuple[str, int]:
    response = error.response
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(response.get("Error", {}).get("Code", ""))
    # botocore puts the status there where the body has no code.
    return ("" if code == str(status) else code), status


def _context(invocation: Invocation) -> str:
    """The handler finds this in `context.client_context.custom`; its values are text in every runtime."""
    custom = {
        "trigger": invocation.trigger,
        "attempt": str(invocation.attempt),
        "message_id": invocation.message_id,
    }
    return base64.b64encode(orjson.dumps({"custom": custom})).decode("ascii")
