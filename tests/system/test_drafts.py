"""A file or folder appears all at once or not at all, whatever it replaces."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.errors import NotWritable, OutputError
from featurestore.system import access, located, output_at, refuse_output, replacing
from featurestore.system.child_processes import process_space
from featurestore.system.disk import temporary_name


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


KILLED = """
import os, signal, sys
from pathlib import Path
from featurestore.system import output_at
drafts = [output_at(Path(name)) for name in sys.argv[1:]]
for name, draft in zip(sys.argv[1:], drafts):
    path = draft.__enter__()
    path.write_text("half") if name.endswith(".npz") else path.mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""
SPACE = process_space()


def killed_while_writing(*outputs: Path) -> int:
    """Kill a process that is writing outputs, and return its pid."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, outputs)])
    assert process.wait() == -signal.SIGKILL
    return process.pid


def test_the_next_output_removes_the_drafts_of_killed_processes(tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("out.npz", "folder", "o" * 200 + ".npz")]
    pid = killed_while_writing(*outputs)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 3
    assert all(f"-{SPACE}.{pid}-" in name for name in left)
    for number, out in enumerate(outputs):
        with output_at(out) as path:
            assert len([name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]) == 2 - number  # noqa: PTH208
            make(path)
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


def test_no_other_file_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    dead = killed_while_writing(out)
    (draft,) = tmp_path.iterdir()
    draft.unlink()
    other = f"{int(SPACE, 16) ^ 1:08x}"
    kept = [
        temporary_name(out.name, f"{SPACE}.{os.getppid()}-"),  # of a process that lives
        temporary_name(out.name, f"{other}.{dead}-"),  # of another machine
        temporary_name("x" + out.name, f"{SPACE}.{dead}-"),  # of other outputs
        temporary_name(out.name + ".old", f"{SPACE}.{dead}-"),
        temporary_name(out.name),
        temporary_name(out.name, f"{SPACE}.0{dead}-"),
        f"{SPACE}.{dead}-{out.name}",
    ]
    for name in kept:
        (tmp_path / name).touch()
    with output_at(out) as first, output_at(out) as second:  # as two threads do
        make(first)
        make(second)
        assert first.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, out.name])


def test_a_draft_of_an_earlier_process_of_the_same_number_is_removed(tmp_path: Path) -> None:
    """In a container every process may be number 1."""
    (tmp_path / temporary_name("out", f"{SPACE}.{os.getpid()}-")).touch()
    with output_at(tmp_path / "out") as path:
        make(path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def fail_to_flush(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_failing_disk_is_told_with_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_flush)
    with pytest.raises(OutputError) as caught, output_at(tmp_path / "out") as path:
        make(path, "a")
    told = f"{tmp_path / 'out'} can't be written: Input/output error; check the disk, or choose another place"
    assert str(caught.value) == told
    with pytest.raises(OSError, match="Input/output error") as failed, replacing(tmp_path / "out") as path:
        make(path)
    assert failed.value.filename == str(path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error", "/other"), OSError("Arrow's, of a page")])
def test_an_error_of_what_is_read_is_not_one_of_the_output(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(OSError, match=r"Input|Arrow") as caught, output_at(tmp_path / "out"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("force", [False, True])
def test_a_file_takes_the_place_of_no_pipe(tmp_path: Path, force: bool) -> None:
    os.mkfifo(out := tmp_path / "out")
    with pytest.raises(OutputError) as caught:
        refuse_output(out, None, force=force)
    assert str(caught.value) == f"{out} is a pipe or a device and not a file; choose another name"


def test_standard_output_that_is_a_pipe_is_called_so() -> None:
    read, write = os.pipe()
    try:
        out = located(f"/dev/fd/{write}", "a picture")
        with pytest.raises(OutputError, match=f"^/dev/fd/{write} is a pipe or a device and not a file"):
            refuse_output(out, None, force=True)
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("force", [False, True])
def test_a_file_takes_the_place_of_no_folder(tmp_path: Path, force: bool) -> None:
    with pytest.raises(OutputError) as caught:
        refuse_output(tmp_path, None, force=force)
    assert str(caught.value) == f"{tmp_path} is a folder and not a file; choose another name"
    refuse_output(tmp_path, None, force=True, folder=True)
