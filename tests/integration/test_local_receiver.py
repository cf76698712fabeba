"""The receiver: what it refuses, what it keeps, and what it does when it is told to go wrong."""

from __future__ import annotations

import asyncio
import base64
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

import aiohttp
import orjson
import pytest
import standardwebhooks

from bridge.errors import TargetError
from bridge.local.receiver import Receiver, counting, read_ledger
from bridge.testing.faults import Faults

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"o" * 24).decode()


def event(number: int) -> dict:
    return {"id": f"{number:016X}-0000000000", "action": "insert", "record": {"id": number}}


def signed(body: bytes, secret: str = SECRET, *, at: float | None = None, message_id: str = "msg") -> dict:
    moment = datetime.fromtimestamp(int(time.time() if at is None else at), UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(message_id, moment, body.decode()),
    }


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as session:
        yield session


async def post(client, receiver, document, **headers):
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    async with client.post(receiver.url + "hook", data=body, headers=headers) as response:
        return response.status, await response.read()


async def test_single_events_and_batches_are_kept_in_order(client):
    async with Receiver() as receiver:
        assert await post(client, receiver, event(1)) == (200, b"{}")
        assert await post(client, receiver, {"Records": [event(2), event(3)]}) == (200, b"{}")
        assert await post(client, receiver, [event(4)]) == (200, b"{}")
        assert [received.event for received in receiver.received] == [event(number) for number in (1, 2, 3, 4)]
        assert await receiver.wait_for(4) == receiver.received


async def test_whatever_the_json_type_lets_in_is_taken_and_kept(client, tmp_path):
    body = rb'{"id":"a","action":"insert","record":{"a":"\ud800","b":1e400,"c":"\u2028"}}'
    async with Receiver(ledger=tmp_path / "ledger.jsonl") as receiver:
        assert await post(client, receiver, body) == (200, b"{}")
    (line,) = read_ledger(tmp_path / "ledger.jsonl")
    assert line["event"]["record"]["a"] == "\ud800"


@pytest.mark.parametrize("body", [b"", b"{", b"1", b'"x"', b'{"a": 1}', b'{"Records": [1]}', b'[{"a": 1}]'])
async def test_a_body_that_is_no_event_is_refused(client, body):
    async with Receiver() as receiver:
        status, _ = await post(client, receiver, body)
        assert (status, receiver.received) == (400, [])


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "bearer token", "token", "Bearer tökén"])
async def test_a_wrong_bearer_token_is_refused(client, authorization):
    async with Receiver(bearer="token") as receiver:
        headers = {} if authorization is None else {"Authorization": authorization}
        status, _ = await post(client, receiver, event(1), **headers)
        assert (status, receiver.received) == (401, [])
        assert receiver.calls[0].reason == "the bearer token is missing or wrong"
        assert (await post(client, receiver, event(1), Authorization="Bearer token"))[0] == 200


async def test_a_signature_by_any_of_the_secrets_will_do(client):
    async with Receiver(signing_secrets=[SECRET, OTHER_SECRET]) as receiver:
        body = orjson.dumps(event(1))
        for secret in (SECRET, OTHER_SECRET):
            assert (await post(client, receiver, body, **signed(body, secret)))[0] == 200
        assert [received.message_id for received in receiver.received] == ["msg", "msg"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda body: {},
        lambda body: signed(body, OTHER_SECRET),
        lambda body: signed(body + b" "),
        lambda body: {**signed(body), "webhook-id": "another"},
        lambda body: signed(body, at=time.time() - 3600),
        lambda body: {**signed(body), "webhook-signature": "v1"},
        lambda body: {**signed(body), "webhook-signature": "v1,%%%"},
        lambda body: {**signed(body), "webhook-timestamp": "now"},
    ],
)
async def test_a_wrong_signature_is_refused(client, wrong):
    async with Receiver(signing_secrets=[SECRET]) as receiver:
        body = orjson.dumps(event(1))
        status, _ = await post(client, receiver, body, **wrong(body))
        assert (status, receiver.received) == (401, [])


async def test_refusals_and_failures_after_work_differ_in_what_is_kept(client):
    faults = Faults()
    faults.refuse(503, headers={"Retry-After": "7"})
    faults.fail_after_work(500)
    async with Receiver(faults=faults) as receiver:
        async with client.post(receiver.url, data=orjson.dumps(event(1))) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "7")
        assert receiver.ids() == []
        assert (await post(client, receiver, event(1)))[0] == 500
        assert receiver.ids() == [event(1)["id"]]
        assert (await post(client, receiver, event(1)))[0] == 200
        assert receiver.ids() == [event(1)["id"]] * 2
    faults.assert_used()


@pytest.mark.parametrize("after_work", [False, True])
async def test_a_dropped_connection_is_no_answer(client, after_work):
    faults = Faults()
    faults.drop(times=2, after_work=after_work)
    async with Receiver(faults=faults) as receiver:
        for _ in range(2):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await post(client, receiver, event(1))
        assert len(receiver.received) == (2 if after_work else 0)
        assert [call.status for call in receiver.calls] == [None, None]
    faults.assert_used()


async def test_a_held_answer_comes_when_released(client):
    faults = Faults()
    fault = faults.hold()
    async with Receiver(faults=faults) as receiver:
        answer = asyncio.create_task(post(client, receiver, event(1)))
        await fault.reached()
        assert not answer.done()
        assert receiver.ids() == [event(1)["id"]]
        fault.release()
        assert await answer == (200, b"{}")


async def test_single_events_of_a_batch_can_fail_until_mended(client):
    faults = Faults()
    fault = faults.fail_items(lambda one: one["record"]["id"] == 2)
    async with Receiver(faults=faults) as receiver:
        batch = {"Records": [event(1), event(2), event(3)]}
        failures = {"batchItemFailures": [{"itemIdentifier": event(2)["id"]}]}
        for _ in range(2):
            status, body = await post(client, receiver, batch)
            assert (status, orjson.loads(body)) == (200, failures)
        assert set(receiver.ids()) == {event(1)["id"], event(3)["id"]}
        faults.mend(fault)
        assert await post(client, receiver, batch) == (200, b"{}")
        assert event(2)["id"] in receiver.ids()


async def test_a_fault_happens_to_matching_events_only(client):
    faults = Faults()
    faults.refuse(418, matching=lambda one: one["record"]["id"] == 2)
    async with Receiver(faults=faults) as receiver:
        statuses = [(await post(client, receiver, event(number)))[0] for number in (1, 2, 2)]
        assert statuses == [200, 418, 200]


async def test_a_port_that_is_taken_is_a_clear_error():
    async with Receiver() as receiver:
        port = int(receiver.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(TargetError, match=f"port {port} of 127.0.0.1"):
            await Receiver(port=port).start()


async def test_the_counting_receiver_counts_what_a_real_client_sends(client):
    envelope = {"id": "a", "metadata": {"idempotency_key": "k"}}
    async with counting() as (url, totals):
        for document in (envelope, {"Records": [envelope] * 3}):
            async with client.post(url, data=orjson.dumps(document)) as response:
                assert (response.status, await response.json()) == (200, {})
        assert (totals.requests, totals.events) == (2, 4)


class Process:
    """The receiver as a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge.local.receiver", *arguments], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()

    def post(self, document: object, **headers: str) -> int:
        request = urllib.request.Request(self.url, orjson.dumps(document), headers)
        try:
            with urllib.request.urlopen(request) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def end(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        with self.process.stdout as stdout:
            rest = stdout.read()
        self.process.wait()
        return rest


@pytest.fixture
def start():
    started = []

    def start(*arguments: str) -> Process:
        started.append(Process(*arguments))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)


def test_what_was_acknowledged_is_in_the_ledger_of_a_killed_process(start, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    for first in (1, 3):
        process = start("--ledger", str(ledger))
        assert process.post({"Records": [event(first), event(first + 1)]}) == 200
        process.end(signal.SIGKILL)
    lines = read_ledger(ledger)
    assert [line["event"] for line in lines] == [event(number) for number in (1, 2, 3, 4)]
    assert [line["id"] for line in lines] == [event(number)["id"] for number in (1, 2, 3, 4)]


def test_a_line_that_was_cut_is_left_out(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(b'{"id":"a","at":1,"event":{}}\n{"id":"b","at"')
    assert [line["id"] for line in read_ledger(ledger)] == ["a"]


def test_the_process_verifies_and_ends_cleanly(start):
    process = start("--bearer", "token", "--signing-secret", SECRET)
    body = orjson.dumps(event(1))
    assert process.post(event(1), **signed(body)) == 401
    assert process.post(event(1), Authorization="Bearer token") == 401
    assert process.post(event(1), Authorization="Bearer token", **signed(body)) == 200
    process.end(signal.SIGTERM)
    assert process.process.returncode == 0


def test_the_counting_process_prints_its_totals_at_the_end(start):
    process = start("--count-only")
    assert process.post({"id": "a", "metadata": {"idempotency_key": "k"}}) == 200
    totals = orjson.loads(process.end(signal.SIGTERM))
    assert (totals["requests"], totals["events"]) == (1, 1)


def test_counting_goes_with_no_other_option():
    ended = subprocess.run(
        [sys.executable, "-m", "bridge.local.receiver", "--count-only", "--bearer", "x"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "leave the other options out" in ended.stderr
