"""Fixtures that several rooms' tests share; none of them opens anything."""

from __future__ import annotations

import logging
import warnings

import pytest
import structlog


@pytest.fixture
def undo_logging():
    """Puts structlog, the root logger and the warnings machinery back as they were."""
    root = logging.getLogger()
    handlers, level, shown = root.handlers[:], root.level, warnings.showwarning
    yield
    logging.captureWarnings(capture=False)
    warnings.showwarning = shown
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Context:
    """What a function reads of Lambda's context object."""

    function_name = "users"
    memory_limit_in_mb = 128
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:users"
    aws_request_id = "52fdfc07-2182-154f-163f-5f0f9a621d72"

    @staticmethod
    def get_remaining_time_in_millis():
        return 3_000


@pytest.fixture
def context():
    return Context()
