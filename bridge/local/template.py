"""
Reads the functions of a SAM or CloudFormation template, as far as they can run here.

Intrinsic functions are resolved where the answer is in the template or has an obvious local stand-in: parameters by
their defaults, resources by their names, ARNs in an account of our own. What can't be known before a deployment becomes
a placeholder that shows the expression, and is listed in `Template.unresolved`; only where a function could not start
without it is it an error.

Sources: "AWS SAM specification" (Globals, AWS::Serverless::Function), "Intrinsic function reference" and "Pseudo
parameters reference" of the CloudFormation user guide; default Timeout and MemorySize from the Lambda API reference,
CreateFunction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bridge.errors import ConfigError
from bridge.local.intrinsics import Resolver, Unresolved

ACCOUNT_ID = "123456789012"
DEFAULT_REGION = "us-east-1"

_FUNCTION_TYPES = ("AWS::Serverless::Function", "AWS::Lambda::Function")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_TIMEOUT_SECONDS = 900
_MAX_MEMORY_MB = 10240
_MIN_MEMORY_MB = 128


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One function as the template declares it."""

    logical_id: str
    name: str
    """What callers invoke: FunctionName, or the logical id where the template leaves the name to CloudFormation."""
    handler: str
    code: Path | None
    """The folder that is the function's root (or a .zip of it); None where `inline` holds the code."""
    inline: str | None = field(default=None, repr=False)
    """The text of `index.py`."""
    runtime: str = "python3.12"
    timeout_seconds: int = 3
    memory_mb: int = 128
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    reserved_concurrency: int | None = None
    alias: str | None = None
    """AutoPublishAlias: names version 1, the one that a deployment would publish."""
    layers: tuple[Path, ...] = ()
    """Local folders of layers; `python` below each is importable."""
    maximum_retry_attempts: int = 2
    maximum_event_age_seconds: int = 21600
    description: str = ""
    role: str = f"arn:aws:iam::{ACCOUNT_ID}:role/local"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A function that can't run here, and why: one sentence."""

    logical_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Template:
    """What one template declares."""

    path: Path
    functions: tuple[FunctionSpec, ...]
    skipped: tuple[Skipped, ...]
    unresolved: tuple[Unresolved, ...]


class _Loader(yaml.SafeLoader):
    """YAML as CloudFormation writes it: the short forms of the intrinsic functions are tags."""


def _construct_intrinsic(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        raise yaml.constructor.ConstructorError(
            None, None, f"!{suffix} holds nothing that can be read", node.start_mark
        )
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _construct_intrinsic)
# `Version: 2012-10-17` and the like stay text, as CloudFormation reads them.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_template(
    path: Path,
    *,
    parameters: Mapping[str, str] | None = None,
    region: str = DEFAULT_REGION,
) -> Template:
    """
    Read the functions of a template.

    Args:
        path: the template; relative paths in it are relative to its folder.
        parameters: values for the template's parameters, over their defaults.
        region: what AWS::Region stands for.

    Raises:
        ConfigError: the file is missing or no template, or a function lacks what it needs; the message names the
            resource and the key.
    """
    document = _load(path)
    resources = _mapping(document.get("Resources"), path, "Resources")
    resolver = Resolver(document, parameters or {}, region=region, account_id=ACCOUNT_ID)
    defaults = _mapping(_mapping(document.get("Globals") or {}, path, "Globals").get("Function") or {}, path, "Globals")
    functions: list[FunctionSpec] = []
    skipped: list[Skipped] = []
    for logical_id, resource in resources.items():
        if not isinstance(resource, dict) or resource.get("Type") not in _FUNCTION_TYPES:
            continue
        if not resolver.holds(resource.get("Condition")):
            continue
        properties = _mapping(resource.get("Properties") or {}, path, f"{logical_id}: Properties")
        if resource["Type"] == "AWS::Serverless::Function":
            properties = _with_defaults(defaults, properties)
        reader = _FunctionReader(path, logical_id, properties, resolver, resources)
        reason = reader.why_not()
        if reason:
            skipped.append(Skipped(logical_id, reason))
        else:
            functions.append(reader.read(serverless=resource["Type"] == "AWS::Serverless::Function"))
    if not functions and not skipped:
        raise ConfigError(
            f"{path} declares no function", remedy="add a resource of type AWS::Serverless::Function to it"
        )
    _refuse_same_names(path, functions)
    return Template(path, tuple(functions), tuple(skipped), tuple(resolver.unresolved))


class _FunctionReader:
    """The properties of one function, with the resource and the key in each error."""

    def __init__(
        self,
        path: Path,
        logical_id: str,
        properties: Mapping[str, Any],
        resolver: Resolver,
        resources: Mapping[str, Any],
    ) -> None:
        self._path = path
        self._logical_id = logical_id
        self._properties = properties
        self._resolver = resolver
        self._resources = resources

    def why_not(self) -> str | None:
        """Why this function can't run here, or None."""
        if self._get("PackageType") == "Image" or self._properties.get("ImageUri"):
            return f"{self._logical_id} is a container image; functions run here as processes, from a folder of code"
        runtime = self._get("Runtime")
        if runtime is None:
            raise self._error("Runtime", "is missing", "name one, such as python3.12")
        if not str(runtime).startswith("python"):
            return (
                f"{self._logical_id} is written for {runtime}; functions run here under AWS's runtime client for"
                " Python, so only python runtimes do"
            )
        return None

    def read(self, *, serverless: bool) -> FunctionSpec:
        code, inline = self._serverless_code() if serverless else self._lambda_code()
        concurrency = self._get("ReservedConcurrentExecutions")
        invoke = self._get("EventInvokeConfig")
        invoke = invoke if isinstance(invoke, dict) else {}
        description = self._get("Description")
        role = self._get("Role")
        return FunctionSpec(
            logical_id=self._logical_id,
            name=self._name(),
            handler=self._text("Handler", "name the function as module.function"),
            code=code,
            inline=inline,
            runtime=str(self._get("Runtime")),
            timeout_seconds=self._number("Timeout", 3, 1, _MAX_TIMEOUT_SECONDS),
            memory_mb=self._number("MemorySize", 128, _MIN_MEMORY_MB, _MAX_MEMORY_MB),
            environment=self._environment(),
            reserved_concurrency=None
            if concurrency is None
            else self._number("ReservedConcurrentExecutions", 0, 0, 100_000),
            alias=self._alias() if serverless else self._alias_resource(),
            layers=self._layers(),
            maximum_retry_attempts=_bounded(invoke.get("MaximumRetryAttempts"), 2, 0, 2),
            maximum_event_age_seconds=_bounded(invoke.get("MaximumEventAgeInSeconds"), 21600, 60, 21600),
            description=description if isinstance(description, str) else "",
            role=role if isinstance(role, str) else f"arn:aws:iam::{ACCOUNT_ID}:role/{self._logical_id}Role",
        )

    def _get(self, key: str) -> Any:
        return self._resolver.resolve(self._properties.get(key), self._logical_id, key)

    def _error(self, key: str, problem: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self._path}: {self._logical_id}: {key} {problem}", remedy=remedy)

    def _text(self, key: str, remedy: str) -> str:
        value = self._get(key)
        if value is None:
            raise self._error(key, "is missing", remedy)
        if not isinstance(value, str) or not value or self._resolver.is_unresolved(value):
            raise self._error(key, f"is {value!r}", remedy)
        return value

    def _number(self, key: str, default: int, least: int, most: int) -> int:
        value = self._get(key)
        if value is None:
            return default
        try:
            number = int(str(value))
        except ValueError:
            number = -1
        if isinstance(value, bool) or not least <= number <= most:
            raise self._error(key, f"is {value!r}", f"use a whole number from {least} to {most}")
        return number

    def _name(self) -> str:
        value = self._get("FunctionName")
        if value is None:
            return self._logical_id
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise self._error("FunctionName", f"is {value!r}", "use at most 64 letters, digits, - and _")
        return value

    def _environment(self) -> dict[str, str]:
        environment = self._get("Environment")
        if environment is None:
            return {}
        variables = environment.get("Variables", {}) if isinstance(environment, dict) else None
        if not isinstance(variables, dict):
            raise self._error("Environment", "is not a mapping", "write Environment: {Variables: {NAME: value}}")
        result = {}
        for name, value in variables.items():
            if isinstance(value, dict | list):
                raise self._error(f"Environment.Variables.{name}", "is not a single value", "make it a string")
            if value is not None:
                result[str(name)] = _scalar_text(value)
        return result

    def _alias(self) -> str | None:
        value = self._get("AutoPublishAlias")
        if value is None:
            return None
        if not isinstance(value, str) or not re.fullmatch(r"(?!\d+$)[A-Za-z0-9_-]{1,128}", value):
            raise self._error("AutoPublishAlias", f"is {value!r}", "name it with letters, digits, - and _")
        return value

    def _alias_resource(self) -> str | None:
        """The alias that an AWS::Lambda::Alias resource gives to this function."""
        for other_id, resource in self._resources.items():
            if not isinstance(resource, dict) or resource.get("Type") != "AWS::Lambda::Alias":
                continue
            properties = resource.get("Properties") or {}
            target = self._resolver.resolve(properties.get("FunctionName"), other_id, "FunctionName")
            if target in (self._name(), self._logical_id):
                name = self._resolver.resolve(properties.get("Name"), other_id, "Name")
                return name if isinstance(name, str) else None
        return None

    def _serverless_code(self) -> tuple[Path | None, str | None]:
        inline = self._get("InlineCode")
        if isinstance(inline, str):
            return None, inline
        return self._folder("CodeUri", self._get("CodeUri")), None

    def _lambda_code(self) -> tuple[Path | None, str | None]:
        code = self._get("Code")
        if isinstance(code, dict) and isinstance(code.get("ZipFile"), str):
            return None, code["ZipFile"]
        return self._folder("Code", code), None

    def _folder(self, key: str, value: Any) -> Path:
        if value is None:
            raise self._error(key, "is missing", "name the folder that holds the handler's module")
        if not isinstance(value, str) or value.startswith("s3://") or self._resolver.is_unresolved(value):
            raise self._error(key, "is not in a local folder", "name the folder that holds the handler's module")
        folder = (self._path.parent / value).resolve()
        if not folder.exists():
            raise self._error(key, f"names {folder}, which does not exist", "correct the path, or run sam build first")
        if folder.is_file() and folder.suffix != ".zip":
            raise self._error(key, f"names {folder}, which is neither a folder nor a .zip file", "name a folder")
        return folder

    def _layers(self) -> tuple[Path, ...]:
        """Layers that the same template makes from local folders; what others hold must be installed here."""
        layers = self._properties.get("Layers")
        folders = []
        for layer in layers if isinstance(layers, list) else []:
            resource = self._resources.get(layer.get("Ref", "")) if isinstance(layer, dict) else None
            if not isinstance(resource, dict) or resource.get("Type") != "AWS::Serverless::LayerVersion":
                continue
            content = (resource.get("Properties") or {}).get("ContentUri")
            if isinstance(content, str) and (self._path.parent / content).is_dir():
                folders.append((self._path.parent / content).resolve())
        return tuple(folders)


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", remedy="name the SAM template with --template") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}", remedy="name the SAM template with --template") from error
    try:
        # The loader is a SafeLoader; JSON templates are YAML as well.
        document = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: {error.problem}", remedy="correct the YAML") from error
    return _mapping(document, path, "the template")


def _mapping(value: Any, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {what} is not a mapping", remedy="see the AWS SAM specification for its shape")
    return value


def _with_defaults(defaults: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """
    Globals under a function's own properties: maps merge, lists add up, single values are replaced.

    Source: "Globals section of the AWS SAM template", Overridable Globals.
    """
    merged: dict[str, Any] = dict(defaults)
    for key, value in properties.items():
        default = merged.get(key)
        if isinstance(default, dict) and _plain_mapping(value) and _plain_mapping(default):
            merged[key] = _with_defaults(default, value)
        elif isinstance(value, list) and isinstance(default, list):
            merged[key] = [*default, *value]
        else:
            merged[key] = value
    return merged


def _plain_mapping(value: Any) -> bool:
    """A mapping that is no intrinsic function."""
    if not isinstance(value, dict):
        return False
    return not (len(value) == 1 and next(iter(value)) in ("Ref", "Condition")) and not any(
        str(key).startswith("Fn::") for key in value
    )


def _scalar_text(value: Any) -> str:
    """As CloudFormation turns it into a string: `true`, not `True`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _bounded(value: Any, default: int, least: int, most: int) -> int:
    return min(max(value, least), most) if isinstance(value, int) and not isinstance(value, bool) else default


def _refuse_same_names(path: Path, functions: list[FunctionSpec]) -> None:
    seen: dict[str, str] = {}
    for function in functions:
        other = seen.setdefault(function.name, function.logical_id)
        if other != function.logical_id:
            raise ConfigError(
                f"{path}: {function.logical_id}: FunctionName {function.name!r} is the name of {other} too",
                remedy="give each function a name of its own",
            )
