"""The engine of a Dask cluster: tasks run on other machines, in slots."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import time
import uuid
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.engines.base import Parts, T, Task, TaskDied
from featurestore.engines.slot import Report, end_run, run_in_slot
from featurestore.errors import ConfigError, EngineLost, MissingDependency
from featurestore.system import readable, signals_blocked

if TYPE_CHECKING:
    from distributed import Client

LOG = logging.getLogger("featurestore.engines")

VARIABLE = "DASK_SCHEDULER_ADDRESS"
CONNECT_SECONDS = 10.0
PATIENCE = 60.0  # seconds without a worker after which there will be none
LOOK_SECONDS = 0.5  # between two looks at the cluster
END_SECONDS = 5.0  # for workers to end what they do for a run that is over


class DaskEngine:
    """Runs tasks on the workers of a Dask cluster, one for each of their threads.

    It connects when it is asked for the first thing. All its futures are filled by Dask's callbacks, or by a thread
    that watches the cluster and fails them once it is lost.
    """

    def __init__(self, scheduler: str | None = None) -> None:
        """Take the address of the scheduler, or the file that it writes; None is that of the environment.

        Raises:
            ConfigError: there is none.
            MissingDependency: the package distributed is not installed.
        """
        found = scheduler or os.environ.get(VARIABLE)
        if not found:
            raise ConfigError(
                "the engine dask needs the address of a scheduler: give --scheduler tcp://HOST:8786, or the file that "
                f"the scheduler writes, or set {VARIABLE}"
            )
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise MissingDependency(
                f"the engine dask needs a package that can't be loaded ({error}); install it here and where the "
                "workers run: pip install 'featurestore[dask]'"
            ) from error
        self._scheduler = found
        self._lock = threading.Lock()
        self._flying: dict[Future[Any], Any] = {}  # with the future of Dask
        self._client: Client | None = None
        self._over = threading.Event()
        self._lost: EngineLost | None = None
        self._token, self._numbers = "", itertools.count()
        self._n_workers = 0

    @property
    def workers(self) -> int:
        """The number of threads that all workers have now; the first question waits for one."""
        self._connected()
        return self._n_workers

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Send a task to the scheduler.

        Raises:
            EngineLost: there is no scheduler, or no worker.
        """
        client, future = self._connected(), Future[list[T]]()
        with self._lock:
            if self._lost is not None:
                raise self._lost
            key = f"featurestore-{self._token}-{next(self._numbers)}"
            made = self._flying[future] = client.submit(run_in_slot, self._token, task, key=key, pure=False)
        made.add_done_callback(lambda made: self._take(future, made))
        return future

    def restart(self) -> None:
        """Do nothing: slots restart their children, and the cluster its workers."""

    def close(self) -> None:
        """End what workers do for this run, and the connection; the next task makes a new one."""
        client, self._client = self._client, None
        if client is None:
            return
        self._over.set()
        with self._lock:
            made = list(self._flying.values())
            self._flying.clear()
        if _is_connected(client):
            with suppress(Exception):  # whatever is lost on the way: the connection ends anyway
                client.cancel(made, force=True)
                client.sync(client._run, end_run, self._token, on_error="return", callback_timeout=END_SECONDS)
        with suppress(Exception):
            client.close(timeout=END_SECONDS)
        LOG.debug("left the Dask cluster at %s", self._scheduler)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._connect()
            self._lost, self._n_workers = None, 0
            self._token, self._over = uuid.uuid4().hex, threading.Event()
            arguments = (self._client, self._over)
            threading.Thread(target=self._watch, args=arguments, name="featurestore-dask", daemon=True).start()
            self._wait_for_workers()
        return self._client

    def _connect(self) -> Client:
        from distributed import Client

        # What goes wrong is said in one line; the library would add tracebacks to it.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        address = self._address()
        try:
            with signals_blocked():  # in the threads of the client: they are the main thread's
                return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise EngineLost(
                f"no Dask scheduler was reached at {address} ({reason}); start one with `dask scheduler`, or correct "
                "--scheduler"
            ) from error

    def _address(self) -> str:
        """Return the scheduler's address, which may be in a file that it has written."""
        if "://" in self._scheduler or not self._scheduler.endswith(".json"):
            return self._scheduler
        path = Path(self._scheduler)
        try:
            with readable(path):
                return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise EngineLost(
                f"{path} does not hold the address of a Dask scheduler; start one with "
                f"`dask scheduler --scheduler-file {path}`"
            ) from error

    def _wait_for_workers(self) -> None:
        LOG.info("waiting for workers of the Dask cluster at %s", self._scheduler)
        while not self._n_workers and self._lost is None:
            time.sleep(LOOK_SECONDS / 10)
        if self._lost is not None:
            lost = self._lost
            self.close()
            raise lost

    def _watch(self, client: Client, over: threading.Event) -> None:
        """Count the workers, and fail all futures once the scheduler is gone, or there was no worker for long."""
        seen = time.monotonic()
        while not over.is_set():
            try:
                self._n_workers = int(client.scheduler_info(n_workers=0)["total_threads"])
            except Exception as error:
                LOG.debug("the Dask scheduler does not answer: %r", error)
                if not over.is_set():
                    self._lose(_gone(self._scheduler))
                return
            now = time.monotonic()
            seen = now if self._n_workers else seen
            if now - seen > PATIENCE:
                self._lose(_without_workers(self._scheduler))
                return
            over.wait(LOOK_SECONDS)

    def _lose(self, error: EngineLost) -> None:
        with self._lock:
            self._lost = error
            futures = list(self._flying)
            self._flying.clear()
        for future in futures:
            future.set_exception(error)

    def _take(self, future: Future[Any], made: Any) -> None:
        """Fill a future from that of Dask, which is done."""
        result, error = _outcome(made)
        with self._lock:
            if self._flying.pop(future, None) is None:  # the engine was closed, or is lost
                return
        if isinstance(error, TaskDied) and not _is_connected(made.client):
            error = _gone(self._scheduler)
        if error is not None:
            future.set_exception(error)
            return
        assert result is not None
        task_results = [results for part, results in result.done if part is None]
        future.set_result(task_results[0] if task_results else Parts(result.done))


def _outcome(made: Any) -> tuple[Report | None, Exception | None]:
    """Return the report of a task, or its error."""
    from distributed import KilledWorker

    try:  # also of a task that has finished: its result may have died with its worker
        report: Report = made.result()
    except (CancelledError, KilledWorker, OSError) as error:
        return None, TaskDied(str(error))
    except Exception as error:
        cause = error.__cause__ or error  # Dask wraps what the scheduler or a worker can't load
        return None, ImportError(str(cause)) if isinstance(cause, ImportError | AttributeError) else error
    return report, report.error


def _is_connected(client: Client) -> bool:
    return client.status not in ("connecting", "closing", "closed")


def _gone(scheduler: str) -> EngineLost:
    return EngineLost(
        f"the Dask scheduler at {scheduler} is gone. Finished work is kept; start a scheduler and workers, then run "
        "the same command again"
    )


def _without_workers(scheduler: str) -> EngineLost:
    return EngineLost(
        f"the Dask scheduler at {scheduler} has had no worker for {PATIENCE:.0f} s. Finished work is kept; start some "
        f"with `dask worker {scheduler}`, then run the same command again"
    )
