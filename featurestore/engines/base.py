"""What engines run, and what every engine offers."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Task(Protocol[T]):
    """What engines run: work on one chunk. Its results are a row for each image, or what was made of all of them."""

    @property
    def chunk_id(self) -> int:
        """The chunk that it works on."""
        ...

    def run(self) -> list[T]:
        """Do the work; rows are in the order of their images."""
        ...

    def split(self) -> list[Task[T]]:
        """Return the same work as smaller tasks, down to one an image, so that a crash can be blamed on one."""
        ...

    def crashed(self, reason: str) -> list[T]:
        """Return the row of the one image that kills whoever works on it.

        Raises:
            EngineLost: no image can be blamed.
        """
        ...


class Engine(Protocol):
    """Where tasks run. Opened once for a whole run."""

    workers: int

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Begin a task; the future raises BrokenExecutor when the worker died."""
        ...

    def restart(self) -> None:
        """Replace workers that died."""
        ...

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        ...


def run_task(task: Task[Any]) -> list[Any]:
    """Run a task: the one function that engines send to workers."""
    return task.run()
