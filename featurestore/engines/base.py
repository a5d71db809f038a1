"""Protocols: `Task`, which engines run, and `Engine`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Task(Protocol[T]):
    """Work on one chunk. Its results are a row for each image, or one result for all of them."""

    @property
    def chunk_id(self) -> int:
        """The chunk that it works on."""
        ...

    def run(self) -> list[T]:
        """Do the work; rows are in image order."""
        ...

    def split(self) -> list[Task[T]]:
        """Return the same work as smaller tasks, down to one per image, so that a crash can be blamed on one image."""
        ...

    def crashed(self, reason: str) -> list[T]:
        """Return the row of the one image that crashes its worker.

        Raises:
            EngineLost: no single image is to blame.
        """
        ...


class TaskDied(BrokenExecutor):
    """One task died with its worker; the other tasks in flight live on.

    An engine whose workers die apart from each other uses it alone: none of its futures raises another BrokenExecutor,
    nor does `Engine.submit`.
    """


class Parts(list[Any]):
    """The result of a task that an engine has done in parts: each part with its results."""


class Engine(Protocol):
    """Runs tasks. Opened once for a whole run, as its class called with the number of workers."""

    @property
    def workers(self) -> int:
        """The number of workers, which may change during a run; 0: a task is done when it is submitted."""
        ...

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Start a task; the future raises BrokenExecutor if its worker died, or `TaskDied` if no other task did."""
        ...

    def restart(self) -> None:
        """Replace dead workers."""
        ...

    def close(self) -> None:
        """Kill all workers immediately."""
        ...


class Terms(Protocol):
    """The conditions under which a worker elsewhere may work for a run. Sent with every task."""

    def misfit(self) -> str | None:
        """Return why this process can't work for the run, None if it can."""
        ...

    def is_over(self) -> bool:
        """Return whether the run has ended, so that nothing may be done for it any more."""
        ...


class RemoteEngine(ABC):
    """The base class of an `Engine` whose workers are on other machines."""

    @abstractmethod
    def agree(self, terms: Terms, *, say: Callable[[str], None]) -> None:
        """Take the terms of a run that is about to begin.

        Args:
            terms: that every worker is checked for.
            say: reports a line to the user.
        """

    @abstractmethod
    def memory(self) -> int | None:
        """Return the bytes of memory that all workers together have, None if that is unknown."""


def run_task(task: Task[Any]) -> list[Any]:
    """Run a task: the function that engines send to workers."""
    return task.run()
