"""
Every type through a real slot, against the server's own idea of the value.

The oracle is `to_json` where its rule is ours, and the type's text (as a JSON string) where PostgreSQL's text is what the
contract asks for.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass

import psycopg
import pytest

from bridge.pgoutput.plan import Plan, make_stamp
from bridge.triggers.shape import Shape

AS_JSON = "to_json(v)"
AS_TEXT = "to_json(v::text)"
AS_TEXTS = "to_json(v::text[])"
AS_BASE64 = "to_json(translate(encode(v, 'base64'), E'\\n', ''))"
WITH_T = "to_json(replace(v::text, ' ', 'T'))"
WITH_T_AND_Z = "to_json(replace(replace(v::text, ' ', 'T'), '+00', 'Z'))"


@dataclass(frozen=True)
class Case:
    type: str
    values: tuple[str, ...]
    """SQL expressions."""
    oracle: str = AS_TEXT
    setup: str = ""
    extension: str | None = None
    since: int = 0

    @property
    def id(self) -> str:
        return f"{self.type} as {self.oracle[:30]}"


CASES = [
    Case("bool", ("true", "false"), AS_JSON),
    Case("int2", ("-32768", "0", "32767"), AS_JSON),
    Case("int4", ("-2147483648", "2147483647"), AS_JSON),
    Case("int8", ("-9223372036854775808", "9223372036854775807"), AS_JSON),
    Case("float4", ("0.1", "-0", "3.4e38", "1e-45", "1e20"), AS_JSON),
    Case("float8", ("0.1", "-0", "1.7976931348623157e308", "5e-324", "1e20", "1/3.0"), AS_JSON),
    Case("float8", ("'NaN'", "'Infinity'", "'-Infinity'")),
    Case("float4", ("'NaN'", "'Infinity'", "'-Infinity'")),
    Case("numeric", ("1.10", "-0.000000000000000000000000000001", "'NaN'", "10::numeric ^ 1000", "repeat('9', 131072)::numeric")),
    Case("numeric", ("'Infinity'", "'-Infinity'"), since=14),
    Case("numeric(12, 2)", ("1", "-99.999")),
    Case("money", ("'1234567.89'", "'-0.01'")),
    Case("text", ("''", "'plain'", "E'\"\\\\\\b\\f\\n\\r\\t\\x01\\x1f\\x7f'", "'żółć 😀 \u2028'", "repeat('long ', 10000)")),
    Case("varchar(10)", ("'ab  '",)),
    Case("char(5)", ("'ab'",), AS_JSON),
    Case('"char"', ("'a'", "E'\\\\'", "''")),
    Case("name", ("'a \"name\"'",)),
    Case("bytea", ("''", "'\\x00ff10'::bytea", "decode(repeat('ab', 1000), 'hex')"), AS_BASE64),
    Case("date", ("'2026-11-22'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12345-06-07'")),
    Case("time", ("'00:00'", "'24:00:00'", "'12:34:56.789'")),
    Case("timetz", ("'12:34:56.789+02'", "'24:00:00-15:59:59'")),
    Case("timestamp", ("'2026-11-22 05:37'", "'0001-01-01'", "'9999-12-31 23:59:59.999999'"), AS_JSON),
    Case("timestamp", ("'2026-11-22 05:37:00.5'",), WITH_T),
    Case("timestamp", ("'infinity'", "'-infinity'", "'0044-03-15 12:00 BC'", "'12345-06-07 08:09'", "'294276-12-31 23:59:59.999999'")),
    Case("timestamptz", ("'2026-11-22 05:37+01'", "'0001-01-01 00:00+00'", "'9999-12-31 23:59:59.999999+00'"), WITH_T_AND_Z),
    Case("timestamptz", ("'infinity'", "'-infinity'", "'0044-03-15 12:00+00 BC'", "'12345-06-07 08:09+00'")),
    Case("interval", ("'0'", "'1 year -2 mons 3 days -04:05:06.7'", "'-178000000 years'")),
    Case("interval", ("'infinity'", "'-infinity'"), since=17),
    Case("uuid", ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",)),
    Case("inet", ("'::1'", "'10.1.2.3/8'"), AS_JSON),
    Case("cidr", ("'10.0.0.0/8'",)),
    Case("macaddr", ("'08:00:2b:01:02:03'",)),
    Case("macaddr8", ("'08:00:2b:01:02:03:04:05'",)),
    Case("bit(4)", ("B'0101'",)),
    Case("bit varying", ("B''", "B'1'")),
    Case("json", ("'{\"a\":1}'", "'[1.10]'", "'null'"), "v"),
    Case("jsonb", ("'{\"a\":1.10}'", "'\"é\"'", "'[]'"), "v"),
    Case("jsonpath", ("'$.a[*] ? (@ > 1)'",)),
    Case("xml", ("'<a b=\"c\">\u00e9</a>'",)),
    Case("tsvector", ("'a:1 b:2C ''it''''s'''",)),
    Case("tsquery", ("'a & !b:*'",)),
    Case("point", ("'(1.5,-2)'",)),
    Case("line", ("'{1,2,3}'",)),
    Case("lseg", ("'[(1,2),(3,4)]'",)),
    Case("box", ("'(1,2),(3,4)'",)),
    Case("path", ("'[(1,2),(3,4)]'", "'((1,2),(3,4))'")),
    Case("polygon", ("'((1,2),(3,4),(5,6))'",)),
    Case("circle", ("'<(1,2),3>'",)),
    Case("oid", ("4294967295",)),
    Case("xid", ("'4294967295'",)),
    Case("xid8", ("'18446744073709551615'",)),
    Case("tid", ("'(1,2)'",)),
    Case("pg_lsn", ("'16/B374D848'",)),
    Case("pg_snapshot", ("'10:20:10,14,15'",)),
    Case("regclass", ("'pg_class'",)),
    Case("regtype", ("'double precision'",)),
    Case("int4range", ("'[1,5)'", "'empty'", "'(,)'")),
    Case("int8range", ("'[1,5)'",)),
    Case("numrange", ("'(1.10,2]'",)),
    Case("daterange", ("'[2026-01-01,infinity)'", "'[0044-03-15 BC,12345-06-07)'")),
    Case("tsrange", ("'[2026-01-01 00:00,)'",)),
    Case("tstzrange", ("'[2026-01-01 00:00+00,2026-01-02 00:00+00]'",)),
    Case("int4multirange", ("'{[1,2),[5,7)}'",), since=14),
    Case("tstzmultirange", ("'{[2026-01-01 00:00+00,)}'",), since=14),
    Case("int2vector", ("'1 2 3'", "''"), AS_JSON),
    Case("oidvector", ("'1 2 3'",), AS_JSON),
    # Arrays
    Case("int4[]", ("'{}'", "'{1,NULL,-3}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'", "'[-1:0][2:3]={{1,2},{3,NULL}}'", "'{{{{{{1}}}}}}'"), AS_JSON),
    Case("bool[]", ("'{t,f,NULL}'",), AS_JSON),
    Case("float8[]", ("'{0.1,1e20}'",), AS_JSON),
    Case("float8[]", ("'{NaN,Infinity}'",), AS_TEXTS),
    Case("numeric[]", ("'{1.10,NaN}'",), AS_TEXTS),
    Case("text[]", ("E'{\"\",NULL,\"NULL\",\"a \\\\\\\\ \\\\\" {b},c\",\" \",é}'", "ARRAY[E'new\\nline', E'\\ttab']", "ARRAY[ARRAY['a;b'],ARRAY['null']]"), AS_JSON),
    Case("char(3)[]", ("'{a,bc}'",), AS_JSON),
    Case("date[]", ("'{2026-11-22,infinity}'",), AS_TEXTS),
    Case("timestamp[]", ("'{2026-11-22 05:37}'",), AS_JSON),
    Case("timestamptz[]", ("'{2026-11-22 05:37+00}'",), "to_json(ARRAY[replace(replace(v[1]::text, ' ', 'T'), '+00', 'Z')])"),
    Case("bytea[]", ("ARRAY['\\x00ff'::bytea, '\\x']",), "to_json(ARRAY[encode(v[1], 'base64'), encode(v[2], 'base64')])"),
    Case("jsonb[]", ("ARRAY['{\"a\": [1, \"x\"]}'::jsonb, 'null']",), "to_json(v)"),
    Case("uuid[]", ("'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'",), AS_JSON),
    Case("box[]", ("'{(1,1),(0,0);(2,2),(1,1)}'",), AS_TEXTS),
    Case("point[]", ("'{\"(1,2)\",\"(3,4)\"}'",), AS_TEXTS),
    Case("int4range[]", ("'{\"[1,2)\",empty}'",), AS_TEXTS),
    Case("daterange[]", ("ARRAY['[0044-03-15 BC,2026-01-01)', 'empty']::daterange[]",), AS_TEXTS),
    Case("inet[]", ("'{::1,10.0.0.0/8}'",), AS_JSON),
    Case("pg_authid[]", ("ARRAY[NULL, NULL]::pg_authid[]",), AS_TEXTS),
    Case("pg_type[]", ("ARRAY(SELECT t FROM pg_type t WHERE typname = 'box')",), AS_TEXTS),
    # Types of one's own
    Case("mood", ("'ok'", "'not {ok}, \"really\"'"), setup="CREATE TYPE mood AS ENUM ('ok', 'not {ok}, \"really\"')"),
    Case("mood[]", ("ARRAY['ok', 'not {ok}, \"really\"']::mood[]",), AS_TEXTS, setup="CREATE TYPE mood AS ENUM ('ok', 'not {ok}, \"really\"')"),
    Case("positive", ("7",), AS_JSON, setup="CREATE DOMAIN positive AS int4 CHECK (VALUE > 0)"),
    Case("positive", ("7",), AS_JSON, setup="CREATE DOMAIN inner_positive AS int8; CREATE DOMAIN positive AS inner_positive"),
    Case("positive[]", ("'{7,NULL}'",), AS_JSON, setup="CREATE DOMAIN positive AS int4 CHECK (VALUE > 0)"),
    Case("numbers", ("'{7,NULL}'",), AS_JSON, setup="CREATE DOMAIN numbers AS int4[]"),
    Case("moods", ("'{ok}'",), AS_TEXTS, setup="CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN moods AS mood[]"),
    Case("moment", ("'2026-11-22 05:37+00'",), WITH_T_AND_Z, setup="CREATE DOMAIN moment AS timestamptz"),
    Case("pair", ("ROW(1, 'a \"b\", c')::pair",), setup="CREATE TYPE pair AS (n int, t text)"),
    Case("pair[]", ("ARRAY[ROW(1, 'a \"b\", c')::pair, NULL]",), AS_TEXTS, setup="CREATE TYPE pair AS (n int, t text)"),
    Case("outer_pair", ("ROW(ROW(1, 'x'), '{1,2}')::outer_pair",), setup="CREATE TYPE pair AS (n int, t text); CREATE TYPE outer_pair AS (p pair, a int[])"),
    Case("span", ("'[1.5,2.5)'",), setup="CREATE TYPE span AS RANGE (subtype = float8)"),
    Case("_named_so", ("'{x}'",), setup="CREATE TYPE _named_so AS ENUM ('{x}')"),
    Case("information_schema.sql_identifier", ("'a name'",)),
    Case("information_schema.cardinal_number", ("7",), AS_JSON),
    Case("hstore", ("'a=>1, b=>NULL, \"c d\"=>\"e\\\"f\"'",), extension="hstore"),
    Case("hstore[]", ("ARRAY['a=>1'::hstore]",), AS_TEXTS, extension="hstore"),
    Case("citext", ("'MiXed'",), extension="citext"),
    Case("citext[]", ("'{A,b}'",), AS_TEXTS, extension="citext"),
    Case("ltree", ("'a.b.c'",), extension="ltree"),
    Case("cube", ("'(1,2),(3,4)'",), extension="cube"),
    Case("vector(3)", ("'[1,2.5,-3]'",), extension="vector"),
    Case("isbn", ("'978-0-393-04002-9'",), extension="isn"),
]  # fmt: skip


class Outcomes:
    """All cases through one slot, each in a schema of its own; slots take their time to make."""

    def __init__(self, slot) -> None:
        self.skipped: dict[Case, str] = {}
        self.expected = {case: self.run(slot, number, case) for number, case in enumerate(CASES)}
        self.documents: dict[str, list[dict]] = {}
        for document in slot.documents():
            self.documents.setdefault(document["metadata"]["table_schema"], []).append(document)

    def run(self, slot, number: int, case: Case) -> list:
        if slot.connection.info.server_version // 10000 < case.since:
            self.skipped[case] = f"{case.type} has such values since PostgreSQL {case.since}"
            return []
        slot.execute(f"CREATE SCHEMA c{number}")
        slot.execute(f"SET search_path = c{number}, public")
        try:
            if case.extension is not None:
                slot.execute(f"CREATE EXTENSION IF NOT EXISTS {case.extension} SCHEMA public")
            slot.execute(case.setup)
            slot.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {case.type})")
            for row, value in enumerate([*case.values, "NULL"]):
                slot.execute(f"INSERT INTO t VALUES ({row}, {value})")
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            self.skipped[case] = f"this server has no {case.type}: {error}"
            return []
        slot.execute("ALTER TABLE t REPLICA IDENTITY FULL")
        slot.execute("DELETE FROM t")
        return [*oracle(slot, case), None]


@pytest.fixture(scope="module", params=["postgres", "system_postgres"])
def outcomes(request, decode_slot):
    server = request.getfixturevalue(request.param)
    name = f"types_{os.getpid()}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        slot = decode_slot(server.dsn(name))
        try:
            yield Outcomes(slot)
        finally:
            slot.close()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number].id)
def test_a_value_arrives_as_the_contract_says(outcomes, number):
    case = CASES[number]
    if case in outcomes.skipped:
        pytest.skip(outcomes.skipped[case])
    expected, documents = outcomes.expected[case], outcomes.documents[f"c{number}"]
    assert [d["action"] for d in documents] == ["insert"] * len(expected) + ["delete"] * len(expected)
    assert [d["record"]["v"] for d in documents] == expected * 2


def test_few_cases_are_skipped(outcomes):
    assert len(outcomes.skipped) < 4, outcomes.skipped


def oracle(slot, case: Case) -> list:
    """What the server makes of the same expressions."""
    return [
        json.loads(
            slot.execute(f"SELECT ({case.oracle})::text FROM (SELECT ({value})::{case.type} AS v) s").fetchone()[0]
        )
        for value in case.values
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a" : 2}',
        "1e400",
        '"\\ud800"',
        ' [ 1.10 ,\n\t"x" ] ',
        '{"n": 123456789012345678901234567890.10}',
        '"\\u0000"',
    ],
)
def test_json_arrives_byte_for_byte(slot, text):
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, v json)")
    slot.execute("INSERT INTO t VALUES (1, %s)", (text,))
    (event,) = slot.take()
    assert b'"record":{"id":1,"v":' + text.encode() + b"}," in event.body
    json.loads(event.body[:-1] + b"}}")


def test_a_backfilled_row_has_the_bytes_of_the_streamed_one(slot):
    slot.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric, d timestamptz, b bytea, a text[], j jsonb, f float8, o bool, x text)"
    )
    slot.execute(
        "INSERT INTO t VALUES (1, 1.10, '2026-11-22 05:37+00', '\\x00', '{a,NULL}', '{\"a\": 1}', 'NaN', true, NULL)"
    )
    (event,) = slot.take()
    (relation,) = slot.assembler.relations.values()
    plan = Plan(relation, Shape(), database=slot.connection.info.dbname)
    result = slot.execute("SELECT * FROM t").pgresult  # a page of a backfill: the server's text
    row = tuple(result.get_value(0, index) for index in range(result.nfields))
    committed_at = round((event.transaction.committed_at - 946_684_800) * 1_000_000)
    read = plan.encode_read(row, event.ordinal, make_stamp(event.transaction, committed_at))
    assert read.body.replace(b'"action":"read"', b'"action":"insert"') == event.body
    assert read.key == event.key


@pytest.fixture
def sql_ascii_dsn(postgres):
    name = f"ascii_{os.getpid()}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        yield postgres.dsn(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_bytes_that_are_not_utf8_neither_stop_the_stream_nor_get_lost(sql_ascii_dsn, decode_slot):
    slot = decode_slot(sql_ascii_dsn, client_encoding="SQL_ASCII")
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, v text, w text, j json, a text[])")
    slot.execute(b"INSERT INTO t VALUES (1, E'caf\\xe9', E'caf\\xc3\\xa9', E'{\"k\": \"\\xe9\"}', ARRAY[E'\\xff'])")
    slot.execute("INSERT INTO t VALUES (2, 'plain', 'plain', 'null', '{}')")
    first, second = slot.documents()
    slot.close()
    assert first["metadata"]["latin1"] == ["v", "j", "a"]
    assert first["record"]["v"].encode("latin-1") == b"caf\xe9"
    assert first["record"]["w"] == "café"
    assert first["record"]["j"] == {"k": "\xe9"}
    assert first["record"]["a"] == ["\xff"]
    assert second["record"] == {"id": 2, "v": "plain", "w": "plain", "j": None, "a": []}
    assert "latin1" not in second["metadata"]


def test_bytea_comes_back_whatever_bytea_output_says(slot):
    slot.execute("CREATE TABLE t (id int PRIMARY KEY, v bytea)")
    slot.execute("INSERT INTO t VALUES (1, %s)", (bytes(range(256)),))
    slot.execute("SET bytea_output = escape")
    frames = slot.frames()
    slot.execute("SET bytea_output = hex")
    slot.assembler.consume(frames)
    (event,) = slot.inbox
    assert base64.b64decode(json.loads(event.body[:-1] + b"}}")["record"]["v"]) == bytes(range(256))
