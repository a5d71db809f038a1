"""The header of the index file: what it was made of. Reading it needs neither faiss nor arrays."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.catalog import Context, HeldCatalog
from featurestore.storage import INDEX, Root

LOG = logging.getLogger("featurestore.query")
FORMAT = 2
PARTS = ("faiss", "images.npy")


@dataclass(frozen=True)
class IndexHeader:
    """The origin of an index file.

    Args:
        variant: of the stage ``words``.
        chunks: of each chunk that it has the payloads of words and of codes.
        n_descriptors: in all.
        sizes: bytes of each of its files, by the end of the name.
    """

    variant: str
    chunks: Mapping[int, str]
    n_descriptors: int
    sizes: Mapping[str, int]

    @property
    def name(self) -> str:
        """The name of its files, without their ends."""
        made_of = json.dumps([FORMAT, self.variant, sorted(self.chunks.items())]).encode()
        return f"{INDEX}/{self.variant}-{hashlib.sha256(made_of).hexdigest()[:16]}"

    def as_json(self) -> str:
        """Return the text of its file."""
        chunks = {str(chunk_id): key for chunk_id, key in sorted(self.chunks.items())}
        head = {"format": FORMAT, "variant": self.variant, "n_descriptors": self.n_descriptors}
        return json.dumps({**head, "sizes": dict(self.sizes), "chunks": chunks})


def read_header(context: Context, variant: str) -> IndexHeader | None:
    """Return the header of the store's index file for a variant of ``words``; None if there is none that can be used.

    faiss trusts what it reads, so that the file of an untrusted store is never opened.
    """
    if isinstance(context.catalog, HeldCatalog):
        return None
    for name in reversed(context.root.listing(INDEX, ".json")[0]):
        header = _parsed(context.root.local(name))
        if header is not None and header.variant == variant and _whole(context.root, header):
            return header
    return None


def _parsed(path: Path) -> IndexHeader | None:
    try:
        read: Any = json.loads(path.read_text(encoding="utf-8"))
        if read["format"] != FORMAT:
            return None
        chunks = {int(chunk_id): str(key) for chunk_id, key in read["chunks"].items()}
        sizes = {part: int(read["sizes"][part]) for part in PARTS}
        return IndexHeader(str(read["variant"]), chunks, int(read["n_descriptors"]), sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        LOG.warning("%s can't be read as the header of an index, and is ignored: %s", path.name, error)
        return None


def _whole(root: Root, header: IndexHeader) -> bool:
    try:
        return all(root.local(f"{header.name}.{part}").stat().st_size == size for part, size in header.sizes.items())
    except OSError:
        return False
