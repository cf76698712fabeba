"""The delivery table, a test for each row."""

from __future__ import annotations

import base64
from functools import cache

import botocore.session
import orjson
import pytest
from multidict import CIMultiDict

from bridge.delivery.answer import Answer, Fault, NoAnswer
from bridge.delivery.batch_response import Report
from bridge.delivery.classify import (
    DETAIL_CHARACTERS,
    fault_outcome,
    http_outcome,
    lambda_error_code,
    lambda_outcome,
)
from bridge.delivery.outcome import (
    Accepted,
    Busy,
    Delivered,
    Failed,
    Misconfigured,
    Partial,
    Rejected,
    TooLarge,
)

IDS = ["00000000000000AB-0000000000", "00000000000000AB-0000000001"]
NOW = 1_795_325_820.0


def http(status, body=b"", headers=(), *, report=Report.IGNORED, whole=True):
    answer = Answer(status, CIMultiDict(headers), body, whole)
    return http_outcome(answer, ids=IDS, report=report, now=NOW)


def invoke(status, body=b"", headers=(), *, report=Report.IGNORED, event=False, whole=True):
    answer = Answer(status, CIMultiDict(headers), body, whole)
    return lambda_outcome(answer, function="welcome-email", ids=IDS, event=event, report=report, now=NOW)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_any_2xx_is_delivered_whatever_it_says(status):
    assert http(status, b'{"batchItemFailures":[{"itemIdentifier":"x"}]}') == Delivered()


HTTP_ROWS = [
    (300, Failed),
    (301, Failed),
    (302, Failed),
    (303, Failed),
    (304, Failed),
    (307, Failed),
    (308, Failed),
    (400, Rejected),
    (401, Misconfigured),
    (402, Rejected),
    (403, Misconfigured),
    (404, Misconfigured),
    (405, Rejected),
    (406, Rejected),
    (408, Failed),
    (409, Rejected),
    (410, Misconfigured),
    (411, Rejected),
    (413, TooLarge),
    (415, Rejected),
    (418, Rejected),
    (422, Rejected),
    (425, Failed),
    (429, Busy),
    (431, Rejected),
    (451, Rejected),
    (499, Rejected),
    (500, Failed),
    (501, Failed),
    (502, Failed),
    (503, Failed),
    (504, Failed),
    (507, Failed),
    (520, Failed),
    (599, Failed),
    (999, Failed),
    (102, Failed),
]


@pytest.mark.parametrize(("status", "expected"), HTTP_ROWS)
@pytest.mark.parametrize("report", Report)
def test_each_http_status_has_its_class(status, expected, report):
    outcome = http(status, b"because", [("X-Request-Id", "r-1")], report=report)
    assert type(outcome) is expected
    assert outcome.evidence.error.startswith(f"HTTP {status}")
    assert outcome.evidence.status == status
    assert outcome.evidence.detail == "because"
    assert outcome.evidence.request_id == "r-1"


def test_a_redirect_says_why_it_is_a_failure():
    assert http(302).evidence.error == "HTTP 302 (redirects are not followed)"


@pytest.mark.parametrize(
    ("status", "header", "expected", "seconds"),
    [
        (503, "7", Busy, 7),
        (503, "Sun, 22 Nov 2026 05:37:30 GMT", Busy, 30),
        (503, "soon", Failed, None),
        (429, "7", Busy, 7),
        (429, "86400", Busy, 300),
        (500, "7", Failed, 7),
        (408, "7", Failed, 7),
        (425, "7", Failed, 7),
    ],
)
def test_retry_after_is_honoured_and_makes_a_503_busy(status, header, expected, seconds):
    outcome = http(status, headers=[("Retry-After", header)])
    assert type(outcome) is expected
    assert outcome.retry_after_seconds == seconds


def test_a_429_without_retry_after_is_busy_all_the_same():
    assert http(429).retry_after_seconds is None


def test_gone_disables_until_resumed_by_hand_and_the_other_misconfigurations_do_not():
    assert http(410).disable
    assert [http(status).disable for status in (401, 403, 404)] == [False, False, False]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_every_misconfigured_endpoint_has_a_remedy(status):
    assert http(status).remedy


@pytest.mark.parametrize("status", [302, 400, 401, 413, 429, 500])
def test_a_receiver_may_steer_with_webhook_delivery(status):
    disabled = http(status, headers=[("Webhook-Delivery", "disable")])
    assert isinstance(disabled, Misconfigured)
    assert disabled.disable
    assert isinstance(http(status, headers=[("webhook-delivery", " Abort-Message ")]), Rejected)
    assert type(http(status, headers=[("webhook-delivery", "dance")])) is type(http(status))


def test_steering_has_no_effect_on_a_success():
    assert http(200, headers=[("webhook-delivery", "disable")]) == Delivered()


def test_an_http_batch_may_report_failed_records():
    body = orjson.dumps({"batchItemFailures": [{"itemIdentifier": IDS[1]}]})
    outcome = http(200, body, report=Report.EXPECTED)
    assert isinstance(outcome, Partial)
    assert outcome.failed_ids == {IDS[1]}
    assert outcome.evidence.error == "reported in batchItemFailures"
    assert http(200, b"", report=Report.EXPECTED) == Delivered()
    assert http(204, b"", report=Report.WELCOME) == Delivered()
    assert http(200, b"OK", report=Report.WELCOME) == Delivered()
    failed = http(200, b"OK", report=Report.EXPECTED)
    assert isinstance(failed, Failed)
    assert failed.evidence.error == "the response is not a report of failed records: it is not JSON"
    assert failed.evidence.detail == "OK"


def test_a_report_cut_off_by_the_limit_fails_the_batch():
    assert isinstance(http(200, b'{"batchItemFailures":[', report=Report.EXPECTED, whole=False), Failed)


def test_detail_is_truncated_readable_and_storable():
    assert http(500, b"x" * 100_000).evidence.detail == "x" * DETAIL_CHARACTERS + "…"
    assert len(http(500, "💣".encode() * 10_000).evidence.detail) == DETAIL_CHARACTERS + 1
    assert http(500, b"a\0b\xffc").evidence.detail == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_nothing_that_the_target_said_is_in_the_error_or_in_a_repr():
    outcome = http(500, b"card 4111", [("X-Request-Id", "bad id\n4111")])
    assert "4111" not in outcome.evidence.error
    assert "4111" not in repr(outcome)
    assert outcome.evidence.request_id is None


# Lambda


def test_a_function_that_returns_is_delivered():
    assert invoke(200, b'{"statusCode":200}') == Delivered()
    assert invoke(200, b"", report=Report.EXPECTED) == Delivered()


def test_an_event_that_lambda_took_is_accepted():
    assert invoke(202, event=True) == Accepted()


@pytest.mark.parametrize(("status", "event"), [(202, False), (204, False), (200, True), (204, True)])
def test_a_success_of_another_kind_of_invocation_is_not_taken_for_one(status, event):
    outcome = invoke(status, event=event)
    assert isinstance(outcome, Failed)
    assert outcome.evidence.error == f"Lambda HTTP {status}"


def test_a_function_error_fails_the_batch_and_keeps_its_log():
    payload = {"errorMessage": "no user 4111", "errorType": "ValueError", "stackTrace": ["line 1"]}
    log = b"START\n[ERROR] ValueError: no user 4111\nEND"
    outcome = invoke(
        200,
        orjson.dumps(payload),
        [
            ("X-Amz-Function-Error", "Unhandled"),
            ("X-Amz-Log-Result", base64.b64encode(log).decode()),
            ("x-amzn-RequestId", "c2d6"),
        ],
        report=Report.EXPECTED,
    )
    assert isinstance(outcome, Failed)
    assert outcome.evidence.error == "Lambda Unhandled ValueError"
    assert outcome.evidence.log_tail == log.decode()
    assert outcome.evidence.request_id == "c2d6"
    assert orjson.loads(outcome.evidence.detail) == payload
    assert outcome.evidence.status == 200
    assert "4111" not in repr(outcome)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", "Lambda Unhandled"),
        (b"oops", "Lambda Unhandled"),
        (b'"text"', "Lambda Unhandled"),
        (b'{"errorType":null}', "Lambda Unhandled"),
        (b'{"errorType":"card 4111 1111"}', "Lambda Unhandled"),
        (b'{"errorType":"Runtime.ImportModuleError"}', "Lambda Unhandled Runtime.ImportModuleError"),
        (b'{"errorType":"Sandbox.Timedout"}', "Lambda Unhandled Sandbox.Timedout"),
        (b'{"errorType":"com.example.Foo$Bar"}', "Lambda Unhandled com.example.Foo$Bar"),
    ],
)
def test_only_what_looks_like_a_name_gets_into_the_error(payload, error):
    assert invoke(200, payload, [("X-Amz-Function-Error", "Unhandled")]).evidence.error == error


def test_a_log_cut_through_a_character_or_broken_costs_nothing_but_itself():
    cut = base64.b64encode("é".encode()[1:] + b" tail").decode()
    headers = [("X-Amz-Function-Error", "Unhandled"), ("X-Amz-Log-Result", cut)]
    assert invoke(200, b"", headers).evidence.log_tail == "\N{REPLACEMENT CHARACTER} tail"
    headers = [("X-Amz-Function-Error", "Unhandled"), ("X-Amz-Log-Result", "%%%")]
    assert invoke(200, b"", headers).evidence.log_tail is None


def test_a_partial_failure_keeps_the_log_of_the_invocation():
    body = orjson.dumps({"batchItemFailures": [{"itemIdentifier": IDS[0]}]})
    headers = [("X-Amz-Log-Result", base64.b64encode(b"tail").decode()), ("x-amzn-RequestId", "c2d6")]
    outcome = invoke(200, body, headers, report=Report.WELCOME)
    assert isinstance(outcome, Partial)
    assert outcome.failed_ids == {IDS[0]}
    assert (outcome.evidence.log_tail, outcome.evidence.request_id) == ("tail", "c2d6")
    assert invoke(200, body, headers) == Delivered()


EXPECTED = {
    "CodeArtifactUserDeletedException": Misconfigured,
    "CodeArtifactUserFailedException": Misconfigured,
    "CodeArtifactUserPendingException": Busy,
    "DurableExecutionAlreadyStartedException": Failed,
    "EC2AccessDeniedException": Misconfigured,
    "EC2ThrottledException": Busy,
    "EC2UnexpectedException": Busy,
    "EFSIOException": Busy,
    "EFSMountConnectivityException": Busy,
    "EFSMountFailureException": Misconfigured,
    "EFSMountTimeoutException": Busy,
    "ENILimitReachedException": Busy,
    "ENINotReadyException": Busy,
    "InvalidParameterValueException": Misconfigured,
    "InvalidRequestContentException": Rejected,
    "InvalidRuntimeException": Misconfigured,
    "InvalidSecurityGroupIDException": Misconfigured,
    "InvalidSubnetIDException": Misconfigured,
    "InvalidZipFileException": Misconfigured,
    "KMSAccessDeniedException": Misconfigured,
    "KMSDisabledException": Misconfigured,
    "KMSInvalidStateException": Misconfigured,
    "KMSNotFoundException": Misconfigured,
    "ModeNotSupportedException": Misconfigured,
    "NoPublishedVersionException": Misconfigured,
    "RecursiveInvocationException": Misconfigured,
    "RequestTooLargeException": TooLarge,
    "ResourceConflictException": Busy,
    "ResourceNotFoundException": Misconfigured,
    "ResourceNotReadyException": Busy,
    "RuntimeAliasDeletedException": Misconfigured,
    "RuntimeVersionDeletedException": Misconfigured,
    "S3FilesMountConnectivityException": Busy,
    "S3FilesMountFailureException": Misconfigured,
    "S3FilesMountTimeoutException": Busy,
    "SerializedRequestEntityTooLargeException": TooLarge,
    "ServiceException": Failed,
    "ServiceQuotaExceededException": Busy,
    "SnapStartException": Busy,
    "SnapStartNotReadyException": Busy,
    "SnapStartRegenerationFailureException": Misconfigured,
    "SnapStartTimeoutException": Busy,
    "SubnetIPAddressLimitReachedException": Busy,
    "TooManyRequestsException": Busy,
    "UnsupportedMediaTypeException": Misconfigured,
}


@cache
def statuses():
    model = botocore.session.get_session().get_service_model("lambda").operation_model("Invoke")
    return {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in model.error_shapes}


@pytest.mark.parametrize("code", sorted(statuses()))
@pytest.mark.parametrize("event", [False, True])
def test_each_error_of_the_invoke_api_has_its_class(code, event):
    headers = [("x-amzn-ErrorType", code), ("x-amzn-RequestId", "c2d6")]
    outcome = invoke(statuses()[code], b'{"Type":"User","Message":"why"}', headers, event=event)
    assert type(outcome) is EXPECTED[code]
    assert outcome.evidence.error == f"Lambda {code}"
    assert outcome.evidence.request_id == "c2d6"
    assert outcome.evidence.status == statuses()[code]


@pytest.mark.parametrize(
    "reason",
    [
        "ConcurrentInvocationLimitExceeded",
        "FunctionInvocationRateLimitExceeded",
        "ReservedFunctionConcurrentInvocationLimitExceeded",
        "ReservedFunctionInvocationRateLimitExceeded",
        "CallerRateLimitExceeded",
        "ConcurrentSnapshotCreateLimitExceeded",
    ],
)
def test_each_reason_of_a_throttle_is_busy_and_named(reason):
    body = orjson.dumps({"Reason": reason, "Type": "User", "message": "Rate Exceeded."})
    outcome = invoke(429, body, [("x-amzn-ErrorType", "TooManyRequestsException"), ("Retry-After", "2")])
    assert outcome == Busy(outcome.evidence, 2)
    assert outcome.evidence.error == f"Lambda TooManyRequestsException {reason}"


@pytest.mark.parametrize(
    "code",
    ["AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"],
)
def test_a_refused_caller_is_a_misconfiguration_with_a_remedy(code):
    outcome = invoke(403, b'{"Message":"User: arn:x is not authorized"}', [("x-amzn-ErrorType", code)])
    assert isinstance(outcome, Misconfigured)
    assert outcome.remedy
    assert not outcome.disable


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ([("X-Amzn-Errortype", "ResourceNotFoundException")], b"", "ResourceNotFoundException"),
        ([("x-amzn-ErrorType", "ResourceNotFoundException:http://internal/")], b"", "ResourceNotFoundException"),
        ([("x-amzn-ErrorType", "com.amazonaws.lambda#ServiceException")], b"", "ServiceException"),
        ([], b'{"__type":"com.amazonaws.lambda#ServiceException"}', "ServiceException"),
        ([], b'{"code":"ThrottlingException"}', "ThrottlingException"),
        ([], b'{"__type":7}', ""),
        ([], b"<html>", ""),
        ([("x-amzn-ErrorType", "what is this 4111")], b"", ""),
    ],
)
def test_the_error_code_is_read_as_the_sdks_read_it(headers, body, code):
    assert lambda_error_code(Answer(400, CIMultiDict(headers), body)) == code


# No answer


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.ADDRESS_REFUSED, Misconfigured),
        (Fault.NAME_UNKNOWN, Misconfigured),
        (Fault.NOT_VERIFIED, Misconfigured),
        (Fault.NO_TLS, Misconfigured),
        (Fault.UNREACHABLE, Failed),
        (Fault.TIMEOUT, Failed),
        (Fault.DROPPED, Failed),
        (Fault.GARBLED, Failed),
    ],
)
def test_each_way_of_having_no_answer_has_its_class(fault, expected):
    outcome = fault_outcome(NoAnswer(fault, "why"), setting="url")
    assert type(outcome) is expected
    assert outcome.evidence.error == "why"
    assert expected is Failed or ("{" not in outcome.remedy and outcome.remedy)
    # Whether the target saw anything of a call that was cut off, nobody knows.
    assert getattr(outcome, "unsent", False) is (fault is Fault.UNREACHABLE)


def test_every_fault_is_classified():
    assert {type(fault_outcome(NoAnswer(fault, ""))) for fault in Fault} == {Misconfigured, Failed}
