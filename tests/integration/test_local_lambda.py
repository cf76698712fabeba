"""The local Lambda as an SDK sees it: an untouched boto3 client in front of real processes under awslambdaric."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions
import pytest

from bridge.errors import TargetError
from bridge.local import function_pool, lifeline
from bridge.local.lambda_api import LocalLambda
from bridge.local.template import FunctionSpec, read_template

TEMPLATE = Path(__file__).parent / "functions" / "template.yaml"
ARN = "arn:aws:lambda:us-east-1:123456789012:function"


class Served:
    """A LocalLambda on a thread of its own, for a client that blocks."""

    def __init__(self, **arguments: object) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        arguments.setdefault("environ", {"PATH": os.environ["PATH"]})
        functions = arguments.pop("functions", None) or read_template(TEMPLATE).functions
        self.api = LocalLambda(functions, **arguments)
        self.run(self.api.start())
        self.client = boto3.client(
            "lambda",
            endpoint_url=self.api.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=botocore.config.Config(retries={"total_max_attempts": 1}, max_pool_connections=20),
        )

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        self.client.close()
        self.run(self.api.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def invoke(self, function: str = "probe", event: object = None, **arguments: object) -> dict:
        answer = self.client.invoke(FunctionName=function, Payload=json.dumps(event or {}), **arguments)
        answer["Payload"] = answer["Payload"].read()
        return answer

    def result(self, event: object = None, function: str = "probe", **arguments: object) -> dict:
        answer = self.invoke(function, event, **arguments)
        assert "FunctionError" not in answer, answer["Payload"]
        return json.loads(answer["Payload"])

    def failure(self, event: object = None, function: str = "probe", **arguments: object) -> dict:
        answer = self.invoke(function, event, **arguments)
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        return json.loads(answer["Payload"])

    def refusal(self, call: Callable[[], object]) -> dict:
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call()
        return caught.value.response


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served(async_retry_seconds=(0, 0))
    yield served
    served.close()


@pytest.fixture
def make_served() -> Iterator[Callable[..., Served]]:
    made = []

    def make(**arguments):
        made.append(Served(**arguments))
        return made[-1]

    yield make
    for served in made:
        served.close()


class Hold:
    """Handlers that do "hold" say that they run, and go on one by one."""

    def __init__(self, folder: Path) -> None:
        self.event = {"do": "hold", "told": str(folder / "told"), "release": str(folder / "release")}
        for name in ("told", "release"):
            os.mkfifo(folder / name)
        # Open at both ends: neither side waits for the other to open it.
        self._told = os.fdopen(os.open(folder / "told", os.O_RDWR), encoding="ascii")
        self._release = os.open(folder / "release", os.O_RDWR)

    def running(self) -> tuple[str, int]:
        """The request id and the process of the next handler that says so."""
        request_id, pid = self._told.readline().split()
        return request_id, int(pid)

    def release(self, count: int = 1) -> None:
        os.write(self._release, b"." * count)

    def close(self) -> None:
        self._told.close()
        os.close(self._release)


@pytest.fixture
def hold(tmp_path) -> Iterator[Hold]:
    hold = Hold(tmp_path)
    yield hold
    hold.close()


def in_threads(*calls: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def tail(answer: dict) -> str:
    return base64.b64decode(answer["LogResult"]).decode()


def test_a_handler_gets_its_event_and_a_real_context(served):
    answer = served.invoke(event={"a": [1, "ä"]})
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert "LogResult" not in answer
    result = json.loads(answer["Payload"])
    assert result["event"] == {"a": [1, "ä"]}
    assert result["request_id"] == answer["ResponseMetadata"]["RequestId"]
    assert result["function_version"] == "$LATEST"
    assert result["arn"] == f"{ARN}:probe"
    assert result["memory"] == "256"
    assert 0 < result["remaining_ms"] <= 20_000
    assert result["cwd"] == str(TEMPLATE.parent / "probe")


def test_a_payload_may_be_whatever_the_json_type_lets_in(served):
    answer = served.client.invoke(FunctionName="probe", Payload=rb'{"a": "\ud800", "n": 12345678901234567890.50}')
    assert json.loads(answer["Payload"].read())["event"]["a"] == "\ud800"


@pytest.mark.parametrize("payload", [b"{", b"NaN", b'{"a": Infinity}', b"[" * 100_000, rb'"\ud800'])
def test_a_payload_that_is_no_json_is_refused(served, payload):
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        served.client.invoke(FunctionName="probe", Payload=payload)
    assert refused.value.response["Error"]["Code"] == "InvalidRequestContentException"


def test_a_call_without_payload_is_an_empty_event(served):
    answer = served.client.invoke(FunctionName="probe")
    assert json.loads(answer["Payload"].read())["event"] == {}


def test_calls_one_after_the_other_share_a_process_and_its_state(make_served):
    served = make_served()
    results = [served.result() for _ in range(5)]
    assert len({result["pid"] for result in results}) == 1
    assert [result["calls"] for result in results] == [1, 2, 3, 4, 5]


def test_calls_at_the_same_time_have_a_process_each_up_to_the_limit(make_served, hold):
    served = make_served(max_processes=3)
    results = []
    threads = in_threads(*[lambda: results.append(served.result(hold.event))] * 6)
    first = {hold.running()[1] for _ in range(3)}
    assert len(first) == 3
    then = set()
    for _ in range(3):
        hold.release()  # one at a time: of several, a call that has just begun might take what was meant for another
        then.add(hold.running()[1])
    hold.release(3)
    for thread in threads:
        thread.join()
    assert then <= first, "the calls that waited reuse the processes"
    assert len(results) == 6


@pytest.mark.parametrize(
    ("qualifier", "executed", "suffix"),
    [
        ({}, "$LATEST", ""),
        ({"Qualifier": "$LATEST"}, "$LATEST", ":$LATEST"),
        ({"Qualifier": "1"}, "1", ":1"),
        ({"Qualifier": "live"}, "1", ":live"),
    ],
)
def test_a_qualifier_chooses_the_version_and_shows_in_the_arn(served, qualifier, executed, suffix):
    answer = served.invoke(**qualifier)
    assert answer["ExecutedVersion"] == executed
    result = json.loads(answer["Payload"])
    assert (result["function_version"], result["arn"]) == (executed, f"{ARN}:probe{suffix}")


@pytest.mark.parametrize("name", [f"{ARN}:probe:live", "123456789012:function:probe:live", "probe:live"])
def test_the_qualifier_may_stand_in_the_name(served, name):
    assert served.invoke(name)["ExecutedVersion"] == "1"


def test_a_qualifier_that_contradicts_the_name_is_refused(served):
    response = served.refusal(lambda: served.invoke("probe:live", Qualifier="1"))
    assert response["Error"]["Code"] == "InvalidParameterValueException"


@pytest.mark.parametrize(
    ("name", "qualifier", "arn"),
    [
        ("nobody", {}, f"{ARN}:nobody"),
        ("probe", {"Qualifier": "dead"}, f"{ARN}:probe:dead"),
        ("short", {"Qualifier": "1"}, f"{ARN}:short:1"),
    ],
)
def test_an_unknown_function_or_qualifier_is_not_found(served, name, qualifier, arn):
    response = served.refusal(lambda: served.invoke(name, **qualifier))
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == "ResourceNotFoundException"
    assert response["Error"] == {"Code": "ResourceNotFoundException", "Message": f"Function not found: {arn}"}
    assert response["Type"] == "User"


def test_an_exception_comes_back_with_its_type_and_stack(served):
    answer = served.invoke(event={"do": "raise"}, LogType="Tail")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    payload = json.loads(answer["Payload"])
    assert payload["errorType"] == "PlannedError"
    assert payload["errorMessage"] == "as planned"
    assert payload["requestId"] == answer["ResponseMetadata"]["RequestId"]
    assert "raise PlannedError" in payload["stackTrace"][0]
    lines = tail(answer).splitlines()
    assert "[ERROR] PlannedError: as planned" in lines
    assert "Traceback (most recent call last):" in lines


def test_a_failed_process_is_kept(make_served):
    served = make_served()
    first = served.result()
    served.failure({"do": "raise"})
    after = served.result()
    assert (after["pid"], after["calls"]) == (first["pid"], 3)


def test_a_timeout_kills_the_process_and_says_so(served):
    answer = served.invoke("short", {"do": "sleep", "seconds": 600}, LogType="Tail")
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"]) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {request_id} Error: Task timed out after 1.00 seconds",
    }
    assert f"{request_id} Task timed out after 1.00 seconds" in tail(answer)
    assert re.search(r"REPORT RequestId: .*\tStatus: timeout\t\n$", tail(answer))
    assert served.result({}, "short")["calls"] == 1, "the next call has a new process"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"do": "exit", "code": 3}, "Runtime exited with error: exit status 3"),
        ({"do": "exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"do": "abort"}, "Runtime exited with error: signal: killed"),
    ],
)
def test_a_process_that_ends_in_the_handler_is_an_exit_error(served, event, reason):
    answer = served.invoke(event=event, LogType="Tail")
    assert answer["FunctionError"] == "Unhandled"
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert json.loads(answer["Payload"]) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: {reason}",
    }
    assert "Status: error\tError Type: Runtime.ExitError" in tail(answer)
    assert served.result()["event"] == {}


def test_a_module_that_is_missing_is_an_import_error(served):
    for _ in range(2):
        payload = served.failure(function="missing")
        assert payload["errorType"] == "Runtime.ImportModuleError"
        assert "Unable to import module 'nowhere'" in payload["errorMessage"]
        assert payload["stackTrace"] == []


def test_a_handler_that_is_missing_is_named(served):
    assert served.failure(function="no-handler")["errorType"] == "Runtime.HandlerNotFound"


def test_a_process_that_ends_while_it_loads_is_an_exit_error(served):
    payload = served.failure(function="dies")
    assert payload["errorType"] == "Runtime.ExitError"
    assert payload["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")


SLOW = """
import pathlib, time
first = pathlib.Path({first!r})
if {always} or not first.exists():
    first.touch()
    print("loading slowly", flush=True)
    time.sleep(600)
def handler(event, context):
    return "loaded"
"""


@pytest.mark.parametrize("always", [False, True])
def test_a_module_that_loads_too_slowly_is_loaded_again_in_the_invocations_time(tmp_path, monkeypatch, always):
    monkeypatch.setattr(function_pool, "_INIT_LIMIT_SECONDS", 0.5)
    code = SLOW.format(first=str(tmp_path / "first"), always=always)
    timeout = 1 if always else 20
    function = FunctionSpec("Slow", "slow", "index.handler", None, code, timeout_seconds=timeout)
    served = Served(functions=[function])
    try:
        answer = served.invoke("slow", LogType="Tail")
    finally:
        log = served.api.log("slow")
        served.close()
    assert re.search(r"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: timeout", log)
    if always:
        payload = json.loads(answer["Payload"])
        assert payload["errorType"] == "Sandbox.Timedout"
        assert payload["errorMessage"].endswith("Task timed out after 1.00 seconds")
        assert "Status: timeout" in tail(answer)
    else:
        assert answer["Payload"] == b'"loaded"'


def test_a_result_that_is_no_json_is_a_marshal_error(served):
    assert served.failure({"do": "unserializable"})["errorType"] == "Runtime.MarshalError"


def test_the_log_tail_has_the_platforms_lines_around_the_functions(make_served):
    served = make_served()
    for cold in (True, False):
        answer = served.invoke(event={"do": "print"}, LogType="Tail")
        request_id = answer["ResponseMetadata"]["RequestId"]
        lines = tail(answer).splitlines()
        if cold:
            assert lines.pop(0) == "loading"
        start, stdout, logged, stderr, unended, end, report = lines
        assert start == f"START RequestId: {request_id} Version: $LATEST"
        assert (stdout, stderr, unended) == ("to stdout", "to stderr", "no end of line")
        assert re.fullmatch(rf"\[WARNING\]\t[\d-]+T[\d:.]+Z\t{request_id}\tto the logger", logged)
        assert end == f"END RequestId: {request_id}"
        init = r"Init Duration: \d+\.\d\d ms\t" if cold else ""
        assert re.fullmatch(
            rf"REPORT RequestId: {request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\tMax Memory Used: \d+ MB\t{init}",
            report,
        )


def test_the_log_tail_is_the_last_4_kilobytes(served):
    raw = base64.b64decode(served.invoke(event={"do": "print much"}, LogType="Tail")["LogResult"])
    assert len(raw) == 4096
    assert b"xxxtail\nEND RequestId:" in raw


def test_the_function_sees_its_environment_and_not_ours(make_served, monkeypatch):
    monkeypatch.setenv("PGBRIDGE_TEST_SECRET", "ours")
    served = make_served(environ=os.environ)
    names = [
        "GREETING",
        "PGBRIDGE_TEST_SECRET",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "_HANDLER",
        "AWS_ENDPOINT_URL_LAMBDA",
    ]
    environment = served.result({"environ": names})["environment"]
    assert environment == {
        "GREETING": "hello",
        "PGBRIDGE_TEST_SECRET": None,
        "AWS_LAMBDA_FUNCTION_NAME": "probe",
        "AWS_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11",
        "_HANDLER": "app.handler",
        "AWS_ENDPOINT_URL_LAMBDA": served.api.endpoint_url,
    }


def test_the_bridge_package_is_importable_in_a_function(served):
    assert served.result(function="uses-bridge") == "bridge"


def test_the_client_context_reaches_the_handler(served):
    context = base64.b64encode(b'{\n"custom": {"k": "v"}}').decode()
    assert served.result(ClientContext=context)["client_context"] == {"k": "v"}


def test_the_tenant_reaches_the_handler(served):
    assert served.result(TenantId="blue")["tenant_id"] == "blue"


def test_a_client_context_that_is_no_json_is_refused(served):
    response = served.refusal(lambda: served.invoke(ClientContext=base64.b64encode(b"[").decode()))
    assert response["Error"]["Code"] == "InvalidRequestContentException"


def test_a_dry_run_answers_204_and_runs_nothing(make_served):
    served = make_served()
    answer = served.invoke(InvocationType="DryRun")
    assert (answer["StatusCode"], answer["Payload"]) == (204, b"")
    assert served.api.log("probe") == ""
    assert (
        served.refusal(lambda: served.invoke("nobody", InvocationType="DryRun"))["Error"]["Code"]
        == "ResourceNotFoundException"
    )


def test_an_event_is_accepted_and_tried_three_times_with_one_request_id(served, hold):
    answer = served.invoke(event={**hold.event, "fail": True}, InvocationType="Event")
    assert (answer["StatusCode"], answer["Payload"]) == (202, b"")
    assert "ExecutedVersion" not in answer
    for _ in range(3):
        assert hold.running()[0] == answer["ResponseMetadata"]["RequestId"]
        hold.release()


def test_json_that_does_not_parse_is_refused_without_its_content(served):
    response = served.refusal(lambda: served.client.invoke(FunctionName="probe", Payload=b'{"password": hunter2}'))
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert response["Error"]["Code"] == "InvalidRequestContentException"
    assert response["Error"]["Message"].startswith(
        "Could not parse request body into json: Could not parse payload into json: "
    )
    assert "hunter2" not in response["Error"]["Message"]
    assert response["Type"] == "User"


@pytest.mark.parametrize(("kind", "limit"), [("RequestResponse", 6 * 1024 * 1024), ("Event", 1024 * 1024)])
def test_a_request_over_the_limit_is_too_large(served, kind, limit):
    fits = b'"' + b"x" * (limit - 2) + b'"'
    assert served.client.invoke(FunctionName="uses-bridge", Payload=fits, InvocationType=kind)["StatusCode"] in (
        200,
        202,
    )
    response = served.refusal(
        lambda: served.client.invoke(FunctionName="uses-bridge", Payload=fits + b" ", InvocationType=kind)
    )
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert response["Error"]["Code"] == "RequestTooLargeException"
    assert str(limit) in response["Error"]["Message"]


def test_a_response_over_the_limit_is_an_error_and_the_function_goes_on(served):
    limit = 6 * 1024 * 1024 + 100
    answer = served.invoke(event={"do": "big", "bytes": limit - 2})
    assert len(answer["Payload"]) == limit
    assert served.failure({"do": "big", "bytes": limit - 1}) == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }
    assert served.result()["event"] == {}


def test_reserved_concurrency_throttles_what_is_beyond_it(served, hold):
    results = []
    (holder,) = in_threads(lambda: results.append(served.result(hold.event, "reserved")))
    hold.running()
    response = served.refusal(lambda: served.invoke("reserved"))
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert response["Error"] == {"Code": "TooManyRequestsException", "Message": "Rate Exceeded."}
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    hold.release()
    holder.join()
    assert len(results) == 1
    assert served.result({}, "reserved")["calls"] == 2


@pytest.mark.parametrize("arguments", [{"InvocationType": "Sometimes"}, {"LogType": "Head"}])
def test_a_value_outside_its_enumeration_is_refused(served, arguments):
    assert served.refusal(lambda: served.invoke(**arguments))["Error"]["Code"] == "ValidationException"


def test_get_function_describes_what_runs(served):
    document = served.client.get_function(FunctionName="probe", Qualifier="live")
    configuration = document["Configuration"]
    assert configuration["FunctionArn"] == f"{ARN}:probe:live"
    assert configuration["Version"] == "1"
    assert (configuration["Handler"], configuration["Timeout"], configuration["MemorySize"]) == ("app.handler", 20, 256)
    assert configuration["Environment"] == {"Variables": {"GREETING": "hello"}}
    assert configuration["State"] == "Active"
    assert served.client.get_function(FunctionName="reserved")["Concurrency"] == {"ReservedConcurrentExecutions": 1}
    same = served.client.get_function_configuration(FunctionName="probe", Qualifier="live")
    assert {name: same[name] for name in configuration} == configuration


def test_get_function_of_an_unknown_one_is_not_found(served):
    for call in (served.client.get_function, served.client.get_function_configuration):
        assert (
            served.refusal(lambda call=call: call(FunctionName="nobody"))["Error"]["Code"]
            == "ResourceNotFoundException"
        )


def test_list_functions_pages_through_all(served):
    pages = served.client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 3})
    names = [function["FunctionName"] for page in pages for function in page["Functions"]]
    assert names == ["dies", "missing", "no-handler", "probe", "reserved", "short", "uses-bridge"]
    every = served.client.list_functions(FunctionVersion="ALL")["Functions"]
    assert [function["Version"] for function in every if function["FunctionName"] == "probe"] == ["$LATEST", "1"]


def test_an_operation_that_is_not_served_says_so(served):
    assert served.refusal(served.client.get_account_settings)["Error"]["Code"] == "UnknownOperationException"


def test_a_reload_runs_the_code_as_it_is_now(tmp_path):
    (tmp_path / "app.py").write_text("def handler(event, context):\n    return 1\n")
    (tmp_path / "template.yaml").write_text(
        "Resources: {F: {Type: AWS::Serverless::Function, Properties: {Runtime: python3.11, Handler: app.handler, CodeUri: .}}}"
    )

    async def scenario():
        async with LocalLambda(read_template(tmp_path / "template.yaml").functions) as api:
            client = boto3.client(
                "lambda",
                endpoint_url=api.endpoint_url,
                region_name="us-east-1",
                aws_access_key_id="a",
                aws_secret_access_key="b",
            )

            def call():
                return client.invoke(FunctionName="F")["Payload"].read()

            try:
                before = await asyncio.to_thread(call)
                (tmp_path / "app.py").write_text("def handler(event, context):\n    return 2\n")
                await api.reload("F")
                after = await asyncio.to_thread(call)
            finally:
                client.close()
            return before, after

    assert asyncio.run(scenario()) == (b"1", b"2")


def test_stopping_ends_every_process_and_what_it_started(make_served):
    served = Served()
    pids = [served.result()["pid"], served.result({"do": "orphan"})]
    assert all(lifeline.alive(pid) for pid in pids)
    served.close()
    assert not any(lifeline.alive(pid) for pid in pids)


def test_stopping_ends_a_call_that_is_in_flight(hold):
    served = Served()
    failures = []

    def call():
        with pytest.raises(botocore.exceptions.BotoCoreError) as caught:
            served.client.invoke(FunctionName="probe", Payload=json.dumps(hold.event))
        failures.append(caught.value)

    (thread,) = in_threads(call)
    _, pid = hold.running()
    served.close()
    thread.join()
    assert len(failures) == 1
    assert not lifeline.alive(pid)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from bridge.local.lambda_api import LocalLambda
from bridge.local.template import read_template

async def main():
    api = await LocalLambda(read_template(Path(sys.argv[1])).functions).start()
    print(api.endpoint_url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_functions_end_with_the_process_that_serves_them_even_if_it_is_killed(hold):
    server = subprocess.Popen([sys.executable, "-c", KILLED, str(TEMPLATE)], stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().strip()
    client = boto3.client(
        "lambda", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.invoke(FunctionName="probe", Payload=json.dumps(hold.event), InvocationType="Event")
    _, pid = hold.running()
    handle = os.pidfd_open(pid)
    server.kill()
    select.select([handle], [], [])
    os.close(handle)
    server.communicate()
    client.close()


def test_a_port_that_is_taken_is_a_clear_error(served):
    port = int(served.api.endpoint_url.rpartition(":")[2])

    async def start():
        await LocalLambda(read_template(TEMPLATE).functions, port=port).start()

    with pytest.raises(TargetError, match=f"port {port} of 127.0.0.1"):
        asyncio.run(start())
