"""
What real servers sent, each major's, read again: the events are the case's own words (for `types` the server's), and the
messages say what PostgreSQL's own decoder said of the same WAL. `tests/corpus/make.py` records it.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.change import UNCHANGED, Event, Position
from bridge.errors import ProtocolError
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.frames import Keepalive, decode_frame
from bridge.pgoutput.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    RelationMessage,
    Truncate,
    TupleData,
    Update,
)
from bridge.pgoutput.values import CatalogType
from bridge.triggers.shape import Shape

CORPUS = Path(__file__).parents[2] / "corpus"
FILES = sorted(CORPUS.glob("*/*.json"))
MAJORS = ("14", "15", "16", "17", "18")


class Recorded:
    """One file, and an assembler that knows what the catalog of that server knew."""

    def __init__(self, path: Path) -> None:
        self.major = int(path.parent.name)
        document = json.loads(path.read_text(encoding="utf-8"))
        self.events: list[dict] = document["events"]
        self.test_decoding: list[str] | None = document["test_decoding"]
        self.frames = [base64.b64decode(frame) for frame in document["frames"]]
        self.keys = {int(oid): tuple(columns) for oid, columns in document["facts"]["primary_keys"].items()}
        self.types = {int(oid): CatalogType(*facts) for oid, facts in document["facts"]["types"].items()}

    def assembler(self, inbox: list[Event], **arguments: object) -> Assembler:
        route = Route("t", Shape(), frozenset({"insert", "update", "delete", "truncate"}), inbox, Position(LSN(0), 0))
        return Assembler(
            database="corpus",
            system_identifier="1",
            start_lsn=0,
            routes=lambda relation: [] if relation.name.startswith("pg_temp_") else [route],
            message_routes=lambda prefix: [] if prefix.startswith("pgbridge.") else [route],
            primary_keys=self.keys.get,
            types=self.types.get,
            **arguments,
        )


@pytest.fixture(scope="module", params=FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def recorded(request) -> Recorded:
    return Recorded(request.param)


def test_the_events_are_what_the_case_says(recorded, execution):
    inbox: list[Event] = []
    assembler = recorded.assembler(inbox, execution=execution)
    assert not assembler.consume(recorded.frames)
    assert [seen(event, expected) for event, expected in zip(inbox, recorded.events, strict=True)] == recorded.events
    assert [event.id for event in inbox] == sorted({event.id for event in inbox})
    assert assembler.transaction is None


def seen(event: Event, expected: dict) -> dict:
    """Of an event, what the case speaks of."""
    document = json.loads(event.body[:-1] + b"}}")
    metadata = document["metadata"]
    schema, name = metadata["table_schema"], metadata["table_name"]
    whole = metadata | document | {"table": name and f"{schema}.{name}", "at": event.ordinal}
    if "message" in expected:
        whole["message"] = {name: whole["message"][name] for name in expected["message"]}
    return {member: whole[member] for member in expected}


def test_one_frame_at_a_time_gives_the_same_events(recorded, execution):
    together, apart = [], []
    recorded.assembler(together, execution=execution).consume(recorded.frames)
    assembler = recorded.assembler(apart, execution=execution)
    for frame in recorded.frames:
        assembler.consume([frame])
    assert [event.body for event in apart] == [event.body for event in together]


def test_damaged_bytes_are_protocol_errors_or_other_values(recorded, execution):
    """Cut short and changed at random, by a seed of the file's own."""
    chance = random.Random(len(recorded.frames))
    for _ in range(60):
        frames = list(recorded.frames)
        number = chance.randrange(len(frames))
        frame = bytearray(frames[number])
        if chance.random() < 0.5:
            del frame[chance.randrange(len(frame)) :]
        else:
            frame[chance.randrange(len(frame))] ^= chance.randrange(1, 256)
        frames[number] = bytes(frame)
        try:
            recorded.assembler([], execution=execution).consume(frames)
        except ProtocolError:
            continue


# Beside PostgreSQL's own decoder


def test_the_messages_say_what_test_decoding_says(recorded):
    if recorded.test_decoding is None:
        pytest.skip("test_decoding sees other changes there")
    ours, its = list(own_words(recorded.frames)), list(its_words(recorded.test_decoding))
    if recorded.major < 17:  # it said no BEGIN before a message
        ours, its = ([words for words in all_ if words not in BOUNDARIES] for all_ in (ours, its))
    assert ours == its


BOUNDARIES = (("BEGIN",), ("COMMIT",))


def own_words(frames: list[bytes]) -> Iterator[tuple]:
    """Changes in the terms of test_decoding."""
    relations: dict[int, RelationMessage] = {}
    pending: tuple | None = None  # it passes empty transactions over
    for frame in frames:
        decoded = decode_frame(frame)
        if isinstance(decoded, Keepalive):
            continue
        message = decode(decoded.data, decoded.start)
        if isinstance(message, RelationMessage):
            relations[message.oid] = message
            continue
        said: tuple | None = None
        match message:
            case Begin():
                pending = ("BEGIN",)
            case Commit():
                if pending is None:
                    yield ("COMMIT",)
                pending = None
            case Insert():
                relation = relations[message.relation_oid]
                said = ("INSERT", relation.qualified_name, None, row(relation, message.new))
            case Update():
                relation = relations[message.relation_oid]
                old = message.key if message.key is not None else message.old
                said = ("UPDATE", relation.qualified_name, old and known(relation, old), row(relation, message.new))
            case Delete():
                relation = relations[message.relation_oid]
                old = message.key if message.key is not None else message.old
                said = ("DELETE", relation.qualified_name, known(relation, old), None)
            case Truncate():
                said = ("TRUNCATE", ", ".join(relations[oid].qualified_name for oid in message.relation_oids))
            case LogicalMessage():
                said = ("MESSAGE", message.transactional, message.prefix, len(message.content))
                if not message.transactional:
                    yield said
                    continue
        if said is not None:
            if pending is not None:
                yield pending
                pending = None
            yield said


def row(relation: RelationMessage, values: TupleData) -> dict[str, str | None]:
    return {
        column.name: "unchanged-toast-datum" if value is UNCHANGED else None if value is None else value.decode("utf-8", "backslashreplace")
        for column, value in zip(relation.columns, values, strict=True)
    }  # fmt: skip


def known(relation: RelationMessage, values: TupleData) -> dict[str, str | None]:
    """Of an old row test_decoding shows what is not null."""
    return {name: value for name, value in row(relation, values).items() if value is not None}


COLUMN = re.compile(
    r"(?P<name>\"(?:[^\"]|\"\")+\"|[^\s\[]+)\[(?P<type>(?:[^\[\]]|\[\])+)\]:"
    r"(?:B?'(?P<quoted>(?:[^']|'')*)'|(?P<bare>\S+))(?: |$)",
    re.DOTALL,
)
CHANGE = re.compile(r"table (?P<table>.+?): (?P<kind>INSERT|UPDATE|DELETE): ?(?P<rest>.*)", re.DOTALL)
TRUNCATED = re.compile(r"table (?P<tables>.+?): TRUNCATE: .*")
MESSAGE = re.compile(
    r"message: transactional: (?P<in>[01]) prefix: (?P<prefix>.*?), sz: (?P<size>\d+) content:", re.DOTALL
)


def its_words(lines: list[str]) -> Iterator[tuple]:
    for line in lines:
        if line in ("BEGIN", "COMMIT"):
            yield (line,)
        elif found := MESSAGE.match(line):
            yield ("MESSAGE", found["in"] == "1", found["prefix"], int(found["size"]))
        elif found := TRUNCATED.fullmatch(line):
            yield ("TRUNCATE", found["tables"])
        elif found := CHANGE.fullmatch(line):
            rest, kind = found["rest"], found["kind"]
            old = None
            if rest.startswith("old-key: "):
                before, rest = rest.removeprefix("old-key: ").split(" new-tuple: ")
                old = columns(before)
            table = unquoted_name(found["table"])
            yield (kind, table, columns(rest), None) if kind == "DELETE" else (kind, table, old, columns(rest))
        else:
            pytest.fail(f"a line of test_decoding that is not understood: {line[:60]}")


def columns(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    at = 0
    while at < len(text):
        column = COLUMN.match(text, at)
        assert column is not None, text[at : at + 60]
        name = column["name"]
        name = name[1:-1].replace('""', '"') if name.startswith('"') else name
        if column["quoted"] is not None:
            found[name] = column["quoted"].replace("''", "'")
        elif column["type"] == "boolean":
            found[name] = {"true": "t", "false": "f"}.get(column["bare"])
        else:
            found[name] = None if column["bare"] == "null" else column["bare"]
        at = column.end()
    return found


def unquoted_name(text: str) -> str:
    return ".".join(
        part[1:-1].replace('""', '"') if part.startswith('"') else part
        for part in re.findall(r"\"(?:[^\"]|\"\")+\"|[^.\"]+", text)
    )


# The corpus itself


def test_every_major_has_its_cases():
    have = {major: {path.stem for path in FILES if path.parent.name == major} for major in MAJORS}
    assert have["14"] >= {"types", "identity_full", "schema_changes", "not_utf8"}
    assert have["14"] <= have["15"] <= have["16"] <= have["17"] <= have["18"]
    assert "generated_columns_published" in have["18"] - have["17"]
    assert "row_filter_and_column_list" in have["15"] - have["14"]


def test_every_kind_of_message_is_in_it():
    tags = {
        frame[25:26]
        for path in FILES
        if path.parent.name == "18"
        for frame in Recorded(path).frames
        if frame[:1] == b"w"
    }
    assert tags == set(map(bytes, zip(b"BCORYIUDTM", strict=True)))
