"""Matching on the command line."""

from __future__ import annotations

import json
from typing import Any

from featurestore import FeatureStore
from featurestore.errors import QueryError
from tests.small import invoke

NAME = "china/whole-000.jpg"


def test_a_match_is_told_in_two_lines(finished: FeatureStore) -> None:
    result = invoke("match", finished.path, "china/left-090.jpg", NAME)
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first.startswith("found; ")
    assert " matches agree" in first
    assert second.startswith("scale ")
    assert "the query's corners: (" in second


def test_no_match_is_an_answer(finished: FeatureStore) -> None:
    result = invoke("match", finished.path, NAME, "flower/whole-000.jpg")
    assert (result.exit_code, len(result.output.splitlines())) == (0, 1)
    assert result.output.startswith("no match; ")


def test_json_has_the_numbers_of_the_method(finished: FeatureStore, samples: Any) -> None:
    path = str(samples.images / NAME)
    result = invoke("match", finished.path, path, NAME, "--json", "--min-inliers", "5")
    expected = finished.match(path, NAME, min_inliers=5).as_dict()
    assert json.loads(result.output) == {"query": path, "image": NAME, **expected}
    assert len(expected["matches"]) >= expected["inliers"] > 10


def test_an_error_is_one_line(finished: FeatureStore) -> None:
    result = invoke("match", finished.path, "nowhere.jpg", NAME)
    assert isinstance(result.exception, QueryError)  # whose message the program prints
    says = str(result.exception)
    assert len(says.splitlines()) == 1
    assert "there is no file 'nowhere.jpg' here, and there is no image 'nowhere.jpg'" in says


def test_an_untrusted_store_is_matched(finished: FeatureStore) -> None:
    result = invoke("match", finished.path, NAME, NAME, "--untrusted")
    assert result.output.startswith("found; ")
