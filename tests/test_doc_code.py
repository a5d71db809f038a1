"""The code blocks of the README and of every page are run, all on one small store of paintings."""

from __future__ import annotations

import builtins
import doctest
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest

from featurestore import FeatureStore
from featurestore.cli.program import cli
from featurestore.stages import flow_from
from tests.broken_images import encoded, picture
from tests.once import copied
from tests.small import small_store, write_dataset

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What can't be run here, by page and by a piece of text that is in one block of it, and why.
SKIPPED = {
    ("colmap.md", "pycolmap.match_exhaustive"): "minutes of matching; tests/exchange/test_colmap.py has the database",
    ("export.md", "import polars"): "needs polars, an extra that the tests do without",
    ("hloc.md", "match_features.main"): "hloc is not on any registry",
    ("loading.md", "DataLoader"): "a module for torch; below where it is installed, and in tests/test_doc_loading.py",
    ("plugins.md", "class Corners"): "a package of its own; tests/plugins/test_doc_plugins.py makes it",
    ("plugins.md", "class Unit"): "a part of a module",
    ("plugins.md", "ExtractorContract):"): "a package of its own; tests/plugins/test_doc_plugins.py makes it",
    ("sources.md", "embed_table_storage"): "needs datasets, of Hugging Face",
    ("sources.md", "EXCLUDE (file)"): "needs the files of img2dataset",
    ("sources.md", "style_train.csv"): "needs the lists of ArtGAN",
}
RECIPE: dict[str, dict[str, Any]] = {"fit_pca": {"samples_per_image": 300}, "project": {"top": 200}}
PAINTINGS = """filename,subset,artist,title,year,style,genre,photo
monet/lilies.jpg,train,Claude Monet,Water Lilies,1906,Impressionism,landscape,a
monet/1872-impression.jpg,train,Claude Monet,Impression,1872,Impressionism,landscape,a
monet/wisteria.jpg,train,Claude Monet,Wisteria,1925,Impressionism,flowers,b
degas/class.jpg,train,Edgar Degas,The Dance Class,1874,Impressionism,interior,b
constable/wain.jpg,test,John Constable,The Hay Wain,1821,Romanticism,landscape,b"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks() -> Iterator[Block]:
    for path in PAGES:
        for number, found in enumerate(BLOCK.finditer(path.read_text(encoding="utf-8"))):
            yield Block(path.name, number, found[1], found[2])


ALL = list(blocks())


def reason(block: Block) -> str | None:
    return next((why for (page, text), why in SKIPPED.items() if page == block.page and text in block.code), None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with a finished store ``wikiart``, and the other files that the pages speak of."""

    def make(folder: Path) -> None:
        images = folder / "paintings"
        for seed, line in enumerate(PAINTINGS.splitlines()[1:]):
            path = images / line.partition(",")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(".png", picture(seed=seed)))
        write_dataset(images, PAINTINGS.splitlines())
        store = small_store(folder / "wikiart", images, recipe=RECIPE)
        store.run(workers=0)
        store.export(folder / "codes.parquet", "parquet")
        store.export(folder / "flat.parquet", "parquet-flat")

    folder = copied(tmp_path_factory, "paintings", make)
    for name in ("detail.jpg", "query.jpg", "somewhere/else.jpg", "demo/images/china/whole-000.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "paintings" / "monet/lilies.jpg", folder / name)
    (folder / "pairs.csv").write_text("query,ref,inliers,score,status\na.jpg,b.jpg,88,120.4417,found\n", "utf-8")
    shutil.copytree(folder / "wikiart", folder / "demo" / "store")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def test_what_is_skipped_is_one_block_each() -> None:
    found = {key: [block for block in ALL if key == (block.page, key[1]) and key[1] in block.code] for key in SKIPPED}
    assert {key: len(each) for key, each in found.items()} == dict.fromkeys(SKIPPED, 1)


@pytest.mark.parametrize("page", sorted({block.page for block in ALL if block.language == "python"}))
def test_python_runs(page: str, place: Path) -> None:
    """Blocks of a page share their names, as for a reader who types them one after the other."""
    names: dict[str, Any] = {"store": FeatureStore("wikiart"), "__builtins__": builtins}
    for block in ALL:
        if block.page == page and block.language == "python" and reason(block) is None:
            run(block, names)


def run(block: Block, names: dict[str, Any]) -> None:
    if ">>>" in block.code:  # what they print is of another store
        code = "".join(example.source for example in doctest.DocTestParser().get_examples(block.code))
    else:
        code = block.code
    types.FunctionType(compile(code, str(block), "exec"), names)()


@pytest.mark.skipif(
    find_spec("torch") is None, reason="torch is not installed: too large for a dependency of the tests"
)
def test_the_module_for_torch_runs(place: Path) -> None:
    (block,) = (block for block in ALL if block.page == "loading.md" and "DataLoader" in block.code)
    (place / "reader.py").write_text(block.code, "utf-8")
    done = subprocess.run([sys.executable, "reader.py"], capture_output=True, text=True, check=True)
    train = FeatureStore("wikiart").select(where="subset = 'train'")
    assert sorted(int(line.split()[0]) for line in done.stdout.splitlines()) == train.image_ids.tolist()


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "sql" and reason(b) is None], ids=str)
def test_sql_runs(block: Block, place: Path) -> None:
    if ".parquet'" not in block.code:
        assert FeatureStore("wikiart").sql(block.code).columns
        return
    with duckdb.connect() as connection:  # DuckDB's own SQL, on files
        for statement in connection.extract_statements(block.code):
            values = dict.fromkeys(statement.named_parameters, [0.0] * 64)
            assert connection.execute(statement, values).fetchall()


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "toml" and reason(b) is None], ids=str)
def test_toml_is_a_recipe_or_a_project(block: Block) -> None:
    tables = tomllib.loads(block.code)
    assert "project" in tables or flow_from({name: table for name, table in tables.items() if name != "store"})


def commands() -> Iterator[tuple[str, str]]:
    """Yield the page and the text of every command that it shows: in blocks, indented, and in the text."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        fenced = "".join(found[2] for found in BLOCK.finditer(text)).replace("\\\n", " ")
        shown = re.findall(r"^(?:\$ )?featurestore ([^\n#]*(?:\n  [^\n]*)*)", fenced, re.MULTILINE)
        shown += re.findall(r"^    featurestore ([^\n#]*)", BLOCK.sub("", text), re.MULTILINE)
        shown += re.findall(r"`featurestore ([^`]+)`", BLOCK.sub("", text))
        yield from ((path.name, command) for command in shown)


@pytest.mark.parametrize("page", sorted({page for page, _ in commands()}))
def test_commands_exist_with_their_options(page: str) -> None:
    for name, line in commands():
        verb, *_ = line.split()
        if name == page and verb not in {"COMMAND", "--help"}:
            assert verb in cli.commands, line
            options = {option for param in cli.commands[verb].params for option in param.opts} | {"--help"}
            unquoted = re.sub(r"\"[^\"]*\"|'[^']*'", "", line)
            assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", unquoted)) <= options, line
