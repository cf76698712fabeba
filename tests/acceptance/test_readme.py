"""
The README's tutorial, typed in as it stands: each file written, each command run, each thing waited for that it says.

A comment above a block says what a reader does with it: `file: PATH`, `append: PATH`, `replace in PATH: TEXT`, `run`,
`run until it prints: TEXT`, `run, says in FILE: TEXT`, `background: NAME` (its output goes to NAME.log), `stop: NAME`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cli import COMMANDS
from bridge.local.postgres_binaries import find_binaries

README = Path(__file__).parents[2] / "README.md"
PATIENCE_SECONDS = 60.0
STEP = re.compile(
    r"<!-- (?P<what>[a-z]+)(?P<how>[^:\n]*?)(?:: (?P<text>.*?))? -->\n(?:```\w*\n(?P<block>.*?)```)?", re.DOTALL
)


class Shell:
    """Terminals in one folder; what a `run` block exports holds for the blocks after it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.state = folder / ".environment"
        self.state.touch()
        self.background: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, block: str) -> str:
        script = f"set -eu\n. {self.state}\n{block}\nexport -p > {self.state}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, name: str, block: str) -> None:
        lines = block.strip().splitlines()
        script = "\n".join([f"set -eu; . {self.state}", *lines[:-1], f"exec {lines[-1]}"])
        with (self.folder / f"{name}.log").open("wb") as log:
            self.background[name] = subprocess.Popen(
                ["bash", "-c", script], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        self.wait_for(f"{name}.log", "")

    def wait_for(self, file: str, text: str) -> None:
        """Until the file holds the text, or anything at all."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            said = (self.folder / file).read_text() if (self.folder / file).exists() else ""
            if said and text in said:
                return
            dead = {name: process.poll() for name, process in self.background.items() if process.poll() is not None}
            assert not dead, f"ended while waiting for {text!r}: {dead}\n{said}"
            assert time.monotonic() < deadline, f"{file} never said {text!r}, but:\n{said}"
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        process = self.background.pop(name)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130, -signal.SIGINT), (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        for process in self.background.values():
            process.terminate()
        for process in self.background.values():
            process.wait(30)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


PORTS = {port: free_port() for port in ("5544", "9000", "3001")}


def tutorial() -> str:
    """The README with ports that are free here."""
    text = README.read_text()
    for port, free in PORTS.items():
        text = text.replace(port, free)
    return text


@pytest.fixture
def shell(tmp_path) -> Iterator[Shell]:
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(find_binaries(None)), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "PGBRIDGE_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "PYTHONUNBUFFERED": "1",
        "PGBRIDGE_DEV_PORT": PORTS["3001"],
    }
    shell = Shell(tmp_path, environment)
    yield shell
    shell.end()


@pytest.mark.timeout(240)
def test_the_tutorial_does_what_it_says(shell):
    text = tutorial()
    if "--port 3001" not in README.read_text():
        pytest.fail("the tutorial's ports are not where this test looks for them")
    steps = 0
    for step in STEP.finditer(text):
        what, how, argument, block = step["what"], step["how"], step["text"], step["block"]
        steps += 1
        if what in ("file", "append"):
            path = shell.folder / argument
            path.parent.mkdir(exist_ok=True)
            with path.open("a" if what == "append" else "w") as file:
                file.write(block)
        elif what == "replace":
            path = shell.folder / how.removeprefix(" in ")
            assert argument in path.read_text()
            path.write_text(path.read_text().replace(argument, block.strip()))
        elif what == "background":
            shell.start(argument, block)
        elif what == "stop":
            shell.stop(argument)
        elif what == "run" and how == " until it prints":
            deadline = time.monotonic() + PATIENCE_SECONDS
            while argument not in shell.run(block):
                assert time.monotonic() < deadline, f"{block} never printed {argument!r}"
                time.sleep(0.3)
        elif what == "run":
            shell.run(block)
            if argument:
                shell.wait_for(how.removeprefix(", says in "), argument)
        else:
            pytest.fail(f"the README has a step that nobody can do: {what}{how}")
    assert steps > 15


def test_every_command_the_readme_names_exists():
    named = set(re.findall(r"`?pgbridge ([a-z]+)", README.read_text())) - {"and", "does", "has", "at", "with", "is"}
    assert named <= set(COMMANDS)
