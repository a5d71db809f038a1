"""The index of words: for each word the signatures of its descriptors, searched by Hamming distance (faiss).

`IndexIVFSpectralHash` whose thresholds are the centroids is Hamming embedding (Jégou et al. 2008). Nothing is trained
here: words and rotation are those of ``fit_words``, and its cells are the first level of the quantizer.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import CorruptFile, MissingDependency, QueryError
from featurestore.retrieval import packed_keypoints
from featurestore.retrieval.nearest_words import CellWords, Floats, hardly_farther, nearest_words

BITS = 64
PROBED_CELLS = 8  # in which a query's words are looked for, as in the stage `words`
LEAST_CELLS = 5  # the same in a large query
LARGE = 900  # descriptors of a query up to which nothing is spared, see `effort`
AT_ONCE = 400  # descriptors of a query from which on their words are found by matrix products
MANY_ENTRIES = 1 << 22  # from which on several threads compare them
THREADS = 4  # at most
PLACE_BITS = packed_keypoints.BITS  # of an entry's id: the packed keypoint; the rest is the image_id
MOST_IMAGES = 1 << (63 - PLACE_BITS)
PERIOD = 1e9  # of faiss's bits, which are signs if it is larger than any residual
# faiss has a bit where the residual is negative, the lowest first; signatures have one where it is positive, the
# highest first.
_FAISS_BITS = np.array([int(f"{~byte & 255:08b}"[::-1], 2) for byte in range(256)], np.uint8)


@dataclass(frozen=True)
class Neighbours:
    """Descriptors near those of a query, nearest first.

    Args:
        distances: ``(n, k)`` float32, Hamming distances of signatures, from 0 to 64; infinite where there is none.
        image_ids: ``(n, k)`` int64; -1 where there is none.
        places: ``(n, k)`` int64, the packed keypoints.
    """

    distances: NDArray[np.float32]
    image_ids: NDArray[np.int64]
    places: NDArray[np.int64]


def effort(whole: int, n_descriptors: int, *, least: int) -> int:
    """Return the effort for each of a query's descriptors: the whole for up to `LARGE`, then as much for all together.

    Args:
        whole: of a small query.
        n_descriptors: of the query.
        least: of each descriptor, however many there are.
    """
    return max(least, whole * LARGE // max(LARGE, n_descriptors))


def has_faiss() -> bool:
    """Return whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None


def import_faiss() -> Any:
    """Return the module faiss.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency(
            "the index is searched with faiss, which is not installed; pip install 'featurestore[search]'"
        ) from error
    return faiss


class WordsIndex:
    """An index in memory that entries are added to, or one of a file, mapped, that is only searched."""

    def __init__(self, index: Any, quantizer: Any = None) -> None:
        """Take a faiss index; it does not keep its quantizer alive."""
        self._index, self._quantizer = index, quantizer

    @classmethod
    def empty(cls, model: Mapping[str, NDArray[Any]]) -> WordsIndex:
        """Return an index without entries.

        Args:
            model: of ``fit_words``: ``cells`` ``(cells, dim)``, ``words`` ``(words, dim)``, ``starts`` ``(cells + 1,)``
                and ``rotation`` ``(dim, 64)``.

        Raises:
            MissingDependency: faiss is not installed.
        """
        faiss = import_faiss()
        words, rotation = model["words"].astype(np.float32), model["rotation"].astype(np.float32)
        quantizer = _quantizer(faiss, model["cells"].astype(np.float32), words, model["starts"])
        index = faiss.IndexIVFSpectralHash(quantizer, words.shape[1], len(words), BITS, PERIOD)
        turn = faiss.LinearTransform(words.shape[1], BITS, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(rotation.T).ravel(), turn.A)
        turn.is_trained = True
        index.replace_vt(turn, False)
        index.threshold_type = faiss.IndexIVFSpectralHash.Thresh_centroid  # replace_vt resets it
        faiss.copy_array_to_vector((words @ rotation).ravel(), index.trained)
        index.is_trained = True
        return cls(index, (quantizer, turn))

    @classmethod
    def mapped(cls, path: Path) -> WordsIndex:
        """Open a file of `save` without reading its entries.

        Raises:
            CorruptFile: faiss can't read it.
            MissingDependency: faiss is not installed.
        """
        faiss = import_faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise CorruptFile(f"{path.name} can't be read as an index; remove it, and the next run makes it") from error
        if not isinstance(index, faiss.IndexIVFSpectralHash):
            raise CorruptFile(f"{path.name} is an index of another kind; remove it, and the next run makes it")
        return cls(index)

    def __len__(self) -> int:
        """Return the number of entries."""
        return int(self._index.ntotal)

    @property
    def n_words(self) -> int:
        """The number of words, with entries or without."""
        return int(self._index.nlist)

    def add(
        self,
        words: NDArray[np.uint32],
        signatures: NDArray[np.uint8],
        image_ids: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> None:
        """Add the entries of some descriptors.

        Args:
            words: ``(n,)`` uint32.
            signatures: ``(n, 8)`` uint8, as of the stage ``words``.
            image_ids: ``(n,)`` int64.
            places: ``(n,)`` int64, of each descriptor the packed keypoint.

        Raises:
            CorruptFile: there is no such word.
            QueryError: there are more images than fit into an index.
        """
        if not len(words):
            return
        if int(words.max()) >= self.n_words:
            raise CorruptFile("a partition of words has words that the codebook lacks; put back a copy of it")
        if int(image_ids.max()) >= MOST_IMAGES:
            raise QueryError(
                f"an index has room for the images below number {MOST_IMAGES:,}; remove [fit_words] and [words] from "
                "featurestore.toml, and searches are exact"
            )
        order = np.argsort(words, kind="stable")
        entries = (image_ids[order] << PLACE_BITS) | places[order]
        codes = _FAISS_BITS[signatures[order]]
        present, first = np.unique(words[order], return_index=True)
        lists, pointer = self._index.invlists, import_faiss().swig_ptr
        for word, start, stop in zip(present.tolist(), first, [*first[1:], len(words)], strict=True):
            lists.add_entries(word, int(stop - start), pointer(entries[start:stop]), pointer(codes[start:stop]))
        self._index.ntotal += len(words)

    def search(self, query: NDArray[np.float32], *, k: int, n_words: int, most: int | None = None) -> Neighbours:
        """Return the ``k`` nearest entries of each descriptor among those of its nearest words.

        Args:
            query: ``(n, dim)`` float32, in the space of the codes.
            k: neighbours of each.
            n_words: whose entries are compared.
            most: words whose entries are compared with any, of all descriptors together; None for ``n_words`` of each.
        """
        query, n_words = np.ascontiguousarray(query, np.float32), min(n_words, self.n_words)
        parameters = import_faiss().SearchParametersIVF(nprobe=n_words)
        if self._cells is None or (len(query) < AT_ONCE and len(self) < MANY_ENTRIES):
            distances, entries = self._index.search(query, k, params=parameters)
        else:
            away, words = self._nearest_words(query, n_words)
            if most is not None:
                words = np.where(hardly_farther(away, most), words, -1)  # which faiss leaves out
            distances, entries = self._compared(query, k, (away, words), parameters)
        none = entries < 0
        return Neighbours(
            np.where(none, np.inf, distances).astype(np.float32),
            np.where(none, -1, entries >> PLACE_BITS),
            np.where(none, 0, entries & ((1 << PLACE_BITS) - 1)),
        )

    @cached_property
    def _cells(self) -> tuple[Floats, list[CellWords]] | None:
        """The cells, and the words of each, not copied; None if there are too few words for cells."""
        faiss = import_faiss()
        quantizer = faiss.downcast_index(self._index.quantizer)
        if not isinstance(quantizer, faiss.IndexIVFFlat):
            return None
        cells = faiss.downcast_index(quantizer.quantizer)
        lists, dim, of = quantizer.invlists, quantizer.d, list[CellWords]()
        for cell in range(quantizer.nlist):
            n = lists.list_size(cell)
            if n:
                ids, words = lists.get_ids(cell), lists.get_codes(cell)
                floats = faiss.rev_swig_ptr(words, n * dim * 4).view(np.float32).reshape(n, dim)
                of.append(CellWords.of(faiss.rev_swig_ptr(ids, n), floats))
            else:
                of.append(CellWords.of(np.empty(0, np.int64), np.empty((0, dim), np.float32)))
        return cells.reconstruct_n(0, cells.ntotal), of

    def _nearest_words(self, query: NDArray[np.float32], n_words: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self._cells is None or len(query) < AT_ONCE:
            found: tuple[NDArray[np.float32], NDArray[np.int64]] = self._index.quantizer.search(query, n_words)
            return found
        probed = effort(PROBED_CELLS, len(query), least=LEAST_CELLS)
        return nearest_words(query, *self._cells, n_words=n_words, probed=probed)

    def _compared(
        self, query: Floats, k: int, near: tuple[Floats, NDArray[np.int64]], parameters: Any
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return distances and entries ``(n, k)`` of the nearest in words that are ``near``, by threads if many."""
        faiss = import_faiss()
        away, words = map(np.ascontiguousarray, near)
        distances, entries = np.empty((len(query), k), np.float32), np.empty((len(query), k), np.int64)

        def compare(rows: slice) -> None:
            faiss.omp_set_num_threads(1)  # of this thread
            given, *others = (faiss.swig_ptr(values[rows]) for values in (query, words, away, distances, entries))
            self._index.search_preassigned_c(len(query[rows]), given, k, *others, False, parameters)

        n = min(THREADS, os.cpu_count() or 1) if len(self) >= MANY_ENTRIES else 1
        size = max(1, -(-len(query) // n))
        with ThreadPoolExecutor(n) as pool:
            list(pool.map(compare, (slice(start, start + size) for start in range(0, len(query), size))))
        return distances, entries

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        import_faiss().write_index(self._index, str(path))


def _quantizer(faiss: Any, cells: NDArray[np.float32], words: NDArray[np.float32], starts: NDArray[np.int64]) -> Any:
    """Return an index of the words: flat for few of them, else by cells."""
    dim = words.shape[1]
    if len(cells) <= PROBED_CELLS:
        flat = faiss.IndexFlatL2(dim)
        flat.add(np.ascontiguousarray(words))
        return flat
    first = faiss.IndexFlatL2(dim)
    first.add(np.ascontiguousarray(cells))
    quantizer = faiss.IndexIVFFlat(first, dim, len(cells))
    quantizer.own_fields = True
    first.this.disown()
    for cell in range(len(cells)):
        ids = np.arange(starts[cell], starts[cell + 1], dtype=np.int64)
        own = np.ascontiguousarray(words[ids])
        if len(ids):
            quantizer.invlists.add_entries(
                cell, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(own.view(np.uint8).ravel())
            )
    quantizer.ntotal, quantizer.is_trained, quantizer.nprobe = len(words), True, PROBED_CELLS
    return quantizer


def merge_neighbours(parts: Sequence[Neighbours], *, k: int) -> Neighbours:
    """Return the ``k`` nearest of several indexes' neighbours; on a tie those of the earlier index."""
    distances = np.concatenate([part.distances for part in parts], axis=1)
    kept = np.argsort(distances, axis=1, kind="stable")[:, :k]

    def chosen(values: list[NDArray[Any]]) -> NDArray[Any]:
        return np.take_along_axis(np.concatenate(values, axis=1), kept, axis=1)

    return Neighbours(
        np.take_along_axis(distances, kept, axis=1),
        chosen([part.image_ids for part in parts]),
        chosen([part.places for part in parts]),
    )
