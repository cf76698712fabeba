"""
CloudFormation's intrinsic functions, evaluated without CloudFormation.

Pure: a template's document goes in, values come out. Each function follows its page of the "Intrinsic function
reference". An expression whose value only a deployment knows (an endpoint, another stack's export) becomes a
placeholder in angle brackets and a line in `Resolver.unresolved`.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLACEHOLDER = re.compile(r"<unresolved [^<>]*>")
_SUB = re.compile(r"\$\{(!?)([^${}]+)\}")
_NO_VALUE = object()

# Where a resource's own name stands, and what its ARN looks like; `{}` is that name.
_RESOURCES: Mapping[str, tuple[str, str]] = {
    "AWS::Serverless::Function": ("FunctionName", "arn:aws:lambda:{region}:{account}:function:{name}"),
    "AWS::Lambda::Function": ("FunctionName", "arn:aws:lambda:{region}:{account}:function:{name}"),
    "AWS::SQS::Queue": ("QueueName", "arn:aws:sqs:{region}:{account}:{name}"),
    "AWS::SNS::Topic": ("TopicName", "arn:aws:sns:{region}:{account}:{name}"),
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{name}"),
    "AWS::DynamoDB::Table": ("TableName", "arn:aws:dynamodb:{region}:{account}:table/{name}"),
    "AWS::Serverless::SimpleTable": ("TableName", "arn:aws:dynamodb:{region}:{account}:table/{name}"),
    "AWS::Kinesis::Stream": ("Name", "arn:aws:kinesis:{region}:{account}:stream/{name}"),
    "AWS::IAM::Role": ("RoleName", "arn:aws:iam::{account}:role/{name}"),
    "AWS::Logs::LogGroup": ("LogGroupName", "arn:aws:logs:{region}:{account}:log-group:{name}:*"),
    "AWS::SecretsManager::Secret": ("Name", "arn:aws:secretsmanager:{region}:{account}:secret:{name}"),
    "AWS::SSM::Parameter": ("Name", "arn:aws:ssm:{region}:{account}:parameter/{name}"),
    "AWS::ECS::Cluster": ("ClusterName", "arn:aws:ecs:{region}:{account}:cluster/{name}"),
}

# What `Ref` gives where that is not the name.
_REFERENCES: Mapping[str, str] = {
    "AWS::SQS::Queue": "https://sqs.{region}.amazonaws.com/{account}/{name}",
    "AWS::SNS::Topic": "arn:aws:sns:{region}:{account}:{name}",
    "AWS::SecretsManager::Secret": "arn:aws:secretsmanager:{region}:{account}:secret:{name}",
}


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An expression that has no value before a deployment."""

    logical_id: str
    key: str
    expression: str


class Resolver:
    """Evaluates the expressions of one template."""

    def __init__(
        self, document: Mapping[str, Any], parameters: Mapping[str, str], *, region: str, account_id: str
    ) -> None:
        self._resources: Mapping[str, Any] = _mapping(document.get("Resources"))
        self._mappings: Mapping[str, Any] = _mapping(document.get("Mappings"))
        self._conditions: Mapping[str, Any] = _mapping(document.get("Conditions"))
        self._region = region
        self._account_id = account_id
        self._values: dict[str, Any] = {
            "AWS::Region": region,
            "AWS::AccountId": account_id,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": "local",
            "AWS::StackId": f"arn:aws:cloudformation:{region}:{account_id}:stack/local/{uuid.UUID(int=0)}",
            "AWS::NotificationARNs": [],
            "AWS::NoValue": _NO_VALUE,
        }
        for name, declaration in _mapping(document.get("Parameters")).items():
            value = _parameter_value(_mapping(declaration), parameters.get(name))
            if value is not None:
                self._values[name] = value
        self.unresolved: list[Unresolved] = []
        self._where = ("", "")
        self._evaluating: list[str] = []

    def resolve(self, value: Any, logical_id: str, key: str) -> Any:
        """A property's value with every expression in it evaluated; None where it is AWS::NoValue."""
        self._where = (logical_id, key)
        result = self._evaluate(value)
        return None if result is _NO_VALUE else result

    def holds(self, condition: Any) -> bool:
        """Whether a resource with this `Condition` is made; True without one."""
        if condition is None:
            return True
        self._where = ("Conditions", str(condition))
        return self._condition({"Condition": condition})

    @staticmethod
    def is_unresolved(value: str) -> bool:
        return _PLACEHOLDER.search(value) is not None

    def _evaluate(self, value: Any) -> Any:
        if isinstance(value, dict):
            if len(value) == 1:
                (name, argument), *_ = value.items()
                if name == "Ref" or (isinstance(name, str) and name.startswith("Fn::")):
                    return self._call(name, argument)
            items = ((key, self._evaluate(item)) for key, item in value.items())
            return {key: item for key, item in items if item is not _NO_VALUE}
        if isinstance(value, list):
            return [item for item in map(self._evaluate, value) if item is not _NO_VALUE]
        return value

    def _call(self, name: str, argument: Any) -> Any:
        if name == "Ref":
            return self._ref(str(argument))
        if name == "Fn::If":
            condition, if_true, if_false = _list(argument, 3)
            return self._evaluate(if_true if self._condition({"Condition": condition}) else if_false)
        if name == "Fn::Sub":
            return self._sub(argument)
        argument = self._evaluate(argument)
        if name == "Fn::GetAtt":
            resource, attribute = _list(argument, 2)
            return self._get_att(str(resource), str(attribute))
        if name == "Fn::Join":
            separator, parts = _list(argument, 2)
            if isinstance(parts, list):
                return str(separator).join(_text(part) for part in parts)
        if name == "Fn::Select":
            index, choices = _list(argument, 2)
            if isinstance(choices, list) and str(index).isdecimal() and int(index) < len(choices):
                return choices[int(index)]
        if name == "Fn::Split":
            separator, text = _list(argument, 2)
            if isinstance(text, str) and not self.is_unresolved(text):
                return text.split(str(separator))
        if name == "Fn::FindInMap":
            found: Any = self._mappings
            for part in argument[:3] if isinstance(argument, list) else ():
                found = _mapping(found).get(str(part))
            if found is not None and found is not self._mappings:
                return found
        if name == "Fn::Base64" and isinstance(argument, str):
            return base64.b64encode(argument.encode()).decode()
        if name == "Fn::GetAZs":
            return [f"{argument or self._region}{zone}" for zone in "abc"]
        return self._placeholder(f"{name.replace('Fn::', '!')} {_short(argument)}")

    def _ref(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        kind = self._kind(name)
        if not kind:
            return self._placeholder(f"!Ref {name}")
        return self._filled(_REFERENCES.get(kind, "{name}"), name)

    def _get_att(self, name: str, attribute: str) -> str:
        kind = self._kind(name)
        if kind in _RESOURCES:
            if attribute == "Arn":
                return self._filled(_RESOURCES[kind][1], name)
            if attribute in ("QueueName", "TopicName"):
                return self._filled("{name}", name)
            if attribute == "QueueUrl":
                return self._filled(_REFERENCES[kind], name)
            if attribute == "TopicArn":
                return self._filled(_RESOURCES[kind][1], name)
        return self._placeholder(f"!GetAtt {name}.{attribute}")

    def _sub(self, argument: Any) -> str:
        template, variables = (argument, {}) if isinstance(argument, str) else _list(argument, 2)

        def replace(match: re.Match[str]) -> str:
            literal, name = match.group(1), match.group(2).strip()
            if literal:
                return f"${{{name}}}"
            if name in variables:
                return _text(self._evaluate(variables[name]))
            if "." in name and name not in self._values:
                return self._get_att(*name.split(".", 1))
            return _text(self._ref(name))

        return _SUB.sub(replace, str(template))

    def _condition(self, expression: Any) -> bool:
        (name, argument), *_ = _mapping(expression).items() or [("", None)]
        if name == "Condition":
            name = str(argument)
            if name not in self._conditions or name in self._evaluating:
                return False  # no such condition, or one that hangs on itself: CloudFormation refuses both
            self._evaluating.append(name)
            try:
                return self._condition(self._conditions[name])
            finally:
                self._evaluating.pop()
        if name == "Fn::Equals":
            left, right = _list(argument, 2)
            return _text(self._evaluate(left)) == _text(self._evaluate(right))
        if name == "Fn::And":
            return all(self._condition(part) for part in argument or ())
        if name == "Fn::Or":
            return any(self._condition(part) for part in argument or ())
        if name == "Fn::Not":
            return not self._condition(_list(argument, 1)[0])
        return False

    def _kind(self, name: str) -> str:
        """The resource's type; empty where there is no such resource."""
        return str(_mapping(self._resources.get(name)).get("Type") or "")

    def _filled(self, pattern: str, name: str) -> str:
        kind = self._kind(name)
        key = _RESOURCES[kind][0] if kind in _RESOURCES else ""
        own: Any = None
        if key and name not in self._evaluating:
            self._evaluating.append(name)
            try:
                own = self._evaluate(_mapping(self._resources[name].get("Properties")).get(key))
            finally:
                self._evaluating.pop()
        physical = own if isinstance(own, str) else name
        return pattern.format(region=self._region, account=self._account_id, name=physical)

    def _placeholder(self, expression: str) -> str:
        entry = Unresolved(*self._where, expression)
        if entry not in self.unresolved:
            self.unresolved.append(entry)
        return f"<unresolved {expression}>"


def _parameter_value(declaration: Mapping[str, Any], given: str | None) -> Any:
    kind = str(declaration.get("Type", "String"))
    value = given if given is not None else declaration.get("Default")
    # The default of such a parameter is the name of an entry in Parameter Store, not its value.
    if value is None or (given is None and kind.startswith("AWS::SSM::Parameter::Value")):
        return None
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        return [part.strip() for part in str(value).split(",")]
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any, length: int) -> list[Any]:
    """The arguments of a function that takes a list; missing ones are None."""
    items = value if isinstance(value, list) else [value]
    return [*items, *[None] * length][:length]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return "" if value is None or value is _NO_VALUE else str(value)


def _short(argument: Any) -> str:
    return re.sub(r"[<>]", "", _text(argument) if not isinstance(argument, dict) else ", ".join(argument))
