"""Finished blocks: files with the rows of some images of a chunk of extract, until the chunk's partition is written.

``blocks/extract/<variant>/chunk-000022-<attempt>/block-<first image>-<images>-<payload>.parquet`` has the columns of
the future partition. The **attempt** identifies everything that its rows depend on except for the image files, of
which a block keeps the size and the time of the last change. So a block is used only for the partition it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from featurestore.errors import CorruptFile
from featurestore.images import Trouble, trouble_of
from featurestore.rows import Layout, Row
from featurestore.storage.manifest import BLOCK, check_manifest
from featurestore.storage.partition import PartitionFile
from featurestore.storage.partition_writer import PartitionWriter
from featurestore.storage.root import BLOCKS, Root
from featurestore.storage.row_digest import RowDigest
from featurestore.system import flush

FileState = tuple[int, int] | None  # bytes and version, see `state_of_image`; None: there is no such file

_NAME = re.compile(
    rf"(?P<folder>{BLOCKS}/[a-z_]+/[0-9a-f]{{16}}/chunk-(?P<chunk_id>\d{{6,9}})-[0-9a-f]{{16}})"
    r"/block-\d+-(?P<n>\d{1,9})-(?P<payload>[0-9a-f]{16})\.parquet"
)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a chunk: the future partition's manifest, the policies, and which images of an old one to redo.

    Attempts that differ in anything share no blocks. So another version of a library or a changed policy starts a
    chunk again: a partition names one version and one policy for all of its rows.
    """

    manifest: Mapping[str, Any]  # without the entries that only a block has: its payload, its images and their files

    @cached_property
    def identity(self) -> str:
        """The digest of the manifest: 16 hex digits."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def folder(self) -> str:
        """The name of the folder that holds its blocks."""
        of = self.manifest
        return f"{BLOCKS}/{of['stage']}/{of['variant']}/chunk-{of['chunk_id']:06d}-{self.identity}"


@dataclass(frozen=True)
class Block:
    """A finished block."""

    name: str
    image_ids: tuple[int, ...]  # ascending


@dataclass(frozen=True)
class Draft:
    """A block that is written and flushed under a temporary name, ready for `Root.publish`."""

    temporary: Path
    block: Block
    statuses: Counter[str]
    n_descriptors: int
    troubles: tuple[Trouble | None, ...]  # of each image
    n_warned: int  # pictures that were used although the decoder warned
    seconds: float  # to make it


@dataclass(frozen=True)
class Named:
    """The parts of a block's name."""

    name: str
    folder: str
    chunk_id: int
    n_images: int
    payload: str


def block_names(root: Root) -> list[Named]:
    """Return the parsed names of all finished blocks, sorted. A folder that can't be listed is skipped."""
    found = []
    for name in root.listing(BLOCKS, ".parquet")[0]:
        if match := _NAME.fullmatch(name):
            folder, chunk_id, n_images, payload = match.group("folder", "chunk_id", "n", "payload")
            found.append(Named(name, folder, int(chunk_id), int(n_images), payload))
    return found


def write_block(
    root: Root,
    attempt: Attempt,
    layout: Layout,
    rows: Iterable[tuple[FileState, Row]],
    *,
    warned: Callable[[Row], bool],
) -> Draft:
    """Write the rows of some images, ascending, with the state of each file before it was read.

    ``warned`` returns whether a row's picture was used although the decoder warned.

    Raises:
        NotEnoughSpace: the disk is full. No file is left behind.
    """
    started = time.perf_counter()
    image_ids, files, troubles = list[int](), list[FileState](), list[Trouble | None]()
    n_warned = 0
    with root.draft(f"{attempt.folder}/block.parquet") as temporary:
        writer = PartitionWriter(temporary, layout=layout, manifest=attempt.manifest)
        try:
            for state, row in rows:
                writer.write(row)
                image_ids.append(row.image_id)
                files.append(state)
                troubles.append(trouble_of(row))
                n_warned += warned(row)
            writer.close(image_ids=image_ids, files=files, statuses=writer.statuses)
        except BaseException:
            writer.abandon()
            raise
        flush(temporary)  # in the worker: the coordinator need not wait
    block = Block(f"{attempt.folder}/block-{image_ids[0]}-{len(image_ids)}-{writer.payload}.parquet", tuple(image_ids))
    counts, seconds = (writer.statuses, writer.n_descriptors), time.perf_counter() - started
    return Draft(temporary, block, *counts, tuple(troubles), n_warned, seconds)


@dataclass(frozen=True)
class Found:
    """The manifest of a block."""

    attempt: Attempt
    block: Block
    files: tuple[FileState, ...]  # of each image, before it was read
    statuses: frozenset[str]  # of its rows


def read_block(root: Root, named: Named) -> Found:
    """Return the manifest of a block. Its rows are checked against its name when blocks are joined.

    Raises:
        CorruptFile: the block is damaged, or does not match its name.
        FormatError: a newer version wrote it.
        UnreadableFile: it can't be read.
    """
    with PartitionFile(root.local(named.name)) as file:
        manifest = dict(file.manifest)
    check_manifest(manifest, BLOCK, named.name)
    image_ids, files, statuses, payload = (manifest.pop(e) for e in ("image_ids", "files", "statuses", "payload"))
    attempt, first = Attempt(manifest), manifest["first_image_id"]
    right = (
        (attempt.folder, payload, len(image_ids)) == (named.folder, named.payload, named.n_images)
        and len(files) == len(image_ids)
        and image_ids == sorted(set(image_ids))
        and first <= image_ids[0] <= image_ids[-1] < first + manifest["n_images"]
    )
    if not right:
        raise CorruptFile(f"{named.name} does not match its name")
    states = tuple(None if state is None else tuple(state) for state in files)
    return Found(attempt, Block(named.name, tuple(image_ids)), states, frozenset(statuses))


class DamagedBlock(CorruptFile):
    """A block does not hold the rows that its name promises. Its images are extracted again."""

    def __init__(self, block: Block) -> None:
        """Name the block."""
        super().__init__(f"{block.name} does not hold the rows that its name promises")
        self.block = block


def rows_of(root: Root, blocks: Sequence[Block], *, input_payload: str) -> Iterator[Row]:
    """Yield the rows of blocks that do not overlap, in the order of their images.

    Raises:
        DamagedBlock: the rows differ from those that were written. Some may have been yielded already.
    """
    for block in sorted(blocks, key=lambda block: block.image_ids):
        digest, expected = RowDigest(input_payload), iter(block.image_ids)
        try:
            with PartitionFile(root.local(block.name)) as file:
                for row in file.rows():
                    if row.image_id != next(expected, None):
                        raise DamagedBlock(block)
                    digest.update(row)
                    yield row
        except CorruptFile as error:
            raise DamagedBlock(block) from error
        promised = PurePosixPath(block.name).stem.rpartition("-")[2]
        if next(expected, None) is not None or digest.hexdigest() != promised:
            raise DamagedBlock(block)
