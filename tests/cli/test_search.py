"""Matching on the command line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.cli.common import answer
from featurestore.errors import QueryError
from featurestore.matching import Verdict
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


def test_a_link_to_no_file_is_called_so(finished: FeatureStore, tmp_path: Path) -> None:
    (link := tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    told = f"{str(link)!r} is a link to a file that does not exist, and there is no image "
    assert told in str(invoke("match", finished.path, link, NAME).exception)
    assert f"error: {told}" in invoke("search", finished.path, link, NAME, "--top", 1).stderr


def test_an_untrusted_store_is_matched(finished: FeatureStore) -> None:
    result = invoke("match", finished.path, NAME, NAME, "--untrusted")
    assert result.output.startswith("found; ")


def test_a_search_is_told_as_a_table(finished: FeatureStore, samples: Any) -> None:
    result = invoke("search", finished.path, samples.images / NAME, "--top", 3)
    assert result.exit_code == 0
    first, header, _, *rows = result.output.splitlines()
    assert "images found in 24 images; " in first
    assert header.split() == ["rank", "status", "inliers", "score", "filename"]
    assert [row.split()[0] for row in rows[:3]] == ["1", "2", "3"]
    assert rows[0].split()[1::3] == ["found", NAME]
    assert rows[3:] == ["(3 rows)"]


def test_a_name_can_not_steer_the_terminal(finished: FeatureStore, samples: Any, tmp_path: Path) -> None:
    shutil.copy(samples.images / NAME, tmp_path / "two\nlines\x1b[31m.jpg")
    first = invoke("search", finished.path, tmp_path / "two\nlines\x1b[31m.jpg", "--top", 1).output.splitlines()[0]
    assert r"two\nlines\x1b[31m.jpg: " in first


def test_what_a_candidate_is_stands_below_the_table(finished: FeatureStore, samples: Any) -> None:
    lines = invoke("search", finished.path, samples.images / NAME, "--where", "photo = 'flower'").output.splitlines()
    assert "candidate" in lines[3]
    assert lines[-1] == f"candidate: {Verdict.CANDIDATE.meaning}"


def test_nothing_found_is_an_answer(finished: FeatureStore) -> None:
    result = invoke("search", finished.path, NAME, "--where", "filename LIKE 'flower%'")
    assert result.exit_code == 0
    assert result.output.startswith(f"{NAME}: nothing in the store matches, in 12 images; ")
    assert " found " not in result.output


def test_every_query_is_a_line_of_json(finished: FeatureStore, samples: Any) -> None:
    result = invoke("search", finished.path, NAME, samples.images / "flower", "--json", "--top", 2)
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["query"] for line in lines[:2]] == [NAME, str(samples.images / "flower" / "centre-000.jpg")]
    assert len(lines) == 13
    for line in lines:
        assert [hit["rank"] for hit in line["hits"]] == [1, 2]
        assert {"status", "inliers", "transform", "outline", "matches", "columns"} <= set(line["hits"][0])


def test_hits_are_rows_of_csv(finished: FeatureStore) -> None:
    result = invoke("search", finished.path, NAME, "flower/left-000.jpg", "--csv", "--top", 2)
    rows = list(csv.DictReader(result.output.splitlines()))
    assert [(row["query"], row["rank"]) for row in rows] == [
        (NAME, "1"),
        (NAME, "2"),
        ("flower/left-000.jpg", "1"),
        ("flower/left-000.jpg", "2"),
    ]
    assert rows[0]["photo"] == "china"
    assert rows[0]["status"] == "found"


def test_a_query_that_fails_is_a_line_and_the_others_are_answered(finished: FeatureStore, samples: Any) -> None:
    result = invoke("search", finished.path, "blank.jpg", samples.images / "broken.jpg", NAME, "nowhere.jpg", "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["query"] for line in result.stdout.splitlines()] == [NAME]
    errors = result.stderr.splitlines()
    assert len(errors) == 3
    assert errors[0].startswith("error: blank.jpg has no keypoints")
    assert "broken.jpg can't be encoded" in errors[1]
    assert "there is no file 'nowhere.jpg'" in errors[2]


def test_what_is_the_same_for_all_queries_is_told_once(fresh: FeatureStore, samples: Any) -> None:
    result = invoke("search", fresh.path, samples.images / "flower")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "make what is missing with: featurestore run" in result.stderr


def test_a_mistake_in_the_condition_is_told_once(finished: FeatureStore) -> None:
    result = invoke("search", finished.path, NAME, "flower/left-000.jpg", "--where", "colour = 3")
    assert isinstance(result.exception, QueryError)
    assert result.output == ""


def test_a_query_is_answered_before_the_next_is_read(finished: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    original, events = FeatureStore.search, list[str]()

    def searched(store: FeatureStore, query: Any, **options: Any) -> Any:
        events.append(query)
        return original(store, query, **options)

    def told(text: str) -> None:
        events.append("answer")
        answer(text)

    monkeypatch.setattr(FeatureStore, "search", searched)
    monkeypatch.setattr("featurestore.cli.search.answer", told)
    invoke("search", finished.path, NAME, "flower/left-000.jpg", "--csv")
    assert events == [NAME, "answer", "flower/left-000.jpg", "answer"]


def test_a_name_in_another_encoding_and_no_name(finished: FeatureStore, samples: Any, tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(samples.images / "china" / "left-000.jpg", tmp_path / latin)
    assert finished.search(str(tmp_path / latin), top=1).found
    with pytest.raises(QueryError, match=r"there is no file 'no.udcff\.jpg' here"):
        finished.search(os.fsdecode(b"no\xff.jpg"))
    result = invoke("search", finished.path, "", NAME, "--csv", "--top", 1)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is no file '' here")
    assert len(result.stdout.splitlines()) == 2, "the other query is answered"


def test_a_query_that_is_no_file_is_called_what_it_is(finished: FeatureStore, samples: Any, tmp_path: Path) -> None:
    folder, pipe = str(samples.images / "china"), str(tmp_path / "pipe.jpg")
    os.mkfifo(pipe)
    for query, kind in ((folder, "a folder"), (pipe, "a pipe or a device and not a file")):
        with pytest.raises(QueryError, match=rf"^'{query}' is {kind}, and there is no image '{query}'"):
            finished.search(query)
        with pytest.raises(QueryError, match=rf"^'{query}' is {kind}, and there is no image of that name in the"):
            finished.show_match(query, NAME, finished.match(NAME, NAME))


def test_every_file_of_a_mixed_folder_is_a_line_or_an_answer(
    finished: FeatureStore, samples: Any, tmp_path: Path
) -> None:
    (tmp_path / "a-empty.jpg").touch()
    (tmp_path / "b-text.png").write_text("no picture")
    (tmp_path / "c-notes.txt").write_text("no picture, and not called one")
    cv2.imwrite(str(tmp_path / "d-flat.png"), np.full((60, 60, 3), 127, np.uint8))
    huge = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    (tmp_path / "e-huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + huge + struct.pack(">I", zlib.crc32(huge))
    )
    shutil.copy(samples.images / NAME, tmp_path / "f-whole.jpg")
    result = invoke("search", finished.path, tmp_path, "--csv", "--top", 1)
    assert result.exit_code == 1
    expected = ("a-empty.jpg", "the file is empty"), ("b-text.png", "the file is text"), ("d-flat.png", "no keypoints")
    for line, (name, why) in zip(result.stderr.splitlines(), (*expected, ("e-huge.png", "too_large")), strict=True):
        assert name in line
        assert why in line
    (row,) = csv.DictReader(result.stdout.splitlines())
    assert (Path(row["query"]).name, row["status"]) == ("f-whole.jpg", "found")


def test_a_folder_without_images(finished: FeatureStore, tmp_path: Path) -> None:
    both = invoke("search", finished.path, tmp_path, NAME, "--csv", "--top", 1)
    assert both.exit_code == 1
    assert both.stderr.startswith("error: there are no image files in the folder")
    assert len(both.stdout.splitlines()) == 2, "the other query is answered"
    result = invoke("search", finished.path, tmp_path)
    assert isinstance(result.exception, QueryError)
    assert "there are no image files in the folder" in str(result.exception)
