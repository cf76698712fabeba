"""Notices when code changes: looks at the files' times, which works on every file system and needs no library."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

_IGNORED = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "node_modules"}

Snapshot = Mapping[str, tuple[int, int]]
"""Time of the last change in nanoseconds, and size, by path."""


def snapshot(root: Path) -> Snapshot:
    """The state of a file, or of all files below a folder but for caches."""
    found: dict[str, tuple[int, int]] = {}
    pending = [root]
    while pending:
        path = pending.pop()
        try:
            if path.is_dir():
                pending += [Path(entry.path) for entry in os.scandir(path) if entry.name not in _IGNORED]
            else:
                status = path.stat()
                found[str(path)] = (status.st_mtime_ns, status.st_size)
        except OSError:
            continue  # it went away while we looked: the next look shows that
    return found


class Watch:
    """Looks at several roots, each with a name; the first look is taken here, so that nothing later is missed."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = dict(roots)
        self._seen = {name: snapshot(root) for name, root in self._roots.items()}

    async def changes(self, *, every_seconds: float = 0.5) -> AsyncIterator[str]:
        """Names whose files differ from the look before."""
        while True:
            await asyncio.sleep(every_seconds)
            for name, root in self._roots.items():
                now = await asyncio.to_thread(snapshot, root)
                if now != self._seen[name]:
                    self._seen[name] = now
                    yield name
