"""Vetting an untrusted store: only files that pass all checks are used.

Its catalog file is never opened. A sandbox process reads and checks every file; those that pass make a catalog in
memory, the others are left out and reported.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

from featurestore.catalog import HeldCatalog
from featurestore.errors import UntrustedStore
from featurestore.maintenance.sandbox import run_child
from featurestore.storage import CATALOG, Root
from featurestore.system import readable, scratch_folder


def refuse_links(folder: Path) -> None:
    """Check that a store holds only files and folders: a link leads out of it, and a pipe never ends.

    Raises:
        UntrustedStore: it holds a link, pipe or device.
        UnreadableFile: a folder can't be listed.
    """
    for path in _entries(folder):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "a pipe, a socket or a device"
            raise UntrustedStore(
                f"{path} is {kind}, and an untrusted store may hold files and folders only; remove it if you know "
                "what it is, or ask for the store without it"
            )


def _entries(folder: Path) -> Iterator[Path]:
    folders = [folder]
    while folders:
        with readable(folders[-1]):
            paths = list(folders.pop().iterdir())
        for path in paths:
            yield path
            if path.is_dir() and not path.is_symlink():
                folders.append(path)


def vetted_catalog(root: Root) -> tuple[HeldCatalog, tuple[str, ...]]:
    """Return an in-memory catalog of the files that pass all checks, and a line for each of the others.

    Raises:
        UnreadableFile: a dataset file can't be read.
        CorruptFile: a dataset file can't be used, or the process that reads the files crashed.
    """
    with scratch_folder() as folder:
        draft = folder / CATALOG
        run_child("vet", root.path, draft)
        notes = tuple(json.loads(draft.with_name("notes.json").read_text(encoding="utf-8")))
        catalog = HeldCatalog(root)
        catalog.take_over(draft)
    return catalog, notes
