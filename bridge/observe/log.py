"""
Log events: a name from the list below, and fields. JSON lines for machines, aligned text for people.

`configure` is called once by the command line; every room logs through `structlog.get_logger()`. What libraries log by
the standard `logging` comes out the same way, warnings and worse. Tracebacks show code, never the values of variables.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from bridge.secret import HIDDEN, Secret, redact

STARTING: Final = "starting"
STREAMING: Final = "streaming"
STANDING_BY: Final = "standing by"
RECONNECTING: Final = "reconnecting"
DRAINING: Final = "draining"
STOPPED: Final = "stopped"
SOURCE_LOST: Final = "source lost"
SLOT_LOST: Final = "slot lost"
PROMOTED_BEHIND: Final = "promoted server lacks what was received"
STORE_UNAVAILABLE: Final = "store unavailable"
STORE_AVAILABLE: Final = "store available"
OLD_VALUES_LACKING: Final = "old values lacking"
NOT_SENT: Final = "not sent"
CONTEXT_IGNORED: Final = "context ignored"
CATALOG_BEHIND: Final = "catalog behind"
RECORD_WRITTEN: Final = "record of running transactions written"
RECORD_REFUSED: Final = "record of running transactions refused"
SLOT_TAKEN: Final = "slot taken"
ABANDONED: Final = "calls abandoned"
TARGET_BUG: Final = "target bug"
TRIGGER_PAUSED: Final = "trigger paused"
TRIGGER_RESUMED: Final = "trigger resumed"
TRIGGER_TO_BACKLOG: Final = "trigger to backlog"
TRIGGER_LIVE: Final = "trigger live again"
BACKLOG_UNREADABLE: Final = "backlog unreadable"
BACKLOG_UNTIDY: Final = "backlog not tidied"
NOT_SAVED: Final = "not saved at stop"
DELIVERY_FAILED: Final = "delivery failed"
DELIVERY_WORKS: Final = "delivery works again"
DEAD_LETTER: Final = "dead letter"
FEWER_CONNECTIONS: Final = "fewer connections"
KEYS_FREED: Final = "keys freed"
ON_FAILURE_UNSENT: Final = "on_failure unsent"
ON_FAILURE_SENT: Final = "on_failure sent"
CHECKPOINT_SAVED: Final = "checkpoint saved"
ADMIN_LISTENING: Final = "admin port open"
ADMIN_REQUEST: Final = "admin request"
INVARIANT_BROKEN: Final = "invariant broken"
LIBRARY: Final = "library"
"""A line that a library wrote; its text stands in `text`."""

DEFAULT_LEVEL: Final = "info"

_SECRET_FIELDS: Final = frozenset(
    {"authorization", "bearer", "body", "dsn", "password", "record", "row", "secret", "token", "values"}
)
"""Fields that are never logged, whatever a caller thought: secrets, and what may hold row values."""


def configure(level: str | None = None) -> None:
    """
    Set logging up for this process; calling it again replaces what was set up.

    Args:
        level: debug, info, warning or error; None means `PGBRIDGE_LOG_LEVEL`, else info.
    """
    wanted = (level or os.environ.get("PGBRIDGE_LOG_LEVEL") or DEFAULT_LEVEL).upper()
    number = logging.getLevelNamesMapping().get(wanted, logging.INFO)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    enrich: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _stamp if terminal else structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Any] = [_text()] if terminal else [_ordered, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*enrich, structlog.processors.format_exc_info, guard, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_to_stderr,
        cache_logger_on_first_use=False,  # a module's logger may be used before this is called
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*enrich, _name_library, structlog.processors.format_exc_info, guard],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = _StderrHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)


def guard(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Last line of defence: cover secrets and row data that should not have been logged at all."""
    for key, value in event.items():
        if key.startswith("_"):
            continue  # structlog's own, removed before anything is written
        if key.lower() in _SECRET_FIELDS or isinstance(value, Secret | bytes | bytearray | memoryview):
            event[key] = HIDDEN
        elif isinstance(value, str) and type(value) is not str:  # an enum or a text-like type of a library
            event[key] = redact(str(value))
        elif isinstance(value, str):
            event[key] = redact(value)
        elif isinstance(value, BaseException):
            event[key] = redact(f"{type(value).__name__}: {value}")
    return event


def _ordered(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how bad, what; then the fields as they were given."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return {**first, **{name: value for name, value in event.items() if name not in first}}


_stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)


def _text() -> structlog.dev.ConsoleRenderer:
    colors = not os.environ.get("NO_COLOR")
    # The plain formatter: the pretty ones print local variables, and those hold rows and secrets.
    return structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )


def _name_library(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What a library says goes into `text`, so that event names stay ours."""
    event["text"] = event["event"]
    event["event"] = LIBRARY
    event["logger"] = event["_record"].name
    return event


def _to_stderr(*_names: Any) -> structlog.WriteLogger:
    return structlog.WriteLogger(_Stderr())  # type: ignore[arg-type]  # all it uses is write and flush


class _Stderr:
    """
    What stderr is at that moment, so that a redirection made later holds.

    Where nobody reads it any more, its disk is full, or there is none, lines are dropped: that must not end delivery.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                return sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()


class _StderrHandler(logging.Handler):
    """The same for the standard library's log records."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - a log line that can't be written must not end delivery
            self.handleError(record)
