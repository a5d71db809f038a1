"""One failure after the other, all alike: that is no longer the images, it is the disk or the extractor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from featurestore.errors import ImagesGone, NothingUsable
from featurestore.rows import Row
from featurestore.system import CPU_OVER

DIED = "the worker process died on this image"
TWICE = "the file can't be read, nor could it a second time"
LONGEST = 20  # images in a row
_UNSUSPICIOUS = (DIED, CPU_OVER.partition("{}")[0])  # of rows that crashed: the engine and the recipe have decided that
T = TypeVar("T")


@dataclass(frozen=True)
class Trouble:
    """A failure that may tell of something else than its image."""

    filename: str
    error: str

    @property
    def kind(self) -> str:
        """What failures have in common that are alike: an exception's words without their numbers, or TWICE."""
        return TWICE if self.unread else re.sub(r"\d+", "0", self.error)

    @property
    def unread(self) -> bool:
        """Whether the file could not be read."""
        return self.error.startswith(TWICE)


def trouble_of(row: Row) -> Trouble | None:
    """Return what a row of extract tells of a failure that many images may share."""
    error = row.error or ""
    raised = row.status == "crashed" and not error.startswith(_UNSUSPICIOUS)
    unread = row.status == "unreadable" and error.startswith(TWICE)
    return Trouble(row.filename, error) if raised or unread else None


class Streak(Generic[T]):
    """Holds finished work back for as long as its last images have failed alike, so that it can still be left out.

    What counts is the order in which work is finished, whichever worker has done it.
    """

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._alike: list[Trouble] = []
        self.held: list[T] = []  # what was not yielded yet

    def cleared(self, work: T, troubles: Sequence[Trouble | None]) -> Iterator[T]:
        """Take in finished work, and yield what can be recorded of this and of what was held back.

        Args:
            work: what was finished.
            troubles: of each of its images, in order.

        Raises:
            ImagesGone: the files of twenty images in a row could not be read.
            NothingUsable: the extractor raised the same exception on twenty images in a row.
        """
        broken = False
        for found in troubles:
            goes_on = found is not None and bool(self._alike) and found.kind == self._alike[0].kind
            broken |= not goes_on
            self._alike = [*(self._alike if goes_on else ()), *([found] if found else ())]
            if len(self._alike) == LONGEST:
                raise _refusal(self._alike)
        if broken:
            yield from self.rest()
        self.held.append(work)
        if not self._alike:
            yield from self.rest()

    def rest(self) -> Iterator[T]:
        """Yield what was held back: nothing comes after it."""
        held, self.held = self.held, []
        yield from held


def _refusal(alike: list[Trouble]) -> ImagesGone | NothingUsable:
    first, last = alike[0], alike[-1]
    which = f"{len(alike)} images in a row, from {first.filename} to {last.filename}"
    if first.unread:
        return ImagesGone(
            f"the folder of images can't be read: {which}, gave {last.error.removeprefix(TWICE).strip(' ()')}. Nothing "
            "of them is recorded; see to the disk or the network, and run the same command again"
        )
    return NothingUsable(
        f"the extractor fails on every image: {which}, gave {last.error}. Nothing of them is recorded; correct the "
        "extractor or its parameters, and run the same command again"
    )
