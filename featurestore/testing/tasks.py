"""The tasks that every engine is tried with. Workers load them, and so this module loads little."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path

from featurestore.engines import Task
from featurestore.errors import LossyDescriptors
from featurestore.rows import Row


@dataclass(frozen=True)
class Squares:
    """Rows whose message is the square of the image's number; a number below 0 raises."""

    numbers: tuple[int, ...]
    chunk_id: int = 0

    def run(self) -> list[Row]:
        """Return a row for each number, whose file name is the process."""
        if min(self.numbers) < 0:
            raise LossyDescriptors(f"{min(self.numbers)} has no square here; use another number")
        return [Row(number, str(os.getpid()), "ok", str(number**2)) for number in self.numbers]

    def split(self) -> list[Task[Row]]:
        """Return a task for each number."""
        return [replace(self, numbers=(number,)) for number in self.numbers]

    def crashed(self, reason: str) -> list[Row]:
        """Return rows that say why."""
        return [Row(number, "", "crashed", reason) for number in self.numbers]


class Poor(Squares):
    """A machine on which something does not suffice for two images at once, nor ever for one whose number is 7."""

    def run(self) -> list[Row]:
        """Return the rows, if there is enough."""
        if len(self.numbers) > 1 or 7 in self.numbers:
            raise self.lack()
        return super().run()

    def lack(self) -> Exception:
        """Return what is raised: a lack of memory."""
        return MemoryError()


class PoorInFiles(Poor):
    """A machine that lacks open files."""

    def lack(self) -> Exception:
        """Return what the system says."""
        return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class PoorInThreads(Poor):
    """A machine that lacks threads."""

    def lack(self) -> Exception:
        """Return what Python says."""
        return RuntimeError("can't start new thread")


@dataclass(frozen=True)
class PoorAtFirst(PoorInThreads):
    """A machine that lacks threads for the first attempts, however few numbers there are."""

    attempts: Path = Path()  # an empty folder, in which each attempt leaves a file
    lacking: int = 2

    def run(self) -> list[Row]:
        """Return the rows, if attempts enough went before."""
        made = len(list(self.attempts.iterdir()))
        (self.attempts / str(made)).touch()
        if made < self.lacking:
            raise self.lack()
        return super().run()
