"""`make chaos` that is told to end puts its processes away, and says what it has found so far."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

LIMIT_SECONDS = 300

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def processes_of(folder: str) -> list[str]:
    """Command lines that name something in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        if folder in line:
            found.append(line)
    return found


@pytest.fixture
def folder():
    """For everything temporary; with a short name, as a socket's path is limited."""
    with tempfile.TemporaryDirectory(prefix="pgb-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield name


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_ends_its_processes_and_prints_its_table(folder, number):
    environment = os.environ | {"TMPDIR": folder, "PYTHONPATH": str(Path(__file__).parent)}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chaos", "--rounds", "2", "--rate", "50", "--only", "answers lost",
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            assert b"clean" in await run.stderr.readline(), "the first run has ended, and the second has begun"
            while not any("chaos.receiver" in line and "/0002/" in line for line in processes_of(folder)):
                await asyncio.sleep(0.02)
            run.send_signal(number)
            printed, _ = await run.communicate()
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    assert run.returncode == 128 + number
    assert printed.decode().splitlines()[1].split()[:3] == ["answers", "lost", "1"]
    assert processes_of(folder) == []
    assert not any(name.startswith("pgbridge-chaos-") for name in os.listdir(folder))  # noqa: PTH208 - see ASYNC240
