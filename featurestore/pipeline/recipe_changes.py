"""Changes of a store's recipe: the tables of an index, added once, and other values of parameters."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from typing import Any

from featurestore.catalog import WritableContext
from featurestore.config import initial, render
from featurestore.errors import ConfigError
from featurestore.stages import INDEX, flow_from
from featurestore.storage import CONFIG


def add_index(context: WritableContext) -> tuple[str, ...]:
    """Add the tables of the index's stages that the recipe lacks, and return their names; the rest stays as it is."""
    there = {stage.name for stage in context.flow}
    added = [stage for stage in INDEX if stage.name not in there]
    if added:
        rendered = render([(stage.name, initial(stage)) for stage in added])
        tables = rendered[rendered.index("\n[") :]  # without the comment at the top of a new recipe
        text = context.root.local(CONFIG).read_text(encoding="utf-8")
        _write(context, text.rstrip("\n") + "\n" + tables)
    return tuple(stage.name for stage in added)


def change_recipe(context: WritableContext, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Change parameters of stages in the recipe; its comments and all other lines stay.

    Raises:
        ConfigError: there is no such stage or parameter, or a value can't be used; the recipe is unchanged.
    """
    import tomlkit

    flow = {stage.name: stage for stage in context.flow}
    document: Any = tomlkit.parse(context.root.local(CONFIG).read_text(encoding="utf-8"))
    for stage, values in changes.items():
        if stage not in flow:
            raise ConfigError(f"there is no stage {stage!r} in the recipe; its stages are {', '.join(flow)}")
        table = document.setdefault(stage, tomlkit.table())
        for name, value in values.items():
            table[name] = value  # tomlkit keeps the comment of the line
    text = tomlkit.dumps(document)
    flow_from({name: table for name, table in tomllib.loads(text).items() if name != "store"})  # refuses bad values
    _write(context, text)


def _write(context: WritableContext, text: str) -> None:
    path = context.root.local(CONFIG)
    with context.root.publishing(CONFIG) as temporary:
        temporary.write_text(text, encoding="utf-8")
        shutil.copymode(path, temporary)
