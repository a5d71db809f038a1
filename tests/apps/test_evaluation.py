"""Scores of searches, counted by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.apps import evaluate
from featurestore.apps.evaluation import Outcome, scores_of, wilson
from featurestore.errors import QueryError
from tests.small import invoke

CHINA, FLOWER = "china/whole-000.jpg", "flower/whole-000.jpg"


@pytest.fixture
def pairs(samples: Any, tmp_path: Path) -> Path:
    """A list with a crop of a file, two images of the store, a negative, a broken query and an unknown ref."""
    pixels = cv2.imread(str(samples.images / CHINA))
    assert pixels is not None
    height, width = pixels.shape[:2]
    (tmp_path / "queries").mkdir()
    crop = pixels[height // 5 : -height // 5, width // 5 : -width // 5]
    assert cv2.imwrite(str(tmp_path / "queries" / "crop.png"), crop)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    assert cv2.imwrite(str(tmp_path / "queries" / "noise.png"), noise)
    rows = [
        "query,ref,class,relation",
        f"queries/crop.png,{CHINA},crop,a",
        f"{FLOWER},elsewhere/flower/left-000.jpg,view,a",
        f"{FLOWER},flower/left-000.jpg,view,a",
        f"{FLOWER},flower/left-090.jpg,view,a",
        f"{FLOWER},{CHINA},view,a",
        "queries/noise.png,,negative,b",
        f"queries/nowhere.png,{CHINA},crop,b",
        f"{CHINA},nowhere.jpg,view,b",
    ]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_every_query_is_compared_with_its_refs(finished: FeatureStore, pairs: Path) -> None:
    said: list[str] = []
    found = evaluate(finished, pairs, say=said.append)
    by_query = {outcome.query: outcome for outcome in found.outcomes}
    assert list(by_query) == ["queries/crop.png", FLOWER, "queries/noise.png", "queries/nowhere.png"]
    crop, view = by_query["queries/crop.png"], by_query[FLOWER]
    hits = finished.search(pairs.parent / "queries/crop.png", top=100).hits
    assert crop.ranks == tuple(hit.rank for hit in hits if hit.filename == CHINA)
    assert crop.found == (CHINA,)
    assert {name.partition("/")[0] for name in crop.wrong} <= {"china"}
    assert view.refs == ("flower/left-000.jpg", "flower/left-090.jpg", CHINA)
    names = [hit.filename for hit in finished.search(FLOWER, top=100).hits]
    assert view.ranks == tuple(sorted(names.index(ref) + 1 for ref in view.refs if ref in names))
    assert set(view.found) == {"flower/left-000.jpg", "flower/left-090.jpg"}
    assert by_query["queries/noise.png"].refs == ()
    assert by_query["queries/noise.png"].found == by_query["queries/noise.png"].wrong == ()
    assert "there is no file 'queries/nowhere.png' here" in str(by_query["queries/nowhere.png"].error)
    assert said == [by_query["queries/nowhere.png"].error]
    assert found.absent == ("elsewhere/flower/left-000.jpg", "nowhere.jpg")
    assert [one.kind for one in found.scores] == ["crop", "negative", "view", "all"]
    every = found.scores[-1]
    assert (every.n, every.n_failed, every.n_negative) == (3, 1, 1)
    assert every.recall[100] == every.found == pytest.approx(2 / 3)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_list_as_spreadsheets_write_it(finished: FeatureStore, tmp_path: Path, delimiter: str) -> None:
    lines = (["query", "ref", "class"], [CHINA, CHINA, "a, b"], [FLOWER, "", "none"])
    text = "".join(delimiter.join(line) + "\r\n" for line in lines)
    (tmp_path / "list.csv").write_text(text, encoding="utf-8-sig", newline="")
    outcomes = evaluate(finished, tmp_path / "list.csv").outcomes
    assert [(one.query, one.refs, one.kind) for one in outcomes] == [(CHINA, (CHINA,), "a, b"), (FLOWER, (), "none")]


def test_the_class_is_a_column(finished: FeatureStore, pairs: Path) -> None:
    found = evaluate(finished, pairs, kind="relation", method="exact")
    assert [(one.kind, one.n + one.n_negative) for one in found.scores] == [("a", 2), ("b", 2), ("all", 4)]


def test_scores_are_those_counted_by_hand() -> None:
    outcomes = [
        Outcome("a", "x", ("1", "2"), ranks=(1, 4), found=("1",), seconds=1),
        Outcome("b", "x", ("1",), ranks=(5,), wrong=("9",), seconds=3),
        Outcome("c", "x", ("1",), ranks=(80,), seconds=8),
        Outcome("d", "x", ("1",), error="broken"),
        Outcome("e", "x", (), wrong=("7",), seconds=9),
    ]
    scores = scores_of("x", outcomes)
    assert (scores.n, scores.n_failed, scores.n_negative, scores.n_wrong) == (4, 1, 1, 2)
    assert scores.recall == {1: 0.25, 5: 0.5, 100: 0.75}
    assert scores.found == 0.25
    assert scores.mean_average_precision == pytest.approx(((1 + 2 / 4) / 2 + 1 / 5 + 1 / 80) / 4)
    assert scores.seconds == 5.5


def test_the_interval_is_wilsons() -> None:
    assert wilson(9, 10) == pytest.approx((0.596, 0.982), abs=0.001)
    assert wilson(10, 10) == pytest.approx((0.722, 1.0), abs=0.001)
    assert wilson(0, 10) == pytest.approx((0.0, 0.278), abs=0.001)
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("image,ref\na,b\n", None, "has no column 'query'; its columns are image, ref"),
        ("", None, "has no column 'query'; its columns are none"),
        (f"query,ref\n{CHINA},{FLOWER}\n", "style", "has no column 'style'; its columns are query, ref"),
        ("query,ref\n", None, "has no rows; give it one for each query"),
        ("query,ref\na.jpg,b.jpg\n", None, "no row of .* has a ref that is an image of the store"),
        (
            f"query,ref\na.jpg,{FLOWER}\n",
            None,
            "no query of .* can be searched for; the first: there is no file 'a.jpg'",
        ),
    ],
)
def test_lists_that_can_not_be_used(
    finished: FeatureStore, tmp_path: Path, text: str, kind: str | None, says: str
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(QueryError, match=says):
        evaluate(finished, path, kind=kind)
    with pytest.raises(QueryError, match=r"there is no file '.*nowhere\.csv' here; name a list of pairs"):
        evaluate(finished, tmp_path / "nowhere.csv")


def test_what_the_store_lacks_is_told_once(fresh: FeatureStore, tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "pairs.csv"
    path.write_text(f"query,ref\n{CHINA},{FLOWER}\n{FLOWER},{CHINA}\n", encoding="utf-8")
    with pytest.raises(QueryError, match=r"no query of .* can be searched for; the first: "):
        evaluate(fresh, path, say=told.append)
    assert told
    assert len(told) == len(set(told))


def test_a_pipe_is_not_waited_for(finished: FeatureStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pairs.csv")
    with pytest.raises(QueryError, match=r"pairs\.csv' is a pipe or a device and not a file; name a list of pairs"):
        evaluate(finished, tmp_path / "pairs.csv")


def test_the_command_line_prints_a_table_or_json(finished: FeatureStore, pairs: Path) -> None:
    result = invoke("evaluate", finished.path, pairs)
    assert result.exit_code == 0
    header, _, *rows = result.stdout.splitlines()
    assert header.split()[:4] == ["class", "queries", "negative", "recall@1"]
    assert [row.split()[0] for row in rows[:4]] == ["crop", "negative", "view", "all"]
    assert rows[1].split()[:9] == ["negative", "1", "1", *["-"] * 6]
    assert rows[3].split()[:4] == ["all", "4", "1", "0.333"]
    assert rows[5].startswith("2 rows left out, whose ref is not one image of the store, such as 'elsewhere/")
    assert result.stderr.startswith("error: there is no file 'queries/nowhere.png' here")
    read = json.loads(invoke("evaluate", finished.path, pairs, "--json", "--method", "exact").stdout)
    assert [one["kind"] for one in read["scores"]] == ["crop", "negative", "view", "all"]
    negative = read["scores"][1]
    assert (negative["recall"], negative["found"]) == ({"1": None, "5": None, "100": None}, None)
    assert negative["mean_average_precision"] is None
    assert len(read["outcomes"]) == 4


def test_the_last_part_of_a_ref_is_enough_if_one_image_has_it(finished: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"query,ref\n{CHINA},elsewhere/blank.jpg\n{CHINA},elsewhere/left-000.jpg\n", encoding="utf-8")
    found = evaluate(finished, path)
    assert [outcome.refs for outcome in found.outcomes] == [("blank.jpg",)]
    assert found.absent == ("elsewhere/left-000.jpg",)
