"""What the workers of a simulated cluster load first: slots that work in their thread, without a child process."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from featurestore.engines import Task, slot


class InThread:
    """An engine that does a task at once."""

    workers = 0
    token = ""

    def __init__(self, workers: int) -> None:
        """Start nothing."""

    def submit(self, task: Task[Any]) -> Future[list[Any]]:
        """Do a task."""
        future = Future[list[Any]]()
        future.set_result(task.run())
        return future

    def restart(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def kill(self) -> None:
        """Do nothing."""


vars(slot)["_Child"] = InThread
