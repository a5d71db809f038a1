"""Files appear all at once or not at all, and a full disk is one clear error."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from featurestore.errors import NotEnoughSpace, StoreBusy
from featurestore.storage import Root, Writer, exclusive
from featurestore.system import file_digest, room_on_disk
from tests.small import Unlocked

NAME = "partitions/extract/abc/chunk-000000-1.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Writer:
    return Unlocked(tmp_path)


def everything(root: Writer) -> list[str]:
    return sorted(path.relative_to(root.path).as_posix() for path in root.path.rglob("*") if path.is_file())


def fail(root: Writer, error: type[BaseException]) -> None:
    with root.publishing(NAME) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_appears_when_it_is_finished(root: Writer) -> None:
    with root.publishing(NAME) as temporary:
        assert temporary.parent == root.local(NAME).parent  # beside its target, so that the rename is one step
        temporary.write_text("rows")
        assert not root.local(NAME).exists()
        assert root.files("partitions", ".parquet") == []  # half-written files are not listed
    assert root.local(NAME).read_text() == "rows"
    assert everything(root) == root.files("partitions", ".parquet") == [NAME]


def test_nothing_is_left_of_what_failed(root: Writer) -> None:
    with pytest.raises(KeyError):
        fail(root, KeyError)
    assert everything(root) == []


def test_what_failed_leaves_the_old_file_alone(root: Writer) -> None:
    with root.publishing(NAME) as temporary:
        temporary.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail(root, KeyboardInterrupt)
    assert root.local(NAME).read_text() == "old"
    assert everything(root) == [NAME]


def test_two_writers_of_one_name_do_not_meet(root: Writer) -> None:
    with root.publishing(NAME) as one, root.publishing(NAME) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert root.local(NAME).read_text() == "one"  # the last to finish
    assert everything(root) == [NAME]


def test_it_is_on_disk_before_it_has_its_name(root: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[int, bool]] = []
    flush = os.fsync

    def spy(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, root.local(NAME).exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with root.publishing(NAME) as temporary:
        temporary.write_text("rows")
    file, folder = root.local(NAME).stat().st_ino, root.local(NAME).parent.stat().st_ino
    assert flushed == [(file, False), (folder, True)]


def test_sweeping_removes_what_interrupted_writers_left_and_nothing_else(root: Writer) -> None:
    kept = ["featurestore.toml", "models/fit_pca/v/m.npz", "partitions/extract/v/chunk.parquet", ".tmp-not-ours.txt"]
    left = [".tmp-0123456789ab-run.lock.json", "dataset/.tmp-00ff00ff00ff-000001.parquet"]
    left += ["partitions/extract/v/.tmp-aaaaaaaaaaaa-chunk-000000-new.parquet"]
    for name in [*kept, *left]:
        root.local(name).parent.mkdir(parents=True, exist_ok=True)
        root.local(name).touch()
    assert sorted(root.sweep()) == sorted(left)
    assert everything(root) == sorted(kept)
    assert root.sweep() == []


def test_removing_what_is_gone_is_fine(root: Writer) -> None:
    root.local("a").touch()
    root.remove("a")
    root.remove("a")
    assert everything(root) == []


def test_names_have_slashes_and_are_sorted(root: Writer) -> None:
    for name in ("models/b/2.npz", "models/a/10.npz", "models/a/1.npz", "models/a/1.txt"):
        root.local(name).parent.mkdir(parents=True, exist_ok=True)
        root.local(name).touch()
    assert root.files("models", ".npz") == ["models/a/1.npz", "models/a/10.npz", "models/b/2.npz"]
    assert root.files("partitions", ".parquet") == []


@pytest.mark.usefixtures("file_size_limit")
def test_a_file_that_does_not_fit_is_not_enough_space(root: Writer) -> None:
    with (
        pytest.raises(
            NotEnoughSpace,
            match=f"^{os.strerror(errno.EFBIG)}: {NAME} could not be written; nothing half-written is recorded. "
            "Make room on the disk and run the same command again: what is done stays done$",
        ),
        root.publishing(NAME) as temporary,
    ):
        temporary.write_bytes(bytes(1 << 17))
    assert everything(root) == []


def test_a_full_disk_is_not_enough_space() -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(NotEnoughSpace, match=f"^{os.strerror(errno.ENOSPC)}: it could"), room_on_disk("it"):
        full.write_text("a")


def test_other_trouble_with_a_file_is_not_called_space(root: Writer) -> None:
    with pytest.raises(FileNotFoundError), room_on_disk("it"):
        root.local("nowhere").read_text()


def test_the_digest_is_of_the_bytes(root: Writer) -> None:
    root.local("a").write_bytes(b"abc")
    assert file_digest(root.local("a")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_free_bytes_are_those_of_the_disk(root: Writer) -> None:
    assert 0 < root.free_bytes() < 2**60


def test_a_folder_that_cannot_be_written_says_so(root: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert root.writable
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert not root.writable


def test_the_right_to_change_a_store_does_not_travel_to_workers(root: Writer) -> None:
    there = pickle.loads(pickle.dumps(root))
    assert type(there) is Root
    assert there.path == root.path


def test_only_the_run_lock_makes_a_writer(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="abstract"):
        Writer(tmp_path)  # type: ignore[abstract]
    with exclusive(Root(tmp_path), "run") as writer:
        writer.remove("x")
    with pytest.raises(StoreBusy, match=r"run.lock.json is gone"):
        writer.remove("x")  # what has ended is no right any more
