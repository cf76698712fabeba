"""
Feed damaged streams to the decoder, for as long as told: `python tests/unit/pgoutput/fuzz.py --seconds 60 [--seed 1]`.

Each round takes what a real server sent (`tests/corpus`), damages it, and reads it in both ways, by generated Python and
by the extension. Whatever the damage, nothing but a `ProtocolError` may come out, and both ways have to come to the same
events and the same error. A round is told by its seed and number alone, so every finding can be had again.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bridge.change import Event, Position
from bridge.errors import ProtocolError
from bridge.lsn import LSN
from bridge.pgoutput.assembler import Assembler, Route
from bridge.pgoutput.execution import GENERATED, NATIVE, Execution
from bridge.pgoutput.values import CatalogType
from bridge.triggers.filter import compile_patterns
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

CORPUS = Path(__file__).parents[2] / "corpus"

HEADER = 25
"""Bytes of XLogData before the message."""

TAGS = b"BCORYIUDTMkwSEcAbKPrp\0\xff"
EXTREMES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0" * 8,
    b"\xff" * 8,
)

SHAPES = (
    Shape(),
    Shape(include=frozenset({"id", "v", "name"}), order_by="table"),
    Shape(exclude=frozenset({"id"}), order_by=("name",)),
    Shape(order_by="none"),
)

FILTERS = (
    None,
    Selection(compile_patterns([{"record": {"id": [1, {"numeric": [">", 3]}]}}])),
    Selection(compile_patterns([{"record": {"v": [{"anything-but": {"prefix": "a"}}], "name": [{"exists": True}]}}])),
    Selection(compile_patterns([{"changes": {"v": [{"exists": True}]}}, {"action": ["delete"]}])),
    Selection(None, frozenset({"v", "name"})),
)


@dataclass(frozen=True)
class Stream:
    """One file of the corpus."""

    name: str
    frames: tuple[bytes, ...]
    keys: dict[int, tuple[str, ...]]
    types: dict[int, CatalogType]


@cache
def streams() -> tuple[Stream, ...]:
    found = []
    for path in sorted(CORPUS.glob("*/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        found.append(
            Stream(
                f"{path.parent.name}/{path.stem}",
                tuple(base64.b64decode(frame) for frame in document["frames"]),
                {int(oid): tuple(columns) for oid, columns in document["facts"]["primary_keys"].items()},
                {int(oid): CatalogType(*facts) for oid, facts in document["facts"]["types"].items()},
            )
        )
    return tuple(found)


# Damage


def flip(chance: random.Random, frame: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        if frame:
            frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)


def overwrite(chance: random.Random, frame: bytearray) -> None:
    value = chance.choice(EXTREMES)
    at = chance.randrange(len(frame) + 1)
    frame[at : at + len(value)] = value


def cut(chance: random.Random, frame: bytearray) -> None:
    del frame[chance.randrange(len(frame) + 1) :]


def extend(chance: random.Random, frame: bytearray) -> None:
    frame += chance.randbytes(chance.choice((1, 1, 4, 60)))


def remove(chance: random.Random, frame: bytearray) -> None:
    at = chance.randrange(len(frame) + 1)
    del frame[at : at + chance.choice((1, 2, 4, 8))]


def insert(chance: random.Random, frame: bytearray) -> None:
    at = chance.randrange(len(frame) + 1)
    frame[at:at] = chance.randbytes(chance.choice((1, 2, 4, 8)))


def retag(chance: random.Random, frame: bytearray) -> None:
    if len(frame) > HEADER:
        frame[HEADER] = chance.choice(TAGS)


def count(chance: random.Random, frame: bytearray) -> None:
    """Another number of columns, or another length, in the right place for a row."""
    if len(frame) > HEADER + 14:
        at = HEADER + chance.choice((6, 6, 9))
        frame[at : at + 2] = struct.pack(">H", chance.choice((0, 1, 2, 7, 0x7FFF, 0x8000, 0xFFFF)))


def noise(chance: random.Random, frame: bytearray) -> None:
    frame[:] = frame[:HEADER] + bytes([chance.choice(TAGS)]) + chance.randbytes(chance.randrange(60))


DAMAGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    flip, flip, overwrite, cut, extend, remove, insert, retag, count, noise,
)  # fmt: skip


def damaged(chance: random.Random, stream: Stream) -> list[bytes]:
    """A piece of a stream, with one to three things wrong with it; the relations of the piece are kept."""
    frames = list(stream.frames)
    if len(frames) > 60:  # the types: some tables of them are enough for a round
        start = chance.randrange(len(frames) - 40)
        frames = frames[start : start + 40]
    for _ in range(chance.choice((1, 1, 2, 3))):
        number = chance.randrange(len(frames))
        match chance.randrange(10):
            case 0:
                del frames[number]
            case 1:
                frames.insert(chance.randrange(len(frames) + 1), frames[number])
            case 2:
                other = chance.choice(streams()).frames
                frames.insert(number, chance.choice(other))
            case _:
                frame = bytearray(frames[number])
                chance.choice(DAMAGES)(chance, frame)
                frames[number] = bytes(frame)
        if not frames:
            break
    return frames


# Reading


def read(
    stream: Stream,
    frames: list[bytes],
    execution: Execution,
    shapes: tuple[Shape, ...],
    filters: tuple[Selection | None, ...] = FILTERS[:1],
) -> tuple[list[tuple], str | None]:
    """The events of all triggers, and what the stream ended with, if not well."""
    inboxes: list[list[Event]] = [[] for _ in shapes]
    operations = frozenset({"insert", "update", "delete", "truncate"})
    routes = [
        Route(f"t{n}", shape, operations, inboxes[n], Position(LSN(0), 0), filters[n % len(filters)])
        for n, shape in enumerate(shapes)
    ]
    assembler = Assembler(
        database="corpus",
        system_identifier="1",
        start_lsn=0,
        routes=lambda _: routes,
        message_routes=lambda prefix: [] if prefix.startswith("pgbridge.") else routes,
        primary_keys=stream.keys.get,
        types=stream.types.get,
        execution=execution,
    )
    ended = None
    try:
        assembler.consume(frames)
    except ProtocolError as error:
        ended = f"{type(error).__name__}: {error}"
    return [comparable(event) for inbox in inboxes for event in inbox], ended


def comparable(event: Event) -> tuple:
    """An event with its transaction's members in place of the transaction, which equals itself alone."""
    shared = event.transaction
    return (
        *event._replace(transaction=None),
        shared.commit_lsn,
        shared.previous_end_lsn,
        shared.committed_at,
        shared.xid,
    )


class FindingError(AssertionError):
    """A round that went as none should."""


def play(seed: int, number: int) -> str | None:
    """One round; returns what the stream ended with. Raises FindingError, and whatever else escapes the decoder."""
    chance = random.Random(f"{seed} {number}")
    stream = chance.choice(streams())
    frames = damaged(chance, stream)
    shapes = (SHAPES[0],) if chance.random() < 0.5 else tuple(chance.sample(SHAPES, chance.randrange(1, 4)))
    filters = tuple(chance.choices(FILTERS, k=len(shapes)))
    try:
        plain = read(stream, frames, GENERATED, shapes, filters)
        native = plain if NATIVE is None else read(stream, frames, NATIVE, shapes, filters)
    except Exception as error:
        raise FindingError(f"seed {seed}, round {number}, {stream.name}: {error!r}") from error
    if plain != native:
        raise FindingError(f"seed {seed}, round {number}, {stream.name}: {plain[1]} in Python, {native[1]} compiled")
    return plain[1]


def rounds(seed: int, *, seconds: float | None = None, most: int | None = None) -> Iterator[str | None]:
    """Play until the time or the number is over."""
    until = None if seconds is None else time.monotonic() + seconds
    number = 0
    while (most is None or number < most) and (until is None or time.monotonic() < until):
        yield play(seed, number)
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--round", type=int, help="play this one alone")
    arguments = parser.parse_args()
    if arguments.round is not None:
        print(play(arguments.seed, arguments.round))
        return
    print(f"seed {arguments.seed}, {len(streams())} streams, " + ("both ways" if NATIVE else "generated Python alone"))
    endings = [ending is None for ending in rounds(arguments.seed, seconds=arguments.seconds)]
    print(f"{len(endings)} rounds, {endings.count(True)} read to the end, the others ended in a ProtocolError")


if __name__ == "__main__":
    sys.exit(main())
