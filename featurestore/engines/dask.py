"""The engine of a Dask cluster: tasks run on other machines, in slots."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurestore.engines.base import Parts, RemoteEngine, T, Task, TaskDied, Terms
from featurestore.engines.lost_cluster import no_workers, scheduler_gone
from featurestore.engines.slot import NOTICE_SECONDS, Report, end_run, misfit_here, run_in_slot
from featurestore.errors import ConfigError, EngineLost, MissingDependency, WorkerUnfit

if TYPE_CHECKING:
    from distributed import Client

LOG = logging.getLogger("featurestore.engines")

VARIABLE = "DASK_SCHEDULER_ADDRESS"
CONNECT_SECONDS = 10.0
PATIENCE = 60.0  # seconds without a worker after which there will be none
GATHER_SECONDS = 30.0  # for a result; where its worker left, Dask would wait for the task to be done again
LOOK_SECONDS = 0.5  # between two looks at the cluster
MOST_LOST = 2  # workers on which the process of a task can't live; a third one ends the run
END_SECONDS = 5.0  # for workers to end what they do for a run that is over


class DaskEngine(RemoteEngine):
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
        self._flying = set[_Flown]()
        self._refused: dict[str, str] = {}  # workers, and why
        self._leaving: list[str] = []  # of these, those that have not left yet
        self._terms: Terms | None = None
        self._say: Callable[[str], None] = LOG.warning
        self._client: Client | None = None
        self._over = threading.Event()
        self._lost: EngineLost | None = None
        self._token, self._n_sent = "", 0
        self._n_workers = 0

    @property
    def workers(self) -> int:
        """The number of threads that all workers have now; the first question waits for one."""
        self._connected()
        return self._n_workers

    def memory(self) -> int | None:
        """Return the bytes of memory that all workers together have now; None if one of them has no limit."""
        workers = self._connected().scheduler_info(n_workers=-1)["workers"].values()
        limits = [worker["memory_limit"] for worker in workers]
        return sum(limits) if all(limits) else None

    def agree(self, terms: Terms, *, say: Callable[[str], None]) -> None:
        """Take the terms of a run; workers are checked when the engine connects, and those that come later as well."""
        self._terms, self._say = terms, say

    def submit(self, task: Task[T]) -> Future[list[T]]:
        """Send a task to the scheduler.

        Raises:
            EngineLost: there is no scheduler, or no worker.
            WorkerUnfit: a worker can't work for the run.
        """
        self._connected()
        flown = _Flown(task)
        with self._lock:
            if self._lost is not None:
                raise self._lost
            self._flying.add(flown)
        self._send(flown)
        return flown.future

    def _send(self, flown: _Flown) -> None:
        """Send a task to the scheduler, unless the engine was closed or is lost."""
        with self._lock:
            client = self._client
            if client is None or flown not in self._flying:
                return
            key = f"featurestore-{self._token}-{self._n_sent}"
            self._n_sent += 1
            arguments = (self._token, flown.task, self._terms)
            try:
                made = flown.made = client.submit(_run_on_worker, *arguments, key=key, pure=False)
            except Exception as error:
                if _is_connected(client):
                    raise
                raise scheduler_gone(self._scheduler) from error
        made.add_done_callback(lambda made: self._take(flown, made))

    def restart(self) -> None:
        """Do nothing: slots restart their children, and the cluster its workers."""

    def close(self) -> None:
        """End what workers do for this run, and the connection; the next task makes a new one.

        Workers that can't be told see by the terms that the run is over, which takes some seconds.
        """
        client, self._client = self._client, None
        if client is None:
            return
        self._over.set()
        with self._lock:
            made = [flown.made for flown in self._flying if flown.made is not None]
            self._flying.clear()
        told = self._leave(client, made)
        if self._n_sent and not told and self._terms is not None:
            time.sleep(NOTICE_SECONDS)
        LOG.debug("left the Dask cluster at %s", self._scheduler)

    def _leave(self, client: Client, made: list[Any]) -> bool:
        """Close the connection; return whether the workers could be told before."""
        told = self._lost is None and _is_connected(client)
        try:
            try:
                if _is_connected(client):
                    client.cancel(made, force=True)
                    client.sync(client._run, end_run, self._token, on_error="return", callback_timeout=END_SECONDS)
            finally:
                client.close(timeout=END_SECONDS)
        except Exception as error:  # the scheduler is lost on the way: the connection has ended, and the run goes on
            LOG.debug("the Dask scheduler was lost while the run left it: %r", error)
            told = False
        return told

    def _connected(self) -> Client:
        from featurestore.engines.dask_client import connect

        if self._client is None:
            self._client = connect(self._scheduler, seconds=CONNECT_SECONDS)
            self._lost, self._n_workers, self._n_sent = None, 0, 0
            self._token, self._over = uuid.uuid4().hex, threading.Event()
            arguments = (self._client, self._over)
            threading.Thread(target=self._watch, args=arguments, name="featurestore-dask", daemon=True).start()
            try:
                self._wait_for_workers()
                if self._terms is not None:
                    self._refuse_misfits(self._client)
            except BaseException:
                self.close()
                raise
        return self._client

    def _wait_for_workers(self) -> None:
        LOG.info("waiting for workers of the Dask cluster at %s", self._scheduler)
        while not self._n_workers and self._lost is None:
            time.sleep(LOOK_SECONDS / 10)
        if self._lost is not None:
            raise self._lost

    def _watch(self, client: Client, over: threading.Event) -> None:
        """Count the workers, and fail all futures once the scheduler is gone, or there was no worker for long."""
        seen = time.monotonic()
        while not over.is_set():
            try:
                self._retire(client)
                self._n_workers = int(client.scheduler_info(n_workers=0)["total_threads"])
            except Exception as error:
                LOG.debug("the Dask scheduler does not answer: %r", error)
                if not over.is_set():
                    self._lose(scheduler_gone(self._scheduler))
                return
            now = time.monotonic()
            seen = now if self._n_workers else seen
            if now - seen > PATIENCE:
                self._lose(no_workers(self._scheduler, self._refused, seconds=PATIENCE))
                return
            over.wait(LOOK_SECONDS)

    def _lose(self, error: EngineLost) -> None:
        with self._lock:
            self._lost = error
            lost = list(self._flying)
            self._flying.clear()
        for flown in lost:
            flown.future.set_exception(error)

    def _take(self, flown: _Flown, made: Any) -> None:
        """Fill a future from that of Dask, which is done; or send its task to another worker."""
        if flown not in self._flying:  # the engine was closed, or is lost
            return  # a process that ends while it asks for a cancelled result prints a traceback
        address, report = _outcome(made)
        error = report.error
        if report.misfit is not None:
            made.release()  # a worker can't leave as long as it has a result
            self._refuse(address, report.misfit)
            try:
                self._retire(made.client)
            finally:
                self._send(flown)
            return
        if isinstance(error, EngineLost) and flown.n_lost < MOST_LOST:
            LOG.warning("the worker %s could not do a task of chunk %d: %s", address, flown.task.chunk_id, error)
            flown.n_lost += 1
            self._send(flown)
            return
        if isinstance(error, TaskDied) and not _is_connected(made.client):
            error = scheduler_gone(self._scheduler)
        with self._lock:
            if flown not in self._flying:  # as above, meanwhile
                return
            self._flying.remove(flown)
        if error is not None:
            flown.future.set_exception(error)
            return
        whole = [results for part, results in report.done if part is None]
        flown.future.set_result(whole[0] if whole else Parts(report.done))

    def _refuse(self, address: str, misfit: str) -> None:
        """Have a worker that can't work for the run leave the cluster, and say so once."""
        with self._lock:
            if address in self._refused:
                return
            self._refused[address] = misfit
            self._leaving.append(address)
        self._say(f"the worker {address} is not used: it {misfit}")

    def _retire(self, client: Client) -> None:
        """Have refused workers leave the cluster. Dask may put it off: the watching thread asks again."""
        with self._lock:
            leaving = list(self._leaving)
        if leaving:
            gone = client.retire_workers(leaving)
            with self._lock:
                self._leaving = [address for address in self._leaving if address not in gone]

    def _refuse_misfits(self, client: Client) -> None:
        """Check the workers that are there when a run begins.

        Raises:
            WorkerUnfit: one does not meet the terms. All such workers are named.
        """
        found: dict[str, Any] = {}
        with suppress(TimeoutError):  # one is frozen; tasks are checked as well
            arguments = (misfit_here, self._token, self._terms)
            found = client.sync(client._run, *arguments, on_error="return", callback_timeout=PATIENCE)
        misfits = [
            f"the worker {address} {misfit}"
            for address, result in sorted(found.items())
            if (misfit := f"can't load what this process can: {result}" if isinstance(result, ImportError) else result)
            and isinstance(misfit, str)
        ]
        if misfits:
            raise WorkerUnfit(
                f"{'; '.join(misfits)}. Nothing was done; correct that or end these workers, then run the same command "
                "again"
            )


@dataclass(eq=False)
class _Flown:
    """A task that was sent, and what comes of it."""

    task: Task[Any]
    future: Future[Any] = field(default_factory=Future)
    made: Any = None  # the future of Dask
    n_lost: int = 0  # workers on which its process can't live


def _run_on_worker(token: str, task: Task[Any], terms: Terms | None) -> tuple[str, Report]:
    """Run a task in this slot; return the address of the worker too."""
    from distributed import get_worker

    return get_worker().address, run_in_slot(token, task, terms)


def _outcome(made: Any) -> tuple[str, Report]:
    """Return the address of the worker, if it is known, and the report of a task, which may be an error of Dask."""
    from distributed import KilledWorker

    try:  # also of a task that has finished: its result may have died with its worker
        address, report = made.result(timeout=GATHER_SECONDS)
    except (CancelledError, KilledWorker, OSError) as error:
        return "", Report(error=TaskDied(str(error)))
    except Exception as error:
        cause = error.__cause__ or error  # Dask wraps what the scheduler or a worker can't load
        return "", Report(error=ImportError(str(cause)) if isinstance(cause, ImportError | AttributeError) else error)
    return address, report


def _is_connected(client: Client) -> bool:
    return client.status not in ("connecting", "closing", "closed")
