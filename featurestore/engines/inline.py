"""The inline engine: tasks run in this process, one after the other. For tests, debugging and single images."""

from __future__ import annotations

from concurrent.futures import Future

from featurestore.engines.base import T, Task
from featurestore.system import lacking


class InlineEngine:
    """Runs a task when it is submitted. A task that crashes takes the process with it."""

    workers = 0

    def __init__(self, workers: int = 0) -> None:
        """Take the number of workers like every engine, and start none."""

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Run the task now. The future has its error, but Ctrl-C is raised here."""
        future: Future[list[T]] = Future()
        try:
            future.set_result(task.run())
        except Exception as error:
            if lacking(error):
                error.__traceback__ = None  # it would keep memory alive
            future.set_exception(error)
        return future

    def restart(self) -> None:
        """Do nothing: there are no workers."""

    def close(self) -> None:
        """Do nothing: there are no workers."""
