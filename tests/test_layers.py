"""Imports go down only, and stages stand alone.

LAYERS is the architecture in one table. A new module fails this test until it has a place in it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "featurestore"

# Top to bottom. A module imports from its own line and from the lines below, never from those above.
# A package stands for everything in it: "stages" is also stages.extract. "__init__" is `from featurestore import ...`.
LAYERS = [
    "__main__ cli demo __init__",
    "cli_ask cli_exchange cli_upkeep cli_shared",
    "text text_upkeep",
    "store",
    "reading upkeep opened",
    "runner load lookup encode info export exporters import_npz ingest intake status recover "
    "verify repair rebuild merge prune untrusted child sources chunk_run extraction forecast",
    "selection query views exact vectors answers",
    "fits assembly blocks estimate",
    "records plan learnt snapshot ledger dataset_columns",
    "context tasks",
    "blockfile imagerow",
    "stages",
    "extractors engines catalog",
    "trouble",
    "tables partition partition_writer models index storage manifest lock lease config dataset imagefile imagefolder "
    "samples progress csv_file dataset_file given_types columns split memory npz unpickle damage decoding decoder "
    "diagnosis spill whereabouts",
    "failure",
    "paths scratch access offspring",
    "timelimit errors at_exit wording streams interrupt instance blas _version",
]

# What a stage or an extractor sees are arrays and tables, so that it runs the same in a unit test and on a cluster.
FORBIDDEN = {
    "stages": {"storage", "catalog", "tables", "engines"},
    "extractors": {"storage", "catalog", "tables", "engines"},
}

LEVEL = {name: level for level, line in enumerate(LAYERS) for name in line.split()}


def module_name(path: Path, package: Path) -> str:
    """``stages.extract`` for ``featurestore/stages/extract.py``, ``stages`` for its ``__init__.py``."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imported_paths(node: ast.stmt, path: Path, package: Path) -> Iterator[list[str]]:
    """Every dotted name that an import statement may stand for, in its parts: ``["featurestore", "stages", "pca"]``."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        here = ["featurestore", *path.relative_to(package).parts[:-1]]
        base = here[: len(here) - node.level + 1] if node.level else []
        for alias in node.names:
            yield [*base, *(node.module or "").split("."), alias.name] if node.module else [*base, alias.name]


def imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and first name below ``featurestore`` of whatever is imported, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for root, *rest in imported_paths(node, path, package):
            if root == "featurestore":
                known = bool(rest) and (rest[0] in LEVEL or is_module(package, rest[0]))
                yield node.lineno, rest[0] if known else "__init__"


def is_module(package: Path, name: str) -> bool:
    return (package / f"{name}.py").is_file() or (package / name).is_dir()


def complaints(package: Path) -> list[str]:
    """One line for every module without a place and for every import that goes up."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = module_name(path, package)
        top = module.split(".")[0]
        if top == "migrations":
            continue
        if top not in LEVEL:
            found.append(f"featurestore/{path.relative_to(package)}: place it in LAYERS, in tests/test_layers.py")
            continue
        for line, target in imports(path, package):
            where = f"featurestore/{path.relative_to(package)}:{line}"
            if target not in LEVEL:
                found.append(f"{where} imports {target}: place it in LAYERS, in tests/test_layers.py")
            elif LEVEL[target] < LEVEL[top]:
                found.append(f"{where} imports {target}, which is above {top}: imports go down only")
            elif target in FORBIDDEN.get(top, ()):
                found.append(f"{where} imports {target}, and {top} see arrays and tables only")
    return list(dict.fromkeys(found))


def test_imports_go_down_only() -> None:
    found = complaints(PACKAGE)
    assert not found, "\n" + "\n".join(found)


def test_no_module_stands_in_two_layers() -> None:
    names = " ".join(LAYERS).split()
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("catalog.py", "from featurestore import runner", "imports runner, which is above catalog"),
        ("catalog.py", "from featurestore import FeatureStore", "imports __init__, which is above catalog"),
        ("catalog.py", "import featurestore.store as s", "imports store, which is above catalog"),
        ("catalog.py", "def f():\n    from .store import FeatureStore", "catalog.py:2 imports store"),
        ("stages/pca.py", "from ..plan import needed", "imports plan, which is above stages"),
        ("stages/pca.py", "from ..catalog import Catalog", "stages see arrays and tables only"),
        ("extractors/sift.py", "from featurestore.storage import Root", "extractors see arrays and tables only"),
        ("newcomer.py", "", "newcomer.py: place it in LAYERS"),
        ("utils/text.py", "", "utils/text.py: place it in LAYERS"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    assert [complaint in line for line in complaints(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("stages/pca.py", "from . import base\nfrom .base import Stage\nfrom ..errors import NotReady"),
        ("cli.py", "import numpy\nfrom featurestore import FeatureStore\nfrom featurestore.stages.pca import FitPca"),
    ],
)
def test_what_is_right_passes(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    assert complaints(tmp_path) == []
