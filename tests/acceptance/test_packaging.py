"""What is installed: the wheel in bare environments, and the Makefile on a bare machine."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def run(*command, **settings):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """What a release is made of, without what lies about in a checkout."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT / "bridge", folder / "bridge", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def build(sources, kind, **environ):
    """What pip asks the build backend for, without the network that an isolated build needs."""
    target = sources / "dist"
    target.mkdir(exist_ok=True)
    name = run(
        sys.executable,
        "-W",
        "ignore",
        "-c",
        f"import setuptools.build_meta as b, sys; print(b.build_{kind}(sys.argv[1]))",
        str(target),
        cwd=sources,
        # Not optimised: that takes the compiler most of its time, and nothing here runs long.
        env={key: value for key, value in os.environ.items() if key != "PGBRIDGE_PURE"} | {"CFLAGS": "-O0"} | environ,
    )
    return target / name.splitlines()[-1]


def copy_of(sources, folder):
    """The same sources, without what was built of them."""
    return shutil.copytree(sources, folder, ignore=shutil.ignore_patterns("build", "dist", "*.egg-info"))


@pytest.fixture(scope="module")
def wheel(sources):
    return build(sources, "wheel")


def files_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


needs_compiler = pytest.mark.skipif(
    shutil.which((os.environ.get("CC") or sysconfig.get_config_var("CC")).split()[0]) is None,
    reason="needs a C compiler",
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory, wheel):
    """An environment with the wheel in it, and what it depends on within reach."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    run(
        *(sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")),
        *("install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)),
    )
    (installed,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but its own .pth files, the editable install among them, are not read.
    (installed / "dependencies.pth").write_text(f"{SITE_PACKAGES}\n")
    return folder / "bin"


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel, sources):
    held = {name for name in files_of(wheel) if not name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))}
    expected = {
        str(path.relative_to(sources))
        for path in (sources / "bridge").rglob("*")
        if path.suffix in (".py", ".pyi", ".typed", ".sql") or (path.is_file() and "static" in path.parts)
    }

    assert held == expected
    assert {"bridge/py.typed", "bridge/handlers/__init__.py"} <= held
    assert any(name.endswith(".sql") for name in held)


def test_the_wheel_carries_the_licence_the_command_and_the_typed_mark(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(texts["METADATA"]).decode()
        assert "pgbridge = bridge.cli:main" in archive.read(texts["entry_points.txt"]).decode()
        assert "Apache License" in archive.read(texts["licenses/LICENSE"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Typing :: Typed" in metadata


@needs_compiler
def test_every_extension_is_built_where_there_is_a_compiler(wheel, sources):
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiled = {name.removesuffix(suffix) for name in files_of(wheel) if name.endswith(suffix)}

    assert compiled == {str(path.relative_to(sources).with_suffix("")) for path in sources.glob("bridge/**/*.pyx")}


def test_a_wheel_is_built_without_a_compiler_too(wheel, sources, tmp_path):
    plain = build(copy_of(sources, tmp_path / "sources"), "wheel", CC="/bin/false")

    assert files_of(plain) == {name for name in files_of(wheel) if not name.endswith(".so")}


def test_a_pure_wheel_fits_every_platform(wheel, sources, tmp_path):
    pure = build(copy_of(sources, tmp_path / "sources"), "wheel", PGBRIDGE_PURE="1")

    assert pure.name.endswith("-py3-none-any.whl")
    assert files_of(pure) == {name for name in files_of(wheel) if not name.endswith(".so")}


def test_the_source_distribution_builds_the_same_wheel(sources, wheel, tmp_path):
    with tarfile.open(build(sources, "sdist")) as archive:
        # Python 3.11 has filters from its fourth release on, and 3.12 warns where none is chosen.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    (unpacked,) = tmp_path.iterdir()
    again = build(unpacked, "wheel")

    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


def test_the_command_runs_from_the_wheel(bare, tmp_path):
    environ = {"PATH": os.defpath}
    where = run(bare / "python", "-c", "import bridge; print(bridge.__file__)", cwd=tmp_path, env=environ)
    assert str(bare.parent) in where

    assert "Usage: pgbridge" in run(bare / "pgbridge", "--help", cwd=tmp_path, env=environ)


@needs_compiler
def test_what_is_compiled_runs_from_the_wheel_unless_python_is_asked_for(bare, tmp_path):
    environ = {"PATH": os.defpath}
    which = (bare / "python", "-c", "from bridge.pgoutput.execution import DEFAULT; print(DEFAULT.name)")

    assert run(*which, cwd=tmp_path, env=environ) == "compiled\n"
    assert run(*which, cwd=tmp_path, env=environ | {"PGBRIDGE_PURE": "1"}) == "python\n"


def closure(requirements):
    """The distributions that these requirements pull in, by what is installed here."""
    found, open_ = {}, list(requirements)
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        extras = {*requirement.extras, ""}
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        for text in found[name].requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                open_.append(needed)
    return found


@pytest.fixture(scope="module")
def handlers_only(tmp_path_factory, wheel):
    """A folder with the wheel and what the extra `handlers` names, and nothing of what the reader depends on."""
    folder = tmp_path_factory.mktemp("function")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        lines = archive.read(name).decode().splitlines()
    extra = [
        Requirement(line.partition(": ")[2]) for line in lines if re.match(r"Requires-Dist: .*extra == .handlers", line)
    ]
    assert {requirement.name for requirement in extra} == {"aws-lambda-powertools", "pydantic"}
    for distribution in closure(extra).values():
        for top in {file.parts[0] for file in distribution.files if not file.parts[0].startswith((".", "__pycache__"))}:
            if not (folder / top).exists():
                (folder / top).symlink_to(SITE_PACKAGES / top)
    return folder


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def isolated(folder, script):
    """Runs with nothing but the standard library and `folder` to import from."""
    return run(sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(folder)!r})\n{script}")


def test_handlers_need_nothing_but_their_extra(handlers_only):
    script = (
        "import bridge.handlers, json\n"
        "print(json.dumps(bridge.handlers.process_changes({'Records': []}, print)))\n"
        "print(sorted({'psycopg', 'boto3', 'botocore', 'aiohttp', 'yaml', 'click'} & sys.modules.keys()))"
    )
    assert isolated(handlers_only, script).splitlines() == ['{"batchItemFailures": []}', "[]"]


def test_the_reader_is_really_out_of_reach_there(handlers_only):
    script = (
        "import importlib.util\n"
        "print([n for n in ('psycopg', 'boto3', 'botocore', 'aiohttp', 'yaml') if importlib.util.find_spec(n)])"
    )
    assert isolated(handlers_only, script).strip() == "[]"


def test_a_function_runs_with_its_requirements_and_the_handlers_alone(handlers_only):
    handler = ROOT / "functions" / "welcome_user"
    script = (
        f"sys.path.append({str(handler)!r})\n"
        "import handler, types\n"
        "context = types.SimpleNamespace(function_name='f', memory_limit_in_mb=128, invoked_function_arn='arn',"
        " aws_request_id='1')\n"
        "print(handler.lambda_handler({'Records': []}, context))"
    )
    assert isolated(handlers_only, script).strip() == "{'batchItemFailures': []}"


@needs_make
def test_the_build_packs_the_handler_and_the_handlers_room_alone(tmp_path):
    # `true` stands in for pip, which would fetch the requirements.
    run(
        *(
            "make",
            "-f",
            "functions/welcome_user/Makefile",
            "build-WelcomeUser",
            "PYTHON=true",
            f"ARTIFACTS_DIR={tmp_path}",
        ),
        cwd=ROOT,
        env={"PATH": os.defpath},
    )
    packed = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    room = {str(path.relative_to(ROOT)) for path in (ROOT / "bridge" / "handlers").glob("*.py")}

    assert packed == {"handler.py", "bridge/__init__.py", "bridge/py.typed", *room}
    script = "import handler; print(handler.User(id=1).id)"
    paths = "\n".join(f"sys.path.append({str(path)!r})" for path in (tmp_path, SITE_PACKAGES))
    assert run(sys.executable, "-I", "-S", "-c", f"import sys\n{paths}\n{script}").strip() == "1"


def test_every_development_requirement_is_pinned_exactly_once():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = [Requirement(line) for line in lines]
    names = [canonicalize_name(pin.name) for pin in pins]

    assert all(re.fullmatch(r"==[0-9][0-9A-Za-z.+!]*", str(pin.specifier)) for pin in pins)
    assert all(pin.url is None for pin in pins)
    assert len(names) == len(set(names))
    own = importlib.metadata.distribution("pgbridge").requires
    # What only the extra `browser` asks for is not installed by `make`, so its own requirements can't be looked up.
    needed = closure(
        requirement
        for requirement in map(Requirement, own)
        if canonicalize_name(requirement.name) != "pgbridge" and "browser" not in str(requirement.marker)
    )
    assert needed.keys() - {"pgbridge"} <= set(names)


def make(*arguments, **environ):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={"PATH": os.defpath, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_make
def test_make_alone_lists_every_target():
    listed = make().stdout
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {"demo", "test", "check", "bench", "deploy-check", "clean", "help"} <= set(targets)
    assert [line.split()[1] for line in listed.splitlines()] == targets


@needs_make
@pytest.mark.parametrize("target", ["demo", "test", "check"])
def test_a_python_that_is_too_old_is_refused_in_one_sentence(target, tmp_path):
    shutil.copytree(
        ROOT,
        tmp_path / "clone",
        ignore=lambda _folder, names: set(names) - {"Makefile", "pyproject.toml", "setup.py", "constraints.txt"},
    )
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("-C", str(tmp_path / "clone"), target, f"PYTHON={old}")

    assert done.returncode != 0
    assert f"pgbridge needs Python 3.11 or newer, and {old} is not one" in done.stderr
    assert "Traceback" not in done.stderr


@needs_make
def test_the_makefile_and_ci_name_no_host():
    for path in (ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "constraints.txt", ROOT / "functions" / "build.mk"):
        assert not re.search(r"https?://|index-url|find-links|trusted-host", path.read_text())


def test_ci_runs_the_same_commands_as_a_laptop():
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert [line for line in script.read_text().splitlines() if line.startswith("make ")] == ["make check", "make test"]
