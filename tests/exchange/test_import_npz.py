"""The notebook's files become partitions that equal our own but for the keypoints, and nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.apps import pairs
from featurestore.catalog import FoundMembers
from featurestore.cli.program import cli
from featurestore.errors import ConfigError, CorruptFile, DatasetError, LossyDescriptors, NotReady, StoreBusy
from featurestore.exchange.importers import npz as import_npz
from featurestore.exchange.importers.rows_in_order import RowsInOrder
from featurestore.pipeline import Options, run_stages
from featurestore.progress import Silent
from featurestore.rows import Row
from featurestore.storage import PartitionFile, Root, exclusive
from tests.broken_images import picture
from tests.notebook import Images, write_chunk, write_chunks
from tests.once import copied
from tests.small import configure, copy, make_small, rows_of, small_store, write_dataset

N = 13  # images, in chunks of 5: 0-4, 5-9, 10-12
RECIPE: dict[str, dict[str, Any]] = {
    "fit_pca": {"n_components": 16, "samples_per_image": 70, "batch_size": 200},
    "project": {"top": 50},
}  # of some 120 descriptors an image


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and the stores ``empty``, ``ours`` and ``imported`` of them. Not to be changed."""

    def make(folder: Path) -> None:
        make_small(folder / "pictures", n=N, size=(80, 60))
        empty = small_store(folder / "empty", folder / "pictures", recipe=RECIPE)
        ours = copy(empty, folder / "ours")
        ours.run(workers=0)
        write_chunks(folder / "npz", kept_of(ours), size=4)
        copy(empty, folder / "imported").import_npz(folder / "npz")

    return copied(tmp_path_factory, "stores", make)


def kept_of(store: FeatureStore) -> Images:
    return [(row.filename, row.descriptors) for row in rows_of(store, "extract")]


@pytest.fixture(scope="module")
def ours(stores: Path) -> FeatureStore:
    """A store that extracted its images itself. Not to be changed."""
    return FeatureStore(stores / "ours")


@pytest.fixture(scope="module")
def imported(stores: Path) -> FeatureStore:
    """A store that imported from the notebook's files, in which nothing was run. Not to be changed."""
    return FeatureStore(stores / "imported")


@pytest.fixture(scope="module")
def images(ours: FeatureStore) -> Images:
    """What the notebook would have kept."""
    return kept_of(ours)


@pytest.fixture
def theirs(stores: Path, tmp_path: Path) -> FeatureStore:
    """A store of the same images in which nothing was run."""
    return copy(FeatureStore(stores / "empty"), tmp_path / "store")


def chunks_with_descriptors(store: FeatureStore) -> list[int]:
    query = "SELECT chunk_id FROM partitions WHERE stage = 'extract' ORDER BY 1"
    return [chunk for (chunk,) in store.sql(query).fetchall()]


@pytest.mark.parametrize("size", [1, 5, 7])
def test_the_borders_of_the_files_do_not_matter(
    theirs: FeatureStore, images: Images, tmp_path: Path, size: int
) -> None:
    write_chunks(tmp_path / "npz", images, size=size)
    report = theirs.import_npz(tmp_path / "npz")
    assert report.published == (0, 1, 2)
    assert report.statuses == {"ok": N}
    assert (report.n_files, report.n_matched, report.n_absent) == (-(-N // size), N, 0)
    for row, (name, descriptors) in zip(rows_of(theirs, "extract"), images, strict=True):
        assert (row.filename, row.status, row.keypoints) == (name, "ok", None)
        np.testing.assert_array_equal(row.descriptors, descriptors)
        assert set(row.extra.values()) == {None}


def test_everything_downstream_is_what_our_own_extraction_gives(
    imported: FeatureStore, ours: FeatureStore, tmp_path: Path
) -> None:
    theirs = copy(imported, tmp_path / "store")
    assert [summary.stage for summary in theirs.run(workers=0)] == ["fit_pca", "project", "fit_scale", "quantize"]
    for stage in ("project", "quantize"):
        for one, other in zip(rows_of(theirs, stage), rows_of(ours, stage), strict=True):
            assert one.keypoints is None
            np.testing.assert_array_equal(one.descriptors, other.descriptors)
    variants = "SELECT stage, variant FROM partitions GROUP BY ALL ORDER BY 1"
    assert theirs.sql(variants).fetchall() == ours.sql(variants).fetchall()
    assert theirs.run(workers=0) == []


def test_what_needs_keypoints_says_that_there_are_none(imported: FeatureStore, tmp_path: Path) -> None:
    theirs = copy(imported, tmp_path / "store")
    theirs.run(workers=0)
    query = picture(80, 60)
    asked: list[Callable[[], Any]] = [
        lambda: theirs.search("000.png"),
        lambda: theirs.search(query),
        lambda: theirs.match(query, "000.png"),
        lambda: pairs(theirs, tmp_path / "pairs.csv"),
        lambda: theirs.show("000.png"),
    ]
    for ask in asked:
        with pytest.raises(
            NotReady, match=r"the descriptors of '0\d\d.png' have no keypoints, since they were imported"
        ):
            ask()


def test_an_index_is_made_beside_images_without_keypoints(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    write_chunk(tmp_path / "npz", images[:5])
    assert theirs.import_npz(tmp_path / "npz").published == (0,)
    theirs.index()
    theirs.run(workers=0)
    assert theirs.run(workers=0) == []
    assert theirs.search("006.png", where="image_id >= 5", method="index").method == "index"
    with pytest.raises(NotReady, match="have no keypoints, since they were imported"):
        theirs.search("006.png", method="index")


def test_a_selection_by_keypoints_refuses_imported_descriptors(imported: FeatureStore, tmp_path: Path) -> None:
    theirs = copy(imported, tmp_path / "store")
    configure(theirs, "project", select="scale")
    with pytest.raises(NotReady, match=r"'000\.png' have no keypoints, since they were imported"):
        theirs.run(workers=0)


def test_it_is_recorded(imported: FeatureStore) -> None:
    query = "SELECT stage, outcome, n_chunks, n_images FROM runs"
    assert imported.sql(query).fetchall() == [("import-npz", "done", 3, N)]
    assert imported.sql("SELECT DISTINCT origin FROM partitions").fetchall() == [("npz",)]
    path = imported.path / imported.sql("SELECT path FROM partitions").fetchall()[0][0]
    with PartitionFile(path) as file:
        assert file.manifest["origin"] == "npz"
        assert set(file.manifest["versions"]) == {"featurestore", "numpy", "pyarrow", "opencv"}
        assert file.manifest["versions"]["opencv"] == "unknown"


class Listening(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said = list[str]()

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.mark.parametrize(("opencv", "recorded"), [(None, "unknown"), ("4.5.5.64", "4.5.5")])
def test_a_run_that_adds_to_another_opencv_says_so_once(
    theirs: FeatureStore, images: Images, tmp_path: Path, opencv: str | None, recorded: str
) -> None:
    write_chunk(tmp_path / "npz", images[:5])
    theirs.import_npz(tmp_path / "npz", opencv=opencv)
    reporter = Listening()
    with theirs._changing("run", reporter) as context:
        run_stages(context, Options(("extract",), workers=0))
        run_stages(context, Options(("extract",), workers=0))
    assert len(reporter.said) == 1
    assert reporter.said[0].startswith(f"extract adds to descriptors that were imported, made by OpenCV {recorded}; ")
    note = next(stage.notes for stage in theirs.status().stages if stage.stage == "extract")
    assert note[0].startswith("made by several versions of OpenCV")
    assert recorded in note[0]


def test_a_run_beside_an_import_of_the_same_opencv_says_nothing(
    theirs: FeatureStore, images: Images, tmp_path: Path
) -> None:
    write_chunk(tmp_path / "npz", images[:5])
    theirs.import_npz(tmp_path / "npz", opencv=cv2.__version__)
    reporter = Listening()
    with theirs._changing("run", reporter) as context:
        run_stages(context, Options(("extract",), workers=0))
    assert reporter.said == []


def test_a_retry_of_imported_rows_keeps_the_version_of_the_others(
    theirs: FeatureStore, images: Images, tmp_path: Path
) -> None:
    write_chunk(tmp_path / "npz", [*images[:4], (images[4][0], None)])
    theirs.import_npz(tmp_path / "npz", opencv="4.5.5")
    theirs.run("extract", workers=0, chunks=[0], retry_failed=["unknown"])
    query = "SELECT origin, versions::JSON ->> 'opencv' FROM partitions"
    assert theirs.sql(query).fetchall() == [("npz", "4.5.5")]


@pytest.mark.parametrize("version", ["", "five", "4", "4.5.5; DROP TABLE runs"])
def test_what_is_no_version_of_opencv(theirs: FeatureStore, tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigError, match=r"--opencv takes a version like 4\.10\.0"):
        theirs.import_npz(tmp_path, opencv=version)


def test_images_without_keypoints_and_names_as_bytes(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    descriptors = np.empty(5, object)
    descriptors[:] = [images[0][1], [], np.array([]), np.empty((0, 128), np.float32), None]
    (tmp_path / "npz").mkdir()
    names = np.array([name.encode() for name, _ in images[:5]])
    np.savez(tmp_path / "npz" / "sift_chunk_0.npz", descriptors_list=descriptors, filenames=names)
    np.savez(tmp_path / "npz" / "sift_chunk_5.npz", descriptors_list=np.array([]), filenames=np.array([]))
    report = theirs.import_npz(tmp_path / "npz")
    assert (report.n_files, report.published, report.statuses) == (2, (0,), {"ok": 1, "empty": 3, "unknown": 1})


def test_an_import_does_not_make_extract_look_fast(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    write_chunks(tmp_path / "npz", images[:5], size=5)
    theirs.import_npz(tmp_path / "npz")
    extract = next(estimate for estimate in theirs.plan() if estimate.stage == "extract")
    assert (extract.chunks, extract.seconds) == ((1, 2), None)


def test_a_chunk_waits_for_all_of_its_members(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    write_chunk(tmp_path / "npz", images[:7])
    report = theirs.import_npz(tmp_path / "npz")
    assert (report.published, report.n_absent) == ((0,), 1)
    assert report.waiting == (FoundMembers(1, 2, 3, ["007.png", "008.png", "009.png"]),)
    assert chunks_with_descriptors(theirs) == [0]
    write_chunk(tmp_path / "npz", images[7:], start=7)
    again = theirs.import_npz(tmp_path / "npz")
    assert (again.published, again.left_alone, again.waiting) == ((1, 2), (0,), ())


def test_unknown_names_and_names_that_come_twice(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    write_chunk(tmp_path / "npz", [("other.jpg", None), *images[:5]])
    write_chunk(tmp_path / "npz", [(name, None) for name, _ in images[3:10]], start=6)
    report = theirs.import_npz(tmp_path / "npz")
    assert (report.n_unmatched, report.unmatched) == (1, ("other.jpg in sift_chunk_0_to_5.npz",))
    assert (report.n_repeated, report.published) == (2, (0, 1))
    assert report.statuses == {"ok": 5, "unknown": 5}


def test_names_that_no_terminal_and_no_dataset_can_have(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    write_chunk(tmp_path / "npz", [("not utf-8 \udcff.jpg", None), ("a\n\x1b[31mb.jpg", None), *images[:5]])
    report = theirs.import_npz(tmp_path / "npz")
    assert report.published == (0,)
    assert report.unmatched == (
        r"not utf-8 \udcff.jpg in sift_chunk_0_to_6.npz",
        r"a\n\x1b[31mb.jpg in sift_chunk_0_to_6.npz",
    )


def test_files_are_taken_in_numeric_order(tmp_path: Path) -> None:
    for start in (10000, 1000, 0):
        write_chunk(tmp_path, [("a", None)], start=start)
    names = [file.path.name for file in import_npz.notebook_files(tmp_path)]
    assert names == [f"sift_chunk_{start}_to_{start}.npz" for start in (0, 1000, 10000)]


def test_images_that_have_left_the_dataset_need_no_descriptors(
    theirs: FeatureStore, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_npz, "MOST_OPEN", 1)
    write_chunks(tmp_path / "npz", [image for image in images[:10] if image[0] not in ("002.png", "009.png")], size=4)
    left = [f"{name},train" for name, _ in images[:10] if name != "009.png"]
    assert theirs.ingest(write_dataset(tmp_path, ["filename,subset", *left]), yes=True).n_removed == 4
    report = theirs.import_npz(tmp_path / "npz")
    assert report.waiting == (FoundMembers(0, 4, 1, ["002.png"]),)
    assert (report.published, report.n_absent, report.statuses) == ((1, 2), 0, {"ok": 4, "unknown": 4})
    left = [line for line in left if not line.startswith("002")]
    theirs.ingest(write_dataset(tmp_path, ["filename,subset", *left]), yes=True)
    assert theirs.import_npz(tmp_path / "npz").published == (0,)
    assert [row.filename for row in rows_of(theirs, "extract")] == [name for name, _ in images]
    assert theirs.status().n_images == 8
    theirs.run(workers=0)
    assert theirs.verify(deep=True).ok


def test_a_name_is_normalised_as_ingest_does(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    write_chunk(tmp_path / "npz", [(f"./{name}", descriptors) for name, descriptors in images])
    theirs.import_npz(tmp_path / "npz")
    assert [row.filename for row in rows_of(theirs, "extract")] == [name for name, _ in images]


def test_what_the_notebook_kept_nothing_of_is_unknown(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    none = np.empty((0, 128), np.float32)
    write_chunk(tmp_path / "npz", [(images[0][0], None), (images[1][0], none), *images[2:]])
    assert theirs.import_npz(tmp_path / "npz").statuses == {"unknown": 1, "empty": 1, "ok": N - 2}
    failures = theirs.sql("SELECT filename, status, error FROM failures").fetchall()
    assert failures == [
        ("000.png", "unknown", "the notebook kept no descriptors: missing, unreadable or without keypoints")
    ]


def test_unknown_images_can_be_looked_at_again(
    theirs: FeatureStore, ours: FeatureStore, images: Images, tmp_path: Path
) -> None:
    write_chunk(tmp_path / "npz", [(images[0][0], None), *images[1:]])
    theirs.import_npz(tmp_path / "npz")
    theirs.run("extract", workers=0, retry_failed=["unknown"])
    found = rows_of(theirs, "extract")
    np.testing.assert_array_equal(found[0].keypoints, rows_of(ours, "extract")[0].keypoints)
    assert [row.keypoints is None for row in found] == [False, *[True] * (N - 1)]
    assert theirs.sql("SELECT DISTINCT origin FROM partitions").fetchall() == [("npz",)]


def test_a_shuffled_import_needs_no_more_memory_than_it_may(
    theirs: FeatureStore, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_npz, "HELD_BYTES", 45_000)
    held: dict[RowsInOrder, int] = {}
    added = RowsInOrder.add

    def add(self: RowsInOrder, row: Row) -> None:
        added(self, row)
        held[self] = self.held_bytes

    monkeypatch.setattr(RowsInOrder, "add", add)
    write_chunks(tmp_path / "npz", [images[i] for i in (9, 12, 4, 8, 11, 3, 7, 2, 6, 10, 1, 5, 0)], size=4)
    report = theirs.import_npz(tmp_path / "npz")
    assert report.published == (0, 1, 2)
    for row, (_, descriptors) in zip(rows_of(theirs, "extract"), images, strict=True):
        np.testing.assert_array_equal(row.descriptors, descriptors)
    assert len(held) > 3, "a chunk was put off and begun again"


def test_more_chunks_than_may_be_open(
    theirs: FeatureStore, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_npz, "MOST_OPEN", 1)
    write_chunks(tmp_path / "npz", [images[i] for i in (5, 10, 0, 6, 11, 1, 7, 12, 2, 8, 3, 9, 4)], size=6)
    assert theirs.import_npz(tmp_path / "npz").published == (0, 1, 2)
    assert [row.image_id for row in rows_of(theirs, "extract")] == list(range(N))


def test_a_damaged_file_publishes_nothing_that_was_read_from_it(
    theirs: FeatureStore, images: Images, tmp_path: Path
) -> None:
    write_chunk(tmp_path / "npz", images[:5])
    bad = write_chunk(tmp_path / "npz", images[5:], start=5, compressed=False)
    data = bytearray(bad.read_bytes())
    last = data.rindex(np.float32(images[-1][1][-1, -1] if images[-1][1] is not None else 0).tobytes())
    data[last + 3] ^= 0x80  # the very last value: what comes before it was read and is right
    bad.write_bytes(data)
    with pytest.raises((CorruptFile, LossyDescriptors), match=r"sift_chunk_5_to_12\.npz"):
        theirs.import_npz(tmp_path / "npz")
    assert chunks_with_descriptors(theirs) == [0]
    assert not list(theirs.path.rglob(".tmp-*"))
    assert theirs.sql("SELECT outcome, n_chunks FROM runs").fetchall() == [("failed", 1)]


def test_values_that_uint8_cannot_hold(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    for value in (0.5, 256.0, -1.0, float("nan")):
        lossy = np.zeros((2, 128), np.float32)
        lossy[1, 7] = value
        write_chunk(tmp_path / "npz", [*images[:4], (images[4][0], lossy)])
        with pytest.raises(
            LossyDescriptors, match=rf"^sift_chunk_0_to_4\.npz: the descriptors of 004\.png .* {value},"
        ):
            theirs.import_npz(tmp_path / "npz")
    assert chunks_with_descriptors(theirs) == []


@pytest.mark.parametrize("change", [{"extractor": "rootsift"}, {"sift": {"contrast_threshold": 0.03}}])
def test_another_recipe_would_lie(theirs: FeatureStore, images: Images, tmp_path: Path, change: Any) -> None:
    configure(theirs, "extract", **change)
    write_chunk(tmp_path / "npz", images)
    with pytest.raises(ConfigError, match=rf"files hold SIFT with OpenCV's .* run {theirs.path} extract$"):
        theirs.import_npz(tmp_path / "npz")


def test_policies_are_no_other_recipe(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    configure(theirs, "extract", truncated="keep", max_pixels=1_000_000)
    write_chunk(tmp_path / "npz", images)
    assert theirs.import_npz(tmp_path / "npz").published == (0, 1, 2)


def test_folders_without_files(theirs: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere is not a folder; name the one with"):
        theirs.import_npz(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"has no \.npz files; name the folder with"):
        theirs.import_npz(tmp_path)


def test_it_waits_for_no_other_process(theirs: FeatureStore, images: Images, tmp_path: Path) -> None:
    write_chunk(tmp_path / "npz", images)
    with exclusive(Root(theirs.path), "run"), pytest.raises(StoreBusy):
        theirs.import_npz(tmp_path / "npz")


def test_the_command_line_says_what_happened(
    theirs: FeatureStore, images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_chunk(tmp_path / "npz", [("other.jpg", None), *images[:7]])
    arguments = ["import-npz", str(theirs.path), str(tmp_path / "npz")]
    cli.main(arguments, standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("import-npz  5 images (5 ok), ")
    assert lines[1:] == [
        "1 file: 7 images of this store",
        "published chunk 0: 5 ok",
        "chunk 1 waits for 3 of 5 images that no file holds: 007.png, 008.png, 009.png",
        "to import without an image, remove its row from the dataset, run featurestore ingest, and import again",
        "1 chunk without an image in these files",
        "1 name not in this store: other.jpg in sift_chunk_0_to_7.npz",
    ]
    cli.main([*arguments, "--quiet"], standalone_mode=False)
    assert capsys.readouterr().out == ""
    cli.main(arguments, standalone_mode=False)
    assert "left alone chunk 0: it has its descriptors already" in capsys.readouterr().out.splitlines()


def test_an_interrupted_import_goes_on(
    theirs: FeatureStore, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chunks(tmp_path / "npz", images, size=5)
    added = RowsInOrder.add

    def interrupt(self: RowsInOrder, row: Row) -> None:
        if row.image_id == 6:
            raise KeyboardInterrupt
        added(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RowsInOrder, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            theirs.import_npz(tmp_path / "npz")
    assert chunks_with_descriptors(theirs) == [0]
    assert not list(theirs.path.rglob(".tmp-*"))
    assert theirs.sql("SELECT outcome FROM runs").fetchall() == [("interrupted",)]
    report = theirs.import_npz(tmp_path / "npz")
    assert (report.left_alone, report.published) == ((0,), (1, 2))
