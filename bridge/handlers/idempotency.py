"""
Each change takes effect once: Powertools' idempotency, keyed on `metadata.idempotency_key`.

The bridge delivers at least once, and every attempt at a change carries the same key. Where the records are kept is
the user's choice among Powertools' persistence layers; only the key is kept there, hashed, never a row.

Importing this module imports boto3, because Powertools' idempotency does; that is why `bridge.handlers` does not.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.idempotency import BasePersistenceLayer, IdempotencyConfig, idempotent_function

from bridge.handlers.data_classes import ChangeEvent
from bridge.handlers.event import Event

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

EXPIRES_AFTER_SECONDS = 7 * 24 * 60 * 60
"""
Powertools' default is an hour. A change whose call timed out comes again after its back-off, but the outcome of a call
may also stay unknown until somebody replays the dead letter, days later.
"""


def change_idempotency_config(**settings: Any) -> IdempotencyConfig:
    """
    Powertools' `IdempotencyConfig`, keyed on the change; `settings` are its own and win over what is chosen here.

    For `idempotent_function` on a function of one's own too: the key is found in an `Event` as in a `ChangeEvent`. An
    event without a key is refused rather than let through twice.
    """
    chosen: dict[str, Any] = {
        "event_key_jmespath": "metadata.idempotency_key",
        "raise_on_no_idempotency_key": True,
        "expires_after_seconds": EXPIRES_AFTER_SECONDS,
    }
    return IdempotencyConfig(**(chosen | settings))


def idempotent_change(
    handler: Callable[..., object],
    *,
    persistence_store: BasePersistenceLayer,
    config: IdempotencyConfig | None = None,
    context: LambdaContext | None = None,
    key_prefix: str | None = None,
) -> Callable[..., None]:
    """
    Wrap a record handler so that it is called once per change, until the record of it expires.

    A change that another invocation is working on fails with Powertools' `IdempotencyAlreadyInProgressError` and comes
    again; one whose handler raised is forgotten, so that its next attempt runs. The handler's result is not kept.

    Args:
        handler: not `async def`, which Powertools' idempotency can't wrap.
        persistence_store: one of Powertools' layers.
        config: by default `change_idempotency_config()`.
        context: Lambda's; says until when another invocation may still be at work on a change.
        key_prefix: instead of the names of Lambda function and handler, so that renaming them repeats nothing.
    """
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"{handler.__qualname__} is async, and Powertools' idempotency wraps plain functions only")
    config = config or change_idempotency_config()
    if context is not None:
        config.register_lambda_context(context)

    # Powertools copies and serializes what it takes the key from, so it gets that much of the event and no more.
    @functools.wraps(handler)
    def once(change: Event[Any] | ChangeEvent, keywords: dict[str, Any], *, key: dict[str, Any]) -> None:  # noqa: ARG001  # `key` is for Powertools
        handler(change, **keywords)

    guarded = idempotent_function(
        once,
        data_keyword_argument="key",
        persistence_store=persistence_store,
        config=config,
        key_prefix=key_prefix,
    )

    @functools.wraps(handler)
    def handle(change: Event[Any] | ChangeEvent, **keywords: Any) -> None:
        guarded(change, keywords, key={"metadata": {"idempotency_key": change.metadata.idempotency_key}})

    return handle
