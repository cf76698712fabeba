"""What docs/envelopes.md and docs/transforms.md show is what happens."""

import hmac
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from bridge import __version__
from bridge.change import Event, Transaction
from bridge.config import parse
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.messages import Column, RelationMessage
from bridge.pgoutput.plan import Plan, make_stamp
from bridge.testing import wire
from bridge.triggers.envelope import Envelope
from bridge.triggers.forms import FORMS, Origin
from bridge.triggers.transform import Transform

DOCS = Path(__file__).parents[3] / "docs"
BLOCK = re.compile(r"^```(\w+) (\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(name):
    return [match.groups() for match in BLOCK.finditer((DOCS / name).read_text(encoding="utf-8"))]


ENVELOPES = {title: text for _, title, text in blocks("envelopes.md")}
WHOLE = json.loads(ENVELOPES["event"])


def the_event():
    body = json.dumps(
        {**WHOLE, "metadata": {k: v for k, v in WHOLE["metadata"].items() if k not in ("trigger", "idempotency_key")}}
    )
    return Event(
        WHOLE["id"].encode(),
        Transaction(27440064, 0, 0, 743),
        3,
        b"k",
        None,
        "public.users",
        "update",
        body[:-2].encode() + b",",
    )


def sent(form, *, batched=False):
    envelope = Envelope("welcome", "734", form=FORMS[form](Origin("welcome", "734")))
    event = the_event()
    assert not envelope.prepare([event]).failed
    return json.loads(envelope.records([event]) if batched else envelope.single([event]))


def test_the_example_event_is_complete():
    assert json.loads(Envelope("welcome", "734").event(the_event())) == WHOLE


def test_the_sequin_message_is_as_shown():
    made, shown = sent("sequin"), json.loads(ENVELOPES["sequin"])
    for part in ("consumer", "database"):
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made["metadata"][part].pop("id")
        )
        del shown["metadata"][part]["id"]  # the example's is short for one
    assert made == shown


def test_the_debezium_event_is_as_shown():
    shown = json.loads(ENVELOPES["debezium"])
    shown["source"]["version"] = __version__
    assert sent("debezium") == shown


def test_the_cloudevent_is_as_shown():
    assert sent("cloudevents") == {**json.loads(ENVELOPES["cloudevents"]), "data": WHOLE}


@pytest.mark.parametrize("form", ["sqs_fifo", "kinesis", "dynamodb"])
def test_the_handlers_take_their_records(form):
    names, results = {}, []
    exec(ENVELOPES[form], names)
    shown = names["on_record"]
    names["on_record"] = lambda record: results.append(shown(record))
    assert names["handler"](sent(form, batched=True), None) == {"batchItemFailures": []}
    assert results == ["Jane"]


def test_every_envelope_is_in_the_table():
    table = re.findall(r"^\| `(\w+)` \| ", (DOCS / "envelopes.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert table == ["envelope", "pgbridge", *FORMS]


# docs/transforms.md

STAMP = make_stamp(Transaction(27440064, 0x800, 0.0, 743), wire.COMMITTED_AT)
TRANSFORMS = blocks("transforms.md")
ROW = json.loads(next(text for _, title, text in TRANSFORMS if title == "row"))
EXAMPLES = [
    (settings, json.loads(record))
    for (_, title, settings), (_, _, record) in pairwise(TRANSFORMS)
    if title == "columns"
]


def made(shape):
    columns = tuple(Column(int(name == "id"), name, 23 if name == "id" else 25, -1) for name in ROW)
    plan = Plan(RelationMessage(1, "public", "users", "d", columns), shape, database="shop")
    event = plan.encode(decode(wire.insert(1, [str(value) for value in ROW.values()])), 3, STAMP)
    return Envelope("t", "734").event(event)


@pytest.mark.parametrize(("settings", "record"), EXAMPLES, ids=[settings.strip() for settings, _ in EXAMPLES])
def test_the_settings_give_the_record_that_is_shown(settings, record):
    trigger = {"tables": ["public.users"], "target": {"lambda": {"function_name": "f"}}, **yaml.safe_load(settings)}
    parsed = parse(json.dumps({"source": {"dsn": "postgresql://h/d"}, "triggers": {"t": trigger}}), {})
    if "hash" in settings:
        key = trigger["mask"]["email"]["hash"].encode()
        record["email"] = hmac.new(key, ROW["email"].encode(), "sha256").hexdigest()  # the example's is cut short
    assert json.loads(made(parsed.triggers["t"].shape()))["record"] == record


def test_there_are_examples():
    assert len(EXAMPLES) == 4


def test_the_function_does_what_is_shown():
    (source, shown) = next(
        (source, json.loads(record))
        for (_, title, source), (_, _, record) in pairwise(TRANSFORMS)
        if title == "transform"
    )
    names = {}
    exec(source, names)
    transform = Transform("shop.reshape:event", names["event"])
    whole = made(
        parse(
            "source: {dsn: postgresql://h/d}\ntriggers: {t: {tables: [a.b], target: {lambda: {function_name: f}}}}", {}
        )
        .triggers["t"]
        .shape()
    )
    assert json.loads(transform.apply(whole))["record"] == shown
    assert transform.apply(whole.replace(b'"pro"', b'"free"')) is None
