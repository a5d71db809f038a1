"""The rooms of the package: their doors, and the page that shows them. `make lint` checks that imports go down only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.draw_rooms import PAGE, page

PACKAGE = Path(__file__).parent.parent / "featurestore"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.pyi").is_file())


def past_the_door(text: str, room: str | None) -> Iterator[str]:
    """Yield what a module of a room imports from the inside of another room."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = [node.module or "", *(name for name in names if is_module(name))]
        elif isinstance(node, ast.Import):
            inside = [alias.name for alias in node.names]
        else:
            continue
        for name in inside:
            package, *parts = name.split(".")
            if package == "featurestore" and len(parts) > 1 and parts[0] in ROOMS and parts[0] != room:
                yield name


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def test_a_room_is_entered_by_its_door() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        room = parts[0] if len(parts) > 1 else None
        found += [f"{path.relative_to(PACKAGE)}: {name}" for name in past_the_door(path.read_text("utf-8"), room)]
    assert found == [], "import from the room itself; if a name is missing there, add it to its __init__.pyi"


@pytest.mark.parametrize(
    "source",
    [
        "from featurestore.storage.root import Root",
        "from featurestore.storage import root",
        "import featurestore.storage.root",
        "def f():\n    from featurestore.storage.root import Root",
    ],
)
def test_a_way_past_the_door_is_found(source: str) -> None:
    assert len(list(past_the_door(source, "catalog"))) == 1
    assert list(past_the_door(source, "storage")) == []


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_offers_is_used_by_others(room: str) -> None:
    offered = {
        alias.name
        for node in ast.parse((PACKAGE / room / "__init__.pyi").read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    used = {
        alias.name
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(PACKAGE / room)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == f"featurestore.{room}"
        for alias in node.names
    }
    assert offered - used <= {"FeatureStore"}  # the root finds it by its name
    assert used <= offered


def test_the_page_shows_the_rooms_of_today() -> None:
    text = PAGE.read_text("utf-8")
    assert page(text) == text, "make rooms draws it"
