"""
From what came back to an `Outcome`: the delivery table, in one place. Pure.

| what came back | outcome |
|---|---|
| 2xx; Lambda without FunctionError; a report (`batch_response.py`) without failures | Delivered |
| Lambda 202 for an `Event` invocation | Accepted |
| a report with ids of this batch | Partial |
| an unusable report; FunctionError; HTTP 3xx, 5xx, 408, 425; timeout; a connection dropped or garbled | Failed |
| no connection: refused, no route, cut off while TLS began, the resolver does not answer | Failed, unsent |
| HTTP 429; 503 with `Retry-After`; Lambda throttled or not ready (`lambda_errors.py`) | Busy |
| HTTP 401, 403, 404, 410; Lambda missing, denied, broken; an unknown host, a refused address, TLS | Misconfigured |
| HTTP 413; RequestTooLarge | TooLarge |
| other HTTP 4xx | Rejected |

A receiver may steer with the response header `webhook-delivery`: `disable` ends the deliveries to it, `abort-message`
ends those of this message. On a success it has no effect, because there is nothing left to end.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from bridge.delivery.answer import Answer, Fault, NoAnswer
from bridge.delivery.batch_response import Report, UnusableReport, failed_ids
from bridge.delivery.lambda_errors import ErrorClass, error_class, remedy
from bridge.delivery.outcome import (
    Accepted,
    Busy,
    Delivered,
    Evidence,
    Failed,
    Misconfigured,
    Outcome,
    Partial,
    Rejected,
    TooLarge,
)
from bridge.delivery.retry import parse_retry_after

DETAIL_CHARACTERS: Final = 4096
"""How much of the target's own words a dead letter keeps; as much as Lambda keeps of the log."""

_DELIVERED: Final = Delivered()
_ACCEPTED: Final = Accepted()

_NAME = re.compile(r"[A-Za-z0-9_.:$-]{1,100}")
_REQUEST_ID = re.compile(r"[!-~]{1,200}")
_REQUEST_ID_HEADERS: Final = (
    "x-request-id",
    "x-amzn-requestid",
    "apigw-requestid",
    "x-amz-request-id",
    "x-correlation-id",
)

_AUTH_REMEDY: Final = "check the target's auth and signing secrets, and that the endpoint lets their owner in"
_MISCONFIGURED_STATUS: Final = {
    401: _AUTH_REMEDY,
    403: _AUTH_REMEDY,
    404: "check the path of the target's url",
    410: "the endpoint wants no more deliveries; remove the trigger, name another endpoint, or resume it by hand when "
    "the endpoint is back",
}
_GONE: Final = 410

_FAULT_REMEDIES: Final = {
    Fault.ADDRESS_REFUSED: (
        "link-local, metadata, unspecified and multicast addresses are never called, and loopback only where the "
        "{setting} says loopback; let it name a public or private host"
    ),
    Fault.NAME_UNKNOWN: "check the host in the target's {setting}, and the resolver of this machine",
    Fault.NOT_VERIFIED: "renew the endpoint's certificate, or let this machine trust the authority that issued it",
    Fault.NO_TLS: "check that the target's port speaks TLS 1.2 or later and what client certificate it wants",
}


def fault_outcome(fault: NoAnswer, *, setting: str = "url") -> Outcome:
    """What a call without an answer means; `setting` is what the target's host was taken from."""
    evidence = Evidence(fault.error)
    remedy = fault_remedy(fault, setting=setting)
    if remedy is not None:
        return Misconfigured(evidence, remedy)
    return Failed(evidence, unsent=fault.fault is Fault.UNREACHABLE)


def fault_remedy(fault: NoAnswer, *, setting: str = "url") -> str | None:
    """What to do about it; None where it may pass by itself."""
    known = _FAULT_REMEDIES.get(fault.fault)
    return None if known is None else known.format(setting=setting)


def http_outcome(answer: Answer, *, ids: Sequence[str], report: Report, now: float) -> Outcome:
    """
    What an HTTP answer means.

    Args:
        answer: what came back.
        ids: the event ids of the call.
        report: whether the body of a success may or must be a report of failed records.
        now: seconds since 1970, to read a `Retry-After` date with.
    """
    status = answer.status
    if 200 <= status < 300:
        if report is Report.IGNORED:
            return _DELIVERED
        return _reported(answer, ids, report, Evidence("", status=status))
    evidence = Evidence(
        f"HTTP {status}" + (" (redirects are not followed)" if 300 <= status < 400 else ""),
        detail=_text(answer.body),
        status=status,
        request_id=_request_id(answer.headers, _REQUEST_ID_HEADERS),
    )
    steer = answer.headers.get("webhook-delivery", "").strip().lower()
    if steer == "disable" or status == _GONE:
        return Misconfigured(evidence, _MISCONFIGURED_STATUS[_GONE], disable=True)
    if steer == "abort-message":
        return Rejected(evidence, final=True)
    if status in _MISCONFIGURED_STATUS:
        return Misconfigured(evidence, _MISCONFIGURED_STATUS[status])
    retry_after = parse_retry_after(answer.headers.get("Retry-After"), now)
    match status:
        case 413:
            return TooLarge(evidence)
        case 429:
            return Busy(evidence, retry_after)
        case 503 if retry_after is not None:
            return Busy(evidence, retry_after)
        case 408 | 425:
            return Failed(evidence, retry_after)
        case _ if 400 <= status < 500:
            return Rejected(evidence)
        case _:
            return Failed(evidence, retry_after)


def lambda_outcome(
    answer: Answer, *, function: str, ids: Sequence[str], event: bool, report: Report, now: float
) -> Outcome:
    """
    What Lambda's answer to Invoke means.

    Args:
        answer: what came back.
        function: the function as configured, for the remedy.
        ids: the event ids of the call.
        event: True for the invocation type `Event`, which is settled when Lambda has taken it (202).
        report: whether the function's answer may or must be a report of failed records.
        now: seconds since 1970, to read a `Retry-After` date with.
    """
    status, headers = answer.status, answer.headers
    if event and status == 202:
        return _ACCEPTED
    if not event and status == 200:
        function_error = headers.get("X-Amz-Function-Error")
        if function_error is None and report is Report.IGNORED:
            return _DELIVERED
        evidence = Evidence(
            _function_error(function_error, answer.body) if function_error is not None else "",
            detail=_text(answer.body) if function_error is not None else "",
            status=status,
            request_id=_request_id(headers, ("x-amzn-requestid",)),
            log_tail=_log_tail(headers.get("X-Amz-Log-Result")),
            function_error=_name(function_error),
            executed_version=_name(headers.get("X-Amz-Executed-Version")),
        )
        return Failed(evidence) if function_error is not None else _reported(answer, ids, report, evidence)
    return _api_error(answer, function, now)


def lambda_error_code(answer: Answer) -> str:
    """The error code of a refused Invoke, as the SDKs read it (REST-JSON); empty where there is none."""
    header = answer.headers.get("x-amzn-ErrorType")
    if header is None:
        body = _object(answer.body)
        header = next((value for key in ("code", "__type") if isinstance(value := body.get(key), str)), "")
    # "Code:http://…" as well as "namespace#Code" are on record.
    code = header.split(":", 1)[0].rsplit("#", 1)[-1].strip()
    return code if _NAME.fullmatch(code) else ""


def _api_error(answer: Answer, function: str, now: float) -> Outcome:
    status = answer.status
    code = lambda_error_code(answer)
    evidence = Evidence(
        " ".join(["Lambda", code or f"HTTP {status}", *_names(_object(answer.body).get("Reason"))]),
        detail=_text(answer.body),
        status=status,
        request_id=_request_id(answer.headers, ("x-amzn-requestid",)),
    )
    retry_after = parse_retry_after(answer.headers.get("Retry-After"), now)
    match error_class(code, status):
        case ErrorClass.BUSY:
            return Busy(evidence, retry_after)
        case ErrorClass.FAILED:
            return Failed(evidence, retry_after)
        case ErrorClass.MISCONFIGURED:
            return Misconfigured(evidence, remedy(code, status, function))
        case ErrorClass.TOO_LARGE:
            return TooLarge(evidence)
        case ErrorClass.REJECTED:
            return Rejected(evidence)


def _reported(answer: Answer, ids: Sequence[str], report: Report, evidence: Evidence) -> Outcome:
    try:
        failed = failed_ids(answer.body, ids, whole=answer.whole, report=report)
    except UnusableReport as unusable:
        return Failed(_with_error(evidence, f"the response is not a report of failed records: {unusable}", answer.body))
    if not failed:
        return _DELIVERED
    return Partial(failed, _with_error(evidence, "reported in batchItemFailures", b""))


def _with_error(evidence: Evidence, error: str, body: bytes) -> Evidence:
    return replace(evidence, error=error, detail=_text(body))


def _function_error(kind: str, body: bytes) -> str:
    """`Lambda Unhandled ValueError`. The type is the handler's own word, so only what looks like a name is taken."""
    return " ".join(["Lambda", *_names(kind, _object(body).get("errorType"))])


def _names(*values: Any) -> list[str]:
    return [name for value in values if (name := _name(value)) is not None]


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _request_id(headers: Mapping[str, str], names: Sequence[str]) -> str | None:
    for name in names:
        value = headers.get(name)
        if value is not None and _REQUEST_ID.fullmatch(value):
            return value
    return None


def _log_tail(header: str | None) -> str | None:
    """The last 4 KB of the invocation's log, as `LogType: Tail` sends it; the cut may go through a character."""
    if header is None:
        return None
    try:
        return _clean(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError):
        return None


def _text(body: bytes) -> str:
    # Four bytes at most to a character; one more, so that the cut shows.
    text = _clean(body[: 4 * DETAIL_CHARACTERS + 1])
    return text if len(text) <= DETAIL_CHARACTERS else text[:DETAIL_CHARACTERS] + "…"


def _clean(raw: bytes) -> str:
    """Readable in any case, and storable: PostgreSQL's text has no NUL."""
    return raw.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
