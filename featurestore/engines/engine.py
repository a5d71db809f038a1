"""What engines run, and what every engine offers."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from featurestore.partition import Row


class Task(Protocol):
    """What engines run."""

    @property
    def chunk_id(self) -> int:
        """The chunk that the rows belong to."""
        ...

    def run(self) -> list[Row]:
        """Return the rows of the block's images, in order."""
        ...

    def split(self) -> list[Task]:
        """Return the same work as one task an image, so that a crash can be blamed on one."""
        ...

    def crashed(self, reason: str) -> list[Row]:
        """Return the row of the one image that kills whoever works on it."""
        ...


class Engine(Protocol):
    """Where tasks run. Opened once for a whole run."""

    workers: int

    def submit(self, task: Task) -> Future[list[Row]]:
        """Begin a task; the future raises BrokenExecutor when the worker died."""
        ...

    def restart(self) -> None:
        """Replace workers that died."""
        ...

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        ...


def run_task(task: Task) -> list[Row]:
    """Run a task: the one function that engines send to workers."""
    return task.run()
