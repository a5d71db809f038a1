"""The identities of stores that were made by earlier versions: an upgrade makes nothing of them stale."""

from __future__ import annotations

from typing import Any

import pytest

from featurestore.stages import flow_from

DEFAULT = {
    "extract": "46cf10c518c3240d",
    "fit_pca": "de0dc22e3f768821",
    "project": "1c3fea8b3c63bf6e",
    "fit_scale": "037a86399d1ad5ff",
    "quantize": "5638b940f953432c",
}
RECIPES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, DEFAULT),
    ({"extract": {"extractor": "rootsift"}}, {**DEFAULT, "extract": "3ac6ba62520a06f1"}),
    (
        {"extract": {"sift": {"contrast_threshold": 0.02, "nfeatures": 500}}},
        {**DEFAULT, "extract": "68ff52241dc869eb"},
    ),
    (
        {"extract": {"extractor": "rootsift", "sift": {"sigma": 1.2}, "max_pixels": 100, "truncated": "keep"}},
        {**DEFAULT, "extract": "5ffaa51377a4bd91"},
    ),
    ({"extract": {"sift": {"enable_precise_upscale": False}}}, DEFAULT),
    ({"fit_pca": {"solver": "incremental"}}, DEFAULT),
    ({"project": {"select": "norm"}}, DEFAULT),
    ({"quantize": {"bits": 8}}, DEFAULT),
    *(
        ({stage: {"compression": kind} for stage in ("extract", "project", "quantize")}, DEFAULT)
        for kind in ("none", "zstd")
    ),
    ({"fit_pca": {"solver": "covariance"}}, {**DEFAULT, "fit_pca": "b5d976015a45a60d"}),
]


def test_each_selection_is_a_variant_of_its_own() -> None:
    recipes = [{}, *({"project": {"select": select}} for select in ("scale", "response", "mix", "grid"))]
    found = {
        stage.variant(reads="r", model_id="m")
        for recipe in recipes
        for stage in flow_from(recipe)
        if stage.name == "project"
    }
    assert len(found) == 5


@pytest.mark.parametrize(("recipe", "variants"), RECIPES, ids=str)
def test_variants_are_those_of_earlier_versions(recipe: dict[str, Any], variants: dict[str, str]) -> None:
    found = {
        stage.name: stage.variant(reads="" if stage.reads == "images" else "r", model_id="m" if stage.model else None)
        for stage in flow_from(recipe)
    }
    assert found == variants
