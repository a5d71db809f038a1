"""What a notebook shows: tables of results, in which nothing of other people's is HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore import FeatureStore
from featurestore.maintenance import Kind, Problem, VerifyReport
from featurestore.matching import Verdict
from featurestore.pipeline import Plan
from featurestore.query import QueryResult
from tests.small import copy

HOSTILE = "<script>alert('é')</script>&\x1b[2J\n<b>"


class Cells(HTMLParser):
    """The tags and the texts of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.texts = set[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def shown(value: object) -> Cells:
    text = value._repr_html_()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    cells = Cells(text)
    assert cells.tags <= {"table", "thead", "tbody", "tr", "th", "td", "p", "b"}
    return cells


def test_a_long_result_is_its_ends() -> None:
    result = QueryResult(pa.table({HOSTILE: range(100), "name": [HOSTILE] * 100}))
    cells = shown(result)
    assert re.sub(r"\D+", " ", " ".join(cells.texts[2::2])).split()[:5] == ["0", "1", "2", "3", "4"]
    assert cells.texts.count("…") == 2
    assert "99" in cells.texts
    assert "50" not in cells.texts
    assert cells.texts[-1] == "100 rows"
    assert cells.texts[0] == r"<script>alert('é')</script>&\x1b[2J\n<b>"


def test_a_search_is_its_hits(finished: FeatureStore) -> None:
    result = finished.search("china/whole-000.jpg", top=24)
    texts = shown(replace(result, query=HOSTILE)).texts
    assert texts[1:6] == ["rank", "status", "inliers", "score", "filename"]
    assert texts[6:11:4] == ["1", result.hits[0].filename]
    assert texts[-1] == f"candidate: {Verdict.CANDIDATE.meaning}"


def test_an_image_is_its_results(finished: FeatureStore) -> None:
    texts = shown(finished.info("china/whole-000.jpg")).texts
    assert "NULL" not in texts
    assert {"ImageInfo", "filename", "china/whole-000.jpg", "stages", "quantize", "photo: china"} <= {
        part for text in texts for part in text.split(", ")
    }


@pytest.mark.parametrize("n", [0, 1, 10])
def test_a_short_result_is_whole(n: int) -> None:
    texts = shown(QueryResult(pa.table({"n": pa.array(range(n), pa.int64())}))).texts
    assert texts == ["n", *map(str, range(n)), "1 row" if n == 1 else f"{n} rows"]


def test_a_store_says_what_it_is(tiny: FeatureStore) -> None:
    assert repr(tiny) == f"<FeatureStore {tiny.path}: 3 images, up to date>"
    texts = shown(tiny).texts
    assert texts[0] == f"{tiny.path}: 3 images (3 train) in 1 chunk"
    assert texts[1:3] == ["stage", "chunks"]
    last = texts.index("quantize")
    assert texts[last : last + 3] == ["quantize", "1/1", "3"]


def test_an_unfinished_store_says_so(begun: FeatureStore) -> None:
    unfinished = "extract 0/4, fit_pca 0/4, project 0/4, fit_scale 0/4, quantize 0/4"
    assert repr(begun) == f"<FeatureStore {begun.path}: 26 images, {unfinished}>"
    assert {"never run (chunks 0-3)", "extract", "26"} <= set(shown(begun.plan()).texts)
    assert shown(Plan()).texts == ["everything is up to date; there is nothing to do"]


def test_a_store_that_can_not_be_read_has_a_repr(tiny: FeatureStore, tmp_path: Path) -> None:
    store = copy(tiny, tmp_path / "store")
    (store.path / "featurestore.toml").unlink()
    assert repr(store).startswith(f"<FeatureStore {store.path}: can't be read: ")


def test_a_status_is_escaped(tiny: FeatureStore) -> None:
    shown(replace(tiny.status(), path=HOSTILE, notes=(HOSTILE,)))


def test_a_report_is_its_fields() -> None:
    problems = [Problem(Kind.DATASET, HOSTILE, "it is gone", "copy it")] * 25
    texts = shown(VerifyReport(n_files=1234, problems=problems, notes=["a", "b"])).texts
    assert texts[0] == "VerifyReport"
    assert texts[texts.index("files") + 1] == "1,234"
    assert texts[texts.index("notes") + 1] == "a; b"
    assert texts.count("copy it") == 20
    assert texts[-1] == "and 5 more"
