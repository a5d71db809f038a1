"""The header of the index file: what it was made of. Reading it needs neither faiss nor arrays."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from featurestore.errors import CorruptFile, UnreadableFile
from featurestore.storage.root import INDEX, Root
from featurestore.system import file_digest, is_file, readable

LOG = logging.getLogger("featurestore.storage")
FORMAT = 2
INDEX_PARTS = ("faiss", "images.npy")
HEADER = ".json"


@dataclass(frozen=True)
class IndexHeader:
    """The origin of an index file.

    Args:
        variant: of the stage ``words``.
        chunks: of each chunk that it has the payloads of words and of codes.
        n_descriptors: in all.
        sizes: bytes of each of its files, by the end of the name.
        checksums: SHA-256 of each of its files; none in a file that an earlier version made.
    """

    variant: str
    chunks: Mapping[int, str]
    n_descriptors: int
    sizes: Mapping[str, int]
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its files, without their ends."""
        made_of = json.dumps([FORMAT, self.variant, sorted(self.chunks.items())]).encode()
        return f"{INDEX}/{self.variant}-{hashlib.sha256(made_of).hexdigest()[:16]}"

    def as_json(self) -> str:
        """Return the text of its file."""
        chunks = {str(chunk_id): key for chunk_id, key in sorted(self.chunks.items())}
        head = {"format": FORMAT, "variant": self.variant, "n_descriptors": self.n_descriptors}
        return json.dumps({**head, "sizes": dict(self.sizes), "checksums": dict(self.checksums), "chunks": chunks})

    def is_whole(self, root: Root) -> bool:
        """Return whether its files are there, with the bytes that it promises."""
        try:
            return all(root.local(f"{self.name}.{part}").stat().st_size == size for part, size in self.sizes.items())
        except OSError:
            return False


def find_index_header(root: Root, variant: str) -> IndexHeader | None:
    """Return the header of a store's index file for a variant of ``words``; None if there is none that can be used."""
    for name in reversed(root.listing(INDEX, HEADER)[0]):
        try:
            header = _read(root, name)
        except (CorruptFile, UnreadableFile) as error:
            LOG.warning("%s is ignored: %s", name, error)
            continue
        if header is not None and header.variant == variant and header.is_whole(root):
            return header
    return None


def check_index_files(root: Root, name: str) -> None:
    """Compare the files of an index with its header, the file ``name``. A header of another format says nothing.

    Raises:
        CorruptFile: they differ, or the header can't be used.
        UnreadableFile: one can't be read.
    """
    header = _read(root, name)
    if header is None:
        return
    for part, size in header.sizes.items():
        file = f"{name.removesuffix(HEADER)}.{part}"
        path = root.local(file)
        if not is_file(path):
            raise CorruptFile(f"{file} is missing")
        known = part in header.checksums
        if path.stat().st_size != size or (known and file_digest(path) != header.checksums[part]):
            raise CorruptFile(f"{file} has not the bytes that its header promises")


def _read(root: Root, name: str) -> IndexHeader | None:
    path = root.local(name)
    try:
        with readable(path):
            read: Any = json.loads(path.read_text(encoding="utf-8"))
        if read["format"] != FORMAT:
            return None
        chunks = {int(chunk_id): str(key) for chunk_id, key in read["chunks"].items()}
        sizes = {part: int(read["sizes"][part]) for part in INDEX_PARTS}
        checksums = {str(part): str(digest) for part, digest in read.get("checksums", {}).items()}
        return IndexHeader(str(read["variant"]), chunks, int(read["n_descriptors"]), sizes, checksums)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{name} can't be read as the header of an index ({error})") from error
