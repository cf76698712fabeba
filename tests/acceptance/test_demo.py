"""`pgbridge demo --once`, as `make demo` runs it: it checks all of what it tells, and ends with 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(180)
def test_the_demo_tells_its_story_to_the_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from bridge.cli import main; main()", "demo", "--once"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("Hello John Doe", "order 1 is shipped", "welcome: 1 delivered", "Hello there", "the console is at"):
        assert line in done.stdout


def test_without_a_template_the_demo_says_what_to_do(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from bridge.cli import main; main()",
            "demo",
            "--template",
            str(tmp_path / "none.yaml"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "none.yaml" in done.stderr
    assert "Traceback" not in done.stderr
