"""Transforms and other envelopes at work: in a dispatcher, and again in a replay."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from types import ModuleType

import pytest

from bridge.batching.lanes import Window
from bridge.change import Event, Position, Transaction
from bridge.clock import SystemClock
from bridge.config import parse
from bridge.delivery.decide import Policy
from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.factory import build_form, is_batched, load_transform
from bridge.delivery.limits import Gate
from bridge.delivery.outcome import Evidence, Failed, Partial
from bridge.errors import ConfigError
from bridge.lsn import LSN
from bridge.replay import Replay, ReplayPlan
from bridge.store.memory import MemoryStore
from bridge.store.protocol import DeadLetter, LetterFilter, SourceIdentity
from bridge.testing import MemoryTarget
from bridge.triggers.envelope import Envelope
from bridge.triggers.transform import Transform

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def event(number: int, key: bytes | None = None) -> Event:
    transaction = Transaction(1000 + number, 900, 0.0, number)
    event_id = Position(LSN(transaction.commit_lsn), 0).event_id.encode()
    body = b'{"id":"%b","action":"insert","record":{"n":%d},"changes":null,"metadata":{"keys":{"n":%d},' % (
        event_id,
        number,
        number,
    )
    return Event(event_id, transaction, 0, key or b"%d" % number, None, "public.t", "insert", body)


def numbers(invocation):
    return [record["record"]["n"] for record in json.loads(invocation.body)["Records"]]


class Rig:
    def __init__(self, *, form=None, transform=None, attempts=0, gate=None):
        self.target = MemoryTarget()
        self.moves = asyncio.Event()
        self.errors = []
        self.dispatcher = Dispatcher(
            "t",
            target=self.target,
            envelope=Envelope("t", "7", form=form and build_form("t", "7", form), transform=transform),
            batched=True,
            window=Window(10, 0.0, 1 << 20, 60),
            policy=Policy(attempts, -1, bisect_on_error=False),
            parallelization_factor=2,
            checkpoint=Position(LSN(1), 0),
            clock=SystemClock(),
            moved=self.moves.set,
            failed=self.errors.append,
            gate=gate,
        )

    async def settle(self, *events):
        self.dispatcher.inbox.extend(events)
        self.dispatcher.admit()
        while self.dispatcher.settled_total < len(events):
            await self.moves.wait()
            self.moves.clear()


def even_only(event):
    if event["record"]["n"] == 3:
        raise ValueError("a value")
    return {**event, "record": {**event["record"], "seen": True}} if event["record"]["n"] % 2 == 0 else None


async def test_what_the_transform_drops_is_filtered_what_it_fails_at_a_letter_and_the_rest_arrives():
    rig = Rig(transform=Transform("m:f", even_only))
    await rig.settle(*map(event, range(1, 7)))
    assert [numbers(call) for call in rig.target.invocations] == [[2, 4, 6]]
    assert json.loads(rig.target.invocations[0].body)["Records"][0]["record"] == {"n": 2, "seen": True}
    counters = rig.dispatcher.counters
    assert (counters.filtered, counters.delivered, counters.dead_lettered) == (2, 3, 1)
    (letter,) = rig.dispatcher.letters
    assert (letter.error, letter.event_id) == ("transform m:f raised ValueError", event(3).id.decode())
    assert "a value" in letter.detail
    assert json.loads(letter.event)["record"] == {"n": 3}, "the letter holds the event as it was before"
    assert rig.dispatcher.tracker.checkpoint == event(6).position
    assert rig.errors == []


async def test_nothing_is_called_where_nothing_is_left():
    rig = Rig(transform=Transform("m:f", lambda event: None))
    await rig.settle(*map(event, range(1, 4)))
    assert rig.target.invocations == []
    assert (rig.dispatcher.counters.filtered, rig.dispatcher.buffered_bytes) == (3, 0)


async def test_what_is_not_sent_takes_no_calls_place():
    gate = Gate(at_once=1)
    rig = Rig(transform=Transform("m:f", lambda event: None), gate=gate)
    await rig.settle(event(1))
    assert gate.may_begin(0.0)


async def test_a_report_in_the_forms_own_names_retries_those_events():
    rig = Rig(form="kinesis", attempts=3)
    form = build_form("t", "7", "kinesis")
    rig.target.answer(Partial(frozenset({form.identifier(event(2))}), Evidence("named")))
    await rig.settle(*map(event, range(1, 4)))
    assert [list(call.ids) for call in rig.target.invocations] == [
        [form.identifier(event(number)) for number in (1, 2, 3)],
        [form.identifier(event(2))],
    ]


async def test_behind_a_bad_message_of_a_fifo_batch_nobody_is_charged():
    rig = Rig(form="sqs_fifo", attempts=0)
    names = [build_form("t", "7", "sqs_fifo").identifier(event(number)) for number in (1, 2, 3)]
    rig.target.answer(Partial(frozenset(names[1:]), Evidence("stopped there")))
    await rig.settle(*map(event, range(1, 4)))
    assert [letter.event_id for letter in rig.dispatcher.letters] == [event(2).id.decode()]
    assert list(rig.target.invocations[-1].ids) == [names[2]]
    assert json.loads(rig.dispatcher.letters[0].event)["record"] == {"n": 2}, "letters hold our own form"


# Replay


def letter(number, live):
    made = event(number)
    return DeadLetter(
        trigger="t", event_id=made.id.decode(), table=made.table, event=live.event(made), error="old", detail="", status=400,
        attempts=9, first_failed_at=NOON, last_failed_at=NOON, ordering_key=made.key,
    )  # fmt: skip


def plan(**changes):
    settings = parse(
        "source: {dsn: postgresql://h/d}\ntriggers: {t: {tables: [public.t], target: {lambda: {function_name: f}}}}", {}
    )
    return ReplayPlan(
        **{**{name: getattr(ReplayPlan.of(settings.triggers["t"]), name) for name in ReplayPlan.__slots__}, **changes}
    )


async def replayed(plan, *numbers):
    store = MemoryStore(clock=SystemClock())
    await store.claim(SourceIdentity("s", "7", 1, "shop"))
    await store.save(None, {}, [letter(number, Envelope("t", "7")) for number in numbers])
    target = MemoryTarget()
    result = await Replay(store, "s", "t", plan, target, clock=SystemClock()).run(LetterFilter())
    return target, result, await store.letters(LetterFilter())


@pytest.mark.parametrize("form", ["sequin", "debezium", "cloudevents", "sqs_fifo", "kinesis", "dynamodb"])
async def test_a_replay_sends_the_bytes_that_were_sent_live(form):
    rig = Rig(form=form)
    rig.target.answer(Failed(Evidence("HTTP 500", status=500)))
    await rig.settle(event(1), event(2))
    target, result, _ = await replayed(plan(envelope=form), 1, 2)
    (live,), (again,) = rig.target.invocations, target.invocations
    assert (again.body, again.ids, again.content, again.message_id) == (
        live.body,
        live.ids,
        live.content,
        live.message_id,
    )
    assert result.delivered == 2


async def test_a_mended_transform_gets_another_go_at_its_letters(monkeypatch):
    module = ModuleType("mended")
    module.shape = even_only
    monkeypatch.setitem(sys.modules, "mended", module)
    target, result, left = await replayed(plan(transform="mended:shape"), 1, 2, 3)
    assert [numbers(call) for call in target.invocations] == [[2]]
    assert (result.delivered, result.failed) == (2, 1), "dropped and sent ones leave the table"
    assert [each.error for each in left] == ["transform mended:shape raised ValueError"]


# What the settings mean


async def later(event):
    return event


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:f", "no_such_module can't be imported: ModuleNotFoundError"),
        ("json:nothing", "json has no function nothing"),
        ("given:later", "given has no function later that is not async"),
    ],
)
def test_a_transform_that_cannot_be_called_is_refused(name, says, monkeypatch):
    module = ModuleType("given")
    module.later = later
    monkeypatch.setitem(sys.modules, "given", module)
    with pytest.raises(ConfigError, match=says):
        load_transform(name, trigger="t")


def trigger(target, more=""):
    text = f"source: {{dsn: postgresql://h/d}}\ntriggers: {{t: {{tables: [public.t], {more} target: {target}}}}}"
    return parse(text, {}).triggers["t"]


def test_cloudevents_are_batched_only_where_that_is_asked_for():
    function = "{lambda: {function_name: f, envelope: cloudevents}}"
    assert not is_batched(trigger(function))
    assert is_batched(trigger(function, "batch_size: 10,"))
    assert is_batched(trigger("{http: {url: 'https://h/', batch: true, envelope: cloudevents}}"))
    assert is_batched(trigger("{lambda: {function_name: f, envelope: kinesis}}"))


@pytest.mark.parametrize(
    ("target", "more", "says"),
    [
        (
            "{lambda: {function_name: f, envelope: dynamodb}}",
            "operations: [insert, truncate],",
            "has truncate, which the envelope dynamodb has no form for",
        ),
        (
            "{http: {url: 'https://h/', envelope: sequin}}",
            "operations: [message],",
            "has message, which the envelope sequin",
        ),
        ("{http: {url: 'https://h/', envelope: kinesis}}", "", "envelope"),
        ("{http: {url: 'https://h/', envelope: cloudevents_binary, batch: true}}", "", "one event a request"),
        ("{lambda: {function_name: f, envelope: kinesis}}", "claim_check: {bucket: abc},", "claim_check"),
    ],
)
def test_what_an_envelope_has_no_form_for_is_refused(target, more, says):
    with pytest.raises(ConfigError, match=says):
        trigger(target, more)
