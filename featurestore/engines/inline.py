"""The engine without workers: tasks run in this process, one after the other. For tests, debugging and one image."""

from __future__ import annotations

from concurrent.futures import Future

from featurestore.engines.engine import T, Task


class InlineEngine:
    """Runs a task when it is submitted. A task that crashes takes the process with it."""

    workers = 0

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Run the task now; what it raises is raised here."""
        future: Future[list[T]] = Future()
        future.set_result(task.run())
        return future

    def restart(self) -> None:
        """Nothing can have died."""

    def close(self) -> None:
        """Nothing to end."""
