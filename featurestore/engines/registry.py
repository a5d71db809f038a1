"""Engines by name, chosen here and nowhere else.

An engine is one file with a class like `Engine`, called with the number of workers. `dispatch_tasks` does the rest for
all of them: a few tasks for each worker, and the search for the task that kills its worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from featurestore.engines.base import Engine
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
