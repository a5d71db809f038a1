"""Views over partitions that lack something: the rows that are left of pruned ones, and what a reader is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import FeatureStore
from tests.conftest import Samples
from tests.query.test_descriptor_views import damage
from tests.small import configure, copy, invoke, make_old_partition

LEFT = "image_id, filename, status, error, n_descriptors"
OF_STAGE = {
    "extracted": "width, height, source_bytes, source_hash, source_version, exif_orientation",
    "projected": "low, high",
}
BLOBS = ("descriptors", "x", "y", "size", "angle", "response", "octave")


@pytest.fixture(scope="module")
def pruned(finished: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store whose partitions of extract and project are pruned. Not to be changed."""
    store = copy(finished, tmp_path_factory.mktemp("pruned") / "store")
    store.prune("quantize")
    return store


@pytest.fixture
def partly(pruned: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store in which chunk 1 alone has its descriptors of extract again."""
    store = copy(pruned, tmp_path / "partly")
    store.run("extract", chunks=[1], workers=0)
    return store


def of_pruned(store: FeatureStore, view: str, images: str) -> str:
    stage = {"extracted": "extract", "projected": "project"}[view]
    return (
        f"{view} has no descriptors or keypoints for {images}; make them again with: "
        f"featurestore run {store.path} {stage}"
    )


@pytest.mark.parametrize("view", OF_STAGE)
def test_pruned_partitions_have_their_rows_without_blobs(
    finished: FeatureStore, pruned: FeatureStore, view: str
) -> None:
    for text in (
        f"SELECT {LEFT}, {OF_STAGE[view]} FROM {view} ORDER BY image_id",
        f"SELECT count(*) FROM {view}",
        f"SELECT image_id, position FROM {view}_descriptors ORDER BY ALL",
        f"DESCRIBE {view}",
        f"SELECT * FROM (DESCRIBE FROM {view})",
    ):
        whole, left = finished.sql(text), pruned.sql(text)
        assert left.table.equals(whole.table), text
        assert whole.notes == ()
        assert left.notes == (of_pruned(pruned, view, "26 of 26 images: pruned (chunks 0-3)"),)
    everything = pruned.sql(f"FROM {view}")
    assert everything.columns == finished.sql(f"FROM {view}").columns
    assert [everything.table[name].null_count for name in BLOBS] == [26] * len(BLOBS)
    (found,) = pruned.sql(f"SELECT count(*), count(descriptor), count(x) FROM {view}_descriptors").fetchall()
    assert found == (sum(everything.table["n_descriptors"].to_pylist()), 0, 0)


def test_some_partitions_are_pruned(finished: FeatureStore, partly: FeatureStore) -> None:
    for text in (
        f"SELECT {LEFT}, {OF_STAGE['extracted']} FROM extracted ORDER BY image_id",
        "SELECT x, descriptors FROM extracted WHERE image_id BETWEEN 8 AND 15 ORDER BY image_id",
        "SELECT * FROM extracted_descriptors WHERE image_id BETWEEN 8 AND 15 ORDER BY image_id, position",
    ):
        found = partly.sql(text)
        assert found.table.equals(finished.sql(text).table)
        assert found.notes == (of_pruned(partly, "extracted", "18 of 26 images: pruned (chunks 0, 2-3)"),)
    found = partly.sql("SELECT list(image_id ORDER BY image_id) FROM extracted WHERE descriptors IS NOT NULL")
    assert (
        found.fetchall()
        == finished.sql(
            "SELECT list(image_id ORDER BY image_id) FROM extracted WHERE status = 'ok' AND image_id BETWEEN 8 AND 15"
        ).fetchall()
    )


def test_a_count_beside_pruned_partitions_reads_no_descriptors(finished: FeatureStore, partly: FeatureStore) -> None:
    (path,) = (partly.path / "partitions" / "extract").rglob("chunk-*.parquet")
    damage(path, "descriptors")
    for text in ("SELECT count(*), max(width) FROM extracted", "SELECT count(*) FROM extracted_descriptors"):
        assert partly.sql(text).fetchall() == finished.sql(text).fetchall()


def test_partitions_of_an_earlier_version_are_pruned(store: FeatureStore) -> None:
    text = "SELECT image_id, width, exif_orientation, source_version FROM extracted ORDER BY image_id"
    for path in (store.path / "partitions" / "extract").rglob("chunk-*.parquet"):
        make_old_partition(path)
    store.rebuild()
    expected = store.sql(text)
    store.prune("quantize")
    assert store.sql(text).table.equals(expected.table)
    assert store.sql("SELECT count(*) FROM extracted").fetchall() == [(26,)]


@pytest.mark.parametrize(
    "text", ["FROM quantized", "SELECT sum(n_descriptors) FROM descriptor_counts", "SHOW TABLES", "FROM images"]
)
def test_a_query_that_names_no_such_view_has_no_note(pruned: FeatureStore, text: str) -> None:
    assert pruned.sql(text).notes == ()


def test_chunks_that_were_not_computed_are_told(fresh: FeatureStore) -> None:
    run = f"featurestore run {fresh.path}"
    assert fresh.sql("FROM extracted").notes == (
        f"extracted lacks 26 of 26 images: never run (chunks 0-3); make them with: {run}",
    )
    fresh.run("extract", chunks=[0, 2], workers=0)
    found = fresh.sql("SELECT count(*) FROM extracted, projected_descriptors")
    assert found.notes == (
        f"extracted lacks 10 of 26 images: never run (chunks 1, 3); make them with: {run}",
        f"projected lacks 26 of 26 images: waits for fit_pca (chunks 0-3); make them with: {run}",
    )


def test_rows_of_an_older_input_are_told(store: FeatureStore) -> None:
    configure(store, "extract", max_pixels=100)
    store.run("extract", chunks=[1], workers=0)
    run = f"featurestore run {store.path}"
    outdated = "has outdated rows for 8 of 26 images: input changed (chunk 1); make them again with:"
    assert store.sql("FROM projected, quantized").notes == (
        f"projected {outdated} {run}",
        f"quantized {outdated} {run}",
    )


def test_images_that_have_left_are_not_counted(pruned: FeatureStore, samples: Samples, tmp_path: Path) -> None:
    store = copy(pruned, tmp_path / "store")
    lines = samples.dataset.read_text(encoding="utf-8").splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join([*lines[:4], *lines[9:]]) + "\n", encoding="utf-8")
    store.ingest(tmp_path / "fewer.csv", yes=True)
    found = store.sql("SELECT count(*) FROM extracted")
    assert found.fetchall() == [(21,)]
    assert found.notes == (of_pruned(store, "extracted", "21 of 21 images: pruned (chunks 0-3)"),)


def test_every_way_to_ask_has_the_note(pruned: FeatureStore) -> None:
    note = of_pruned(pruned, "extracted", "26 of 26 images: pruned (chunks 0-3)")
    text = "SELECT count(*) AS n FROM extracted"
    with pruned.snapshot() as sql:
        assert sql("FROM images").notes == ()
        assert sql(text).notes == (note,)
    assert FeatureStore.open_untrusted(pruned.path).sql(text).notes == (note,)
    for form, stdout in (("--csv", "n\n26\n"), ("--json", '[\n{"n": 26}\n]\n')):
        for options in ((), ("--untrusted",)):
            ended = invoke("sql", pruned.path, text, form, *options)
            assert (ended.exit_code, ended.stdout, ended.stderr) == (0, stdout, f"note: {note}\n")
