"""Draw the rooms of the package from its imports, into ``docs/architecture.md``: ``make rooms``."""

from __future__ import annotations

import re
from pathlib import Path

import grimp

PAGE = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- drawn from the imports -->\n", "<!-- end of the drawing -->\n"
WIDTH = 100
ENTRANCE = "__main__"


def drawing() -> str:
    """Return the floors as boxes, the highest first, and below them what each room imports.

    A room stands one floor above the highest room that it imports.
    """
    graph = grimp.build_graph("featurestore", cache_dir=None)
    rooms = sorted(graph.find_children("featurestore") - {f"featurestore.{ENTRANCE}", "featurestore._version"})
    imports = {
        room: sorted(other for other in rooms if other != room and _imports(graph, room, other)) for room in rooms
    }
    floors: dict[int, list[str]] = {}
    for room in rooms:
        floors.setdefault(_floor(room, imports), []).append(room)
    boxes = "".join(_row([_label(graph, room) for room in floors[floor]]) for floor in sorted(floors, reverse=True))
    lines = [f"{_name(room)}: {', '.join(map(_name, found))}" for room, found in imports.items() if found]
    return f"```\n{boxes}```\n\nWhat each imports:\n\n```\n" + "\n".join(lines) + "\n```\n"


def _imports(graph: grimp.ImportGraph, room: str, other: str) -> bool:
    return graph.direct_import_exists(importer=room, imported=other, as_packages=True)


def _floor(room: str, imports: dict[str, list[str]]) -> int:
    # import-linter has refused circles, in which no room would have a floor
    return 1 + max((_floor(other, imports) for other in imports[room]), default=0)


def _label(graph: grimp.ImportGraph, room: str) -> str:
    n = len(graph.find_descendants(room))
    return f"{_name(room)} ({n})" if n else _name(room)


def _name(room: str) -> str:
    return room.removeprefix("featurestore.")


def _row(labels: list[str]) -> str:
    width = (WIDTH - 1) // len(labels) - 1
    edge = "+" + "+".join("-" * width for _ in labels) + "+\n"
    return f"{edge}|{'|'.join(label.center(width) for label in labels)}|\n{edge}"


def page(text: str) -> str:
    """Return the text of the page with the drawing of today."""
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{drawing()}\n{END}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
