"""One loader: a file and the environment to `Settings`, or a `ConfigError` that names every problem at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bridge.config.document import Document, DocumentError, Place, parse_yaml
from bridge.config.problems import describe, sentence
from bridge.config.section import section_of
from bridge.config.settings import Settings
from bridge.config.variables import FromEnvironment, expand
from bridge.errors import ConfigError

OVERRIDE_PREFIX: Final = "PGBRIDGE_"
OVERRIDDEN_SECTIONS: Final = ("source", "store", "admin")
"""Sections of plain settings: each has an environment variable, such as PGBRIDGE_SOURCE_DSN."""


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """
    Read a configuration file.

    Args:
        path: the file.
        environ: where `${VAR}` and the overrides `PGBRIDGE_SOURCE_DSN`, `PGBRIDGE_ADMIN_LISTEN`, … are looked up.

    Raises:
        ConfigError: the file can't be read, or a setting is wrong; one line for each problem.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no configuration file {path}",
            remedy="write one, or name another with --config or PGBRIDGE_CONFIG",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"the configuration file {path} can't be read: {error.strerror}",
            remedy="check the path and its permissions",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration file {path} is not UTF-8 text", remedy="save it as UTF-8") from error
    return parse(text, environ, name=str(path))


def parse(text: str, environ: Mapping[str, str], *, name: str = "pgbridge.yaml") -> Settings:
    """
    Read configuration text; `name` is what errors call it.

    Raises:
        ConfigError: as `load`.
    """
    try:
        document = parse_yaml(text)
    except DocumentError as error:
        raise ConfigError(f"{name}: {error}") from error
    if not isinstance(document.data, dict):
        held = "is empty" if document.data is None else "is not a group of settings (key: value)"
        raise ConfigError(f"{name} {held}", remedy="it needs at least source and triggers")
    data = _override(document.data, environ)
    expansion = expand(data, environ)
    if expansion.problems:
        problems = [(place, sentence(place, remark, None, {})) for place, remark in expansion.problems]
        raise _refusal(name, problems, document)
    try:
        return Settings.model_validate(expansion.data)
    except ValidationError as error:
        problems = describe(error, expansion.data, expansion.origins)
        # Not chained: pydantic's error keeps the values, and a traceback with --debug would show them.
        raise _refusal(name, problems, document) from None


def override_variables() -> dict[str, tuple[str, str]]:
    """Environment variable to (section, key) that it overrides."""
    variables: dict[str, tuple[str, str]] = {}
    for section in OVERRIDDEN_SECTIONS:
        model = section_of(Settings.model_fields[section].annotation)
        assert model is not None  # noqa: S101 - the names above are sections
        for name, info in model.model_fields.items():
            key = info.alias or name
            variables[f"{OVERRIDE_PREFIX}{section}_{key}".upper()] = (section, key)
    return variables


def _override(data: dict[Any, Any], environ: Mapping[str, str]) -> dict[Any, Any]:
    """Put the `PGBRIDGE_…` variables that are set, and not empty, in the place of what the file says."""
    data = dict(data)
    for variable, (section, key) in override_variables().items():
        value = environ.get(variable)
        if not value:
            continue
        model = section_of(Settings.model_fields[section].annotation)
        assert model is not None  # noqa: S101 - as above
        spelling = next((found for found in data if Settings.keys().get(found) == section), section)
        held = data.get(spelling)
        if held is not None and not isinstance(held, dict):
            continue  # validation will say that it is no section
        inner = {found: old for found, old in (held or {}).items() if model.keys().get(found) != key}
        inner[key] = FromEnvironment(variable, value)
        data[spelling] = inner
    return data


def _refusal(name: str, problems: Sequence[tuple[Place, str]], document: Document) -> ConfigError:
    sentences = [f"{name}{_line(place, document)}: {text}" for place, text in problems]
    return ConfigError("\n".join(sentences))


def _line(place: Place, document: Document) -> str:
    """`:14`, of the deepest part of the place that stands in the file."""
    for end in range(len(place), 0, -1):
        line = document.lines.get(place[:end])
        if line is not None:
            return f":{line}"
    return ""
