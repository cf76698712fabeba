r"""
A column's text to JSON bytes, by type. One rule set for stream and backfill.

| type | JSON |
|---|---|
| int2, int4, int8 | number, the server's digits |
| float4, float8 | number, the server's shortest digits; `"NaN"`, `"Infinity"`, `"-Infinity"` |
| numeric | string, every digit, also `"NaN"`, `"Infinity"` |
| bool | `true`, `false` |
| json, jsonb | the document, byte for byte |
| timestamp | string, ISO 8601 with `T` |
| timestamptz | string, ISO 8601 with `T` and `Z`, in UTC |
| date, time, timetz, interval | string, as PostgreSQL writes it under DateStyle ISO and IntervalStyle postgres |
| infinite, BC and five-digit years | string, as PostgreSQL writes it, no `T` and no `Z` |
| bytea | string, base64 |
| arrays, int2vector, oidvector | array of the element's form, nested by dimension; lower bounds are dropped |
| domain | as its base type |
| everything else | string, PostgreSQL's own text |

What the output function of a built-in type writes is trusted to be of that type's alphabet (ISO dates, a document from
jsonb); the framing of messages is checked byte for byte, and whatever may hold any character goes through orjson.

An encoder raises `UnicodeDecodeError` for text that is not UTF-8 (a database in SQL_ASCII has such): `plan.py` then
encodes the value's Latin-1 reading instead and says so in the event.
"""

from __future__ import annotations

import re
from binascii import b2a_base64, unhexlify
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import cache
from typing import Final

import orjson

from bridge.errors import MalformedMessage
from bridge.pgoutput.arrays import encode_array, encode_vector
from bridge.pgoutput.messages import TypeMessage

Encoder = Callable[[bytes], bytes]

TRUTH: Final = {b"t": b"true", b"f": b"false"}


class Form(Enum):
    """How a type's text becomes JSON."""

    NUMBER = auto()
    """As it is: digits."""
    FLOAT = auto()
    """As it is when finite, else a string."""
    BOOL = auto()
    PLAIN = auto()
    """A string whose characters never need an escape."""
    TEXT = auto()
    """A string that may hold anything."""
    JSON = auto()
    """As it is: a document."""
    TIMESTAMP = auto()
    TIMESTAMPTZ = auto()
    BYTEA = auto()
    VECTOR = auto()
    ARRAY = auto()
    MASKED = auto()
    """As the trigger covers it (`triggers/shape.py`)."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """What the encoders need to know about a type."""

    form: Form
    element: ValueType | None = None
    delimiter: bytes = b","
    certain: bool = True
    """False where only the name says that it is an array: text that is none is then a string, not an error."""
    fixed_length: bool = False
    """Never TOASTed, so never sent as unchanged."""


@dataclass(frozen=True, slots=True)
class CatalogType:
    """What `pg_type` says about a type that is not built in; the stream alone doesn't tell arrays and domains apart."""

    kind: str
    """`pg_type.typtype`: `b` base, `c` composite, `d` domain, `e` enum, `m` multirange, `r` range."""
    base: int = 0
    """`typbasetype` of a domain."""
    element: int = 0
    """`typelem` where the type is a true array (its `typsubscript` is `array_subscript_handler`), else 0."""
    delimiter: str = ","
    """`typdelim` of the element type."""


TypeCatalog = Callable[[int], CatalogType | None]


def no_catalog(_oid: int) -> CatalogType | None:
    """A catalog that knows nothing: names in Type messages have to do."""
    return None


_TEXT = ValueType(Form.TEXT)
_MAX_DOMAIN_DEPTH = 64  # no sane schema nests domains so deep; a snapshot read during DDL could hold a loop

# OIDs of `pg_type.dat`, the same on every server. (OID, name, form, fixed length); what is not listed is TEXT.
_BUILT_IN: Final[tuple[tuple[int, str, Form, bool], ...]] = (
    (16, "bool", Form.BOOL, True),
    (17, "bytea", Form.BYTEA, False),
    (20, "int8", Form.NUMBER, True),
    (21, "int2", Form.NUMBER, True),
    (23, "int4", Form.NUMBER, True),
    (26, "oid", Form.PLAIN, True),
    (27, "tid", Form.PLAIN, True),
    (28, "xid", Form.PLAIN, True),
    (29, "cid", Form.PLAIN, True),
    (114, "json", Form.JSON, False),
    (650, "cidr", Form.PLAIN, False),
    (700, "float4", Form.FLOAT, True),
    (701, "float8", Form.FLOAT, True),
    (774, "macaddr8", Form.PLAIN, True),
    (829, "macaddr", Form.PLAIN, True),
    (869, "inet", Form.PLAIN, False),
    (1082, "date", Form.PLAIN, True),
    (1083, "time", Form.PLAIN, True),
    (1114, "timestamp", Form.TIMESTAMP, True),
    (1184, "timestamptz", Form.TIMESTAMPTZ, True),
    (1186, "interval", Form.PLAIN, True),
    (1266, "timetz", Form.PLAIN, True),
    (1560, "bit", Form.PLAIN, False),
    (1562, "varbit", Form.PLAIN, False),
    (1700, "numeric", Form.PLAIN, False),
    (2950, "uuid", Form.PLAIN, True),
    (3220, "pg_lsn", Form.PLAIN, True),
    (3802, "jsonb", Form.JSON, False),
    (3904, "int4range", Form.PLAIN, False),
    (3906, "numrange", Form.PLAIN, False),
    (3926, "int8range", Form.PLAIN, False),
    (5069, "xid8", Form.PLAIN, True),
    # Text, listed for their arrays or because a domain may be made of them.
    (18, "char", Form.TEXT, True),
    (19, "name", Form.TEXT, True),
    (24, "regproc", Form.TEXT, True),
    (25, "text", Form.TEXT, False),
    (142, "xml", Form.TEXT, False),
    (600, "point", Form.TEXT, True),
    (601, "lseg", Form.TEXT, True),
    (602, "path", Form.TEXT, False),
    (603, "box", Form.TEXT, True),
    (604, "polygon", Form.TEXT, False),
    (628, "line", Form.TEXT, True),
    (718, "circle", Form.TEXT, True),
    (790, "money", Form.TEXT, True),
    (1033, "aclitem", Form.TEXT, True),
    (1042, "bpchar", Form.TEXT, False),
    (1043, "varchar", Form.TEXT, False),
    (1790, "refcursor", Form.TEXT, False),
    (2202, "regprocedure", Form.TEXT, True),
    (2203, "regoper", Form.TEXT, True),
    (2204, "regoperator", Form.TEXT, True),
    (2205, "regclass", Form.TEXT, True),
    (2206, "regtype", Form.TEXT, True),
    (2970, "txid_snapshot", Form.TEXT, False),
    (3614, "tsvector", Form.TEXT, False),
    (3615, "tsquery", Form.TEXT, False),
    (3734, "regconfig", Form.TEXT, True),
    (3769, "regdictionary", Form.TEXT, True),
    (3908, "tsrange", Form.TEXT, False),
    (3910, "tstzrange", Form.TEXT, False),
    (3912, "daterange", Form.TEXT, False),  # a bound before Christ stands in quotation marks
    (4072, "jsonpath", Form.TEXT, False),
    (4089, "regnamespace", Form.TEXT, True),
    (4096, "regrole", Form.TEXT, True),
    (4191, "regcollation", Form.TEXT, True),
    (4451, "int4multirange", Form.TEXT, False),
    (4532, "nummultirange", Form.TEXT, False),
    (4533, "tsmultirange", Form.TEXT, False),
    (4534, "tstzmultirange", Form.TEXT, False),
    (4535, "datemultirange", Form.TEXT, False),
    (4536, "int8multirange", Form.TEXT, False),
    (5038, "pg_snapshot", Form.TEXT, False),
)

# Array OID: element OID. The array's name is the element's with an underscore before it.
_BUILT_IN_ARRAYS: Final[Mapping[int, int]] = {
    143: 142, 199: 114, 271: 5069, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790,
    1000: 16, 1001: 17, 1002: 18, 1003: 19, 1005: 21, 1006: 22, 1007: 23, 1008: 24, 1009: 25, 1010: 27, 1011: 28,
    1012: 29, 1013: 30, 1014: 1042, 1015: 1043, 1016: 20, 1017: 600, 1018: 601, 1019: 602, 1020: 603, 1021: 700,
    1022: 701, 1027: 604, 1028: 26, 1034: 1033, 1040: 829, 1041: 869, 1115: 1114, 1182: 1082, 1183: 1083,
    1185: 1184, 1187: 1186, 1231: 1700, 1270: 1266, 1561: 1560, 1563: 1562, 2201: 1790, 2207: 2202, 2208: 2203,
    2209: 2204, 2210: 2205, 2211: 2206, 2949: 2970, 2951: 2950, 3221: 3220, 3643: 3614, 3645: 3615, 3735: 3734,
    3770: 3769, 3807: 3802, 3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926, 4073: 4072,
    4090: 4089, 4097: 4096, 4192: 4191, 5039: 5038, 6150: 4451, 6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535,
    6157: 4536,
}  # fmt: skip

# Of rows of the four catalogs that every server starts from; their types, as all rows, are text.
_ARRAYS_OF_ROWS: Final = {210: "_pg_type", 270: "_pg_attribute", 272: "_pg_proc", 273: "_pg_class"}

_BOX: Final = 603  # the one built-in type whose arrays have a delimiter of their own


def _built_in() -> tuple[dict[int, ValueType], dict[int, str]]:
    by_oid = {oid: ValueType(form, fixed_length=fixed) for oid, _, form, fixed in _BUILT_IN}
    names = {oid: name for oid, name, _, _ in _BUILT_IN}
    for oid, name, element in ((22, "int2vector", 21), (30, "oidvector", 26)):
        by_oid[oid] = ValueType(Form.VECTOR, by_oid[element])
        names[oid] = name
    for oid, element in _BUILT_IN_ARRAYS.items():
        by_oid[oid] = ValueType(Form.ARRAY, by_oid[element], b";" if element == _BOX else b",")
        names[oid] = "_" + names[element]
    by_oid |= dict.fromkeys(_ARRAYS_OF_ROWS, ValueType(Form.ARRAY, _TEXT))
    return by_oid, names | _ARRAYS_OF_ROWS


BUILT_IN_BY_OID, BUILT_IN_NAMES = _built_in()
BUILT_IN_BY_NAME: Final = {name: BUILT_IN_BY_OID[oid] for oid, name in BUILT_IN_NAMES.items()}

FIRST_OID_AFTER_BUILT_IN: Final = 10_000  # FirstGenbkiObjectId: from here on Type messages are sent


def resolve(
    type_oid: int, announced: Mapping[int, TypeMessage] | None = None, catalog: TypeCatalog = no_catalog
) -> ValueType:
    """
    Find out how a column's type is encoded.

    A Type message is believed first, for it is as old as the row: where it names a built-in type, the column's is a
    domain over that (`logicalrep_write_typ` names the base type). Otherwise the catalog tells arrays and domains
    apart. Without its help a name that begins with an underscore is taken for an array of strings, which is how
    PostgreSQL names them.
    """
    return _resolve(type_oid, announced or {}, catalog, 0)


def _resolve(oid: int, announced: Mapping[int, TypeMessage], catalog: TypeCatalog, depth: int) -> ValueType:
    if oid < FIRST_OID_AFTER_BUILT_IN:
        return BUILT_IN_BY_OID.get(oid, _TEXT)
    message = announced.get(oid)
    if message is not None and _names_built_in(message):
        return BUILT_IN_BY_NAME[message.name]
    known = catalog(oid) if depth < _MAX_DOMAIN_DEPTH else None
    if known is not None:
        if known.kind == "d" and known.base:
            return _resolve(known.base, announced, catalog, depth + 1)
        if known.element:
            element = _resolve(known.element, announced, catalog, depth + 1)
            return ValueType(Form.ARRAY, element, known.delimiter.encode())
        return _TEXT
    if message is not None and message.name.startswith("_"):
        return ValueType(Form.ARRAY, _TEXT, certain=False)
    return _TEXT


def is_told_by_the_stream(type_oid: int, announced: Mapping[int, TypeMessage]) -> bool:
    """Whether `resolve` needs no catalog for this type: it is built in, or announced as a domain over such a one."""
    if type_oid < FIRST_OID_AFTER_BUILT_IN:
        return True
    message = announced.get(type_oid)
    return message is not None and _names_built_in(message)


def _names_built_in(message: TypeMessage) -> bool:
    """Not all of pg_catalog is: initdb makes the row types of most catalogs, and extensions can be installed there."""
    return message.namespace == "pg_catalog" and message.name in BUILT_IN_BY_NAME


def encoder(
    type_oid: int, announced: Mapping[int, TypeMessage] | None = None, catalog: TypeCatalog = no_catalog
) -> Encoder:
    """
    The encoder of a type: PostgreSQL's text in, JSON out. Never called for null.

    The encoder raises `MalformedMessage` for text that its type can't have, and `UnicodeDecodeError` for text that is
    not UTF-8.
    """
    return encoder_of(resolve(type_oid, announced, catalog))


@cache
def encoder_of(value_type: ValueType) -> Encoder:
    if value_type.form in {Form.ARRAY, Form.VECTOR}:
        return _array_encoder(value_type)
    return _ENCODERS[value_type.form]


def _array_encoder(value_type: ValueType) -> Encoder:
    if value_type.element is None:
        raise ValueError("an array type needs an element type")
    element = encoder_of(value_type.element)
    delimiter = value_type.delimiter
    if value_type.form is Form.VECTOR:
        return lambda text: encode_vector(text, element)
    if value_type.certain:
        return lambda text: encode_array(text, element, delimiter)

    def perhaps(text: bytes) -> bytes:
        try:
            return encode_array(text, element, delimiter)
        except MalformedMessage:
            return encode_text(text)

    return perhaps


def encode_number(text: bytes) -> bytes:
    if text.isdigit() or (text[:1] == b"-" and text[1:].isdigit()):
        return text
    raise MalformedMessage("an integer is not made of digits")


def encode_plain(text: bytes) -> bytes:
    return b'"%b"' % text


def encode_text(text: bytes) -> bytes:
    return orjson.dumps(text.decode())


def encode_float(text: bytes) -> bytes:
    # NaN and the infinities end in a letter, every finite number in a digit (below "9" + 1).
    if not text:
        raise MalformedMessage("a number without digits")
    return text if text[-1] <= 0x39 else b'"%b"' % text


def encode_bool(text: bytes) -> bytes:
    try:
        return TRUTH[text]
    except KeyError:
        raise MalformedMessage("a boolean is neither t nor f") from None


def encode_json(text: bytes) -> bytes:
    """The document as it is; only its being UTF-8 is made sure of."""
    if not text.isascii():
        text.decode()
    return text


def encode_bytea(text: bytes) -> bytes:
    if text.startswith(b"\\x"):
        try:
            raw = unhexlify(text[2:])
        except ValueError:
            raise MalformedMessage("a bytea is not hexadecimal") from None
    else:
        raw = _unescape_bytea(text)
    return b'"%b"' % b2a_base64(raw, newline=False)


_BYTEA_ESCAPE = re.compile(rb"\\(?:([0-3][0-7]{2})|(\\)|)")


def _unescape_bytea(text: bytes) -> bytes:
    """`bytea_output = escape`, should a role's setting have won: backslash doubled, other bytes in octal."""

    def byte(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return bytes([int(found[1], 8)])
        if found[2]:
            return found[2]
        raise MalformedMessage("a bytea has an unknown escape")

    return _BYTEA_ESCAPE.sub(byte, text)


def encode_timestamp(text: bytes) -> bytes:
    """`2026-11-22 05:37:00.5` gets its `T`; infinity, BC and years of five digits stay."""
    if text[10:11] == b" " and text[-1] <= 0x39:  # a digit: not BC
        return b'"%bT%b"' % (text[:10], text[11:])
    return b'"%b"' % text


_ZONED = re.compile(
    rb"([0-9]{4})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?"
    rb"([+-])([0-9]{2})(?::([0-9]{2}))?(?::([0-9]{2}))?"
)


def encode_timestamptz(text: bytes) -> bytes:
    """`2026-11-22 05:37:00.5+00` gets `T` and `Z`; infinity, BC and years of five digits stay."""
    if text[10:11] == b" " and text.endswith(b"+00"):
        return b'"%bT%bZ"' % (text[:10], text[11:-3])
    found = _ZONED.fullmatch(text)
    if found is None:
        return b'"%b"' % text
    return _in_utc(found, text)


def _in_utc(found: re.Match[bytes], text: bytes) -> bytes:
    """Another offset: some role's TimeZone has won over ours. The same moment, in UTC."""
    year, month, day, hour, minute, second = (int(found[group]) for group in range(1, 7))
    offset = timedelta(hours=int(found[9]), minutes=int(found[10] or 0), seconds=int(found[11] or 0))
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        moment = local - offset if found[8] == b"+" else local + offset
    except (ValueError, OverflowError):  # a year that Python does not have
        return b'"%b"' % text
    return b'"%b%bZ"' % (moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0").encode(), found[7] or b"")


_ENCODERS: dict[Form, Encoder] = {
    Form.NUMBER: encode_number,
    Form.FLOAT: encode_float,
    Form.BOOL: encode_bool,
    Form.PLAIN: encode_plain,
    Form.TEXT: encode_text,
    Form.JSON: encode_json,
    Form.TIMESTAMP: encode_timestamp,
    Form.TIMESTAMPTZ: encode_timestamptz,
    Form.BYTEA: encode_bytea,
}
