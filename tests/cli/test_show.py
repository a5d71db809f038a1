"""Pictures from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.drawing import Picture
from featurestore.matching import PairMatch
from tests.small import invoke

NAME = "china/whole-000.jpg"
PART = "china/left-000.jpg"
OTHER = "flower/whole-000.jpg"


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_an_image_is_drawn_into_the_current_folder(
    finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("show", finished.path, NAME)
    assert result.exit_code == 0
    assert result.output == f"whole-000-keypoints.png: {finished.show(NAME).title}\n"
    assert is_png(tmp_path / "whole-000-keypoints.png")
    again = invoke("show", finished.path, NAME)
    assert "whole-000-keypoints.png exists already" in str(again.exception)
    assert invoke("show", finished.path, NAME, "--stage", "extract", "--force").exit_code == 0


def test_a_match_is_told_and_drawn(finished: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "pair.png"
    told = invoke("match", finished.path, PART, NAME).output
    assert invoke("match", finished.path, PART, NAME, "-o", out).output == told
    assert out.read_bytes() == finished.show_match(PART, NAME)._repr_png_()


@pytest.mark.parametrize("verb", [("show", NAME), ("match", PART, NAME)])
def test_a_place_where_no_picture_can_be_is_refused_at_once(
    finished: FeatureStore, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    name, *images = verb
    for place, says in (
        (finished.path / "out.png", "lies in the store"),
        (tmp_path / "out.gif", "ends in none of"),
        (tmp_path / "nowhere" / "out.png", "is not a folder"),
    ):
        result = invoke(name, finished.path, *images, "-o", place)
        assert result.exit_code == 1
        assert says in str(result.exception)


def test_each_query_is_drawn_beside_what_it_found(finished: FeatureStore, tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    result = invoke("search", finished.path, PART, OTHER, "--top", "2", "--draw", folder)
    assert result.exit_code == 0
    drawn = sorted(path.name for path in folder.iterdir())
    hits = [hit for query in (PART, OTHER) for hit in finished.search(query, top=2).hits]
    assert [hit.status for hit in hits] == ["found"] * 4
    assert drawn == [
        f"{number:04d}-{Path(query).stem}-{rank}-{Path(hits[2 * number + rank - 3].filename).stem}.png"
        for number, query in ((1, PART), (2, OTHER))
        for rank in (1, 2)
    ]
    assert all(map(is_png, folder.iterdir()))


def test_what_is_not_found_is_not_drawn(finished: FeatureStore, tmp_path: Path) -> None:
    result = invoke("search", finished.path, PART, "--where", "filename LIKE 'flower%'", "--draw", tmp_path)
    assert result.exit_code == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_left_alone(finished: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    result = invoke("search", finished.path, PART, "--draw", tmp_path)
    assert "has files in it; name a new folder for the pictures" in str(result.exception)
    inside = invoke("search", finished.path, PART, "--draw", finished.path / "drawn")
    assert "lies in the store" in str(inside.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
    file = invoke("search", finished.path, PART, "--draw", tmp_path / "mine.png")
    assert str(file.exception).endswith("mine.png is a file; name a new folder for the pictures")


def test_names_of_any_length_and_letters_are_drawn(finished: FeatureStore, samples: Any, tmp_path: Path) -> None:
    queries, folder = tmp_path / "queries", tmp_path / "drawn"
    queries.mkdir()
    for name in ("b\n\x1b[1m.jpg", "\u4e2d" * 80 + ".jpg"):
        shutil.copy(samples.images / PART, queries / name)
    assert invoke("search", finished.path, queries, "--top", 1, "--draw", folder).exit_code == 0
    found = [path.name for path in sorted(folder.iterdir())]
    assert [name.partition("-1-")[0] for name in found] == ["0001-b__[1m", "0002-" + "\u4e2d" * 33]


def test_what_can_not_be_drawn_is_a_line_and_every_query_is_answered(
    finished: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = FeatureStore.show_match

    def show(store: FeatureStore, query: str, image: str, match: PairMatch) -> Picture:
        return drawn(store, "nowhere.jpg" if query == PART else query, image, match)

    monkeypatch.setattr(FeatureStore, "show_match", show)
    result = invoke("search", finished.path, PART, OTHER, "--top", 1, "--draw", tmp_path, "--csv")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr.startswith("error: there is no file 'nowhere.jpg' here")
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["0002-"]
