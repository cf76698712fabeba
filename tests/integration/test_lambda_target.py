"""Lambda targets against a small Invoke endpoint, which answers what AWS has been seen to answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import os
import socket
from dataclasses import replace
from pathlib import Path

import boto3
import orjson
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials, InstanceMetadataProvider
from botocore.session import Session, get_session

from bridge.config import TriggerSettings
from bridge.delivery.aws import LACK_SECONDS, AwsCredentials
from bridge.delivery.aws_lambda import LONGEST_SECONDS, MARGIN_SECONDS, LambdaTarget
from bridge.delivery.batch_response import Report
from bridge.delivery.factory import build_target
from bridge.delivery.http_client import HttpClient
from bridge.delivery.outcome import Accepted, Busy, Delivered, Failed, Misconfigured, Partial, Rejected, TooLarge
from bridge.delivery.target import Invocation
from bridge.local.lambda_api import LocalLambda
from bridge.local.template import read_template
from bridge.secret import SecretResolver
from bridge.testing.clock import ManualClock

A, B = "00000000000000AB-0000000000", "00000000000000AB-0000000001"
BODY = '{"Records":[{"id":"…0"},{"id":"…1"}]}'.encode()
FUNCTIONS = Path(__file__).parent / "functions"
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:welcome"


@pytest.fixture(autouse=True)
def aws(monkeypatch, tmp_path):
    """An AWS environment with nothing of the machine's own in it."""
    for name in (
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_LAMBDA",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


class FakeLambda:
    """Keeps requests; answers Invoke with `answer`, DryRun with 204, GetFunctionConfiguration with `configuration`."""

    def __init__(self):
        self.invocations = []
        self.configuration_calls = 0
        self.configuration = {
            "Timeout": 3,
            "Version": "7",
            "Runtime": "python3.12",
            "MemorySize": 128,
            "State": "Active",
        }
        self.endpoint = ""
        self.returns(b"null")

    def returns(self, payload, **headers):
        self.says(200, payload, **headers)

    def says(self, status, payload=b"", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = lambda request: web.Response(
            status=status, body=payload, headers={"x-amzn-RequestId": "c2d6-1", **headers}
        )

    def refuses(self, status, code, **body):
        self.says(status, orjson.dumps({"Type": "User", "Message": "why", **body}), x_amzn_ErrorType=code)

    async def handle(self, request):
        body = await request.read()
        if request.path.endswith("/configuration"):
            self.configuration_calls += 1
            if isinstance(self.configuration, dict):
                return web.json_response(self.configuration)
            return self.configuration()
        if request.headers.get("X-Amz-Invocation-Type") == "DryRun":
            response = self.answer(request)
            return response if response.status >= 400 else web.Response(status=204)
        self.invocations.append((request, body))
        response = self.answer(request)
        return await response if asyncio.iscoroutine(response) else response

    @property
    def last(self):
        return self.invocations[-1]


@pytest.fixture
async def fake():
    fake = FakeLambda()
    application = web.Application(client_max_size=2**25)
    application.router.add_route("*", "/{tail:.*}", fake.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@contextlib.asynccontextmanager
async def target_of(fake, trigger=None, **settings):
    settings = {"function_name": "welcome", "endpoint_url": fake.endpoint, **settings}
    model = TriggerSettings.model_validate(
        {"tables": ["public.users"], "target": {"lambda": settings}, **(trigger or {})}
    )
    target = build_target("greet", model, SecretResolver())
    try:
        yield target
    finally:
        await target.close()


def invocation(body=BODY, *, ids=(A, B), attempt=1):
    return Invocation("greet", ids, body, batched=True, attempt=attempt, message_id="shop-greet-2-abc")


# What is sent


async def test_the_request_is_the_one_of_the_invoke_api(fake):
    async with target_of(fake, qualifier="live", tenant_id="blue") as target:
        assert await target.deliver(invocation(attempt=3)) == Delivered()
    request, body = fake.last
    assert request.method == "POST"
    assert request.raw_path == "/2015-03-31/functions/welcome/invocations?Qualifier=live"
    assert body == BODY
    assert request.headers["X-Amz-Invocation-Type"] == "RequestResponse"
    assert request.headers["X-Amz-Log-Type"] == "Tail"
    assert request.headers["X-Amz-Tenant-Id"] == "blue"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"].startswith("pgbridge/")
    assert orjson.loads(base64.b64decode(request.headers["X-Amz-Client-Context"])) == {
        "custom": {"trigger": "greet", "attempt": "3", "message_id": "shop-greet-2-abc"}
    }


async def test_each_call_has_a_trace_id_of_its_own_that_no_signature_covers(fake):
    async with target_of(fake) as target:
        await target.deliver(invocation())
        await target.deliver(invocation())
    first, second = (request.headers for request, _ in fake.invocations)
    assert first["X-Amzn-Trace-Id"].startswith("Root=1-")
    assert "Sampled" not in first["X-Amzn-Trace-Id"]
    assert first["X-Amzn-Trace-Id"] != second["X-Amzn-Trace-Id"]
    assert "x-amzn-trace-id" not in first["Authorization"]
    async with target_of(fake, trace_headers=False) as target:
        await target.deliver(invocation())
    assert "X-Amzn-Trace-Id" not in fake.last[0].headers


async def test_a_tenant_from_a_column_is_named_for_each_call(fake):
    async with target_of(fake, tenant_id_column="org") as target:
        assert await target.deliver(replace(invocation(), tenant="blue")) == Delivered()
        assert fake.last[0].headers["X-Amz-Tenant-Id"] == "blue"
        assert "x-amz-tenant-id" in fake.last[0].headers["Authorization"]
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Rejected)
    assert outcome.final
    assert "the column org" in outcome.evidence.error
    assert len(fake.invocations) == 1


async def test_a_repeated_call_names_the_same_durable_execution_until_it_has_failed(fake):
    def name():
        return fake.last[0].headers["X-Amz-Durable-Execution-Name"]

    async with target_of(fake, durable_execution_name=True, timeout_in_seconds=5) as target:
        fake.refuses(500, "ServiceException")
        await target.deliver(invocation())
        first = name()
        fake.refuses(429, "TooManyRequestsException")
        await target.deliver(invocation(attempt=2))
        assert name() == first
        fake.returns(b'{"errorType": "ValueError"}', X_Amz_Function_Error="Unhandled")
        await target.deliver(invocation(attempt=3))
        assert name() == first
        await target.deliver(invocation(attempt=4))
        assert name() != first
        await target.deliver(invocation(b'{"Records":[]}'))
        assert name() != first
    async with target_of(fake) as target:
        await target.deliver(invocation())
    assert "X-Amz-Durable-Execution-Name" not in fake.last[0].headers


@pytest.mark.parametrize("durable", [True, False])
async def test_a_batch_stays_as_it_is_while_its_durable_execution_may_be_running(fake, durable):
    def hang_up(request):
        request.transport.close()
        return web.Response()

    async with target_of(fake, durable_execution_name=durable, timeout_in_seconds=5) as target:
        fake.refuses(500, "ServiceException")
        assert (await target.deliver(invocation())).joins is durable
        fake.answer = hang_up
        assert (await target.deliver(invocation())).joins is durable
        # It has answered, so nothing is running; nor is anything where other content had the name.
        fake.returns(b'{"errorType": "ValueError"}', X_Amz_Function_Error="Unhandled")
        assert not (await target.deliver(invocation())).joins
        fake.refuses(409, "DurableExecutionAlreadyStartedException")
        assert not (await target.deliver(invocation())).joins


async def test_an_event_invocation_asks_for_no_log_and_settles_when_accepted(fake):
    fake.says(202)
    async with target_of(fake, invocation_type="Event") as target:
        assert await target.deliver(invocation()) == Accepted()
    request, _ = fake.last
    assert request.headers["X-Amz-Invocation-Type"] == "Event"
    assert "X-Amz-Log-Type" not in request.headers
    assert "X-Amz-Client-Context" not in request.headers  # Lambda passes it on for synchronous invocations only
    assert fake.configuration_calls == 0


@pytest.mark.parametrize("token", [None, "session//token=="])
@pytest.mark.parametrize("name", ["welcome", f"{ARN}:live", "123456789012:function:welcome"])
async def test_the_signature_is_the_one_that_botocore_makes_of_the_same_request(fake, monkeypatch, name, token):
    if token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    async with target_of(fake, function_name=name, region="eu-north-1") as target:
        assert await target.deliver(invocation()) == Delivered()
    request, body = fake.last
    stamp = dt.datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: stamp)
    signed = request.headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    again = AWSRequest(
        "POST",
        f"http://{request.headers['Host']}{request.raw_path}",
        headers={header: request.headers[header] for header in signed if header not in {"host", "x-amz-date"}},
        data=body,
    )
    SigV4Auth(Credentials("AKIDEXAMPLE", "secret", token), "lambda", "eu-north-1").add_auth(again)
    assert request.headers["Authorization"] == again.headers["Authorization"]
    assert request.headers.get("X-Amz-Security-Token") == token


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({"function_name": "welcome"}, {"FunctionName": "welcome"}),
        ({"function_name": "welcome", "qualifier": "live"}, {"FunctionName": "welcome", "Qualifier": "live"}),
        ({"function_name": "welcome", "qualifier": "$LATEST"}, {"FunctionName": "welcome", "Qualifier": "$LATEST"}),
        ({"function_name": "welcome:live"}, {"FunctionName": "welcome:live"}),
        ({"function_name": "welcome:live", "qualifier": "live"}, {"FunctionName": "welcome:live"}),
        ({"function_name": ARN}, {"FunctionName": ARN}),
        ({"function_name": f"{ARN}:7"}, {"FunctionName": f"{ARN}:7"}),
        ({"function_name": ARN, "qualifier": "7"}, {"FunctionName": ARN, "Qualifier": "7"}),
        ({"function_name": "123456789012:function:welcome"}, {"FunctionName": "123456789012:function:welcome"}),
        ({"function_name": "123456789012:welcome:live"}, {"FunctionName": "123456789012:welcome:live"}),
    ],
)
async def test_every_form_of_a_name_makes_the_path_that_boto3_makes(fake, settings, arguments):
    async with target_of(fake, **settings) as target:
        await target.deliver(invocation())
    client = boto3.client(
        "lambda", region_name="eu-west-1", endpoint_url=fake.endpoint, config=Config(retries={"total_max_attempts": 1})
    )
    await asyncio.to_thread(client.invoke, **arguments, Payload=BODY)
    client.close()
    (ours, _), (theirs, _) = fake.invocations
    assert ours.raw_path == theirs.raw_path


@pytest.mark.parametrize(
    ("name", "settings", "region"),
    [
        ("welcome", {}, "eu-west-1"),
        (ARN, {}, "eu-central-1"),
        (ARN, {"region": "us-east-2"}, "us-east-2"),
        ("welcome", {"region": "us-east-2"}, "us-east-2"),
    ],
)
async def test_the_region_is_the_one_set_else_that_of_the_arn_else_the_sdk_s(fake, name, settings, region):
    async with target_of(fake, function_name=name, **settings) as target:
        await target.deliver(invocation())
    assert f"/{region}/lambda/aws4_request" in fake.last[0].headers["Authorization"]


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA"])
async def test_the_sdk_s_own_endpoint_variables_are_followed(fake, monkeypatch, variable):
    monkeypatch.setenv(variable, fake.endpoint)
    async with target_of(fake, endpoint_url=None) as target:
        assert await target.deliver(invocation()) == Delivered()


async def test_the_endpoint_of_a_profile_is_followed(fake, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(
        f"[profile dev]\nregion = ap-south-1\nservices = local\n[services local]\nlambda =\n  endpoint_url = {fake.endpoint}\n"
    )
    (tmp_path / "credentials").write_text("[dev]\naws_access_key_id = AKIDDEV\naws_secret_access_key = x\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "dev")
    async with target_of(fake, endpoint_url=None) as target:
        assert await target.deliver(invocation()) == Delivered()
    assert "Credential=AKIDDEV/" in fake.last[0].headers["Authorization"]
    assert "/ap-south-1/lambda/" in fake.last[0].headers["Authorization"]


async def test_without_an_endpoint_the_call_would_go_to_the_region_s_own():
    target = LambdaTarget(
        function_name=ARN,
        qualifier=None,
        event=False,
        report=Report.WELCOME,
        credentials=AwsCredentials(ManualClock()),
        client=HttpClient(),
        clock=ManualClock(),
    )
    endpoint = await target._find_endpoint()
    assert str(endpoint.url.origin()) == "https://lambda.eu-central-1.amazonaws.com"
    await target.close()


# What comes back


async def test_an_answer_is_no_report_where_the_trigger_reads_none(fake):
    fake.returns(orjson.dumps({"batchItemFailures": [{"itemIdentifier": B}]}))
    async with target_of(fake, {"function_response_types": []}) as target:
        assert await target.deliver(invocation()) == Delivered()


@pytest.mark.parametrize("trigger", [{}, {"function_response_types": ["ReportBatchItemFailures"]}])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, Delivered()),
        ({}, Delivered()),
        ([], Delivered()),
        ("", Delivered()),
        ({"batchItemFailures": []}, Delivered()),
        ({"batchItemFailures": None}, Delivered()),
        ({"statusCode": 200}, Delivered()),
        ({"batchItemFailures": [{"itemIdentifier": B}]}, {B}),
        ({"batchItemFailures": [{"itemIdentifier": A}, {"itemIdentifier": B}]}, {A, B}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, Failed),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, Failed),
        ({"batchItemFailures": [{"itemIdentifier": "unknown"}]}, Failed),
        ({"batchItemFailures": [{"itemIdentifier": 123}]}, Failed),
        ({"batchItemFailures": [{"foo": A}]}, Failed),
        ({"batchItemFailures": [{"itemIdentifier": A}, {"itemIdentifier": "unknown"}]}, Failed),
    ],
)
async def test_the_answer_of_a_function_is_read_as_an_event_source_mapping_reads_it(fake, trigger, answer, expected):
    fake.returns(orjson.dumps(answer))
    async with target_of(fake, trigger) as target:
        outcome = await target.deliver(invocation())
    if isinstance(expected, set):
        assert isinstance(outcome, Partial)
        assert outcome.failed_ids == expected
    elif expected is Failed:
        assert isinstance(outcome, Failed)
    else:
        assert outcome == expected


@pytest.mark.parametrize(
    ("trigger", "expected"), [({}, Delivered), ({"function_response_types": ["ReportBatchItemFailures"]}, Failed)]
)
async def test_a_greeting_is_no_report_and_fails_only_where_a_report_was_promised(fake, trigger, expected):
    fake.returns(b'"Hello John Doe"')
    async with target_of(fake, trigger) as target:
        assert type(await target.deliver(invocation())) is expected


async def test_a_function_error_comes_with_its_log_and_its_request_id(fake):
    log = base64.b64encode(b"[ERROR] ValueError: boom\nEND RequestId: c2d6-1").decode()
    fake.returns(
        b'{"errorMessage":"boom","errorType":"ValueError"}', X_Amz_Function_Error="Unhandled", X_Amz_Log_Result=log
    )
    async with target_of(fake) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Failed)
    assert outcome.evidence.error == "Lambda Unhandled ValueError"
    assert outcome.evidence.log_tail == "[ERROR] ValueError: boom\nEND RequestId: c2d6-1"
    assert outcome.evidence.request_id == "c2d6-1"
    assert len(fake.invocations) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (429, "TooManyRequestsException", Busy),
        (502, "ENINotReadyException", Busy),
        (408, "EFSMountTimeoutException", Busy),
        (409, "SnapStartNotReadyException", Busy),
        (500, "ServiceException", Failed),
        (404, "ResourceNotFoundException", Misconfigured),
        (403, "AccessDeniedException", Misconfigured),
        (502, "KMSAccessDeniedException", Misconfigured),
        (400, "RecursiveInvocationException", Misconfigured),
        (413, "RequestTooLargeException", TooLarge),
        (400, "InvalidRequestContentException", Rejected),
    ],
)
async def test_a_refusal_is_classed_by_its_code_and_nothing_is_repeated(fake, status, code, expected):
    fake.refuses(status, code)
    async with target_of(fake) as target:
        outcome = await target.deliver(invocation())
    assert type(outcome) is expected
    assert outcome.evidence.error == f"Lambda {code}"
    assert len(fake.invocations) == 1


ERRORS_OF_INVOKE = {
    Busy: """
        CodeArtifactUserPendingException EC2ThrottledException EC2UnexpectedException EFSIOException
        EFSMountConnectivityException EFSMountTimeoutException ENILimitReachedException ENINotReadyException
        ResourceConflictException ResourceNotReadyException S3FilesMountConnectivityException
        S3FilesMountTimeoutException ServiceQuotaExceededException SnapStartException SnapStartNotReadyException
        SnapStartTimeoutException SubnetIPAddressLimitReachedException TooManyRequestsException
    """,
    Failed: "DurableExecutionAlreadyStartedException ServiceException",
    Misconfigured: """
        CodeArtifactUserDeletedException CodeArtifactUserFailedException EC2AccessDeniedException
        EFSMountFailureException InvalidParameterValueException InvalidRuntimeException
        InvalidSecurityGroupIDException InvalidSubnetIDException InvalidZipFileException KMSAccessDeniedException
        KMSDisabledException KMSInvalidStateException KMSNotFoundException ModeNotSupportedException
        NoPublishedVersionException RecursiveInvocationException ResourceNotFoundException
        RuntimeAliasDeletedException RuntimeVersionDeletedException S3FilesMountFailureException
        SnapStartRegenerationFailureException UnsupportedMediaTypeException
    """,
    Rejected: "InvalidRequestContentException",
    TooLarge: "RequestTooLargeException SerializedRequestEntityTooLargeException",
}
"""What design and manual make of them: written out, so that no error gets a class by accident."""


async def test_every_error_in_the_sdk_s_model_of_invoke_has_the_class_that_is_written_down(fake):
    written = {name: kind for kind, names in ERRORS_OF_INVOKE.items() for name in names.split()}
    model = get_session().get_service_model("lambda").operation_model("Invoke")
    assert {shape.name for shape in model.error_shapes} <= written.keys()
    async with target_of(fake) as target:
        for shape in model.error_shapes:
            fake.refuses(shape.metadata["error"]["httpStatusCode"], shape.name)
            outcome = await target.deliver(invocation())
            assert (shape.name, type(outcome)) == (shape.name, written[shape.name])
            assert outcome.evidence.error == f"Lambda {shape.name}"
            assert not isinstance(outcome, Misconfigured) or outcome.remedy


@pytest.mark.parametrize(
    ("sent", "kept"), [("4", 4.0), ("0", 0.0), ("86400", 300.0), ("-3", None), ("soon", None), ("1.5", 1.5)]
)
async def test_a_throttles_retry_after_is_clamped_and_what_is_none_is_ignored(fake, sent, kept):
    fake.says(429, b"{}", x_amzn_ErrorType="TooManyRequestsException", Retry_After=sent)
    async with target_of(fake) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Busy)
    assert outcome.retry_after_seconds == kept


async def test_a_throttle_names_its_reason_and_its_retry_after_is_kept(fake):
    fake.says(
        429,
        orjson.dumps({"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "message": "Rate Exceeded."}),
        x_amzn_ErrorType="TooManyRequestsException",
        Retry_After="4",
    )
    async with target_of(fake) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Busy)
    assert outcome.retry_after_seconds == 4
    assert outcome.evidence.error == "Lambda TooManyRequestsException ReservedFunctionConcurrentInvocationLimitExceeded"


async def test_six_megabytes_are_sent_in_one_piece_and_signed(fake):
    body = b'{"Records":["' + b"x" * 6_000_000 + b'"]}'
    async with target_of(fake) as target:
        assert await target.deliver(invocation(body)) == Delivered()
    assert fake.last[1] == body


# Time limits


async def test_a_call_waits_for_longer_than_the_function_may_run(fake):
    fake.configuration["Timeout"] = 120
    async with target_of(fake) as target:
        await target.deliver(invocation())
        assert await target._limit_seconds(target._endpoint) == 120 + MARGIN_SECONDS
        await target.deliver(invocation())
    assert fake.configuration_calls == 1


@pytest.mark.parametrize(
    "configuration",
    [
        lambda: web.json_response({"Message": "no"}, status=403, headers={"x-amzn-ErrorType": "AccessDeniedException"}),
        lambda: web.Response(status=500),
        {},
    ],
)
async def test_where_its_limit_can_not_be_read_no_function_is_given_up_too_early(fake, configuration):
    fake.configuration = configuration
    async with target_of(fake) as target:
        assert await target.deliver(invocation()) == Delivered()
        assert await target._limit_seconds(target._endpoint) == LONGEST_SECONDS


async def test_no_call_waits_for_longer_than_any_function_may_run(fake):
    fake.configuration["Timeout"] = 900
    async with target_of(fake) as target:
        await target.deliver(invocation())
        assert await target._limit_seconds(target._endpoint) == LONGEST_SECONDS


async def test_a_limit_in_the_settings_is_kept_and_nothing_is_looked_up(fake):
    hung = asyncio.Event()

    async def hang(request):
        await hung.wait()
        return web.Response()

    fake.answer = hang
    async with target_of(fake, timeout_in_seconds=0.2) as target:
        outcome = await target.deliver(invocation())
    hung.set()
    assert isinstance(outcome, Failed)
    assert outcome.evidence.error == "timeout after 0.2 s; whether the function ran is unknown"
    assert fake.configuration_calls == 0
    assert len(fake.invocations) == 1


async def test_after_a_timeout_the_limit_is_looked_up_again(fake, monkeypatch):
    async with target_of(fake) as target:
        await target.deliver(invocation())
        target._function_timeout_seconds = 0.2  # as if it had been looked up before the function's limit was raised
        hung = asyncio.Event()

        async def hang(request):
            await hung.wait()
            return web.Response()

        fake.answer = hang
        assert isinstance(await target.deliver(invocation()), Failed)
        hung.set()
        fake.returns(b"null")
        assert await target.deliver(invocation()) == Delivered()
        assert await target._limit_seconds(target._endpoint) == 3 + MARGIN_SECONDS
    assert fake.configuration_calls == 2


# Credentials


async def test_credentials_that_were_replaced_are_taken_up_without_a_charge_or_a_restart(fake, monkeypatch):
    async with target_of(fake) as target:
        assert await target.deliver(invocation()) == Delivered()
        fake.refuses(403, "ExpiredTokenException")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEXT")
        outcome = await target.deliver(invocation())
        assert isinstance(outcome, Busy)
        assert outcome.evidence.error == "Lambda ExpiredTokenException, and the credentials are others by now"
        fake.returns(b"null")
        assert await target.deliver(invocation()) == Delivered()
    assert "Credential=AKIDNEXT/" in fake.last[0].headers["Authorization"]


async def test_credentials_that_stay_refused_are_a_fault_of_the_settings(fake):
    fake.refuses(403, "UnrecognizedClientException")
    async with target_of(fake) as target:
        outcome = await target.deliver(invocation())
    assert isinstance(outcome, Misconfigured)
    assert outcome.remedy == "renew the AWS credentials of this process; what they are now is refused"


async def test_a_role_that_hands_out_new_keys_each_time_is_doubted_once(fake, monkeypatch):
    fake.refuses(403, "AccessDeniedException")
    async with target_of(fake) as target:
        kinds = []
        for number in range(4):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"AKID{number}")
            kinds.append(type(await target.deliver(invocation())))
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"AKID{number}-next")
        assert kinds == [Misconfigured, Busy, Misconfigured, Misconfigured]


async def test_keys_are_asked_for_again_twice_a_minute_and_not_for_each_call(monkeypatch):
    clock = ManualClock()
    credentials = AwsCredentials(clock)
    first = await credentials.keys()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEXT")
    assert await credentials.keys() is first
    clock.advance(31)
    # botocore's own keys of the environment never end, so it gives the same ones; as an equal object the signer keeps.
    assert await credentials.keys() is first
    assert await credentials.renew(first)
    assert (await credentials.keys()).access_key == "AKIDNEXT"


async def test_without_credentials_nothing_is_sent_to_aws_and_the_remedy_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    model = TriggerSettings.model_validate({"tables": ["public.users"], "target": {"lambda": {"function_name": "f"}}})
    target = build_target("greet", model, SecretResolver())
    outcome = await target.deliver(invocation())
    (finding,) = await target.check()
    await target.close()
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error == finding.what == "there are no AWS credentials"
    assert "AWS_PROFILE" in outcome.remedy
    assert not finding.ok


async def test_without_a_region_the_remedy_says_so(monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    model = TriggerSettings.model_validate({"tables": ["public.users"], "target": {"lambda": {"function_name": "f"}}})
    target = build_target("greet", model, SecretResolver())
    outcome = await target.deliver(invocation())
    await target.close()
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error == "no AWS region is set"


async def test_a_profile_that_does_not_exist_is_a_fault_of_the_settings(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    model = TriggerSettings.model_validate({"tables": ["public.users"], "target": {"lambda": {"function_name": "f"}}})
    target = build_target("greet", model, SecretResolver())
    outcome = await target.deliver(invocation())
    await target.close()
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error == "the AWS profile does not exist"


async def test_a_stand_in_on_this_machine_needs_no_aws_account(fake, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    async with target_of(fake) as target:
        assert await target.deliver(invocation()) == Delivered()
        assert all(finding.ok for finding in await target.check())


@pytest.fixture
def asked(monkeypatch):
    """Nothing on this machine says who it is; what is asked for credentials: the SDK, and by it the metadata service."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    asked = []
    look = Session.get_credentials

    def get_credentials(session):
        asked.append("sdk")
        return look(session)

    monkeypatch.setattr(Session, "get_credentials", get_credentials)
    monkeypatch.setattr(InstanceMetadataProvider, "load", lambda provider: asked.append("metadata"))
    return asked


def say_who(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEXT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")


async def test_a_stand_in_costs_one_search_for_credentials_and_none_outside_of_this_machine(fake, asked):
    async with target_of(fake) as target:
        for _ in range(20):
            assert await target.deliver(invocation()) == Delivered()
    assert asked == ["sdk"]


async def test_a_stand_in_that_wants_to_know_who_calls_is_told_of_the_instances_role(fake, asked, monkeypatch):
    fake.refuses(403, "UnrecognizedClientException")
    async with target_of(fake) as target:
        outcome = await target.deliver(invocation())
        assert isinstance(outcome, Misconfigured)
        assert asked == ["sdk", "sdk", "metadata"]
        say_who(monkeypatch)
        assert isinstance(await target.deliver(invocation()), Busy)
        fake.returns(b"null")
        assert await target.deliver(invocation()) == Delivered()
    assert "Credential=AKIDNEXT/" in fake.last[0].headers["Authorization"]


async def test_the_calls_of_a_moment_share_one_search_for_credentials_that_are_not_there(asked, monkeypatch):
    clock = ManualClock()
    credentials = AwsCredentials(clock)
    for _ in range(2):
        lacks = await asyncio.gather(*[credentials.keys() for _ in range(10)], return_exceptions=True)
        assert {str(lack) for lack in lacks} == {"there are no AWS credentials"}
    assert asked == ["sdk", "metadata"]
    clock.advance(LACK_SECONDS)
    say_who(monkeypatch)
    assert (await credentials.keys()).access_key == "AKIDNEXT"


async def test_a_role_is_assumed_once_for_many_calls(fake, monkeypatch):
    asked = []

    async def sts(request):
        asked.append(dict(await request.post()))
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        return web.Response(
            content_type="text/xml",
            text="<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleResult><Credentials>"
            "<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
            f"<Expiration>{ends.isoformat()}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
        )

    application = web.Application()
    application.router.add_post("/", sts)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with target_of(fake, role_arn="arn:aws:iam::123456789012:role/caller") as target:
        for _ in range(3):
            assert await target.deliver(invocation()) == Delivered()
    await runner.cleanup()
    assert [form["RoleArn"] for form in asked] == ["arn:aws:iam::123456789012:role/caller"]
    assert asked[0]["RoleSessionName"] == "pgbridge"
    assert "Credential=ASIAROLE/" in fake.last[0].headers["Authorization"]
    assert fake.last[0].headers["X-Amz-Security-Token"] == "t"


async def test_a_role_that_may_not_be_assumed_is_a_fault_of_the_settings(fake, monkeypatch):
    async def sts(request):
        return web.Response(
            status=403,
            content_type="text/xml",
            text="<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>",
        )

    application = web.Application()
    application.router.add_post("/", sts)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with target_of(fake, role_arn="arn:aws:iam::123456789012:role/caller") as target:
        outcome = await target.deliver(invocation())
    await runner.cleanup()
    assert isinstance(outcome, Misconfigured)
    assert outcome.evidence.error == "the AWS credentials can't be had: AccessDenied"
    assert "sts:AssumeRole" in outcome.remedy
    assert fake.invocations == []


# check


async def test_check_asks_whether_it_may_invoke_and_invokes_nothing(fake):
    async with target_of(fake, qualifier="live") as target:
        findings = await target.check()
    assert [(finding.ok, finding.what) for finding in findings] == [
        (True, "welcome:live may be invoked"),
        (True, "welcome:live: version 7, python3.12, 128 MB, timeout 3 s"),
    ]
    assert fake.invocations == []


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (404, "ResourceNotFoundException", "create welcome, or correct the function name"),
        (403, "AccessDeniedException", "let the role of this process call lambda:InvokeFunction on welcome"),
    ],
)
async def test_check_says_what_to_do_about_a_function_that_can_not_be_invoked(fake, status, code, remedy):
    fake.refuses(status, code)
    async with target_of(fake) as target:
        (finding,) = await target.check()
    assert not finding.ok
    assert finding.what == f"welcome can't be invoked: {code}"
    assert finding.remedy.startswith(remedy)


async def test_check_warns_of_a_limit_below_the_function_s(fake):
    fake.configuration["Timeout"] = 60
    async with target_of(fake, timeout_in_seconds=10) as target:
        findings = await target.check()
    assert [finding.ok for finding in findings] == [True, True, False]
    assert "may run for 60 s, and calls wait for 10 s" in findings[-1].what


async def test_check_names_a_function_that_can_not_run(fake):
    fake.configuration |= {
        "State": "Failed",
        "StateReasonCode": "InvalidZipFileException",
        "LastUpdateStatus": "Failed",
    }
    async with target_of(fake) as target:
        findings = await target.check()
    assert [finding.ok for finding in findings] == [True, True, False, True]
    assert "InvalidZipFileException" in findings[2].what


async def test_check_goes_without_the_right_to_read_the_configuration(fake):
    fake.configuration = lambda: web.json_response(
        {}, status=403, headers={"x-amzn-ErrorType": "AccessDeniedException"}
    )
    async with target_of(fake) as target:
        findings = await target.check()
    assert [finding.ok for finding in findings] == [True, True]
    assert "lambda:GetFunctionConfiguration" in findings[1].remedy


async def test_check_says_that_an_event_settles_when_accepted(fake):
    async with target_of(fake, invocation_type="Event") as target:
        findings = await target.check()
    assert findings[0].what == "welcome may be invoked, which settles changes when Lambda has accepted them"


async def test_an_endpoint_that_nobody_listens_on_is_a_failure_and_check_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        model = TriggerSettings.model_validate(
            {
                "tables": ["public.users"],
                "target": {"lambda": {"function_name": "f", "endpoint_url": endpoint, "timeout_in_seconds": 5}},
            }
        )
        target = build_target("greet", model, SecretResolver())
        outcome = await target.deliver(invocation())
        (finding,) = await target.check()
        await target.close()
    assert isinstance(outcome, Failed)
    assert outcome.unsent
    assert "connection refused" in outcome.evidence.error
    assert not finding.ok
    assert "connection refused" in finding.what


# Real functions, under the runtime client that AWS ships


@pytest.fixture
async def local():
    async with LocalLambda(read_template(FUNCTIONS / "template.yaml").functions, environ=os.environ) as api:
        yield api


@contextlib.asynccontextmanager
async def local_target(local, **settings):
    settings = {"endpoint_url": local.endpoint_url, **settings}
    model = TriggerSettings.model_validate({"tables": ["public.users"], "target": {"lambda": settings}})
    target = build_target("greet", model, SecretResolver())
    try:
        yield target
    finally:
        await target.close()


async def test_a_real_function_is_invoked_fails_with_its_log_and_runs_out_of_time(local):
    async with local_target(local, function_name="probe", qualifier="live") as target:
        assert await target.deliver(invocation(b'{"do":"print"}')) == Delivered()
        outcome = await target.deliver(invocation(b'{"do":"raise"}'))
        assert isinstance(outcome, Failed)
        assert outcome.evidence.error == "Lambda Unhandled PlannedError"
        assert "as planned" in outcome.evidence.log_tail
        assert outcome.evidence.request_id
        assert all(finding.ok for finding in await target.check())
    async with local_target(local, function_name="short") as target:
        outcome = await target.deliver(invocation(b'{"do":"sleep","seconds":5}'))
        assert isinstance(outcome, Failed)
        assert outcome.evidence.error == "Lambda Unhandled Sandbox.Timedout"
    async with local_target(local, function_name="probe", invocation_type="Event") as target:
        assert await target.deliver(invocation(b"{}")) == Accepted()


async def test_what_a_real_endpoint_refuses_has_its_class(local):
    async with local_target(local, function_name="nobody") as target:
        assert isinstance(await target.deliver(invocation()), Misconfigured)
        assert not (await target.check())[-1].ok
    async with local_target(local, function_name="probe", qualifier="nowhere") as target:
        assert isinstance(await target.deliver(invocation()), Misconfigured)
    async with local_target(local, function_name="probe") as target:
        assert isinstance(await target.deliver(invocation(b"{")), Rejected)
        assert isinstance(await target.deliver(invocation(b'"' + b"x" * 6_291_456 + b'"')), TooLarge)
