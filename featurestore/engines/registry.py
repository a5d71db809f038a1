"""Engines by name, chosen here and nowhere else.

An engine is one file with a class like `Engine`, called with the number of workers. `dispatch_tasks` does the rest for
all of them: a few tasks for each worker, and the search for the task that kills its worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featurestore.engines.base import Engine
from featurestore.engines.local import all_cores
from featurestore.errors import ConfigError
from featurestore.registry import Registry

REMOTE = "dask"  # the engine whose workers are those of a scheduler
ENGINES = Registry[Callable[[Any], Engine]](
    "engine",
    "featurestore.engines",
    {
        "inline": "featurestore.engines.inline:InlineEngine",
        "local": "featurestore.engines.local:LocalEngine",
        REMOTE: "featurestore.engines.dask:DaskEngine",
    },
)


def is_remote(name: str | None, scheduler: str | None) -> bool:
    """Return whether the workers of an engine are those of a scheduler: it is named, or no other engine is."""
    return name == REMOTE or (name is None and bool(scheduler))


def open_engine(workers: int, name: str | None = None, *, scheduler: str | None = None) -> Engine:
    """Return the engine called ``name``, with a number of workers, or with those of a scheduler.

    Without a name that is ``dask`` if there is a scheduler, else ``local``, processes of this machine; or with 0
    workers ``inline``, which works in this process, without protection against crashes.

    Raises:
        ConfigError: there is no such engine; the message lists them.
        MissingDependency: the engine needs a package that is not installed.
        PluginError: the package that provides it can't be loaded.
    """
    if is_remote(name, scheduler):
        return ENGINES.find(REMOTE)(scheduler)
    if scheduler:
        raise ConfigError(f"the engine {name} has no scheduler; leave out --scheduler, or give --engine {REMOTE}")
    return ENGINES.find(name or ("local" if workers else "inline"))(workers)


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a verb, as its caller chose it."""

    workers: int | None = None  # None: the verb decides
    engine: str | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        """Refuse a number of workers for an engine that has those of its cluster.

        Raises:
            ConfigError: there is one.
        """
        if self.workers is not None and self.is_remote:
            raise ConfigError(f"the engine {REMOTE} has the workers of its cluster; leave out the number of workers")

    @property
    def is_remote(self) -> bool:
        """Whether the workers are those of a scheduler."""
        return is_remote(self.engine, self.scheduler)

    def open(self, workers: int) -> Engine:
        """Return the engine, with so many workers if the caller chose neither a number nor an engine."""
        if self.workers is not None:
            workers = self.workers
        elif self.engine is not None:
            workers = all_cores()
        return open_engine(workers, self.engine, scheduler=self.scheduler)
