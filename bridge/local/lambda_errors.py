"""
The Lambda API's errors, in the form in which an SDK takes them apart: status, `x-amzn-ErrorType`, and a JSON body.

Source: Lambda API reference, the Errors section of each action, and the service model for the members' spelling.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import orjson
from aiohttp import web

REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID")
"""Of the request that the current task answers."""


class Refused(Exception):
    """An error of the API: status, the exception's name, and the body's members."""

    def __init__(self, status: int, name: str, message: str, *, kind: str | None = "User", **members: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        # In AWS's model this one exception spells the member with a capital.
        key = "Message" if name == "ResourceNotFoundException" else "message"
        self.body = {"Type": kind, key: message, **members}


@web.middleware
async def as_aws(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A request id on every answer, and errors in AWS's form."""
    request_id = str(uuid.uuid4())
    REQUEST_ID.set(request_id)
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Refused as refused:
        response = _refusal(refused)
    except web.HTTPRequestEntityTooLarge:
        response = _refusal(Refused(413, "RequestTooLargeException", "Request must be smaller than 6291456 bytes"))
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        message = f"{request.method} {request.path} is not served here"
        response = _refusal(Refused(404, "UnknownOperationException", message))
    response.headers["x-amzn-RequestId"] = request_id
    return response


def _refusal(refused: Refused) -> web.Response:
    return web.Response(
        status=refused.status,
        body=orjson.dumps(refused.body),
        content_type="application/json",
        headers={"x-amzn-ErrorType": refused.name},
    )
