"""The view ``duplicates``: pairs that were found, as far as they hold for the codes of today.

A pair holds as long as the codes of both images are those that were compared, and both are in the dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection
from numpy.typing import NDArray

from featurestore.arrow_arrays import arrow_array, numpy_array
from featurestore.catalog import Context, HeldCatalog, Step, chunk_states, removed_ids
from featurestore.errors import CorruptFile, UnreadableFile
from featurestore.formatting import counted
from featurestore.stages import codes_of
from featurestore.storage import PAIR_SCHEMA, FoundPairs, find_pairs_file, read_pairs_file
from featurestore.system import command_line

DUPLICATES = "duplicates"


@dataclass(frozen=True)
class Duplicates:
    """The pairs that hold, and how much of the dataset was compared.

    Args:
        rows: of `PAIR_SCHEMA`, with ``group_id``, the least ``image_id`` of a group.
        n_images: in the dataset.
        n_compared: of them, those that were compared as they are now.
        fault: why no pairs are known; None if they are.
    """

    rows: pa.Table
    n_images: int
    n_compared: int
    fault: str | None = None

    def note(self, context: Context) -> str | None:
        """Return what a reader of the view has to know, in one line; None if all images were compared."""
        again = command_line("pairs", context.root.path, "OUT.csv")
        if self.fault is not None:
            return f"{DUPLICATES} is empty: {self.fault}; fill it with: {again}"
        if self.n_compared == self.n_images:
            return None
        return (
            f"{DUPLICATES} is of {self.n_compared:,} of {counted(self.n_images, 'image')}; the others are new or have "
            f"changed since they were compared, or have no codes. Compare them with: {again}"
        )


def find_duplicates(context: Context, connection: DuckDBPyConnection, steps: Sequence[Step]) -> Duplicates:
    """Return the pairs that hold for the current recipe."""
    codes = codes_of(context.flow).name
    chunks = [state for state in chunk_states(connection, steps) if state.stage == codes]
    found, fault = _read(context, next(step.variant for step in steps if step.stage.name == codes))
    removed = numpy_array(removed_ids(connection)["image_id"])
    there = np.ones(max((chunk.first_image_id + chunk.n_images for chunk in chunks), default=0), bool)
    there[removed] = False
    n_images = int(there.sum())
    for chunk in chunks:
        known = found is not None and chunk.payload is not None and found.chunks.get(chunk.chunk_id) == chunk.payload
        if not (known and chunk.current and chunk.upstream_current):
            there[chunk.first_image_id : chunk.first_image_id + chunk.n_images] = False
    rows = pa.Table.from_batches([], PAIR_SCHEMA) if found is None else _holding(found.rows, there)
    query, ref = (numpy_array(rows[name]) for name in ("query_id", "ref_id"))
    rows = rows.append_column("group_id", arrow_array(groups(query, ref)))
    return Duplicates(rows, n_images, int(there.sum()), fault)


def _read(context: Context, variant: str | None) -> tuple[FoundPairs | None, str | None]:
    """Return the pairs that were found with a variant, or why there are none."""
    if isinstance(context.catalog, HeldCatalog):
        return None, "the pairs of an untrusted store are not used. If you trust it, open it without --untrusted"
    name = None if variant is None else find_pairs_file(context.root, variant)
    if name is None:
        return None, "no pairs have been searched for with the codes of the current recipe"
    try:
        return read_pairs_file(context.root, name), None
    except (CorruptFile, UnreadableFile) as error:
        return None, str(error)


def _holding(rows: pa.Table, there: NDArray[np.bool_]) -> pa.Table:
    query, ref = (numpy_array(rows[name]) for name in ("query_id", "ref_id"))
    known = (query >= 0) & (query < len(there)) & (ref >= 0) & (ref < len(there))
    known[known] = there[query[known]] & there[ref[known]]
    return rows.take(arrow_array(np.flatnonzero(known)))


def groups(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group of each pair: the least number that it is connected with, over any number of pairs.

    Args:
        one: ``(n,)`` an end of each pair.
        other: ``(n,)`` the other end.
    """
    ids, ends = np.unique(np.concatenate([one, other]), return_inverse=True)
    a, b = ends[: len(one)], ends[len(one) :]
    label = np.arange(len(ids))
    while True:
        before, least = label.copy(), np.minimum(label[a], label[b])
        for end in (a, b):
            np.minimum.at(label, label[end], least)  # at the root too, so that long chains take few rounds
            np.minimum.at(label, end, least)
        label = label[label]
        if (label == before).all():
            return ids[label[a]].astype(np.int64)
