"""Search: what it finds among paintings, what it finds that is not there, and what the index costs.

The degraded parts are of every other painting. Those of the other half were there to choose settings by: see
`tuning_half`, which is no part of the section.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import data, search_pictures
from benchmarks.measure import CORES, Bench, Finding, Spent, at_most, spend, spent
from benchmarks.search_answers import Answer, answers
from benchmarks.search_pictures import Query, make_collection
from featurestore import FeatureStore
from featurestore.apps.degraded import KINDS, Kind
from featurestore.apps.evaluation import wilson

AIMS = ((0.97, 0.85), (0.93, 0.80), (0.87, 0.50))  # recall at 1 and share found, by kind of degraded part
EVERY = (8, 8, 1)  # of each kind of degraded part: how many of them the exact search is asked for, too


def run(bench: Bench) -> list[Finding]:
    """Measure on paintings. Answers are kept with the data, so that a second run asks what is missing."""
    n = 6 if bench.quick else 483
    store, cost = indexed(bench.scratch, n)
    findings = index_cost(store, cost)
    crops, views = list(search_pictures.crops()), list(search_pictures.views())
    crops = [query for query in crops if query.refs[0] in names(store)]
    if bench.quick:
        crops, views = crops[:1], views[:1]
    findings += counted("crops and rescalings", answers(store, "crops", crops), least=len(crops), found=len(crops))
    findings += counted("views of a scene", answers(store, "views", views), least=20)
    for kind, (recall, found) in zip(KINDS, AIMS, strict=True):
        parts = degraded_parts(bench.scratch, n, kind, half="reported")
        findings += shares(f"parts of {kind.name}", answers(store, set_name(kind, "reported"), parts), recall, found)
    findings += negatives(bench, store, n)
    return [*findings, *against_exact(bench, store, n, crops, views)]


def indexed(scratch: Path, n: int) -> tuple[FeatureStore, Spent | None]:
    """Return a store of the collection with an index, and what the index took if it has just been made."""
    path = scratch / f"indexed-{n}"
    if path.is_dir():
        return FeatureStore(path), None
    folder = make_collection(scratch, n)
    draft = scratch / f".indexed-{n}"
    shutil.rmtree(draft, ignore_errors=True)
    store = FeatureStore.create(draft, images=folder, dataset=folder / "dataset.csv", chunk_size=data.CHUNK)
    store.run(workers=CORES)
    store.index()
    cost = spend(lambda: store.run(workers=CORES))
    draft.rename(path)
    return FeatureStore(path), cost


def index_cost(store: FeatureStore, cost: Spent | None) -> list[Finding]:
    """Return how large the index file is, and what making it took if it has just been made."""
    query = "SELECT sum(n_descriptors), count(*) FROM partitions WHERE stage = 'words' AND current"
    ((n_codes, _),) = store.sql(query).fetchall()
    n_bytes = sum(path.stat().st_size for path in (store.path / "index").iterdir())
    words = f"index file of {n_codes:,} descriptors, a descriptor"
    made = [] if cost is None else [Finding("fit_words, words and the index file of these", spent([cost]))]
    return [*made, at_most(words, [n_bytes / n_codes], 20, " B")]


def names(store: FeatureStore) -> list[str]:
    """Return the names of all images, in their order."""
    return [str(name) for (name,) in store.sql("SELECT filename FROM images ORDER BY image_id").fetchall()]


def set_name(kind: Kind, half: str) -> str:
    """Return the name of a set of degraded parts, for its file."""
    return f"{kind.area * 100:.0f}-at-{kind.side}-{half}"


def degraded_parts(scratch: Path, n: int, kind: Kind, *, half: str) -> list[Query]:
    """Return degraded parts of one half of the paintings."""
    return list(search_pictures.degraded(scratch, n, kind, half=half))


def tuning_half(scratch: Path, n: int = 483) -> list[Finding]:
    """Return what the table would say of the half of the queries by which settings are chosen."""
    store, _ = indexed(scratch, n)
    findings = []
    for kind, (recall, found) in zip(KINDS, AIMS, strict=True):
        parts = degraded_parts(scratch, n, kind, half="tuning")
        findings += shares(f"tuning: {kind.name}", answers(store, set_name(kind, "tuning"), parts), recall, found)
    made = answers(store, "made-tuning", search_pictures.made_negatives(half="tuning"))
    return [*findings, wrong_ones("tuning: made pictures", made, aim=0.01)]


def counted(what: str, some: Sequence[Answer], *, least: int, found: int | None = None) -> list[Finding]:
    """Return how many of some queries come first and are found, and for how many another picture is found."""
    if not some:
        return []
    n, first = len(some), sum(answer.rank == 1 for answer in some)
    n_found = sum(answer.found for answer in some)
    return [
        Finding(f"{what}: first", f"{first} of {n}", f">= {least}", first >= least),
        Finding(f"{what}: found", f"{n_found} of {n}", *(() if found is None else (f">= {found}", n_found >= found))),
        Finding(f"{what}: another picture is found", wrong_count(some)),
    ]


def shares(what: str, some: Sequence[Answer], recall: float, found: float) -> list[Finding]:
    """Return recall at 1 and the share found, with 95 % intervals; a query without keypoints is not found."""
    n = len(some)
    return [
        share(f"{n} {what}, recall at 1", sum(answer.rank == 1 for answer in some), n, recall),
        share(f"{n} {what}, found", sum(answer.found for answer in some), n, found),
        Finding(f"{n} {what}, another picture is found", wrong_count(some)),
    ]


def share(what: str, count: int, n: int, aim: float) -> Finding:
    """Return the finding that a share should reach ``aim``."""
    low, high = wilson(count, n)
    return Finding(what, f"{count / n:.3f} ({low:.3f} to {high:.3f})", f">= {aim:g}", count / n >= aim)


def wrong_count(some: Sequence[Answer]) -> str:
    """Return the number of queries for which an image is found that does not show the same."""
    return str(sum(bool(answer.wrong) for answer in some))


def wrong_ones(what: str, some: Sequence[Answer], *, aim: float | None = None) -> Finding:
    """Return for how many queries something is found, where nothing should be."""
    n, count = len(some), sum(bool(answer.wrong) for answer in some)
    low, high = wilson(count, n)
    text = f"{count} of {n} ({low:.3f} to {high:.3f})"
    return Finding(f"{what}: found", text, *(() if aim is None else (f"<= {aim:g}", count <= aim * n)))


def negatives(bench: Bench, store: FeatureStore, n: int) -> list[Finding]:
    """Return for how many pictures that are not in the collection one of it is found."""
    made = list(search_pictures.made_negatives(half="reported"))[:: 40 if bench.quick else 1]
    packaged = list(search_pictures.packaged(bench.scratch))[:: 40 if bench.quick else 1]
    some = [*answers(store, "made-reported", made), *answers(store, "packaged", packaged)]
    kinds = dict.fromkeys(answer.kind for answer in some)
    paintings = [name for name in names(store) if name.startswith("paintings/")][: 2 if bench.quick else n]
    others = answers(store, "others", search_pictures.others(paintings))
    return [
        wrong_ones("pictures that are not in the collection", some, aim=0.01),
        *(wrong_ones(f"of them, {kind}", [answer for answer in some if answer.kind == kind]) for kind in kinds),
        wrong_ones("every painting of the collection, among the others", others, aim=0.01),
    ]


def against_exact(
    bench: Bench, store: FeatureStore, n: int, crops: Sequence[Query], views: Sequence[Query]
) -> list[Finding]:
    """Return recall at 1 through the index and by the exact search, of the same queries."""
    sets: dict[str, Sequence[Query]] = {"crops": crops[::8], "views": views[::2]}
    for kind, every in zip(KINDS, EVERY, strict=True):
        sets[set_name(kind, "reported")] = degraded_parts(bench.scratch, n, kind, half="reported")[::every]
    findings, lost, total = [], 0, 0
    for name, some in sets.items():
        ours, exact = (
            sum(answer.rank == 1 for answer in answers(store, name, some, method=method))
            for method in ("index", "exact")
        )
        if some:
            findings.append(Finding(f"{len(some)} of {name}, first by index and by exact search", f"{ours}, {exact}"))
        lost, total = lost + exact - ours, total + len(some)
    text = f"{lost / total:.4f} of {total}"
    return [*findings, Finding("recall at 1 that the index loses", text, "<= 0.01", lost <= 0.01 * total)]
