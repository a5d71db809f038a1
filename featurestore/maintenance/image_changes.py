"""Changes of image files since extraction. Only ``verify`` and ``run --check-images`` read the files again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc

from featurestore.catalog import Context, files_read_before, partitions_of, removed_ids, resolve
from featurestore.errors import MissingDependency, UnreadableFile
from featurestore.images import Damaged, Missing, ReadFailed, Source, TooLarge, image_at, why_absent
from featurestore.rows import SOURCE_VERSION, Status
from featurestore.stages import Extract
from featurestore.storage import PartitionFile
from featurestore.system import file_digest, unreadable


@dataclass(frozen=True)
class Recorded:
    """The record of extract about one image file."""

    chunk_id: int
    image_id: int
    filename: str
    status: str
    n_bytes: int | None  # None: the file was missing, or the descriptors were imported
    digest: str | None  # SHA-256; None: it was not read
    version: int | None  # of an image in a container or an object store, see `Entry`; None: it is not known


@dataclass(frozen=True)
class Change:
    """An image file that has changed since it was extracted."""

    source: Recorded
    kind: Literal["replaced", "gone", "broken", "appeared"]
    what: str


def recorded_sources(context: Context) -> Iterator[Recorded]:
    """Yield the records of the image files in the current partitions of extract, pruned ones included.

    Images that have left the dataset are skipped: their files may be deleted.
    """
    with context.catalog.reading() as connection:
        step = next(step for step in resolve(connection, context.flow) if isinstance(step.stage, Extract))
        partitions, removed = partitions_of(connection, step), removed_ids(connection)["image_id"]
    for row in partitions:
        with PartitionFile(context.root.at(row.path)) as file:
            table = file.columns(["image_id", "filename", "status", "source_bytes", "source_hash", SOURCE_VERSION])
        if len(removed):
            table = table.filter(pc.invert(pc.is_in(table["image_id"], removed)))
        for values in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
            yield Recorded(row.chunk_id, *values)


def change_of(images: Source, source: Recorded, *, deep: bool, trust: bool = False) -> Change | None:
    """Return the change of an image file since extraction, None if there is none.

    The bytes of an image of the same size and another version are read, and compared by their SHA-256.

    Args:
        images: where the images are.
        source: what was recorded.
        deep: read the bytes whatever the version is.
        trust: with ``deep``, do not read those of an image of the same size and the same known version.

    Raises:
        UnreadableFile: the file can't be read.
    """
    try:
        found = images.stat(source.filename)
    except Missing:
        gone = source.n_bytes is not None
        return Change(source, "gone", "the image file is gone; what was extracted from it is kept") if gone else None
    except Damaged:  # it is no file
        return None
    except UnreadableFile:
        if source.n_bytes is None:
            return None
        raise
    if source.n_bytes is None:
        there = source.status == Status.MISSING and (found.n_bytes is not None or _has_bytes(images, source.filename))
        return Change(source, "appeared", "the image file was missing, and is there now") if there else None
    if found.n_bytes not in (None, source.n_bytes):
        return Change(source, "replaced", f"the image file has {found.n_bytes} bytes, and had {source.n_bytes}")
    version = found.version if images.keeps_versions else None
    known = None not in (source.version, version)
    wanted = (known and source.version != version) or (deep and not (known and trust))
    if not wanted or source.digest is None:
        return None
    try:
        digest = _digest(images, source.filename, source.n_bytes)
    except Damaged as error:  # the bytes in an archive
        what = f"the image can't be read any more ({error}); what was extracted from it is kept"
        return Change(source, "broken", what)
    if digest != source.digest:
        what = "another content" if found.n_bytes is None else "the same size and another content"
        return Change(source, "replaced", f"the image file has {what}")
    return None


def _has_bytes(images: Source, filename: str) -> bool:
    """Return whether there are bytes of an image whose size only reading tells: a row of Parquet may have none.

    Raises:
        UnreadableFile: they can't be read.
    """
    try:
        images.read(filename, 0)
    except TooLarge:
        return True
    except (Missing, Damaged):
        return False
    except ReadFailed as error:
        raise unreadable(filename, str(error)) from error
    return True


def _digest(images: Source, filename: str, n_bytes: int) -> str | None:
    """Return the SHA-256 of an image's bytes, None if there are more of them than before.

    Raises:
        Damaged: they can't be read, and never will.
        UnreadableFile: they can't be read.
    """
    image = image_at(images.where, filename)
    if isinstance(image, str):
        return file_digest(Path(image))
    try:
        return hashlib.sha256(images.read(filename, n_bytes)).hexdigest()
    except TooLarge:
        return None
    except (Missing, ReadFailed) as error:
        raise unreadable(os.fspath(image), str(error)) from error


def replaced_images(context: Context) -> dict[int, frozenset[int]]:
    """Return, by chunk, the images whose file has changed or appeared since they were extracted.

    Every file is read; of images in a container or an object store those whose version is not the one that was
    recorded. The descriptors of one that is missing or can't be read are kept.
    """
    found: dict[int, set[int]] = {}
    images = context.source.listed()
    for source in recorded_sources(context):
        try:
            change = change_of(images, source, deep=True, trust=True)
        except UnreadableFile as error:
            context.reporter.say(f"what was extracted is kept: {error}")
            continue
        if change is not None and change.kind == "broken":
            context.reporter.say(f"{source.filename}: {change.what}")
        elif change is not None and change.kind != "gone":
            found.setdefault(source.chunk_id, set()).add(source.image_id)
    return {chunk: frozenset(images) for chunk, images in found.items()}


def reason_to_pass_over(context: Context) -> str | None:
    """Return why there are no image files to compare, None if there are some.

    Raises:
        UnreadableFile: the file can't be read.
    """
    try:
        reason = why_absent(context.images)
    except MissingDependency as error:
        return str(error)
    if reason is not None:
        return reason
    with context.catalog.reading() as connection:
        read = files_read_before(connection).values()
    images = context.source
    try:
        gone = bool(read) and not any(_is_there(images, name) for name in read)
    except UnreadableFile:  # there are missing files, which the comparison reports
        return None
    return f"there are no images in {context.images}, though some were read from it before" if gone else None


def _is_there(images: Source, name: str) -> bool:
    try:
        images.stat(name)
    except Missing:
        return False
    except Damaged:  # there is something, though it is no file
        return True
    return True
