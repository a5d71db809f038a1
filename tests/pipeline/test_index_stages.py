"""The stages of an index in a store: opt-in, and equal for any number of workers."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.stages.codebook import assign, signatures
from featurestore.storage import read_arrays
from tests.cluster import cluster_of_threads
from tests.small import configure, copy, invoke, make_small


@pytest.fixture(scope="module")
def indexed(finished: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The finished store with the stages of an index. Not to be changed."""
    store = copy(finished, tmp_path_factory.mktemp("indexed") / "store")
    store.index()
    store.run(workers=0)
    return store


def payloads(store: FeatureStore) -> list[tuple[str, int, str]]:
    rows = store.sql("SELECT stage, chunk_id, variant, payload FROM partitions ORDER BY ALL").fetchall()
    models = store.sql("SELECT stage, 0, variant, model_id FROM models ORDER BY ALL").fetchall()
    return [*rows, *models]


def test_an_index_is_added_to_a_finished_store_and_nothing_becomes_stale(store: FeatureStore) -> None:
    before = payloads(store)
    store.prune("quantize")  # the codes are enough
    result = invoke("index", store.path)
    assert result.output.startswith("added fit_words and words to the recipe; compute what is missing with: ")
    assert [done.stage for done in store.run(workers=0)] == ["fit_words", "words"]
    assert set(before) <= set(payloads(store))
    again = invoke("index", store.path)
    assert again.output.startswith("the recipe has the stages of an index already; ")
    assert store.run(workers=0) == []
    assert store.status().stages[-1].stage == "words"


def test_words_are_those_of_the_codes(indexed: FeatureStore) -> None:
    (path,) = (indexed.path / "models" / "fit_words").rglob("*.npz")
    model = read_arrays(path)[0]
    assert len(model["words"]) >= 16
    for row in indexed.load("words", columns=["filename", "status", "descriptors", "word"]).to_pylist():
        codes = indexed.descriptors(row["filename"]) if row["status"] == "ok" else np.empty((0, 64), np.uint8)
        if not len(codes):
            assert not row["word"]
            continue
        values = indexed.dequantize(codes)
        of = assign(values, model["cells"], model["words"], model["starts"])
        assert row["word"] == of.tolist()
        assert row["descriptors"] == signatures(values, model["words"], of, model["rotation"]).tobytes()


@pytest.mark.parametrize("on_cluster", [False, pytest.param(True, marks=pytest.mark.cluster)])
def test_workers_and_engines_make_no_difference(thirteen: FeatureStore, tmp_path: Path, on_cluster: bool) -> None:
    one = copy(thirteen, tmp_path / "one")
    one.index()
    configure(one, "fit_words", sample_size=200)  # a tenth, so that samples of several workers are thinned
    two = copy(one, tmp_path / "two")
    one.run(workers=1)
    with cluster_of_threads(2) if on_cluster else nullcontext() as scheduler:
        two.run(workers=None if on_cluster else 2, scheduler=scheduler)
    assert payloads(one) == payloads(two)
    assert {stage for stage, *_ in payloads(one)} >= {"fit_words", "words"}


def test_codes_stay_the_codes_and_searching_goes_on(finished: FeatureStore, indexed: FeatureStore) -> None:
    name = "china/whole-000.jpg"
    assert np.array_equal(indexed.descriptors(name), finished.descriptors(name))
    assert indexed.search(name, method="exact").as_dict()["hits"] == finished.search(name).as_dict()["hits"]
    assert indexed.verify().problems == []


def test_a_catalog_is_rebuilt_with_the_index(indexed: FeatureStore, tmp_path: Path) -> None:
    store = copy(indexed, tmp_path / "store")
    before = payloads(store)
    for path in store.path.glob("catalog.duckdb*"):
        path.unlink()
    store.rebuild()
    assert payloads(store) == before
    assert store.run(workers=0) == []


def test_init_with_an_index(tmp_path: Path) -> None:
    make_small(tmp_path / "images", n=2)
    dataset = tmp_path / "images" / "dataset.csv"
    result = invoke("init", tmp_path / "store", "--images", tmp_path / "images", "--dataset", dataset, "--index")
    assert result.exit_code == 0
    text = (tmp_path / "store" / "featurestore.toml").read_text(encoding="utf-8")
    assert text.index("[quantize]") < text.index("[fit_words]") < text.index("[words]")
