"""Log events: JSON for machines, text for people, nothing secret for anybody."""

from __future__ import annotations

import errno
import io
import json
import logging
import sys
import warnings

import pytest
import structlog

from bridge.observe import log
from bridge.secret import HIDDEN, Secret

pytestmark = pytest.mark.usefixtures("undo_logging")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_line_of_json_when_stderr_is_no_terminal(capsys):
    log.configure()
    structlog.get_logger().info(log.STREAMING, slot="pgbridge", lsn="16/B374D848")
    (line,) = lines(capsys)
    assert list(line) == ["timestamp", "level", "event", "slot", "lsn"]
    assert (line["level"], line["event"], line["slot"]) == ("info", "streaming", "pgbridge")
    assert line["timestamp"].endswith("Z")


def test_it_is_aligned_text_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    log.configure()
    structlog.get_logger().warning(log.TRIGGER_PAUSED, trigger="email")
    assert "[warning  ] trigger paused           trigger=email\n" in terminal.getvalue()


@pytest.mark.parametrize(
    ("option", "variable", "written"),
    [
        (None, None, ["info", "warning"]),
        (None, "warning", ["warning"]),
        ("debug", "warning", ["debug", "info", "warning"]),
        ("ERROR", None, []),
        (None, "nonsense", ["info", "warning"]),
    ],
)
def test_the_option_wins_over_the_variable_and_info_is_the_default(capsys, monkeypatch, option, variable, written):
    monkeypatch.delenv("PGBRIDGE_LOG_LEVEL", raising=False)
    if variable is not None:
        monkeypatch.setenv("PGBRIDGE_LOG_LEVEL", variable)
    log.configure(option)
    logger = structlog.get_logger()
    logger.debug("x")
    logger.info("x")
    logger.warning("x")
    assert [line["level"] for line in lines(capsys)] == written


def test_a_logger_made_before_is_configured_too(capsys):
    early = structlog.get_logger("early")
    log.configure()
    early.bind(trigger="t").info("x")
    assert lines(capsys)[0]["trigger"] == "t"


def test_what_libraries_log_comes_out_the_same_way(capsys):
    log.configure("debug")
    logging.getLogger("botocore.auth").debug("Authorization: AWS4-HMAC-SHA256 Credential=AKIA")
    logging.getLogger("aiohttp").warning("unclosed %s", "session")
    (line,) = lines(capsys)
    assert (line["event"], line["text"], line["logger"], line["level"]) == (
        "library",
        "unclosed session",
        "aiohttp",
        "warning",
    )


def test_python_warnings_are_log_events(capsys):
    log.configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "old thing" in capsys.readouterr().err


def test_configuring_again_does_not_double_the_lines(capsys):
    log.configure()
    log.configure()
    logging.getLogger("x").warning("once")
    structlog.get_logger().info("once")
    assert len(lines(capsys)) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"dsn": "hunter2"},
        {"token": "hunter2"},
        {"Authorization": "Bearer hunter2"},
        {"record": {"x": "hunter2"}},
        {"reason": "connecting to postgresql://u:hunter2@h/d failed"},
        {"error": ValueError("password=hunter2")},
        {"value": Secret("hunter2")},
        {"frame": b"hunter2"},
        {"frame": memoryview(b"hunter2")},
    ],
)
def test_the_guard_covers_what_should_not_have_been_logged(capsys, fields):
    log.configure()
    structlog.get_logger().info("x", **fields)
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert HIDDEN in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_traceback_shows_code_and_no_values(monkeypatch, terminal):
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    log.configure()

    def fail(row):
        raise RuntimeError("failed at postgresql://u:" + row["name"] + "@h")

    try:
        fail({"name": "hunter" + "2"})
    except RuntimeError:
        structlog.get_logger().exception("x")
    assert "raise RuntimeError" in stderr.getvalue()
    assert "hunter2" not in stderr.getvalue()


def test_a_library_line_that_does_not_fit_its_arguments_does_not_raise(monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.configure()
    logging.getLogger("x").warning("%d", "not a number")


class Broken(io.StringIO):
    """A pipe whose reader has gone, or a file on a full disk."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")


@pytest.mark.parametrize("stderr", [Broken(), None])
def test_a_line_that_can_not_be_written_is_dropped_and_the_next_one_is_not(monkeypatch, stderr):
    """Delivery must not end because nobody reads the log, and whoever comes to read it gets what follows."""
    monkeypatch.setattr(sys, "stderr", stderr)
    log.configure("info")
    structlog.get_logger("x").warning(log.STREAMING)
    logging.getLogger("library").warning("hello")
    heard = io.StringIO()
    monkeypatch.setattr(sys, "stderr", heard)
    structlog.get_logger("x").warning(log.DRAINING)
    assert log.DRAINING in heard.getvalue()
    assert log.STREAMING not in heard.getvalue()
