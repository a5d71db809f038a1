"""A file appears all at once or not at all: it is written under a temporary name, flushed to disk, and renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.system.access import make_folder, writing
from featurestore.system.disk import flush, room_on_disk, temporary_name


@contextmanager
def draft(target: Path, what: str) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; a failure removes it, and a success leaves it.

    Args:
        target: where the finished file will be. Its folder is made if there is none.
        what: the file is called in an error.

    Raises:
        NotEnoughSpace: the disk is full, a quota or a file-size limit was met.
        NotWritable: the folder belongs to somebody else.
    """
    path = target.with_name(temporary_name(target.name))
    try:
        with room_on_disk(what):
            make_folder(target.parent)
            yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it becomes ``target`` in one step, else it is removed."""
    with draft(target, target.name) as path:
        yield path
        flush(path)
        put_in_place(path, target)


def put_in_place(path: Path, target: Path) -> None:
    """Give a file that is flushed its final name, and have the name on the disk too."""
    with writing(target):
        path.replace(target)
    flush(target.parent)
