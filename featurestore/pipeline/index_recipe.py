"""The recipe of a store with an index: the tables of its stages, added once."""

from __future__ import annotations

import shutil

from featurestore.catalog import WritableContext
from featurestore.config import initial, render
from featurestore.stages import INDEX
from featurestore.storage import CONFIG


def add_index(context: WritableContext) -> tuple[str, ...]:
    """Add the tables of the index's stages that the recipe lacks, and return their names; the rest stays as it is."""
    there = {stage.name for stage in context.flow}
    added = [stage for stage in INDEX if stage.name not in there]
    if added:
        path = context.root.local(CONFIG)
        rendered = render([(stage.name, initial(stage)) for stage in added])
        tables = rendered[rendered.index("\n[") :]  # without the comment at the top of a new recipe
        text = path.read_text(encoding="utf-8").rstrip("\n") + "\n" + tables
        with context.root.publishing(CONFIG) as temporary:
            temporary.write_text(text, encoding="utf-8")
            shutil.copymode(path, temporary)
    return tuple(stage.name for stage in added)
