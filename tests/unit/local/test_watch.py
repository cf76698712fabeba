"""Which changes of files are seen."""

from __future__ import annotations

import os

import pytest

from bridge.local.watch import Watch, snapshot


@pytest.fixture
def root(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "app.py").write_text("1")
    return tmp_path


def touch(path, nanoseconds):
    os.utime(path, ns=(nanoseconds, nanoseconds))


def test_a_change_of_time_or_size_or_name_shows(root):
    file = root / "package" / "app.py"
    touch(file, 1)
    before = snapshot(root)
    assert snapshot(root) == before
    touch(file, 2)
    later = snapshot(root)
    assert later != before
    file.write_text("22")
    touch(file, 2)
    assert snapshot(root) != later
    file.rename(root / "other.py")
    assert str(file) not in snapshot(root)


@pytest.mark.parametrize("name", ["__pycache__", ".git", "node_modules"])
def test_caches_are_not_looked_at(root, name):
    before = snapshot(root)
    (root / name).mkdir()
    (root / name / "x").write_text("1")
    assert snapshot(root) == before


def test_a_single_file_can_be_watched(root):
    archive = root / "code.zip"
    archive.write_text("1")
    assert list(snapshot(archive)) == [str(archive)]


def test_what_does_not_exist_has_no_files(root):
    assert snapshot(root / "nowhere") == {}


async def test_only_what_changed_since_the_watch_began_is_named(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    looks = Watch({"a": root, "b": other}).changes(every_seconds=0)
    (other / "new.py").write_text("changed")
    assert await anext(looks) == "b"
    (root / "new.py").write_text("changed")
    assert await anext(looks) == "a"
    await looks.aclose()
