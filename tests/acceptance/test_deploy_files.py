"""What is deployed: the SAM template, the Terraform module, the image and the compose file; and that they agree."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hcl2
import pytest
import yaml

from bridge.config import parse
from bridge.local.template import read_template
from bridge.observe.log import DEAD_LETTER, TRIGGER_PAUSED, TRIGGER_TO_BACKLOG

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"
MODULE = ROOT / "infra" / "terraform"
DOCKER = ROOT / "infra" / "docker"
SECRET_ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop-Ab12Cd"


class _Loader(yaml.SafeLoader):
    """CloudFormation's short forms become `{"Ref": …}` and `{"Fn::…": …}`."""


def _short_form(loader, suffix, node):
    name = suffix if suffix == "Ref" else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _short_form)


@pytest.fixture(scope="module")
def template():
    return yaml.load(TEMPLATE.read_text(), _Loader)


@pytest.fixture(scope="module")
def resources(template):
    return template["Resources"]


@pytest.fixture(scope="module")
def container(resources):
    (container,) = resources["ReaderTask"]["Properties"]["ContainerDefinitions"]
    return container


@pytest.fixture(scope="module")
def module():
    """Resources of the Terraform module by `type.name`."""
    blocks = hcl2.loads((MODULE / "main.tf").read_text())["resource"]
    return {
        f"{kind}.{name}".replace('"', ""): body
        for block in blocks
        for kind, named in block.items()
        for name, body in named.items()
    }


def of_type(resources, kind):
    return {name: resource["Properties"] for name, resource in resources.items() if resource["Type"] == kind}


def environment(container):
    return {entry["Name"]: entry["Value"] for entry in container["Environment"]}


def configuration(container):
    """The text of pgbridge.yaml that the task is given, and what it becomes in an account."""
    text, names = environment(container)["PGBRIDGE_YAML"]["Fn::Sub"]
    for name, reference in names.items():
        function, attribute = reference["Ref"].split(".")
        assert attribute == "Alias"
        text = text.replace(f"${{{name}}}", f"arn:aws:lambda:eu-west-1:123456789012:function:{function}:live")
    return text


def test_cfn_lint_has_nothing_to_say():
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--regions", "us-east-1", "--", str(TEMPLATE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_template_has_no_aliases_which_cloudformation_refuses():
    assert not [event for event in yaml.parse(TEMPLATE.read_text(), _Loader) if isinstance(event, yaml.AliasEvent)]


def test_each_function_of_the_folder_is_declared_with_an_alias_and_its_handler():
    functions = {spec.code.name: spec for spec in read_template(TEMPLATE).functions}

    assert functions.keys() == {path.parent.name for path in (ROOT / "functions").glob("*/handler.py")}
    for spec in functions.values():
        module, _, name = spec.handler.partition(".")
        assert f"def {name}(" in (spec.code / f"{module}.py").read_text()
        assert (spec.code / "requirements.txt").exists()
        assert spec.alias == "live"


def test_each_function_is_built_by_its_makefile(resources):
    for name, properties in of_type(resources, "AWS::Serverless::Function").items():
        assert resources[name]["Metadata"] == {"BuildMethod": "makefile", "WorkingDirectory": "."}
        folder = ROOT / properties["CodeUri"]
        assert (folder / "Makefile").read_text() == f"FUNCTION := {folder.name}\ninclude functions/build.mk\n"


def test_a_function_needs_no_more_than_the_handlers_extra_and_what_it_names():
    for path in (ROOT / "functions").glob("*/requirements.txt"):
        names = {re.split(r"[<>=\[]", line)[0] for line in path.read_text().splitlines() if not line.startswith("#")}
        assert {"aws-lambda-powertools", "pydantic"} <= names
        assert not names & {"psycopg", "boto3", "aiohttp", "pgbridge"}


def test_one_process_reads_the_slot_during_a_deployment_too(resources, module):
    service = resources["ReaderService"]["Properties"]
    assert service["DesiredCount"] == 1
    assert service["DeploymentConfiguration"]["MinimumHealthyPercent"] == 0
    assert service["DeploymentConfiguration"]["MaximumPercent"] == 100

    service = module["aws_ecs_service.reader"]
    assert service["desired_count"] == 1
    assert service["deployment_minimum_healthy_percent"] == 0
    assert service["deployment_maximum_percent"] == 100


def test_the_reader_may_invoke_just_the_functions_of_the_template_and_their_qualifiers(resources):
    statements = [
        statement
        for policy in resources["ReaderTaskRole"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    invoke, secret = statements
    functions = of_type(resources, "AWS::Serverless::Function")
    expected = [{"Fn::GetAtt": f"{name}.Arn"} for name in functions]
    expected += [{"Fn::Sub": f"${{{name}.Arn}}:*"} for name in functions]

    assert (invoke["Action"], secret["Action"]) == ("lambda:InvokeFunction", "secretsmanager:GetSecretValue")
    assert sorted(map(str, invoke["Resource"])) == sorted(map(str, expected))
    assert secret["Resource"] == {"Ref": "DatabaseSecretArn"}
    assert all(statement["Effect"] == "Allow" for statement in statements)
    assert "ManagedPolicyArns" not in resources["ReaderTaskRole"]["Properties"]


def test_no_policy_of_the_template_allows_everything_on_everything(resources):
    text = json.dumps(resources)

    assert '"Action": "*"' not in text
    assert '"Resource": "*"' not in text


def test_the_configuration_in_the_template_is_one_that_the_reader_accepts(container):
    environ = {"PGBRIDGE_SOURCE_DSN": f"secretsmanager:{SECRET_ARN}", "PGBRIDGE_ADMIN_LISTEN": "127.0.0.1:8765"}
    settings = parse(configuration(container), environ)

    targets = {name: trigger.target.lambda_.function_name for name, trigger in settings.triggers.items()}
    assert {name: arn.split(":", 6)[6] for name, arn in targets.items()} == {
        "welcome-user": "WelcomeUser:live",
        "crm-contact": "CrmContact:live",
    }


def test_the_reader_waits_longer_for_a_function_than_the_function_may_take(container):
    environ = {"PGBRIDGE_SOURCE_DSN": f"secretsmanager:{SECRET_ARN}"}
    timeouts = {spec.logical_id: spec.timeout_seconds for spec in read_template(TEMPLATE).functions}

    for trigger in parse(configuration(container), environ).triggers.values():
        target = trigger.target.lambda_
        assert target.timeout_in_seconds > timeouts[target.function_name.split(":")[6]]


def test_the_admin_port_leaves_the_task_only_with_a_token(container):
    assert environment(container)["PGBRIDGE_ADMIN_LISTEN"] == {
        "Fn::If": ["HasAdminToken", "0.0.0.0:8765", "127.0.0.1:8765"]
    }
    (secret,) = container["Secrets"]
    assert secret["Fn::If"][1] == {"Name": "PGBRIDGE_ADMIN_TOKEN", "ValueFrom": {"Ref": "AdminTokenSecretArn"}}


def test_secrets_are_named_by_arn_and_never_held(template, container):
    assert environment(container)["PGBRIDGE_SOURCE_DSN"] == {"Fn::Sub": "secretsmanager:${DatabaseSecretArn}"}
    for name, parameter in template["Parameters"].items():
        if "Secret" in name:
            assert "secretsmanager" in parameter["AllowedPattern"]
            assert not parameter.get("Default")


def test_the_container_runs_as_nobody_in_particular_on_a_file_system_it_cannot_write(container):
    assert container["ReadonlyRootFilesystem"] is True
    assert container["User"] == "10001:10001"
    assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}


def test_the_start_command_writes_the_configuration_and_becomes_the_reader(container, tmp_path):
    reader = tmp_path / "bin" / "pgbridge"
    reader.parent.mkdir()
    reader.write_text('#!/bin/sh\necho "$@"; cat "$PGBRIDGE_CONFIG"\n')
    reader.chmod(0o755)
    text = configuration(container) + 'odd: "%s \\n $HOME"\n'
    done = subprocess.run(
        [*container["EntryPoint"], *container["Command"]],
        env={
            "PATH": f"{reader.parent}{os.pathsep}{os.defpath}",
            "PGBRIDGE_CONFIG": str(tmp_path / "pgbridge.yaml"),
            "PGBRIDGE_YAML": text,
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"run\n{text}"


@pytest.mark.parametrize(
    ("name", "written_as", "pattern"),
    [
        ("DeadLetter", "dead_letters", f'{{ $.event = "{DEAD_LETTER}" }}'),
        (
            "TriggersInTrouble",
            "triggers_in_trouble",
            f'{{ ($.event = "{TRIGGER_PAUSED}") || ($.event = "{TRIGGER_TO_BACKLOG}") }}',
        ),
    ],
)
def test_the_alarms_count_the_lines_that_the_reader_logs(resources, module, name, written_as, pattern):
    alarm = of_type(resources, "AWS::CloudWatch::Alarm")[f"{name}Alarm"]
    filters = of_type(resources, "AWS::Logs::MetricFilter")
    log_filter = filters.get(name) or filters[f"{name}s"]
    (metric,) = log_filter["MetricTransformations"]

    assert log_filter["FilterPattern"] == pattern
    assert log_filter["LogGroupName"] == {"Ref": "ReaderLogs"}
    assert (alarm["Namespace"], alarm["MetricName"]) == (metric["MetricNamespace"], metric["MetricName"])
    assert (alarm["Statistic"], alarm["Threshold"]) == ("Sum", 1)

    written = module[f"aws_cloudwatch_log_metric_filter.{written_as}"]["pattern"]
    assert json.loads(written) == pattern


def test_an_alarm_tells_of_a_reader_that_is_down_also_when_nobody_counts_tasks_any_more(resources, module):
    alarm = of_type(resources, "AWS::CloudWatch::Alarm")["ReaderDownAlarm"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("ECS/ContainerInsights", "RunningTaskCount")
    assert [dimension["Name"] for dimension in alarm["Dimensions"]] == ["ClusterName", "ServiceName"]
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (1, "LessThanThreshold")
    assert alarm["TreatMissingData"] == "breaching"
    (insights,) = resources["Cluster"]["Properties"]["ClusterSettings"]
    assert insights == {"Name": "containerInsights", "Value": "enabled"}  # whose metric it is

    written = module["aws_cloudwatch_metric_alarm.reader_down"]
    assert json.loads(written["metric_name"]) == alarm["MetricName"]
    assert json.loads(written["treat_missing_data"]) == alarm["TreatMissingData"]
    assert written["evaluation_periods"] == alarm["EvaluationPeriods"]
    assert written["datapoints_to_alarm"] == alarm["DatapointsToAlarm"]


def test_template_and_module_run_the_container_alike(container):
    main = (MODULE / "main.tf").read_text()

    for literal in [
        *container["EntryPoint"],
        *container["Command"],
        *container["HealthCheck"]["Command"],
        container["User"],
        *environment(container),
    ]:
        assert literal in main.replace('\\"', '"')
    assert f"stopTimeout = {container['StopTimeout']}" in main
    assert "readonlyRootFilesystem = true" in main


def test_every_variable_of_the_module_is_typed_described_documented_and_used():
    variables = {
        name.strip('"'): body
        for block in hcl2.loads((MODULE / "variables.tf").read_text())["variable"]
        for name, body in block.items()
    }
    used = set(re.findall(r"\bvar\.(\w+)", (MODULE / "main.tf").read_text()))
    readme = (MODULE / "README.md").read_text()

    assert used == variables.keys()
    for name, body in variables.items():
        assert {"type", "description"} <= body.keys(), name
        assert f"`{name}`" in readme
        assert "default" in body or body["validation"], f"{name} is required and takes anything"


def test_every_reference_of_the_module_leads_to_something_declared(module):
    text = (MODULE / "main.tf").read_text() + (MODULE / "outputs.tf").read_text()
    data = {
        f"data.{kind}.{name}".replace('"', "")
        for block in hcl2.loads((MODULE / "main.tf").read_text())["data"]
        for kind, named in block.items()
        for name in named
    }

    assert set(re.findall(r"\bdata\.aws_\w+\.\w+", text)) == data
    assert set(re.findall(r"(?<!data\.)\b(aws_\w+\.\w+)(?=[.\[\],])", text)) <= module.keys()
    for output in hcl2.loads((MODULE / "outputs.tf").read_text())["output"]:
        (body,) = output.values()
        assert {"description", "value"} <= body.keys()


def test_the_module_pins_a_range_of_the_provider():
    (terraform,) = hcl2.loads((MODULE / "versions.tf").read_text())["terraform"]
    (providers,) = terraform["required_providers"]

    assert re.fullmatch(r'"?>= \d+\.\d+, < \d+\.\d+"?', providers["aws"]["version"])


def instructions(dockerfile):
    joined = re.sub(r"\\\n\s*", " ", dockerfile.read_text())
    return [line.partition(" ")[::2] for line in joined.splitlines() if line and not line.startswith("#")]


def test_the_image_is_built_in_two_stages_and_ends_as_an_ordinary_user(container):
    steps = instructions(DOCKER / "Dockerfile")
    stages = [number for number, (name, _) in enumerate(steps) if name == "FROM"]
    last = steps[stages[-1] :]

    assert len(stages) == 2
    built_on, run_on = (steps[number][1].split()[0] for number in stages)
    assert run_on == f"{built_on}-slim"  # the same Debian and Python, for what was compiled
    assert ("USER", container["User"]) in last
    assert ("ENTRYPOINT", '["pgbridge"]') in last
    assert not any(name == "COPY" and "--from=build" not in text for name, text in last)
    (health,) = [text for name, text in last if name == "HEALTHCHECK"]
    assert json.loads(health.partition("CMD ")[2]) == container["HealthCheck"]["Command"][1:]
    (mount,) = container["MountPoints"]
    assert ("VOLUME", json.dumps([mount["ContainerPath"]])) in last


def test_the_image_is_built_from_files_that_are_there_and_not_ignored():
    allowed = {
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = set()
    for name, text in instructions(DOCKER / "Dockerfile"):
        if name == "COPY" and "--from" not in text:
            copied |= set(text.split()[:-1])

    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_compose_runs_the_image_read_only_and_gives_the_configuration_its_variables():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    text = (DOCKER / "pgbridge.yaml").read_text()

    for name in ("init", "reader"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert set(re.findall(r"\$\{(\w+)", text)) == service["environment"].keys()
    assert services["reader"]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    for volume in services["reader"]["volumes"] + services["database"]["volumes"]:
        source = volume.split(":")[0]
        assert not source.startswith("./") or (DOCKER / source).exists()


def test_the_configuration_of_the_compose_file_is_one_that_the_reader_accepts():
    settings = parse(
        (DOCKER / "pgbridge.yaml").read_text(),
        {
            "DATABASE_URL": "postgresql://postgres:postgres@database:5432/shop?sslmode=disable",
            "HOOK_URL": "https://api.example.com/hooks/users",
            "HOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "ADMIN_TOKEN": "token",
        },
    )

    assert settings.triggers["users"].target.http.url == "https://api.example.com/hooks/users"
