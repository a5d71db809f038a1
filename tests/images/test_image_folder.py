"""A folder of images that goes away while a run reads it: nothing is recorded of that, and the next run goes on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import ImagesGone
from featurestore.images.image_folder import ImageFolder, open_folder
from featurestore.pipeline import Options, run_stages
from featurestore.pipeline.image_row import make_row
from featurestore.progress import Silent
from featurestore.stages import Extract
from tests.broken_images import encoded, picture
from tests.faults import EIO, no_open_files, ordinary_user
from tests.once import once
from tests.small import configure, context_of, copy, make_small, small_store, write_dataset

ROWS = "SELECT filename, status, error, hash(descriptors) FROM extracted ORDER BY image_id"


class Meanwhile(Silent):
    """Does something after the first images of a run."""

    def __init__(self, deed: Callable[[], object]) -> None:
        self.deed: Callable[[], object] | None = deed

    def advance(self, n_images: int) -> None:
        if self.deed is not None:
            deed, self.deed = self.deed, None
            deed()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, and a store of them in chunks of five in which nothing was run. Not to be changed."""

    def make(folder: Path) -> None:
        make_small(folder / "images", size=(80, 60))
        small_store(folder / "store", folder / "images")

    return once(tmp_path_factory, "image-folder", make)


@pytest.fixture
def images(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "images", tmp_path / "images"))


@pytest.fixture
def store(made: Path, images: Path, tmp_path: Path) -> FeatureStore:
    """Thirteen images in chunks of five, one of which was never there."""
    shutil.copy(images / "dataset.csv", tmp_path / "dataset.csv")
    (images / "009.png").unlink()
    store = copy(FeatureStore(made / "store"), tmp_path / "store")
    configure(store, "store", images=str(images), dataset=str(tmp_path / "dataset.csv"))
    return store


def extract(store: FeatureStore, meanwhile: Callable[[], object]) -> None:
    run_stages(context_of(store, Meanwhile(meanwhile)), Options(stages=("extract",), workers=0))


def is_complete(store: FeatureStore) -> None:
    """One is missing, as it has been from the beginning, and all others are there."""
    store.run("extract", workers=0)
    rows = store.sql(ROWS).fetchall()
    assert [row[:3] for row in rows if row[1] != "ok"] == [("009.png", "missing", "the file does not exist")]
    assert len(rows) == 13


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a file"])
def test_a_folder_that_goes_away_ends_the_run(images: Path, store: FeatureStore, left: str) -> None:
    def lose() -> None:
        images.rename(images.with_name("elsewhere"))
        if left == "an empty folder":
            images.mkdir()
        elif left == "a file":
            images.touch()

    with pytest.raises(ImagesGone) as caught:
        extract(store, lose)
    message = str(caught.value)
    assert re.sub(r"\d{3}.png", "X", message) == (
        f"the folder of images is gone: nothing in {images} can be read any more, the last time X (the file does not "
        "exist). Nothing of this is recorded; put it back and run the same command again"
    )
    assert store.sql("SELECT * FROM failures").fetchall() == []
    if images.exists():
        images.rmdir() if images.is_dir() else images.unlink()
    images.with_name("elsewhere").rename(images)
    is_complete(store)


def test_a_folder_that_can_not_be_read_any_more_ends_the_run(images: Path, store: FeatureStore) -> None:
    """As when the ticket of a network drive has run out: all of it is there, and nothing is permitted."""
    with ordinary_user(), pytest.raises(ImagesGone, match=r"gone: nothing in .*images can.*Permission denied"):
        extract(store, lambda: images.chmod(0))
    images.chmod(0o755)
    is_complete(store)


def test_a_folder_below_is_told_from_its_files(images: Path, tmp_path: Path) -> None:
    """A disk of its own may be mounted there."""
    (images / "disk").mkdir()
    lines = [f"{'disk/' if 4 <= n < 9 else ''}{n:03d}.png,train" for n in range(13)]
    for n in range(4, 9):
        (images / f"{n:03d}.png").rename(images / "disk" / f"{n:03d}.png")
    write_dataset(images, ["filename,subset", *lines])
    store = small_store(tmp_path / "store", images, chunk_size=2)
    folder = ImageFolder(str(images), None, (("000.png", (images / "000.png").stat().st_size),), "a run")
    folder.was_read("disk/004.png", (images / "disk" / "004.png").stat().st_size)
    (images / "disk").rename(tmp_path / "disk")
    with pytest.raises(ImagesGone, match=r"nothing in \S+images/disk can be read any more, the last"):
        folder.refuse_if_gone("disk/005.png", "gone")
    folder.refuse_if_gone("other/005.png", "gone")
    store.run("extract", workers=0)
    assert store.sql("SELECT count(*) FROM failures WHERE status = 'missing'").fetchall() == [(5,)]


def unlink(images: Path, *numbers: int) -> None:
    for n in numbers:
        (images / f"{n:03d}.png").unlink()


def test_files_that_vanish_one_by_one_are_missing(images: Path, store: FeatureStore) -> None:
    extract(store, lambda: unlink(images, 7, 8, 10))
    missing = store.sql("SELECT filename FROM failures ORDER BY 1").fetchall()
    assert missing == [("007.png",), ("008.png",), ("009.png",), ("010.png",)]


def test_a_folder_that_is_mounted_again_is_the_same_folder(images: Path, store: FeatureStore) -> None:
    """Another inode, or on a network another device, and the same files."""

    def remount() -> None:
        shutil.copytree(images, images.with_name("copy"))
        images.rename(images.with_name("elsewhere"))
        images.with_name("copy").rename(images)

    extract(store, remount)
    is_complete(store)


def test_another_folder_with_the_same_names_is_not(images: Path) -> None:
    folder = open_folder(images, read=[], wanted=["000.png", "001.png"])
    images.rename(images.with_name("elsewhere"))
    images.mkdir()
    for n in range(9):
        (images / f"{n:03d}.png").write_bytes(encoded(".png", picture(40, 30, seed=n)))
    with pytest.raises(ImagesGone):
        folder.refuse_if_gone("009.png", "gone")


def test_a_folder_without_any_image_is_known_by_its_identity(images: Path) -> None:
    (images / "folder.png").mkdir()
    folder = open_folder(images, read=[], wanted=["folder.png"])
    assert folder.witnesses == ()
    folder.refuse_if_gone("nowhere.png", "gone")
    images.rename(images.with_name("elsewhere"))
    images.mkdir()
    with pytest.raises(ImagesGone):
        folder.refuse_if_gone("nowhere.png", "gone")


def test_a_file_that_was_lost_for_a_moment_is_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network drive that is back when it is looked for."""
    folder = open_folder(images, read=[], wanted=["000.png"])
    path = images / "001.png"
    path.rename(images / "hidden")
    monkeypatch.setattr(ImageFolder, "refuse_if_gone", lambda *_: (images / "hidden").rename(path))
    assert make_row(Extract(), 1, "001.png", folder).status == "ok"


def test_a_folder_that_was_lost_before_the_run(images: Path, store: FeatureStore) -> None:
    """Images were read from it in an earlier run, so it is not a folder in which nothing ever was."""
    store.run("extract", chunks=[0], workers=0)
    images.rename(images.with_name("elsewhere"))
    images.mkdir()
    with pytest.raises(ImagesGone) as caught:
        store.run(workers=0)
    assert str(caught.value) == (
        f"the folder of images is gone: there are no images in {images}, though some were read from it before. "
        "Nothing is recorded; put it back, or correct `images` in featurestore.toml, and run the same command again"
    )
    images.rmdir()
    images.with_name("elsewhere").rename(images)
    is_complete(store)


def test_images_may_go_once_they_are_extracted(images: Path, store: FeatureStore) -> None:
    store.run("extract", chunks=[0], workers=0)
    for n in range(5):
        (images / f"{n:03d}.png").unlink()
    is_complete(store)


def test_a_folder_in_which_nothing_ever_was(images: Path, store: FeatureStore) -> None:
    shutil.rmtree(images)
    with pytest.raises(ImagesGone, match=r"there are no images in .* by any of 13 names\. Nothing is recorded"):
        store.run(workers=0)
    assert store.sql("SELECT count(*) FROM failures").fetchall() == [(0,)]


def test_a_lack_of_open_files_is_not_a_lost_folder(images: Path) -> None:
    folder = open_folder(images, read=[], wanted=["000.png"])
    with no_open_files(), pytest.raises(OSError, match="Too many open files"):
        folder.refuse_if_gone("001.png", "gone")


def failing_disk(images: Path, tmp_path: Path, *, n: int) -> FeatureStore:
    """A store of pictures with ``n`` after the third that a disk fails to read."""
    names = [f"{i:03d}.png" for i in range(3)] + [f"bad-{i:02d}.png" for i in range(n)] + ["003.png", "004.png"]
    for name in names[3 : n + 3]:
        (images / name).symlink_to(EIO)
    write_dataset(images, ["filename,subset", *(f"{name},train" for name in names)])
    return small_store(tmp_path / "failing", images, chunk_size=4)


def test_a_file_that_a_disk_fails_to_read_is_one_row(images: Path, tmp_path: Path) -> None:
    store = failing_disk(images, tmp_path, n=19)
    store.run("extract", workers=0)
    failures = store.sql("SELECT DISTINCT status, error, count(*) FROM failures GROUP BY ALL").fetchall()
    error = "the file can't be read, nor could it a second time (Input/output error)"
    assert failures == [("unreadable", error, 19)]
    assert store.run("extract", workers=0) == []


def test_a_disk_that_fails_twenty_times_in_a_row_ends_the_run(images: Path, tmp_path: Path) -> None:
    store = failing_disk(images, tmp_path, n=20)
    with pytest.raises(ImagesGone) as caught:
        store.run("extract", workers=0)
    assert str(caught.value) == (
        "the folder of images can't be read: 20 images in a row, from bad-00.png to bad-19.png, gave Input/output "
        "error. Nothing of them is recorded; check the disk or the network, and run the same command again"
    )
    assert store.sql("SELECT * FROM failures").fetchall() == []
    for n in range(20):
        (images / f"bad-{n:02d}.png").unlink()
        shutil.copy(images / f"{n % 9:03d}.png", images / f"bad-{n:02d}.png")
    store.run("extract", workers=0)
    assert store.sql("SELECT count(*) FROM extracted WHERE status = 'ok'").fetchall() == [(25,)]
