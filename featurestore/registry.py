"""Registries: plug-ins by name, built in or of an installed package.

A package registers a plug-in by an entry point in its ``pyproject.toml``::

    [project.entry-points."featurestore.extractors"]
    superpoint = "my_package.superpoint:SuperPoint"

Entry points are read when a name is asked for, and a module is imported when its own name is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from featurestore.errors import ConfigError, FeatureStoreError, PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind of plug-in, by name."""

    def __init__(
        self, kind: str, group: str, built_in: Mapping[str, str], *, error: type[FeatureStoreError] = ConfigError
    ) -> None:
        """Take what is built in; nothing is read or imported yet.

        Args:
            kind: what people call them, in the singular.
            group: of the entry points of packages.
            built_in: by name, where each is, as an entry point says it: ``module:class``.
            error: that is raised for an unknown name.
        """
        self._kind, self._group, self._built_in, self._error = kind, group, built_in, error
        self._loaded: dict[str, T] = {}

    @cached_property
    def _entries(self) -> dict[str, list[EntryPoint]]:
        from importlib.metadata import EntryPoint, entry_points

        entries = {name: [EntryPoint(name, value, self._group)] for name, value in self._built_in.items()}
        for found in sorted(entry_points(group=self._group), key=lambda found: (found.name, found.value)):
            entries.setdefault(found.name, []).append(found)
        return entries

    def names(self) -> tuple[str, ...]:
        """Return all names: first those that are built in."""
        return tuple(self._entries)

    def find(self, name: str) -> T:
        """Return the class called ``name``.

        Raises:
            FeatureStoreError: nothing has this name; the message lists the names.
            PluginError: two packages bring it, or what is installed can't be used.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T:
        found = self._entries.get(name)
        if found is None:
            raise self._error(
                f"there is no {self._kind} {name!r}; the {self._kind}s are {', '.join(self.names())}. If a package "
                f"brings it (as an entry point of {self._group}), install that into this Python with: pip install"
            )
        if len(found) > 1:
            raise PluginError(
                f"there is more than one {self._kind} {name!r}: {' and '.join(map(_origin, found))}; uninstall all but "
                f"one. The {self._kind}s are {', '.join(self.names())}"
            )
        try:
            loaded: Any = found[0].load()
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise PluginError(
                f"the {self._kind} {name!r} of {_origin(found[0])} can't be loaded ({reason}); reinstall the package, "
                "with all that it needs"
            ) from error
        if getattr(loaded, "name", name) != name:
            raise PluginError(
                f"the {self._kind} {name!r} of {_origin(found[0])} calls itself {loaded.name!r}; give its class and "
                "its entry point one name"
            )
        return loaded  # type: ignore[no-any-return]


def _origin(found: EntryPoint) -> str:
    package = f"{found.dist.name} {found.dist.version}" if found.dist is not None else "featurestore itself"
    return f"{package} ({found.value})"
