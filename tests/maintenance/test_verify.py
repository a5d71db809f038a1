"""verify finds every difference between files and catalog with a remedy; after a repair a run recomputes just that."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurestore import FeatureStore
from featurestore.errors import StoreBusy
from featurestore.maintenance import Problem
from featurestore.storage import CATALOG, CONFIG, Root, exclusive, write_arrays
from tests.catalogs import change, rows, tables
from tests.conftest import LONG, Samples

FLIPS = 200 if LONG else 75


def files(store: Path) -> list[Path]:
    return sorted(
        p for folder in ("dataset", "partitions", "models") for p in (store / folder).rglob("*") if p.is_file()
    )


def damage(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


@pytest.fixture
def own(store: FeatureStore, samples: Samples, tmp_path: Path) -> Iterator[FeatureStore]:
    """A finished store with images of its own, to be changed at will."""
    images = shutil.copytree(samples.images, tmp_path / "images")
    recipe = store.path / CONFIG
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(str(samples.images), str(images)), encoding="utf-8")
    yield store
    shutil.rmtree(images)


def test_a_finished_store_is_what_it_says(finished: FeatureStore) -> None:
    report = finished.verify(deep=True)
    assert report.ok
    assert report.problems == []
    assert (report.n_files, report.n_images) == (1 + 12 + 2, 26)
    assert report.n_bytes == sum(path.stat().st_size for path in files(finished.path))
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True


def test_random_bit_flips_are_all_found(store: FeatureStore) -> None:
    rng = random.Random(5)
    whole = {path: path.read_bytes() for path in files(store.path)}
    for n in (*[len(whole)] * (FLIPS // len(whole)), FLIPS % len(whole)):  # one bit in each of many files, many times
        hit = rng.sample(sorted(whole), n)
        for path in hit:
            damage(path, rng.randrange(len(whole[path])), rng.randrange(8))
        damaged = {path: path.read_bytes() for path in hit}
        found = [problem.name for problem in store.verify().problems]
        assert sorted(found) == sorted(path.relative_to(store.path).as_posix() for path in hit)
        for path in hit:
            assert path.read_bytes() == damaged[path]  # verify changes nothing
            path.write_bytes(whole[path])
    assert store.verify().ok


def test_what_is_bad_is_dropped_and_recomputed(store: FeatureStore) -> None:
    before = {path: path.read_bytes() for path in files(store.path)}
    catalog = tables(store.path, without=("runs",))
    partitions = sorted((store.path / "partitions").rglob("*.parquet"))
    damage(partitions[0], 1000)
    partitions[5].write_bytes(partitions[5].read_bytes()[:-100])
    partitions[11].unlink()
    model = next((store.path / "models" / "fit_scale").rglob("*.npz"))
    damage(model, 300)
    report = store.verify(repair=True)
    assert report.ok
    assert len(report.repaired) == 4
    assert all(line.endswith(": dropped") for line in report.repaired)
    done = {summary.stage: summary.n_chunks for summary in store.run(workers=0)}
    assert sum(n for stage, n in done.items() if not stage.startswith("fit")) == 3
    assert "fit_scale" in done
    assert {path: path.read_bytes() for path in files(store.path)} == before
    assert tables(store.path, without=("runs",)) == catalog
    assert store.verify(deep=True).ok


@pytest.mark.parametrize(
    "wrong",
    [
        {
            "UPDATE results SET n_descriptors = n_descriptors + 1 WHERE image_id = 3 AND stage = 'extract'": "record",
            "DELETE FROM results WHERE image_id = 10 AND stage = 'project'": "record",
            "UPDATE partitions SET input_payload = 'x' WHERE stage = 'quantize' AND chunk_id = 2": "record",
            "UPDATE variants SET parameters = '{}' WHERE stage = 'fit_scale'": "model record",
        },
        {"DELETE FROM training_images WHERE image_id = 3": "model record"},  # of the same models
    ],
)
def test_wrong_records_are_found_and_restored_from_the_files(store: FeatureStore, wrong: dict[str, str]) -> None:
    before = tables(store.path, without=("runs",))
    change(store.path, *wrong)
    found = store.verify().problems
    stages = [Path(problem.name).parts[1] for problem in found]
    assert stages == (["extract", "project", "quantize", "fit_scale"] if len(wrong) > 1 else ["fit_pca", "fit_scale"])
    assert [problem.kind for problem in found] == (list(wrong.values()) if len(wrong) > 1 else ["model record"] * 2)
    assert {problem.what for problem in found} == {"the catalog says something else of it than the file"}
    report = store.verify(repair=True)
    assert report.ok
    assert {line.split(": ")[-1] for line in report.repaired} == {"recorded again from the file"}
    assert tables(store.path, without=("runs",)) == before
    assert store.run(workers=0) == []


def test_tables_that_do_not_follow_from_the_dataset_are_found(store: FeatureStore) -> None:
    change(
        store.path,
        "UPDATE images SET subset = 'test' WHERE image_id = 0",
        "UPDATE chunks SET digest = 'x' WHERE chunk_id = 1",
        "UPDATE dataset_columns SET rotation = 1 WHERE image_id = 1",
    )
    problems = [str(problem) for problem in store.verify(repair=True).problems if problem.kind == "catalog"]
    what = "the table is not what the dataset files give; make it again"
    for problem, table in zip(problems, ("images", "chunks", "dataset_columns"), strict=True):
        assert problem.startswith(f"catalog: {table}: {what}")
    store.rebuild()
    assert store.verify().ok


def test_rows_of_another_chunk_are_found(store: FeatureStore) -> None:
    change(store.path, "UPDATE images SET filename = 'other.jpg' WHERE image_id = 9")
    whats = {problem.what for problem in store.verify().problems}
    assert whats == {"the table is not what the dataset files give", "its rows are not the images of the chunk"}


def test_a_damaged_dataset_file_can_only_be_put_back(store: FeatureStore) -> None:
    damage(store.path / "dataset" / "000001.parquet", 50)
    problem = only(store.verify(repair=True).problems)
    assert str(problem) == (
        "dataset: dataset/000001.parquet: the file is damaged: its SHA-256 is not what was recorded; "
        "put back a copy of it"
    )
    (store.path / "dataset" / "000001.parquet").unlink()
    assert only(store.verify().problems).what == "the file is missing"


@pytest.mark.parametrize("content", [b"nonsense", b""])
def test_a_catalog_that_can_not_be_read_is_one_problem(store: FeatureStore, content: bytes) -> None:
    (store.path / CATALOG).write_bytes(content)
    report = store.verify(repair=True)
    problem = only(report.problems)
    assert (problem.kind, problem.name) == ("catalog", CATALOG)
    assert problem.remedy.endswith(f"featurestore rebuild {store.path}")
    (store.path / CATALOG).unlink()
    assert only(store.verify().problems).what == "catalog.duckdb is missing"


def test_files_of_which_the_catalog_knows_nothing_and_a_damaged_checkpoint(store: FeatureStore) -> None:
    extract = sorted((store.path / "partitions" / "extract").rglob("*.parquet"))
    doubled = extract[0].with_name("chunk-000000-0123456789abcdef.parquet")
    shutil.copy(extract[0], doubled)
    change(
        store.path,
        "DELETE FROM partitions WHERE stage = 'extract' AND chunk_id = 1",
        "DELETE FROM results WHERE stage = 'extract' AND chunk_id = 1",
    )
    (store.path / "models" / "notes.txt").write_text("mine", encoding="utf-8")
    state = next((store.path / "models" / "fit_pca").iterdir()) / "state.npz"
    state.write_bytes(b"PK")
    checkpoint, *orphans = store.verify().problems
    assert (checkpoint.kind, checkpoint.name) == ("state", state.relative_to(store.path).as_posix())
    assert {problem.kind for problem in orphans} == {"orphan"}
    assert {Path(problem.name).name for problem in orphans} == {doubled.name, extract[1].name, "notes.txt"}
    report = store.verify(repair=True)
    assert [Path(problem.name).name for problem in report.problems] == ["notes.txt"]
    assert sorted(line.split(": ")[1] for line in report.repaired) == ["deleted", "dropped", "recorded"]
    assert not state.exists()
    assert (store.path / "models" / "notes.txt").exists()
    assert not doubled.exists()


def test_values_that_are_not_what_they_were_are_found_by_deep(store: FeatureStore) -> None:
    """With the checksum in the catalog changed too, only the digest of the rows tells of a changed file."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from featurestore.system import file_digest
    from tests.tampering import our_metadata

    path = next((store.path / "partitions" / "quantize").rglob("chunk-000000-*"))
    table, metadata = pq.read_table(path), our_metadata(path)
    place = table.column_names.index("x")
    moved = pc.if_else(pc.equal(table["image_id"], 0), table["x"].take([1] * len(table)), table["x"])
    moved = moved if moved.type == table["x"].type else moved.cast(table["x"].type)
    pq.write_table(table.set_column(place, "x", moved).replace_schema_metadata(metadata), path)
    change(
        store.path,
        f"UPDATE partitions SET checksum = '{file_digest(path)}', n_bytes = {path.stat().st_size} "
        "WHERE stage = 'quantize' AND chunk_id = 0",
    )
    assert store.verify().ok
    assert only(store.verify(deep=True).problems).kind == "partition"


def test_image_files_that_are_not_what_was_extracted(own: FeatureStore, tmp_path: Path) -> None:
    images = tmp_path / "images"
    data = bytearray((images / "china" / "left-000.jpg").read_bytes())
    data[-100] ^= 1  # as long as before
    (images / "china" / "left-000.jpg").write_bytes(data)
    Image.new("RGB", (64, 64)).save(images / "flower" / "left-000.jpg")
    (images / "blank.jpg").unlink()
    shallow = {problem.name: problem.what for problem in own.verify().problems}
    assert set(shallow) == {"flower/left-000.jpg", "blank.jpg"}
    assert shallow["blank.jpg"] == "the image file is gone; what was extracted from it is kept"
    assert re.fullmatch(r"the image file has \d{3} bytes, and had \d{5}", shallow["flower/left-000.jpg"])
    deep = {problem.name: problem for problem in own.verify(deep=True).problems}
    assert set(deep) == {*shallow, "china/left-000.jpg"}
    assert deep["china/left-000.jpg"].what == "the image file has the same size and another content"
    assert deep["china/left-000.jpg"].remedy == f"featurestore run {own.path} --check-images"


def test_an_image_file_that_is_gone_is_put_back_or_leaves_the_dataset(own: FeatureStore, tmp_path: Path) -> None:
    images, dataset = tmp_path / "images", tmp_path / "images" / "dataset.csv"
    (images / "blank.jpg").rename(tmp_path / "blank.jpg")
    (problem,) = own.verify().problems
    assert problem.remedy == f"put it back, or remove its row from the dataset and run: featurestore ingest {own.path}"
    lines = dataset.read_text(encoding="utf-8").splitlines(keepends=True)
    dataset.write_text("".join(line for line in lines if not line.startswith("blank.jpg,")), encoding="utf-8")
    own.ingest(yes=True)
    assert own.verify().ok
    dataset.write_text("".join(lines), encoding="utf-8")
    own.ingest()
    assert not own.verify().ok
    (tmp_path / "blank.jpg").rename(images / "blank.jpg")
    assert own.verify().ok


def test_check_images_recomputes_the_rows_of_replaced_images(own: FeatureStore, tmp_path: Path) -> None:
    images = tmp_path / "images"
    before = own.load("extract")
    Image.open(images / "china" / "whole-000.jpg").save(images / "flower" / "left-000.jpg")
    (images / "blank.jpg").unlink()
    (images / "broken.jpg").unlink()
    assert own.run(workers=0) == []  # only --check-images looks
    reasons = {reason for estimate in own.plan(check_images=True) for reason, _ in estimate.why}
    assert "image files were replaced" in reasons
    done = {summary.stage: (summary.n_chunks, summary.n_images) for summary in own.run(check_images=True, workers=0)}
    assert done["extract"] == (1, 1)
    assert done["quantize"][0] == 1
    after = own.load("extract")
    changed = [
        name
        for name, old, new in zip(
            *(before["filename"].to_pylist(), before["descriptors"].to_pylist(), after["descriptors"].to_pylist()),
            strict=True,
        )
        if old != new
    ]
    assert changed == ["flower/left-000.jpg"]  # and not those that are gone
    assert own.run(check_images=True, workers=0) == []
    shutil.copy(images / "china" / "whole-000.jpg", images / "broken.jpg")
    assert own.run("extract", check_images=True, workers=0)[0].n_images == 1
    assert own.sql(
        "SELECT status FROM descriptor_counts WHERE filename = 'broken.jpg' AND stage = 'extract'"
    ).fetchall()


def test_without_the_folder_of_images_there_is_a_note(own: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    report = own.verify(deep=True)
    assert report.ok
    assert report.notes == [f"the image files were not checked: {tmp_path / 'images'} is not there"]
    (tmp_path / "images").mkdir()  # as where a disk is not mounted
    report = own.verify()
    assert report.ok
    assert report.notes == [
        f"the image files were not checked: there are no images in {tmp_path / 'images'}, though some were read from "
        "it before"
    ]


def test_leakage_is_found(store: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    text = samples.dataset.read_text(encoding="utf-8").replace("china/whole-000.jpg,train", "china/whole-000.jpg,test")
    changed = tmp_path / "dataset.csv"
    changed.write_text(text, encoding="utf-8")
    store.ingest(changed)
    problem = only(store.verify().problems)
    assert problem.kind == "leakage"
    assert problem.what == "it learnt from 1 image that the current split holds out, image 0 first"
    assert problem.remedy == "another seed in [fit_pca] of featurestore.toml, and a run, make models without them"


def test_a_model_whose_partitions_are_gone_is_found(store: FeatureStore) -> None:
    variant = rows(store.path, "SELECT DISTINCT variant FROM partitions WHERE stage = 'extract'")[0][0]
    shutil.rmtree(store.path / "partitions" / "extract" / variant)
    change(store.path, "DELETE FROM partitions WHERE stage = 'extract'", "DELETE FROM results WHERE stage = 'extract'")
    problem = next(problem for problem in store.verify().problems if problem.kind == "variant")
    assert problem.what == f"it was fitted on variant {variant} of extract, of which there is nothing any more"


def test_a_model_that_lies_is_found(store: FeatureStore) -> None:
    path = next((store.path / "models" / "fit_scale").rglob("*.npz"))
    write_arrays(path, {"low": np.zeros(3)}, {"stage": "fit_scale"})
    assert only(store.verify().problems).kind == "model"


def test_verify_takes_its_turn(store: FeatureStore) -> None:
    with exclusive(Root(store.path), "run"), pytest.raises(StoreBusy, match=r"is in use by featurestore run \(pid"):
        store.verify()
