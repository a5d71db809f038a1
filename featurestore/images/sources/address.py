"""Addresses of sources: a folder, a file that holds images, a pattern of such files, or a prefix in an object store.

``paintings``, ``wikiart.zip``, ``wikiart.zip!wikiart``, which means a folder in the file, and ``s3://bucket/prefix``.
"""

from __future__ import annotations

import os
import re
from glob import has_magic
from pathlib import Path
from typing import NamedTuple

from featurestore.errors import DatasetError, ImagesGone
from featurestore.images.sources.base import Source
from featurestore.images.sources.container import Archive, Container, Place, by_stem, compressed, gone, plain
from featurestore.images.sources.folder import Folder
from featurestore.images.sources.object_store import Objects, located_remote
from featurestore.images.sources.parquet_file import ParquetArchive
from featurestore.images.sources.tar_file import TarArchive
from featurestore.images.sources.zip_file import ZipArchive
from featurestore.system import StrPath, is_folder, is_remote, located, matching, shown, status_of

ARCHIVES: dict[str, type[Archive]] = {".zip": ZipArchive, ".tar": TarArchive, ".parquet": ParquetArchive}
WITH_PREFIX = re.compile(r"(?P<file>.*\.(zip|tar))!(?P<prefix>.*)", re.IGNORECASE | re.DOTALL)
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)


class _Parts(NamedTuple):
    file: str  # a path, or a pattern of paths
    prefix: str | None  # what follows the exclamation mark
    archive: type[Archive] | None  # None: it is a folder


def located_images(path: StrPath, base: StrPath = "") -> str:
    """Return an address with an absolute path; nothing need exist there.

    The name of a file is kept if it is a link: it tells the format.

    Raises:
        UnusablePath: no file can have such a path.
        UnreadableFile: the system does not say whether it is a folder.
        DatasetError: it names no bucket of an object store.
    """
    given = os.fspath(path)
    if is_remote(given):
        return located_remote(given)
    whole = located(given if given.startswith("~") else Path(base, given), "the folder of images")
    parts = _parts(given)
    if parts.archive is None or is_folder(whole):
        return str(whole)
    file = Path(parts.file)
    above = located(file.parent if parts.file.startswith("~") else base / file.parent, "the folder of images")
    return f"{above / file.name}{'' if parts.prefix is None else f'!{parts.prefix}'}"


def existing_images(path: StrPath) -> str:
    """Return an address as `located_images` does.

    Raises:
        DatasetError: there is nothing, or it can't be used.
        UnusablePath: no file can have such a path.
        MissingDependency: a package for object stores is not installed.
    """
    where = located_images(path)
    if (reason := why_absent(where)) is not None:
        if is_remote(where):
            raise DatasetError(f"{reason}; see docs/sources.md, or give another address to --images")
        file = is_container(where)
        what, why = ("file", "does not exist") if file else ("folder", "does not exist or is not a folder")
        raise DatasetError(f"the {what} of images {shown(path)} {why}; give another to --images")
    return where


def open_source(where: str) -> Source:
    """Open the source at an address, as `located_images` returns it.

    Raises:
        ImagesGone: it names a file that is not there.
        DatasetError: it can't be used.
        UnreadableFile: the system does not say whether it is there.
        MissingDependency: a package for object stores is not installed.
    """
    if is_remote(where):
        return _remote(where)
    parts = _parts(where)
    if parts.archive is None or not is_container(where):
        if COMPRESSED.search(where) and not is_folder(Path(where)):
            raise compressed(where)
        return Folder(where)
    return Container(where, Place(parts.archive, _files(parts.file), plain(parts.prefix or "") or ""))


_OPEN: dict[tuple[str, int], Container | Objects] = {}


def source_at(where: str) -> Source:
    """Return the open source at an address: each process opens it once, and again when its files have changed.

    Raises: as `open_source` does.
    """
    key = (where, os.getpid())  # what a forked process inherits is its parent's
    known = _OPEN.get(key)
    if known is not None and _is_as_opened(known):
        return known
    forget(where)
    found = open_source(where)
    if isinstance(found, (Container, Objects)):
        _OPEN[key] = found
    return found


def is_container(where: str) -> bool:
    """Return whether an address names files that hold images, by their extension; they need not exist.

    Raises:
        UnreadableFile: the system does not say whether it is a folder.
    """
    return not is_remote(where) and _parts(where).archive is not None and not is_folder(Path(where))


def opened_at(where: str) -> Source:
    """Return the open source at an address as `source_at` does, without a look at its files if it is open."""
    return _OPEN.get((where, os.getpid())) or source_at(where)


def container_at(where: str, identity: str | None = None) -> Container:
    """Return an open container as `source_at` does, without a look at its files if it is open.

    ``identity`` is that of the container when a run began: what this process opened for an earlier run, and has another
    one, is looked at.
    """
    found = opened_at(where)
    if isinstance(found, Container) and identity not in (None, found.identity):
        found = source_at(where)
    assert isinstance(found, Container)
    return found


def forget(where: str) -> None:
    """Close a container or client that this process opened."""
    known = _OPEN.pop((where, os.getpid()), None)
    if known is not None:
        known.close()


def why_absent(where: str) -> str | None:
    """Return why there is no source at an address, like ``/data is not there``; None if there is one.

    Raises:
        UnreadableFile: the system does not say.
        DatasetError: it can't be used.
        MissingDependency: a package for object stores is not installed.
    """
    if is_remote(where):
        return _remote(where).why_absent()
    try:
        there = not isinstance(open_source(where), Folder) or is_folder(Path(where))
    except ImagesGone:
        there = False
    return None if there else f"{where} is not there"


def _is_as_opened(known: Container | Objects) -> bool:
    """Return whether the files of a source are those that were opened; others may match its pattern by now."""
    if isinstance(known, Container) and _files(_parts(known.where).file) != known.files:
        return False
    return known.is_same()


def _remote(where: str) -> Objects:
    if ARCHIVES.get(Path(where).suffix.lower()) or COMPRESSED.search(where):
        raise DatasetError(
            f"{where} is a file of images in an object store, of which single images can't be read; copy it to this "
            "machine, or unpack it into objects"
        )
    return Objects(where)


def _parts(where: str) -> _Parts:
    match = WITH_PREFIX.fullmatch(where)
    file, prefix = (match["file"], match["prefix"]) if match else (where, None)
    return _Parts(file, prefix, ARCHIVES.get(Path(file).suffix.lower()))


def _files(file: str) -> dict[str, Path]:
    if not has_magic(file) or status_of(Path(file)) is not None:
        path = Path(file)
        return {path.stem if path.suffix.lower() == ".parquet" else "": path}
    found = matching(Path(file))
    if not found:
        raise gone(Path(file))
    return by_stem(found, file)
