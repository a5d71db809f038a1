"""The rooms of the package: their doors, the page that shows them, and where the SQL on the catalog is.

`make lint` checks that imports go down only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.draw_rooms import PAGE, page
from featurestore.catalog.schema import Base
from featurestore.catalog.statements import DATASET_COLUMNS

PACKAGE = Path(__file__).parent.parent / "featurestore"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.pyi").is_file())


@cache
def nodes(text: str) -> list[ast.AST]:
    """The imports, the strings and the uses of SQLAlchemy in a module: to parse all modules takes a second."""
    wanted = (ast.Import, ast.ImportFrom, ast.Constant, ast.Attribute)
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, wanted)
        and (not isinstance(node, ast.Constant) or isinstance(node.value, str))
        and (not isinstance(node, ast.Attribute) or node.attr in STATEMENTS)
    ]


def past_the_door(text: str, room: str | None) -> Iterator[str]:
    """Yield what a module of a room imports from the inside of another room."""
    for node in nodes(text):
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


@cache
def imports(path: Path) -> list[ast.ImportFrom]:
    """Return what a module imports by name, wherever in it."""
    return [node for node in nodes(path.read_text("utf-8")) if isinstance(node, ast.ImportFrom)]


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
        for node in imports(path)
        if node.module == f"featurestore.{room}"
        for alias in node.names
    }
    assert offered - used <= {"FeatureStore"}  # the root finds it by its name
    assert used <= offered


def test_the_page_shows_the_rooms_of_today() -> None:
    text = PAGE.read_text("utf-8")
    assert page(text) == text, "make rooms draws it"


TABLES = "|".join(table.name for table in Base.metadata.sorted_tables)
SQL = re.compile(rf"\b(?:FROM|JOIN|INTO|UPDATE|TABLE)\s+(?:{TABLES}|{DATASET_COLUMNS})\b")
STATEMENTS = {"text", "select", "insert", "update", "delete"}  # of SQLAlchemy
# What people may ask of the views, which bear the names of tables: as an example, a hint, or for them.
ASKED_OF_VIEWS = {
    "apps/all_pairs.py": ["SELECT chunk_id, payload FROM partitions WHERE stage"],
    "apps/evaluation.py": ["SELECT filename FROM images"],
    "apps/tuning_sample.py": ["SELECT chunk_id, payload FROM partitions WHERE stage"],
    "cli/demo.py": ["FROM descriptor_counts JOIN images USING", "FROM models WHERE stage = 'fit_pca' AND current"],
    "cli/named.py": ["SELECT filename FROM images WHERE starts_with"],
    "exchange/export.py": ["look at them with: SELECT * FROM images"],
    "pipeline/extract_run.py": ["SELECT versions, origin FROM partitions"],
    "query/explain.py": ["is a column of images: FROM images JOIN"],
    "query/sql.py": ['ask one like "SELECT count(*) FROM images"'],
    "query/status.py": ["see: SELECT DISTINCT versions FROM partitions"],
}
# Rooms and modules of which tables of their own have such names, and the rest.
ELSEWHERE = (
    "apps/html_report/",
    "apps/plots.py",
    "apps/viewer/",
    "catalog/",
    "dataset/",
    "exchange/exporters/colmap.py",
    "exchange/importers/colmap_database.py",
)


def sql_on_tables(text: str, viewed: Iterable[str] = ()) -> Iterator[str]:
    """Yield the SQL on tables of the catalog that a module has, but for questions to the views."""
    for node in nodes(text):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            said = node.value
            for question in viewed:
                said = said.replace(question, "")
            yield from SQL.findall(said)
        elif isinstance(node, ast.Attribute) and node.attr in STATEMENTS and ast.unparse(node.value) == "sa":
            yield f"sa.{node.attr}"


def test_sql_on_the_catalog_is_in_the_catalog() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(ELSEWHERE):
            found += [f"{name}: {sql}" for sql in sql_on_tables(path.read_text("utf-8"), ASKED_OF_VIEWS.get(name, ()))]
    assert found == [], "give the question a function in catalog/ with a typed result"


def test_questions_to_the_views_are_still_asked() -> None:
    for name, questions in ASKED_OF_VIEWS.items():
        text = (PACKAGE / name).read_text("utf-8")
        assert [question for question in questions if question not in text] == []


@pytest.mark.parametrize(
    "source",
    [
        'query = "SELECT path FROM models"',
        'query = f"SELECT {x} FROM names n LEFT JOIN images i ON {y}"',
        'query = """UPDATE\n  runs SET outcome = 1"""',
        "connection.execute(sa.delete(Partition))",
    ],
)
def test_sql_on_a_table_is_found(source: str) -> None:
    assert len(list(sql_on_tables(source))) == 1


@pytest.mark.parametrize(
    "source", ['"""Return what is read from images."""', 'query = "SELECT * FROM _images"', "x: sa.Connection"]
)
def test_what_is_no_sql_on_a_table_is_not_found(source: str) -> None:
    assert list(sql_on_tables(source)) == []
