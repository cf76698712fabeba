"""The command line as a whole: what it lists, how it ends, how quick it is."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import bridge.cli
from bridge import __version__
from bridge.cli import COMMANDS, LazyGroup, main
from bridge.errors import BridgeError, ConfigError, InvariantBroken, SlotLost

PACKAGE = Path(bridge.__file__).parent
TO_RUN = re.compile(r"(?:`|\b(?:run|runs|start|with|see|says?|use): ?|\b(?:run|see|use) )pgbridge ([a-z]+)")
"""A command in a sentence that tells somebody to run it."""


pytestmark = pytest.mark.usefixtures("undo_logging")


@pytest.fixture
def failing(monkeypatch):
    """Makes `pgbridge fail` raise what it is given."""

    def make(error: BaseException):
        @click.command()
        def fail() -> None:
            raise error

        monkeypatch.setattr(LazyGroup, "list_commands", lambda self, ctx: ["fail"])
        monkeypatch.setattr(
            LazyGroup, "get_command", lambda self, ctx, name: bridge.cli._add_common_options(fail) or fail
        )
        return CliRunner()

    return make


class TestHowItEnds:
    @pytest.mark.parametrize(
        ("error", "code"),
        [(ConfigError("x is 1", remedy="write 2"), 2), (SlotLost("slot s is lost"), 5), (InvariantBroken("bug"), 70)],
    )
    def test_an_error_of_ours_is_one_sentence_and_its_exit_code(self, failing, error, code):
        result = failing(error).invoke(main, ["fail"])
        assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"pgbridge: {error}\n")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
    def test_the_exit_code_tells_where_stderr_can_not_be_written(self):
        with Path("/dev/full").open("wb") as full:
            ended = subprocess.run(
                [sys.executable, "-c", "from bridge.cli import main; main()", "check", "--config", "/nowhere.yaml"],
                stderr=full, stdout=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        assert ended.returncode == ConfigError.exit_code

    def test_it_may_be_started_without_streams(self):
        command = f'exec "{sys.executable}" -c "from bridge.cli import main; main()" schema <&- >&- 2>&-'
        assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 0

    def test_several_problems_are_a_line_each(self, failing):
        result = failing(ConfigError("a is wrong\nb is wrong")).invoke(main, ["fail"])
        assert result.stderr == "pgbridge: a is wrong\npgbridge: b is wrong\n"

    def test_a_bug_is_one_sentence_that_says_what_a_report_needs_and_shows_no_value(self, failing):
        result = failing(ValueError("Jane Doe")).invoke(main, ["fail"])
        assert result.exit_code == 70
        assert result.stderr.startswith(
            f"pgbridge: an unexpected ValueError, which is a bug of pgbridge {__version__} ("
        )
        assert "the traceback that --debug (or PGBRIDGE_DEBUG=1) shows" in result.stderr
        assert "Jane Doe" not in result.stderr
        assert "://" not in result.stderr  # where to: whoever one has it from
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize("arguments", [["fail", "--debug"], ["--debug", "fail"]])
    def test_debug_shows_the_traceback(self, failing, arguments):
        for error in (ValueError("boom"), ConfigError("wrong")):
            result = failing(error).invoke(main, arguments)
            assert "Traceback (most recent call last)" in result.stderr, arguments
        bug = failing(ValueError("boom")).invoke(main, arguments)
        assert "the traceback above" in bug.stderr.splitlines()[-1]

    def test_debug_can_be_asked_for_by_variable(self, failing):
        result = failing(ValueError("boom")).invoke(main, ["fail"], env={"PGBRIDGE_DEBUG": "1"})
        assert "Traceback" in result.stderr

    def test_an_interrupt_is_130(self, failing):
        result = failing(KeyboardInterrupt()).invoke(main, ["fail"])
        assert (result.exit_code, result.stderr) == (130, "")

    def test_a_closed_pipe_is_quiet(self, failing):
        result = failing(BrokenPipeError()).invoke(main, ["fail"])
        assert (result.exit_code, result.stderr) == (141, "")

    @pytest.mark.parametrize("arguments", [["nope"], ["schema", "--nope"], ["filter"]])
    def test_wrong_usage_is_2(self, arguments):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert "Usage: pgbridge" in result.stderr

    @pytest.mark.parametrize(
        ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
    )
    def test_colours_are_left_out_where_nobody_wants_them(self, monkeypatch, environment, coloured):
        @click.command()
        def paint() -> None:
            click.secho("red", fg="red")

        monkeypatch.setattr(LazyGroup, "list_commands", lambda self, ctx: ["paint"])
        monkeypatch.setattr(LazyGroup, "get_command", lambda self, ctx, name: paint)
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.delenv("TERM", raising=False)
        result = CliRunner(env=environment).invoke(main, ["paint"], color=True)  # as on a terminal
        assert ("\x1b[31m" in result.output) is coloured

    def test_an_exit_code_that_a_command_asks_for_is_kept(self, monkeypatch):
        @click.command()
        @click.pass_context
        def leave(context: click.Context) -> None:
            context.exit(3)

        monkeypatch.setattr(LazyGroup, "list_commands", lambda self, ctx: ["leave"])
        monkeypatch.setattr(LazyGroup, "get_command", lambda self, ctx, name: leave)
        assert CliRunner().invoke(main, ["leave"]).exit_code == 3

    def test_without_a_command_the_help_is_shown(self):
        result = CliRunner().invoke(main, [])
        assert "Usage: pgbridge" in result.output
        assert result.exit_code == 2


class TestHelp:
    def test_only_commands_that_there_are_are_listed(self):
        listed = main.list_commands(click.Context(main))
        assert listed == [name for name in COMMANDS if name in listed]
        assert {"schema", "status", "tail", "event"} <= set(listed)
        result = CliRunner().invoke(main, ["--help"])
        for name in listed:
            assert f"\n  {name} " in result.output
        for name in set(COMMANDS) - set(listed):
            assert f"\n  {name} " not in result.output

    def test_the_version_is_printed(self):
        assert CliRunner().invoke(main, ["--version"]).output == f"pgbridge {__version__}\n"

    @pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
    def test_each_command_shows_an_example_and_its_variables(self, name):
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert "Example" in result.output

    @pytest.mark.parametrize("width", [40, 80])
    def test_an_example_stands_on_one_line_to_be_copied(self, width):
        result = CliRunner().invoke(main, ["tail", "--help"], terminal_width=width)
        assert "pgbridge tail --table 'shop.*' --operations insert,update --limit 10" in result.output

    def test_no_mark_of_the_formatter_is_shown(self):
        for name in main.list_commands(click.Context(main)):
            assert "\\b" not in CliRunner().invoke(main, [name, "--help"]).output, name

    def test_what_each_command_about_dead_letters_does_is_said_whole(self):
        commands = CliRunner().invoke(main, ["dlq", "--help"]).output.partition("Commands:")[2]
        assert "replay" in commands
        assert "..." not in commands

    def test_no_message_says_to_run_a_command_that_there_is_not(self):
        named: dict[str, Path] = {}
        for path in PACKAGE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    named |= dict.fromkeys(TO_RUN.findall(node.value), path)
        assert {"init", "run", "check"} <= set(named)
        assert {name: path for name, path in named.items() if name not in main.list_commands(click.Context(main))} == {}

    def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(self):
        result = CliRunner().invoke(main, ["chek"])
        assert result.exit_code == 2
        assert "No such command 'chek'; did you mean check?" in result.stderr
        assert "did you mean" not in CliRunner().invoke(main, ["xyz"]).stderr

    @pytest.mark.parametrize("name", ["status", "tail", "event"])
    def test_each_option_names_its_environment_variable(self, name):
        command = main.get_command(click.Context(main), name)
        unnamed = [
            p.opts[-1] for p in command.params if isinstance(p, click.Option) and not p.envvar and p.name != "batch"
        ]
        assert unnamed == []

    def test_every_command_can_be_told_how_much_to_log(self):
        for name in main.list_commands(click.Context(main)):
            command = main.get_command(click.Context(main), name)
            leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
            for leaf in leaves:
                assert {"--log-level", "--debug"} <= {opt for p in leaf.params for opt in p.opts}, leaf.name

    def test_a_command_got_twice_has_its_options_once(self):
        command = main.get_command(click.Context(main), "schema")
        again = main.get_command(click.Context(main), "schema")
        assert command is again
        assert [p.name for p in again.params].count("debug") == 1


HEAVY = ["pydantic", "psycopg", "aiohttp", "boto3", "botocore", "structlog", "rich", "orjson", "prometheus_client"]


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60, **options
    )


class TestAsAProcess:
    def test_importing_the_command_line_loads_nothing_heavy(self):
        code = f"import sys, bridge.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
        result = python("-c", code)
        assert result.stdout == "[]\n"

    def test_help_loads_nothing_heavy(self):
        code = (
            "import sys\nfrom bridge.cli import main\nmain(['--help'], standalone_mode=False)\n"
            f"print([m for m in {HEAVY!r} if m in sys.modules])"
        )
        assert python("-c", code).stdout.endswith("[]\n")

    def test_a_reader_that_goes_away_is_not_complained_of(self):
        read, write = os.pipe()
        os.close(read)
        process = subprocess.run(
            [sys.executable, "-c", "from bridge.cli import main; main()", "schema"],
            stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
        os.close(write)
        assert (process.returncode, process.stderr) == (141, "")

    def test_the_schema_is_json(self):
        result = python("-c", "from bridge.cli import main; main()", "schema")
        assert result.stdout.startswith('{\n  "$schema"')

    def test_a_missing_configuration_is_one_sentence(self, tmp_path):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PGBRIDGE_")}
        result = python("-c", "from bridge.cli import main; main()", "status", cwd=tmp_path, env=environ)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == (
            "pgbridge: there is no configuration file pgbridge.yaml; "
            "write one, or name another with --config or PGBRIDGE_CONFIG\n"
        )


def test_errors_of_the_family_have_exit_codes_that_are_not_success():
    def family(kind: type[BridgeError]) -> list[type[BridgeError]]:
        return [kind, *(inner for child in kind.__subclasses__() for inner in family(child))]

    assert all(kind.exit_code > 0 for kind in family(BridgeError))
