"""Failure streaks: many equal failures in a row are the fault of the disk or the extractor, not of the images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from featurestore.errors import ImagesGone, NothingUsable
from featurestore.rows import Row, Status
from featurestore.system import CPU_OVER

LONGEST = 20  # images in a row
T = TypeVar("T")

# The beginnings of errors in rows. A row tells its reason by its text alone, in old stores too: so the functions here
# are the only ones that write these texts and recognise them.
_DIED = "the worker process died on this image"
_TWICE = "the file can't be read, nor could it a second time"
_OF_ONE_IMAGE = (_DIED, CPU_OVER.partition("{}")[0])  # of crashed rows that the engine or a limit decided


def died(reason: str) -> str:
    """Return the error of a row whose image ended its worker."""
    return f"{_DIED} ({reason})"


def unread_twice(reason: str) -> str:
    """Return the error of a row whose file could not be read by two attempts."""
    return f"{_TWICE} ({reason})"


@dataclass(frozen=True)
class Trouble:
    """A failure whose cause may not be the image."""

    filename: str
    error: str

    @property
    def kind(self) -> str:
        """The key by which failures are equal: an exception's message without its numbers, one for unread files."""
        return _TWICE if self.unread else re.sub(r"\d+", "0", self.error)

    @property
    def unread(self) -> bool:
        """Whether the file could not be read."""
        return self.error.startswith(_TWICE)

    @property
    def reason(self) -> str:
        """The message of the failure: of an unread file the system's."""
        return self.error[len(_TWICE) + 2 : -1] if self.unread else self.error


def trouble_of(row: Row) -> Trouble | None:
    """Return the trouble of a row of extract, None if its failure is certainly the image's own."""
    error = row.error or ""
    raised = row.status == Status.CRASHED and not error.startswith(_OF_ONE_IMAGE)
    unread = row.status == Status.UNREADABLE and error.startswith(_TWICE)
    return Trouble(row.filename, error) if raised or unread else None


class Streak(Generic[T]):
    """Holds finished work back while its last images failed in the same way, so that it can still be discarded.

    Work counts in the order in which it is finished, whichever worker did it.
    """

    def __init__(self) -> None:
        """Start without failures."""
        self._alike: list[Trouble] = []
        self.held: list[T] = []  # work that is held back

    def cleared(self, work: T, troubles: Sequence[Trouble | None]) -> Iterator[T]:
        """Add finished work, and yield the work that can be recorded now.

        Args:
            work: the finished work.
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
        """Yield all work that is held back, at the end of the run."""
        held, self.held = self.held, []
        yield from held


def _refusal(alike: list[Trouble]) -> ImagesGone | NothingUsable:
    first, last = alike[0], alike[-1]
    which = f"{len(alike)} images in a row, from {first.filename} to {last.filename}"
    if first.unread:
        return ImagesGone(
            f"the folder of images can't be read: {which}, gave {last.reason}. Nothing of them is "
            "recorded; check the disk or the network, and run the same command again"
        )
    return NothingUsable(
        f"the extractor fails on every image: {which}, gave {last.reason}. Nothing of them is recorded; correct the "
        "extractor or its parameters, and run the same command again"
    )
