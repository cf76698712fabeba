"""
Says hello to each new user; invoked for inserts into `users`.

A user without a name can't be greeted: that record fails, is retried, and ends as a dead letter, while the rest of the
batch goes on. With `WELCOME_ALLOW_MISSING_NAME=1` such a user is greeted as `Hello there`, and a replay of the dead
letter succeeds; the variable is read at each invocation.
"""

import os
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from bridge.handlers import Event, process_changes

# The traceback once, as text: the dead letter keeps no more than the last 4 KB that were logged.
logger = Logger(service="welcome-user", serialize_stacktrace=False)


class User(BaseModel):
    """The columns that are used; others may come and go."""

    id: int
    name: str | None = None


def greeting(user: User, *, allow_missing_name: bool) -> str:
    """
    `Hello <name>`.

    Raises:
        ValueError: the user has no name, and that is not allowed.
    """
    name = (user.name or "").strip()
    if name:
        return f"Hello {name}"
    if allow_missing_name:
        return "Hello there"
    raise ValueError(f"user {user.id} has no name to be greeted by")


def welcome(event: Event[User]) -> None:
    """Greet one user. The place to send a mail instead."""
    allow_missing_name = os.environ.get("WELCOME_ALLOW_MISSING_NAME", "") in ("1", "true")
    logger.info(greeting(event.record, allow_missing_name=allow_missing_name), event_id=event.id)


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> Any:
    return process_changes(event, welcome, model=User, context=context, logger=logger)
