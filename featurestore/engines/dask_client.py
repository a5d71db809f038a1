"""Clients of Dask that leave no thread behind where they can't connect."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

from distributed import Client

from featurestore.errors import EngineLost
from featurestore.system import readable, signals_blocked

_OF_DASK = re.compile(r"distributed\.|tornado")  # loggers
CLOSE_SECONDS = 5.0
STEPS = 3  # of a connection, each of which may take the time that is given


def connect(scheduler: str, *, seconds: float) -> Client:
    """Return a client of a scheduler.

    Args:
        scheduler: its address, or the JSON file that it has written.
        seconds: how long to try, and how long the scheduler may take for each answer.

    Raises:
        EngineLost: it was not reached.
    """
    # What goes wrong is said in one line; the library would add tracebacks to it.
    for name in ("distributed", *filter(_OF_DASK.match, logging.root.manager.loggerDict)):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = _address(scheduler)
    try:
        with signals_blocked():  # in the threads of the client: they are the main thread's
            return _Client(address, timeout=seconds, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EngineLost(
            f"no Dask scheduler was reached at {address} ({reason}); start one with `dask scheduler`, or correct "
            "--scheduler"
        ) from error


class _Client(Client):
    """A client that is closed, and its thread ended, if it can't connect.

    Dask leaves that to the garbage collector. If this runs in the thread that another client has just started and waits
    for, it waits in turn for a lock that the other client holds.
    """

    def start(self, **kwargs: Any) -> None:
        """Connect to the scheduler."""
        try:
            super().start(**kwargs)  # type: ignore[no-untyped-call]
        except BaseException:
            self.close(timeout=CLOSE_SECONDS)
            self._loop_runner.stop()  # a client that has closed itself leaves it running
            raise

    async def _start(self, *args: Any, **kwargs: Any) -> Client:
        """Connect; Dask itself waits without end for the first words of a server that is no scheduler."""
        try:
            connecting = super()._start(*args, **kwargs)  # type: ignore[no-untyped-call]
            return await asyncio.wait_for(connecting, STEPS * kwargs["timeout"])
        except TimeoutError as error:
            raise TimeoutError("what listens there does not answer as one") from error


def _address(scheduler: str) -> str:
    """Return the scheduler's address, which may be in a file that it has written."""
    if "://" in scheduler or not scheduler.endswith(".json"):
        return scheduler
    path = Path(scheduler)
    try:
        with readable(path):
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise EngineLost(
            f"{path} does not hold the address of a Dask scheduler; start one with "
            f"`dask scheduler --scheduler-file {path}`"
        ) from error
