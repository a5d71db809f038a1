"""Every image against the others, in a file that grows query by query."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore
from featurestore.apps import pairs
from featurestore.apps.all_pairs import refuse_blanks
from featurestore.apps.growing_file import progress_of
from featurestore.errors import NotReady, OutputError, QueryError
from featurestore.storage import Root, exclusive
from tests.broken_images import encoded, picture
from tests.once import copied
from tests.small import SMALL, change_recipe, configure, copy, invoke

PAIRS = [("a.png", "part-a.png"), ("b.png", "part-b.png")]  # that show the same


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of two pictures, the middle of each, enlarged, and a blank. Not to be changed."""

    def make(folder: Path) -> None:
        images = folder / "images"
        images.mkdir()
        for seed, (whole, part) in enumerate(PAIRS):
            pixels = picture(seed=seed)
            (images / whole).write_bytes(encoded(".png", pixels))
            middle = cv2.resize(pixels[20:100, 20:140], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
            (images / part).write_bytes(encoded(".png", middle))
        (images / "blank.png").write_bytes(encoded(".png", np.full((80, 80, 3), 200, np.uint8)))
        store = FeatureStore.create(folder / "store", images=images)
        change_recipe(store, SMALL)
        store.run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "parts", make) / "store")


@pytest.fixture(scope="module")
def whole(parts: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of pairs of the store."""
    path = tmp_path_factory.mktemp("whole") / "pairs.csv"
    pairs(parts, path)
    return path


def stop_after(monkeypatch: pytest.MonkeyPatch, n: int) -> Callable[[], int]:
    """Interrupt the search after ``n`` more; return what counts those that were begun."""
    original, begun = FeatureStore.search, []

    def search(store: FeatureStore, query: Any, **options: Any) -> Any:
        begun.append(query)
        if len(begun) > n:
            raise KeyboardInterrupt
        return original(store, query, **options)

    monkeypatch.setattr(FeatureStore, "search", search)
    return lambda: len(begun)


def test_copies_find_each_other_however_many(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    copies = [f"copy-{i:02d}.png" for i in range(12)]
    for name in copies:
        (images / name).write_bytes(encoded(".png", picture(seed=0)))
    for seed in (1, 2, 3):
        (images / f"{seed}.png").write_bytes(encoded(".png", picture(seed=seed)))
    store = FeatureStore.create(tmp_path / "store", images=images)
    change_recipe(store, SMALL)
    configure(store, "project", top=100)
    store.run(workers=0)
    turned = store.search(cv2.rotate(picture(seed=0), cv2.ROTATE_180), top=20)
    assert turned.method == "exact"
    assert [hit.filename for hit in turned.found] == copies  # equal ones in the order of the store
    assert {hit.score for hit in turned.found} == {turned.hits[0].score}
    assert turned.hits[0].score > 10
    pairs(store, tmp_path / "pairs.csv")
    with (tmp_path / "pairs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["query"], row["ref"]) for row in rows if row["status"] == "found"}
    assert found == {(one, other) for one in copies for other in copies if one != other}
    assert [row["ref"] for row in rows if row["query"] == copies[5]][:11] == copies[:5] + copies[6:]
    with store.snapshot() as sql:
        known = sql("SELECT count(*), count(DISTINCT group_id) FROM duplicates").fetchall()
    assert known == [(66, 1)]


def test_every_image_is_searched_for_among_the_others(parts: FeatureStore, whole: Path) -> None:
    with whole.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["query"], row["ref"]) for row in rows if row["status"] == "found"]
    assert found == [*PAIRS, *((part, whole) for whole, part in PAIRS)]
    assert pairs(parts, whole).n_rows == len(rows) > len(found)
    for name in sum(PAIRS, ()):
        hits = parts.search(name, top=20).hits
        expected = [[name, hit.filename, str(hit.inliers), str(round(hit.score, 4)), str(hit.status)] for hit in hits]
        assert [list(row.values()) for row in rows if row["query"] == name] == expected
        assert len(expected) == 3


@pytest.mark.parametrize("n", [0, 1, 3])
def test_after_an_interruption_it_goes_on(
    parts: FeatureStore, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    path = tmp_path / "pairs.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, n)
        with pytest.raises(KeyboardInterrupt):
            pairs(parts, path)
    text = path.read_text()
    assert whole.read_text().startswith(text)
    assert len({line.partition(",")[0] for line in text.splitlines()[1:]}) == n
    path.write_text(text + "a.png,b.p")  # as a kill in the middle of a write leaves it
    n_begun = stop_after(monkeypatch, 9)
    found = pairs(parts, path)
    assert (found.n_queries, found.n_before, found.n_found, n_begun()) == (4, n, 4, 4 - n)
    assert path.read_bytes() == whole.read_bytes()
    assert pairs(parts, path).n_before == 4
    assert n_begun() == 4 - n, "a complete file is left alone"


def test_a_kill_before_anything_was_noted_leaves_a_file_that_is_begun(
    parts: FeatureStore, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pairs.csv"
    path.touch()
    stop_after(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        pairs(parts, path)
    assert path.read_text() == whole.read_text().splitlines(keepends=True)[0]


def test_pairs_for_hloc_and_colmap_are_written_once(
    parts: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pairs.txt"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            pairs(parts, path, form="txt")
    found = pairs(parts, path, form="txt")
    assert (found.n_before, found.n_found) == (1, 2)
    assert path.read_text() == "a.png part-a.png\nb.png part-b.png\n"


def test_other_options_are_noticed(parts: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            pairs(parts, path)
    begun = path.read_bytes()
    with pytest.raises(OutputError, match=r"was begun with top 20, and this is 3; begin it again with --force"):
        pairs(parts, path, top=3)
    with pytest.raises(OutputError, match=r"was begun with format csv, and this is txt"):
        pairs(parts, path, form="txt")
    assert path.read_bytes() == begun
    assert pairs(parts, path, top=1, force=True).n_before == 0
    assert len(path.read_text().splitlines()) == 5


def test_a_store_that_changes_meanwhile_is_noticed(
    parts: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store, original = tmp_path / "pairs.csv", copy(parts, tmp_path / "store"), FeatureStore.search

    def search(searched: FeatureStore, query: Any, **options: Any) -> Any:
        result = original(searched, query, **options)
        if query == "part-b.png":  # the last
            configure(store, "project", top=150)
            store.run(workers=0)
        return result

    monkeypatch.setattr(FeatureStore, "search", search)
    with pytest.raises(OutputError, match=r"the store has changed since .*pairs\.csv was begun"):
        pairs(store, path)
    with pytest.raises(OutputError, match="was begun with another state of the store; begin it again with --force"):
        pairs(store, path)
    configure(store, "project", top=200)
    assert pairs(store, path).n_before == 4, "the former recipe has the former codes"


def test_what_is_not_ours_stays(parts: FeatureStore, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("mine\n")
    with pytest.raises(OutputError, match="exists already"):
        pairs(parts, path)
    assert path.read_text() == "mine\n"
    progress_of(path).write_text("{}")
    with pytest.raises(OutputError, match=r"pairs\.csv\.progress can't be used to go on"):
        pairs(parts, path)
    state = json.loads(progress_of(whole).read_text())
    progress_of(path).write_text(json.dumps(state))
    with pytest.raises(OutputError, match="was made shorter since it was begun"):
        pairs(parts, path)
    with pytest.raises(OutputError, match="lies in the store"):
        pairs(parts, parts.path / "pairs.csv")
    os.mkfifo(pipe := tmp_path / "pipe.csv")
    with pytest.raises(OutputError, match=r"pipe\.csv is a pipe or a device and not a file; choose another name"):
        pairs(parts, pipe, force=True)
    with pytest.raises(QueryError, match="there is no format 'xml' of pairs; they are csv, txt"):
        pairs(parts, tmp_path / "other", form="xml")  # type: ignore[arg-type]
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize("change", [lambda data: data.replace(b"found", b"FOUND"), lambda data: data + b"more\n"])
def test_a_file_that_was_edited_is_not_read(
    parts: FeatureStore, whole: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(change(whole.read_bytes()))
    shutil.copy(progress_of(whole), progress_of(path))
    with pytest.raises(OutputError, match=r"pairs\.csv was changed since it was begun; begin it again with --force"):
        pairs(parts, path)


def test_a_file_that_an_earlier_version_began_is_gone_on_with(parts: FeatureStore, whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(whole, tmp_path / "pairs.csv"))
    state = json.loads(progress_of(whole).read_text())
    del state["sha256"]
    progress_of(path).write_text(json.dumps(state))
    assert pairs(parts, path).n_before == 4  # all that have codes


def test_a_failing_disk_is_told_with_the_name_of_the_file(
    parts: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"/pairs\.csv can't be written: Input/output error; check the disk"):
        pairs(parts, tmp_path / "pairs.csv")


def test_two_processes_do_not_write_one_file(parts: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="is being written by another process"):
            pairs(parts, path)


def test_names_with_blanks_can_not_be_in_a_list_of_two_names(fresh: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"'b c\.png' has a blank, .* rename .*, or write a CSV with --format csv"):
        refuse_blanks(["a.png", "b c.png"])
    with pytest.raises(NotReady, match="images lack quantize: waits for fit_scale"):
        pairs(fresh, tmp_path / "pairs.csv")


def test_the_command_line_tells_what_was_found(parts: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    result = invoke("pairs", parts.path, path, "--top", 1)
    assert (result.exit_code, result.output) == (0, f"{path}: 4 pairs found among 4 images\n")  # in 4 rows
    again = invoke("pairs", parts.path, path, "--top", 1)
    assert again.output == f"{path}: 4 pairs found among 4 images; it was complete already\n"
    result = invoke("pairs", parts.path, tmp_path / "more.csv", "--top", 2)
    told = "4 pairs found among 4 images, in 8 rows: the others are possible, or candidates that do not match\n"
    assert result.output == f"{tmp_path / 'more.csv'}: {told}"


def test_the_store_shows_what_was_found(parts: FeatureStore, tmp_path: Path) -> None:
    store, path = copy(parts, tmp_path / "store"), tmp_path / "pairs.csv"
    shutil.rmtree(store.path / "pairs", ignore_errors=True)
    with exclusive(Root(store.path), "run"):
        busy = invoke("pairs", store.path, path)
    assert busy.exit_code == 0
    assert busy.output.splitlines()[1].startswith("the view duplicates does not show these pairs: ")
    assert store.sql("FROM duplicates").fetchall() == []
    assert pairs(store, path).not_kept is None, "the same call goes on with that"
    shown = store.sql("SELECT query, ref, inliers FROM duplicates ORDER BY query_id")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "found"]
    assert [{query, ref} for query, ref, _ in shown] == [set(pair) for pair in PAIRS]
    assert [n for _, _, n in shown] == [max(int(r["inliers"]) for r in rows if r["query"] in pair) for pair in PAIRS]
    assert shown.notes == ()
    assert "format csv" in str(pairs(store, tmp_path / "pairs.txt", form="txt").not_kept)
