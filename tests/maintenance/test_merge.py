"""Stores of several machines joined: what is taken, what is left, and why a store is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from featurestore import FeatureStore
from featurestore.errors import CorruptFile, FeatureStoreError, Incompatible, NotEnoughSpace, StoreBusy
from featurestore.storage import CONFIG, Root, exclusive
from featurestore.storage.hashed_file import HashedFile
from tests.catalogs import change, rows, tables
from tests.conftest import Samples, make_store
from tests.small import copy, invoke

INDEX_STAGES = ("fit_words", "words")

Part = Callable[..., FeatureStore]


@pytest.fixture
def part(finished: FeatureStore, tmp_path: Path) -> Part:
    """Make a store that has done only some of the work."""

    def make(name: str, chunks: Collection[int], stages: Collection[str] = ("extract",)) -> FeatureStore:
        path = shutil.copytree(finished.path, tmp_path / name)
        listed = ", ".join(map(str, chunks))
        kept = ", ".join(f"'{stage}'" for stage in stages)
        doomed = f"NOT (stage IN ({kept}) AND chunk_id IN ({listed}))"
        for (file,) in rows(path, f"SELECT path FROM partitions WHERE {doomed}"):
            (path / file).unlink()
        for (file,) in rows(path, f"SELECT path FROM models WHERE stage NOT IN ({kept})"):
            (path / file).unlink()
        change(
            path,
            f"DELETE FROM partitions WHERE {doomed}",
            f"DELETE FROM results WHERE {doomed}",
            f"DELETE FROM training_images WHERE model_id IN (SELECT model_id FROM models WHERE stage NOT IN ({kept}))",
            f"DELETE FROM models WHERE stage NOT IN ({kept})",
            f"UPDATE runs SET run_id = '{name} ' || stage",
            f"DELETE FROM runs WHERE stage NOT IN ({kept})",
            "DELETE FROM variants "
            "WHERE variant NOT IN (SELECT variant FROM partitions UNION SELECT variant FROM models)",
        )
        return FeatureStore(path)

    return make


def test_a_part_is_a_sound_store(part: Part) -> None:
    assert part("part", [0, 2], ["extract", "fit_pca"]).verify().ok


def contents(store: Path) -> dict[str, bytes]:
    found = [path for folder in ("partitions", "models") for path in (store / folder).rglob("*") if path.is_file()]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}


def edit_recipe(store: FeatureStore, old: str, new: str) -> None:
    recipe = store.path / CONFIG
    text = recipe.read_text(encoding="utf-8")
    assert old in text
    recipe.write_text(text.replace(old, new), encoding="utf-8")


def test_ranges_of_chunks_make_one_store(part: Part, finished: FeatureStore) -> None:
    here, there, elsewhere = part("here", [0]), part("there", [1, 2]), part("elsewhere", [2, 3])
    first, second = here.merge(there.path, elsewhere.path)
    assert (first.n_partitions, first.n_here, first.n_models) == (2, 0, 0)
    assert (second.n_partitions, second.n_here) == (1, 1)
    assert first.n_bytes == sum(len(data) for data in contents(there.path).values())
    assert here.verify(deep=True).ok
    assert {run for (run,) in rows(here.path, "SELECT run_id FROM runs")} == {
        *("here extract", "there extract", "elsewhere extract")
    }
    assert [summary.stage for summary in here.run(workers=0)] == ["fit_pca", "project", "fit_scale", "quantize"]
    assert contents(here.path) == contents(finished.path)
    assert tables(here.path, without=("runs",)) == tables(finished.path, without=("runs",))


def test_merging_again_takes_nothing(part: Part) -> None:
    here, there = part("here", [0]), part("there", [1, 2])
    here.merge(there.path)
    before, files = tables(here.path), contents(here.path)
    report = here.merge(there.path)[0]
    assert (report.n_partitions, report.n_here, report.n_bytes) == (0, 2, 0)
    assert (tables(here.path), contents(here.path)) == (before, files)


def test_models_come_with_what_they_were_used_for(part: Part, finished: FeatureStore) -> None:
    here = part("here", [0, 1, 2, 3])
    report = here.merge(finished.path)[0]
    assert (report.n_models, report.n_partitions, report.n_here) == (2, 8, 4)
    assert tables(here.path, without=("runs",)) == tables(finished.path, without=("runs",))
    assert here.run(workers=0) == []


def test_a_child_model_is_taken_and_its_parent_is_not_taken_back(
    store: FeatureStore, finished: FeatureStore, samples: Samples, tmp_path: Path
) -> None:
    bigger = samples.dataset.read_text(encoding="utf-8") + "./china/left-000.jpg,train,china,left,1\n"
    changed = tmp_path / "dataset.csv"
    changed.write_text(bigger.replace("./china/left-000.jpg", "copy.jpg"), encoding="utf-8")
    images = shutil.copytree(samples.images, tmp_path / "images")
    shutil.copy(images / "china" / "left-000.jpg", images / "copy.jpg")
    other = FeatureStore(shutil.copytree(store.path, tmp_path / "other"))
    edit_recipe(store, str(samples.images), str(images))
    store.ingest(changed)
    other.ingest(changed)
    store.run("extract", workers=0)
    store.run("fit_pca", update=True, yes=True, workers=0)
    report = other.merge(store.path)[0]
    assert (report.n_models, report.n_partitions) == (1, 1)
    assert report.notes[-1] == "left there: 8 partitions of other variants"
    assert rows(other.path, "SELECT max(generation) FROM models") == [(1,)]
    assert store.merge(finished.path)[0].n_models == 0


def test_what_was_made_from_other_rows_is_left_there(store: FeatureStore, finished: FeatureStore) -> None:
    """Content may differ between machines: then what is downstream stays with what it was made from."""
    edit_recipe(store, 'truncated = "refuse"', 'truncated = "keep"')
    store.run("extract", workers=0)
    change(
        store.path,
        "DELETE FROM partitions WHERE stage <> 'extract' AND chunk_id = 3",
        "DELETE FROM results WHERE stage <> 'extract' AND chunk_id = 3",
    )
    for stage in ("project", "quantize"):
        next((store.path / "partitions" / stage).rglob("chunk-000003-*")).unlink()
    report = store.merge(finished.path)[0]
    assert (report.n_partitions, report.n_here) == (0, 10)
    *left, others = report.notes
    assert [note.split(",")[1] for note in left] == [" which was made from other rows than those here"] * 2
    assert others == "other rows there in 1 of 10 partitions here already (chunk 3); the rows here are kept"


def test_other_rows_of_what_is_here_are_counted(
    store: FeatureStore, finished: FeatureStore, samples: Samples, tmp_path: Path
) -> None:
    images = shutil.copytree(samples.images, tmp_path / "images")
    Image.open(images / "china" / "whole-000.jpg").save(images / "flower" / "left-000.jpg")
    edit_recipe(store, str(samples.images), str(images))
    store.run(check_images=True, workers=0)
    before = contents(store.path)
    ((chunk,),) = store.sql("SELECT chunk_id FROM images WHERE filename = 'flower/left-000.jpg'").fetchall()
    report = store.merge(finished.path)[0]
    assert (report.n_partitions, report.n_here) == (0, 12)
    said = f"other rows there in 3 of 12 partitions here already (chunk {chunk}); the rows here are kept"
    assert report.notes == (said,)
    assert invoke("merge", store.path, finished.path).stdout == (
        f"{finished.path}: {said}\n{finished.path}: 0 partitions and 0 models copied, 12 partitions here already\n"
    )
    assert contents(store.path) == before
    assert copy(finished, tmp_path / "same").merge(finished.path)[0].notes == ()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "nfeatures = 0",
            "nfeatures = 500",
            "has another recipe: extract.sift.nfeatures is 0 here and 500 there. Make",
        ),
        ("top = 200", "top = 7", "project.top is 200 here and 7 there"),
        (
            'extractor = "sift"',
            'extractor = "colmap"',
            "recipe: extract.extractor is 'sift' here and 'colmap' there. Make",
        ),
    ],
)
def test_another_recipe_is_refused(part: Part, old: str, new: str, text: str) -> None:
    here, there = part("here", [0]), part("there", [1])
    edit_recipe(there, old, new)
    with pytest.raises(Incompatible, match=text):
        here.merge(there.path)
    assert len(contents(here.path)) == 1


@pytest.mark.parametrize("indexed", ["here", "there"])
def test_an_index_of_one_store_is_left_alone(part: Part, indexed: str) -> None:
    """Machines that extract need no index; the partitions of all stages that both have are taken."""
    stores = {"here": part("here", [0]), "there": part("there", [1, 2], ["extract", "fit_pca"])}
    stores[indexed].index()
    report = stores["here"].merge(stores["there"].path)[0]
    assert (report.n_partitions, report.n_models) == (2, 1)
    left = [f"left there: the stage {name}, which the recipe of this store does not have" for name in INDEX_STAGES]
    assert list(report.notes) == (left if indexed == "there" else [])


def test_words_are_left_where_no_index_is_wanted(finished: FeatureStore, store: FeatureStore, tmp_path: Path) -> None:
    other = copy(finished, tmp_path / "other")
    other.index()
    other.run(workers=0)
    assert store.merge(other.path)[0].notes == (
        "left there: the stage fit_words, which the recipe of this store does not have",
        "left there: the stage words with 4 partitions, which the recipe of this store does not have",
    )


def test_policies_are_no_difference(part: Part) -> None:
    here, there = part("here", [0]), part("there", [1])
    edit_recipe(there, "max_pixels = 50000000", "max_pixels = 40000000")
    assert here.merge(there.path)[0].n_partitions == 1


def test_another_dataset_is_refused(part: Part, samples: Samples, tmp_path: Path) -> None:
    here, there = part("here", [0]), part("there", [1])
    text = samples.dataset.read_text(encoding="utf-8").replace("china/whole-000.jpg,train", "china/whole-000.jpg,test")
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    there.ingest(tmp_path / "split.csv")
    message = (
        r"has another dataset: image 0 is china/whole-000.jpg \(train, chunk 0\) here and china/whole-000.jpg "
        r"\(test, chunk 0\) there\. Only stores of the same dataset CSV, split and chunk size can be merged$"
    )
    with pytest.raises(Incompatible, match=message):
        here.merge(there.path)
    (tmp_path / "more.csv").write_text(
        samples.dataset.read_text(encoding="utf-8") + "x.jpg,test,,,\n", encoding="utf-8"
    )
    more = part("more", [1])
    more.ingest(tmp_path / "more.csv")
    with pytest.raises(Incompatible, match="has 27 images and this store 26; ingest the same dataset here first"):
        here.merge(more.path)
    assert more.merge(here.path)[0].n_partitions == 1  # a store with more images takes from one with fewer


def test_another_chunk_size_is_refused(finished: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    other = make_store(tmp_path / "o", samples, chunk_size=9)
    own = FeatureStore(shutil.copytree(finished.path, tmp_path / "f"))
    message = (
        "the same images in other chunks: chunk_size is 8 here and 9 there; chunk 0 has 8 images here and 9 there. "
    )
    with pytest.raises(Incompatible, match=message):
        own.merge(other.path)
    edit_recipe(other, "chunk_size = 9", "chunk_size = 8")  # which changes no chunk that was made
    with pytest.raises(Incompatible, match="the datasets grew by other ingests; chunk 0 has 8 images here and 9 there"):
        own.merge(other.path)


def test_two_models_are_refused(part: Part, finished: FeatureStore) -> None:
    here = part("here", [0, 1])
    here.run("fit_pca", partial=True, workers=0)
    with pytest.raises(
        Incompatible, match=r"^fit_pca was fitted in both stores: model \w+ of 13 images here, \w+ of 20 th"
    ):
        here.merge(finished.path)


def test_damage_is_not_taken_over(part: Part) -> None:
    here, there = part("here", [0]), part("there", [1, 2])
    name, path = max((name, there.path / name) for name in contents(there.path))  # the other one is copied by then
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        CorruptFile, match=r"; nothing was taken from it. Repair it first: featurestore verify \S+ --repair$"
    ):
        here.merge(there.path)
    assert len(contents(here.path)) == 1
    assert not (here.path / name).exists()


def test_a_store_at_work_is_not_merged(part: Part) -> None:
    here, there = part("here", [0]), part("there", [1])
    with (
        exclusive(Root(there.path), "run"),
        pytest.raises(StoreBusy, match=r"there is in use by featurestore run \(pid"),
    ):
        here.merge(there.path)
    with exclusive(Root(here.path), "run"), pytest.raises(StoreBusy, match=r"here is in use by featurestore run \(pid"):
        here.merge(there.path)


def test_a_store_is_not_merged_into_itself(store: FeatureStore) -> None:
    with pytest.raises(Incompatible, match="is the store to merge into; name another one"):
        store.merge(store.path)


def test_what_is_no_store_is_said_before_anything_is_taken(part: Part, tmp_path: Path) -> None:
    here, there = part("here", [0]), part("there", [1])
    with pytest.raises(FeatureStoreError, match=r"nowhere does not exist$"):  # `init` would not help
        here.merge(there.path, tmp_path / "nowhere")
    assert len(contents(here.path)) == 1


def test_a_full_disk_is_foreseen(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = part("here", [0]), part("there", [1])
    monkeypatch.setattr(Root, "free_bytes", lambda self: 1000)
    with pytest.raises(
        NotEnoughSpace, match=r"would be copied from \S+, and \S+ has 1.0 kB free; make room, then merge"
    ):
        here.merge(there.path)


def test_a_file_that_is_not_the_one_that_was_recorded_is_not_taken(part: Part) -> None:
    here, there = part("here", [0]), part("there", [1])
    change(there.path, "UPDATE partitions SET checksum = 'x'")
    with pytest.raises(
        CorruptFile, match=r"chunk-000001-\w+.parquet: the file is damaged: its SHA-256 is not .*; nothing was taken"
    ):
        here.merge(there.path)


def test_a_file_that_changes_while_it_is_copied_is_not_taken(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = part("here", [0]), part("there", [1], ["extract", "fit_pca"])

    def change_and_copy(source: HashedFile, target: IO[bytes], size: int) -> None:
        with Path(source.name).open("r+b") as file:
            file.write(b"PAR2")

    monkeypatch.setattr(shutil, "copyfileobj", change_and_copy)
    with pytest.raises(CorruptFile, match=r"models/\S+ changed while it was copied from \S+; merge again$"):
        here.merge(there.path)
    assert len(contents(here.path)) == 1
