"""Rows that left the dataset: out of all that looks at the dataset, with nothing lost, and back with their rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featurestore import FeatureStore, errors
from featurestore.catalog import HeldCatalog, replay
from featurestore.cli.program import cli
from featurestore.storage import CATALOG, Root
from tests.catalogs import tables
from tests.small import copy, digests, small_store, write_dataset

GONE = ("001.png", "007.png")  # of 13 in chunks of 5; both are train or test: 1 % 4 and 7 % 4
Columns = dict[str, str]


@pytest.fixture(scope="module")
def whole(thirteen: FeatureStore) -> FeatureStore:
    """A small store in which everything was run. Not to be changed."""
    return thirteen


@pytest.fixture(scope="module")
def lines(whole: FeatureStore) -> list[str]:
    """The lines of its CSV."""
    return (whole.path.parent / "images" / "dataset.csv").read_text(encoding="utf-8").split()


@pytest.fixture
def own(whole: FeatureStore, tmp_path: Path) -> FeatureStore:
    return copy(whole, tmp_path / "own")


@pytest.fixture
def fewer(tmp_path: Path, lines: list[str]) -> Path:
    """A dataset without two of the images."""
    folder = tmp_path / "fewer"
    folder.mkdir()
    return write_dataset(folder, [line for line in lines if not line.startswith(GONE)])


@pytest.fixture(scope="module")
def removed(whole: FeatureStore, lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The store after an ingest without two of the images. Not to be changed."""
    folder = tmp_path_factory.mktemp("fewer")
    store = copy(whole, folder / "store")
    store.ingest(write_dataset(folder, [line for line in lines if not line.startswith(GONE)]), yes=True)
    return store


@pytest.fixture
def shrunk(removed: FeatureStore, tmp_path: Path) -> FeatureStore:
    """Such a store, which the test may change."""
    return copy(removed, tmp_path / "shrunk")


def values(store: FeatureStore, query: str) -> list[object]:
    return [row[0] for row in store.sql(query).fetchall()]


def test_they_are_out_of_the_views(removed: FeatureStore) -> None:
    kept = [f"{i:03d}.png" for i in range(13) if f"{i:03d}.png" not in GONE]
    for view in ("images", "extracted", "projected", "quantized"):
        assert values(removed, f"SELECT filename FROM {view} ORDER BY image_id") == kept, view
    for view in ("descriptor_counts", "extracted_descriptors", "quantized_descriptors"):
        assert sorted(set(map(str, values(removed, f"SELECT filename FROM {view}")))) == kept, view
    assert removed.sql("SELECT * FROM removed_images ORDER BY image_id").fetchall() == [
        (1, "001.png", "train", 0, 2),
        (7, "007.png", "test", 1, 2),
    ]
    learnt = removed.sql("SELECT DISTINCT filename, subset FROM training_images WHERE subset IS NULL ORDER BY 1")
    assert learnt.fetchall() == [(name, None) for name in GONE]  # fit_scale learns from test images too


def test_a_failure_of_a_removed_image_is_no_failure(own: FeatureStore, tmp_path: Path, lines: list[str]) -> None:
    grown = [*lines, "lost.png,train"]
    own.ingest(write_dataset(tmp_path, grown))
    own.run("extract", workers=0)
    assert values(own, "SELECT filename FROM failures") == ["lost.png"]
    own.ingest(write_dataset(tmp_path, lines))
    assert values(own, "SELECT filename FROM failures") == []
    assert own.plan("extract", retry_failed=True) == []
    assert own.status().stages[0].images == {"ok": 13}


def test_they_are_out_of_loading_and_export(removed: FeatureStore, tmp_path: Path) -> None:
    assert removed.load(columns=["image_id"])["image_id"].to_pylist() == [i for i in range(13) if i not in (1, 7)]
    assert sum(len(table) for table in removed.iter_batches(rows=4)) == 11
    matrix = removed.matrix()
    assert list(matrix.image_ids) == [i for i in range(13) if i not in (1, 7)]
    assert len(matrix.codes) == removed.status().stages[-1].n_descriptors
    assert removed.export(tmp_path / "out").n_images == 11


def test_a_name_that_was_removed_is_told_from_one_that_never_was(removed: FeatureStore) -> None:
    for ask in (removed.descriptors, removed.keypoints):
        with pytest.raises(
            errors.QueryError, match=r"^'001.png' was removed from the dataset by ingest 2; its results are kept"
        ):
            ask("001.png")
    with pytest.raises(errors.QueryError, match=r"did you mean '000.png'"):
        removed.descriptors("0001.png")  # and not 001.png, which is nearer and not there
    assert (removed.info("001.png").removed_by, removed.info("000.png").removed_by) == (2, None)
    ended = CliRunner().invoke(cli, ["info", str(removed.path), "001.png"])
    assert "\n  removed from the dataset by ingest 2; it comes back with its row\n" in ended.output


def test_status_counts_existing_images_and_what_models_learnt(whole: FeatureStore, removed: FeatureStore) -> None:
    status, before = removed.status(), whole.status()
    assert (status.n_images, dict(status.subsets)) == (11, {"test": 2, "train": 9})
    assert [stage.n_done for stage in status.stages] == [stage.n_done for stage in before.stages]
    assert [dict(stage.images) for stage in status.stages if stage.images] == [{"ok": 11}] * 3
    n = "SELECT CAST(sum(n_descriptors) AS BIGINT) FROM descriptor_counts WHERE stage = 'quantize'"
    assert [status.stages[-1].n_descriptors] == values(removed, n)
    assert status.notes == ("2 images have left the dataset; see the view removed_images",)
    assert status.stages[1].notes == ("the model learnt from 1 image that has left the dataset",)
    assert "the model learnt from 2 images that have left the dataset" in status.stages[3].notes
    assert not any("leakage" in note for stage in status.stages for note in stage.notes)


def test_nothing_is_computed_again_and_nothing_is_lost(whole: FeatureStore, own: FeatureStore, fewer: Path) -> None:
    before = tables(own.path, without=("ingests", "images"))
    report = own.ingest(fewer, yes=True)
    assert (report.ingest_id, report.n_new, report.n_changed, report.n_removed, report.n_images) == (2, 0, 0, 2, 11)
    assert own.run(workers=0) == []
    assert digests(own) == digests(whole)
    assert {name: rows for name, rows in tables(own.path).items() if name in before} == before
    assert own.verify(deep=True).problems == []


def test_they_come_back_with_their_rows(
    whole: FeatureStore, shrunk: FeatureStore, fewer: Path, lines: list[str]
) -> None:
    assert shrunk.ingest(fewer).ingest_id is None  # nothing is removed twice
    back = write_dataset(fewer.parent, [line.replace("007.png,test", "007.png,train") for line in lines])
    report = shrunk.ingest(back)
    assert (report.n_new, report.n_changed, report.n_returned, report.n_removed) == (0, 2, 2, 0)
    assert values(shrunk, "SELECT count(*) FROM removed_images") == [0]
    assert values(shrunk, "SELECT subset FROM images WHERE filename = '007.png'") == ["train"]
    assert (shrunk.descriptors("001.png") == whole.descriptors("001.png")).all()
    assert shrunk.run(workers=0) == []


def test_later_fits_learn_nothing_of_them(shrunk: FeatureStore, fewer: Path) -> None:
    recipe = shrunk.path / "featurestore.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("seed = 0", "seed = 1"), encoding="utf-8")
    shrunk.run(workers=0)
    fitted = values(
        shrunk, "SELECT DISTINCT t.filename FROM training_images t JOIN models m USING (model_id) WHERE current"
    )
    assert sorted(map(str, fitted)) == [f"{i:03d}.png" for i in range(13) if f"{i:03d}.png" not in GONE]
    assert [note for stage in shrunk.status().stages for note in stage.notes if "left the dataset" in note] == []


def test_a_removed_image_is_extracted_with_its_chunk(whole: FeatureStore, tmp_path: Path, fewer: Path) -> None:
    """So that what a partition holds does not depend on when an image left."""
    images = whole.path.parent / "images"
    late = small_store(tmp_path / "late", images)
    late.ingest(fewer, yes=True)
    late.run("extract", workers=0)
    assert digests(late, "partitions/extract/*/*") == digests(whole, "partitions/extract/*/*")


def test_more_than_a_tenth_is_asked_about(own: FeatureStore, fewer: Path, lines: list[str], tmp_path: Path) -> None:
    before = tables(own.path)
    question = (
        "the dataset has no row for 2 of the 13 images, for example '001.png': they would leave the views, loading and "
        "later fits, and come back with their rows; nothing that was computed is deleted"
    )
    with pytest.raises(errors.ConfirmationNeeded) as refused:
        own.ingest(fewer)
    assert str(refused.value) == f"{question}. Agree with --yes"
    ended = CliRunner().invoke(cli, ["run", str(own.path), "--ingest"])  # with the recipe's own CSV nothing is asked
    assert ended.exit_code == 0
    with pytest.raises(errors.ConfirmationNeeded):
        own.ingest(fewer, yes=lambda text: text != question)
    assert tables(own.path) == before
    assert own.ingest(write_dataset(tmp_path, lines[:-1])).n_removed == 1  # a thirteenth is not
    ended = CliRunner().invoke(cli, ["ingest", str(own.path), "--dataset", str(fewer), "--yes"])
    assert (
        "0 images new, 1 changed (1 of them came back), 2 removed (see the view removed_images); 11 images"
        in ended.output
    )


def test_rebuild_and_replay_know_of_removals(shrunk: FeatureStore, fewer: Path, lines: list[str]) -> None:
    shrunk.ingest(write_dataset(fewer.parent, [line for line in lines if not line.startswith("001")]))
    before = tables(shrunk.path, without=("runs",))
    assert values(shrunk, "SELECT filename FROM removed_images") == ["001.png"]
    shrunk.rebuild()
    assert tables(shrunk.path, without=("runs",)) == before
    assert FeatureStore.open_untrusted(shrunk.path).status().n_images == 12


def test_an_older_version_refuses_the_record(removed: FeatureStore) -> None:
    found = {
        path.name: json.loads(pq.read_metadata(path).metadata[b"featurestore"])["format"]
        for path in sorted((removed.path / "dataset").iterdir())
    }
    assert found == {"000001.parquet": 2, "000002.parquet": 2}
    record = pq.read_table(removed.path / "dataset" / "000002.parquet")
    assert record.select(["image_id", "status"]).to_pylist() == [{"image_id": i, "status": "removed"} for i in (1, 7)]


def _column(name: str, value: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, value)


@pytest.mark.parametrize(
    "change",
    [
        _column("status", pa.array(["removed", "gone"])),
        _column("status", pa.array([1, 2])),
        _column("image_id", pa.array([1, 99])),
    ],
)
def test_a_record_that_no_ingest_wrote_is_refused(
    shrunk: FeatureStore, fewer: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    path = shrunk.path / "dataset" / "000002.parquet"
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)
    root = Root(shrunk.path)
    with HeldCatalog(root) as catalog:
        catalog.migrate()
        replay(root, catalog, "dataset/000001.parquet")
        with pytest.raises(errors.CorruptFile, match=r"000002.parquet (removes images in a way|does not go on)"):
            replay(root, catalog, "dataset/000002.parquet")


def test_files_of_removed_images_may_go(whole: FeatureStore, shrunk: FeatureStore, fewer: Path, tmp_path: Path) -> None:
    images = shutil.copytree(whole.path.parent / "images", tmp_path / "images")
    recipe = shrunk.path / "featurestore.toml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace(str(whole.path.parent / "images") + '" #', f'{images}" #'), encoding="utf-8")
    (images / "001.png").unlink()
    (images / "007.png").write_bytes(b"something else")
    report = shrunk.verify()
    assert (report.problems, report.n_images) == ([], 11)
    assert shrunk.run(workers=0, check_images=True) == []


def test_stores_with_other_removals_are_merged(
    whole: FeatureStore, own: FeatureStore, fewer: Path, tmp_path: Path
) -> None:
    begun = small_store(tmp_path / "begun", whole.path.parent / "images")
    begun.ingest(fewer, yes=True)
    (report,) = begun.merge(own.path)
    assert report.n_partitions == 9
    assert "2 images removed here and in the dataset there; this store's dataset is kept" in report.notes
    assert begun.status().n_images == 11
    assert begun.run(workers=0) == []
    (report,) = own.merge(begun.path)
    assert report.notes == ("2 images removed there and in the dataset here; this store's dataset is kept",)


def test_what_only_a_removed_image_decides_is_no_other_dataset(own: FeatureStore, fewer: Path, tmp_path: Path) -> None:
    other = copy(own, tmp_path / "other")
    text = fewer.read_text(encoding="utf-8")
    fewer.write_text(text + "001.png,test\n007.png,test\n", encoding="utf-8")
    other.ingest(fewer)
    with pytest.raises(
        errors.Incompatible, match=r"image 1 is 001.png \(train, chunk 0\) here and 001.png \(test, chunk"
    ):
        own.merge(other.path)
    fewer.write_text(text, encoding="utf-8")
    other.ingest(fewer, yes=True)
    assert own.merge(other.path)[0].n_here == 9


def test_a_removal_without_a_record_is_taken_over(own: FeatureStore, fewer: Path) -> None:
    """Killed between the file and the catalog: the next one to change the store records it."""
    catalog = (own.path / CATALOG).read_bytes()
    own.ingest(fewer, yes=True)
    after = tables(own.path)
    (own.path / CATALOG).write_bytes(catalog)  # as if it had never heard of it
    assert own.run(workers=0) == []
    assert tables(own.path) == after
    assert own.status().n_images == 11
