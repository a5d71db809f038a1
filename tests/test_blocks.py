"""The file names of several chunks are read at once, and every chunk gets its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import runner
from featurestore.plan import Work
from tests.small import digests, make_small, small_store


def work(chunk_id: int, n_images: int) -> Work:
    return Work(chunk_id, 0, n_images, "never run", None, None, input_ready=True)


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [([3, 3, 3, 3], [[0, 1, 2], [3]]), ([99, 1], [[0], [1]]), ([1, 99, 1], [[0], [1], [2]]), ([9], [[0]])],
)
def test_chunks_are_taken_up_to_a_number_of_images(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], taken: list[list[int]]
) -> None:
    monkeypatch.setattr(runner, "NAMES", 9)
    todo, found = [work(i, n) for i, n in enumerate(sizes)], []
    while todo:
        found.append([w.chunk_id for w in runner._take_images(todo)])
    assert found == taken


@pytest.mark.parametrize("names", [1, 8, 10_000])
def test_how_many_are_read_at_once_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int) -> None:
    monkeypatch.setattr(runner, "NAMES", names)
    images = tmp_path / "images"
    make_small(images, n=9)
    store = small_store(tmp_path / "store", images, chunk_size=4)
    store.run("extract", workers=0)
    found = store.sql("SELECT filename FROM descriptor_counts WHERE status = 'ok' ORDER BY image_id").fetchall()
    assert [name for (name,) in found] == [f"{i:03d}.png" for i in range(9)]
    (images / "002.png").unlink()
    before = digests(store, "partitions/extract/**/*")
    assert len(before) == 3
    with_one_failed = small_store(tmp_path / "other", images, chunk_size=4)
    with_one_failed.run("extract", workers=0)
    make_small(images, n=9)
    with_one_failed.run("extract", workers=0, retry_failed=True)
    assert digests(with_one_failed, "partitions/extract/**/*") == before
