"""Imports go one way, so that a room can be read without the rooms above it; and a function imports little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BRIDGE = ROOT / "bridge"

# A room may import itself, its own level's shared names where listed, and what stands below it.
VALUES = {"bridge", "__version__", "errors", "lsn", "change", "clock", "native"}
PURE = {"triggers", "batching", "progress", "pgoutput"}
EDGES = {"source", "delivery", "store", "observe"}
SETTINGS = {"aws", "config", "secret", "dsn", "rds"}
TOP = {"cli", "serve", "console", "service", "by_hand", "roster", "letters", "pauses", "replay", "local", "testing"}
ALLOWED = {
    "errors": {"lsn"},
    "lsn": set(),
    "change": {"lsn"},
    "clock": set(),
    "native": set(),
    **dict.fromkeys(PURE, VALUES | PURE),
    # The classification and the retry rules are pure and live in `delivery`; batching decides by them.
    "batching": VALUES | PURE | {"delivery.outcome", "delivery.retry", "delivery.target"},
    "config": VALUES | {"triggers", "secret"},
    "aws": VALUES,
    "secret": VALUES | {"aws"},
    "dsn": VALUES | {"secret"},
    "rds": VALUES | {"secret", "aws"},
    **dict.fromkeys(EDGES, VALUES | PURE | SETTINGS | EDGES),
    "pipeline": VALUES | PURE | SETTINGS | EDGES,
    "handlers": set(),
}
PURE_MODULES = [
    "pgoutput",
    "triggers",
    "batching",
    "progress",
    "lsn.py",
    "change.py",
    "errors.py",
    "delivery/outcome.py",
]
IMPURE = {
    "asyncio",
    "logging",
    "structlog",
    "socket",
    "time",
    "psycopg",
    "aiohttp",
    "boto3",
    "os",
    "pathlib",
    "threading",
}


def modules(*parts):
    paths = [BRIDGE / part for part in parts] or [BRIDGE]
    return sorted(
        module
        for path in paths
        for module in ([path] if path.suffix == ".py" else path.rglob("*.py"))
        if module.exists()
    )


def imports(path):
    """Every module that this one imports, also inside functions; `if TYPE_CHECKING` included."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "bridge")


def room_of(path):
    relative = path.relative_to(BRIDGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def may_import(room, imported):
    parts = imported.split(".")[1:]
    return not parts or parts[0] == room or any(".".join(parts[: n + 1]) in ALLOWED[room] for n in range(len(parts)))


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_stands_below_it(room):
    forbidden = [
        f"{path.relative_to(ROOT)}: {imported}"
        for path in modules()
        if room_of(path) == room
        for imported in imports(path)
        if imported.split(".")[0] == "bridge" and not may_import(room, imported)
    ]

    assert forbidden == []


def test_every_room_has_its_place_in_the_order():
    rooms = {room_of(path) for path in modules()} - {"__init__", "__main__"}

    assert rooms <= ALLOWED.keys() | TOP


@pytest.mark.parametrize("part", PURE_MODULES)
def test_pure_rooms_import_no_io_no_clock_and_no_logging(part):
    impure = [
        f"{path.relative_to(ROOT)}: {imported}"
        for path in modules(part)
        for imported in imports(path)
        if imported.split(".")[0] in IMPURE or imported == "bridge.clock"
    ]

    assert impure == []


def test_handlers_import_powertools_pydantic_and_nothing_else_of_bridge():
    # boto3 comes with Lambda's runtimes, and is imported only where an event has to be fetched from S3.
    allowed = {"bridge.handlers", "aws_lambda_powertools", "pydantic", "typing_extensions", "boto3"}
    foreign = {
        imported
        for path in modules("handlers")
        for imported in imports(path)
        if imported.split(".")[0] not in sys.stdlib_module_names
        and not any(imported == name or imported.startswith(f"{name}.") for name in allowed)
    }

    assert foreign == set()


def test_importing_handlers_loads_nothing_of_the_reader():
    script = (
        "import sys, bridge.handlers\n"
        "heavy = {'psycopg', 'boto3', 'aiohttp', 'orjson', 'yaml', 'click', 'structlog', 'prometheus_client'}\n"
        "loaded = sorted(heavy & sys.modules.keys())\n"
        "ours = sorted(m for m in sys.modules if m.startswith('bridge.') and not m.startswith('bridge.handlers'))\n"
        "sys.exit(f'loaded {loaded} {ours}' if loaded or ours else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stderr


def test_the_check_of_the_order_finds_a_violation(tmp_path):
    assert not may_import("pgoutput", "bridge.source.connection")
    assert not may_import("handlers", "bridge.errors")
    assert may_import("pipeline", "bridge.store.protocol")
    module = tmp_path / "module.py"
    module.write_text("def f():\n    from bridge.source import reader\n    import psycopg\n")
    assert list(imports(module)) == ["bridge.source", "psycopg"]
