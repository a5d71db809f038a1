"""Search through the index: nearly the exact answer, of the store as it is now, whatever its file has."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from featurestore import FeatureStore, matching
from featurestore.errors import MissingDependency, NotReady, QueryError
from featurestore.matching import mutual_matches
from featurestore.query import SearchResult, coverage_of, index_file, index_search, search, store_index
from featurestore.query.features import stored_features
from featurestore.query.index_entries import read_chunk
from featurestore.query.index_search import nearer_first, probed_words
from featurestore.retrieval import Extents, WordsIndex, words_index
from tests.conftest import LONG
from tests.once import copied
from tests.small import configure, context_of, copy, invoke

pytest.importorskip("faiss", reason="faiss is an optional dependency")

NAME = "china/whole-000.jpg"


@pytest.fixture(scope="module")
def made(finished: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store with an index. Not to be changed."""

    def make(folder: Path) -> None:
        store = copy(finished, folder / "store")
        store.index()
        store.run(workers=0)

    return FeatureStore(copied(tmp_path_factory, "indexed", make) / "store")


@pytest.fixture
def indexed(made: FeatureStore, tmp_path: Path) -> FeatureStore:
    """A store with an index that the test may change."""
    return copy(made, tmp_path / "indexed")


def files(store: FeatureStore) -> list[str]:
    return sorted(path.name for path in (store.path / "index").iterdir())


def names(result: SearchResult) -> list[str]:
    return [hit.filename for hit in result.hits]


def same_but_for_ties(result: SearchResult, expected: SearchResult) -> bool:
    """Return whether results have the same images and checks; of equally near entries others may have voted."""
    one, other = ({hit.filename: hit for hit in of.hits} for of in (result, expected))
    assert names(result)[:5] == names(expected)[:5]
    assert {name: hit.score for name, hit in one.items()} == pytest.approx(
        {name: hit.score for name, hit in other.items()}, rel=0.2, abs=2
    )
    return {hit.filename for hit in result.found} == {hit.filename for hit in expected.found}


def answer(result: SearchResult) -> dict[str, Any]:
    return {**result.as_dict(), "seconds": 0, "method": ""}


def note(store: FeatureStore) -> str:
    (found,) = (line for stage in store.status().stages for line in stage.notes if "index file" in line)
    return found


def test_a_run_makes_the_file_and_searches_use_it(made: FeatureStore) -> None:
    assert [name.partition(".")[2] for name in files(made)] == ["faiss", "images.npy", "json"]
    assert note(made) == "the index file covers all 26 images"
    index = made._current_lookup().index
    assert index.file is not None
    assert index.memory is None
    result = made.search(NAME)
    assert result.method == "index"
    assert made.search(NAME, method="exact").method == "exact"


@pytest.mark.parametrize("photo", ["china", "flower"])
def test_the_answer_is_that_of_the_exact_search(made: FeatureStore, samples: Any, photo: str) -> None:
    for path in sorted((samples.images / photo).iterdir())[:: 1 if LONG else 2]:  # every crop and every rotation
        pixels = cv2.imread(str(path))
        assert pixels is not None
        height, width = pixels.shape[:2]
        part = np.ascontiguousarray(pixels[height // 5 : -height // 5, width // 5 : -width // 5])
        query: Any = made.encode(part, keypoints=True)
        exact, found = (made.search(query, top=30, method=method) for method in ("exact", "index"))
        assert found.hits[0].filename == exact.hits[0].filename
        assert {hit.filename for hit in found.found} == {hit.filename for hit in exact.found}
        assert (found.n_images, found.n_missing) == (exact.n_images, exact.n_missing) == (24, 0)


def test_where_and_the_query_itself_are_masked(made: FeatureStore) -> None:
    result = made.search(NAME, top=30)
    assert NAME not in names(result)
    assert result.n_images == 23
    some = made.search(NAME, top=30, where="filename LIKE 'china/%-090.jpg'")
    assert some.method == "index"
    assert all(name.endswith("-090.jpg") for name in names(some))
    assert names(some)
    assert made.search(NAME, where="false").hits == ()


def test_without_a_file_the_index_is_in_memory(indexed: FeatureStore) -> None:
    expected = indexed.search(NAME, top=30)
    for path in (indexed.path / "index").iterdir():
        path.unlink()
    assert note(indexed).startswith("the index file covers 0 of 26 images; make it with: featurestore index ")
    result = indexed.search(NAME, top=30)
    assert indexed._current_lookup().index.file is None
    assert answer(result) == answer(expected)
    told = invoke("search", indexed.path, NAME, NAME, "--csv")
    how = f"make the index file with: featurestore index {indexed.path}\n"
    assert told.stderr == f"note: all images were indexed in memory, as each process does again; {how}"
    assert invoke("index", indexed.path).exit_code == 0
    assert note(indexed) == "the index file covers all 26 images"


def test_chunks_that_the_file_lacks_are_searched_beside_it(
    indexed: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = indexed.search(NAME, top=30)
    context = context_of(indexed)
    coverage = coverage_of(context)
    assert coverage is not None
    some = [chunk for i, chunk in coverage.chunks.items() if i != 1]
    index, extents = store_index.make_index(coverage, some)
    keys = {chunk.chunk_id: chunk.key or "" for chunk in some}
    index_file.write_index_file(context.root, coverage.variant, keys, index, extents)
    assert len(files(indexed)) == 3
    result = indexed.search(NAME, top=30)
    assert indexed._current_lookup().index.memory is not None
    assert same_but_for_ties(result, expected)
    assert " covers 18 of 26 images" in note(indexed)
    # a chunk that was replaced since is masked, and its new rows are searched
    keys[0] = "another-payload"
    index, extents = store_index.make_index(coverage, list(coverage.chunks.values()))
    index_file.write_index_file(
        context.root, coverage.variant, {**keys, 1: coverage.chunks[1].key or ""}, index, extents
    )
    assert same_but_for_ties(indexed.search(NAME, top=30), expected)
    monkeypatch.setattr(search, "SMALL", 0)
    assert indexed.search(NAME).method == "exact"  # more than a tenth is not in the file
    indexed.run(workers=0)
    assert coverage_of(context_of(indexed)).n_in_file == 26  # type: ignore[union-attr]
    assert indexed.search(NAME).method == "index"


def test_what_the_file_has_of_a_replaced_chunk_does_not_count(indexed: FeatureStore) -> None:
    """An image of the chunk was the query's own picture before, and now it is another one, or blank."""
    expected = indexed.search(NAME, top=30)
    coverage = coverage_of(context_of(indexed))
    assert coverage is not None
    others = ("flower/whole-000.jpg", "blank.jpg")
    own, *replaced = (indexed._current_lookup().find(name) for name in (NAME, *others))
    fresh = [chunk for i, chunk in coverage.chunks.items() if i not in {chunk_id for _, chunk_id in replaced}]
    index, extents = store_index.make_index(coverage, fresh)
    chunk = coverage.chunks[own[1]]
    entries = read_chunk(chunk.codes, chunk.words, coverage.stage, {})
    at = np.repeat(entries.image_ids, entries.counts) == own[0]
    n, ids = int(at.sum()), [image_id for image_id, _ in replaced]
    for image_id in ids:
        index.add(entries.words[at], entries.signatures[at], np.full(n, image_id), entries.places[at])
    order = np.argsort([*extents.image_ids, *ids])
    reach = np.concatenate([extents.extents, np.full((2, 2), 200, np.float32)])[order]
    joined = Extents(np.array([*extents.image_ids, *ids])[order], reach)
    keys = {chunk.chunk_id: chunk.key or "" for chunk in fresh} | {chunk_id: "earlier" for _, chunk_id in replaced}
    index_file.write_index_file(context_of(indexed).root, coverage.variant, keys, index, joined)
    result = indexed.search(NAME, top=30, method="index")
    assert indexed._current_lookup().index.file is not None
    assert result.n_images == expected.n_images
    assert same_but_for_ties(result, expected)


def test_a_merged_store_is_searched_at_once_and_makes_its_own_file(
    made: FeatureStore, finished: FeatureStore, tmp_path: Path
) -> None:
    expected = made.search(NAME, top=30)
    merged = copy(finished, tmp_path / "merged")
    merged.index()
    merged.merge(made.path, workers=0)
    assert not (merged.path / "index").exists()
    assert answer(merged.search(NAME, top=30, method="index")) == answer(expected)
    assert merged.run(workers=0) == []
    assert files(merged) == files(made)
    assert merged.verify().problems == []


def test_prune_removes_the_file_of_an_old_variant(indexed: FeatureStore) -> None:
    before = files(indexed)
    configure(indexed, "words", compression="none")
    assert indexed.prune().items == [], "it is the same variant"
    configure(indexed, "fit_words", seed=1)
    assert [item.what for item in indexed.prune().items] == []
    assert files(indexed) == before, "nothing was made in its place yet"
    recipe = indexed.path / "featurestore.toml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text[: text.index("[fit_words]")], encoding="utf-8")
    n_bytes = sum((indexed.path / "index" / name).stat().st_size for name in before)
    (item,) = (item for item in indexed.prune(dry_run=True).items if item.what == "old files of the search index")
    assert (item.n_files, item.n_bytes) == (3, n_bytes)
    assert files(indexed) == before
    indexed.prune()
    assert not (indexed.path / "index").exists() or files(indexed) == []
    assert indexed.search(NAME).method == "exact"


def test_images_that_were_ingested_later_are_found_at_once(indexed: FeatureStore, samples: Any, tmp_path: Path) -> None:
    lines = samples.dataset.read_text(encoding="utf-8").splitlines()
    images = tmp_path / "images"
    images.mkdir()
    for path in samples.images.rglob("*.jpg"):
        target = images / path.relative_to(samples.images)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    (images / "later.jpg").write_bytes((samples.images / NAME).read_bytes())
    more = tmp_path / "more.csv"
    more.write_text("\n".join([*lines, "later.jpg" + lines[1][lines[1].index(",") :]]) + "\n", encoding="utf-8")
    configure(indexed, "store", images=str(images))
    indexed.ingest(more)
    before = files(indexed)
    indexed.run("extract", "project", "quantize", workers=0)
    result = indexed.search(NAME)  # its words have not been computed
    assert result.method == "index"
    assert names(result)[0] == "later.jpg"
    assert result.note is None, "one image of 27"
    indexed.run(workers=0)
    assert files(indexed) == before  # less than a tenth is new
    assert note(indexed) == "the index file covers 26 of 27 images; a search reads the others too"
    assert names(indexed.search(NAME))[0] == "later.jpg"
    more.write_text("\n".join(line for line in lines if not line.startswith("china/left-000")) + "\n", encoding="utf-8")
    indexed.ingest(more, yes=True)
    left = names(indexed.search(NAME, top=30))
    assert "later.jpg" not in left
    assert "china/left-000.jpg" not in left


def test_a_damaged_file_is_not_used(indexed: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    expected = answer(indexed.search(NAME, top=30))
    (path,) = (indexed.path / "index").glob("*.faiss")
    path.write_bytes(bytes(path.stat().st_size))
    (indexed.path / "index").joinpath("notice").touch()  # a lookup begins again
    assert answer(indexed.search(NAME, top=30)) == expected
    assert f"{path.name} can't be read as an index" in caplog.text
    path.write_bytes(b"short")
    (indexed.path / "index" / "notice").unlink()
    assert answer(indexed.search(NAME, top=30)) == expected
    for header in (indexed.path / "index").glob("*.json"):
        header.write_text("[]", encoding="utf-8")
    assert indexed.verify(repair=True).problems == []
    indexed.run(workers=0)
    assert note(indexed) == "the index file covers all 26 images"


def test_verify_compares_the_file_with_its_header(indexed: FeatureStore) -> None:
    (path,) = (indexed.path / "index").glob("*.faiss")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    (problem,) = indexed.verify().problems
    assert problem.kind == "search"
    assert problem.what == f"index/{path.name} has not the bytes that its header promises"
    assert indexed.verify(repair=True).ok
    assert note(indexed).startswith("the index file covers 0 of 26 images; make it with: featurestore index ")
    assert invoke("index", indexed.path).exit_code == 0
    (header,) = (indexed.path / "index").glob("*.json")
    old = json.loads(header.read_text())
    del old["checksums"]  # as an earlier version wrote it
    header.write_text(json.dumps(old))
    assert note(indexed) == "the index file covers all 26 images"
    assert indexed.verify().problems == []
    path.unlink()
    assert [problem.what for problem in indexed.verify().problems] == [f"index/{path.name} is missing"]


def test_the_file_of_an_untrusted_store_is_never_opened(made: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answer(made.search(NAME, top=30))
    untrusted = FeatureStore.open_untrusted(made.path)
    monkeypatch.setattr(index_file, "open_index_file", None)
    monkeypatch.setattr(store_index, "open_index_file", None)
    result = untrusted.search(NAME, top=30, method="index")
    assert untrusted._current_lookup().index.file is None
    assert answer(result) == expected


def test_maintenance_knows_the_file(indexed: FeatureStore) -> None:
    before = files(indexed)
    assert indexed.verify().problems == []
    indexed.prune("quantize")
    assert files(indexed) == before
    for path in indexed.path.glob("catalog.duckdb*"):
        path.unlink()
    indexed.rebuild()
    assert note(indexed) == "the index file covers all 26 images"
    assert indexed.search(NAME).method == "index"


def test_without_faiss_searches_are_exact(indexed: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (indexed.path / "index").iterdir():
        path.unlink()
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert indexed.search(NAME).method == "exact"
    with pytest.raises(MissingDependency, match=r"which is not installed; pip install 'featurestore\[search\]'"):
        indexed.search(NAME, method="index")
    assert indexed.run(workers=0) == []
    assert files(indexed) == []


def test_a_store_without_an_index(finished: FeatureStore) -> None:
    assert finished.search(NAME).method == "exact"
    with pytest.raises(NotReady, match="the store has no index, or its words have not been learnt yet; make it with"):
        finished.search(NAME, method="index")
    with pytest.raises(QueryError, match="there is no method 'fast' of searching; they are auto, exact, index"):
        finished.search(NAME, method="fast")  # type: ignore[arg-type]


def test_the_command_line_chooses_the_method(made: FeatureStore) -> None:
    for method in ("exact", "index"):
        result = invoke("search", made.path, NAME, "--json", "--method", method)
        assert f'"method": "{method}"' in result.output


def test_crops_of_paintings(image_folder: Path, tmp_path: Path) -> None:
    listed: dict[str, str] = {}
    for collection in ("imgdata_square", "rss_cut"):
        with (image_folder / "groundtruth" / collection / "pairs.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["ref"].startswith("paintings/")]
        listed |= {row["query"]: row["ref"] for row in rows[::8][:3]}
    (tmp_path / "images").mkdir()
    for ref in sorted(set(listed.values())):
        pixels = cv2.imread(str(image_folder / ref))
        assert pixels is not None
        small = cv2.resize(pixels, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
        assert cv2.imwrite(str(tmp_path / "images" / Path(ref).name), small)
    store = FeatureStore.create(tmp_path / "store", images=tmp_path / "images")
    configure(store, "project", top=600)
    store.index()
    store.run(workers=0)
    for crop, ref in listed.items():
        pixels = cv2.imread(str(image_folder / crop))
        assert pixels is not None
        query: Any = store.encode(cv2.resize(pixels, None, fx=0.5, fy=0.5), keypoints=True)
        for method in ("exact", "index"):
            result = store.search(query, method=method)
            assert [hit.filename for hit in result.found] == [Path(ref).name]


def test_candidates_are_in_the_order_of_exact_distances(made: FeatureStore) -> None:
    rng = np.random.default_rng(0)
    keypoints = made.keypoints(NAME)[:30].copy()
    keypoints["x"], keypoints["y"] = rng.uniform(0, 500, (2, 30))  # so that nothing agrees
    codes = np.clip(made.descriptors(NAME)[:30] + rng.normal(0, 25, (30, 64)), 0, 255).astype(np.uint8)
    result = made.search((codes, keypoints), top=20, method="index")  # as many as are checked
    assert not result.found
    lookup = made._current_lookup()
    query = lookup.decoder(None).floats(codes)
    squares = [mutual_matches(query, stored_features(lookup, name).descriptors).squares for name in names(result)]
    assert nearer_first(squares).tolist() == list(range(len(squares)))
    assert [hit.score for hit in result.hits] != sorted((hit.score for hit in result.hits), reverse=True)


def test_copies_of_an_image_come_before_strangers() -> None:
    rng = np.random.default_rng(0)
    strangers = [rng.uniform(0.8, 1.2, 100).astype(np.float32) for _ in range(18)]
    true = np.where(np.arange(100) < 10, 0.3, strangers[0][::-1]).astype(np.float32)  # a tenth of the query matches
    for n_copies in (1, 2, 5):
        squares = [
            *strangers[n_copies:],
            *(true * rng.normal(1, 0.02, 100).astype(np.float32) for _ in range(n_copies)),
        ]
        assert set(nearer_first(squares)[:n_copies]) == set(range(18 - n_copies, 18))


def test_the_order_stays_where_distances_say_nothing() -> None:
    one, none = np.array([4, 4, 0], np.float32), np.full(3, np.inf, np.float32)
    assert nearer_first([one, one]).tolist() == [0, 1]
    assert nearer_first([none, one, none]).tolist() == [0, 1, 2]
    assert nearer_first([2 * one, one, none, none]).tolist() == [0, 1, 2, 3]
    assert nearer_first([2 * one, one, 3 * one]).tolist() == [1, 0, 2]
    assert nearer_first([one]).tolist() == [0]
    assert nearer_first([]).tolist() == []


@pytest.mark.parametrize(("n_words", "probed"), [(16, 6), (16_384, 6), (65_012, 3), (65_536, 3)])
def test_of_more_words_fewer_are_looked_at(n_words: int, probed: int) -> None:
    assert probed_words(n_words) == probed  # small cells of a codebook have fewer words than they should


def test_a_large_query_has_fewer_neighbours_and_words(made: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    search_words = WordsIndex.search

    def told(index: WordsIndex, descriptors: Any, **options: Any) -> Any:
        asked.append(options)
        return search_words(index, descriptors, **options)

    monkeypatch.setattr(WordsIndex, "search", told)
    query: Any = (made.descriptors(NAME)[:40], made.keypoints(NAME)[:40])
    made.search(query, method="index")
    monkeypatch.setattr(index_search, "MANY", 1)
    made.search(query, method="index")
    for module in (index_search, words_index):
        monkeypatch.setattr(module, "LARGE", 20)
    made.search(query, method="index")
    assert asked == [
        {"k": 32, "n_words": 6, "most": None},
        {"k": 32, "n_words": 3, "most": 2700},
        {"k": 16, "n_words": 3, "most": 60},
    ]


@pytest.mark.parametrize(
    ("n", "top", "expected"),
    [
        *[(0, 10, 20), (100, 10, 20), (900, 10, 20), (1200, 10, 15), (1800, 10, 10), (5000, 1, 10)],
        *[(1800, 14, 14), (1800, 20, 20), (1800, 50, 20)],
    ],
)
def test_a_large_query_is_compared_with_fewer_images(n: int, top: int, expected: int) -> None:
    assert search.n_checked(n, top) == expected


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors of the query in each comparison with an image."""
    found: list[int] = []
    check = matching.check_matches

    def counted(query: Any, *arguments: Any, **options: Any) -> Any:
        found.append(len(query))
        return check(query, *arguments, **options)

    monkeypatch.setattr(search, "check_matches", counted)
    return found


def test_all_hits_that_are_asked_for_are_checked(
    made: FeatureStore, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.random.default_rng(0).integers(0, 255, (40, 64), dtype=np.uint8)
    query: Any = (codes, made.keypoints(NAME)[:40])
    for large, top, expected in [(900, 3, 20), (20, 3, 10), (30, 3, 15), (20, 12, 12), (20, 30, 20)]:
        monkeypatch.setattr(words_index, "LARGE", large)
        compared.clear()
        hits = made.search(query, top=top, method="index").hits
        assert compared == [40] * expected
        assert [hit.match is not None for hit in hits] == [rank < expected for rank in range(min(top, 24))]
    compared.clear()
    made.search(query, top=3, method="exact")
    assert compared == [40] * 20, "the exact search spares nothing"


def test_where_many_are_found_all_candidates_are_checked(
    made: FeatureStore, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made.search(NAME, top=20, method="index").found
    assert len(found) > 5
    monkeypatch.setattr(words_index, "LARGE", 1)
    monkeypatch.setattr(search, "LEAST_CHECKED", 5)
    compared.clear()
    assert [hit.filename for hit in made.search(NAME, top=1, method="index").hits] == [found[0].filename]
    assert len(compared) == 20
