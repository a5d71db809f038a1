"""Every format is read back by what its users read it with, and holds what `load` gives."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from featurestore import FeatureStore
from featurestore.cli import main
from featurestore.cli.program import cli
from featurestore.errors import NotEnoughSpace, NotReady, OutputError, QueryError
from featurestore.exchange.exporters.pickle_writer import ObjectArray
from featurestore.system import memory
from tests.conftest import TOP
from tests.notebook import write_chunk
from tests.small import context_of, rows_of

STAGES = pytest.mark.parametrize("stage", ["extract", "project", "quantize"])


def expected(store: FeatureStore, stage: str = "quantize") -> list[NDArray[Any] | None]:
    return [row.descriptors for row in rows_of(store, stage)]


def equal(found: list[Any], wanted: list[NDArray[Any] | None]) -> None:
    assert [one is None for one in found] == [one is None for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        if other is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def filenames(store: FeatureStore) -> list[str]:
    return [name for (name,) in store.sql("SELECT filename FROM images ORDER BY image_id").fetchall()]


# npz


@STAGES
def test_npz_is_what_the_notebook_s_code_reads(finished: FeatureStore, tmp_path: Path, stage: str) -> None:
    finished.export(tmp_path / "codes.npz", "npz", stage=stage)
    with np.load(tmp_path / "codes.npz", allow_pickle=True) as file:
        assert sorted(file.files) == ["descriptors_list", "filenames"]
        descriptors, filenames_ = file["descriptors_list"], file["filenames"]
    assert (descriptors.dtype, filenames_.dtype) == (object, object)
    assert (descriptors.ndim, filenames_.ndim) == (1, 1)
    equal(descriptors.tolist(), expected(finished, stage))
    assert filenames_.tolist() == filenames(finished)
    assert all(one.flags.c_contiguous and one.dtype.isnative for one in descriptors if one is not None)


def test_npz_has_one_dimension_even_when_all_shapes_are_equal(finished: FeatureStore, tmp_path: Path) -> None:
    finished.export(tmp_path / "codes.npz", "npz", where="filename = 'china/whole-000.jpg'")
    with np.load(tmp_path / "codes.npz", allow_pickle=True) as file:
        assert file["descriptors_list"].shape == (1,)
        assert file["descriptors_list"][0].shape == (TOP, 64)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 1, 999, 1000, 1001, 2500])
def test_object_arrays_of_every_length(tmp_path: Path, n: int) -> None:
    objects: list[Any] = [
        [None, "mönet/ß.jpg", np.full((i % 3, 4), i % 256, "u1"), np.full((2, 2), i, "<f4")][i % 4] for i in range(n)
    ]
    with (tmp_path / "objects.npy").open("wb") as file:
        array = ObjectArray(file, n)
        for one in objects:
            if one is None:
                array.none()
            else:
                array.text(one) if isinstance(one, str) else array.array(one)
        array.close()
    found = np.load(tmp_path / "objects.npy", allow_pickle=True)
    assert found.shape == (n,)
    for one, other in zip(found, objects, strict=True):
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other)


def test_an_npz_that_could_not_be_read_here_is_refused(
    finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000_000)
    with pytest.raises(NotEnoughSpace, match=r"can be read only as a whole, .* 1\.0 GB are free; export npy, which is"):
        finished.export(tmp_path / "codes.npz", "npz")
    assert names(tmp_path) == []
    finished.export(tmp_path / "codes", "npy")
    finished.export(tmp_path / "codes.npz", "npz", force=True)


# npy


@STAGES
def test_npy_is_mapped_into_memory(finished: FeatureStore, tmp_path: Path, stage: str) -> None:
    finished.export(tmp_path / "codes", "npy", stage=stage)
    codes = np.load(tmp_path / "codes" / "codes.npy", mmap_mode="r")
    offsets = np.load(tmp_path / "codes" / "offsets.npy")
    images = pd.read_parquet(tmp_path / "codes" / "images.parquet")
    assert isinstance(codes, np.memmap)
    matrix = finished.matrix(stage)
    np.testing.assert_array_equal(codes, matrix.codes)
    assert codes.dtype == matrix.codes.dtype
    np.testing.assert_array_equal(offsets, matrix.offsets)
    assert images["image_id"].tolist() == matrix.image_ids.tolist()
    assert images["filename"].tolist() == filenames(finished)
    assert images["n_descriptors"].tolist() == np.diff(offsets).tolist()
    assert images["photo"].iloc[0] == "china"
    assert images.set_index("filename")["status"]["broken.jpg"] == "truncated"
    assert "chunk_id" not in images


# parquet and arrow


def test_parquet_in_pandas(finished: FeatureStore, tmp_path: Path) -> None:
    finished.export(tmp_path / "codes.parquet", "parquet")
    frame = pd.read_parquet(tmp_path / "codes.parquet")
    blobs = [None if blob is None else np.frombuffer(blob, np.uint8).reshape(-1, 64) for blob in frame["descriptors"]]
    equal(blobs, expected(finished))
    assert frame["crop"].tolist() == [
        crop for (crop,) in finished.sql("SELECT crop FROM images ORDER BY image_id").fetchall()
    ]
    assert len(frame["x"][0]) == len(blobs[0]) if blobs[0] is not None else False


def test_parquet_in_duckdb(finished: FeatureStore, tmp_path: Path) -> None:
    finished.export(tmp_path / "codes.parquet", "parquet")
    query = f"""SELECT photo, sum(n_descriptors), sum(octet_length(descriptors)) // 64
                FROM '{tmp_path}/codes.parquet' GROUP BY ALL ORDER BY ALL"""
    own = """SELECT photo, sum(n_descriptors), sum(n_descriptors) FILTER (WHERE status = 'ok')
             FROM descriptor_counts JOIN images USING (image_id) WHERE stage = 'quantize' GROUP BY ALL ORDER BY ALL"""
    with duckdb.connect() as connection:
        assert connection.sql(query).fetchall() == finished.sql(own).fetchall()


@STAGES
def test_flat_parquet_in_duckdb_and_pandas(finished: FeatureStore, tmp_path: Path, stage: str) -> None:
    finished.export(tmp_path / "flat.parquet", "parquet-flat", stage=stage)
    codes = finished.matrix(stage).codes
    frame = pd.read_parquet(tmp_path / "flat.parquet")
    np.testing.assert_array_equal(np.stack(frame["descriptor"].tolist()), codes)
    assert frame["descriptor"][0].dtype == codes.dtype
    keypoints = [row.keypoints for row in rows_of(finished, stage) if row.keypoints is not None]
    for name in ("x", "octave"):
        np.testing.assert_array_equal(frame[name], np.concatenate([one[name] for one in keypoints]))
    with duckdb.connect() as connection:
        query = f"""SELECT filename, count(*), max(position) + 1 FROM '{tmp_path}/flat.parquet'
                    GROUP BY ALL ORDER BY min(image_id)"""
        found = connection.sql(query).fetchall()
        distance = f"""SELECT array_distance(descriptor::FLOAT[{codes.shape[1]}], descriptor::FLOAT[{codes.shape[1]}])
                       FROM '{tmp_path}/flat.parquet' LIMIT 1"""
        assert connection.sql(distance).fetchall() == [(0.0,)]
    counts = [
        (row.filename, row.n_descriptors, row.n_descriptors) for row in rows_of(finished, stage) if row.n_descriptors
    ]
    assert found == counts


def test_flat_parquet_without_keypoints(fresh: FeatureStore, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [(name, random.integers(0, 256, (3, 128)) if i % 2 else None) for i, name in enumerate(filenames(fresh))]
    write_chunk(tmp_path / "npz", images)
    fresh.import_npz(tmp_path / "npz")
    fresh.export(tmp_path / "flat.parquet", "parquet-flat", stage="extract")
    frame = pd.read_parquet(tmp_path / "flat.parquet")
    assert frame["x"].isna().all()
    assert frame["filename"].tolist() == [name for name, found in images if found is not None for _ in range(3)]
    fresh.export(tmp_path / "again.npz", "npz", stage="extract")
    with np.load(tmp_path / "again.npz", allow_pickle=True) as file:
        equal(file["descriptors_list"].tolist(), [None if one is None else one.astype(np.uint8) for _, one in images])


def test_arrow_is_mapped_into_memory(finished: FeatureStore, tmp_path: Path) -> None:
    finished.export(tmp_path / "codes.arrow", "arrow")
    before = pa.total_allocated_bytes()
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "codes.arrow"))).read_all()
    assert pa.total_allocated_bytes() - before < 100_000
    wanted = finished.load(columns=["filename", "status", "photo", "n_descriptors", "descriptors"], keypoints=True)
    assert table.select(wanted.column_names).equals(wanted)
    equal(FeatureStore.arrays(table), expected(finished))


def test_polars_reads_parquet_and_arrow(finished: FeatureStore, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed: pip install 'featurestore[polars]'")
    finished.export(tmp_path / "codes.parquet", "parquet")
    finished.export(tmp_path / "codes.arrow", "arrow")
    for frame in (polars.read_parquet(tmp_path / "codes.parquet"), polars.read_ipc(tmp_path / "codes.arrow")):
        assert frame["filename"].to_list() == filenames(finished)
        assert frame["descriptors"][0] == finished.descriptors(filenames(finished)[0]).tobytes()


# fvecs and bvecs


@STAGES
def test_fvecs(finished: FeatureStore, tmp_path: Path, stage: str) -> None:
    finished.export(tmp_path / "codes.fvecs", "fvecs", stage=stage)
    codes = finished.matrix(stage).codes
    # the reader that comes with the benchmarks' data sets (faiss/contrib/vecs_io.py)
    values = np.fromfile(tmp_path / "codes.fvecs", dtype="<i4")
    dim = int(values[0])
    assert dim == codes.shape[1]
    found = values.reshape(-1, dim + 1)
    assert (found[:, 0] == dim).all()
    np.testing.assert_array_equal(found[:, 1:].view("<f4"), codes)


@pytest.mark.parametrize("stage", ["extract", "quantize"])
def test_bvecs(finished: FeatureStore, tmp_path: Path, stage: str) -> None:
    finished.export(tmp_path / "codes.bvecs", "bvecs", stage=stage)
    codes = finished.matrix(stage).codes
    values = np.fromfile(tmp_path / "codes.bvecs", dtype=np.uint8)
    dim = int(values[:4].view("<i4")[0])
    found = values.reshape(-1, dim + 4)
    assert (found[:, :4].copy().view("<i4") == dim).all()
    np.testing.assert_array_equal(found[:, 4:], codes)


def test_bvecs_holds_bytes(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(
        QueryError, match=r"^bvecs holds bytes, and project holds float32, which would be lost; export fvecs"
    ):
        finished.export(tmp_path / "codes.bvecs", "bvecs", stage="project")


def test_faiss_reads_vecs_and_codes(finished: FeatureStore, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed: pip install faiss-cpu")
    vecs_io = pytest.importorskip("faiss.contrib.vecs_io", reason="this faiss has no contrib.vecs_io")
    finished.export(tmp_path / "codes.fvecs", "fvecs")
    codes = finished.matrix().codes
    vectors = vecs_io.fvecs_read(str(tmp_path / "codes.fvecs"))
    np.testing.assert_array_equal(vectors, codes)
    index = faiss.IndexFlatL2(64)
    index.add(np.ascontiguousarray(vectors))
    distances, _ = index.search(np.ascontiguousarray(vectors[:5]), 1)
    assert (distances == 0).all()


# models


def test_the_model_makes_the_codes(finished: FeatureStore, tmp_path: Path) -> None:
    finished.export(tmp_path / "model.npz", "model")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        model = {name: file[name] for name in file.files}
    shapes = {name: (array.shape, array.dtype.name) for name, array in model.items()}
    assert shapes == {
        "mean": ((128,), "float64"),
        "components": ((64, 128), "float64"),
        "low": ((64,), "float32"),
        "high": ((64,), "float32"),
    }
    sift, codes = (finished.descriptors("flower/left-000.jpg", stage) for stage in ("extract", "quantize"))
    projected = (sift - model["mean"]) @ model["components"].T
    strongest = projected[np.argsort(-np.linalg.norm(projected, axis=1), kind="stable")[:TOP]].astype(np.float32)
    scaled = np.clip((strongest - model["low"]) / (model["high"] - model["low"]), 0, 1)
    difference = np.rint(scaled * 255) - codes
    assert np.abs(difference).max() <= 1, "the order of the operations differs, and so may the last bit"
    assert (difference == 0).mean() > 0.999


def test_the_pickle_does_what_the_notebook_does_with_it(finished: FeatureStore, tmp_path: Path) -> None:
    import joblib

    finished.export(tmp_path / "ipca_final.pkl", "joblib")
    estimator = joblib.load(tmp_path / "ipca_final.pkl")
    sift, projected = (finished.descriptors("flower/left-000.jpg", stage) for stage in ("extract", "project"))
    found = estimator.transform(sift.astype(np.float32))
    order = np.argsort(-np.linalg.norm(found, axis=1), kind="stable")[:TOP]
    np.testing.assert_allclose(found[order], projected, atol=1e-2)
    (status,) = [stage for stage in finished.status().stages if stage.stage == "fit_pca"]
    assert status.model is not None
    ratio = status.model.summary["explained_variance_ratio"]
    assert estimator.explained_variance_ratio_.sum() == pytest.approx(ratio)
    estimator.partial_fit(sift.astype(np.float32))  # and it can go on


def test_models_are_of_no_images(finished: FeatureStore, tmp_path: Path) -> None:
    for choice in ({"where": "subset = 'train'"}, {"stage": "project"}):
        with pytest.raises(QueryError, match=r"^model holds models and no images; leave out where and stage"):
            finished.export(tmp_path / "model.npz", "model", **choice)  # type: ignore[arg-type]


def test_a_model_has_to_be_there(fresh: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"^the model of fit_pca has not been fitted yet; run: featurestore run"):
        fresh.export(tmp_path / "model.npz", "model")


def test_models_of_an_older_variant(store: FeatureStore, tmp_path: Path) -> None:
    store.export(tmp_path / "before.npz", "model")
    (variant,) = {v for (v,) in store.sql("SELECT variant FROM partitions WHERE stage = 'quantize'").fetchall()}
    recipe = store.path / "featurestore.toml"
    recipe.write_text(recipe.read_text().replace("margin = 0.01", "margin = 0.02"))
    with pytest.raises(NotReady, match=r"^the model of fit_scale has not been fitted yet"):
        store.export(tmp_path / "after.npz", "model")
    store.export(tmp_path / "again.npz", "model", variant=variant[:6])
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "before.npz").read_bytes()


# what is missing, and where it goes


@pytest.fixture
def lacking(store: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store with an image that no stage was run on."""
    folder = Path(context_of(store).images)
    lines = (folder / "dataset.csv").read_text(encoding="utf-8")
    (tmp_path / "more.csv").write_text(f"{lines}new.jpg,train,none,whole,0\n", encoding="utf-8")
    store.ingest(tmp_path / "more.csv")
    return store


@pytest.mark.parametrize("name", ["npz", "npy", "parquet", "parquet-flat", "arrow", "fvecs"])
def test_part_of_a_collection_is_never_taken_for_the_whole(lacking: FeatureStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(NotReady, match=r"1 of the chosen images lack quantize: .*chunk 4.*--allow-missing"):
        lacking.export(tmp_path / "out", name)
    assert not (tmp_path / "out").exists()
    assert lacking.export(tmp_path / "out", name, allow_missing=True).n_images == 27


def test_what_is_missing_is_none(lacking: FeatureStore, tmp_path: Path) -> None:
    lacking.export(tmp_path / "codes.npz", "npz", allow_missing=True)
    with np.load(tmp_path / "codes.npz", allow_pickle=True) as file:
        assert file["descriptors_list"][-1] is None
        assert file["filenames"][-1] == "new.jpg"
    lacking.export(tmp_path / "codes.parquet", "parquet", allow_missing=True)
    assert pd.read_parquet(tmp_path / "codes.parquet")["status"].iloc[-1] == "pending"


def test_a_folder_with_other_files_is_not_replaced(finished: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"out holds thesis\.tex, which no export wrote, so it is not replaced"):
        finished.export(tmp_path / "out", "npy", force=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"


def test_an_empty_folder_is_replaced_only_when_asked(finished: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        finished.export(tmp_path / "out", "npy")
    finished.export(tmp_path / "out", "npy", force=True)
    assert names(tmp_path / "out") == ["codes.npy", "images.parquet", "offsets.npy"]


def test_a_place_that_is_not_there(finished: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't be written: .*/none is not a folder; make it, or choose another"):
        finished.export(tmp_path / "none" / "out.npz", "npz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_is_forbidden(finished: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"can't be written: Permission denied; choose another place"):
        finished.export(tmp_path / "closed" / "out.npz", "npz")


def test_a_store_that_can_only_be_read_is_exported(finished: FeatureStore, tmp_path: Path) -> None:
    store = shutil.copytree(finished.path, tmp_path / "store")
    for path in [store, *store.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert FeatureStore(store).export(tmp_path / "codes.bvecs", "bvecs").n_images == 26
    finally:
        for path in [store, *store.rglob("*")]:
            path.chmod(0o755)


# the command line


def test_the_command_line(finished: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "flat.parquet"
    arguments = ["export", str(finished.path), str(out), "--format", "parquet", "--flat", "--where", "subset = 'test'"]
    cli.main(arguments, standalone_mode=False)
    said = capsys.readouterr().out
    assert said.startswith("export     5 images, ")
    assert f"as parquet-flat in {out}" in said
    assert len(pd.read_parquet(out)) == len(finished.matrix(where="subset = 'test'").codes)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--format", "npz", "--flat"], 2, "--flat goes with --format parquet"),
        (["--format", "csv"], 2, "Invalid value for '--format'"),
        ([], 2, "Missing option '--format'"),
        (["--format", "npz", "--where", "nothing = 1"], 1, "error: where 'nothing = 1' can't be evaluated"),
        (["--format", "npz", "--stage", "fit_pca"], 1, "error: there are no descriptors of 'fit_pca'"),
        (["--format", "npz", "--variant", "0000"], 1, "error: quantize has no variant '0000'"),
    ],
)
def test_what_the_command_line_refuses(
    finished: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["featurestore", "export", str(finished.path), str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert says in capsys.readouterr().err
    assert names(tmp_path) == []
