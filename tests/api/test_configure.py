"""Parameters of the recipe, read and changed, and what extract makes of a new image."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.errors import ConfigError, QueryError
from tests.conftest import TOP, Samples

NAME = "china/whole-000.jpg"


def test_parameters_are_those_of_the_recipe_with_its_defaults(finished: FeatureStore) -> None:
    assert finished.parameters("project")["top"] == TOP
    assert finished.parameters("project")["high_percentile"] == 99.9
    assert finished.parameters("store")["chunk_size"] == 8
    with pytest.raises(QueryError, match="there is no stage 'nothing' in the recipe; its tables are store, extract"):
        finished.parameters("nothing")


def test_a_change_of_parameters_keeps_every_other_byte(store: FeatureStore) -> None:
    path = store.path / "featurestore.toml"
    before = path.read_text() + "\n# mine\n"
    path.write_text(before)
    store.configure({"project": {"top": 123, "select": "mix"}})
    assert (store.parameters("project")["top"], store.parameters("project")["select"]) == (123, "mix")
    after = path.read_text()
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if len(set(pair)) > 1]
    assert [one.partition(" = ")[0] for _, one in changed] == ["top", "select"]
    assert all(old.partition("#")[2] == new.partition("#")[2] for old, new in changed)


@pytest.mark.parametrize(
    ("stage", "name", "value", "says"),
    [
        ("nothing", "top", 1, "there is no stage 'nothing' in the recipe; its stages are extract"),
        ("project", "nothing", 1, "has no key 'nothing'"),
        ("project", "select", "best", "select is 'best', and can be norm"),
        ("project", "top", 0, "should be at least 1"),
    ],
)
def test_a_change_that_can_not_be_read_is_refused(
    finished: FeatureStore, stage: str, name: str, value: object, says: str
) -> None:
    path = finished.path / "featurestore.toml"
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=says):
        finished.configure({stage: {name: value}})
    assert path.read_bytes() == before


def test_a_new_image_is_extracted_as_a_run_extracts_it(finished: FeatureStore, samples: Samples) -> None:
    for given in (samples.images / NAME, finished.pixels(NAME)):
        descriptors, keypoints = finished.extracted(given)
        np.testing.assert_array_equal(descriptors, finished.descriptors(NAME, "extract"))
        np.testing.assert_array_equal(keypoints, finished.keypoints(NAME, "extract"))
