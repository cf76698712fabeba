r"""
Programs as generated Python: a frame's bytes in, an `Event` out, with one slice a column and no object besides.

For each kind of row message a function is written in Python source, specialised to the relation's columns and the
plan (`program.py`): constants are encoded beforehand, each column's encoder stands inline, columns that nobody wants
are stepped over, the ordering key is taken on the way. Relations that look alike (partitions) share the compiled
source; only the constants differ, bound as closure variables, which are as quick to read as locals.

The caller has compared bytes 25 to 33 with the program's (`ROW_KEY`), so tag, relation, tuple kind and number of
columns are known. A length that runs past the end makes the next read fail, or the final comparison of the offset with
the frame's length, so no event is made of bytes that are not there.

This is the way where the extension `_rows.pyx` was not built.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from bridge.change import Event
from bridge.pgoutput.plan import KEY_NULL, KEY_VALUE, NULL, Plan, Stamp
from bridge.pgoutput.program import NotHereError, Program, RowEncoder, Step
from bridge.pgoutput.values import TRUTH, Form, encode_json, encode_number


def compile_row(plan: Plan, kind: bytes) -> RowEncoder:
    """The function for one compilable kind of message (of `KINDS`); it gives the events that `Plan.encode` gives."""
    writer = _Writer(Program(plan, kind))
    source = writer.source()
    encode: RowEncoder = _make(source)(**writer.constants)
    return encode


_size = struct.Struct(">I").unpack_from
_TEXT, _NULL, _UNCHANGED = b"tnu"


def step_over_row(frame: bytes, _ordinal: int, _stamp: Stamp) -> None:
    """
    Check the framing of a row that nobody wants; encodes nothing.

    Raises: any of `GAVE_UP`.
    """
    columns = frame[31] << 8 | frame[32]
    at = _step_over_columns(frame, 33, columns)
    if frame[25] == ord("U") and frame[30] != ord("N"):
        if frame[at : at + 3] != b"N" + frame[31:33]:
            raise NotHereError
        at = _step_over_columns(frame, at + 3, columns)
    if at != len(frame):
        raise NotHereError


def _step_over_columns(frame: bytes, at: int, columns: int) -> int:
    for _ in range(columns):
        kind = frame[at]
        if kind == _TEXT:
            at += 5 + _size(frame, at + 1)[0]
        elif kind in (_NULL, _UNCHANGED):
            at += 1
        else:
            raise NotHereError
    return at


@lru_cache(maxsize=1024)
def _make(source: str) -> Callable[..., RowEncoder]:
    names: dict[str, Any] = {}
    # Our own source: column numbers and fixed text. Names and values from outside enter as arguments of `make`.
    exec(compile(source, "<relation plan>", "exec"), names)  # noqa: S102
    make: Callable[..., RowEncoder] = names["make"]
    return make


_KNOWN_ORDINALS: Final = 1024
_PADDED: Final = tuple(b"%010d" % n for n in range(_KNOWN_ORDINALS))
_NUMBERS: Final = tuple(b"%d" % n for n in range(_KNOWN_ORDINALS))

_SHARED: Final[dict[str, Any]] = {
    "size": _size,
    "dumps": orjson.dumps,
    "number": encode_number,
    "json": encode_json,
    "TRUTH": TRUTH,
    "new": tuple.__new__,
    "Event": Event,
    "NotHere": NotHereError,
    "PADDED": _PADDED,
    "NUMBERS": _NUMBERS,
    "NULL": NULL,
    "NONE": b"",
    "QUOTE": b'"',
    "ZULU": b'Z"',
    "SPACE": b" ",
    "T": b"T",
    "UTC": b"+00",
    "OPEN": b'{"id":"',
}


class _Writer:
    """Writes the source of one function, and collects the constants that it is closed over."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.plan = program.plan
        self.kind = program.kind
        self.lines: list[str] = []
        self.constants: dict[str, Any] = dict(_SHARED)
        self.in_record = [step for step in program.steps if step.in_record]
        self.in_keys = [step for step in program.steps if step.in_keys]
        # Where even the first column may be absent, which one has no comma before it is known only at run time.
        self.strip_comma = bool(self.in_record) and self.in_record[0].may_be_absent

    def source(self) -> str:
        for step in self.program.steps:
            if step.wanted:
                self._name_constants(step)
        self._line("transaction, id_prefix, lsn, times = stamp")
        self._line("o = 33")
        if self.program.has_old_row:
            self._read_old_tuple()
            self.constants["NEW"] = b"N" + struct.pack(">H", len(self.program.steps))
            self._line("if p[o:o + 3] != NEW: raise NotHere")
            self._line("o += 3")
            self._line("changed = NONE")
        if any(step.may_be_absent for step in self.in_record):
            self._line("absent = NONE")
        for step in self.program.steps:
            if step.wanted:
                self._read(step)
            else:
                self._step_over("pn" if self.kind in {b"UN", b"UO"} else "n")
        self._line("if o != len(p): raise NotHere")
        self._ordering_key()
        self._event()
        signature = ", ".join(self.constants)
        return (
            f"def make({signature}):\n def encode(p, ordinal, stamp):\n" + "\n".join(self.lines) + "\n return encode\n"
        )

    def _raw_kept(self, step: Step) -> bool:
        """Its text is needed beyond its encoding."""
        return self.program.has_old_row or step.orders

    def _complete(self, step: Step) -> bool:
        """Its JSON is made in one piece, because it stands in two places."""
        quoted = step.column.value_type.form in {Form.PLAIN, Form.FLOAT, Form.TIMESTAMP, Form.TIMESTAMPTZ}
        return step.in_keys or not quoted

    # Reading

    def _line(self, text: str, depth: int = 0) -> None:
        self.lines.append("  " + " " * depth + text)

    def _name_constants(self, step: Step) -> None:
        i, name = step.column.index, step.column.json_name
        self.constants[f"f{i}"] = step.column.encode
        if step.in_record:
            first = step is self.in_record[0] and not self.strip_comma
            before = self.program.before_record if first else b","
            self.constants[f"H{i}"] = before + name + b":"
            self.constants[f"HQ{i}"] = before + name + b':"'
            self.constants[f"C{i}"] = b"," + name + b":"
            self.constants[f"A{i}"] = b"," + name

    def _step_over(self, empty_kinds: str) -> None:
        self._line("k = p[o]")
        self._line("if k == 116: o += 5 + size(p, o + 1)[0]")
        condition = "k == 110 or k == 117" if empty_kinds == "pn" else "k == 110"
        self._line(f"elif {condition}: o += 1")
        self._line("else: raise NotHere")

    def _read_old_tuple(self) -> None:
        for step in self.program.steps:
            if not step.wanted:
                self._step_over("n")
                continue
            i = step.column.index
            self._line("if p[o] == 116:")
            self._line("b = o + 5", 1)
            self._line("o = b + size(p, o + 1)[0]", 1)
            self._line(f"o{i} = p[b:o]", 1)
            self._line("elif p[o] == 110:")
            self._line("o += 1", 1)
            self._line(f"o{i} = None", 1)
            self._line("else: raise NotHere")

    def _read(self, step: Step) -> None:
        i = step.column.index
        raw = f"n{i}" if self._raw_kept(step) else "r"
        shown = step.in_record or step.in_keys
        absent = step.may_be_absent
        self._line("if p[o] == 116:")
        self._line("b = o + 5", 1)
        self._line("o = b + size(p, o + 1)[0]", 1)
        self._line(f"{raw} = p[b:o]", 1)
        if shown:
            self._encode(step, raw, 1)
        self._line("elif p[o] == 110:")
        self._line("o += 1", 1)
        if self._raw_kept(step):
            self._line(f"{raw} = None", 1)
        if shown:
            self._assign(step, f"H{i}", "NULL", "NONE", 1)
        if absent or self.program.has_old_row:
            self._line("elif p[o] == 117:")
            self._line("o += 1", 1)
            if absent:
                self._assign(step, "NONE", "NONE", "NONE", 1)
                self._line(f"absent += A{i}", 1)
            else:
                self._line(f"{raw} = o{i}", 1)
                if shown:
                    self._assign(step, f"H{i}", f"NULL if {raw} is None else f{i}({raw})", "NONE", 1)
        self._line("else: raise NotHere")
        if self.program.has_old_row and step.in_record:
            self._line(f"if n{i} != o{i}: changed += C{i} + (NULL if o{i} is None else f{i}(o{i}))")

    def _assign(self, step: Step, name: str, value: str, end: str, depth: int) -> None:
        """Set what the record's member is joined from: `a` name and colon, `v` value, `z` closing quote."""
        i = step.column.index
        self._line(f"v{i} = {value}", depth)
        if not self._complete(step):
            self._line(f"a{i} = {name}; z{i} = {end}", depth)
        elif step.may_be_absent:
            self._line(f"a{i} = {name}", depth)

    def _encode(self, step: Step, raw: str, depth: int) -> None:
        i = step.column.index
        form = step.column.value_type.form
        if self._complete(step):
            expression = {
                Form.NUMBER: f"{raw} if {raw}.isdigit() else number({raw})",
                Form.BOOL: f"TRUTH[{raw}]",
                Form.TEXT: f"dumps({raw}.decode())",
                Form.JSON: f"{raw} if {raw}.isascii() else json({raw})",
            }.get(form, f"f{i}({raw})")
            self._assign(step, f"H{i}", expression, "NONE", depth)
        elif form is Form.PLAIN:
            self._assign(step, f"HQ{i}", raw, "QUOTE", depth)
        elif form is Form.FLOAT:
            self._line(f"if {raw}[-1] <= 57:", depth)
            self._assign(step, f"H{i}", raw, "NONE", depth + 1)
            self._line("else:", depth)
            self._assign(step, f"HQ{i}", raw, "QUOTE", depth + 1)
        elif form is Form.TIMESTAMP:
            self._line(f"if {raw}[-1] <= 57 and {raw}[10] == 32:", depth)
            self._assign(step, f"HQ{i}", f"{raw}.replace(SPACE, T)", "QUOTE", depth + 1)
            self._line("else:", depth)
            self._assign(step, f"HQ{i}", raw, "QUOTE", depth + 1)
        else:  # TIMESTAMPTZ
            self._line(f"if {raw}.endswith(UTC) and {raw}[10] == 32:", depth)
            self._assign(step, f"HQ{i}", f"{raw}[:-3].replace(SPACE, T)", "ZULU", depth + 1)
            self._line("else:", depth)
            self._assign(step, f"H{i}", f"f{i}({raw})", "NONE", depth + 1)

    # Writing

    def _ordering_key(self) -> None:
        self.constants["old_key"] = self.constants["key"] = None
        ordering = self.program.ordering
        if not ordering:
            self.constants["key"] = self.plan.table_key
            return
        del self.constants["key"]
        for position in range(len(ordering)):
            start = b"" if position else self.plan.key_prefix
            self.constants[f"KV{position}"] = start + KEY_VALUE
            self.constants[f"KN{position}"] = start + KEY_NULL

        def key(variable: str) -> str:
            pieces = [
                f"(KN{n} if {variable}{step.column.index} is None else KV{n} + {variable}{step.column.index})"
                for n, step in enumerate(ordering)
            ]
            return " + ".join(pieces)

        self._line(f"key = {key('n')}")
        if self.program.has_old_row:
            del self.constants["old_key"]
            changed = _any_differs(ordering)
            self._line(f"old_key = {key('o')} if {changed} else None")

    def _event(self) -> None:
        self._line("if ordinal < 1024:")
        self._line("event_id = id_prefix + PADDED[ordinal]; number_text = NUMBERS[ordinal]", 1)
        self._line("else:")
        self._line("event_id = id_prefix + b'%010d' % ordinal; number_text = b'%d' % ordinal", 1)
        self.constants["table"] = self.plan.table
        self.constants["action"] = self.program.action
        body = ", ".join(self._body())
        self._line(
            "return new(Event, (event_id, transaction, ordinal, key, old_key, table, action, "
            f"NONE.join(({body})), False))"
        )

    def _body(self) -> list[str]:
        """The expressions that the event's body is joined from."""
        pieces = ["OPEN", "event_id"]
        record = self._record()
        if self.strip_comma:
            pieces += [self._constant("ACTION", self.program.before_record), f"NONE.join(({', '.join(record)},))[1:]"]
        elif record:
            pieces += record
        else:
            pieces += [self._constant("ACTION", self.program.before_record)]
        metadata = self.plan.metadata
        if self.program.has_old_row:
            pieces += [self._constant("CHANGES", b'},"changes":{'), "changed[1:]"]
            pieces += [self._constant("META", b"}," + metadata)]
        else:
            pieces += [self._constant("META", b'},"changes":null,' + metadata)]
        pieces += ["lsn", "number_text", "times"]
        return pieces + self._keys_and_rest()

    def _record(self) -> list[str]:
        pieces = []
        for step in self.in_record:
            i = step.column.index
            named = f"H{i}" if self._complete(step) and not step.may_be_absent else f"a{i}"
            pieces += [named, f"v{i}"] if self._complete(step) else [named, f"v{i}", f"z{i}"]
        return pieces

    def _keys_and_rest(self) -> list[str]:
        pieces = []
        for position, step in enumerate(self.in_keys):
            i, start = step.column.index, b"," if position else b"{"
            pieces += [self._constant(f"K{i}", start + step.column.json_name + b":"), f"v{i}"]
        close = b"}" if self.in_keys else b"{}"
        unavailable = b',"unavailable":[%b' % self.program.unavailable
        if self.program.has_old_row and self.in_keys:
            pieces += [self._constant("REST", close + b',"old_keys":'), self._old_keys()]
            pieces += [self._constant("UNAVAILABLE", unavailable + b"],")]
        elif any(step.may_be_absent for step in self.in_record):
            pieces += [self._constant("REST", close + b',"old_keys":null' + unavailable), "absent[1:]"]
            pieces += [self._constant("CLOSE", b"],")]
        else:
            pieces += [self._constant("REST", close + b',"old_keys":null' + unavailable + b"],")]
        return pieces

    def _old_keys(self) -> str:
        indexes = [step.column.index for step in self.in_keys]
        members = ", ".join(f"K{i}, NULL if o{i} is None else f{i}(o{i})" for i in indexes)
        changed = _any_differs(self.in_keys)
        return f"(NONE.join(({members}, {self._constant('BRACE', b'}')})) if {changed} else NULL)"

    def _constant(self, name: str, value: bytes) -> str:
        self.constants[name] = value
        return name


def _any_differs(steps: Sequence[Step]) -> str:
    return " or ".join(f"n{step.column.index} != o{step.column.index}" for step in steps)
