"""Parquet files as a source of images, and as their dataset: those of Hugging Face and of img2dataset."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import DatasetError, UnreadableFile
from featurestore.images import image_at, open_source, read_image
from featurestore.images.sources import parquet_file
from featurestore.images.sources.base import Damaged, Missing, ReadFailed, TooLarge
from featurestore.images.sources.container import FileState
from featurestore.rows import Status
from tests.broken_images import encoded, picture
from tests.faults import EIO
from tests.small import context_of, invoke, rows_of

LIMIT = 2**20
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "style": {"_type": "ClassLabel", "names": ["Baroque", "Cubism"]},
    "odd": {"_type": "ClassLabel", "names": "not a list"},
}
SAMPLES = Path(os.environ.get("FEATURESTORE_TEST_IMAGES", "nowhere")).parent / "interop_samples"


def write(path: Path, images: list[dict[str, Any]], *, rows: int = 2, **columns: list[Any]) -> Path:
    """Write images and columns as ``datasets`` does, in row groups of ``rows``."""
    table = pa.table({"image": pa.array(images, IMAGE), **columns})
    info = json.dumps({"info": {"features": FEATURES}})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), path, row_group_size=rows)
    return path


def pictures(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": encoded(".png", picture(seed=i)), "path": f"{i}.png"} for i in range(first, first + n)]


def test_rows_have_names_by_their_numbers(tmp_path: Path) -> None:
    images = [*pictures(2), {"bytes": b"x", "path": None}, {"bytes": b"y", "path": "../a\\b/c d.png"}]
    source = open_source(str(write(tmp_path / "train-00000.parquet", images)))
    names = [f"train-00000/{name}" for name in ("000000-0.png", "000001-1.png", "000002", "000003-c d.png")]
    assert [entry.name for entry in source.entries()] == names
    for order in (names, names[::-1], names[2:] + names[:2]):
        assert [source.read(name, LIMIT) for name in order] == [images[names.index(name)]["bytes"] for name in order], (
            "in any order"
        )
    for name in ("000001", "000000-1.png", "000004", "x", "", "-1", "9" * 5000, "²"):
        with pytest.raises(Missing, match=r"train-00000\.parquet has no row of this name"):
            source.stat(f"train-00000/{name}")


def test_only_a_window_of_rows_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "KEPT", 1000)
    images = [{"bytes": bytes([i]) * 100, "path": None} for i in range(100)]
    archive = parquet_file.ParquetArchive(
        path := write(tmp_path / "a.parquet", images, rows=60), FileState(path.stat().st_size, 0)
    )
    for row in (*range(100), 50, 99, 3, 2, 70):
        assert archive.read(f"{row:06d}", LIMIT) == images[row]["bytes"]
        assert len(archive._kept) <= parquet_file.ROWS
    assert archive._kept_bytes == sum(map(len, filter(None, archive._kept.values())))


def test_a_row_without_bytes_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"bytes": None, "path": "/data/a.png"}, {"bytes": None, "path": None}, None])  # type: ignore[list-item]
    for name, only in (("000000-a.png", ", only its path"), ("000001", ""), ("000002", "")):
        image = read_image(image_at(str(path), f"a/{name}"), max_pixels=LIMIT, truncated="refuse")
        assert image.status == Status.MISSING
        assert str(image.message).startswith(f"the Parquet file has no bytes of this image{only}; write it again with")
        assert "embed_table_storage" in str(image.message)


def test_a_row_without_bytes_is_missing_until_it_has_some(tmp_path: Path) -> None:
    images = [*pictures(1), {"bytes": None, "path": "1.png"}]
    where = write(tmp_path / "a.parquet", images)
    store = FeatureStore.create(tmp_path / "store", images=where)
    store.run("extract", workers=0)
    assert store.verify(deep=True).problems == []
    assert store.run("extract", check_images=True, workers=0) == [], "nothing has changed"
    write(where, pictures(2))
    (problem,) = store.verify().problems
    assert (problem.name, problem.what) == ("a/000001-1.png", "the image file was missing, and is there now")
    assert store.run("extract", check_images=True, workers=0)[0].statuses == {Status.OK: 1}
    write(where, [pictures(1)[0], {"bytes": images[0]["bytes"] + b" ", "path": "1.png"}])
    (problem,) = store.verify().problems
    assert (problem.name, problem.what) == ("a/000001-1.png", "the image file has another content")


def test_a_disk_that_fails_is_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pictures(2))
    archive = parquet_file.ParquetArchive(path, FileState(path.stat().st_size, 0))
    (opened,) = (int(link.name) for link in Path("/proc/self/fd").iterdir() if link.resolve() == path.resolve())
    with EIO.open("rb") as failing:
        os.dup2(failing.fileno(), opened)
    for ask in (lambda: list(archive.entries()), lambda: archive.stat("000000-0.png")):
        with pytest.raises(UnreadableFile, match=r"a\.parquet can't be read: .*Input/output error"):
            ask()
    with pytest.raises(ReadFailed, match="Input/output error"):
        archive.read("000000-0.png", LIMIT)


def test_a_large_row(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "a.parquet", [{"bytes": b"x" * 100, "path": None}])))
    with pytest.raises(TooLarge) as found:
        source.read("a/000000", 99)
    assert found.value.head == b"x" * 100


def test_damage_is_of_a_row_group(tmp_path: Path) -> None:
    images: list[dict[str, Any]] = [{"bytes": os.urandom(2000), "path": None} for _ in range(6)]
    path = write(tmp_path / "a.parquet", images, rows=2)
    data = bytearray(path.read_bytes())
    at = data.index(bytes(images[2]["bytes"])) - 100
    data[at : at + 100] = b"\xff" * 100
    path.write_bytes(data)
    source, damaged = open_source(str(path)), list[tuple[int, str]]()
    for row in range(6):
        try:
            assert source.read(f"a/{row:06d}", LIMIT) == images[row]["bytes"]
        except Damaged as error:
            damaged.append((row // 2, str(error).partition(" (")[0]))
    why = "the Parquet file is damaged at its row group"
    assert damaged in ([(0, why)] * 2, [(1, why)] * 2, [(0, why)] * 2 + [(1, why)] * 2), "not the rows of the others"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (pa.large_binary(), pa.large_string()),
        (pa.binary_view(), pa.string_view()),
        (pa.binary(), pa.null()),
    ],
)
def test_types_of_images(tmp_path: Path, data: pa.DataType, path: pa.DataType) -> None:
    name = None if pa.types.is_null(path) else "a.png"
    images = pa.array([{"bytes": b"x", "path": name}], pa.struct([("bytes", data), ("path", path)]))
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    source = open_source(str(tmp_path / "a.parquet"))
    (entry,) = source.entries()
    assert entry.name == ("a/000000-a.png" if name else "a/000000")
    assert source.read(entry.name, LIMIT) == b"x"


@pytest.mark.parametrize(("path", "value"), [(pa.binary(), b"a"), (pa.int64(), 1), (pa.list_(pa.string()), ["a"])])
def test_a_path_that_is_no_text_is_refused(tmp_path: Path, path: pa.DataType, value: object) -> None:
    images = pa.array([{"bytes": b"x", "path": value}], pa.struct([("bytes", pa.binary()), ("path", path)]))
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match="no column of images, a struct of binary bytes and a text path;"):
        FeatureStore.create(tmp_path / "store", images=tmp_path / "a.parquet")


def test_columns_that_are_called_as_a_field_of_the_images(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"x", "path": "a.png"}], IMAGE)
    columns = {"image.bytes": ["y"], "image": images, "image.path": ["b.png"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    source = open_source(str(tmp_path / "a.parquet"))
    assert [source.read(entry.name, LIMIT) for entry in source.entries()] == [b"x"]


@pytest.mark.parametrize("what", ["cut", "text", "other"])
def test_what_holds_no_images_is_refused(tmp_path: Path, what: str) -> None:
    path = write(tmp_path / "a.parquet", pictures(1))
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif what == "text":
        path.write_text("no parquet")
    else:
        pq.write_table(pa.table({"image": ["a.png"]}), path)
    reason = "has no column of images, .* its columns are image" if what == "other" else "is not a whole Parquet file"
    with pytest.raises(DatasetError, match=reason):
        FeatureStore.create(tmp_path / "store", images=path)


def test_changed_bytes_never_end_it(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", [{"bytes": b"abc" * 20, "path": "a.png"}] * 3).read_bytes()
    path = tmp_path / "a.parquet"
    for at in range(0, len(whole), 11):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            source = open_source(str(path))
            for entry in source.entries():
                source.read(entry.name, LIMIT)
        except (DatasetError, Damaged, Missing):
            continue


def test_shards_are_their_own_dataset(tiny: FeatureStore, tmp_path: Path) -> None:
    """Classes become names, other columns are kept, and the split may use the names of the files."""
    files = sorted(Path(context_of(tiny).images).glob("*.png"))
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    write(tmp_path / "train-0.parquet", images[:2], style=[1, 0], odd=[0, 1], filename=["x", "y"])
    write(tmp_path / "test-0.parquet", images[2:], style=[-1], odd=[7], filename=["z"])
    split = "CASE WHEN filename LIKE 'test-%' THEN 'test' ELSE 'train' END"
    made = invoke("init", tmp_path / "store", "--images", tmp_path / "t*.parquet", "--split", split)
    assert made.exit_code == 0, made.output
    store = FeatureStore(tmp_path / "store")
    assert store.sql("SELECT filename, subset, style, odd, csv_filename FROM images ORDER BY image_id").fetchall() == [
        ("test-0/000000-002.png", "test", None, 7, "z"),
        ("train-0/000000-000.png", "train", "Cubism", 0, "x"),
        ("train-0/000001-001.png", "train", "Baroque", 1, "y"),
    ]
    store.run("extract", workers=0)
    hashes = [row.extra["source_hash"] for row in rows_of(store, "extract")]
    ours = [row.extra["source_hash"] for row in rows_of(tiny, "extract")]
    assert hashes == [ours[2], *ours[:2]]
    assert store.verify(deep=True).problems == []
    assert store.ingest().ingest_id is None, "nothing has changed"


def test_shards_without_other_columns_are_scanned(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store", images=write(tmp_path / "a.parquet", pictures(2)))
    assert store.sql("SELECT filename, subset FROM images ORDER BY image_id").fetchall() == [
        ("a/000000-0.png", "train"),
        ("a/000001-1.png", "train"),
    ]


def test_types_of_columns_of_shards(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pictures(2), code=["007", "1"])
    store = FeatureStore.create(tmp_path / "store", images=tmp_path / "a.parquet", types={"code": "BIGINT"})
    assert store.sql("SELECT code FROM images ORDER BY image_id").fetchall() == [(7,), (1,)]


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", pictures(1), code=["a"])
    write(tmp_path / "1.parquet", pictures(1), code=[1])
    with pytest.raises(DatasetError, match="do not fit together"):
        FeatureStore.create(tmp_path / "store", images=tmp_path / "*.parquet")


def write_img2dataset(folder: Path, stem: str, keys: list[str]) -> None:
    """Write a shard as img2dataset does: a row without an image, and rows in another order than the tar."""
    with tarfile.open(folder / f"{stem}.tar", "w") as tar:
        for i, key in enumerate(keys):
            data = encoded(".jpg", picture(seed=i))
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    failed = {"key": f"{stem}9", "url": "gone", "status": "failed_to_download", "caption": "failed"}
    rows = [{"key": key, "url": "u", "status": "success", "caption": f"of {key}"} for key in keys]
    pq.write_table(pa.Table.from_pylist([failed, *rows[::-1]]), folder / f"{stem}.parquet")


def test_what_img2dataset_writes(tmp_path: Path) -> None:
    tmp_path = tmp_path / "data[1]"  # which is no part of the pattern
    tmp_path.mkdir()
    for stem in ("00000", "00001"):
        write_img2dataset(tmp_path, stem, [f"{stem}0", f"{stem}1"])
    store = FeatureStore.create(
        tmp_path / "store", images=tmp_path / "0*.tar", dataset=tmp_path / "0*.parquet", split="'train'"
    )
    asked = "SELECT filename, caption FROM images ORDER BY image_id"
    expected = [(f"{stem}/{stem}{i}.jpg", f"of {stem}{i}") for stem in ("00000", "00001") for i in (0, 1)]
    assert store.sql(asked).fetchall() == expected
    assert store.ingested is not None
    assert not any("exist" in warning for warning in store.ingested.warnings), "every image is there"
    one = FeatureStore.create(
        tmp_path / "one", images=tmp_path / "00001.tar", dataset=tmp_path / "00001.parquet", split="'train'"
    )
    assert one.sql(asked).fetchall() == [("000010.jpg", "of 000010"), ("000011.jpg", "of 000011")]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of other tools are not beside FEATURESTORE_TEST_IMAGES")
def test_files_of_the_real_tools(tmp_path: Path) -> None:
    wiki = FeatureStore.create(tmp_path / "wiki", images=SAMPLES / "train-*.parquet")
    first = wiki.sql("SELECT filename, artist, genre, style FROM images ORDER BY image_id").fetchall()[0]
    assert first[0] == "train-00000-of-00001/000000-p0.jpg"
    assert set(first[1:]) <= {
        "claude-monet",
        "vincent-van-gogh",
        "unknown",
        "landscape",
        "portrait",
        "Realism",
        "Baroque",
    }
    nopath = open_source(str(SAMPLES / "nopath.parquet"))
    assert [entry.name for entry in nopath.entries()] == ["nopath/000000", "nopath/000001"]
    folder = SAMPLES / "img2dataset"
    img2dataset = FeatureStore.create(
        tmp_path / "shards", images=folder / "0*.tar", dataset=folder / "0*.parquet", split="'train'"
    )
    names = [f"00000/00000000{i}.jpg" for i in (0, 2, 3)]
    assert [name for (name,) in img2dataset.sql("SELECT filename FROM images ORDER BY image_id").fetchall()] == names
    for store in (wiki, img2dataset):
        store.run("extract", workers=0)
        assert {row.status for row in rows_of(store, "extract")} <= {Status.OK, Status.EMPTY}
