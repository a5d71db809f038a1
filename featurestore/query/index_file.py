"""The file of the index: in a folder of its own, made of the partitions of words, disposable and never edited.

``index/NAME.json`` says what it was made of, and is written last. ``NAME.faiss`` has the words, signatures
and keypoints, and
``NAME.images.npy`` the extent of each image. NAME depends on what it was made of.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from featurestore.errors import CorruptFile
from featurestore.retrieval import Extents, WordsIndex
from featurestore.storage import INDEX, INDEX_PARTS, IndexHeader, Root, Writer
from featurestore.system import file_digest

IMAGE = np.dtype([("image_id", "<i8"), ("x", "<f4"), ("y", "<f4")])  # and how far its keypoints reach
LOG = logging.getLogger("featurestore.query")


@dataclass(frozen=True)
class IndexFile:
    """An open index file, mapped."""

    header: IndexHeader
    index: WordsIndex
    extents: Extents


def open_index_file(root: Root, header: IndexHeader) -> IndexFile | None:
    """Open the files of an index; None if they are damaged, or another process has removed them.

    Raises:
        MissingDependency: faiss is not installed.
    """
    index, images = (root.local(f"{header.name}.{part}") for part in INDEX_PARTS)
    try:
        rows = np.load(images).view(IMAGE)
        extents = Extents(np.ascontiguousarray(rows["image_id"]), np.stack([rows["x"], rows["y"]], axis=1))
        found = IndexFile(header, WordsIndex.mapped(index), extents)
        if len(found.index) != header.n_descriptors:
            raise CorruptFile(f"{index.name} has not as many descriptors as its header says")
    except (OSError, ValueError, CorruptFile) as error:
        LOG.warning("the index %s is not used: %s", header.name, error)
        return None
    return found


def write_index_file(
    writer: Writer, variant: str, chunks: Mapping[int, str], index: WordsIndex, extents: Extents
) -> IndexHeader:
    """Write an index, and remove all others.

    Raises:
        NotEnoughSpace: the disk is full; the index that was there stays.
        StoreBusy: another process has taken over.
    """
    sizes: dict[str, int] = {}
    checksums: dict[str, str] = {}
    name = IndexHeader(variant, chunks, len(index), sizes).name
    rows = np.empty(len(extents.image_ids), IMAGE)
    rows["image_id"], rows["x"], rows["y"] = extents.image_ids, *extents.extents.T
    for part in INDEX_PARTS:
        with writer.publishing(f"{name}.{part}") as path:
            if part == "faiss":
                index.save(path)
            else:
                with path.open("wb") as file:
                    np.save(file, rows)
            sizes[part], checksums[part] = path.stat().st_size, file_digest(path)
    header = IndexHeader(variant, chunks, len(index), sizes, checksums)
    with writer.publishing(f"{name}.json") as path:
        path.write_text(header.as_json(), encoding="utf-8")
    for other in writer.files(INDEX, ""):
        if not other.startswith(f"{name}."):
            writer.remove(other)
    return header
