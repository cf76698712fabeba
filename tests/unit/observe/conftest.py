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
