"""Manifests and model files that are not what they should be: one clear line, and no memory reserved on their word."""

from __future__ import annotations

import json
import resource
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import FeatureStore
from featurestore.catalog import check_partition, describe_model, describe_partition
from featurestore.config import variant_of
from featurestore.errors import CorruptFile, FormatError
from featurestore.storage import PartitionFile, Root, model_id, model_name, parse_manifest, read_arrays, write_arrays
from tests.tampering import as_npy, npy, our_metadata, partition_manifest, rewrite_partition, write_npz

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="session")
def quantized(finished: FeatureStore) -> Path:
    """One honest partition. Not to be changed."""
    return sorted((finished.path / "partitions" / "quantize").rglob("*.parquet"))[0]


@pytest.fixture(scope="session")
def model(finished: FeatureStore) -> Path:
    """One honest model. Not to be changed."""
    return next((finished.path / "models" / "fit_pca").rglob("*.npz"))


def placed(path: Path, store: Path, into: Path) -> tuple[Root, str, Path]:
    """Copy one file of a store to its place in another folder."""
    name = path.relative_to(store).as_posix()
    target = into / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
    return Root(into), name, target


def read_whole(root: Root, name: str) -> None:
    with suppress(CorruptFile, FormatError):
        check_partition(root, name)


@SHARED
@given(entry=st.sampled_from(["stage", "version", "variant", "chunk_id", "n_images", "payload"]), value=JSON)
def test_no_entry_of_a_manifest_is_believed(
    finished: FeatureStore, quantized: Path, tmp_path: Path, entry: str, value: Any
) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    honest = partition_manifest(path)
    rewrite_partition(path, {"featurestore": json.dumps({**honest, entry: value})})
    if value != honest[entry] or type(value) is not type(honest[entry]):
        with pytest.raises((CorruptFile, FormatError)):
            check_partition(root, name)
    else:
        check_partition(root, name)


@SHARED
@given(text=st.binary() | JSON.map(lambda value: json.dumps(value).encode()), key=st.sampled_from(["dim", "dtype"]))
def test_metadata_that_is_anything_is_one_line(
    finished: FeatureStore, quantized: Path, tmp_path: Path, text: bytes, key: str
) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    rewrite_partition(path, {"featurestore": text})
    with pytest.raises((CorruptFile, FormatError), match=r"can't be read as a partition|of partition format"):
        PartitionFile(path)
    root, name, path = placed(quantized, finished.path, tmp_path)
    rewrite_partition(path, {key: text})
    read_whole(root, name)


@SHARED
@given(data=st.data())
def test_a_partition_with_other_bytes_is_refused_or_whole(
    finished: FeatureStore, quantized: Path, tmp_path: Path, data: st.DataObject
) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    content = bytearray(path.read_bytes())
    # The footer is where the structure is: most of the mutations go there.
    start = data.draw(st.sampled_from([0, len(content) - 6000]))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(start, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 1, len(content) // 2]))])
    read_whole(root, name)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stage": "../.."}, "has a manifest whose stage is '../..'"),
        ({"chunk_id": -1}, "has a manifest whose chunk_id is -1"),
        ({"chunk_id": 3}, "should be called partitions/quantize/"),
        ({"parameters": {}}, r"says it is of variant \w+, and its parameters make it \w+"),
        ({"n_images": 3}, "does not have one row for each of the images 0 to 2, in order"),
        ({"n_images": None}, "has a manifest whose n_images is None"),
        ({"input_payload": "a" * 16}, "does not hold the rows that its name promises"),
        ({"format": 4}, "is of partition format 4, and this version knows 3; use a newer featurestore"),
        ({"pruned": True}, "does not say whether it is a whole partition"),
    ],
)
def test_what_a_manifest_lies_about_is_said(
    finished: FeatureStore, quantized: Path, tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    rewrite_partition(path, {"featurestore": json.dumps({**partition_manifest(path), **change})})
    with pytest.raises((CorruptFile, FormatError), match=text):
        check_partition(root, name)


def test_a_manifest_without_an_entry_is_refused(finished: FeatureStore, quantized: Path, tmp_path: Path) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    manifest = partition_manifest(path)
    del manifest["origin"]
    rewrite_partition(path, {"featurestore": json.dumps(manifest)})
    with pytest.raises(CorruptFile, match="has a manifest without origin"):
        describe_partition(root, name)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"dtype": "O"}, "says that its descriptors are 64 values of 'O'"),
        ({"dim": "0"}, "says that its descriptors are 0 values of 'uint8'"),
        ({"dim": "32"}, "does not hold the rows that its name promises"),
        ({"dim": "63"}, "is not a whole number of 63-value descriptors"),
    ],
)
def test_a_wrong_shape_is_refused(
    finished: FeatureStore, quantized: Path, tmp_path: Path, metadata: dict[str, str], text: str
) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    rewrite_partition(path, metadata)
    with pytest.raises(CorruptFile, match=text):
        check_partition(root, name)


def test_a_wrong_count_is_refused(finished: FeatureStore, quantized: Path, tmp_path: Path) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    table, metadata = pq.read_table(path), our_metadata(path)
    place = table.column_names.index("n_descriptors")
    table = table.set_column(place, "n_descriptors", pc.add(table["n_descriptors"], pa.scalar(1, pa.int32())))
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(CorruptFile, match="has images with another number of descriptors than it says"):
        check_partition(root, name)


def test_a_partition_without_a_column_is_refused(finished: FeatureStore, quantized: Path, tmp_path: Path) -> None:
    _, _, path = placed(quantized, finished.path, tmp_path)
    table = pq.read_table(path).drop_columns(["descriptors"]).replace_schema_metadata(our_metadata(path))
    pq.write_table(table, path)
    with pytest.raises(CorruptFile, match="has no column descriptors of binary"):
        PartitionFile(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no manifest"),
        ("[" * 100_000, "the manifest is nested too deeply"),
        ('["\\ud800"]', "surrogates not allowed"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ("3", "the manifest is not a JSON object"),
        ("\xff", "Expecting value"),
    ],
)
def test_json_that_is_no_manifest_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_manifest(text)


@SHARED
@given(data=st.data())
def test_a_model_with_other_bytes_is_refused_or_whole(model: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(model.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.npz"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 1, len(content) // 2]))])
    with suppress(CorruptFile, FormatError):
        read_arrays(path)


@SHARED
@given(
    descr=st.sampled_from(["<f8", "|u1", "|O", "<M8[D]", "|V9", "<U5", "nonsense", "<f8,<i4"]),
    shape=st.lists(st.integers(-2, 2**62), max_size=4).map(tuple) | st.text(max_size=5) | st.integers(),
    size=st.integers(0, 64),
)
def test_no_memory_is_reserved_for_what_a_header_claims(tmp_path: Path, descr: str, shape: Any, size: int) -> None:
    path = tmp_path / "model.npz"
    write_npz(path, {"a.npy": npy(descr, shape, bytes(size)), "manifest.npy": as_npy(np.zeros(2, np.uint8))})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptFile, match="can't be read as a model"):
        read_arrays(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    write_npz(path, {"a.npy": npy("|u1", (300 << 20,), bytes(300 << 20))})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CorruptFile, match="it claims to hold more than 256 MiB"):
        read_arrays(path)


def test_a_model_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    write_npz(path, {"run_me.py": b"print()"})
    with pytest.raises(CorruptFile, match="it holds something other than arrays"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"parent_id": 3}, "has a manifest whose parent_id is 3"),
        ({"summary": None}, "has a manifest whose summary is None"),
        ({"reads_variant": "0" * 16}, "says it is of variant"),
    ],
)
def test_what_a_model_lies_about_is_said(
    finished: FeatureStore, model: Path, tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    root, name, path = placed(model, finished.path, tmp_path)
    arrays, manifest = read_arrays(path)
    write_arrays(path, arrays, {**manifest, **change})
    with pytest.raises(CorruptFile, match=text):
        describe_model(root, name)


def test_a_model_of_other_arrays_is_refused(finished: FeatureStore, model: Path, tmp_path: Path) -> None:
    root, name, path = placed(model, finished.path, tmp_path)
    arrays, manifest = read_arrays(path)
    write_arrays(path, {**arrays, "mean_": arrays["mean_"] + 1}, manifest)
    with pytest.raises(CorruptFile, match="does not hold the arrays that its name promises"):
        describe_model(root, name)


def test_a_model_that_does_not_say_what_it_learnt_is_refused(tmp_path: Path) -> None:
    arrays = {"low": np.zeros(3), "images": np.zeros((2, 2))}
    variant = variant_of("fit_scale", 1, {}, reads="")
    manifest = {
        **{"stage": "fit_scale", "version": 1, "parameters": {}, "variant": variant, "reads_variant": ""},
        **{"versions": {}, "parent_id": None, "generation": 0, "partial": False, "summary": {}},
    }
    name = model_name("fit_scale", variant, model_id(variant, arrays))
    (tmp_path / name).parent.mkdir(parents=True)
    write_arrays(tmp_path / name, arrays, manifest)
    with pytest.raises(CorruptFile, match="does not say which images it learnt from"):
        describe_model(Root(tmp_path), name)


@pytest.mark.parametrize(
    ("column", "values", "text"),
    [
        ("status", pa.nulls(8, pa.string()), "has rows without status"),
        ("n_descriptors", pa.nulls(8, pa.int32()), "has rows without n_descriptors"),
        ("n_descriptors", pa.array([-1] * 8, pa.int32()), "has rows with a negative number of descriptors"),
    ],
)
def test_rows_that_can_not_be_are_refused(
    finished: FeatureStore, quantized: Path, tmp_path: Path, column: str, values: pa.Array, text: str
) -> None:
    root, name, path = placed(quantized, finished.path, tmp_path)
    table, metadata = pq.read_table(path), our_metadata(path)
    table = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(CorruptFile, match=text):
        describe_partition(root, name)
