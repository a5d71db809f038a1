"""The terms of a run: what a worker elsewhere has in common with the process that holds the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featurestore.catalog import StoreTerms, WritableContext, filenames_of, files_read_before, versions
from featurestore.engines import Engine, RemoteEngine
from featurestore.errors import UnreadableFile
from featurestore.images import Damaged, Missing, Source, is_container, source_at, why_absent
from featurestore.storage import read_signature
from featurestore.system import is_file, is_remote

N_NAMES = 100  # images among which one is looked for that is there


@dataclass(frozen=True)
class RunTerms(StoreTerms):
    """The versions, the store and the images of a run."""

    images: str
    sample: tuple[str, int | None] | None  # name and bytes of an image that is there; None: the run sees none itself
    sign: Path  # a file that is there until the run has ended

    def is_over(self) -> bool:
        """Return whether the run has ended, or no longer holds the store; what can't be read says nothing."""
        try:
            return super().is_over() or not is_file(self.sign)
        except UnreadableFile:
            return False

    def misfit(self) -> str | None:
        """Return why this process can't work for the run, None if it can."""
        found = super().misfit()
        if found is not None or self.sample is None:
            return found
        if (reason := why_absent(self.images)) is not None:
            if is_remote(self.images):
                return f"can't list the images: {reason}"
            what = "file" if is_container(self.images) else "folder"
            return f"has no {what} {self.images}"
        name, n_bytes = self.sample
        if _n_bytes(source_at(self.images), name) != (n_bytes,):
            return (
                f"does not see the image {self.images}/{name} as it is here: another folder is mounted there, or none"
            )
        return None


@contextmanager
def agreed_terms(engine: Engine, context: WritableContext) -> Iterator[None]:
    """Give an engine whose workers are elsewhere the terms of a run, which is over when the block ends."""
    signature = read_signature(context.root) if isinstance(engine, RemoteEngine) else None
    if signature is None or not isinstance(engine, RemoteEngine):
        yield
        return
    root = context.root.absolute()
    with root.draft("terms") as sign:
        sign.touch()
    try:
        terms = RunTerms(root, signature.token, versions(), context.images, _sample(context), sign)
        engine.agree(terms, say=context.reporter.say)
        yield
    finally:
        sign.unlink(missing_ok=True)


def _sample(context: WritableContext) -> tuple[str, int | None] | None:
    """Return an image that is there, preferably one that was read before."""
    with context.catalog.reading() as connection:
        names = [*files_read_before(connection).values(), *filenames_of(connection, list(range(N_NAMES))).values()]
    if why_absent(context.images) is not None:
        return None
    images = context.source
    for name in names:
        if found := _n_bytes(images, name):
            return name, found[0]
    return None


def _n_bytes(images: Source, name: str) -> tuple[int | None] | None:
    """Return the size of an image, where the source knows it; None if there is no such image."""
    try:
        return (images.stat(name).n_bytes,)
    except (Missing, Damaged):
        return None
