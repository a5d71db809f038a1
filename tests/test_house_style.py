"""The rules of the house that neither ruff nor mypy knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from featurestore.catalog.table_rows import Outcome
from featurestore.rows import Status

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "featurestore").rglob("*.py"))
OTHERS = sorted(
    path for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")] if path != Path(__file__)
)
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
MAX_LINES = 350
MAX_BYTES = 300_000
MAX_PICTURE_BYTES = 100_000

# Nothing that is loaded can run code. The patterns are written so that they do not match themselves.
RUNS_CODE = {"pickle.load", "pickle.loads", "joblib.load", "cloudpickle.load", "cloudpickle.loads", "eval", "exec"}
LAST_NAMES = {name.rpartition(".")[2] for name in RUNS_CODE}  # to unparse every call takes a second
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")
# Words that read like a translation: say "again", "any process that", "no process", "the existing files".
ODD_WORDS = re.compile(
    r"\b(anew|whoever|nobody|deaf|unheard|what is there|(is|are|was|were) to be|fewer than no|lets? go of)\b",
    re.IGNORECASE,
)
ODD_BEGINNINGS = re.compile(r"(what|who|how|say|make sure)\b", re.IGNORECASE)  # of a docstring: name the thing
VALUES = {str(value) for kind in (Status, Outcome) for value in kind}
IN_CODE = re.compile(r"`[^`\n]*`")  # names of tests, for example
OF_ONE_MACHINE = re.compile(r"(?<![\w.])/(?:work|root|Users)/|helper[ ]session|shared[/]design", re.IGNORECASE)


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout: there is no telling which files belong to the project")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def calls_that_run_code(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            last = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if last in LAST_NAMES and ast.unparse(node.func) in RUNS_CODE:
                yield f"line {node.lineno}: {ast.unparse(node.func)}"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    yield f"line {node.lineno}: allow_pickle"
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names} & RUNS_CODE
            yield from (f"line {node.lineno}: {name}" for name in sorted(names))


def swallowed_errors(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            does_nothing = all(isinstance(step, ast.Pass) for step in node.body)
            if does_nothing and caught in {"everything", "Exception", "BaseException"}:
                yield f"line {node.lineno}: catches {caught} and passes"


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


@pytest.fixture(scope="module", autouse=True)
def forgetting() -> Iterator[None]:
    """Keep no trees for the tests of other modules."""
    yield
    tree_of.cache_clear()
    text_of.cache_clear()


def in_modules(rule: Callable[[Path], Iterable[str]], paths: Sequence[Path] = MODULES) -> dict[str, list[str]]:
    """Return what a rule finds, by file: a test for each of a thousand files takes longer than the rules."""
    found = {str(path.relative_to(ROOT)): list(rule(path)) for path in paths}
    return {name: lines for name, lines in found.items() if lines}


def test_modules_are_small_and_safe() -> None:
    def rule(path: Path) -> Iterator[str]:
        text, tree = text_of(path), tree_of(path)
        if not ast.get_docstring(tree):
            yield "a module starts with a docstring"
        if len(text.splitlines()) >= MAX_LINES:
            yield "a module is read in one sitting: split it"
        if UNFINISHED.search(text):
            yield "finish it, or open an issue"
        if "testing" not in path.parts:  # which pickles what it unpickles
            yield from calls_that_run_code(tree)
        yield from swallowed_errors(tree)

    assert len(MODULES) > 100
    assert in_modules(rule) == {}


def test_text_is_for_everybody() -> None:
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data:
            hits = OF_ONE_MACHINE.findall(data.decode("utf-8", errors="replace"))
            found += [f"{path.relative_to(ROOT)}: {hit}" for hit in hits]
    assert found == [], "paths and words that mean something on one machine only"


def odd_words(text: str) -> Iterator[str]:
    for found in ODD_WORDS.finditer(text := IN_CODE.sub("", text)):
        yield " ".join(text[: found.start()].split()[-4:]) + " " + found[0]


def test_it_is_plain_english() -> None:
    assert in_modules(lambda path: odd_words(text_of(path)), [*MODULES, *OTHERS, *PAGES]) == {}


def bare_statuses(tree: ast.Module) -> Iterator[str]:
    """Comparisons with the text of a status: the enum's members have names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = [one for side in sides for one in getattr(side, "elts", [side])]
            found = [one.value for one in texts if isinstance(one, ast.Constant) and one.value in VALUES]
            yield from (f"line {node.lineno}: {text!r}" for text in found)


def test_statuses_and_outcomes_have_names() -> None:
    without = [path for path in MODULES if "testing" not in path.parts]  # what plug-ins return is compared there
    assert in_modules(lambda path: bare_statuses(tree_of(path)), without) == {}


def odd_docstrings(tree: ast.Module) -> Iterator[str]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    texts = (ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds))
    yield from (text for text in texts if ODD_BEGINNINGS.match(text))


def test_docstrings_name_the_thing() -> None:
    assert in_modules(lambda path: odd_docstrings(tree_of(path))) == {}


def test_pictures_of_the_documentation_are_small_and_shown() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size < MAX_PICTURE_BYTES, path
        assert f"images/{path.name})" in text, f"no page shows {path}"


def test_files_are_small() -> None:
    large = [str(path.relative_to(ROOT)) for path in tracked_files() if path.stat().st_size > MAX_BYTES]
    assert large == [], f"no file over {MAX_BYTES} bytes: make it, or find it where it is installed"


@pytest.mark.parametrize(
    "source",
    ["import pickle; pickle.load(f)", "from joblib import load", "np.load(f, allow_pickle=True)", "eval('1')"],
)
def test_loading_that_runs_code_is_found(source: str) -> None:
    assert len(list(calls_that_run_code(ast.parse(source)))) == 1


@pytest.mark.parametrize("what", ["", " Exception", " BaseException"])
def test_swallowed_errors_are_found(what: str) -> None:
    assert len(list(swallowed_errors(ast.parse(f"try:\n    f()\nexcept{what}:\n    pass")))) == 1


def test_what_is_odd_is_found() -> None:
    """Each rule of the words finds something, and reads all of a text."""
    found = list(odd_words("It is made `anew` by whoever is there. Do it anew, but `whoever` in code is a name."))
    assert found == ["It is made by whoever", "is there. Do it anew"]
    assert list(bare_statuses(ast.parse("a == 'ok' or b in ('ok', 'x')"))) == ["line 1: 'ok'"] * 2
    assert list(odd_docstrings(ast.parse('def f():\n    """Say it."""'))) == ["Say it."]
