"""A file that grows as work is done: after a kill the work goes on after the last piece that was whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from featurestore.errors import OutputError
from featurestore.system import readable, refuse_output, room_on_disk, unwritten

LOG = logging.getLogger("featurestore.apps")
FORMAT = 1
DIGESTS = ("state of the store",)  # what a file is made of that means nothing to a reader
PIECE = 1 << 20  # bytes that are read at a time
SUFFIX = ".progress"  # of the file beside it


@dataclass
class GrowingFile:
    """A file of lines, and beside it how far it is and what it is made of.

    Args:
        path: of the file.
        made_of: what decides its content, as values of JSON by what they are called in a message.
        done: pieces of work that are in it.
        n_bytes: of these; what follows was written by a process that was killed.
        notes: more that the work wants to know when it goes on, as values of JSON.
        complete: whether all work is in it.
    """

    path: Path
    made_of: Mapping[str, Any]
    done: int = 0
    n_bytes: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    _file: BinaryIO | None = None
    _digest: Any = field(default_factory=hashlib.sha256)  # of these bytes

    def add(self, text: str) -> None:
        """Write the lines of the next piece of work.

        Raises:
            NotEnoughSpace: the disk is full; what was written before stays.
            OutputError: it can't be written.
        """
        self._write(text, self.done + 1)

    def finish(self) -> None:
        """Note that all work is in the file."""
        self.complete = True
        with _writing(self.path):
            self._note()

    def read(self) -> str:
        """Return the text that is whole."""
        with readable(self.path), self.path.open("rb") as file:
            return file.read(self.n_bytes).decode()

    def _begin(self, head: str) -> None:
        """Cut off what is not whole, and write the text before all work if there was none."""
        assert self._file is not None
        with _writing(self.path):
            self._file.truncate(self.n_bytes)
            if not self.done:
                self._file.truncate(0)
                self.n_bytes, self._digest = 0, hashlib.sha256()
                self._note()  # before the text: a file of text without it is somebody else's
        if not self.done:
            self._write(head, 0)

    def _write(self, text: str, done: int) -> None:
        assert self._file is not None
        with _writing(self.path):
            data = text.encode()
            self._file.write(data)
            self._file.flush()
            self.done, self.n_bytes = done, self.n_bytes + len(data)
            self._digest.update(data)
            self._note()

    def _note(self) -> None:
        names = ("made_of", "done", "n_bytes", "notes", "complete")
        state = {name: getattr(self, name) for name in names}
        text = json.dumps({"format": FORMAT, **state, "sha256": self._digest.hexdigest()}, ensure_ascii=False)
        beside = progress_of(self.path)
        new = beside.with_name(f"{beside.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(beside)


def progress_of(path: Path) -> Path:
    """Return the path of the file beside a growing file."""
    return path.with_name(path.name + SUFFIX)


@contextmanager
def growing(
    path: Path, *, made_of: Mapping[str, Any], head: str, store: Path, force: bool = False
) -> Iterator[GrowingFile]:
    """Begin a growing file, or go on with one.

    Args:
        path: the absolute path of the file.
        made_of: see `GrowingFile`; a file that was begun with other values is refused.
        head: the text before all work.
        store: the folder that the file may not lie in.
        force: begin again, whatever the file holds.

    Raises:
        NotEnoughSpace: the disk is full.
        OutputError: there is a file that was not begun like this, or another process is writing it, or it can't be
            written.
    """
    refuse_output(path, store, force=True)
    with ExitStack() as stack:
        with _writing(path):
            file = stack.enter_context(path.open("ab"))
        _lock(file, path)
        begun = None if force else _begun(path, made_of)
        if begun is None and path.stat().st_size:
            refuse_output(path, store, force=force)
        found = begun or GrowingFile(path, made_of)
        found._file = file
        if not found.complete:
            found._begin(head)
        yield found


def _begun(path: Path, made_of: Mapping[str, Any]) -> GrowingFile | None:
    """Return a file that was begun with the same values; None if there is none.

    Raises:
        OutputError: it was begun with others, or its parts do not belong together.
    """
    beside = progress_of(path)
    if not path.stat().st_size or not beside.exists():
        return None
    again = f"begin it again with --force (force=True), or choose another name than {path.name}"
    try:
        with readable(beside):
            read = json.loads(beside.read_text(encoding="utf-8"))
        if read["format"] != FORMAT:
            raise ValueError(f"it is of format {read['format']}")
        found = GrowingFile(path, made_of, **{name: read[name] for name in ("done", "n_bytes", "notes", "complete")})
        before = dict(read["made_of"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{beside} can't be used to go on ({error}); {again}") from error
    for name, value in made_of.items():
        if before.get(name) != value:
            what = f"another {name}" if name in DIGESTS else f"{name} {before.get(name)}, and this is {value}"
            raise OutputError(f"{path} was begun with {what}; {again}")
    if path.stat().st_size < found.n_bytes:
        raise OutputError(f"{path} was made shorter since it was begun; {again}")
    longer = _read_again(found)
    if (longer and found.complete) or read.get("sha256", found._digest.hexdigest()) != found._digest.hexdigest():
        raise OutputError(f"{path} was changed since it was begun; {again}")
    return found


def _read_again(found: GrowingFile) -> bool:
    """Take the bytes that are there into the digest, and return whether others follow."""
    with readable(found.path), found.path.open("rb") as file:
        while file.tell() < found.n_bytes:
            found._digest.update(file.read(min(PIECE, found.n_bytes - file.tell())))
        return bool(file.read(1))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        with room_on_disk(path.name):
            yield
    except OSError as error:
        raise unwritten(path, error) from error


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes from writing the same file, where the file system knows locks.

    Raises:
        OutputError: another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{path} is being written by another process; wait for it, or choose another name") from error
    except OSError as error:
        LOG.warning("%s can't be locked (%s): no other process may write it at the same time", path, error)
