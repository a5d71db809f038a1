"""The sample of `tune`: some images of a store with all their descriptors, and queries that should find them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featurestore.api import FeatureStore
from featurestore.apps.degraded import KINDS, Kind, Pixels, degraded_part
from featurestore.apps.evaluation import ALL, located_query, read_pairs
from featurestore.apps.trial import Query, Raw
from featurestore.errors import FeatureStoreError, NothingUsable, NotReady
from featurestore.formatting import counted
from featurestore.rows import Status
from featurestore.system import command_line

FEWEST = 10  # images, below which shares say nothing

# The payloads decide every descriptor, whatever wrote the files.
_STATE = "SELECT chunk_id, payload FROM partitions WHERE stage = 'extract' AND current ORDER BY chunk_id"


@dataclass(frozen=True)
class Asked:
    """A query before it is extracted.

    Args:
        name: what it is called.
        kind: its class.
        refs: the images that it should find.
        half: see `Query`.
        part: of which image, of which class, and its seed; None if ``given`` is the query.
        given: the name of an image in the store, or a file.
    """

    name: str
    kind: str
    refs: tuple[str, ...]
    half: int
    part: tuple[str, Kind, tuple[int, int]] | None = None
    given: str | Path = ""

    @property
    def stored(self) -> bool:
        """Whether it is an image of the store."""
        return self.part is None and isinstance(self.given, str)


@dataclass(frozen=True)
class Sample:
    """The images of a sample and the queries, by name; nothing is read yet.

    Args:
        store: of the images.
        names: of the images, in the order of the store.
        train: those of the subset ``train``.
        asked: the queries.
        n_usable: images of the store that have descriptors.
        digest: of all that decides what is read.
    """

    store: FeatureStore = field(repr=False)
    names: tuple[str, ...]
    train: frozenset[str]
    asked: tuple[Asked, ...]
    n_usable: int
    digest: str

    def images(self) -> Iterator[Raw]:
        """Yield the images with what extract has stored of them."""
        for name in self.names:
            yield self._stored(name)

    def query(self, asked: Asked) -> Query:
        """Return a query with its descriptors: extracted, or those that are stored.

        Raises:
            NothingUsable: the image of which it is a part can't be used, or is another one than was extracted.
            ImagesGone, DatasetError, UnreadableFile: the images can't be read.
            NotReady: the store lacks what the query needs.
        """
        given = asked.given if asked.part is None else self._part(*asked.part)
        raw: Raw | None
        try:
            raw = self._stored(str(given)) if asked.stored else Raw(asked.name, *self.store.extracted(given))
            error = None if len(raw.descriptors) else f"{asked.name} has no keypoints"
        except NotReady:  # what is lacking is the store's, and to count the query as not found would be a lie
            raise
        except FeatureStoreError as failed:
            raw, error = None, " ".join(str(failed).split())
        return self.as_query(asked, None if error else raw, error)

    @staticmethod
    def as_query(asked: Asked, raw: Raw | None, error: str | None) -> Query:
        """Return a query with these descriptors, or without any and why."""
        return Query(asked.name, raw, asked.kind, asked.refs, asked.half, asked.stored, error)

    def _stored(self, name: str) -> Raw:
        descriptors, keypoints = self.store.descriptors(name, "extract"), self.store.keypoints(name, "extract")
        if len(keypoints) != len(descriptors):
            raise NotReady(
                f"the descriptors of {name!r} have no keypoints, since they were imported, and tune checks matches by "
                "where they are; make a new store, and extract its images"
            )
        return Raw(name, descriptors, keypoints, name in self.train)

    def _part(self, name: str, kind: Kind, seed: tuple[int, int]) -> Pixels:
        try:
            return degraded_part(self.store.pixels(name), kind, seed=seed)
        except NothingUsable as error:  # it has descriptors, so it was there: that it is not found would say nothing
            verify = command_line("verify", self.store.path)
            raise NothingUsable(
                f"the queries of tune are parts of the images, and {error}; all that has changed is named by: {verify}"
            ) from error


def draw_sample(store: FeatureStore, *, n_images: int, n_queries: int, seed: int, pairs: Path | None = None) -> Sample:
    """Draw the images and the queries of a sample.

    The queries are degraded parts of the images, of each class in turn, and those of the list of pairs. All queries for
    an image are in one half.

    Args:
        store: of the images.
        n_images: at most. Those that pairs name come first, the rest is drawn.
        n_queries: parts, at most three of an image.
        seed: of what is drawn, and of the parts.
        pairs: a list as of `evaluate`; None: parts only.

    Raises:
        NotReady: the store has too few images with descriptors of extract, or these were pruned.
        QueryError: the list can't be used.
    """
    usable = _usable(store)
    listed, wanted = ([], {}) if pairs is None else _listed(store, pairs, frozenset(usable), n_images)
    rng = np.random.default_rng([seed])
    others = [name for name in usable if name not in wanted]
    drawn = [others[i] for i in rng.permutation(len(others))[: max(0, n_images - len(wanted))]]
    names = tuple(name for name in usable if name in wanted or name in set(drawn))
    order = [names[i] for i in rng.permutation(len(names))]
    spread = [(name, KINDS[(at + turn) % len(KINDS)]) for turn in range(len(KINDS)) for at, name in enumerate(order)]
    halves = {**{name: at % 2 for at, name in enumerate(order)}, **wanted}
    parts = [
        Asked(f"{kind.name} of {name}", kind.name, (name,), halves[name], (name, kind, (seed, at)))
        for at, (name, kind) in enumerate(spread[:n_queries])
    ]
    asked = (*parts, *listed)
    train = frozenset(name for name in names if usable[name])
    about = [store.sql(_STATE).fetchall(), names, sorted(train), [str(one) for one in asked]]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return Sample(store, names, train, asked, len(usable), digest)


def _usable(store: FeatureStore) -> dict[str, bool]:
    """Return the images with stored descriptors of extract, and whether each is ``train``."""
    again = command_line("run", store.path, "extract")
    try:
        images = store.select(stage="extract", allow_missing=True)
    except NotReady as error:
        raise NotReady(f"tune needs the descriptors of extract, and {error}") from error
    table = images.load(["filename", "subset", "status", "n_descriptors"])
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    found = {str(name): subset == "train" for name, subset, status, n in rows if status == Status.OK and n}
    if len(found) < FEWEST:
        raise NotReady(
            f"tune needs at least {FEWEST} images with descriptors of extract, and {counted(len(found), 'image')} of "
            f"{len(rows):,} has them: the store is small, or partitions were pruned; extract them again with: {again}"
        )
    return found


def _listed(
    store: FeatureStore, pairs: Path, usable: frozenset[str], n_images: int
) -> tuple[list[Asked], dict[str, int]]:
    """Return the queries of a list whose refs are usable, while these leave room for others; and the half of each ref.

    Queries that share a ref are in the same half.
    """
    rows, _ = read_pairs(store, pairs, None)
    halves: dict[str, int] = {}
    found: list[Asked] = []
    for query, (kind, every) in rows.items():
        refs = tuple(name for name in every if name in usable)
        seen = {halves[name] for name in refs if name in halves}
        if not refs or len(seen) > 1 or len(halves.keys() | set(refs)) > max(1, n_images // 2):
            continue  # refs in both halves would join what has to stay apart
        half = seen.pop() if seen else len(found) % 2
        halves |= dict.fromkeys(refs, half)
        given = query if query in usable else Path(located_query(query, pairs))
        found.append(Asked(query, "pairs" if kind == ALL else kind, refs, half, given=given))
    return found, halves
