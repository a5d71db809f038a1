"""The report of an import."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from featurestore.catalog import FoundMembers
from featurestore.notebook import Tabular

EXAMPLES = 3


@dataclass(frozen=True)
class ImportReport(Tabular):
    """The report of an import."""

    n_files: int
    n_matched: int  # images of the store found in a file
    n_unmatched: int  # names in the files that match no image
    unmatched: tuple[str, ...]  # the first of them, with their files
    n_repeated: int  # names found in an earlier file, which was used
    published: tuple[int, ...]  # chunks
    left_alone: tuple[int, ...]  # chunks that had descriptors already
    waiting: tuple[FoundMembers, ...]  # chunks of which the files hold only some images
    n_absent: int  # chunks of which the files hold no image
    statuses: dict[str, int]  # images of the published chunks by status


def make_report(
    chunks: Sequence[FoundMembers],
    missing: Collection[int],
    *,
    n_chunks: int,
    n_files: int,
    statuses: Mapping[str, int],
    unmatched: Sequence[str],
    n_repeated: int,
) -> ImportReport:
    """Return the report of an import that published every missing chunk whose images were all found.

    Args:
        chunks: with images that were found.
        missing: the chunks that an import may publish.
        n_chunks: in the store.
        n_files: that were read.
        statuses: images of the published chunks by status.
        unmatched: names that match no image.
        n_repeated: names that matched an image which an earlier one had matched.
    """
    return ImportReport(
        n_files=n_files,
        n_matched=sum(chunk.n_found for chunk in chunks),
        n_unmatched=len(unmatched),
        unmatched=tuple(unmatched[:EXAMPLES]),
        n_repeated=n_repeated,
        published=tuple(c.chunk_id for c in chunks if c.chunk_id in missing and not c.n_missing),
        left_alone=tuple(c.chunk_id for c in chunks if c.chunk_id not in missing),
        waiting=tuple(c for c in chunks if c.n_missing and c.chunk_id in missing),
        n_absent=n_chunks - len(chunks),
        statuses=dict(statuses),
    )
