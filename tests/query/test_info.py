"""Everything about one image."""

from __future__ import annotations

import json

from featurestore import FeatureStore
from tests.small import context_of

NAME = "china/whole-000.jpg"


def edit_recipe(store: FeatureStore, old: str, new: str) -> None:
    path = store.path / "featurestore.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_one_image(finished: FeatureStore) -> None:
    info = finished.info(NAME)
    assert (info.image_id, info.filename, info.subset, info.chunk_id) == (0, NAME, "train", 0)
    assert info.dataset == {"photo": "china", "crop": "whole", "rotation": 0}
    assert [(s.stage, s.status, s.current) for s in info.stages] == [
        ("extract", "ok", True),
        ("project", "ok", True),
        ("quantize", "ok", True),
    ]
    for stage in info.stages:
        assert stage.n_descriptors == len(finished.descriptors(NAME, stage.stage))
        assert stage.partition is not None
        assert (finished.path / stage.partition).is_file()
    models = [(m["stage"], m["model_id"]) for m in finished.sql("SELECT * FROM models").arrow().to_pylist()]
    assert sorted(info.trained) == sorted(models)
    assert [s.model_id for s in info.stages] == [None, dict(models)["fit_pca"], dict(models)["fit_scale"]]
    assert json.loads(json.dumps(info.as_dict()))["dataset"]["photo"] == "china"


def test_an_image_that_failed(finished: FeatureStore) -> None:
    info = finished.info("broken.jpg")
    assert {s.status for s in info.stages} == {"truncated"}
    assert {s.error is None for s in info.stages} == {False}
    assert info.trained == ()


def test_before_anything_was_run(fresh: FeatureStore) -> None:
    stages = fresh.info(NAME).stages
    assert [(s.status, s.error) for s in stages] == [
        ("pending", "never run"),
        ("pending", "waits for fit_pca"),
        ("pending", "waits for fit_scale"),
    ]


def test_variants_of_older_recipes_come_last(store: FeatureStore) -> None:
    before = store.info(NAME).stages
    edit_recipe(store, "top = 200", "top = 100")
    stages = store.info(NAME).stages
    assert [(s.stage, s.status, s.current) for s in stages] == [
        ("extract", "ok", True),
        ("project", "pending", True),
        ("quantize", "pending", True),
        ("project", "ok", False),
        ("quantize", "ok", False),
    ]
    assert [s.variant for s in stages[3:]] == [s.variant for s in before[1:]]


def test_a_pruned_partition(store: FeatureStore) -> None:
    with context_of(store).catalog.transaction() as connection:
        connection.execute("UPDATE partitions SET pruned = true WHERE stage = 'extract'")
    extract = store.info(NAME).stages[0]
    assert (extract.status, extract.partition) == ("ok", None)
    assert extract.n_descriptors > 0
