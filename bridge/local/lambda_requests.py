"""Requests to the Lambda API, read and refused as AWS does. Pure but for the ids it draws."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Sequence
from typing import Final

import orjson

from bridge.clock import Clock
from bridge.local.lambda_errors import Refused

# Lambda quotas, "Function configuration, deployment, and execution": invocation payload.
MAX_SYNC_REQUEST_BYTES: Final = 6 * 1024 * 1024
MAX_ASYNC_REQUEST_BYTES: Final = 1024 * 1024

_FUNCTION = re.compile(
    r"(?:arn:aws[a-z-]*:lambda:)?(?:[a-z]{2}(?:-[a-z]+)+-\d:)?(?:\d{12}:)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_-]{1,64})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9_-]{1,128}))?"
)


def read_function(text: str, in_query: str | None) -> tuple[str, str | None]:
    """
    The function's name and the qualifier that a request names.

    Args:
        text: of the path: a name, or an ARN or the end of one, perhaps with a qualifier.
        in_query: the qualifier of the query.
    """
    match = _FUNCTION.fullmatch(text)
    if match is None:
        raise Refused(
            400,
            "ValidationException",
            f"1 validation error detected: Value '{text}' at 'functionName' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {_FUNCTION.pattern}",
        )
    in_name = match.group("qualifier")
    qualifier = in_query or in_name
    if in_name is not None and in_name != qualifier:
        raise Refused(
            400,
            "InvalidParameterValueException",
            "The derived qualifier from the function name does not match the specified qualifier.",
        )
    return match.group("name"), qualifier


def check_enum(member: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that the API's model does not list."""
    if value not in allowed:
        raise Refused(
            400,
            "ValidationException",
            f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(allowed)}]",
        )


def check_payload(body: bytes, invocation_type: str) -> None:
    """Refuse what is no JSON, or larger than such a call may be."""
    limit = MAX_ASYNC_REQUEST_BYTES if invocation_type == "Event" else MAX_SYNC_REQUEST_BYTES
    if len(body) > limit:
        message = f"{len(body)} byte payload is too large for the {invocation_type} invocation type"
        raise Refused(413, "RequestTooLargeException", f"{message} (limit {limit} bytes)")
    _check_json(body)


def _check_json(body: bytes) -> None:
    if not body:
        return
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if _is_lenient_json(body):
            return
        raise Refused(
            400,
            "InvalidRequestContentException",
            f"Could not parse request body into json: Could not parse payload into json: {error.msg}\n at [Source: "
            "REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); "
            f"line: {error.lineno}, column: {error.colno}]",
        ) from None


def _is_lenient_json(body: bytes) -> bool:
    """Lambda takes lone surrogates and numbers beyond floats, as PostgreSQL's json type does; orjson doesn't."""
    try:
        json.loads(body, parse_int=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def read_client_context(header: str | None) -> str | None:
    """`X-Amz-Client-Context` as the function is given it: JSON on one line."""
    if header is None:
        return None
    try:
        text = base64.b64decode(header, validate=True)
        valid = isinstance(orjson.loads(text), dict)
    except (binascii.Error, orjson.JSONDecodeError):
        valid = False
    if not valid:
        message = "Client context must be a valid Base64-encoded JSON object."
        raise Refused(400, "InvalidRequestContentException", message, kind=None)
    # A header of the Runtime API: on one line.
    return orjson.dumps(orjson.loads(text)).decode()


def new_trace_id(clock: Clock) -> str:
    """An X-Ray trace header for a call that brought none."""
    return f"Root=1-{int(clock.now()):08x}-{secrets.token_hex(12)};Parent={secrets.token_hex(8)};Sampled=0"
