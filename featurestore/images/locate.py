"""Looking for the image files of a dataset: whether they exist, and hints if they do not.

Every check is of a single name, so that it is quick on a network folder with millions of files: a thousand names are
checked, and hints are tried on a few absent ones.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

MOST_NAMES = 1000  # that are checked
TRIED = 10  # absent names on which hints are tried
MOST_FOLDERS = 50  # subfolders that are tried in place of the image folder
MOST_ENTRIES = 10_000  # of a folder whose names are compared
DEPTH = 4  # folders above the image folder, or at the front of a name
NO_SUCH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})
URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:/", re.IGNORECASE)

Help = tuple[str, str] | None  # a hint, and where the file is


@dataclass(frozen=True)
class Whereabouts:
    """The number of checked images that exist."""

    n_looked: int
    n_absent: int
    example: str  # the repr of an absent name
    hint: str

    def __str__(self) -> str:
        """Return it in one line."""
        if self.n_looked == 1:
            many = "the one image that was looked for does not exist"
        elif self.n_absent == self.n_looked:
            many = f"none of the {self.n_looked:,} images that were looked for exists"
        else:
            is_, looked = "does" if self.n_absent == 1 else "do", f"{self.n_looked:,} images that were looked for"
            many = f"{self.n_absent:,} of the {looked} {is_} not exist"
        return f"{many}, for example {self.example}; {self.hint}"


def look_for(images: Path, filenames: Sequence[str]) -> Whereabouts:
    """Look for the first thousand of the files ``filenames`` below the folder ``images``."""
    looked = filenames[:MOST_NAMES]
    absent = [name for name in looked if not exists(images / name)]
    hint = _hint(images, absent[:TRIED]) if absent else ""
    return Whereabouts(len(looked), len(absent), repr(absent[0]) if absent else "", hint)


def exists(path: Path) -> bool:
    """Return whether a file exists; True if the system does not say."""
    try:
        path.stat()
    except OSError as error:
        return error.errno not in NO_SUCH
    except ValueError:  # NUL, or a character that the file system can't spell
        return False
    return True


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one; a link that leads to itself is not."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def twin(path: Path) -> Path | None:
    """Return the path if it exists, else the existing path that differs only by its Unicode form, or None.

    ``é`` as one character and ``e`` with a combining accent are two names to a file system.
    """
    if exists(path):
        return path
    parent = None if str(path).isascii() or path == path.parent else twin(path.parent)
    if parent is None:
        return None
    spelt = (parent / unicodedata.normalize(form, path.name) for form in ("NFC", "NFD"))
    return next(filter(exists, spelt), None)


def why_missing(path: Path) -> str:
    """Return the error text for a missing file."""
    if path.is_symlink():
        return "a link to a file that does not exist"
    found = twin(path)
    if found is None:
        return "the file does not exist"
    return f"the file does not exist; there is a file of this name in another Unicode form ({found.name!a})"


def _hint(images: Path, absent: Sequence[str]) -> str:
    """Return the hint that helps most of these names."""
    folders = list(islice(_folders_below(images), MOST_FOLDERS))
    ways: list[Callable[[str], Help]] = [
        lambda name: _as_url(images, name),
        lambda name: _with_slashes(images, name),
        lambda name: _above(images, name),
        lambda name: _below(images, folders, name),
        lambda name: _without_prefix(images, name),
        lambda name: _other_extension(images, name),
        lambda name: _other_form(images, name),
        lambda name: _other_case(images, name),
    ]
    found = [(name, help_) for name in absent for help_ in [next(filter(None, (way(name) for way in ways)), None)]]
    helped = [(name, help_) for name, help_ in found if help_ is not None]
    if not helped:
        held = ", ".join(repr(entry.name) for entry in _entries(images)[:3]) or "nothing"
        return f"the names are paths below {images}, which holds {held}: is it the right folder?"
    what, n = Counter(what for _, (what, _) in helped).most_common(1)[0]
    if 2 * n >= len(absent):
        return what
    name, (_, place) = helped[0]
    return f"{name!r} is at {place!r}: write the names as paths below {images}"


def _as_url(images: Path, name: str) -> Help:
    if not URL.match(name):
        return None
    return f"the names are URLs: download the files, and write their paths below {images} into the dataset", name


def _with_slashes(images: Path, name: str) -> Help:
    other = name.replace("\\", "/")
    if other == name or not exists(images / other):
        return None
    return "the names have backslashes, and exist with / in their place: correct the dataset", other


def _above(images: Path, name: str) -> Help:
    for folder in images.parents[:DEPTH]:
        if exists(folder / name):
            own = images.relative_to(folder).as_posix()
            doubled = f"the names begin with {own!r}, the folder's own name" if name.startswith(f"{own}/") else ""
            return f"{doubled or f'they are in {folder}'}: give --images {folder}", str(folder / name)
    return None


def _below(images: Path, folders: Sequence[Path], name: str) -> Help:
    for folder in folders:
        if exists(folder / name):
            return f"they are in {folder}: give --images {folder}", (folder / name).relative_to(images).as_posix()
    return None


def _without_prefix(images: Path, name: str) -> Help:
    parts = name.replace("\\", "/").split("/")
    for n in range(1, min(len(parts), DEPTH + 1)):
        rest = "/".join(parts[n:])
        if exists(images / rest):
            prefix = name[: len(name) - len(rest)]
            return f"without {prefix!r} before them the names exist: remove it from the dataset", rest
    return None


def _other_extension(images: Path, name: str) -> Help:

    before = PurePosixPath(name).suffix
    known = before.lower() in IMAGE_SUFFIXES
    for suffix in (s for lower in IMAGE_SUFFIXES for s in (lower, lower.upper()) if s != before):
        other = f"{name.removesuffix(before) if known else name}{suffix}"
        if exists(images / other):
            instead = f" in place of {before}" if known else " at their end"
            return f"the names exist with {suffix}{instead}: correct the dataset", other
    return None


def _other_form(images: Path, name: str) -> Help:
    found = twin(images / name)
    if found is None:
        return None
    form = "NFC" if unicodedata.is_normalized("NFC", str(found.relative_to(images))) else "NFD"
    return (
        f"they are there in another Unicode form: convert the dataset to {form}, or rename the files",
        found.relative_to(images).as_posix(),
    )


def _other_case(images: Path, name: str) -> Help:
    place = images
    for part in PurePosixPath(name).parts:
        like = [entry.name for entry in _entries(place) if folded(entry.name) == folded(part)]
        if not like:
            return None
        place /= like[0]
    return "they are there with other upper and lower case: correct the dataset", place.relative_to(images).as_posix()


def folded(name: str) -> str:
    """Return a name in one Unicode form and case."""
    return unicodedata.normalize("NFC", name).casefold()


def _folders_below(folder: Path) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        below = [Path(entry) for entry in _entries(waiting.pop(0)) if entry.is_dir(follow_symlinks=False)]
        waiting += below
        yield from below


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted; none if it can't be listed, since they only serve for hints."""
    try:
        with os.scandir(folder) as found:
            seen = [entry for entry in islice(found, MOST_ENTRIES) if not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(seen, key=lambda entry: entry.name)


IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".avif"),
)
