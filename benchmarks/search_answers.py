"""What searches answered, in a file that grows query by query, so that a long measurement goes on after a break."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import ROOT
from benchmarks.search_pictures import Query
from featurestore import FeatureStore
from featurestore.errors import NothingUsable
from featurestore.query.search import CHECKED, LEAST_CHECKED, RANKED, n_checked, ranking

TOP = 10  # as by default: a large query is compared with more images if more are asked for


@dataclass(frozen=True)
class Answer:
    """The answer to a query.

    Args:
        name: of the query.
        kind: of the query.
        rank: of the first image that shows the same, among the first ten hits; None if it is not there.
        found: whether an image that shows the same is found.
        wrong: other images that are found, each with its inliers.
        n_descriptors: of the query; 0 if it has no keypoints, and so no answer.
        cpu: seconds of this process, with SIFT.
    """

    name: str
    kind: str
    rank: int | None
    found: bool
    wrong: tuple[tuple[str, int], ...]
    n_descriptors: int
    cpu: float


def answers(
    store: FeatureStore, name: str, queries: Iterable[Query], *, method: Literal["index", "exact"] = "index"
) -> list[Answer]:
    """Return the answers to queries, of which those are asked that have no answer yet.

    They are kept beside the store, apart for each state of the code that searches.

    Args:
        store: that is searched.
        name: of the set of queries.
        queries: in any order.
        method: of the search.
    """
    path = store.path.parent / "answers" / f"{store.path.name}-{searching_code(method)}" / f"{name}-{method}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_answers(path)
    wanted = list(queries)
    with path.open("a", encoding="utf-8") as file:
        for query in wanted:
            if query.name not in known:
                known[query.name] = ask(store, query, method)
                file.write(json.dumps(asdict(known[query.name]), ensure_ascii=False) + "\n")
                file.flush()
    return [known[query.name] for query in wanted]


def ask(store: FeatureStore, query: Query, method: Literal["index", "exact"]) -> Answer:
    """Search for one query."""
    pixels: Any = query.name if query.pixels is None else query.pixels()
    begun = time.process_time()
    try:
        result = store.search(pixels, top=TOP, method=method)
    except NothingUsable:
        return Answer(query.name, query.kind, None, False, (), 0, time.process_time() - begun)
    cpu = time.process_time() - begun
    ranks = [hit.rank for hit in result.hits if hit.filename in query.refs]
    return Answer(
        name=query.name,
        kind=query.kind,
        rank=min(ranks, default=None),
        found=any(hit.filename in query.refs for hit in result.found),
        wrong=tuple((hit.filename, hit.inliers) for hit in result.found if hit.filename not in query.refs),
        n_descriptors=result.n_descriptors,
        cpu=round(cpu, 4),
    )


def read_answers(path: Path) -> dict[str, Answer]:
    """Return the answers in a file, by the names of the queries; a line that was not finished is removed."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    found = {}
    for line in whole.splitlines():
        row = json.loads(line)
        row["wrong"] = tuple((name, inliers) for name, inliers in row["wrong"])
        found[row["name"]] = Answer(**row)
    return found


def searching_code(method: Literal["index", "exact"]) -> str:
    """Return a short digest of the code that decides what a search answers."""
    package = ROOT / "featurestore"
    modules = [*(package / "matching").glob("*.py"), package / "query" / "exact_search.py"]
    order = inspect.getsource(ranking) + repr((CHECKED, RANKED))  # of the module that also shows results
    if method == "index":
        modules += [*(package / "retrieval").glob("*.py"), package / "query" / "index_search.py"]
        order += inspect.getsource(n_checked) + repr(LEAST_CHECKED)
    digest = hashlib.sha256(order.encode())
    for path in sorted(modules):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
