"""A store whose codes are of 4 bits, of an odd number of components: every reader gives a byte for each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import QueryError
from featurestore.rows import Row
from featurestore.stages.codebook import assign, signatures
from featurestore.storage import read_arrays
from tests.conftest import Samples
from tests.once import copied
from tests.small import change_recipe, configure, copy, rows_of

NAME = "china/whole-000.jpg"
DIM = 31


@pytest.fixture(scope="module")
def made(finished: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A finished store of 4 bits, with an index. Not to be changed."""

    def make(folder: Path) -> None:
        store = copy(finished, folder / "store")
        store.index()
        change_recipe(store, {"fit_pca": {"n_components": DIM}, "quantize": {"bits": 4}})
        store.run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "four-bits", make) / "store")


@pytest.fixture
def store(made: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store of 4 bits that the test may change."""
    return copy(made, tmp_path / "store")


@pytest.fixture(scope="module")
def rows(made: FeatureStore) -> list[Row]:
    """The rows of quantize."""
    return rows_of(made, "quantize")


def codes_of(rows: list[Row]) -> list[list[list[int]] | None]:
    return [None if row.descriptors is None else row.descriptors.tolist() for row in rows]


def joined(rows: list[Row]) -> np.ndarray[Any, Any]:
    return np.concatenate([row.descriptors for row in rows if row.descriptors is not None])


def manifests(store: FeatureStore, stage: str, variant: str = "*") -> list[dict[str, Any]]:
    paths = sorted(store.path.glob(f"partitions/{stage}/{variant}/*.parquet"))
    found = [pq.read_metadata(path).metadata for path in paths]
    return [{"dtype": one[b"dtype"].decode(), **json.loads(one[b"featurestore"])} for one in found]


def variant_of(store: FeatureStore) -> str:
    (found,) = (stage.variant for stage in store.status().stages if stage.stage == "quantize")
    assert found is not None
    return found


def test_codes_are_those_of_numpy(made: FeatureStore, rows: list[Row]) -> None:
    bounds = made.model("fit_scale")
    low, high = bounds["low"], bounds["high"]
    assert {row.status for row in rows} >= {"ok", "empty", "truncated"}
    for projected, row in zip(rows_of(made, "project"), rows, strict=True):
        if projected.descriptors is None:
            assert row.descriptors is None
            continue
        normal = (projected.descriptors - low) / (high - low)
        expected = np.rint(15 * np.clip(normal, 0, 1)).astype(np.uint8)
        assert np.array_equal(row.descriptors, expected)  # type: ignore[arg-type]
        assert row.extra["n_clipped"] == np.count_nonzero((normal < 0) | (normal > 1))
        back = made.dequantize(expected)
        assert np.array_equal(back, low + expected.astype(np.float32) / np.float32(15) * (high - low))
    assert (joined(rows).min(), joined(rows).max()) == (0, 15)


def test_only_packed_partitions_are_of_the_next_format(made: FeatureStore, finished: FeatureStore) -> None:
    found = manifests(made, "quantize", variant_of(made))
    assert {(one["dtype"], one["format"], one["parameters"]["bits"]) for one in found} == {("uint4", 3, 4)}
    others = manifests(finished, "quantize")
    assert {(one["dtype"], one["format"]) for one in others} == {("uint8", 1)}
    assert not any("bits" in one["parameters"] for one in others)
    formats = {one["stage"]: one["format"] for one in manifests(made, "[!q]*")}
    assert formats == {"extract": 2, "project": 1, "words": 1}


def test_a_descriptor_begins_with_a_byte(made: FeatureStore, rows: list[Row]) -> None:
    paths = sorted(made.path.glob(f"partitions/quantize/{variant_of(made)}/*.parquet"))
    blobs = [blob for path in paths for blob in pq.read_table(path)["descriptors"].to_pylist()]
    assert [None if blob is None else len(blob) for blob in blobs] == [
        None if row.descriptors is None else row.n_descriptors * (DIM + 1) // 2 for row in rows
    ]


def test_python_gives_a_byte_for_each_code(made: FeatureStore, rows: list[Row], samples: Samples) -> None:
    table = made.load()
    assert (table.schema.metadata[b"dtype"], table.schema.metadata[b"dim"]) == (b"uint8", b"31")
    found = [None if one is None else one.tolist() for one in made.arrays(table)]
    assert found == codes_of(rows)
    batches = [one for batch in made.iter_batches(7) for one in made.arrays(batch)]
    assert [None if one is None else one.tolist() for one in batches] == found
    codes, offsets, image_ids = made.matrix()
    assert codes.dtype == np.uint8
    assert codes.shape == (offsets[-1], DIM)
    assert np.array_equal(codes, joined(rows))
    assert image_ids.tolist() == [row.image_id for row in rows]
    row = next(row for row in rows if row.filename == NAME)
    assert np.array_equal(made.descriptors(NAME), row.descriptors)  # type: ignore[arg-type]
    assert np.array_equal(made.encode(samples.images / NAME), row.descriptors)  # type: ignore[arg-type]
    empty = next(row.filename for row in rows if row.status == "empty")
    assert made.descriptors(empty).shape == (0, DIM)


def test_sql_unpacks(made: FeatureStore, rows: list[Row]) -> None:
    lists = made.sql("SELECT quantized_vectors(descriptors) FROM quantized ORDER BY image_id").fetchall()
    assert [None if one is None else [list(values) for values in one] for (one,) in lists] == codes_of(rows)
    found = made.sql(
        "SELECT image_id, position, descriptor FROM quantized_descriptors WHERE position < 2 ORDER BY ALL"
    ).fetchall()
    assert [(image_id, position, list(values)) for image_id, position, values in found] == [
        (row.image_id, i, row.descriptors[i].tolist())  # type: ignore[index]
        for row in rows
        for i in range(min(2, row.n_descriptors))
    ]


def test_exports_have_a_byte_for_each_code(made: FeatureStore, rows: list[Row], tmp_path: Path) -> None:
    codes = joined(rows)
    for name in ("npz", "npy", "parquet", "parquet-flat", "arrow", "bvecs"):
        made.export(tmp_path / name, name)
    notebook = np.load(tmp_path / "npz", allow_pickle=True)["descriptors_list"]
    assert [None if one is None else one.tolist() for one in notebook] == codes_of(rows)
    assert np.array_equal(np.load(tmp_path / "npy" / "codes.npy"), codes)
    blobs = pq.read_table(tmp_path / "parquet")["descriptors"].to_pylist()
    assert [None if blob is None else len(blob) for blob in blobs] == [
        None if row.descriptors is None else row.descriptors.size for row in rows
    ]
    assert pq.read_metadata(tmp_path / "parquet").metadata[b"dtype"] == b"uint8"
    flat = pq.read_table(tmp_path / "parquet-flat")["descriptor"].combine_chunks().flatten()
    assert np.array_equal(flat.to_numpy().reshape(-1, DIM), codes)
    vectors = np.fromfile(tmp_path / "bvecs", np.uint8).reshape(-1, 4 + DIM)
    assert np.array_equal(vectors[:, 4:], codes)


def test_the_exported_model_says_how_large_codes_are(
    made: FeatureStore, finished: FeatureStore, rows: list[Row], tmp_path: Path
) -> None:
    made.export(tmp_path / "model.npz", "model")
    made.export(tmp_path / "older.npz", "model", variant=variant_of(finished))
    with np.load(tmp_path / "model.npz") as model, np.load(tmp_path / "older.npz") as older:
        assert "largest_code" not in older.files
        codes = joined(rows)
        floats = model["low"] + codes / model["largest_code"] * (model["high"] - model["low"])
    assert np.allclose(floats, made.dequantize(codes), atol=1e-3)


@pytest.mark.parametrize(("name", "file"), [("colmap", "database.db"), ("hloc", "features.h5")])
def test_formats_of_extract_do_not_care(made: FeatureStore, tmp_path: Path, name: str, file: str) -> None:
    if name == "hloc":
        pytest.importorskip("h5py", reason="h5py is an optional dependency")
    made.export(tmp_path / file, name, where=f"filename = '{NAME}'")
    assert (tmp_path / file).stat().st_size > 0
    with pytest.raises(QueryError, match=f"^{name} holds descriptors of extract, and none of quantize"):
        made.export(tmp_path / "codes", name, stage="quantize")


def test_codes_of_another_variant_are_decoded_by_its_bits(made: FeatureStore, finished: FeatureStore) -> None:
    older, codes = variant_of(finished), finished.descriptors(NAME)
    assert np.array_equal(made.descriptors(NAME, variant=older), codes)
    assert np.array_equal(made.dequantize(codes, variant=older), finished.dequantize(codes))
    with pytest.raises(QueryError, match=r"^dequantize takes codes of 4 bits, 0 to 15, and one of these is 16; codes"):
        made.dequantize(np.full((1, DIM), 16, np.uint8))


def test_words_are_those_of_the_values(made: FeatureStore) -> None:
    (path,) = (made.path / "models" / "fit_words").rglob("*.npz")
    model = read_arrays(path)[0]
    assert model["largest_code"] == 15
    values = made.dequantize(made.descriptors(NAME))
    of = assign(values, model["cells"], model["words"], model["starts"])
    (row,) = (row for row in rows_of(made, "words") if row.filename == NAME)
    assert row.extra["word"] == of.tolist()
    assert np.array_equal(row.descriptors, signatures(values, model["words"], of, model["rotation"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["exact", "index"])
def test_a_crop_is_found(made: FeatureStore, samples: Samples, method: Any) -> None:
    if method == "index":
        pytest.importorskip("faiss", reason="faiss is an optional dependency")
    pixels = cv2.imread(str(samples.images / NAME))
    assert pixels is not None
    height, width = pixels.shape[:2]
    crop = np.ascontiguousarray(pixels[height // 5 : -height // 5, width // 5 : -width // 5])
    hit = made.search(crop, method=method).hits[0]
    assert (hit.filename.split("/")[0], hit.status) == ("china", "found")


def test_it_is_verified_rebuilt_and_merged_as_any_store(
    store: FeatureStore, finished: FeatureStore, tmp_path: Path
) -> None:
    assert store.verify(deep=True).problems == []
    query = "SELECT stage, chunk_id, variant, payload, checksum FROM partitions ORDER BY ALL"
    before = store.sql(query).fetchall()
    for path in store.path.glob("catalog.duckdb*"):
        path.unlink()
    store.rebuild()
    assert store.sql(query).fetchall() == before
    assert store.run(workers=0) == []
    other = copy(finished, tmp_path / "other")
    (other.path / "featurestore.toml").write_bytes((store.path / "featurestore.toml").read_bytes())
    other.merge(store.path)
    assert other.run(workers=0) == []
    assert np.array_equal(other.matrix().codes, store.matrix().codes)


def test_what_was_pruned_is_made_again(store: FeatureStore, rows: list[Row]) -> None:
    store.prune("words")
    pruned = manifests(store, "quantize")
    assert {(one["dtype"], one["format"], one["pruned"]) for one in pruned} == {("uint4", 3, True)}
    assert store.verify(deep=True).problems == []
    for stage in ("extract", "project", "quantize"):
        store.run(stage, workers=0)
    assert codes_of(rows_of(store, "quantize")) == codes_of(rows)


def test_back_at_8_bits_nothing_is_missing(store: FeatureStore, finished: FeatureStore) -> None:
    change_recipe(store, {"fit_pca": {"n_components": 64}})
    configure(store, "quantize", bits=8)
    assert variant_of(store) == variant_of(finished)
    assert store.run("quantize", workers=0) == []
    assert np.array_equal(store.matrix().codes, finished.matrix().codes)
