"""Engines by name, chosen here and nowhere else.

An engine is one file with a class like `Engine`, called with the number of workers. `dispatch_tasks` does the rest for
all of them: a few tasks for each worker, and the search for the task that kills its worker.
"""

from __future__ import annotations

from collections.abc import Callable

from featurestore.engines.base import Engine
from featurestore.registry import Registry

ENGINES = Registry[Callable[[int], Engine]](
    "engine",
    "featurestore.engines",
    {"inline": "featurestore.engines.inline:InlineEngine", "local": "featurestore.engines.local:LocalEngine"},
)


def open_engine(workers: int, name: str | None = None) -> Engine:
    """Return the engine called ``name``, with a number of workers.

    Without a name that is ``local``, processes of this machine; or with 0 workers ``inline``, which works in this
    process, without protection against crashes.

    Raises:
        ConfigError: there is no such engine; the message lists them.
        PluginError: the package that provides it can't be loaded.
    """
    return ENGINES.find(name or ("local" if workers else "inline"))(workers)
