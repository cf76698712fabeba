"""
Secrets: text that may be used but not shown, given as it is or as a reference to where it is kept.

| written as | read from |
|---|---|
| `file:/run/secrets/x` | that file, less one trailing newline |
| `secretsmanager:ARN`, `secretsmanager:ARN#key` | AWS Secrets Manager; `#key` picks a member of a JSON secret |
| `ssm:/name`, `ssm:/name#key` | AWS Systems Manager Parameter Store, decrypted |
| anything else | itself |

References are read when first needed and again where a caller asks for a `fresh` one (reconnect, refused login), so a
rotated secret is taken up without a restart.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

from bridge.aws import new_session
from bridge.errors import ConfigError, SecretUnavailable

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

Kind = Literal["literal", "file", "secretsmanager", "ssm"]

HIDDEN: Final = "**********"

_REFERENCE = re.compile(r"(file|secretsmanager|ssm):(.+)", re.DOTALL)
_LOOKS_SECRET: Final = (
    # The password of a URI; as long as there is an @ to end it, for it may be mistyped.
    (re.compile(r"(?<=://)([^/@\s:]*):[^@\s]+(?=@)"), rf"\1:{HIDDEN}"),
    # name=value, of libpq's keyword strings, query strings and JSON.
    (
        re.compile(
            r"(?i)\b((?:ssl|client_)?(?:password|passwd|secret|token|api[_-]?key)[\"']?\s*[=:]\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|[^\s&,;}]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\bwhs(ec|k)_[A-Za-z0-9+/=_-]+"), rf"whs\1_{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
)


def redact(text: str) -> str:
    """
    Cover what looks like a secret in text of foreign origin (a driver's message, a mistyped setting).

    A second net, for text that should have held none; our own code never formats a secret in the first place.
    """
    for pattern, cover in _LOOKS_SECRET:
        text = pattern.sub(cover, text)
    return text


class Secret:
    """One secret as configured. Immutable; `str`, `repr`, JSON and error text never show what it holds."""

    __slots__ = ("_text", "kind")

    _text: str
    kind: Kind
    """Where the secret is kept; `literal` where the text is the secret itself."""

    def __init__(self, text: str) -> None:
        match = _REFERENCE.fullmatch(text)
        kind = match.group(1) if match else "literal"
        object.__setattr__(self, "_text", text)
        object.__setattr__(self, "kind", kind)

    @property
    def literal(self) -> str | None:
        """The secret itself where it was given as it is, None for a reference. For checks at load; use a resolver."""
        return self._text if self.kind == "literal" else None

    @property
    def reference(self) -> str:
        """What follows the colon of a reference. Names a place, not a secret; may be shown."""
        if self.kind == "literal":
            raise ValueError("a literal secret refers to nothing")
        return self._text.partition(":")[2]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Secret is immutable; {name} can't be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Secret is immutable; {name} can't be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret can't be pickled")

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r})" if self.kind == "literal" else f"Secret(<{self.kind}>)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415 - not needed to resolve

        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "minLength": 1, "writeOnly": True}

    @classmethod
    def _validate(cls, value: object) -> Secret:
        if isinstance(value, Secret):
            return value
        if not isinstance(value, str):
            # 0123 would have become 83 or 123 by now: the text that was meant is gone.
            raise ValueError("it must be text; put it in quotes")  # noqa: TRY004 - pydantic collects ValueErrors
        if not value:
            raise ValueError("it is empty")
        return cls(value)


class SecretResolver:
    """
    Fetches secrets and remembers them; one for the process, shared by all that need a secret.

    boto3 is imported when the first AWS reference is met, and its calls run in threads.
    """

    def __init__(self) -> None:
        self._known: dict[Secret, str] = {}
        self._locks: dict[Secret, asyncio.Lock] = {}

    async def fetch(self, secret: Secret, *, fresh: bool = False) -> str:
        """
        The text of a secret; `fresh` reads a reference again instead of answering from memory.

        Raises:
            ConfigError: the reference names nothing that can be read; says what and why.
            SecretUnavailable: the service that keeps it did not answer; worth another try.
        """
        if secret.literal is not None:
            return secret.literal
        lock = self._locks.setdefault(secret, asyncio.Lock())
        async with lock:  # one fetch for many callers that wait for the same secret
            if fresh or secret not in self._known:
                self._known[secret] = await asyncio.to_thread(_READERS[secret.kind], secret.reference)
            return self._known[secret]

    async def fetch_all(self, secrets: Iterable[Secret]) -> dict[Secret, str]:
        """The texts of several secrets; raises as `fetch`."""
        return {secret: await self.fetch(secret) for secret in secrets}


def _read_file(reference: str) -> str:
    path = Path(reference.removeprefix("//"))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the secret file {path} can't be read: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the secret file {path} is not UTF-8 text", remedy="write it as text") from error
    return _not_empty(text.removesuffix("\n").removesuffix("\r"), f"the secret file {path}")


def _read_secretsmanager(reference: str) -> str:
    name, _, key = reference.partition("#")
    where = f"secretsmanager:{name}"

    def call() -> str:
        answer = _client("secretsmanager", name).get_secret_value(SecretId=name)
        if "SecretString" in answer:
            return str(answer["SecretString"])
        try:
            return bytes(answer["SecretBinary"]).decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"the secret {where} is binary", remedy="store it as text") from error

    return _not_empty(_member(_call_aws(where, call), key, where), where)


def _read_ssm(reference: str) -> str:
    name, _, key = reference.partition("#")
    where = f"ssm:{name}"

    def call() -> str:
        return str(_client("ssm", name).get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])

    return _not_empty(_member(_call_aws(where, call), key, where), where)


_READERS: Final[dict[str, Callable[[str], str]]] = {
    "file": _read_file,
    "secretsmanager": _read_secretsmanager,
    "ssm": _read_ssm,
}


def _client(service: Literal["secretsmanager", "ssm"], name: str) -> Any:
    from botocore.config import Config  # noqa: PLC0415 - a process without AWS references never pays for it

    # arn:partition:service:REGION:account:… names its region; a bare name leaves it to the SDK's own settings.
    parts = name.split(":")
    region = parts[3] if parts[0] == "arn" and len(parts) > 3 else None
    config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
    return new_session().create_client(service, region_name=region, config=config)


# What another try can't mend, by the service's error code. All else is worth one.
_FINAL_CODES: Final = frozenset(
    {
        "AccessDeniedException",
        "AccessDenied",
        "DecryptionFailure",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidKeyId",
        "InvalidParameterException",
        "InvalidRequestException",
        "InvalidSignatureException",
        "ParameterNotFound",
        "ParameterVersionNotFound",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
        "ValidationException",
    }
)


def _call_aws(where: str, call: Callable[[], str]) -> str:
    from botocore import exceptions  # noqa: PLC0415 - as above

    try:
        return call()
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _FINAL_CODES:
            raise ConfigError(
                f"the secret {where} can't be read: {code}",
                remedy="check its name and region, and that the role may read it (and use its KMS key)",
            ) from error
        raise SecretUnavailable(f"the secret {where} can't be read now: {code}") from error
    except (exceptions.NoCredentialsError, exceptions.NoRegionError, exceptions.ParamValidationError) as error:
        raise ConfigError(
            f"the secret {where} can't be read: {type(error).__name__}",
            remedy="give the process AWS credentials and a region (AWS_REGION), and name the secret by its ARN",
        ) from error
    except (exceptions.BotoCoreError, OSError) as error:
        raise SecretUnavailable(f"the secret {where} can't be read now: {type(error).__name__}") from error


def _member(text: str, key: str, where: str) -> str:
    """One member of a JSON secret, or the whole where no key was asked for."""
    if not key:
        return text
    remedy = "correct the name after the #, or leave it out to use the whole secret"
    try:
        document = json.loads(text)
    except ValueError:
        # Not chained: the parser's error carries the document.
        raise ConfigError(f"the secret {where} is not JSON, so it has no member {key!r}", remedy=remedy) from None
    if not isinstance(document, dict) or key not in document:
        raise ConfigError(f"the secret {where} has no member {key!r}", remedy=remedy)
    value = document[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError(f"the member {key!r} of the secret {where} is not text", remedy=remedy)
    return str(value)


def _not_empty(text: str, where: str) -> str:
    if not text:
        raise ConfigError(f"{where} is empty", remedy="put the secret into it")
    return text
