"""Paths of every kind that a file system allows: each works, or every verb refuses it in one line."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import DatasetError, FeatureStoreError, NotAStore, OutputError, UnusablePath
from featurestore.query.result_files import write_result
from featurestore.system import located, scratch_folder
from featurestore.system.disk import temporary_name
from tests.small import Unlocked, copy

NOT_UTF8 = os.fsdecode(b"caf\xe9")
TAKEN = ["#%20;'\"\n*a[0]{a,b}$HOME:~", "status=ok/ -x "]
REFUSED = {"what?": "a question mark", "back\\slash": "a backslash", NOT_UTF8: "not UTF-8"}


@pytest.mark.parametrize("name", TAKEN)
def test_a_store_in_a_folder_of_any_name(tiny: FeatureStore, tmp_path: Path, name: str) -> None:
    there = tmp_path / name
    shutil.copytree(tiny.path.parent / "images", there / "images")
    made = FeatureStore.create(there / "made", images=there / "images", dataset=there / "images" / "dataset.csv")
    made.run("extract", workers=0)
    assert made.ingest().n_images == 3
    assert made.merge(copy(made, there / "other").path)
    store = copy(tiny, there / "store")
    store.rebuild()
    assert store.run(workers=0) == []
    assert store.verify(deep=True).ok
    assert FeatureStore.open_untrusted(there / "store").status().n_images == 3
    assert store.sql("SELECT DISTINCT status FROM quantized").fetchall() == [("ok",)]
    assert store.load(columns=["subset"])["subset"].to_pylist() == ["train"] * 3
    store.prune("quantize")
    for out in (there / "a.parquet", there / "a.csv"):
        with store.answer("FROM quantized") as answer:
            assert write_result(answer, out) == 3
    store.export(there / "b.parquet", "parquet")
    assert len(pq.read_table(there / "b.parquet", partitioning=None)) == 3
    store.export(there / "c", "npy")
    assert list(tmp_path.iterdir()) == [tmp_path / Path(name).parts[0]]
    assert sorted(path.name for path in there.parent.iterdir()) == [there.name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_duckdb_would_misread_is_refused_by_every_verb(tiny: FeatureStore, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny.path, tmp_path / name / "store")
    before = sorted(path for path in tmp_path.rglob("*"))
    verbs: list[Callable[[], Any]] = [
        lambda: FeatureStore.create(tmp_path / name / "new", images=tiny.path.parent / "images"),
        lambda: FeatureStore(tmp_path / name / "store"),
        lambda: FeatureStore.open_untrusted(tmp_path / name / "store"),
        lambda: tiny.merge(tmp_path / name / "store"),
    ]
    for verb in verbs:
        with pytest.raises(UnusablePath, match=REFUSED[name]) as caught:
            verb()
        assert "\n" not in str(caught.value)
        assert str(caught.value).isprintable()
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_nothing_is_written_into_a_file_whose_name_is_the_beginning(tiny: FeatureStore, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "why")) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS a")
    shutil.copytree(tiny.path, tmp_path / "why?.d")
    with pytest.raises(UnusablePath, match="question mark"):
        FeatureStore(tmp_path / "why?.d").rebuild()
    with duckdb.connect(str(tmp_path / "why")) as connection:
        assert connection.execute("SHOW TABLES").fetchall() == [("mine",)]


@pytest.mark.parametrize("name", ["what?", "back\\slash"])
def test_images_and_outputs_may_lie_where_a_store_may_not(tiny: FeatureStore, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny.path.parent / "images", tmp_path / name)
    store = FeatureStore.create(tmp_path / "s", images=tmp_path / name, dataset=tmp_path / name / "dataset.csv")
    store.run("extract", workers=0)
    assert store.status().stages[0].images == {"ok": 3}


@pytest.mark.parametrize("name", [*REFUSED])
def test_what_is_written_may_have_any_name(tiny: FeatureStore, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with tiny.answer("FROM images") as answer:
        assert write_result(answer, folder / f"{name}.csv") == 3
    for form in ("npy", "npz", "parquet", "arrow", "fvecs", "model", "joblib"):
        tiny.export(folder / form, form)
    assert len(list(folder.iterdir())) == 8
    image = shutil.copy(tiny.path.parent / "images" / "000.png", folder / f"{name}.png")
    assert len(tiny.encode(image)) == len(tiny.descriptors("000.png"))


@pytest.mark.parametrize("given", ["images", "dataset"])
def test_a_recipe_names_no_path_that_is_not_utf8(tiny: FeatureStore, tmp_path: Path, given: str) -> None:
    images = shutil.copytree(tiny.path.parent / "images", tmp_path / NOT_UTF8)
    paths: dict[str, Any] = {"images": tiny.path.parent / "images"}
    paths[given] = images if given == "images" else images / "dataset.csv"
    with pytest.raises(DatasetError, match=r"caf\\udce9.* is not UTF-8.*rename"):
        FeatureStore.create(tmp_path / "store", **paths)
    assert not (tmp_path / "store").exists()


def test_a_current_folder_of_any_name(tiny: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NOT_UTF8).mkdir()
    monkeypatch.chdir(tmp_path / NOT_UTF8)
    tiny.export("codes.npy", "npy")
    assert (tmp_path / NOT_UTF8 / "codes.npy" / "codes.npy").is_file()
    with pytest.raises(UnusablePath, match="not UTF-8"):
        FeatureStore.create("store", images=tiny.path.parent / "images")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UnusablePath, match="the current folder is gone"):
        FeatureStore("store")
    assert FeatureStore(tiny.path).status().n_images == 3


@pytest.mark.parametrize("length", [101, 250])
def test_names_up_to_the_limit_of_the_file_system(tiny: FeatureStore, tmp_path: Path, length: int) -> None:
    name = "é" * (length // 2) + "n" * (length % 2)
    made = FeatureStore.create(tmp_path / name, images=tiny.path.parent / "images")
    assert made.status().n_images == 3
    with tiny.answer("FROM images") as answer:
        write_result(answer, tmp_path / f"{name}.csv")
    for _ in range(2):
        tiny.export(tmp_path / f"{name}.npy", "npy", force=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_names_over_the_limit_are_refused_in_one_line(tiny: FeatureStore, tmp_path: Path) -> None:
    images, long = tiny.path.parent / "images", tmp_path / ("n" * 300)
    verbs: list[Callable[[], Any]] = [
        lambda: FeatureStore(long),
        lambda: FeatureStore(long / "store"),
        lambda: FeatureStore.create(long, images=images),
        lambda: FeatureStore.create(tmp_path / "s", images=long),
        lambda: FeatureStore.create(tmp_path / "s", images=images, dataset=long),
        lambda: tiny.export(long),
        lambda: tiny.merge(long),
        lambda: tiny.ingest(long),
        lambda: tiny.import_npz(long),
        lambda: FeatureStore.create(tmp_path / "/".join(["n" * 250] * 16), images=images),
    ]
    for verb in verbs:
        with pytest.raises(UnusablePath) as caught:
            verb()
        assert "\n" not in str(caught.value)
    with tiny.answer("FROM images") as answer, pytest.raises(UnusablePath, match="File name too long"):
        write_result(answer, Path(f"{long}.csv"))
    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_long_name_is_swept(tmp_path: Path) -> None:
    name = temporary_name("n" * 250)
    assert len(name) < 40
    (tmp_path / "dataset").mkdir()
    for folder in ("dataset", "partitions", "models"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "dataset" / name).touch()
    assert Unlocked(tmp_path).sweep() == [f"dataset/{name}"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("~/x", "home"),
        ("a\0b", r"a\\x00b can't be the path of the store: it contains a NUL character"),
        ("loop", r"Symlink loop|Too many levels of symbolic links"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    if path.startswith("~"):  # whether a user without HOME has a home is up to the system
        monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(UnusablePath, match=says):
        FeatureStore(path)
    with pytest.raises(FeatureStoreError, match=says):
        FeatureStore.create("s", images=path) if path != "a\0b" else located(path, "the store")


def test_without_a_folder_for_temporary_files(
    tiny: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("featurestore.system.scratch.MEMORY", tmp_path / "none")
    assert tiny.sql("SELECT count(*) FROM images JOIN quantized USING (image_id)").fetchall() == [(3,)]
    assert len(tiny.load(where="subset = 'train'")) == 3
    assert tiny.status().n_images == 3
    with pytest.raises(OutputError, match=r"there is no folder for temporary files.*TMPDIR"):
        tiny.verify()
    monkeypatch.setattr("featurestore.system.scratch.MEMORY", tmp_path)
    assert tiny.verify().ok
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_temporary_folder_that_duckdb_would_misread_is_not_taken(
    tiny: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    monkeypatch.setattr("featurestore.system.scratch.MEMORY", tmp_path)
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
    assert tiny.sql("SELECT count(*) FROM images").fetchall() == [(3,)]


def test_the_path_in_an_advice_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / "my store's"
    with pytest.raises(NotAStore) as caught:
        FeatureStore(path)
    advice = str(caught.value).partition("make one with: ")[2]
    assert shlex.split(advice) == ["featurestore", "init", str(path), "--images", "DIR", "--dataset", "CSV"]
