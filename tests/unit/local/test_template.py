"""What is read from a template, and how a wrong one is refused."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigError
from bridge.local.template import read_template


@pytest.fixture
def read(tmp_path):
    (tmp_path / "code").mkdir()

    def read(text, **arguments):
        path = tmp_path / "template.yaml"
        path.write_text(text, encoding="utf-8")
        return read_template(path, **arguments)

    return read


def function(properties: str, kind: str = "AWS::Serverless::Function") -> str:
    return f"Resources: {{Hello: {{Type: {kind}, Properties: {{{properties}}}}}}}"


MINIMAL = "Runtime: python3.12, Handler: app.handler, CodeUri: code"


def test_a_minimal_function_has_lambdas_own_defaults(read, tmp_path):
    (spec,) = read(function(MINIMAL)).functions
    assert (spec.name, spec.logical_id, spec.handler) == ("Hello", "Hello", "app.handler")
    assert spec.code == tmp_path / "code"
    assert (spec.timeout_seconds, spec.memory_mb) == (3, 128)
    assert (spec.reserved_concurrency, spec.alias) == (None, None)
    assert spec.environment == {}


def test_globals_stand_below_a_functions_own_properties(read):
    (spec,) = read("""
Globals:
  Function: {Runtime: python3.11, Timeout: 30, MemorySize: 512, CodeUri: code, Environment: {Variables: {A: globals, B: globals}}}
Resources:
  Hello:
    Type: AWS::Serverless::Function
    Properties: {Handler: app.handler, Timeout: 60, Environment: {Variables: {B: own}}}
""").functions
    assert (spec.runtime, spec.timeout_seconds, spec.memory_mb) == ("python3.11", 60, 512)
    assert spec.environment == {"A": "globals", "B": "own"}


def test_globals_are_for_serverless_functions_only(read):
    (spec,) = read(
        "Globals: {Function: {Timeout: 30}}\n"
        + function("Runtime: python3.12, Handler: a.b, Code: code", "AWS::Lambda::Function")
    ).functions
    assert spec.timeout_seconds == 3


@pytest.mark.parametrize(
    ("written", "text"),
    [("1", "1"), ("1.5", "1.5"), ("true", "true"), ("'yes'", "yes"), ("2010-09-09", "2010-09-09"), ("''", "")],
)
def test_a_variable_becomes_the_text_that_cloudformation_makes_of_it(read, written, text):
    (spec,) = read(function(f"{MINIMAL}, Environment: {{Variables: {{V: {written}}}}}")).functions
    assert spec.environment == {"V": text}


def test_the_values_of_variables_are_in_no_repr(read):
    template = read(function(f"{MINIMAL}, Environment: {{Variables: {{V: hunter2}}}}"))
    assert "hunter2" not in repr(template)


def test_all_that_the_api_needs_is_read(read):
    (spec,) = read(
        function(
            f"{MINIMAL}, FunctionName: hello, AutoPublishAlias: live, ReservedConcurrentExecutions: 0, Description: d, "
            "EventInvokeConfig: {MaximumRetryAttempts: 1, MaximumEventAgeInSeconds: 60}"
        )
    ).functions
    assert (spec.name, spec.alias, spec.reserved_concurrency, spec.description) == ("hello", "live", 0, "d")
    assert (spec.maximum_retry_attempts, spec.maximum_event_age_seconds) == (1, 60)


def test_an_alias_resource_names_the_version_of_a_plain_function(read):
    template = read("""
Resources:
  Hello: {Type: AWS::Lambda::Function, Properties: {FunctionName: hello, Runtime: python3.12, Handler: a.b, Code: code}}
  Version: {Type: AWS::Lambda::Version, Properties: {FunctionName: !Ref Hello}}
  Alias: {Type: AWS::Lambda::Alias, Properties: {Name: live, FunctionName: !Ref Hello, FunctionVersion: !GetAtt Version.Version}}
""")
    assert [spec.alias for spec in template.functions] == ["live"]


def test_inline_code_needs_no_folder(read):
    (serverless,) = read(function("Runtime: python3.12, Handler: index.handler, InlineCode: 'pass'")).functions
    (plain,) = read(
        function("Runtime: python3.12, Handler: index.handler, Code: {ZipFile: 'pass'}", "AWS::Lambda::Function")
    ).functions
    assert (serverless.code, serverless.inline) == (plain.code, plain.inline) == (None, "pass")


def test_a_layer_of_the_template_is_a_folder(read, tmp_path):
    (tmp_path / "layer").mkdir()
    (spec,) = read(
        "Resources:\n  L: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: layer}}\n"
        f"  F: {{Type: AWS::Serverless::Function, Properties: {{{MINIMAL}, Layers: [!Ref L, 'arn:aws:lambda:us-east-1:1:layer:x:1']}}}}"
    ).functions
    assert spec.layers == (tmp_path / "layer",)


def test_json_is_read_as_well(read):
    (spec,) = read(
        '{"Resources": {"Hello": {"Type": "AWS::Serverless::Function", "Properties": {"Runtime": "python3.12", "Handler": "a.b", "CodeUri": "code", "FunctionName": {"Fn::Sub": "${AWS::Region}-x"}}}}}'
    ).functions
    assert spec.name == "us-east-1-x"


def test_a_function_under_a_false_condition_is_not_there(read):
    template = read(f"""
Parameters: {{Stage: {{Type: String, Default: dev}}}}
Conditions: {{IsProd: !Equals [!Ref Stage, prod]}}
Resources:
  A: {{Type: AWS::Serverless::Function, Properties: {{{MINIMAL}}}}}
  B: {{Type: AWS::Serverless::Function, Condition: IsProd, Properties: {{{MINIMAL}}}}}
""")
    assert [spec.logical_id for spec in template.functions] == ["A"]


@pytest.mark.parametrize(
    ("properties", "words"),
    [("Runtime: nodejs22.x, Handler: a.b, CodeUri: code", "nodejs22.x"), ("PackageType: Image", "container image")],
)
def test_what_is_no_python_is_skipped_with_one_sentence(read, properties, words):
    template = read(function(properties))
    assert template.functions == ()
    (skipped,) = template.skipped
    assert skipped.logical_id == "Hello"
    assert "Hello" in skipped.reason
    assert words in skipped.reason


@pytest.mark.parametrize(
    ("properties", "key"),
    [
        ("Handler: a.b, CodeUri: code", "Runtime"),
        ("Runtime: python3.12, CodeUri: code", "Handler"),
        ("Runtime: python3.12, Handler: 5, CodeUri: code", "Handler"),
        ("Runtime: python3.12, Handler: a.b", "CodeUri"),
        ("Runtime: python3.12, Handler: a.b, CodeUri: nowhere", "CodeUri"),
        ("Runtime: python3.12, Handler: a.b, CodeUri: 's3://bucket/key'", "CodeUri"),
        ("Runtime: python3.12, Handler: a.b, CodeUri: !GetAtt X.Y", "CodeUri"),
        ("Runtime: python3.12, Handler: a.b, CodeUri: template.yaml", "CodeUri"),
        (f"{MINIMAL}, Timeout: 901", "Timeout"),
        (f"{MINIMAL}, Timeout: soon", "Timeout"),
        (f"{MINIMAL}, Timeout: true", "Timeout"),
        (f"{MINIMAL}, MemorySize: 64", "MemorySize"),
        (f"{MINIMAL}, ReservedConcurrentExecutions: -1", "ReservedConcurrentExecutions"),
        (f"{MINIMAL}, FunctionName: 'a b'", "FunctionName"),
        (f"{MINIMAL}, AutoPublishAlias: '1'", "AutoPublishAlias"),
        (f"{MINIMAL}, Environment: [A]", "Environment"),
        (f"{MINIMAL}, Environment: {{Variables: {{A: [1]}}}}", "Environment.Variables.A"),
    ],
)
def test_a_wrong_property_is_refused_by_resource_and_key(read, properties, key):
    with pytest.raises(ConfigError) as caught:
        read(function(properties))
    assert f"template.yaml: Hello: {key} " in caught.value.message
    assert caught.value.remedy


def test_two_functions_of_one_name_are_refused(read):
    with pytest.raises(ConfigError, match="B: FunctionName 'same' is the name of A too"):
        read(
            "Resources:\n"
            + "".join(
                f"  {name}: {{Type: AWS::Serverless::Function, Properties: {{{MINIMAL}, FunctionName: same}}}}\n"
                for name in "AB"
            )
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Resources: {}", "declares no function"),
        ("Outputs: {}", "Resources is not a mapping"),
        ("- 1", "the template is not a mapping"),
        ("Resources: {A: [}", "line 1, column"),
        ("", "the template is not a mapping"),
    ],
)
def test_a_file_that_is_no_template_is_refused(read, text, words):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert words in caught.value.message
    assert caught.value.remedy


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not exist; name the SAM template with --template"):
        read_template(tmp_path / "nowhere.yaml")


def test_what_only_a_deployment_knows_is_a_placeholder_and_is_listed(read):
    template = read(function(f"{MINIMAL}, Environment: {{Variables: {{HOST: !GetAtt Db.Endpoint.Address}}}}"))
    assert template.functions[0].environment == {"HOST": "<unresolved !GetAtt Db.Endpoint.Address>"}
    (unresolved,) = template.unresolved
    assert (unresolved.logical_id, unresolved.key) == ("Hello", "Environment")
    assert unresolved.expression == "!GetAtt Db.Endpoint.Address"
