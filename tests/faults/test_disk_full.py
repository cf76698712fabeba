"""The disk that source and store are on fills up: delivery waits rather than lies, and goes on when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest
from chaos import workload
from chaos.rig import LIMIT_SECONDS, SERVER_SETTINGS, Rig

from bridge.local.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

DISK = "220m"
# A few segments, so that they are soon used up.
SETTINGS = SERVER_SETTINGS | {"max_wal_size": "64MB", "min_wal_size": "32MB"}
PIECE = b"\0" * (1 << 20)


@pytest.fixture
def disk():
    """A file system of its own, that is small."""
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount program")
    folder = Path(tempfile.mkdtemp(prefix="pgbridge-disk-"))
    folder.chmod(0o755)
    command = [mount, "-t", "tmpfs", "-o", f"size={DISK},mode=0755", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        folder.rmdir()
        pytest.skip(f"a small file system can't be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(PIECE) == len(PIECE):
            pass
    return ballast


def write_until_nothing_fits(dsn: str) -> str:
    """What the server says then; None where it is gone without a word."""
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(psycopg.connect(dsn))
            while True:
                workload.copy_rows(connection)
        except psycopg.Error as error:
            return error.sqlstate or "gone"


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_when_the_disk_fills_up(disk, tmp_path, seed):
    with EmbeddedPostgres(disk / "data", settings=SETTINGS) as server:
        async with Rig(server, tmp_path, seed=seed, rate=100, poison=True) as rig:
            rig.workload.start()
            await rig.start()
            await rig.recovers()
            ballast = fill(disk)
            said = await asyncio.to_thread(write_until_nothing_fits, rig.dsn)
            assert said in {"53100", "57P02", "57P03", "gone"}, said
            await asyncio.sleep(rig.random.uniform(0.5, 3))
            ballast.unlink()
            async with asyncio.timeout(LIMIT_SECONDS):
                await asyncio.to_thread(bring_back, server)
            await rig.recovers()
            report = (await rig.finish()).report
    assert not report.faults, report
    assert report.set_aside > 0


def bring_back(server: EmbeddedPostgres) -> None:
    """A server that could not write its WAL has ended, or is about to."""
    while True:
        if not server.running:
            server.start()
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(server.dsn(), autocommit=True) as connection,
        ):
            connection.execute("CHECKPOINT")
            return
