"""Configuration: what loads, and what each refusal says."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator

from bridge.config import load, parse
from bridge.config.document import DocumentError, parse_yaml
from bridge.config.load import override_variables
from bridge.config.schema import json_schema
from bridge.errors import ConfigError
from bridge.secret import Secret
from bridge.triggers.shape import Mask

ENVIRON = {"DATABASE_URL": "postgresql://app:hunter2@db.example.com/shop", "HOOK_TOKEN": "hunter2"}
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

FULL = """
source:
  dsn: ${DATABASE_URL}
  slot: pgbridge
  publication: pgbridge
  manage: true
store:
  dsn: ${STORE_URL:-}
  schema: pgbridge
admin:
  listen: 127.0.0.1:8765
  token: ${ADMIN_TOKEN:-}
backlog:
  after_bytes: 67108864
  after_wal_bytes: 268435456
  after_seconds: 60
triggers:
  welcome-email:
    tables: [public.users]
    operations: [insert]
    filter_criteria:
      - {record: {plan: [pro, team], age: [{numeric: [">=", 18]}]}}
    columns: {exclude: [password_hash]}
    target:
      lambda: {function_name: welcome-email, qualifier: live, invocation_type: RequestResponse}
    batch_size: 100
    maximum_batching_window_in_seconds: 0.25
    maximum_batch_bytes: 5500000
    parallelization_factor: 10
    order_by: primary_key
    maximum_retry_attempts: 8
    maximum_record_age_in_seconds: -1
    bisect_batch_on_function_error: true
    function_response_types: [ReportBatchItemFailures]
    on_dead_letter: continue
    enabled: true
  order-webhook:
    tables: [shop.orders]
    target:
      http:
        url: https://api.example.com/hooks/orders
        batch: false
        auth: {bearer: ${HOOK_TOKEN}}
        signing: {secrets: [WHSEC]}
        timeout_in_seconds: 15
""".replace("WHSEC", WHSEC)


def one_trigger(extra: str = "", target: str = "{lambda: {function_name: f}}", name: str = "t") -> str:
    return f"""
source: {{dsn: postgresql://u@h/d}}
triggers:
  {name}:
    tables: [public.users]
    target: {target}
    {extra}
"""


def http(extra: str = "", url: str = "https://api.example.com/x") -> str:
    return f"{{http: {{url: '{url}'{', ' + extra if extra else ''}}}}}"


def refusal(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, ENVIRON if environ is None else environ)
    return str(caught.value)


class TestWhatLoads:
    def test_the_whole_file_of_the_contract(self):
        settings = parse(FULL, ENVIRON)
        assert settings.source.dsn == Secret(ENVIRON["DATABASE_URL"])
        assert settings.store.dsn is None
        assert settings.store_dsn == settings.source.dsn
        assert settings.admin.address == ("127.0.0.1", 8765)
        email, hook = settings.triggers["welcome-email"], settings.triggers["order-webhook"]
        assert email.target.lambda_.qualifier == "live"
        assert email.maximum_batching_window_in_seconds == 0.25
        assert email.columns.exclude == ("password_hash",)
        assert email.order_by == "primary_key"
        assert hook.target.http.auth.bearer == Secret("hunter2")
        assert hook.operations == ("insert", "update", "delete")
        assert hook.target.http.signing.secrets == (Secret(WHSEC),)
        assert (email.target.kind, hook.target.kind) == ("lambda", "http")
        assert hook.target.display_name == "https://api.example.com"

    def test_defaults_are_those_of_the_contract(self):
        trigger = parse(one_trigger(), {}).triggers["t"]
        assert {
            "batch_size": trigger.batch_size,
            "window": trigger.maximum_batching_window_in_seconds,
            "bytes": trigger.maximum_batch_bytes,
            "parallel": trigger.parallelization_factor,
            "order": trigger.order_by,
            "retries": trigger.maximum_retry_attempts,
            "age": trigger.maximum_record_age_in_seconds,
            "bisect": trigger.bisect_batch_on_function_error,
            "types": trigger.function_response_types,
            "enabled": trigger.enabled,
            "dead": trigger.on_dead_letter,
        } == {
            "batch_size": 100,
            "window": 0,
            "bytes": 5_500_000,
            "parallel": 10,
            "order": "primary_key",
            "retries": 8,
            "age": -1,
            "bisect": True,
            "types": ("ReportBatchItemFailures",),
            "enabled": True,
            "dead": "continue",
        }

    def test_event_properties_of_a_sam_template_can_be_pasted(self):
        pasted = parse(
            """
source: {dsn: postgresql://u@h/d}
triggers:
  t:
    tables: [public.users]
    target: {lambda: {FunctionName: f}}
    StartingPosition: TRIM_HORIZON
    BatchSize: 10
    MaximumBatchingWindowInSeconds: 5
    MaximumRetryAttempts: 3
    MaximumRecordAgeInSeconds: 3600
    BisectBatchOnFunctionError: false
    ParallelizationFactor: 2
    Enabled: true
    FunctionResponseTypes: [ReportBatchItemFailures]
    FilterCriteria:
      Filters:
        - Pattern: '{"record": {"plan": ["pro"]}}'
        - Pattern: '{"action": ["delete"]}'
""",
            {},
        )
        snake = parse(
            one_trigger(
                """starting_position: TRIM_HORIZON
    batch_size: 10
    maximum_batching_window_in_seconds: 5
    maximum_retry_attempts: 3
    maximum_record_age_in_seconds: 3600
    bisect_batch_on_function_error: false
    parallelization_factor: 2
    enabled: true
    function_response_types: [ReportBatchItemFailures]
    filter_criteria: ['{"record": {"plan": ["pro"]}}', '{"action": ["delete"]}']"""
            ),
            {},
        )
        assert pasted == snake

    def test_every_key_has_a_pascal_case_spelling(self):
        def pascal(value):
            if isinstance(value, dict):
                return {"".join(part.title() for part in key.split("_")): pascal(inner) for key, inner in value.items()}
            return value

        document = parse_yaml(FULL).data
        names = document["triggers"]
        trigger = names["order-webhook"]
        trigger["order_by"] = ["tenant"]
        respelled = pascal({**document, "triggers": {}})
        respelled["Triggers"] = {"order-webhook": pascal(trigger)}
        document["triggers"] = {"order-webhook": trigger}
        assert parse(yaml.safe_dump(respelled), ENVIRON) == parse(yaml.safe_dump(document), ENVIRON)

    def test_destination_config_is_on_failure(self):
        arn = "arn:aws:sqs:eu-west-1:123456789012:letters"
        text = one_trigger(f"DestinationConfig: {{OnFailure: {{Type: SQS, Destination: '{arn}'}}}}")
        settings = parse(text, {})
        assert settings.triggers["t"].on_failure.destination == arn

    def test_scaling_config_is_maximum_concurrency(self):
        trigger = parse(one_trigger("ScalingConfig: {MaximumConcurrency: 5}"), {}).triggers["t"]
        assert trigger.maximum_concurrency == 5
        assert "ScalingConfig must be" in refusal(one_trigger("ScalingConfig: {Maximum: 5}"), {})
        both = one_trigger("maximum_concurrency: 1\n    ScalingConfig: {MaximumConcurrency: 5}")
        assert "are one setting" in refusal(both, {})

    def test_settings_are_frozen(self):
        settings = parse(FULL, ENVIRON)
        with pytest.raises(ValueError, match="frozen"):
            settings.triggers["order-webhook"].batch_size = 5

    def test_the_shape_has_the_masks_with_their_keys(self):
        text = """mask: {a: redact, b: {truncate: 3}, c: {hash: 0123456789abcdef}, d: {hash: "file:/run/key"}}
    columns: {rename: {a: z}}
    static: {region: eu, tags: [1, null]}"""
        trigger = parse(one_trigger(text), {}).triggers["t"]
        (_, kept) = trigger.mask_keys
        shape = trigger.shape({kept: "x" * 16})
        assert dict(shape.masks) == {
            "a": Mask(),
            "b": Mask(length=3),
            "c": Mask(b"0123456789abcdef"),
            "d": Mask(b"x" * 16),
        }
        assert shape.rename == (("a", "z"),)
        assert shape.static == (("region", b'"eu"'), ("tags", b"[1,null]"))
        with pytest.raises(ConfigError, match="at least 16 bytes"):
            trigger.shape({kept: "short"})

    def test_a_pattern_keeps_the_text_that_it_was_written_in(self):
        pattern = '{"record": {"n": [{"numeric": ["=", 0.30]}]}}'
        assert parse(one_trigger(f"filter_criteria: ['{pattern}']"), {}).triggers["t"].filter_criteria == (pattern,)

    def test_operations_may_be_written_as_in_sql(self):
        assert parse(one_trigger("operations: [INSERT, Update, insert]"), {}).triggers["t"].operations == (
            "insert",
            "update",
        )

    def test_a_trigger_of_messages_alone_needs_no_tables(self):
        text = one_trigger("operations: [message]").replace("tables: [public.users]", "tables: []")
        assert parse(text, {}).triggers["t"].tables == ()

    def test_an_alias_may_be_a_number(self):
        target = parse(one_trigger(target="{lambda: {function_name: f, qualifier: 7}}"), {}).triggers["t"].target
        assert target.lambda_.qualifier == "7"

    def test_a_target_is_known_by_what_it_names_and_not_by_how_it_is_called(self):
        def fingerprint(target: str) -> str:
            return parse(one_trigger(target=target), {}).triggers["t"].target.fingerprint

        others = [
            "{lambda: {function_name: f}}",
            "{lambda: {function_name: g}}",
            "{lambda: {function_name: f, qualifier: live}}",
            "{lambda: {function_name: f, region: eu-west-1}}",
            "{lambda: {function_name: f, endpoint_url: 'https://vpce.example/'}}",
            "{http: {url: 'https://f/'}}",
            "{http: {url: 'https://f/?token=s3cret'}}",
        ]
        fingerprints = [fingerprint(target) for target in others]
        assert len(set(fingerprints)) == len(others)
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in fingerprints)  # nothing of a URL
        assert fingerprint("{lambda: {function_name: f, timeout_in_seconds: 9}}") == fingerprints[0]
        assert fingerprint("{http: {url: 'https://f/', auth: {bearer: x}, batch: true}}") == fingerprints[5]

    @pytest.mark.parametrize("listen", ["null", "''", "off"])
    def test_the_admin_port_can_be_turned_off(self, listen):
        settings = parse(one_trigger() + f"admin: {{listen: {listen}}}", {})
        assert settings.admin.address is None

    @pytest.mark.parametrize(
        ("listen", "host", "port"),
        [("localhost:0", "localhost", 0), ("'[::1]:9000'", "::1", 9000), ("127.9.9.9:1", "127.9.9.9", 1)],
    )
    def test_loopback_addresses_need_no_token(self, listen, host, port):
        assert parse(one_trigger() + f"admin: {{listen: {listen}}}", {}).admin.address == (host, port)

    def test_a_batch_for_an_asynchronous_invocation_fits_its_quota_by_default(self):
        target = "{lambda: {function_name: f, invocation_type: Event}}"
        assert parse(one_trigger(target=target), {}).triggers["t"].maximum_batch_bytes == 950_000

    def test_empty_sections_are_their_defaults(self):
        settings = parse(one_trigger("columns:") + "store:\nadmin:\nbacklog:\n", {})
        assert settings.store.schema_ == "pgbridge"
        assert settings.triggers["t"].columns.include is None

    def test_yaml_anchors_and_merges_work(self):
        text = """
source: {dsn: postgresql://u@h/d}
triggers:
  a: &a {tables: [public.a], target: {lambda: {function_name: f}}, batch_size: 5}
  b: {<<: *a, tables: [public.b]}
"""
        triggers = parse(text, {}).triggers
        assert (triggers["b"].tables, triggers["b"].batch_size) == (("public.b",), 5)

    def test_a_file_with_a_byte_order_mark_loads(self, tmp_path):
        path = tmp_path / "pgbridge.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + FULL.encode())
        assert set(load(path, ENVIRON).triggers) == {"welcome-email", "order-webhook"}


class TestYaml:
    def test_words_and_dates_stay_text_as_in_json(self):
        data = parse_yaml(
            "{a: [NO, yes, off, on], b: 2026-11-22, c: 1:30, d: 010, e: 1e3, f: ~, g: true, h: 0x10, i: .5}"
        ).data
        assert data == {
            "a": ["NO", "yes", "off", "on"],
            "b": "2026-11-22",
            "c": "1:30",
            "d": 10,
            "e": 1000.0,
            "f": None,
            "g": True,
            "h": 16,
            "i": 0.5,
        }

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("a: [1,", "line 1, column 7"),
            ("a: 1\n b: 2", "line 2, column"),
            ("a: 1\na: 2", "line 2: 'a' stands here for the second time (first in line 1)"),
            ("t:\n  a: {x: 1, x: 2}", "line 2: 'x'"),
            ("a: !Ref X", "line 1, column 4: the tag !Ref"),
            ("a: !!python/object:os.system x", "the tag"),
            ("a: !!binary aGk=", "the tag"),
            ("? [a]\n: 1", "a key must be plain text"),
            ("a: 1\n---\nb: 2", "line 2"),
            ("a: \x01", "not YAML"),
            ("a: &x [*x]", "nested more than"),
            ("a: {b: ${C}", "line 1, column 12"),
            ("a: {b: ${C, d: e}", "line 1, column"),
        ],
    )
    def test_what_is_not_right_is_refused_with_its_line(self, text, says):
        with pytest.raises(DocumentError) as caught:
            parse_yaml(text)
        assert says in str(caught.value)

    def test_a_syntax_error_names_the_file_and_the_place(self):
        assert refusal("source: {dsn: [}").startswith("pgbridge.yaml: line 1, column 16")

    @pytest.mark.parametrize(
        ("text", "says"),
        [("", "is empty"), ("# nothing", "is empty"), ("- a", "is not a group"), ("hello", "is not a group")],
    )
    def test_a_file_without_settings_is_refused(self, text, says):
        assert says in refusal(text)


class TestTheFile:
    def test_a_missing_one_is_named(self, tmp_path):
        with pytest.raises(
            ConfigError, match=r"no configuration file .*none\.yaml; write one, or name another with --config"
        ):
            load(tmp_path / "none.yaml", {})

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(ConfigError, match="can't be read"):
            load(tmp_path, {})

    def test_another_encoding_is_refused(self, tmp_path):
        path = tmp_path / "x.yaml"
        path.write_bytes("source: é".encode("latin-1"))
        with pytest.raises(ConfigError, match="not UTF-8"):
            load(path, {})


class TestVariables:
    @pytest.mark.parametrize(
        ("written", "environ", "value"),
        [
            ("${A}", {"A": "x"}, "x"),
            ("${A}", {"A": ""}, ""),
            ("pre-${A}-${B}", {"A": "x", "B": "y"}, "pre-x-y"),
            ("${A:-d}", {}, "d"),
            ("${A:-d}", {"A": ""}, "d"),
            ("${A:-d}", {"A": "x"}, "x"),
            ("${A:-${B}}", {"B": "y"}, "y"),
            ("${A:-${B:-z}}", {}, "z"),
            ("${A:-${B}}", {"A": "x"}, "x"),
            ("${A:-}", {}, ""),
            ("$${A}", {}, "${A}"),
            ("a$$b", {}, "a$b"),
            ("$LATEST", {}, "$LATEST"),
            ("100$", {}, "100$"),
            ("${A:-a$$b}", {}, "a$b"),
            ("${A}", {"A": "${B}: [evil]\nsource: x"}, "${B}: [evil]\nsource: x"),
        ],
    )
    def test_are_put_into_values(self, written, environ, value):
        text = one_trigger(f"filter_criteria: [{{record: {{x: [{json.dumps(written)}]}}}}]")
        assert parse(text, environ).triggers["t"].filter_criteria == ({"record": {"x": [value]}},)

    def test_a_value_can_not_become_a_key(self):
        text = one_trigger().replace("postgresql://u@h/d", "'${DSN}'")
        dsn = "host=h options='\nadmin: {listen: 0.0.0.0:1}'"
        settings = parse(text, {"DSN": dsn})
        assert settings.source.dsn == Secret(dsn)
        assert settings.admin.listen == "127.0.0.1:8765"

    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("[${A}]", ["x"]),
            ("[${A}, ${B}]", ["x", "y"]),
            ("[${A},${B}]", ["x", "y"]),
            ("[pre-${A}]", ["pre-x"]),
            ("[${C:-a,b}]", ["a,b"]),
            ("[${C:-[1]}]", ["[1]"]),
            ("[${C:-${A}}]", ["x"]),
            ("['${A}', \"${B}\"]", ["x", "y"]),
            ("[$${A}]", ["${A}"]),
            ("[{prefix: ${A}}]", [{"prefix": "x"}]),
            ("[$LATEST]", ["$LATEST"]),
        ],
    )
    def test_need_no_quotes_inside_brackets_and_braces(self, written, value):
        text = one_trigger(f"filter_criteria: [{{record: {{x: {written}}}}}]")
        assert parse(text, {"A": "x", "B": "y"}).triggers["t"].filter_criteria == ({"record": {"x": value}},)

    def test_keys_are_left_alone(self):
        assert "'${NAME}' is not a trigger's name" in refusal(one_trigger(name="${NAME}"), {"NAME": "t"})

    def test_a_missing_one_is_named_with_its_key_and_line(self):
        message = refusal(FULL, {"HOOK_TOKEN": "x"})
        assert message == (
            "pgbridge.yaml:3: source.dsn: the environment variable DATABASE_URL is not set; "
            "set it, or write ${DATABASE_URL:-default}"
        )

    def test_all_missing_ones_are_named_at_once(self):
        message = refusal(FULL, {})
        assert message.count("\n") == 1
        assert "DATABASE_URL" in message
        assert "triggers.order-webhook.target.http.auth.bearer: the environment variable HOOK_TOKEN" in message

    @pytest.mark.parametrize("written", ["${", "${A", "${}", "${1A}", "${A-b}", "${A:-b", "${A:-${B}"])
    def test_a_broken_reference_is_refused(self, written):
        text = one_trigger(f"transform: '{written}'")
        message = refusal(text, {"A": "x", "B": "y"} if written == "${A:-${B}" else {})
        assert "triggers.t.transform" in message
        assert "$$ for a dollar sign" in message

    def test_numbers_and_switches_are_read_from_text(self):
        text = one_trigger("batch_size: ${N}\n    enabled: ${E}\n    maximum_batching_window_in_seconds: ${W}")
        trigger = parse(text, {"N": "7", "E": "false", "W": "0.5"}).triggers["t"]
        assert (trigger.batch_size, trigger.enabled, trigger.maximum_batching_window_in_seconds) == (7, False, 0.5)

    def test_a_wrong_value_from_a_variable_names_the_variable(self):
        message = refusal(one_trigger("batch_size: ${N}"), {"N": "many"})
        assert "triggers.t.batch_size is 'many', from the environment variable N: it must be a whole number" in message


class TestOverrides:
    def test_each_plain_setting_has_its_variable(self):
        assert sorted(override_variables()) == [
            "PGBRIDGE_ADMIN_LISTEN",
            "PGBRIDGE_ADMIN_TOKEN",
            "PGBRIDGE_SOURCE_DSN",
            "PGBRIDGE_SOURCE_IAM_AUTH",
            "PGBRIDGE_SOURCE_MANAGE",
            "PGBRIDGE_SOURCE_ORIGIN",
            "PGBRIDGE_SOURCE_PUBLICATION",
            "PGBRIDGE_SOURCE_PUSH_DOWN",
            "PGBRIDGE_SOURCE_SLOT",
            "PGBRIDGE_STORE_DSN",
            "PGBRIDGE_STORE_SCHEMA",
        ]

    def test_they_win_over_the_file_in_either_spelling(self):
        environ = {
            "PGBRIDGE_SOURCE_DSN": "postgresql://other/db",
            "PGBRIDGE_SOURCE_MANAGE": "false",
            "PGBRIDGE_STORE_SCHEMA": "bridge",
            "PGBRIDGE_ADMIN_LISTEN": "off",
        }
        text = one_trigger().replace("source: {dsn:", "Source: {Slot: s, Dsn:")
        settings = parse(text, environ)
        assert settings.source.dsn == Secret("postgresql://other/db")
        assert (settings.source.slot, settings.source.manage) == ("s", False)
        assert settings.store.schema_ == "bridge"
        assert settings.admin.listen is None

    def test_an_overridden_setting_needs_no_variable_of_its_own(self):
        environ = {"PGBRIDGE_SOURCE_DSN": "postgresql://other/db", "HOOK_TOKEN": "x"}
        assert parse(FULL, environ).source.dsn == Secret("postgresql://other/db")

    def test_their_values_are_taken_as_they_are(self):
        secret = parse(one_trigger(), {"PGBRIDGE_SOURCE_DSN": "host=h password=a$$b"}).source.dsn
        assert secret == Secret("host=h password=a$$b")

    def test_an_empty_one_is_as_good_as_unset(self):
        assert parse(one_trigger(), {"PGBRIDGE_SOURCE_SLOT": ""}).source.slot == "pgbridge"

    def test_a_wrong_one_is_named(self):
        message = refusal(one_trigger(), {"PGBRIDGE_SOURCE_SLOT": "My Slot"})
        assert (
            "source.slot is 'My Slot', from the environment variable PGBRIDGE_SOURCE_SLOT: it must be 1 to 63"
            in message
        )


REFUSED = [
    # (text, what the sentence says)
    (one_trigger("batch_size: 0"), "triggers.t.batch_size is 0: it must be a whole number from 1 to 10000"),
    (one_trigger("batch_size: 10001"), "from 1 to 10000"),
    (one_trigger("BatchSize: 0"), "triggers.t.batch_size is 0"),
    (one_trigger("batch_size: 1.5"), "triggers.t.batch_size is 1.5: it must be a whole number"),
    (one_trigger("batch_size: true"), "triggers.t.batch_size is true: it must be a number"),
    (one_trigger("batch_size: null"), "triggers.t.batch_size is null"),
    (one_trigger("batch_size: [1]"), "triggers.t.batch_size: it must be a whole number"),
    (one_trigger("batch_sise: 1"), "triggers.t.batch_sise is not a setting; did you mean batch_size?"),
    (one_trigger("BatchSise: 1"), "did you mean batch_size?"),
    (one_trigger("zzz: 1"), "triggers.t.zzz is not a setting; known here: enabled, operations"),
    (one_trigger("Stream: x"), "name tables in tables"),
    (one_trigger("FunctionName: x"), "target: {lambda: {function_name"),
    (one_trigger("TumblingWindowInSeconds: 5"), "aggregate in the function"),
    (one_trigger("batch_size: 1\n    BatchSize: 2"), "batch_size and BatchSize are one setting; keep one of them"),
    (one_trigger("maximum_batching_window_in_seconds: 301"), "a number from 0 to 300"),
    (one_trigger("maximum_batching_window_in_seconds: .nan"), "it must be a number"),
    (one_trigger("parallelization_factor: 0"), "from 1 to 1000"),
    (one_trigger("maximum_retry_attempts: -2"), "from -1 to 10000"),
    (one_trigger("maximum_record_age_in_seconds: 30"), "-1 (no limit) or from 60 to 604800"),
    (one_trigger("maximum_record_age_in_seconds: 604801"), "to 604800"),
    (one_trigger("maximum_batch_bytes: 7000000"), "Lambda takes at most 6291456 bytes"),
    (
        one_trigger("maximum_batch_bytes: 2000000", target="{lambda: {function_name: f, invocation_type: Event}}"),
        "Lambda takes at most 1048576 bytes with invocation_type Event",
    ),
    (one_trigger("order_by: customer_id"), "write [customer_id] if it is a column"),
    (one_trigger("order_by: []"), "or a list of columns"),
    (one_trigger("order_by: [a, a]"), "names a column twice"),
    (one_trigger("operations: [upsert]"), "triggers.t.operations[0] is 'upsert': it must be insert, update, delete"),
    (one_trigger("operations: insert"), "triggers.t.operations is 'insert': it must be a list"),
    (one_trigger("operations: []"), "triggers.t.operations is empty"),
    (one_trigger("function_response_types: [Other]"), "it must be ReportBatchItemFailures"),
    (one_trigger("enabled: maybe"), "triggers.t.enabled is 'maybe': it must be true or false"),
    (one_trigger("columns: {include: [a], exclude: [a]}"), "include and exclude both name a"),
    (one_trigger("columns: {include: []}"), "no column is left"),
    (one_trigger("starting_position: AT_TIMESTAMP"), "it must be LATEST or TRIM_HORIZON"),
    (one_trigger("DestinationConfig: {OnSuccess: {}}"), "{OnFailure: {Destination: ARN}}"),
    (one_trigger("on_failure: {destination: 'arn:aws:sqs:r:1:q'}\n    DestinationConfig: {OnFailure: {Destination: x}}"), "are one setting"),
    (one_trigger("on_failure: {destination: queue}"), "the ARN of an SQS queue"),
    (one_trigger(target="{lambda: {function_name: f, tenant_id: a, tenant_id_column: b}}"), "both set"),
    (one_trigger(target="{http: {url: 'https://h/', tls: {}}}"), "tls is empty; set certificate"),
    (one_trigger(target="{http: {url: 'https://h/', tls: {key: 'file:/k'}}}"), "key is set without a certificate"),
    (one_trigger(target="{http: {url: 'https://h/', compression: zip}}"), "compression is 'zip': it must be gzip"),
    (one_trigger("on_failure: {destination: 'arn:aws:sqs:r:1:q', type: SNS}"), "type is SNS"),
    (one_trigger("filter_criteria: {record: [x]}"), "a list of patterns, or {Filters:"),
    (one_trigger("filter_criteria: ['{']"), "the pattern [0] is not JSON (line 1, column 2)"),
    (one_trigger("filter_criteria: [[x]]"), "the pattern [0] must be an object"),
    (one_trigger("filter_criteria: {Filters: [{Pattern: '{}', Other: 1}]}"), "Filters[0] must be {Pattern"),
    (one_trigger("filter_criteria: [{record: {x: [{nope: 1}]}}]"), "triggers.t.filter_criteria"),
    (one_trigger("filter_criteria: [{metadata: {idempotency_key: [{exists: true}]}}]"), "ask for its id"),
    (one_trigger(name="bad name"), "'bad name' is not a trigger's name"),
    (one_trigger(name="7"), "put a name of digits alone in quotes"),
    (one_trigger(name="x" * 65), "at most 64"),
    (one_trigger().replace("public.users", "users"), "triggers.t.tables: 'users' names no schema; write schema.table"),
    (one_trigger().replace("[public.users]", "[]"), "it must name at least one table"),
    (one_trigger().replace("[public.users]", "['!public.users']"), "it must name at least one table"),
    (one_trigger().replace("tables: [public.users]", ""), "triggers.t.tables: it must name at least one table"),
    (one_trigger(target="{}"), "triggers.t.target: it must hold one of lambda and http, and neither is set"),
    (one_trigger(target="{lambda: {function_name: f}, http: {url: https://x.example}}"), "and both are set"),
    (one_trigger(target="{sqs: {}}"), "triggers.t.target.sqs is not a setting"),
    (one_trigger(target="welcome"), "it must be a group of settings"),
    (one_trigger().replace("    target: {lambda: {function_name: f}}\n", ""), "triggers.t.target is missing; What is called"),
    (one_trigger(target="{lambda: {function_name: 'a b'}}"), "it must be a function's name or ARN"),
    (one_trigger(target="{lambda: {function_name: 'f:live', qualifier: prod}}"), "function_name ends in :live and qualifier is prod"),
    (one_trigger(target="{lambda: {function_name: f, invocation_type: DryRun}}"), "it must be RequestResponse or Event"),
    (one_trigger(target=http("timeout_in_seconds: 0")), "a number above 0 and up to 910"),
    (one_trigger(target="{lambda: {function_name: f, role_arn: admin}}"), "the ARN of an IAM role"),
    (one_trigger(target="{lambda: {function_name: f, endpoint_url: 'http://lambda.example.com'}}"), "it must begin with https://"),
    (one_trigger(target=http(url="http://api.example.com/x")), "triggers.t.target.http.url: it must begin with https://, unless"),
    (one_trigger(target=http(url="ftp://api.example.com")), "it must be a URL such as"),
    (one_trigger(target=http(url="api.example.com/x")), "it must be a URL such as"),
    (one_trigger(target=http(url="https://[::1")), "it must be a URL such as"),
    (one_trigger(target=http(url="https://h:99999/")), "it must be a URL such as"),
    (one_trigger(target=http(url="https://")), "it must be a URL such as"),
    (one_trigger(target=http(url="https://a b/")), "it must be a URL such as"),
    (one_trigger(target=http(url="https://u:hunter2@api.example.com/")), "put them under auth"),
    (one_trigger(target=http(url="https://api.example.com/#x")), "must not have a fragment"),
    (one_trigger(target=http("allow_plain_http: true", url="http://169.254.169.254/x")), "link-local or cloud metadata"),
    (one_trigger(target=http(url="https://metadata.google.internal/x")), "link-local or cloud metadata"),
    (one_trigger(target=http("allow_plain_http: true", url="http://[::ffff:169.254.169.254]/")), "link-local or cloud metadata"),
    (one_trigger(target=http("auth: {}")), "it names no way to authenticate"),
    (one_trigger(target=http("auth: {bearer: hunter2, basic: {username: u, password: hunter2}}")), "bearer and basic are both set"),
    (one_trigger(target=http("auth: {bearer: hunter2, headers: {authorization: hunter2}}")), "both set Authorization"),
    (one_trigger(target=http("auth: {headers: {Host: hunter2}}")), "Host is set by pgbridge itself"),
    (one_trigger(target=http("auth: {headers: {'a b': hunter2}}")), "'a b' is not a header name"),
    (one_trigger(target=http('auth: {headers: {X-Key: "hunter2\\nX: y"}}')), "must not hold a line break"),
    (one_trigger(target=http("auth: {headers: {X-Key: hunter2, x-key: hunter2}}")), "twice in different case"),
    (one_trigger(target=http("auth: {bearer: 1234567}")), "auth.bearer: it must be text; put it in quotes"),
    (one_trigger(target=http("auth: {bearer: ''}")), "auth.bearer is empty"),
    (one_trigger(target=http("auth: hunter2")), "auth: it must be a group of settings"),
    (one_trigger(target=http("auth: {basic: {username: 'a:hunter2', password: hunter2}}")), "must not hold a colon"),
    (one_trigger(target=http("auth: {basic: {username: hunter2}}")), "auth.basic.password is missing"),
    (one_trigger(target=http("auth: {sigv4: {}}")), "auth.sigv4.service is missing"),
    (one_trigger(target=http("auth: {oauth2: {token_url: 'http://x.example', client_id: a, client_secret: hunter2}}")), "https://"),
    (one_trigger(target=http("signing: {secrets: []}")), "signing.secrets is empty"),
    (one_trigger(target=http("signing: {secrets: [hunter2]}")), "must begin with whsec_"),
    (one_trigger(target=http("signing: {secrets: [whsec_hunter2!]}")), "must be base64"),
    (one_trigger(target=http("signing: {secrets: [whsec_aHVudGVyMg==]}")), "at least 16 bytes"),
    (one_trigger(target=http("signing: {secrets: [whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}")), "must be 32 bytes (a seed) or 64"),
    (one_trigger().replace("postgresql://u@h/d", "'postgresql://u:hunter2@h/d?password2=hunter2'"), "source.dsn: it must be a libpq connection string"),
    (one_trigger().replace("postgresql://u@h/d", "'mysql://u:hunter2@h/d'"), "source.dsn: it must be a libpq connection string"),
    (one_trigger().replace("postgresql://u@h/d", "''"), "source.dsn is empty"),
    (one_trigger().replace("{dsn: postgresql://u@h/d}", "{}"), "source.dsn is missing; libpq connection string or URI"),
    (one_trigger().replace("{dsn: postgresql://u@h/d}", "postgresql://u:hunter2@h/d"), "source: it must be a group of settings"),
    (one_trigger().replace("{dsn:", "{slot: Bad-Slot, dsn:"), "source.slot is 'Bad-Slot': it must be 1 to 63 lower-case"),
    (one_trigger().replace("{dsn:", "{dns: hunter2, dsn:"), "source.dns is not a setting; did you mean dsn?"),
    (one_trigger() + "store: {schema: pg_mine}", "store.schema is 'pg_mine': PostgreSQL keeps that name"),
    (one_trigger() + "admin: {listen: 0.0.0.0:8765}", "admin.token is required because admin.listen is 0.0.0.0:8765"),
    (one_trigger() + "admin: {listen: localhost}", "admin.listen is 'localhost': it must be host:port"),
    (one_trigger() + "admin: {listen: '::1:80'}", "it must be host:port"),
    (one_trigger() + "admin: {listen: 'h:99999'}", "it must be host:port"),
    (one_trigger() + "sources: {}", "sources is not a setting; did you mean source?"),
    ("triggers: {}\nsource: {dsn: postgresql://h/d}", "triggers is empty"),
    ("source: {dsn: postgresql://h/d}", "triggers is missing"),
    ("source: {dsn: postgresql://h/d}\ntriggers: [a]", "triggers: it must be a group of settings"),
]  # fmt: skip


class TestRefusals:
    @pytest.mark.parametrize(("text", "says"), REFUSED, ids=[says[:60] for _, says in REFUSED])
    def test_each_names_its_key_and_what_would_do(self, text, says):
        message = refusal(text, {})
        assert says in message
        assert len(message.splitlines()) == 1
        assert re.match(r"pgbridge\.yaml:\d+: \S|pgbridge\.yaml: (source|triggers) is missing", message)

    @pytest.mark.parametrize("text", [text for text, _ in REFUSED if "hunter2" in text])
    def test_none_shows_a_secret(self, text):
        with pytest.raises(ConfigError) as caught:
            parse(text, {})
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    def test_all_problems_are_named_at_once_with_their_lines(self):
        message = refusal(one_trigger("batch_size: 0\n    parallelization_factor: 0\n    colums: {}"), {})
        assert message.splitlines() == [
            "pgbridge.yaml:7: triggers.t.batch_size is 0: it must be a whole number from 1 to 10000",
            "pgbridge.yaml:8: triggers.t.parallelization_factor is 0: it must be a whole number from 1 to 1000",
            "pgbridge.yaml:9: triggers.t.colums is not a setting; did you mean columns?",
        ]

    def test_a_dsn_in_the_wrong_place_is_covered(self):
        message = refusal(one_trigger().replace("{dsn:", "{slot: 'postgresql://u:hunter2@h/d', dsn:"), {})
        assert "source.slot is 'postgresql://u:**********@h/d'" in message

    def test_plain_http_is_allowed_to_this_machine_or_where_asked_for(self):
        for target in (
            http(url="http://localhost:8080/x"),
            http(url="http://127.0.0.1/x"),
            http(url="http://[::1]:1/x"),
            http("allow_plain_http: true", url="http://10.0.0.1/x"),
        ):
            parse(one_trigger(target=target), {})

    def test_a_bad_pattern_is_refused_when_loading_with_its_place(self):
        message = refusal(one_trigger('filter_criteria: [{record: {age: [{numeric: [">", "x"]}]}}]'), {})
        assert "triggers.t.filter_criteria" in message
        assert "numeric" in message


class TestPushDown:
    def test_it_is_on_unless_it_is_turned_off(self):
        held = {
            written: parse(one_trigger().replace("source: {", f"source: {{{written}", 1), {}).source.push_down
            for written in ("", "push_down: auto, ", "push_down: off, ", "push_down: 'off', ")
        }
        assert list(held.values()) == ["auto", "auto", "off", "off"]

    def test_another_word_is_refused_with_those_that_would_do(self):
        message = refusal(one_trigger().replace("source: {", "source: {push_down: always, ", 1), {})
        assert "source.push_down" in message
        assert "auto" in message
        assert "off" in message


class TestSchema:
    def test_it_is_a_valid_schema_in_which_every_setting_is_described(self):
        schema = json_schema()
        Draft202012Validator.check_schema(schema)
        for name, section in schema["$defs"].items():
            for key, member in section.get("properties", {}).items():
                assert member.get("description"), f"{name}.{key}"
                assert "\n" not in member["description"]

    def test_it_accepts_what_the_loader_accepts(self):
        schema = Draft202012Validator(json_schema())
        text = FULL.replace("batch_size: 100", "batch_size: ${SIZE:-100}")
        assert parse(text, ENVIRON)
        assert not [error.message for error in schema.iter_errors(parse_yaml(text).data)]

    @pytest.mark.parametrize(
        "text",
        [one_trigger("batch_size: 0"), one_trigger("nope: 1"), one_trigger(target="{}")],
    )
    def test_it_refuses_what_the_loader_refuses(self, text):
        refusal(text, {})
        assert list(Draft202012Validator(json_schema()).iter_errors(parse_yaml(text).data))

    def test_defaults_stand_in_it(self):
        properties = json_schema()["$defs"]["TriggerSettings"]["properties"]
        assert properties["batch_size"]["default"] == 100
        assert properties["maximum_batching_window_in_seconds"]["default"] == 0
