"""A file or folder appears all at once or not at all, whatever it replaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featurestore.errors import NotWritable, OutputError
from featurestore.system import access, output_at, replacing


def make(path: Path, *names: str) -> None:
    """Make a file, or a folder with files of these names."""
    if not names:
        path.write_text("new")
        return
    path.mkdir()
    for name in names:
        (path / name).write_text("new")


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("names", [(), ("a", "b")], ids=["file", "folder"])
@pytest.mark.parametrize("replaced", [(), ("a", "old"), None], ids=["nothing", "old one", "empty folder"])
def test_it_appears_when_it_is_complete(
    tmp_path: Path, names: tuple[str, ...], replaced: tuple[str, ...] | None
) -> None:
    out = tmp_path / "out"
    if replaced is None and names:
        out.mkdir()
    elif replaced:
        make(out, *(replaced if names else ()))
    before = contents(tmp_path)
    with replacing(out) as path:
        make(path, *names)
        assert path.parent == out.parent
        assert {name for name in contents(tmp_path) if not name.startswith(".tmp-")} == set(before)
    assert contents(tmp_path) == ({f"out/{name}": "new" for name in names} or {"out": "new"})


@pytest.mark.parametrize("names", [(), ("a", "b")], ids=["file", "folder"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_is_broken_off_leaves_nothing_and_what_was_there(
    tmp_path: Path, names: tuple[str, ...], error: type[BaseException]
) -> None:
    make(tmp_path / "out", *names)
    before = contents(tmp_path)

    def fail() -> None:
        with replacing(tmp_path / "out") as path:
            make(path, "half") if names else path.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert contents(tmp_path) == before


def test_a_folder_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[int, bool]] = []
    flush = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, (tmp_path / "out").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with replacing(tmp_path / "out") as path:
        make(path, "a", "b")
    inodes = [(tmp_path / "out" / name).stat().st_ino for name in ("a", "b")]
    assert sorted(flushed[:2]) == sorted((inode, False) for inode in inodes)
    assert flushed[2:] == [((tmp_path / "out").stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_place_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "may_write", lambda path: False)
    with pytest.raises(NotWritable), replacing(tmp_path / "out"):
        pass
    with pytest.raises(OutputError) as caught, output_at(tmp_path / "out"):
        pass
    assert str(caught.value) == f"{tmp_path / 'out'} can't be written: Permission denied; choose another place"
